//! DDPM: ancestral sampling of the learned Markov chain.
//!
//! Ho, Jain and Abbeel 2020 (arXiv 2006.11239), equations 6 and 7, with α = ᾱ/ᾱ' and β = 1 − α over the
//! step taken: x' = √ᾱ'·β/(1 − ᾱ)·x0 + √α·(1 − ᾱ')/(1 − ᾱ)·x + √v·z, v = (1 − ᾱ')/(1 − ᾱ)·β. The
//! previous timestep is the next one *of the list*; after the last comes ᾱ' = 1. Noise is drawn
//! wherever t > 0, which with `steps_offset` 1 is everywhere. The reference is diffusers'
//! `DDPMScheduler`.

use super::config::{PredictionType, SchedulerConfig, SchedulerError, TimestepSpacing};
use super::ddim::as_f32;
use super::tables::{DDPM_BETAS, NoiseTable, ZeroSnr, whole_timesteps};
use super::{Scheduler, check_step, draw};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};

pub(super) struct Ddpm {
    table: NoiseTable,
    whole: Vec<usize>,
    timesteps: Vec<f32>,
    prediction: PredictionType,
    clip: Option<f32>,
    /// `variance_type` "`fixed_large"`: β itself instead of the posterior's variance.
    large: bool,
}

impl Ddpm {
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, SchedulerError> {
        config.refuse_unsupported()?;
        let whole = whole_timesteps(config, config.spacing(TimestepSpacing::Leading)?, steps)?;
        Ok(Self {
            table: NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Exact)?,
            timesteps: as_f32(&whole),
            whole,
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
        })
    }
}

impl Scheduler for Ddpm {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError> {
        let alpha = self.table.alpha(self.whole[i]);
        Ok((alpha.sqrt(), (1.0 - alpha).sqrt()))
    }

    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.whole.len(), noise_pred, sample)?;
        let alpha = self.table.alpha(self.whole[i]);
        let alpha_prev = self.whole.get(i + 1).map_or(1.0, |&prev| self.table.alpha(prev));
        let (beta, beta_prev) = (1.0 - alpha, 1.0 - alpha_prev);
        let kept = alpha / alpha_prev;
        let added = 1.0 - kept;
        let x0_share = alpha_prev.sqrt() * added / beta;
        let current_share = kept.sqrt() * beta_prev / beta;
        let (signal, spread) = (alpha.sqrt(), beta.sqrt());
        let (prediction, clip) = (self.prediction, self.clip);

        Zip::from(&mut *sample).and(noise_pred).for_each(|x, &m| {
            let x0 = match prediction {
                PredictionType::Epsilon => (*x - spread * m) / signal,
                PredictionType::VPrediction => signal * *x - spread * m,
                PredictionType::Sample => m,
            };
            let x0 = clip.map_or(x0, |range| x0.clamp(-range, range));
            *x = x0_share * x0 + current_share * *x;
        });
        if self.whole[i] > 0 {
            let variance = if self.large { added } else { (beta_prev / beta * added).max(1e-20) };
            let fresh = draw(noise, sample)?;
            sample.scaled_add(variance.sqrt(), &fresh);
        }
        Ok(())
    }
}
