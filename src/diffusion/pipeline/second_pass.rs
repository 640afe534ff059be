//! Hires: a generation's second pass, from its first picture enlarged.
//!
//! When the first schedule has ended, [`Pipeline::step`] enlarges instead of calling the UNet, a piece at a time: the
//! latents at once, or for each picture its decoding, the tiles of a model, and its encoding. Then the second pass begins
//! as a generation of its own: from the enlarged latents, with noise on them, as image-to-image does. It begins with new
//! random numbers from the same seeds, at its own size, as A1111's `sample_hr_pass` does (modules/processing.py). It makes
//! the last `strength × steps` of its steps, as diffusers' image-to-image pipeline does; A1111 makes one more.
//!
//! A request's mask holds in both passes. The second one keeps what the mask keeps of the client's picture at the second
//! size, and starts from the enlarged drawing elsewhere. A1111 has no second pass with a mask.

use ndarray::{Array4, Axis, concatenate, s};

use super::drawn_prompts::drawn_prompts;
use super::enlarging::Enlarging;
use super::interpolate::interpolate;
use super::prepared::Prepared;
use super::{DiffusionError, Generation, Pipeline};
use crate::diffusion::schedulers::{self, Scheduler, SchedulerError};
use crate::domain::{DrawnPrompts, GenerationInput, ImageSize, Target, Upscaler};
use crate::runtime::is_out_of_memory;

/// What follows the first pass.
pub(super) struct SecondPass {
    /// The request of the second pass.
    input: GenerationInput,
    /// The prompts of each picture, if wildcards draw them.
    drawn: Vec<DrawnPrompts>,
    /// What the request was prepared with.
    prepared: Prepared,
    target: Target,
    upscaler: Upscaler,
    /// How far the picture is enlarged, in pieces.
    done: u32,
    pieces: u32,
    /// The steps of the second pass.
    steps: u32,
    enlarging: Option<Enlarging>,
    /// The latents of the pictures that are enlarged.
    enlarged: Vec<Array4<f32>>,
}

/// What a first pass has drawn.
pub(super) struct FirstDrawing {
    /// Its latents, enlarged, and cut to the size of the second pass.
    pub latents: Array4<f32>,
    pub target: Target,
    /// The size that was asked for.
    pub asked: ImageSize,
    /// The steps that were asked for.
    pub steps: u32,
}

/// What came before a second pass.
pub(super) struct FirstPass {
    /// The request.
    pub input: GenerationInput,
    pub drawn_at: ImageSize,
    pub drawn: Vec<DrawnPrompts>,
    /// All steps before the second pass.
    pub steps: u32,
}

impl SecondPass {
    pub fn upscaler(&self) -> &Upscaler {
        &self.upscaler
    }

    /// Steps done between the passes, and all that come after the first pass. The last piece is not counted, unless the
    /// second pass has no steps: the picture is not done before.
    pub fn progress(&self) -> (u32, u32) {
        (self.done.min(self.pieces - 1), self.pieces - 1 + self.steps.max(1))
    }

    /// The latents of the pictures that are enlarged, where there are any.
    pub fn enlarged(&self) -> &[Array4<f32>] {
        &self.enlarged
    }

    /// Goes on after pictures that were enlarged before, of so many in all.
    pub fn resume(&mut self, enlarged: Vec<Array4<f32>>, pictures: usize) {
        let whole = u32::try_from(enlarged.len()).unwrap_or(0);
        self.done = whole * (self.pieces / u32::try_from(pictures).unwrap_or(1).max(1));
        self.enlarged = enlarged;
    }
}

/// A piece for the decoder and one for the encoder.
const PIECES_BESIDE_TILES: u32 = 2;

impl Pipeline {
    /// The second pass that the request asks for, with what the first one was prepared with.
    pub(super) fn second_pass(
        &self,
        prepared: &Prepared,
        first: &GenerationInput,
        seed: u64,
    ) -> Result<Option<Box<SecondPass>>, DiffusionError> {
        let (Some(hires), Some(input)) = (&first.hires, first.second_pass()) else { return Ok(None) };
        let drawn = drawn_prompts(&input, seed, self.model.rules().wildcards.as_deref(), "hires.")?;
        let scheduler = self.scheduler(&input).map_err(|error| match hires.steps {
            Some(_) => error.of_steps_in("hires.steps"),
            None => error,
        })?;
        let steps = scheduler.timesteps().len()
            - scheduler.begin_index(input.num_inference_steps as usize, input.prompt_strength);
        let each = match &hires.upscaler {
            Upscaler::Latent(_) => None,
            Upscaler::Pixels(_) => Some(PIECES_BESIDE_TILES),
            Upscaler::Model(name) => {
                let scale = self.upscalers.look_at(name)?.scale;
                Some(
                    PIECES_BESIDE_TILES
                        + Enlarging::tiles(self.drawing_size(first), hires.target, scale, name)?,
                )
            }
        };
        Ok(Some(Box::new(SecondPass {
            target: hires.target,
            upscaler: hires.upscaler.clone(),
            done: 0,
            pieces: each.map_or(1, |each| each * first.num_outputs),
            steps: Generation::steps_of(steps, scheduler.timesteps().len(), input.num_inference_steps),
            enlarging: None,
            enlarged: Vec::new(),
            input,
            drawn,
            prepared: prepared.clone(),
        })))
    }

    pub(super) fn scheduler(&self, input: &GenerationInput) -> Result<Scheduler, SchedulerError> {
        schedulers::build(
            input.scheduler,
            &self.model.description.scheduler,
            input.num_inference_steps as usize,
            input.sampling,
        )
    }

    /// One piece of what lies between the passes. After the last one, `generation` is the second pass. What goes wrong
    /// concerns this generation alone, except for a lack of memory.
    pub(super) fn enlarge(&mut self, generation: &mut Generation) -> Result<(), DiffusionError> {
        match self.try_to_enlarge(generation) {
            Err(error) if !is_out_of_memory(&error.to_string()) => {
                generation.fault = Some(error.to_string());
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn try_to_enlarge(&mut self, generation: &mut Generation) -> Result<(), DiffusionError> {
        let Some(next) = &mut generation.next else { return Ok(()) };
        let latents = if let Upscaler::Latent(mode) = &next.upscaler {
            interpolate(&generation.latents, self.latent_size(next.target.covers), *mode)
        } else {
            let pictures = generation.latents.dim().0;
            // All of them are there already where the second pass could not begin for want of memory.
            if next.enlarged.len() < pictures {
                self.enlarge_pictures(&generation.latents, generation.drawn_at, next)?;
                next.done += 1;
                if next.enlarged.len() < pictures {
                    return Ok(());
                }
            }
            let views: Vec<_> = next.enlarged.iter().map(|latents| latents.view()).collect();
            concatenate(Axis(0), &views).map_err(|error| DiffusionError::Upscaling(error.to_string()))?
        };
        let latents = middle(&latents, self.latent_size(next.target.kept));
        if let Some(second) = self.begin_second(generation, latents)? {
            generation.become_second(second);
        }
        Ok(())
    }

    /// The second pass of `first`, if it has one, from enlarged latents.
    fn begin_second(
        &mut self,
        first: &Generation,
        latents: Array4<f32>,
    ) -> Result<Option<Generation>, DiffusionError> {
        let Some(next) = &first.next else { return Ok(None) };
        let (asked, steps) = (first.input.size, first.input.num_inference_steps);
        let drawing = FirstDrawing { latents, target: next.target, asked, steps };
        let drawn = (first.seed, next.drawn.clone());
        self.begin_pass(next.prepared.clone(), &next.input, drawn, Some(drawing)).map(Some)
    }

    /// The same before the first pass is drawn: its latents are still to come.
    pub(super) fn begin_second_empty(
        &mut self,
        first: &Generation,
    ) -> Result<Option<Generation>, DiffusionError> {
        let Some(next) = &first.next else { return Ok(None) };
        let (height, width) = self.latent_size(next.target.kept);
        let (images, channels, ..) = first.latents.dim();
        self.begin_second(first, Array4::zeros((images, channels, height, width)))
    }

    /// The next piece of the next picture.
    fn enlarge_pictures(
        &mut self,
        latents: &Array4<f32>,
        drawn_at: ImageSize,
        next: &mut SecondPass,
    ) -> Result<(), DiffusionError> {
        match &mut next.enlarging {
            None => {
                let index = next.enlarged.len();
                self.note_decoding(next.input.vae, drawn_at);
                let picture =
                    self.decode_by(next.input.vae, &latents.slice(s![index..=index, .., .., ..]).to_owned())?;
                // The middle is cut from the latents: the encoder sees all of the picture, as in A1111.
                let whole = Target { kept: next.target.covers, ..next.target };
                next.enlarging = Some(self.upscalers.enlarging(picture, whole, &next.upscaler)?);
            }
            Some(enlarging) if !enlarging.is_done() => enlarging.step()?,
            Some(enlarging) => {
                let picture = enlarging.finish()?;
                next.enlarged.push(self.encode(&picture.to_tensor()?)?.likeliest());
                next.enlarging = None;
            }
        }
        Ok(())
    }

    /// Height and width of a picture's latents.
    fn latent_size(&self, size: ImageSize) -> (usize, usize) {
        let along = |pixels: u32| (pixels / self.model.description.vae_scale_factor) as usize;
        (along(size.height), along(size.width))
    }
}

/// The middle of the latents. Where an odd number is cut, one more is cut behind.
fn middle(latents: &Array4<f32>, (height, width): (usize, usize)) -> Array4<f32> {
    let (_, _, rows, columns) = latents.dim();
    let (top, left) = (rows.saturating_sub(height) / 2, columns.saturating_sub(width) / 2);
    latents.slice(s![.., .., top..(top + height).min(rows), left..(left + width).min(columns)]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_latents_is_what_a1111_keeps() {
        let latents =
            Array4::from_shape_fn((1, 1, 7, 4), |(_, _, y, x)| f32::from(u8::try_from(10 * y + x).unwrap()));
        // Of three rows, `truncate_y // 2` is cut above and `(truncate_y + 1) // 2` below.
        let kept = middle(&latents, (4, 4));
        assert_eq!(kept, latents.slice(s![.., .., 1..5, ..]));
        assert_eq!(middle(&latents, (7, 2)), latents.slice(s![.., .., .., 1..3]));
    }
}
