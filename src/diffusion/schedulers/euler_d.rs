//! EULER-D: Euler's method in sigma.
//!
//! Karras et al. 2022 (arXiv 2206.00364), algorithm 2 without churn: d = (x − x0)/σ,
//! x' = x + d·(σ' − σ). The reference is diffusers' `EulerDiscreteScheduler`.

use super::config::{PredictionType, SchedulerConfig, SchedulerError};
use super::tables::{DDPM_BETAS, Karras, NoiseTable, SigmaSchedule, ZeroSnr};
use super::{Denoise, Scheduler, check_step, k_divisor};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};

pub(super) struct EulerD {
    schedule: SigmaSchedule,
    prediction: PredictionType,
}

impl EulerD {
    pub fn new(config: &SchedulerConfig, steps: usize, karras: bool) -> Result<Self, SchedulerError> {
        let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Finite)?;
        let mode = if karras { Karras::Fractional } else { Karras::Off };
        Ok(Self {
            schedule: SigmaSchedule::new(config, &table, steps, mode, config.final_sigma()?)?,
            prediction: config.prediction()?,
        })
    }
}

impl Scheduler for EulerD {
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
        _noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.schedule.timesteps.len(), noise_pred, sample)?;
        let (sigma, next) = (self.schedule.sigmas[i], self.schedule.sigmas[i + 1]);
        let (denoise, dt) = (Denoise::at(self.prediction, sigma), next - sigma);
        Zip::from(sample).and(noise_pred).for_each(|x, &m| *x += denoise.derivative(*x, m) * dt);
        Ok(())
    }
}
