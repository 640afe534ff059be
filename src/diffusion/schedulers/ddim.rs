//! DDIM: denoising diffusion implicit models.
//!
//! Song, Meng and Ermon 2020 (arXiv 2010.02502), equations 12 and 16: x' = √ᾱ'·x0 + √(1 − ᾱ' − s²)·ε +
//! s·z with s² = η²·(1 − ᾱ')/(1 − ᾱ)·(1 − ᾱ/ᾱ') and ᾱ' one stride of timesteps earlier. The
//! reference is diffusers' `DDIMScheduler`.

use super::config::{PredictionType, SchedulerConfig, SchedulerError, TimestepSpacing};
use super::tables::{DDPM_BETAS, NoiseTable, ZeroSnr, whole_timesteps};
use super::{Scheduler, check_step, draw};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};

pub(super) struct Ddim {
    table: NoiseTable,
    /// What `alphas_cumprod` is before the first timestep.
    final_alpha: f32,
    whole: Vec<usize>,
    timesteps: Vec<f32>,
    stride: usize,
    prediction: PredictionType,
    clip: Option<f32>,
    eta: f32,
}

impl Ddim {
    pub fn new(config: &SchedulerConfig, steps: usize, eta: f32) -> Result<Self, SchedulerError> {
        config.refuse_unsupported()?;
        if !(0.0..=1.0).contains(&eta) {
            return Err(SchedulerError::value("eta", eta, "between 0 and 1"));
        }
        let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Exact)?;
        let whole = whole_timesteps(config, config.spacing(TimestepSpacing::Leading)?, steps)?;
        Ok(Self {
            final_alpha: if config.set_alpha_to_one.unwrap_or(true) { 1.0 } else { table.alpha(0) },
            timesteps: as_f32(&whole),
            whole,
            stride: table.len() / steps,
            table,
            prediction: config.prediction()?,
            clip: config.clip(true)?,
            eta,
        })
    }
}

/// Timesteps are far below 2^24.
#[allow(clippy::cast_precision_loss)]
pub(super) fn as_f32(whole: &[usize]) -> Vec<f32> {
    whole.iter().map(|&t| t as f32).collect()
}

impl Scheduler for Ddim {
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
        let t = self.whole[i];
        let alpha = self.table.alpha(t);
        let alpha_prev = t.checked_sub(self.stride).map_or(self.final_alpha, |prev| self.table.alpha(prev));
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let (prediction, clip) = (self.prediction, self.clip);
        let variance = (1.0 - alpha_prev) / (1.0 - alpha) * (1.0 - alpha / alpha_prev);
        let std_dev = if self.eta > 0.0 { self.eta * variance.sqrt() } else { 0.0 };
        let direction = (1.0 - alpha_prev - std_dev * std_dev).sqrt();
        let signal_prev = alpha_prev.sqrt();

        Zip::from(&mut *sample).and(noise_pred).for_each(|x, &m| {
            let (x0, eps) = match prediction {
                PredictionType::Epsilon => ((*x - spread * m) / signal, m),
                PredictionType::VPrediction => (signal * *x - spread * m, signal * m + spread * *x),
                PredictionType::Sample => (m, (*x - signal * m) / spread),
            };
            let x0 = clip.map_or(x0, |range| x0.clamp(-range, range));
            *x = signal_prev * x0 + direction * eps;
        });
        if self.eta > 0.0 {
            let fresh = draw(noise, sample)?;
            sample.scaled_add(std_dev, &fresh);
        }
        Ok(())
    }
}
