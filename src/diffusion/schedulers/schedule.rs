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
use self::spacing::SigmaRange;
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

    /// k-diffusion's schedule with one call a step, as diffusers' classes have it. Their spaced sigmas lie between those of
    /// the first and the last timestep, unless the file sets other ends. `found` says what becomes of Karras' timesteps.
    pub fn k_diffusion(
        plan: &Plan,
        table: &NoiseTable,
        found: FoundTimesteps,
        last: FinalSigma,
    ) -> Result<Self, SchedulerError> {
        Self::by_table_or_timesteps(plan, table, Ends::Timesteps, found, last)
    }

    /// The same as k-diffusion itself has it: all spaced sigmas lie between the ends of the training table.
    pub fn k_diffusion_alone(plan: &Plan, table: &NoiseTable) -> Result<Self, SchedulerError> {
        Self::by_table_or_timesteps(plan, table, Ends::Table, FoundTimesteps::Fractional, FinalSigma::Zero)
    }

    fn by_table_or_timesteps(
        plan: &Plan,
        table: &NoiseTable,
        between: Ends,
        found: FoundTimesteps,
        last: FinalSigma,
    ) -> Result<Self, SchedulerError> {
        let config = plan.config;
        config.check_steps(plan.steps)?;
        config.refuse_unsupported()?;
        let spacing = plan.timestep_spacing(TimestepSpacing::Linspace)?;
        let mut timesteps = fractional_timesteps(plan, spacing)?;
        let table_sigmas = table.sigmas();
        let mut sigmas: Vec<f64> = sigmas_at(&timesteps, &table_sigmas);
        let ends = match between {
            Ends::Timesteps => (sigmas[plan.steps - 1], sigmas[0]),
            Ends::Table => (table_sigmas[0].into(), table_sigmas[table_sigmas.len() - 1].into()),
        };
        let mut end = ending(last, &table_sigmas);
        let mut is_leading = spacing == TimestepSpacing::Leading;
        if let Some(spaced) = spaced(plan, ends, &table_sigmas, (found, FoundTimesteps::Fractional))? {
            (timesteps, sigmas) = (spaced.timesteps, spaced.sigmas);
            end = spaced.end.unwrap_or(end);
            is_leading &= spaced.is_of_diffusers && between == Ends::Timesteps;
        }
        let sigmas = as_f32s(&sigmas, end);
        let max = sigmas.iter().copied().fold(0.0, f32::max);
        let init_noise_sigma = if is_leading { (max * max + 1.0).sqrt() } else { max };
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
        let ends = (table_sigmas[0].into(), table_sigmas[table_sigmas.len() - 1].into());
        let mut end = ending(config.final_sigma()?, &table_sigmas);
        let found = (found, FoundTimesteps::Rounded);
        let (timesteps, sigmas) = if let Some(spaced) = spaced(plan, ends, &table_sigmas, found)? {
            end = spaced.end.unwrap_or(end);
            // The reference's timesteps are whole numbers: what is not rounded is cut off. 998.9999 is 999: in the
            // reference the last bit of a processor's square root decides about it.
            let whole = |t: f32| if t.ceil() - t < 1e-3 { t.ceil() } else { t.trunc() };
            (spaced.timesteps.into_iter().map(whole).collect(), spaced.sigmas)
        } else {
            let offset = if spacing == TimestepSpacing::Leading { offset } else { 0 };
            let picked = spacing.solver_timesteps(table.len() - clipped, train, plan.steps);
            let timesteps: Vec<f32> = picked.into_iter().map(|t| as_f32(t + offset)).collect();
            let sigmas = sigmas_at(&timesteps, &table_sigmas);
            (timesteps, sigmas)
        };
        let sigmas = as_f32s(&sigmas, end);
        let levels =
            sigmas[..timesteps.len()].iter().map(|&sigma| NoiseLevel::variance_preserving(sigma)).collect();
        Ok(Self { sigmas, levels, ..Self::unscaled(timesteps) })
    }

    /// The sigma at which the last step ends. For samplers that step by sigma.
    pub fn last_sigma(&self) -> f32 {
        self.sigmas.last().copied().unwrap_or(0.0)
    }

    /// Ends the last step at the sigma where it begins, which makes it idle, as some classes of the reference do.
    pub fn repeat_last_sigma(&mut self) {
        if let [.., before, last] = self.sigmas.as_mut_slice() {
            *last = *before;
        }
    }
}

/// Between which sigmas diffusers' spacings lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Timesteps,
    Table,
}

/// Sigmas that a spacing has laid, the timesteps found back from them, and where the last step ends if the spacing says so.
struct Spaced {
    timesteps: Vec<f32>,
    sigmas: Vec<f64>,
    end: Option<f64>,
    is_of_diffusers: bool,
}

/// The sigmas that the plan spaces: between `ends` or those of the table, or between the ends that the file sets. `None`
/// where the timesteps come first. `found` is what becomes of the timesteps: of Karras', and of those of the spacings that
/// diffusers lacks.
fn spaced(
    plan: &Plan,
    ends: (f64, f64),
    table: &[f32],
    (of_karras, others): (FoundTimesteps, FoundTimesteps),
) -> Result<Option<Spaced>, SchedulerError> {
    let Some(spacing) = plan.sigma_spacing else { return Ok(None) };
    let is_of_diffusers = spacing.is_of_diffusers();
    let (min, max) = if is_of_diffusers { ends } else { (table[0].into(), table[table.len() - 1].into()) };
    let (file_min, file_max) = plan.config.sigma_ends()?;
    let logs = &LogSigmas::new(table);
    let range = SigmaRange { table, logs, min: file_min.unwrap_or(min), max: file_max.unwrap_or(max) };
    let sigmas = spacing.sigmas(&range, plan.steps);
    let found = spacing.found(of_karras, others);
    #[expect(clippy::cast_possible_truncation, reason = "timesteps are f32, as in the reference")]
    let timesteps = sigmas.iter().map(|&sigma| found.apply(logs.timestep(sigma)) as f32).collect();
    Ok(Some(Spaced { timesteps, sigmas, end: spacing.end(&range), is_of_diffusers }))
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

/// The sigma at which the last step ends.
fn ending(last: FinalSigma, table_sigmas: &[f32]) -> f64 {
    match last {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => table_sigmas[0].into(),
    }
}

/// The sigmas in f32, with the one at which the last step ends.
#[expect(clippy::cast_possible_truncation, reason = "sigmas are f32, as in the reference")]
fn as_f32s(sigmas: &[f64], end: f64) -> Vec<f32> {
    sigmas.iter().chain([&end]).map(|&sigma| sigma as f32).collect()
}

#[expect(clippy::cast_precision_loss, reason = "timesteps lie far below 2^24")]
fn as_f32(timestep: usize) -> f32 {
    timestep as f32
}
