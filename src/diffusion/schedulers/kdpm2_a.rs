//! KDPM2-A: the midpoint method to below the next sigma, then fresh noise up to it.
//!
//! Crowson's k-diffusion, `sample_dpm_2_ancestral`: KDPM2-D's step towards `σ_down` (see `ancestral.rs`), over the
//! geometric mean of σ and `σ_down`, plus `σ_up`·z. Noise is drawn after second halves only. The reference is
//! diffusers' `KDPM2AncestralDiscreteScheduler`.

use ndarray::Array4;

use super::ancestral::ancestral;
use super::kdpm2::{self, geometric_mean};
use super::sampler::{Call, Sampler, State};
use super::two_calls::step_sigmas;
use super::{Parts, Plan, PredictionType, SchedulerError};

struct Kdpm2A {
    prediction: PredictionType,
    eta: f32,
    s_noise: f32,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let eta = plan.eta(1.0)?;
    let schedule = kdpm2::schedule(plan, |sigma, next| middle(sigma, next, eta))?;
    let prediction = plan.config.prediction_except_sample()?;
    Ok((schedule, Box::new(Kdpm2A { prediction, eta, s_noise: plan.s_noise() })))
}

fn middle(sigma: f32, next: f32, eta: f32) -> f32 {
    geometric_mean(sigma, ancestral(sigma, next, eta).1)
}

impl Sampler for Kdpm2A {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let (sigma, next) = step_sigmas(call);
        let (up, down) = ancestral(sigma, next, self.eta);
        let over = [sigma, middle(sigma, next, self.eta), down];
        if kdpm2::step(self.prediction, over, call, sample, state)? {
            sample.scaled_add(up * self.s_noise, &call.draw());
        }
        Ok(())
    }
}
