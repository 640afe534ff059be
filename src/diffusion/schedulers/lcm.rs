//! LCM: sampling of latent consistency models, which are distilled to jump to the end in a few calls.
//!
//! Luo et al. 2023 (arXiv 2310.04378), algorithm 3: x0 by the model, mixed with the latents by the
//! boundary conditions `c_skip` = s²/(τ² + s²), `c_out` = τ/√(τ² + s²) (s = 1/2, τ = t·`timestep_scaling`), then noised
//! again to the next timestep; the last call's is the result. The timesteps are picked from the
//! `original_inference_steps` of the distillation. The reference is diffusers' `LCMScheduler`.

use super::config::{PredictionType, SchedulerConfig, SchedulerError};
use super::ddim::as_f32;
use super::tables::{LCM_BETAS, NoiseTable, ZeroSnr};
use super::{Scheduler, check_step, draw};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};

pub(super) struct Lcm {
    table: NoiseTable,
    whole: Vec<usize>,
    timesteps: Vec<f32>,
    scaling: f32,
    prediction: PredictionType,
    clip: Option<f32>,
}

impl Lcm {
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, SchedulerError> {
        config.refuse_unsupported()?;
        let table = NoiseTable::new(config, LCM_BETAS, ZeroSnr::Exact)?;
        let original = config.original_inference_steps.unwrap_or(50);
        if !(1..=table.len()).contains(&original) {
            let expected = format!("between 1 and num_train_timesteps ({})", table.len());
            return Err(SchedulerError::value("original_inference_steps", original, expected));
        }
        if !(1..=original).contains(&steps) {
            return Err(SchedulerError::Steps { steps, min: 1, max: original });
        }
        let scaling = config.timestep_scaling.unwrap_or(10.0);
        if !(scaling.is_finite() && scaling > 0.0) {
            return Err(SchedulerError::value("timestep_scaling", scaling, "a positive number"));
        }
        let stride = table.len() / original;
        // numpy.linspace without its end, floored.
        #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
        let picked = |i: usize| (i as f64 * (original as f64 / steps as f64)).floor() as usize;
        let whole: Vec<usize> = (0..steps).map(|i| (original - picked(i)) * stride - 1).collect();
        #[allow(clippy::cast_possible_truncation)]
        Ok(Self {
            table,
            timesteps: as_f32(&whole),
            whole,
            scaling: scaling as f32,
            prediction: config.prediction()?,
            clip: config.clip(false)?,
        })
    }
}

impl Scheduler for Lcm {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError> {
        let alpha = self.table.alpha(self.whole[i]);
        Ok((alpha.sqrt(), (1.0 - alpha).sqrt()))
    }

    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.whole.len(), noise_pred, sample)?;
        let (signal, spread) = self.noising(i)?;
        let scaled = self.timesteps[i] * self.scaling;
        let divisor = scaled * scaled + 0.25;
        let (c_skip, c_out) = (0.25 / divisor, scaled / divisor.sqrt());
        let (prediction, clip) = (self.prediction, self.clip);
        Zip::from(&mut *sample).and(noise_pred).for_each(|x, &m| {
            let x0 = match prediction {
                PredictionType::Epsilon => (*x - spread * m) / signal,
                PredictionType::VPrediction => signal * *x - spread * m,
                PredictionType::Sample => m,
            };
            let x0 = clip.map_or(x0, |range| x0.clamp(-range, range));
            *x = c_out * x0 + c_skip * *x;
        });
        if i + 1 < self.whole.len() {
            let (signal, spread) = self.noising(i + 1)?;
            let fresh = draw(noise, sample)?;
            Zip::from(sample).and(&fresh).for_each(|x, &z| *x = signal * *x + spread * z);
        }
        Ok(())
    }
}
