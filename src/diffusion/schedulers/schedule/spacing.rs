//! Where the steps of a schedule lie: timesteps picked from training, or sigmas laid between two ends.
//!
//! A spacing is a value. A new one is a variant here with its arm in `timesteps` or `sigmas`.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "timesteps and step counts lie far below 2^24"
)]

use special::Beta;

use super::log_sigmas::LogSigmas;
use super::numpy::{arange_down, linspace};
use crate::diffusion::schedulers::{Plan, SchedulerError};
use crate::domain::Spacing;

/// How inference timesteps are picked from the training timesteps (Lin et al. 2023, arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    Leading,
    Linspace,
    Trailing,
}

impl TimestepSpacing {
    /// `None` for the spacings that lay sigmas.
    pub fn new(spacing: Spacing) -> Option<Self> {
        match spacing {
            Spacing::Leading => Some(Self::Leading),
            Spacing::Linspace => Some(Self::Linspace),
            Spacing::Trailing => Some(Self::Trailing),
            _ => None,
        }
    }

    /// `steps` whole timesteps of `train`, falling, before `steps_offset` is added.
    pub(super) fn timesteps(self, train: usize, steps: usize) -> Vec<usize> {
        match self {
            Self::Leading => (0..steps).rev().map(|i| i * (train / steps)).collect(),
            Self::Linspace => linspace((train - 1) as f64, steps).into_iter().rev().map(rounded).collect(),
            Self::Trailing => before_each(arange_down(train as f64, train as f64, steps)),
        }
    }

    /// The same as DPM-Solver and UniPC pick them: one step more is spaced, and the last of it dropped. `last` is
    /// `train` less what `lambda_min_clipped` cuts.
    pub(super) fn solver_timesteps(self, last: usize, train: usize, steps: usize) -> Vec<usize> {
        match self {
            Self::Leading => (1..=steps).rev().map(|i| i * (last / (steps + 1))).collect(),
            Self::Linspace => {
                linspace((last - 1) as f64, steps + 1).into_iter().skip(1).rev().map(rounded).collect()
            }
            Self::Trailing => before_each(arange_down(last as f64, train as f64, steps)),
        }
    }
}

fn rounded(t: f64) -> usize {
    t.round_ties_even() as usize
}

fn before_each(list: Vec<f64>) -> Vec<usize> {
    list.into_iter().map(|t| rounded(t).saturating_sub(1)).collect()
}

/// Whole timesteps, falling, for the samplers that step by ᾱ (DDIM, DDPM, PNDM).
pub fn whole_timesteps(plan: &Plan, default: TimestepSpacing) -> Result<Vec<usize>, SchedulerError> {
    let &Plan { config, steps, .. } = plan;
    let spacing = plan.timestep_spacing(default)?;
    config.check_steps(steps)?;
    let (train, offset) = (config.train_timesteps()?, config.offset()?);
    let mut list = spacing.timesteps(train, steps);
    if spacing == TimestepSpacing::Leading {
        for t in &mut list {
            *t += offset;
        }
    }
    if list.first().is_some_and(|&t| t >= train) {
        let expected = format!("small enough that {steps} steps stay below num_train_timesteps ({train})");
        return Err(SchedulerError::value("steps_offset", offset, expected));
    }
    Ok(list)
}

/// How sigmas are laid. The timesteps are then found back from them.
///
/// The sources are diffusers' `_convert_to_…`, and for the others `modules/sd_schedulers.py` of A1111, whose functions are
/// k-diffusion's, `ComfyUI`'s and the papers' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigmaSpacing {
    /// Karras et al. 2022 (arXiv 2206.00364), equation 5 with ρ = 7.
    Karras,
    /// Even steps of ln σ. k-diffusion's polyexponential is the same at its default ρ = 1.
    Exponential,
    /// Even steps of λ (Lu et al. 2022, arXiv 2206.00927): `use_lu_lambdas`. Where α is near 1 that is −ln σ, which is what
    /// the reference takes.
    Lu,
    /// Quantiles of the beta distribution with α = β = 0.6 (Lee et al. 2024, arXiv 2407.12173).
    Beta,
    /// Even steps in time, of which the last is left out: `sgm_uniform`.
    SgmUniform,
    /// Even steps in time, to the last: k-diffusion's `get_sigmas`. `normal` is the same.
    Uniform,
    /// Training sigmas at even distances.
    Simple,
    /// The original DDIM's: every ⌊train / steps⌋th training sigma from the second on, which may be more than were asked.
    DdimUniform,
    /// Sabour et al. 2024 (arXiv 2404.14507): the list for Stable Diffusion v1, interpolated in ln σ.
    AlignYourSteps,
    /// The same paper's theorem 3.1: even steps of the arctangent. It ends at the lowest sigma, not at 0.
    KlOptimal,
}

/// The training sigmas, rising, and the ends between which others are laid.
pub struct SigmaRange<'a> {
    pub table: &'a [f32],
    pub logs: &'a LogSigmas,
    pub min: f64,
    pub max: f64,
}

/// Where Stable Diffusion v1's steps should lie, by the authors of align-your-steps.
const ALIGNED: [f64; 11] = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029];
/// α and β of the beta distribution.
const BETA_SHAPE: f64 = 0.6;

impl SigmaSpacing {
    /// `None` for the spacings that pick timesteps.
    pub fn new(spacing: Spacing) -> Option<Self> {
        match spacing {
            Spacing::Karras => Some(Self::Karras),
            Spacing::Exponential | Spacing::Polyexponential => Some(Self::Exponential),
            Spacing::SgmUniform => Some(Self::SgmUniform),
            Spacing::Simple => Some(Self::Simple),
            Spacing::Normal | Spacing::Uniform => Some(Self::Uniform),
            Spacing::DdimUniform => Some(Self::DdimUniform),
            Spacing::Beta => Some(Self::Beta),
            Spacing::AlignYourSteps => Some(Self::AlignYourSteps),
            Spacing::KlOptimal => Some(Self::KlOptimal),
            Spacing::Linspace | Spacing::Leading | Spacing::Trailing => None,
        }
    }

    /// Whether it is diffusers', whose classes lay it between the sigmas of their own timesteps.
    pub(super) fn is_of_diffusers(self) -> bool {
        matches!(self, Self::Karras | Self::Exponential | Self::Lu | Self::Beta)
    }

    /// `n` sigmas, falling, from which the latents then go to 0.
    pub(super) fn sigmas(self, range: &SigmaRange, n: usize) -> Vec<f64> {
        let &SigmaRange { table, logs, min, max } = range;
        let between = |from: f64, to: f64, n: usize| {
            linspace(1.0, n).into_iter().map(move |ramp| from + ramp * (to - from))
        };
        let train = table.len();
        match self {
            Self::Karras => {
                between(max.powf(1.0 / 7.0), min.powf(1.0 / 7.0), n).map(|s| s.powf(7.0)).collect()
            }
            Self::Exponential | Self::Lu => between(max.ln(), min.ln(), n).map(f64::exp).collect(),
            Self::Beta => {
                let ln_beta = BETA_SHAPE.ln_beta(BETA_SHAPE);
                let quantile = |p: f64| p.inv_inc_beta(BETA_SHAPE, BETA_SHAPE, ln_beta);
                between(1.0, 0.0, n).map(|p| min + quantile(p) * (max - min)).collect()
            }
            Self::SgmUniform => between(logs.timestep(max), logs.timestep(min), n + 1)
                .take(n)
                .map(|t| logs.sigma(t))
                .collect(),
            Self::Uniform => {
                between(logs.timestep(max), logs.timestep(min), n).map(|t| logs.sigma(t)).collect()
            }
            Self::Simple => {
                let stride = train as f64 / n as f64;
                (0..n).map(|i| f64::from(table[train - 1 - (i as f64 * stride) as usize])).collect()
            }
            Self::DdimUniform => {
                table.iter().skip(1).step_by((train / n).max(1)).rev().map(|&sigma| sigma.into()).collect()
            }
            Self::AlignYourSteps => {
                // The places count from the lowest sigma.
                let last = ALIGNED.len() - 1;
                let at = |place: f64| {
                    let low = (place as usize).min(last - 1);
                    let [from, to] = [ALIGNED[last - low], ALIGNED[last - low - 1]].map(f64::ln);
                    ((to - from) * (place - low as f64) + from).exp()
                };
                linspace(last as f64, n).into_iter().rev().map(at).collect()
            }
            Self::KlOptimal => between(max.atan(), min.atan(), n + 1).take(n).map(f64::tan).collect(),
        }
    }

    /// The sigma at which the last step ends, where the spacing has one of its own.
    pub(super) fn end(self, range: &SigmaRange) -> Option<f64> {
        (self == Self::KlOptimal).then_some(range.min)
    }

    /// What becomes of the timesteps that are found back. `of_karras` is what the class does with Karras', and `others`
    /// what it does with the spacings that diffusers lacks. diffusers rounds no others.
    pub(super) fn found(self, of_karras: FoundTimesteps, others: FoundTimesteps) -> FoundTimesteps {
        match self {
            Self::Karras | Self::Lu => of_karras,
            Self::Exponential | Self::Beta => FoundTimesteps::Fractional,
            _ => others,
        }
    }
}

/// What a class does with the timesteps that it finds back from spaced sigmas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundTimesteps {
    Fractional,
    Rounded,
}

impl FoundTimesteps {
    pub(super) fn apply(self, t: f64) -> f64 {
        match self {
            Self::Fractional => t,
            Self::Rounded => t.round_ties_even(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trailing_schedule_has_as_many_steps_as_were_requested() {
        for steps in 1..=1000 {
            let list = TimestepSpacing::Trailing.timesteps(1000, steps);
            assert_eq!(list.len(), steps);
            assert!(list.windows(2).all(|w| w[0] > w[1]), "{steps}");
        }
    }
}
