//! DPM-SDE: DPM-Solver++ singlestep for the reverse SDE.
//!
//! Crowson's k-diffusion, `sample_dpmpp_sde` with r = 1/2: an ancestral step to the geometric mean s of σ and σ', and from
//! the start an ancestral step to σ' with the x0 that the model gives at s. An ancestral step from σ is
//! x' = `σ_down`/σ·x + (1 − `σ_down`/σ)·x0 + `σ_up`·z (see `ancestral.rs`), with z the Brownian motion's increment on the way.
//! A last step to 0 takes x0 at once. The reference is k-diffusion; diffusers' `DPMSolverSDEScheduler` is the same.

use ndarray::Array4;

use super::ancestral::ancestral;
use super::kdpm2::geometric_mean;
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, NoiseTable, ZeroSnr};
use super::two_calls::{self, mix_with_x0, step_sigmas};
use super::{Denoise, Parts, Plan, PredictionType, Schedule, SchedulerError};

struct DpmSde {
    prediction: PredictionType,
    eta: f32,
    s_noise: f32,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let table = NoiseTable::new(plan.config, DDPM_BETAS, ZeroSnr::Finite)?;
    let once = Schedule::k_diffusion_alone(plan, &table)?;
    let schedule = two_calls::schedule(&once, &table, geometric_mean);
    let prediction = plan.config.prediction()?;
    Ok((schedule, Box::new(DpmSde { prediction, eta: plan.eta(1.0)?, s_noise: plan.s_noise() })))
}

impl Sampler for DpmSde {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let (sigma, next) = step_sigmas(call);
        let middle = geometric_mean(sigma, next);
        let is_first = call.index.is_multiple_of(2);
        let (seen_at, to) = if is_first { (sigma, middle) } else { (middle, next) };
        let (up, down) = ancestral(sigma, to, self.eta);
        let denoise = Denoise::at(self.prediction, seen_at);
        let start = state.start.take();
        if is_first {
            state.start = Some(sample.clone());
            mix_with_x0(sample, call, denoise, None, down / sigma);
        } else {
            let start = start.ok_or(SchedulerError::SecondHalf { index: call.index })?;
            mix_with_x0(sample, call, denoise, Some(&start), down / sigma);
        }
        if to > 0.0 {
            sample.scaled_add(up * self.s_noise, &call.brownian(&mut state.brownian, sigma, to));
        }
        Ok(())
    }
}
