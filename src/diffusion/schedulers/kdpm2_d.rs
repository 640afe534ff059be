//! KDPM2-D: the midpoint method in sigma, two model calls a step and one for the last.
//!
//! DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927) as Crowson's k-diffusion has it (`sample_dpm_2`): an
//! Euler step to the geometric mean of σ and σ', and from the start again with the derivative found
//! there. The mean has a fractional timestep of its own. The reference is diffusers'
//! `KDPM2DiscreteScheduler`.

use super::config::{FinalSigma, PredictionType, SchedulerConfig, SchedulerError};
use super::tables::{K_BETAS, Karras, LogSigmas, NoiseTable, SigmaSchedule, ZeroSnr};
use super::{Denoise, Scheduler, check_step, k_divisor};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};

pub(super) struct Kdpm2D {
    timesteps: Vec<f32>,
    schedule: SigmaSchedule,
    /// The sigma half-way from step `j` to the next; 0 at the last, which goes there at once.
    middles: Vec<f32>,
    /// As the reference lists them: the first, then each following one twice, and the last again.
    listed: Vec<f32>,
    prediction: PredictionType,
    start: Option<Array4<f32>>,
}

impl Kdpm2D {
    pub fn new(config: &SchedulerConfig, steps: usize, karras: bool) -> Result<Self, SchedulerError> {
        let table = NoiseTable::new(config, K_BETAS, ZeroSnr::Ignored)?;
        let mode = if karras { Karras::Rounded } else { Karras::Off };
        let schedule = SigmaSchedule::new(config, &table, steps, mode, FinalSigma::Zero)?;
        let middles: Vec<f32> =
            schedule.sigmas.windows(2).map(|pair| geometric_mean(pair[1], pair[0])).collect();
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

/// `exp(lerp(log a, log b, 1/2))`, each function rounded to f32 as the reference's are.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn geometric_mean(a: f32, b: f32) -> f32 {
    let log = |v: f32| f64::from(v).ln() as f32;
    if a <= 0.0 || b <= 0.0 {
        return 0.0;
    }
    f64::from(log(b) - (log(b) - log(a)) * 0.5).exp() as f32
}

/// Each step's timestep, then its middle's; the last step has no middle.
pub(super) fn interleave(timesteps: &[f32], middles: &[f32], logs: &LogSigmas) -> Vec<f32> {
    let mut list = Vec::with_capacity(2 * timesteps.len());
    for (&t, &middle) in timesteps.iter().zip(middles) {
        list.extend([t, logs.timestep_f32(middle)]);
    }
    list.pop();
    list
}

pub(super) fn list_twice(sigmas: &[f32]) -> Vec<f32> {
    sigmas.iter().flat_map(|&s| [s, s]).skip(1).chain(sigmas.last().copied()).collect()
}

impl Scheduler for Kdpm2D {
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
        _noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.timesteps.len(), noise_pred, sample)?;
        let (sigma, next) = (self.schedule.sigmas[i / 2], self.schedule.sigmas[i / 2 + 1]);
        let middle = self.middles[i / 2];
        if i.is_multiple_of(2) {
            let (denoise, dt) = (Denoise::at(self.prediction, sigma), middle - sigma);
            self.start = Some(sample.clone());
            Zip::from(sample).and(noise_pred).for_each(|x, &m| *x += denoise.derivative(*x, m) * dt);
        } else {
            let Some(start) = self.start.take() else {
                return Err(SchedulerError::SecondHalf { index: i });
            };
            let (denoise, dt) = (Denoise::at(self.prediction, middle), next - sigma);
            Zip::from(sample).and(noise_pred).and(&start).for_each(|x, &m, &x0| {
                *x = x0 + denoise.derivative(*x, m) * dt;
            });
        }
        Ok(())
    }
}
