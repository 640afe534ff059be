//! KDPM2-A: the midpoint method to below the next sigma, then fresh noise up to it.
//!
//! Crowson's k-diffusion, `sample_dpm_2_ancestral`: KDPM2-D's step towards `σ_down` (see `euler_a.rs`),
//! over the geometric mean of σ and `σ_down`, plus `σ_up·z`. Noise is drawn after second halves only. The
//! reference is diffusers' `KDPM2AncestralDiscreteScheduler`.

use super::config::{FinalSigma, PredictionType, SchedulerConfig, SchedulerError};
use super::euler_a::ancestral;
use super::kdpm2_d::{geometric_mean, interleave, list_twice};
use super::tables::{K_BETAS, Karras, LogSigmas, NoiseTable, SigmaSchedule, ZeroSnr};
use super::{Denoise, Scheduler, check_step, draw, k_divisor};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};

pub(super) struct Kdpm2A {
    timesteps: Vec<f32>,
    schedule: SigmaSchedule,
    /// The sigma half-way from step `j` to its `sigma_down`; 0 at the last, which goes there at once.
    middles: Vec<f32>,
    listed: Vec<f32>,
    prediction: PredictionType,
    start: Option<Array4<f32>>,
}

impl Kdpm2A {
    pub fn new(config: &SchedulerConfig, steps: usize, karras: bool) -> Result<Self, SchedulerError> {
        let table = NoiseTable::new(config, K_BETAS, ZeroSnr::Ignored)?;
        let mode = if karras { Karras::Rounded } else { Karras::Off };
        let schedule = SigmaSchedule::new(config, &table, steps, mode, FinalSigma::Zero)?;
        let middle = |pair: &[f32]| geometric_mean(pair[0], ancestral(pair[0], pair[1]).1);
        let middles: Vec<f32> = schedule.sigmas.windows(2).map(middle).collect();
        let logs = LogSigmas::new(&table.sigmas());
        Ok(Self {
            timesteps: interleave(&schedule.timesteps, &middles, &logs),
            listed: list_twice(&schedule.sigmas),
            middles,
            schedule,
            prediction: config.prediction_of_noise()?,
            start: None,
        })
    }
}

impl Scheduler for Kdpm2A {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn order(&self) -> usize {
        2
    }

    fn init_noise_sigma(&self) -> f32 {
        self.schedule.init_noise_sigma
    }

    fn sigmas(&self) -> Option<&[f32]> {
        Some(&self.listed)
    }

    fn input_divisor(&self, i: usize) -> Option<f32> {
        let sigmas = if i.is_multiple_of(2) { &self.schedule.sigmas } else { &self.middles };
        Some(k_divisor(sigmas[i / 2]))
    }

    fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError> {
        Ok((1.0, self.listed[i]))
    }

    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.timesteps.len(), noise_pred, sample)?;
        let sigma = self.schedule.sigmas[i / 2];
        let middle = self.middles[i / 2];
        if i.is_multiple_of(2) {
            let (denoise, dt) = (Denoise::at(self.prediction, sigma), middle - sigma);
            self.start = Some(sample.clone());
            Zip::from(sample).and(noise_pred).for_each(|x, &m| *x += denoise.derivative(*x, m) * dt);
        } else {
            let Some(start) = self.start.take() else {
                return Err(SchedulerError::SecondHalf { index: i });
            };
            let (up, down) = ancestral(sigma, self.schedule.sigmas[i / 2 + 1]);
            let (denoise, dt) = (Denoise::at(self.prediction, middle), down - sigma);
            let fresh = draw(noise, sample)?;
            Zip::from(sample).and(noise_pred).and(&start).and(&fresh).for_each(|x, &m, &x0, &z| {
                *x = x0 + denoise.derivative(*x, m) * dt + z * up;
            });
        }
        Ok(())
    }
}
