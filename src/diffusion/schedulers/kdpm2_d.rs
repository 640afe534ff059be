//! KDPM2-D: the midpoint method in sigma.
//!
//! Crowson's k-diffusion, `sample_dpm_2`, over the geometric mean of σ and σ' (see `kdpm2.rs`). The reference is
//! diffusers' `KDPM2DiscreteScheduler`.

use ndarray::Array4;

use super::kdpm2::{self, geometric_mean};
use super::sampler::{Call, Sampler, State};
use super::{Parts, Plan, PredictionType, SchedulerError};

struct Kdpm2D {
    prediction: PredictionType,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let schedule = kdpm2::schedule(plan, middle)?;
    Ok((schedule, Box::new(Kdpm2D { prediction: plan.config.prediction_except_sample()? })))
}

fn middle(sigma: f32, next: f32) -> f32 {
    geometric_mean(next, sigma)
}

impl Sampler for Kdpm2D {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let (sigma, next) = kdpm2::step_sigmas(call);
        let over = [sigma, middle(sigma, next), next];
        kdpm2::step(self.prediction, over, call, sample, state).map(drop)
    }
}
