//! HEUN: Heun's second-order method in sigma, two model calls a step and one for the last.
//!
//! Karras et al. 2022 (arXiv 2206.00364), algorithm 1: an Euler step to σ', a second derivative there, and the step
//! again with their mean. Even calls are first halves, before which `churn.rs` raises σ if it is asked to. The reference is
//! diffusers' `HeunDiscreteScheduler`, and k-diffusion's `sample_heun` with churn.

use ndarray::{Array4, Zip};

use super::churn::Churn;
use super::config::FinalSigma;
use super::sampler::{Call, Sampler, State};
use super::schedule::{FoundTimesteps, K_BETAS, LogSigmas, NoiseTable, ZeroSnr};
use super::two_calls::twice_after_the_first;
use super::{Denoise, Parts, Plan, PredictionType, Schedule, SchedulerError};

struct Heun {
    prediction: PredictionType,
    churn: Option<Churn>,
    clip: Option<f32>,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let config = plan.config;
    let table = NoiseTable::new(config, K_BETAS, ZeroSnr::Ignored)?;
    let once = Schedule::k_diffusion(plan, &table, FoundTimesteps::Fractional, FinalSigma::Zero)?;
    let (mut timesteps, mut sigmas) =
        (twice_after_the_first(&once.timesteps), twice_after_the_first(&once.sigmas));
    match once.last_sigma() {
        // The last step goes to 0 at once.
        0.0 => drop(sigmas.pop()),
        last => timesteps.push(LogSigmas::new(&table.sigmas()).timestep_f32(last)),
    }
    let mut schedule =
        Schedule { calls_per_step: 2, ..Schedule::by_sigma(timesteps, sigmas, once.init_noise_sigma) };
    let churn = Churn::new(plan, &mut schedule, &table);
    Ok((schedule, Box::new(Heun { prediction: config.prediction()?, churn, clip: config.clip(false)? })))
}

impl Sampler for Heun {
    fn churn(&self) -> Option<&Churn> {
        self.churn.as_ref()
    }

    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let (i, sigmas) = (call.index, &call.schedule.sigmas);
        let raised = |sigma| Churn::raised(self.churn.as_ref(), sigma);
        let sigma = if i.is_multiple_of(2) { raised(sigmas[i]) } else { sigmas[i] };
        let denoise = Denoise::at(self.prediction, sigma).clipped(self.clip);
        let derivative =
            Zip::from(&*sample).and(call.noise_pred).map_collect(|&x, &m| denoise.derivative(x, m));
        if i.is_multiple_of(2) {
            let dt = sigmas[i + 1] - sigma;
            state.start = Some(sample.clone());
            Zip::from(sample).and(&derivative).for_each(|x, &d| *x += d * dt);
            state.remember(derivative, 1);
        } else {
            let (Some(start), Some(first)) = (state.start.take(), state.history.pop_front()) else {
                return Err(SchedulerError::SecondHalf { index: i });
            };
            let dt = sigma - raised(sigmas[i - 1]);
            Zip::from(sample).and(&start).and(&first).and(&derivative).for_each(|x, &x0, &d1, &d2| {
                *x = x0 + f32::midpoint(d1, d2) * dt;
            });
        }
        Ok(())
    }
}
