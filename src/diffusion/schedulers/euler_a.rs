//! EULER-A: Euler's method to below the next sigma, then fresh noise up to it.
//!
//! Crowson's k-diffusion, `sample_euler_ancestral`: `σ_up²` = σ'²(σ² − σ'²)/σ², `σ_down²` = σ'² − `σ_up²`,
//! x' = x + `d·(σ_down` − σ) + `σ_up·z`. Noise is drawn at every step, the last (where `σ_up` = 0) included:
//! it advances the generator. The reference is diffusers' `EulerAncestralDiscreteScheduler`.

use super::config::{FinalSigma, PredictionType, SchedulerConfig, SchedulerError};
use super::tables::{DDPM_BETAS, Karras, NoiseTable, SigmaSchedule, ZeroSnr};
use super::{Denoise, Scheduler, check_step, draw, k_divisor};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};

pub(super) struct EulerA {
    schedule: SigmaSchedule,
    prediction: PredictionType,
}

impl EulerA {
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, SchedulerError> {
        let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Finite)?;
        Ok(Self {
            schedule: SigmaSchedule::new(config, &table, steps, Karras::Off, FinalSigma::Zero)?,
            prediction: config.prediction_of_noise()?,
        })
    }
}

/// `(sigma_up, sigma_down)` of an ancestral step, in the f32 of the reference.
pub(super) fn ancestral(from: f32, to: f32) -> (f32, f32) {
    let up = (to * to * (from * from - to * to) / (from * from)).sqrt();
    (up, (to * to - up * up).max(0.0).sqrt())
}

impl Scheduler for EulerA {
    fn timesteps(&self) -> &[f32] {
        &self.schedule.timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        self.schedule.init_noise_sigma
    }

    fn sigmas(&self) -> Option<&[f32]> {
        Some(&self.schedule.sigmas)
    }

    fn input_divisor(&self, i: usize) -> Option<f32> {
        Some(k_divisor(self.schedule.sigmas[i]))
    }

    fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError> {
        Ok((1.0, self.schedule.sigmas[i]))
    }

    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.schedule.timesteps.len(), noise_pred, sample)?;
        let sigma = self.schedule.sigmas[i];
        let (up, down) = ancestral(sigma, self.schedule.sigmas[i + 1]);
        let (denoise, dt) = (Denoise::at(self.prediction, sigma), down - sigma);
        let fresh = draw(noise, sample)?;
        Zip::from(sample).and(noise_pred).and(&fresh).for_each(|x, &m, &z| {
            *x = *x + denoise.derivative(*x, m) * dt + z * up;
        });
        Ok(())
    }
}
