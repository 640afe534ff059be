//! KDPM2-D: the midpoint method in sigma.
//!
//! Crowson's k-diffusion, `sample_dpm_2`, over the geometric mean of σ and σ' (see `kdpm2.rs`), after `churn.rs` has raised σ
//! if it is asked to. The reference is diffusers' `KDPM2DiscreteScheduler`, and k-diffusion with churn.

use ndarray::Array4;

use super::churn::Churn;
use super::kdpm2::{self, geometric_mean};
use super::sampler::{Call, Sampler, State};
use super::schedule::{K_BETAS, NoiseTable, ZeroSnr};
use super::two_calls::step_sigmas;
use super::{Parts, Plan, PredictionType, SchedulerError};

struct Kdpm2D {
    prediction: PredictionType,
    churn: Option<Churn>,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let table = NoiseTable::new(plan.config, K_BETAS, ZeroSnr::Ignored)?;
    let churn = Churn::asked(plan);
    let mut schedule =
        kdpm2::schedule(plan, |sigma, next| middle(Churn::raised(churn.as_ref(), sigma), next))?;
    let churn = Churn::new(plan, &mut schedule, &table);
    Ok((schedule, Box::new(Kdpm2D { prediction: plan.config.prediction_except_sample()?, churn })))
}

fn middle(sigma: f32, next: f32) -> f32 {
    geometric_mean(next, sigma)
}

impl Sampler for Kdpm2D {
    fn churn(&self) -> Option<&Churn> {
        self.churn.as_ref()
    }

    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let (sigma, next) = step_sigmas(call);
        let sigma = Churn::raised(self.churn.as_ref(), sigma);
        let over = [sigma, middle(sigma, next), next];
        kdpm2::step(self.prediction, over, call, sample, state).map(drop)
    }
}
