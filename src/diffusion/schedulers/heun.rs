//! HEUN: Heun's second-order method in sigma, two model calls a step and one for the last.
//!
//! Karras et al. 2022 (arXiv 2206.00364), algorithm 1: an Euler step to σ', a second derivative there, and the step
//! again with their mean. Even calls are first halves. The reference is diffusers' `HeunDiscreteScheduler`.

use ndarray::{Array4, Zip};

use super::config::FinalSigma;
use super::sampler::{Call, Sampler, State};
use super::schedule::{FoundTimesteps, K_BETAS, NoiseTable, ZeroSnr};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError};

struct Heun {
    prediction: PredictionType,
    clip: Option<f32>,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let config = plan.config;
    let table = NoiseTable::new(config, K_BETAS, ZeroSnr::Ignored)?;
    let once = Schedule::k_diffusion(plan, &table, FoundTimesteps::Fractional, FinalSigma::Zero)?;
    let mut sigmas = twice_after_the_first(&once.sigmas);
    sigmas.pop();
    let schedule = Schedule {
        calls_per_step: 2,
        ..Schedule::by_sigma(twice_after_the_first(&once.timesteps), sigmas, once.init_noise_sigma)
    };
    Ok((schedule, Box::new(Heun { prediction: config.prediction()?, clip: config.clip(false)? })))
}

/// A step's second half is at the next step's timestep and sigma.
pub(super) fn twice_after_the_first(values: &[f32]) -> Vec<f32> {
    values.iter().flat_map(|&value| [value, value]).skip(1).collect()
}

impl Sampler for Heun {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let denoise = call.denoise(self.prediction).clipped(self.clip);
        let derivative =
            Zip::from(&*sample).and(call.noise_pred).map_collect(|&x, &m| denoise.derivative(x, m));
        let (i, sigmas) = (call.index, &call.schedule.sigmas);
        if i.is_multiple_of(2) {
            let dt = sigmas[i + 1] - sigmas[i];
            state.start = Some(sample.clone());
            Zip::from(sample).and(&derivative).for_each(|x, &d| *x += d * dt);
            state.remember(derivative, 1);
        } else {
            let (Some(start), Some(first)) = (state.start.take(), state.history.pop_front()) else {
                return Err(SchedulerError::SecondHalf { index: i });
            };
            let dt = sigmas[i] - sigmas[i - 1];
            Zip::from(sample).and(&start).and(&first).and(&derivative).for_each(|x, &x0, &d1, &d2| {
                *x = x0 + f32::midpoint(d1, d2) * dt;
            });
        }
        Ok(())
    }
}
