//! One request in flight: its latents, its schedule, its embeddings, and how far it is.

use ndarray::{Array3, Array4, Axis, Zip, s};

use super::noise::BatchNoise;
use super::prompt_encoder::Embeddings;
use super::schedulers::{Denoise, PredictionType, Scheduler, SchedulerError};
use crate::domain::{GenerationInput, ImageSize};

/// What [`Pipeline::begin`](super::Pipeline::begin) makes and `finish` consumes.
pub struct Generation {
    pub(super) input: GenerationInput,
    pub(super) seed: u64,
    /// The size of the latents in pixels, which may lie below the size asked for.
    pub(super) drawn_at: ImageSize,
    pub(super) embeddings: Embeddings,
    /// `[images, channels, height, width]`.
    pub(super) latents: Array4<f32>,
    /// The latents as the UNet wants them at the current step.
    pub(super) model_input: Array4<f32>,
    pub(super) noise_pred: Array4<f32>,
    scheduler: Box<dyn Scheduler>,
    noise: BatchNoise,
    /// UNet calls done.
    calls: usize,
}

impl Generation {
    /// Starts from pure noise, drawn by image i from `seed + i`.
    pub(super) fn new(
        input: GenerationInput,
        seed: u64,
        drawn_at: ImageSize,
        latent_shape: (usize, usize, usize),
        scheduler: Box<dyn Scheduler>,
        embeddings: Embeddings,
    ) -> Self {
        let mut noise = BatchNoise::consecutive(input.noise, seed, input.num_outputs as usize);
        let mut latents = noise.randn(latent_shape);
        let init_noise_sigma = scheduler.init_noise_sigma();
        latents.mapv_inplace(|value| value * init_noise_sigma);
        Self {
            model_input: latents.clone(),
            noise_pred: latents.clone(),
            input,
            seed,
            drawn_at,
            embeddings,
            latents,
            scheduler,
            noise,
            calls: 0,
        }
    }

    pub fn images(&self) -> usize {
        self.latents.dim().0
    }

    pub fn is_done(&self) -> bool {
        self.calls == self.scheduler.timesteps().len()
    }

    /// Steps done and steps asked for. Schedulers that call the UNet more than once a step count
    /// their calls in proportion.
    pub fn progress(&self) -> (u32, u32) {
        let steps = self.input.num_inference_steps;
        let calls = self.scheduler.timesteps().len().max(1);
        let done = self.calls * steps as usize / calls;
        (u32::try_from(done).unwrap_or(steps), steps)
    }

    /// The clean latents of the first image, `[channels, height, width]`, to which the last prediction points; none
    /// before there is one, or where the scheduler has no word for it.
    pub(super) fn predicted_original(&self, prediction: PredictionType) -> Option<Array3<f32>> {
        let call = self.calls.checked_sub(1)?;
        let (signal, share) = self.scheduler.noising(call).ok()?;
        // The sample at that call as k-diffusion scales it, from what the UNet was shown.
        let unscale = self.scheduler.input_divisor(call).unwrap_or(1.0) / signal;
        let denoise = Denoise::at(prediction, share / signal);
        let shown = self.model_input.slice(s![0, ..self.latents.dim().1, .., ..]);
        let predicted = self.noise_pred.index_axis(Axis(0), 0);
        Some(Zip::from(&shown).and(&predicted).map_collect(|&x, &m| denoise.x0(x * unscale, m)))
    }

    pub(super) fn timestep(&self) -> f32 {
        self.scheduler.timesteps()[self.calls]
    }

    /// Prepares `model_input` for the next call.
    pub(super) fn scale_model_input(&mut self) -> Result<(), SchedulerError> {
        self.scheduler.scale_model_input(&self.latents, self.calls, self.model_input.view_mut())
    }

    /// Moves the latents on by what the UNet answered into `noise_pred`.
    pub(super) fn advance(&mut self) -> Result<(), SchedulerError> {
        self.scheduler.step(&self.noise_pred, self.calls, &mut self.latents, &mut self.noise)?;
        self.calls += 1;
        Ok(())
    }
}
