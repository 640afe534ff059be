//! DDIM: denoising diffusion implicit models.
//!
//! Song, Meng and Ermon 2020 (arXiv 2010.02502), equations 12 and 16: x' = √ᾱ'·x0 + √(1 − ᾱ' − s²)·ε + s·z with
//! s² = η²·(1 − ᾱ')/(1 − ᾱ)·(1 − ᾱ/ᾱ') and ᾱ' one stride of timesteps earlier. The reference is diffusers'
//! `DDIMScheduler`.

use ndarray::{Array4, Zip};

use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, NoiseTable, ZeroSnr, whole_timesteps};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError, TimestepSpacing};

struct Ddim {
    /// ᾱ at each call, and where its step ends.
    alphas: Vec<(f32, f32)>,
    prediction: PredictionType,
    clip: Option<f32>,
    eta: f32,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let &Plan { config, steps, .. } = plan;
    config.refuse_unsupported()?;
    let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Exact)?;
    let timesteps = whole_timesteps(plan, TimestepSpacing::Leading)?;
    let stride = table.len() / steps;
    let final_alpha = if config.set_alpha_to_one.unwrap_or(true) { 1.0 } else { table.alpha(0) };
    let alphas = |&t: &usize| {
        (table.alpha(t), t.checked_sub(stride).map_or(final_alpha, |previous| table.alpha(previous)))
    };
    let sampler = Ddim {
        alphas: timesteps.iter().map(alphas).collect(),
        prediction: config.prediction()?,
        clip: config.clip(true)?,
        eta: plan.eta(0.0)?,
    };
    Ok((Schedule::by_alpha(&table, &timesteps), Box::new(sampler)))
}

impl Sampler for Ddim {
    fn step(&self, call: &mut Call, sample: &mut Array4<f32>, _: &mut State) -> Result<(), SchedulerError> {
        let (alpha, alpha_next) = self.alphas[call.index];
        let denoise = call.denoise(self.prediction).clipped(self.clip);
        let variance = (1.0 - alpha_next) / (1.0 - alpha) * (1.0 - alpha / alpha_next);
        let std_dev = if self.eta > 0.0 { self.eta * variance.sqrt() } else { 0.0 };
        let direction = (1.0 - alpha_next - std_dev * std_dev).sqrt();
        let signal_next = alpha_next.sqrt();
        Zip::from(&mut *sample).and(call.noise_pred).for_each(|x, &m| {
            *x = signal_next * denoise.x0(*x, m) + direction * denoise.epsilon(*x, m);
        });
        if self.eta > 0.0 {
            sample.scaled_add(std_dev, &call.draw());
        }
        Ok(())
    }
}
