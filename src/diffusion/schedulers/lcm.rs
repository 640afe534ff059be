//! LCM: sampling of latent consistency models, which are distilled to jump to the end in a few calls.
//!
//! Luo et al. 2023 (arXiv 2310.04378), algorithm 3: x0 by the model, mixed with the latents by the boundary conditions
//! `c_skip` = s²/(τ² + s²), `c_out` = τ/√(τ² + s²) (s = 1/2, τ = t·`timestep_scaling`), then noised again to the next
//! timestep; the result is that of the last call. The timesteps are picked from the `original_inference_steps` of the
//! distillation, unless the request asks for a spacing. The reference is diffusers' `LCMScheduler`.

use ndarray::{Array4, Zip};

use super::sampler::{Call, Sampler, State};
use super::schedule::{FoundTimesteps, LCM_BETAS, NoiseTable, ZeroSnr, whole_timesteps};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError, TimestepSpacing};

struct Lcm {
    scaling: f32,
    prediction: PredictionType,
    clip: Option<f32>,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let config = plan.config;
    config.refuse_unsupported()?;
    let scaling = config.timestep_scaling.unwrap_or(10.0);
    if !(scaling.is_finite() && scaling > 0.0) {
        return Err(SchedulerError::value("timestep_scaling", scaling, "a positive number"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "it scales timesteps in f32")]
    let scaling = scaling as f32;
    let sampler = Lcm { scaling, prediction: config.prediction()?, clip: config.clip(false)? };
    Ok((schedule(plan)?, Box::new(sampler)))
}

/// The timesteps of the distillation, or those of the spacing that the request asks for.
fn schedule(plan: &Plan) -> Result<Schedule, SchedulerError> {
    if plan.sigma_spacing.is_some() {
        let table = NoiseTable::new(plan.config, LCM_BETAS, ZeroSnr::Finite)?;
        return Schedule::solver(plan, &table, TimestepSpacing::Linspace, 0, FoundTimesteps::Rounded);
    }
    let table = NoiseTable::new(plan.config, LCM_BETAS, ZeroSnr::Exact)?;
    if let Some(spacing) = plan.asked_timesteps {
        return Ok(Schedule::by_alpha(&table, &whole_timesteps(plan, spacing)?));
    }
    let original = original_steps(plan, &table)?;
    Ok(Schedule::by_alpha(&table, &distilled_timesteps(original, table.len() / original, plan.steps)))
}

/// How many timesteps the model was distilled with. It draws no more steps than these.
pub(super) fn original_steps(plan: &Plan, table: &NoiseTable) -> Result<usize, SchedulerError> {
    let original = plan.config.original_inference_steps.unwrap_or(50);
    if !(1..=table.len()).contains(&original) {
        let expected = format!("between 1 and num_train_timesteps ({})", table.len());
        return Err(SchedulerError::value("original_inference_steps", original, expected));
    }
    if !(1..=original).contains(&plan.steps) {
        return Err(SchedulerError::steps(plan.steps, 1, original));
    }
    Ok(original)
}

/// Of the `original` timesteps, `stride` apart, so many as there are steps: `numpy.linspace` without its end,
/// floored.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "timesteps and step counts lie far below 2^24"
)]
pub(super) fn distilled_timesteps(original: usize, stride: usize, steps: usize) -> Vec<usize> {
    let picked = |i: usize| (i as f64 * (original as f64 / steps as f64)).floor() as usize;
    (0..steps).map(|i| (original - picked(i)) * stride - 1).collect()
}

impl Sampler for Lcm {
    fn step(&self, call: &mut Call, sample: &mut Array4<f32>, _: &mut State) -> Result<(), SchedulerError> {
        let scaled = call.schedule.timesteps[call.index] * self.scaling;
        let divisor = scaled * scaled + 0.25;
        let (c_skip, c_out) = (0.25 / divisor, scaled / divisor.sqrt());
        let denoise = call.denoise(self.prediction).clipped(self.clip);
        Zip::from(&mut *sample).and(call.noise_pred).for_each(|x, &m| {
            *x = c_out * denoise.x0(*x, m) + c_skip * *x;
        });
        if let Some(&next) = call.schedule.levels.get(call.index + 1) {
            let fresh = call.draw();
            Zip::from(sample).and(&fresh).for_each(|x, &z| *x = next.signal * *x + next.noise * z);
        }
        Ok(())
    }
}
