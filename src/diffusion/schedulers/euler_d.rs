//! EULER-D: Euler's method in sigma.
//!
//! Karras et al. 2022 (arXiv 2206.00364), algorithm 2: d = (x − x0)/σ, x' = x + d·(σ' − σ), after `churn.rs` has raised σ if
//! it is asked to. The reference is diffusers' `EulerDiscreteScheduler`, and k-diffusion's `sample_euler` with churn.

use ndarray::{Array4, Zip};

use super::churn::Churn;
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, FoundTimesteps, NoiseTable, ZeroSnr};
use super::{Denoise, Parts, Plan, PredictionType, Schedule, SchedulerError};

struct EulerD {
    prediction: PredictionType,
    churn: Option<Churn>,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let config = plan.config;
    let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Finite)?;
    let mut schedule =
        Schedule::k_diffusion(plan, &table, FoundTimesteps::Fractional, config.final_sigma()?)?;
    let churn = Churn::new(plan, &mut schedule, &table);
    Ok((schedule, Box::new(EulerD { prediction: config.prediction()?, churn })))
}

impl Sampler for EulerD {
    fn churn(&self) -> Option<&Churn> {
        self.churn.as_ref()
    }

    fn step(&self, call: &mut Call, sample: &mut Array4<f32>, _: &mut State) -> Result<(), SchedulerError> {
        let (sigma, next) = call.sigmas();
        let sigma = Churn::raised(self.churn.as_ref(), sigma);
        let (denoise, dt) = (Denoise::at(self.prediction, sigma), next - sigma);
        Zip::from(sample).and(call.noise_pred).for_each(|x, &m| *x += denoise.derivative(*x, m) * dt);
        Ok(())
    }
}
