//! DPM-2S-A: DPM-Solver++ singlestep to below the next sigma, then fresh noise up to it.
//!
//! Crowson's k-diffusion, `sample_dpmpp_2s_ancestral`, after Lu et al. 2022 (arXiv 2211.01095), algorithm 1 with r = 1/2:
//! x at the geometric mean s of σ and `σ_down` by x₂ = s/σ·x + (1 − s/σ)·x0, and from the start again with the x0 that the
//! model gives there. A last step to 0 takes x0 at once. The reference is k-diffusion; diffusers has no class.

use ndarray::Array4;

use super::ancestral::ancestral;
use super::kdpm2::geometric_mean;
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, NoiseTable, ZeroSnr};
use super::two_calls::{self, mix_with_x0, step_sigmas};
use super::{Denoise, Parts, Plan, PredictionType, Schedule, SchedulerError};

struct Dpm2SA {
    prediction: PredictionType,
    eta: f32,
    s_noise: f32,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let table = NoiseTable::new(plan.config, DDPM_BETAS, ZeroSnr::Finite)?;
    let once = Schedule::k_diffusion_alone(plan, &table)?;
    let eta = plan.eta(1.0)?;
    let schedule = two_calls::schedule(&once, &table, |sigma, next| middle(sigma, next, eta));
    Ok((schedule, Box::new(Dpm2SA { prediction: plan.config.prediction()?, eta, s_noise: plan.s_noise() })))
}

fn middle(sigma: f32, next: f32, eta: f32) -> f32 {
    geometric_mean(sigma, ancestral(sigma, next, eta).1)
}

impl Sampler for Dpm2SA {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let (sigma, next) = step_sigmas(call);
        let (up, down) = ancestral(sigma, next, self.eta);
        let middle = middle(sigma, next, self.eta);
        if call.index.is_multiple_of(2) {
            let denoise = Denoise::at(self.prediction, sigma);
            state.start = Some(sample.clone());
            mix_with_x0(sample, call, denoise, None, middle / sigma);
            return Ok(());
        }
        let Some(start) = state.start.take() else {
            return Err(SchedulerError::SecondHalf { index: call.index });
        };
        mix_with_x0(sample, call, Denoise::at(self.prediction, middle), Some(&start), down / sigma);
        sample.scaled_add(up * self.s_noise, &call.draw());
        Ok(())
    }
}
