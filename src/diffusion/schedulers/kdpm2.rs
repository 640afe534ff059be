//! What KDPM2-D and KDPM2-A share: the midpoint method in sigma, two model calls a step and one for the last.
//!
//! DPM-Solver-2 (Lu et al. 2022, arXiv 2206.00927) as Crowson's k-diffusion has it: an Euler step to the middle, the
//! geometric mean of two sigmas, and from the start again with the derivative found there. The middle has a
//! fractional timestep of its own.

use ndarray::{Array4, Zip};

use super::config::FinalSigma;
use super::sampler::{Call, State};
use super::schedule::{FoundTimesteps, K_BETAS, NoiseTable, ZeroSnr};
use super::{Denoise, Plan, PredictionType, Schedule, SchedulerError, two_calls};

/// The schedule, with a middle between each sigma and the next one.
pub(super) fn schedule(plan: &Plan, middle: impl Fn(f32, f32) -> f32) -> Result<Schedule, SchedulerError> {
    let table = NoiseTable::new(plan.config, K_BETAS, ZeroSnr::Ignored)?;
    let once = Schedule::k_diffusion(plan, &table, FoundTimesteps::Rounded, FinalSigma::Zero)?;
    Ok(two_calls::schedule(&once, &table, middle))
}

/// `exp(lerp(ln a, ln b, 1/2))`, each function rounded to f32 as the reference's are; 0 with a 0.
#[expect(clippy::cast_possible_truncation, reason = "f32 functions by way of f64: within an ulp of torch's")]
pub(super) fn geometric_mean(a: f32, b: f32) -> f32 {
    let log = |v: f32| f64::from(v).ln() as f32;
    if a <= 0.0 || b <= 0.0 {
        return 0.0;
    }
    f64::from(log(b) - (log(b) - log(a)) * 0.5).exp() as f32
}

/// One call of a step from `sigma` over `middle` to `end`. Whether that ended the step.
pub(super) fn step(
    prediction: PredictionType,
    [sigma, middle, end]: [f32; 3],
    call: &Call,
    sample: &mut Array4<f32>,
    state: &mut State,
) -> Result<bool, SchedulerError> {
    if call.index.is_multiple_of(2) {
        let (denoise, dt) = (Denoise::at(prediction, sigma), middle - sigma);
        state.start = Some(sample.clone());
        Zip::from(sample).and(call.noise_pred).for_each(|x, &m| *x += denoise.derivative(*x, m) * dt);
        return Ok(false);
    }
    let Some(start) = state.start.take() else {
        return Err(SchedulerError::SecondHalf { index: call.index });
    };
    let (denoise, dt) = (Denoise::at(prediction, middle), end - sigma);
    Zip::from(sample).and(call.noise_pred).and(&start).for_each(|x, &m, &x0| {
        *x = x0 + denoise.derivative(*x, m) * dt;
    });
    Ok(true)
}
