//! HEUN: Heun's second-order method in sigma, two model calls a step and one for the last.
//!
//! Karras et al. 2022 (arXiv 2206.00364), algorithm 1: an Euler step to σ', a second derivative there,
//! and the step again with their mean. Even calls are first halves. The reference is diffusers'
//! `HeunDiscreteScheduler`.

use super::config::{FinalSigma, PredictionType, SchedulerConfig, SchedulerError};
use super::tables::{K_BETAS, Karras, NoiseTable, SigmaSchedule, ZeroSnr};
use super::{Denoise, Scheduler, check_step, k_divisor};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};

pub(super) struct Heun {
    timesteps: Vec<f32>,
    /// Each inner sigma twice, so that a call's is at its index.
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
    prediction: PredictionType,
    clip: Option<f32>,
    /// The step's start and its first derivative, between its halves.
    first: Option<(Array4<f32>, Array4<f32>)>,
}

impl Heun {
    pub fn new(config: &SchedulerConfig, steps: usize, karras: bool) -> Result<Self, SchedulerError> {
        let table = NoiseTable::new(config, K_BETAS, ZeroSnr::Ignored)?;
        let mode = if karras { Karras::Fractional } else { Karras::Off };
        let schedule = SigmaSchedule::new(config, &table, steps, mode, FinalSigma::Zero)?;
        let twice = |values: &[f32]| values.iter().flat_map(|&v| [v, v]).skip(1).collect::<Vec<_>>();
        let mut sigmas = twice(&schedule.sigmas);
        sigmas.pop();
        Ok(Self {
            timesteps: twice(&schedule.timesteps),
            sigmas,
            init_noise_sigma: schedule.init_noise_sigma,
            prediction: config.prediction()?,
            clip: config.clip(false)?,
            first: None,
        })
    }
}

impl Scheduler for Heun {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn order(&self) -> usize {
        2
    }

    fn init_noise_sigma(&self) -> f32 {
        self.init_noise_sigma
    }

    fn sigmas(&self) -> Option<&[f32]> {
        Some(&self.sigmas)
    }

    fn input_divisor(&self, i: usize) -> Option<f32> {
        Some(k_divisor(self.sigmas[i]))
    }

    fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError> {
        Ok((1.0, self.sigmas[i]))
    }

    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        _noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.timesteps.len(), noise_pred, sample)?;
        let (denoise, clip) = (Denoise::at(self.prediction, self.sigmas[i]), self.clip);
        let derivative = Zip::from(&*sample).and(noise_pred).map_collect(|&x, &m| {
            let x0 = denoise.x0(x, m);
            (x - clip.map_or(x0, |range| x0.clamp(-range, range))) / denoise.sigma
        });
        if i.is_multiple_of(2) {
            let dt = self.sigmas[i + 1] - self.sigmas[i];
            let start = sample.clone();
            Zip::from(sample).and(&derivative).for_each(|x, &d| *x += d * dt);
            self.first = Some((start, derivative));
        } else {
            let Some((start, first)) = self.first.take() else {
                return Err(SchedulerError::SecondHalf { index: i });
            };
            let dt = self.sigmas[i] - self.sigmas[i - 1];
            Zip::from(sample).and(&start).and(&first).and(&derivative).for_each(|x, &x0, &d1, &d2| {
                *x = x0 + f32::midpoint(d1, d2) * dt;
            });
        }
        Ok(())
    }
}
