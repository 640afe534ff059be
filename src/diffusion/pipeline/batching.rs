//! How many images share a UNet call: as many as make it faster for each.
//!
//! A CPU is full with one image. What a card gains by more depends on the card, so a server times calls of some sizes
//! when it loads a model. That is no waste: the first picture finds its graph captured.

use std::time::{Duration, Instant};

use ndarray::{Array1, Array3, Array4};

use super::Model;
use crate::diffusion::nets::{EncodedPrompt, ModelError, UNet, UNetRows, WorkingMemory};
use crate::runtime::{Device, is_out_of_memory};

/// Rows of the calls that are timed: one, two and four guided images, of two rows each. Twice as many gained an H100
/// another 4 %, and every job would have waited twice as long.
const ROWS: [usize; 3] = [2, 4, 8];
/// More rows have to make a row faster by this much.
const LEAST_GAIN: f64 = 1.05;
/// It changes nothing about the time.
const USUAL_GUIDANCE: f32 = 7.5;
/// The shortest of so many calls counts.
const CALLS: usize = 3;

/// How a model's UNet calls are filled.
#[derive(Debug, Clone)]
pub struct Batching {
    /// Images in one call.
    pub images: usize,
    /// What calls of the model's own size took, by their rows; empty where nothing was timed.
    pub timed: Vec<(usize, Duration)>,
}

/// The rows of the largest call that a server should plan for on `device`, where a model takes `usual(rows)` bytes of
/// memory with such calls: as many as fit into `budget`, and those of one guided image at least.
pub fn batch_rows(device: &Device, budget: Option<u64>, usual: impl Fn(u64) -> u64) -> u64 {
    let [one_image, ..] = ROWS.map(|rows| rows as u64);
    let fits = |rows: &u64| budget.is_none_or(|budget| usual(*rows) <= budget);
    let larger = ROWS.iter().rev().map(|rows| *rows as u64).find(fits);
    larger.filter(|_| !device.is_cpu()).unwrap_or(one_image)
}

/// Images in one call on a card whose times are not known.
const USUAL_ON_A_CARD: usize = 4;

impl Batching {
    /// Without a measurement.
    pub(super) fn usual(device: &Device) -> Self {
        Self { images: if device.is_cpu() { 1 } else { USUAL_ON_A_CARD }, timed: Vec::new() }
    }

    /// Rows of the largest call so far of a server that draws the model's own size. A session keeps their memory.
    pub(super) fn largest_call(&self) -> u64 {
        self.timed.iter().map(|(rows, _)| *rows as u64).max().unwrap_or(2)
    }

    /// Times calls of the model's own size on a card, of so many rows at most.
    pub(super) fn measure(unet: &mut UNet, model: &Model, most_rows: u64) -> Result<Self, ModelError> {
        let mut timed: Vec<(usize, Duration)> = Vec::new();
        for rows in ROWS.into_iter().filter(|rows| *rows <= 2 || *rows as u64 <= most_rows) {
            let duration = match time(unet, model, rows) {
                Ok(duration) => duration,
                Err(error) if !timed.is_empty() && is_out_of_memory(&error.to_string()) => break,
                Err(error) => return Err(error),
            };
            timed.push((rows, duration));
            if gain(&timed).is_some_and(|gain| gain < LEAST_GAIN) {
                break;
            }
        }
        let shown: Vec<_> =
            timed.iter().map(|(rows, t)| format!("{rows}: {:.1}", t.as_secs_f64() * 1e3)).collect();
        let images = images_for(&timed);
        tracing::info!(images, ms_by_rows = shown.join(", "), "timed UNet calls");
        Ok(Self { images, timed })
    }
}

/// By how much the last size makes a row faster than the size before.
fn gain(timed: &[(usize, Duration)]) -> Option<f64> {
    let [.., (fewer, before), (more, after)] = timed else { return None };
    #[expect(clippy::cast_precision_loss, reason = "sixteen rows at most")]
    let ratio = *more as f64 / *fewer as f64;
    Some(ratio * before.as_secs_f64() / after.as_secs_f64().max(f64::MIN_POSITIVE))
}

/// Guided images in the largest call that was worth it.
fn images_for(timed: &[(usize, Duration)]) -> usize {
    let worth = match gain(timed) {
        Some(gain) if gain < LEAST_GAIN => &timed[..timed.len() - 1],
        _ => timed,
    };
    (worth.last().map_or(2, |(rows, _)| *rows) / 2).max(1)
}

/// One call of so many rows at the model's own size, once it has warmed up.
fn time(unet: &mut UNet, model: &Model, rows: usize) -> Result<Duration, ModelError> {
    let description = &model.description;
    let side = (description.native_side / description.vae_scale_factor) as usize;
    let tokens = unet.tokens_read().unwrap_or(model.tokenizer.window());
    let prompt = EncodedPrompt::new(Array3::zeros((1, tokens, unet.text_width())));
    let call = UNetRows {
        sample: Array4::zeros((rows, unet.in_channels(), side, side)),
        timesteps: Array1::from_elem(rows, 500.0),
        embeddings: vec![&prompt; rows],
        guidance_scales: vec![USUAL_GUIDANCE; rows],
        features: Vec::new(),
    };
    unet.predict(&call, WorkingMemory::Keep)?;
    let mut shortest = Duration::MAX;
    for _ in 0..CALLS {
        let started = Instant::now();
        unet.predict(&call, WorkingMemory::Keep)?;
        shortest = shortest.min(started.elapsed());
    }
    Ok(shortest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(milliseconds: &[f64]) -> Vec<(usize, Duration)> {
        ROWS.into_iter().zip(milliseconds.iter().map(|ms| Duration::from_secs_f64(ms / 1e3))).collect()
    }

    #[test]
    fn calls_are_as_large_as_the_memory_allows() {
        let card = Device::Cuda { index: 0, memory_gib: None };
        let rows = |device, budget| batch_rows(device, budget, |rows| 100 + rows);
        assert_eq!([None, Some(108), Some(107), Some(104), Some(0)].map(|b| rows(&card, b)), [8, 8, 4, 4, 2]);
        assert_eq!(rows(&Device::Cpu, None), 2);
    }

    #[test]
    fn a_call_takes_as_many_images_as_make_each_faster() {
        // An H100's times.
        assert_eq!(images_for(&timed(&[6.85, 10.6, 19.26])), 4);
        // A card that two images fill, and one that one image fills.
        assert_eq!(images_for(&timed(&[100.0, 170.0, 335.0])), 2);
        assert_eq!(images_for(&timed(&[190.0, 378.0])), 1);
        assert_eq!(images_for(&timed(&[100.0])), 1);
        assert_eq!(images_for(&[]), 1);
    }
}
