//! EULER-A: Euler's method to below the next sigma, then fresh noise up to it.
//!
//! Crowson's k-diffusion, `sample_euler_ancestral`: x' = x + d·(`σ_down` − σ) + `σ_up`·z (see `ancestral.rs`). Noise
//! is drawn at every step, even at the last, where `σ_up` = 0: it advances the generator. The reference is
//! diffusers' `EulerAncestralDiscreteScheduler`.

use ndarray::{Array4, Zip};

use super::ancestral::ancestral;
use super::config::FinalSigma;
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, FoundTimesteps, NoiseTable, ZeroSnr};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError};

struct EulerA {
    prediction: PredictionType,
    eta: f32,
    s_noise: f32,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let table = NoiseTable::new(plan.config, DDPM_BETAS, ZeroSnr::Finite)?;
    let schedule = Schedule::k_diffusion(plan, &table, FoundTimesteps::Fractional, FinalSigma::Zero)?;
    let prediction = plan.config.prediction_except_sample()?;
    Ok((schedule, Box::new(EulerA { prediction, eta: plan.eta(1.0)?, s_noise: plan.s_noise() })))
}

impl Sampler for EulerA {
    fn step(&self, call: &mut Call, sample: &mut Array4<f32>, _: &mut State) -> Result<(), SchedulerError> {
        let (sigma, next) = call.sigmas();
        let (up, down) = ancestral(sigma, next, self.eta);
        let (denoise, dt, up) = (call.denoise(self.prediction), down - sigma, up * self.s_noise);
        let fresh = call.draw();
        Zip::from(sample).and(call.noise_pred).and(&fresh).for_each(|x, &m, &z| {
            *x = *x + denoise.derivative(*x, m) * dt + z * up;
        });
        Ok(())
    }
}
