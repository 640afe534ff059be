//! What a scheduler knows before its first step.
//!
//! A [`Schedule`] is computed once, from the model's `scheduler_config.json` and the number of steps. Three
//! families share its constructors: samplers that step by ᾱ, those of k-diffusion, and DPM-Solver's.

mod log_sigmas;
mod noise_level;
mod noise_table;
mod numpy;
mod spacing;

pub use self::log_sigmas::LogSigmas;
pub use self::noise_level::NoiseLevel;
pub use self::noise_table::{DDPM_BETAS, K_BETAS, LCM_BETAS, NoiseTable, ZeroSnr};
pub use self::numpy::torch_linspace;
pub use self::spacing::{FoundTimesteps, SigmaSpacing, TimestepSpacing, whole_timesteps};

use self::numpy::interpolate;
use super::config::FinalSigma;
use super::{Plan, SchedulerError};

/// The model calls of a generation, and how latents are scaled at each of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// One a model call, falling; fractional where the reference's are.
    pub timesteps: Vec<f32>,
    /// As the reference lists them, in k-diffusion's scaling: one a call and, last, where the last step ends.
    /// Empty for samplers that step by ᾱ.
    pub sigmas: Vec<f32>,
    /// The level to which an image is noised before a call, one a call. Empty where the reference defines none.
    pub levels: Vec<NoiseLevel>,
    /// What the latents are divided by before the model sees them, one a call.
    pub input_divisors: Vec<f32>,
    /// What unit noise is multiplied by where a generation starts from noise alone.
    pub init_noise_sigma: f32,
    /// An image start leaves out whole steps.
    pub calls_per_step: usize,
}

impl Schedule {
    /// For samplers that step by ᾱ (DDIM, DDPM, PNDM, LCM). Latents keep unit variance.
    pub fn by_alpha(table: &NoiseTable, timesteps: &[usize]) -> Self {
        Self {
            levels: timesteps.iter().map(|&t| NoiseLevel::from_alpha_cumprod(table.alpha(t))).collect(),
            ..Self::unscaled(timesteps.iter().map(|&t| as_f32(t)).collect())
        }
    }

    /// Timesteps alone: nothing is scaled, and no level is defined.
    pub fn unscaled(timesteps: Vec<f32>) -> Self {
        Self {
            sigmas: Vec::new(),
            levels: Vec::new(),
            input_divisors: vec![1.0; timesteps.len()],
            init_noise_sigma: 1.0,
            calls_per_step: 1,
            timesteps,
        }
    }

    /// For k-diffusion's samplers, by sigmas that lie at their calls' indices.
    pub fn by_sigma(timesteps: Vec<f32>, sigmas: Vec<f32>, init_noise_sigma: f32) -> Self {
        let levels: Vec<NoiseLevel> =
            sigmas.iter().take(timesteps.len()).map(|&sigma| NoiseLevel::variance_exploding(sigma)).collect();
        Self {
            input_divisors: levels.iter().map(|level| level.input_divisor()).collect(),
            levels,
            sigmas,
            init_noise_sigma,
            ..Self::unscaled(timesteps)
        }
    }

    /// k-diffusion's schedule with one call a step. Spaced sigmas lie between those of the first and the last
    /// timestep, unless the file sets other ends.
    pub fn k_diffusion(
        plan: &Plan,
        table: &NoiseTable,
        found: FoundTimesteps,
        last: FinalSigma,
    ) -> Result<Self, SchedulerError> {
        let config = plan.config;
        config.check_steps(plan.steps)?;
        config.refuse_unsupported()?;
        let spacing = config.spacing(TimestepSpacing::Linspace)?;
        let mut timesteps = fractional_timesteps(plan, spacing)?;
        let table_sigmas = table.sigmas();
        let mut sigmas: Vec<f64> = sigmas_at(&timesteps, &table_sigmas);
        if let Some(spaced) = spaced_sigmas(plan, sigmas[plan.steps - 1], sigmas[0])? {
            timesteps = timesteps_of(&spaced, &table_sigmas, found);
            sigmas = spaced;
        }
        let sigmas = ending(&sigmas, last, &table_sigmas);
        let max = sigmas.iter().copied().fold(0.0, f32::max);
        let init_noise_sigma =
            if spacing == TimestepSpacing::Leading { (max * max + 1.0).sqrt() } else { max };
        Ok(Self::by_sigma(timesteps, sigmas, init_noise_sigma))
    }

    /// DPM-Solver's and UniPC's schedule. Latents keep unit variance. Spaced sigmas lie between the ends of the
    /// training table, unless the file sets others. `clipped` training timesteps are cut from the noisy end.
    pub fn solver(
        plan: &Plan,
        table: &NoiseTable,
        spacing: TimestepSpacing,
        clipped: usize,
        found: FoundTimesteps,
    ) -> Result<Self, SchedulerError> {
        let config = plan.config;
        config.refuse_unsupported()?;
        config.check_steps(plan.steps)?;
        let (train, offset) = (config.train_timesteps()?, config.offset()?);
        let table_sigmas = table.sigmas();
        let (min, max) = (table_sigmas[0], table_sigmas[table_sigmas.len() - 1]);
        let (timesteps, sigmas) = if let Some(spaced) = spaced_sigmas(plan, min.into(), max.into())? {
            // The reference's timesteps are whole numbers: what is not rounded is cut off.
            let timesteps = timesteps_of(&spaced, &table_sigmas, found);
            (timesteps.into_iter().map(f32::trunc).collect(), spaced)
        } else {
            let offset = if spacing == TimestepSpacing::Leading { offset } else { 0 };
            let picked = spacing.solver_timesteps(table.len() - clipped, train, plan.steps);
            let timesteps: Vec<f32> = picked.into_iter().map(|t| as_f32(t + offset)).collect();
            let sigmas = sigmas_at(&timesteps, &table_sigmas);
            (timesteps, sigmas)
        };
        let sigmas = ending(&sigmas, config.final_sigma()?, &table_sigmas);
        let levels =
            sigmas[..timesteps.len()].iter().map(|&sigma| NoiseLevel::variance_preserving(sigma)).collect();
        Ok(Self { sigmas, levels, ..Self::unscaled(timesteps) })
    }
}

/// The sigmas that the plan spaces between `min` and `max`, or between the ends that the file sets; `None` where
/// the timesteps come first.
fn spaced_sigmas(plan: &Plan, min: f64, max: f64) -> Result<Option<Vec<f64>>, SchedulerError> {
    let Some(spacing) = plan.sigma_spacing else { return Ok(None) };
    let (file_min, file_max) = plan.config.sigma_ends()?;
    Ok(Some(spacing.sigmas(file_min.unwrap_or(min), file_max.unwrap_or(max), plan.steps)))
}

/// The training sigmas at the timesteps.
fn sigmas_at(timesteps: &[f32], table_sigmas: &[f32]) -> Vec<f64> {
    timesteps.iter().map(|&t| interpolate(table_sigmas, f64::from(t))).collect()
}

/// k-diffusion interpolates between timesteps, so "linspace" need not round, and an offset may lead beyond
/// training: the table's end holds there.
fn fractional_timesteps(plan: &Plan, spacing: TimestepSpacing) -> Result<Vec<f32>, SchedulerError> {
    let (train, steps) = (plan.config.train_timesteps()?, plan.steps);
    let offset = if spacing == TimestepSpacing::Leading { plan.config.offset()? } else { 0 };
    Ok(match spacing {
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "as the reference")]
        TimestepSpacing::Linspace => {
            numpy::linspace((train - 1) as f64, steps).into_iter().rev().map(|t| t as f32).collect()
        }
        _ => spacing.timesteps(train, steps).into_iter().map(|t| as_f32(t + offset)).collect(),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "timesteps are f32, as in the reference")]
fn timesteps_of(sigmas: &[f64], table_sigmas: &[f32], found: FoundTimesteps) -> Vec<f32> {
    let logs = LogSigmas::new(table_sigmas);
    sigmas.iter().map(|&sigma| found.apply(logs.timestep(sigma)) as f32).collect()
}

/// The sigmas in f32, with the one at which the last step ends.
#[expect(clippy::cast_possible_truncation, reason = "sigmas are f32, as in the reference")]
fn ending(sigmas: &[f64], last: FinalSigma, table_sigmas: &[f32]) -> Vec<f32> {
    let last = match last {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => table_sigmas[0],
    };
    sigmas.iter().map(|&sigma| sigma as f32).chain([last]).collect()
}

#[expect(clippy::cast_precision_loss, reason = "timesteps lie far below 2^24")]
fn as_f32(timestep: usize) -> f32 {
    timestep as f32
}
