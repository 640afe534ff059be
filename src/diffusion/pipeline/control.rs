//! What ControlNets add to a UNet call.
//!
//! A ControlNet gives a value for each of the UNet's skip connections and one for its middle. Those of all ControlNets of a
//! picture are added up, each with its weight (diffusers' `MultiControlNetModel`).

use std::fmt;
use std::sync::{Arc, PoisonError};

use ndarray::{Array1, Array4, ArrayViewMut3, Axis, Zip, s};

use super::controlnets::LoadedControlNet;
use super::layout::Window;
use super::memory::MemoryNeeds;
use super::{DiffusionError, Generation};
use crate::diffusion::image::{ImageError, RgbImage, decode_image};
use crate::diffusion::nets::{ControlRows, Hint, ModelError, UNetRows, WorkingMemory};
use crate::domain::{ControlMode, ControlResize, ControlUnit, ImageSize, ImageSource, ModelPart, ResizeMode};

/// Channels of latents. Some UNets read more; a ControlNet does not.
const LATENTS: usize = 4;
/// From one value to the next deeper one, where the prompt or the ControlNet is more important: A1111's extension writes
/// `weight * 0.825 ** (12 - i)` (`scripts/hook.py`, `soft_injection`), as lllyasviel's ControlNet does for its guess mode.
const SOFTENING: f32 = 0.825;
/// The exponent of the first of all values.
const SOFTEST: f32 = 12.0;
/// Contents are always moved about in the same way. With the job's seed, the request in picture i, whose seed is another one,
/// would not draw that picture again.
const SHUFFLE_SEED: u64 = 0;

/// A generation's ControlNet with the picture that it follows.
pub(super) struct Control {
    loaded: Arc<LoadedControlNet>,
    hint: Hint,
    weight: f32,
    start: f64,
    end: f64,
    mode: ControlMode,
}

impl Control {
    /// Reads the request's picture for a drawing of this size, of the whole result or of what the window shows of it.
    pub fn new(
        loaded: Arc<LoadedControlNet>,
        unit: &ControlUnit,
        size: ImageSize,
        window: Option<Window>,
    ) -> Result<Self, DiffusionError> {
        let hint = hint(unit, size, window).and_then(|map| map.to_hint()).map_err(|error| {
            // The sentences of `ImageError` are about the picture to start from.
            let reason = error.to_string().replace("the picture to start from", "the picture");
            DiffusionError::ControlImage { model: unit.model.clone(), reason }
        })?;
        let ControlUnit { weight, start, end, mode, .. } = *unit;
        Ok(Self { loaded, hint: Hint::new(hint), weight, start, end, mode })
    }

    /// Which ControlNet it is.
    pub fn key(&self) -> impl fmt::Debug {
        self.loaded.key()
    }

    /// Whether it says something at this one of so many calls (diffusers' `controlnet_keep`).
    fn is_active(&self, call: usize, calls: usize) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "calls lie far below 2^53")]
        let (call, calls) = (call as f64, calls.max(1) as f64);
        self.weight > 0.0 && call / calls >= self.start && (call + 1.0) / calls <= self.end
    }

    /// Its memory after this one of so many calls. A ControlNet that says nothing at the next call may say nothing until the end.
    fn memory_after(&self, call: usize, calls: usize) -> WorkingMemory {
        if self.is_active(call + 1, calls) { WorkingMemory::Keep } else { WorkingMemory::GiveBack }
    }

    /// Whether only the prediction for the prompt is controlled.
    fn is_one_sided(&self) -> bool {
        self.mode == ControlMode::Control || self.loaded.averages
    }

    /// The factor of value `index` of `count`.
    fn scale(&self, index: usize, count: usize) -> f32 {
        if self.mode == ControlMode::Balanced {
            return self.weight;
        }
        #[expect(clippy::cast_precision_loss, reason = "thirteen values")]
        let depth = (count - 1 - index) as f32 / (count.max(2) - 1) as f32;
        self.weight * SOFTENING.powf(SOFTEST * depth)
    }
}

/// The map that a ControlNet of a request sees, at the size of the drawing.
fn hint(unit: &ControlUnit, size: ImageSize, window: Option<Window>) -> Result<RgbImage, ImageError> {
    let ImageSource::Bytes(bytes) = &unit.image else { return Err(ImageError::Unfetched) };
    let picture = decode_image(bytes)?;
    let preprocess = |picture: &RgbImage, resize: ControlResize| {
        picture.preprocess(unit.preprocess, unit.thresholds, resize, size, SHUFFLE_SEED)
    };
    let Some(Window { whole, region }) = window else { return preprocess(&picture, unit.resize) };
    // The picture lies over the result, and is cut as that is (the extension's `scripts/controlnet.py`, "A1111 inpaint mask").
    let part = region.cut(&picture.fit_control(whole, unit.resize)?).fit(size, ResizeMode::Fill)?;
    preprocess(&part, ControlResize::Stretch)
}

/// The rows of one generation in a call.
pub(super) struct OwnRows<'a> {
    pub generation: &'a Generation,
    /// The rows for its prompt.
    pub positive: Vec<usize>,
    /// The rows to guide away from.
    pub negative: Vec<usize>,
}

/// What the ControlNets of all generations in a call add to its rows. `shapes` are channels, height and width of each value.
pub(super) fn residuals(
    own_rows: &[OwnRows<'_>],
    rows: &UNetRows<'_>,
    shapes: &[[usize; 3]],
    needs: &MemoryNeeds,
) -> Result<Vec<Array4<f32>>, ModelError> {
    let count = rows.embeddings.len();
    let zeros = |[channels, height, width]: &[usize; 3]| Array4::zeros((count, *channels, *height, *width));
    let mut sums: Vec<Array4<f32>> = shapes.iter().map(zeros).collect();
    for own in own_rows {
        let (call, calls) = own.generation.place();
        for control in own.generation.controls.iter().filter(|control| control.is_active(call, calls)) {
            let sides = if control.is_one_sided() { &[][..] } else { &own.negative };
            let indices: Vec<usize> = sides.iter().chain(&own.positive).copied().collect();
            let chosen = ControlRows {
                sample: rows.sample.select(Axis(0), &indices).slice(s![.., ..LATENTS, .., ..]).to_owned(),
                timesteps: Array1::from_iter(indices.iter().map(|row| rows.timesteps[*row])),
                embeddings: indices.iter().map(|row| rows.embeddings[*row]).collect(),
            };
            let mut net = control.loaded.net.lock().unwrap_or_else(PoisonError::into_inner);
            let memory = control.memory_after(call, calls);
            let given = net.residuals(&chosen, &control.hint, memory)?;
            let bound = net.bound_bytes();
            drop(net);
            let gives_back = needs.is_on_cpu && memory == WorkingMemory::GiveBack;
            let taken = needs.control_call(own.generation.drawn_at, indices.len() as u64) + bound;
            control.loaded.keeps(if gives_back { 0 } else { taken });
            for (index, (sum, given)) in sums.iter_mut().zip(given).enumerate() {
                let scale = control.scale(index, shapes.len());
                if given.dim().1 != sum.dim().1
                    || given.dim().2 != sum.dim().2
                    || given.dim().3 != sum.dim().3
                {
                    let reason = format!("it gave {:?} where {:?} is needed", given.shape(), sum.shape());
                    return Err(ModelError::Run { part: ModelPart::ControlNet, reason });
                }
                for (given, row) in given.outer_iter().zip(&indices) {
                    let sum = sum.index_axis_mut(Axis(0), *row);
                    match control.loaded.averages {
                        true => add_means(sum, &given, scale),
                        false => Zip::from(sum).and(given).for_each(|sum, given| *sum += scale * given),
                    }
                }
            }
        }
    }
    Ok(sums)
}

/// Adds the mean of each channel.
fn add_means(mut sum: ArrayViewMut3<f32>, given: &ndarray::ArrayView3<f32>, scale: f32) {
    for (mut sum, given) in sum.outer_iter_mut().zip(given.outer_iter()) {
        let mean = given.mean().unwrap_or(0.0);
        sum += scale * mean;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::image::Region;
    use crate::domain::Preprocessor;

    #[test]
    fn a_controlnet_sees_the_part_of_its_picture_that_is_drawn() {
        // Red, and green in the right half below.
        let mut picture = image::RgbImage::from_pixel(64, 64, image::Rgb([255, 0, 0]));
        for (x, y) in (32..64).flat_map(|x| (32..64).map(move |y| (x, y))) {
            picture.put_pixel(x, y, image::Rgb([0, 255, 0]));
        }
        let mut png = std::io::Cursor::new(Vec::new());
        picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
        let unit = ControlUnit {
            model: "a".to_owned(),
            image: ImageSource::Bytes(png.into_inner().into()),
            weight: 1.0,
            start: 0.0,
            end: 1.0,
            preprocess: Preprocessor::None,
            thresholds: [0.0; 2],
            mode: ControlMode::Balanced,
            resize: ControlResize::Crop,
        };
        let side = |side| ImageSize { width: side, height: side };
        let window = |left| {
            let region = Region { left, top: 320, width: 128, height: 128 };
            Some(Window { whole: side(512), region })
        };
        assert_eq!(hint(&unit, side(64), window(320)).unwrap().pixels, [0, 255, 0].repeat(64 * 64));
        assert_eq!(hint(&unit, side(64), window(64)).unwrap().pixels, [255, 0, 0].repeat(64 * 64));
        let all = hint(&unit, side(64), None).unwrap();
        assert_eq!(all.pixels, picture.into_raw());
    }

    #[test]
    fn the_softest_scale_is_a_tenth_as_in_diffusers_guess_mode() {
        // torch.logspace(-1, 0, 13), for the extension's 0.825 ** (12 - i).
        for index in 0..13_i16 {
            let ours = super::SOFTENING.powf(f32::from(12 - index));
            let guess = 10_f32.powf(f32::from(index) / 12.0 - 1.0);
            assert!((ours - guess).abs() < 0.006 * guess, "{index}: {ours} {guess}");
        }
    }
}
