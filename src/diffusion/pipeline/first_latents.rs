//! The first latents of a generation: noise alone, or a picture with noise on it.
//!
//! Follows diffusers' `StableDiffusionPipeline`, `…Img2ImgPipeline`, `…InpaintPipeline` and
//! `…InstructPix2PixPipeline`, including the order of random numbers: first for the picture's latents, then for the
//! noise, then for the masked picture's latents.

use ndarray::{Array4, Axis, Zip, concatenate};

use super::stretched_latents::stretched;
use crate::diffusion::nets::Posterior;
use crate::diffusion::noise::BatchNoise;
use crate::diffusion::schedulers::{Scheduler, SchedulerError};
use crate::domain::InpaintFill;

/// The pictures of a request, encoded.
#[derive(Default)]
pub(super) struct Given {
    /// The picture to start from. If its latents have another size, they are stretched.
    pub image: Option<Posterior>,
    /// Clean latents that a second pass starts from, where the mask does not keep the picture: `[images, channels, h, w]`.
    pub enlarged: Option<Array4<f32>>,
    /// How much of it may change.
    pub strength: f64,
    /// `[1, 1, h, w]`, 1 where it is repainted.
    pub mask: Option<Array4<f32>>,
    /// What the repainted latents of the picture are replaced by.
    pub fill: InpaintFill,
    /// The picture without the repainted part, for a UNet that takes it together with the mask.
    pub masked_image: Option<Posterior>,
    /// The picture to change, for a UNet that takes it beside the latents.
    pub edited_image: Option<Posterior>,
}

/// A generation's first latents, and the data that its steps need.
pub(super) struct FirstLatents {
    /// `[images, channels, h, w]`.
    pub latents: Array4<f32>,
    /// The first UNet call; the end of the schedule where the picture may not change.
    pub begin: usize,
    /// The UNet's input beside the latents: `[images, 1 + channels, h, w]` of a mask and a picture, or `[images, channels,
    /// h, w]` of a picture to change.
    pub conditioning: Option<Array4<f32>>,
    pub original: Option<Original>,
}

impl FirstLatents {
    /// `shape` is `(channels, h, w)` of the latents.
    pub fn new(
        given: Given,
        shape: (usize, usize, usize),
        steps: usize,
        scheduler: &Scheduler,
        noise: &mut BatchNoise,
    ) -> Result<Self, SchedulerError> {
        let Given { image, enlarged, strength, mask, fill, masked_image, edited_image } = given;
        if let Some(edited) = edited_image {
            let latents = noise.first(shape) * scheduler.init_noise_sigma();
            let shown = edited.mode();
            let Some(conditioning) = shown.broadcast(latents.dim()).map(|shown| shown.to_owned()) else {
                let (got, want) = (shown.shape().to_vec(), latents.shape().to_vec());
                return Err(SchedulerError::Shape { what: "picture", got, want });
            };
            return Ok(Self { latents, begin: 0, conditioning: Some(conditioning), original: None });
        }
        // The reference's `is_strength_max`, which its image-to-image pipeline does not have. A second pass starts from the
        // drawing whatever its strength.
        #[expect(clippy::float_cmp, reason = "exactly 1, as the reference compares")]
        let is_pure_noise = mask.is_some() && enlarged.is_none() && strength == 1.0;
        let begin =
            if image.is_some() || enlarged.is_some() { scheduler.begin_index(steps, strength) } else { 0 };

        let image = match image {
            Some(_) if is_pure_noise && masked_image.is_some() => None,
            image => image.map(|image| stretched(image.sample(noise), (shape.1, shape.2))),
        };
        let fresh = noise.first(shape);
        let image = match (image, enlarged, &mask) {
            (Some(image), Some(enlarged), Some(mask)) => Some(repainted(image, mask, &enlarged, 1.0)?),
            (Some(image), None, Some(mask)) => Some(filled(image, mask, fill, &fresh)?),
            (image, enlarged, _) => enlarged.or(image),
        };
        let conditioning = match (&mask, masked_image) {
            (Some(mask), Some(masked_image)) => Some(join(mask, &masked_image.sample(noise))?),
            (Some(_), None) => {
                // The reference draws random numbers for the masked picture's latents with any UNet.
                noise.randn(shape);
                None
            }
            (None, _) => None,
        };
        let latents = match &image {
            Some(image) if begin == scheduler.timesteps().len() => image.clone(),
            Some(image) if !is_pure_noise => scheduler.add_noise(image, &fresh, begin)?,
            _ => &fresh * scheduler.init_noise_sigma(),
        };
        let original = match (image, mask) {
            (Some(image), Some(mask)) if conditioning.is_none() => {
                Some(Original { image, noise: fresh, kept: 1.0 - mask })
            }
            _ => None,
        };
        Ok(Self { latents, begin, conditioning, original })
    }
}

/// The latents of a picture with its repainted part replaced. A1111's "latent noise" is that of the seed, with which the
/// generation begins as well.
fn filled(
    image: Array4<f32>,
    mask: &Array4<f32>,
    fill: InpaintFill,
    noise: &Array4<f32>,
) -> Result<Array4<f32>, SchedulerError> {
    let share = match fill {
        InpaintFill::Original | InpaintFill::Surroundings => return Ok(image),
        InpaintFill::Noise => 1.0,
        InpaintFill::Nothing => 0.0,
    };
    repainted(image, mask, noise, share)
}

/// The latents of a picture, with `share` of other latents where the mask repaints it.
fn repainted(
    mut image: Array4<f32>,
    mask: &Array4<f32>,
    by: &Array4<f32>,
    share: f32,
) -> Result<Array4<f32>, SchedulerError> {
    let Some(mask) = mask.broadcast(image.dim()) else {
        let (got, want) = (mask.shape().to_vec(), image.shape().to_vec());
        return Err(SchedulerError::Shape { what: "mask", got, want });
    };
    Zip::from(&mut image).and(mask).and(by).for_each(|x, &mask, &by| {
        *x = (1.0 - mask) * *x + mask * share * by;
    });
    Ok(image)
}

/// Concatenates mask and latents along the channels, for each image.
fn join(mask: &Array4<f32>, latents: &Array4<f32>) -> Result<Array4<f32>, SchedulerError> {
    let (images, _, height, width) = latents.dim();
    let mismatch =
        || SchedulerError::Shape { what: "mask", got: mask.shape().to_vec(), want: latents.shape().to_vec() };
    let mask = mask.broadcast((images, 1, height, width)).ok_or_else(mismatch)?;
    concatenate(Axis(1), &[mask, latents.view()]).map_err(|_| mismatch())
}

/// A picture of which only a part is repainted.
pub(super) struct Original {
    image: Array4<f32>,
    noise: Array4<f32>,
    /// `[1, 1, h, w]`: 1 where the picture stays.
    kept: Array4<f32>,
}

impl Original {
    /// Restores the picture where it stays: with the noise of call `next`, made from the noise that the generation began
    /// with; after the last call without noise.
    pub fn restore(
        &self,
        latents: &mut Array4<f32>,
        next: usize,
        scheduler: &Scheduler,
    ) -> Result<(), SchedulerError> {
        let noised = match next < scheduler.timesteps().len() {
            true => &scheduler.add_noise(&self.image, &self.noise, next)?,
            false => &self.image,
        };
        let Some(kept) = self.kept.broadcast(latents.dim()) else {
            let (got, want) = (self.kept.shape().to_vec(), latents.shape().to_vec());
            return Err(SchedulerError::Shape { what: "mask", got, want });
        };
        Zip::from(latents).and(noised).and(kept).for_each(|x, &original, &kept| {
            *x = kept * original + (1.0 - kept) * *x;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repainted_latents_are_replaced() {
        let (image, noise) = (Array4::from_elem((2, 4, 1, 2), 3.0), Array4::from_elem((2, 4, 1, 2), 5.0));
        let mask = Array4::from_shape_fn((1, 1, 1, 2), |(_, _, _, x)| if x == 0 { 0.0 } else { 1.0 });
        for (fill, value) in [
            (InpaintFill::Original, 3.0),
            (InpaintFill::Surroundings, 3.0),
            (InpaintFill::Noise, 5.0),
            (InpaintFill::Nothing, 0.0),
        ] {
            let filled = filled(image.clone(), &mask, fill, &noise).unwrap();
            let expected = Array4::from_shape_fn((2, 4, 1, 2), |at| if at.3 == 0 { 3.0 } else { value });
            assert_eq!(filled, expected, "{fill:?}");
        }
        assert!(filled(image, &Array4::zeros((1, 1, 3, 3)), InpaintFill::Nothing, &noise).is_err());
    }
}
