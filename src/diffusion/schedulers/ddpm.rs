//! DDPM: ancestral sampling of the learned Markov chain.
//!
//! Ho, Jain and Abbeel 2020 (arXiv 2006.11239), equations 6 and 7, with α = ᾱ/ᾱ' and β = 1 − α over the step taken:
//! x' = √ᾱ'·β/(1 − ᾱ)·x0 + √α·(1 − ᾱ')/(1 − ᾱ)·x + √v·z, v = (1 − ᾱ')/(1 − ᾱ)·β. The next timestep is that *of
//! the list*; after the last comes ᾱ' = 1. Noise is drawn wherever t > 0, which with `steps_offset` 1 is
//! everywhere. The reference is diffusers' `DDPMScheduler`.

use ndarray::{Array4, Zip};

use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, NoiseTable, ZeroSnr, whole_timesteps};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError, TimestepSpacing};

struct Ddpm {
    /// ᾱ at each call, and 1 at the end.
    alphas: Vec<f32>,
    prediction: PredictionType,
    clip: Option<f32>,
    /// `variance_type` "`fixed_large`": β itself instead of the posterior's variance.
    large: bool,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let config = plan.config;
    config.refuse_unsupported()?;
    let timesteps = whole_timesteps(plan, TimestepSpacing::Leading)?;
    let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Exact)?;
    let sampler = Ddpm {
        alphas: timesteps.iter().map(|&t| table.alpha(t)).chain([1.0]).collect(),
        prediction: config.prediction()?,
        clip: config.clip(true)?,
        large: match config.variance_type.as_deref() {
            None | Some("fixed_small") => false,
            Some("fixed_large") => true,
            Some(other) => {
                let expected = "\"fixed_small\" or \"fixed_large\"";
                return Err(SchedulerError::value("variance_type", other, expected));
            }
        },
    };
    Ok((Schedule::by_alpha(&table, &timesteps), Box::new(sampler)))
}

impl Sampler for Ddpm {
    fn step(&self, call: &mut Call, sample: &mut Array4<f32>, _: &mut State) -> Result<(), SchedulerError> {
        let (alpha, alpha_next) = (self.alphas[call.index], self.alphas[call.index + 1]);
        let (beta, beta_next) = (1.0 - alpha, 1.0 - alpha_next);
        let kept = alpha / alpha_next;
        let added = 1.0 - kept;
        let x0_share = alpha_next.sqrt() * added / beta;
        let current_share = kept.sqrt() * beta_next / beta;
        let denoise = call.denoise(self.prediction).clipped(self.clip);
        Zip::from(&mut *sample).and(call.noise_pred).for_each(|x, &m| {
            *x = x0_share * denoise.x0(*x, m) + current_share * *x;
        });
        if call.schedule.timesteps[call.index] > 0.0 {
            let variance = if self.large { added } else { (beta_next / beta * added).max(1e-20) };
            sample.scaled_add(variance.sqrt(), &call.draw());
        }
        Ok(())
    }
}
