//! EULER-D: Euler's method in sigma.
//!
//! Karras et al. 2022 (arXiv 2206.00364), algorithm 2 without churn: d = (x − x0)/σ, x' = x + d·(σ' − σ). The
//! reference is diffusers' `EulerDiscreteScheduler`.

use ndarray::{Array4, Zip};

use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, FoundTimesteps, NoiseTable, ZeroSnr};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError};

struct EulerD {
    prediction: PredictionType,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let config = plan.config;
    let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Finite)?;
    let schedule = Schedule::k_diffusion(plan, &table, FoundTimesteps::Fractional, config.final_sigma()?)?;
    Ok((schedule, Box::new(EulerD { prediction: config.prediction()? })))
}

impl Sampler for EulerD {
    fn step(&self, call: &mut Call, sample: &mut Array4<f32>, _: &mut State) -> Result<(), SchedulerError> {
        let (sigma, next) = call.sigmas();
        let (denoise, dt) = (call.denoise(self.prediction), next - sigma);
        Zip::from(sample).and(call.noise_pred).for_each(|x, &m| *x += denoise.derivative(*x, m) * dt);
        Ok(())
    }
}
