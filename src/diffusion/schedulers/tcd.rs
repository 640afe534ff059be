//! TCD: sampling of models and LoRAs of trajectory consistency distillation.
//!
//! Zheng et al. 2024 (arXiv 2402.19159), strategic stochastic sampling (algorithm 4): with γ (`eta`, 0.3 unless the request
//! says otherwise) and the next timestep t', the model's x0 and ε give x at s = ⌊(1 − γ)·t'⌋, and fresh noise brings it up to
//! t'. 0 draws no noise. The timesteps are LCM's. The reference is diffusers' `TCDScheduler`.

use ndarray::{Array4, Zip};

use super::lcm::{distilled_timesteps, original_steps};
use super::sampler::{Call, Sampler, State};
use super::schedule::{LCM_BETAS, NoiseTable, ZeroSnr};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError};

struct Tcd {
    prediction: PredictionType,
    /// ᾱ at s and at t' for each call.
    alphas: Vec<(f32, f32)>,
    gamma: f32,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let config = plan.config;
    config.refuse_unsupported()?;
    let table = NoiseTable::new(config, LCM_BETAS, ZeroSnr::Exact)?;
    let original = original_steps(plan, &table)?;
    let timesteps = distilled_timesteps(original, table.len() / original, plan.steps);
    let gamma = plan.eta(0.3)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "timesteps lie far below 2^24; the product is in f32, as in the reference"
    )]
    let below = |t: usize| ((1.0 - f64::from(gamma)) as f32 * t as f32).floor() as usize;
    let next = timesteps.iter().skip(1).copied().chain([0]);
    let alphas = next.map(|t| (table.alpha(below(t)), table.alpha(t))).collect();
    let sampler = Tcd { prediction: config.prediction()?, alphas, gamma };
    Ok((Schedule::by_alpha(&table, &timesteps), Box::new(sampler)))
}

impl Sampler for Tcd {
    fn step(&self, call: &mut Call, sample: &mut Array4<f32>, _: &mut State) -> Result<(), SchedulerError> {
        let (alpha_s, alpha_next) = self.alphas[call.index];
        let denoise = call.denoise(self.prediction);
        let (signal, noise) = (alpha_s.sqrt(), (1.0 - alpha_s).sqrt());
        Zip::from(&mut *sample).and(call.noise_pred).for_each(|x, &m| {
            *x = signal * denoise.x0(*x, m) + noise * denoise.epsilon(*x, m);
        });
        if self.gamma > 0.0 && call.index + 1 < self.alphas.len() {
            let kept = alpha_next / alpha_s;
            *sample *= kept.sqrt();
            sample.scaled_add((1.0 - kept).sqrt(), &call.draw());
        }
        Ok(())
    }
}
