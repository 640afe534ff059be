//! Where the steps of a schedule lie: timesteps picked from training, or sigmas laid between two ends.
//!
//! A spacing is a value. A new one is a variant here with its arm in `timesteps` or `sigmas`.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "timesteps and step counts lie far below 2^24"
)]

use super::numpy::{arange_down, linspace};
use crate::diffusion::schedulers::{SchedulerConfig, SchedulerError};

/// How inference timesteps are picked from the training timesteps (Lin et al. 2023, arXiv 2305.08891, table 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    Leading,
    Linspace,
    Trailing,
}

impl TimestepSpacing {
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
pub fn whole_timesteps(
    config: &SchedulerConfig,
    default: TimestepSpacing,
    steps: usize,
) -> Result<Vec<usize>, SchedulerError> {
    let spacing = config.spacing(default)?;
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

/// How sigmas are laid between two ends. The timesteps are then found back from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigmaSpacing {
    /// Karras et al. 2022 (arXiv 2206.00364), equation 5 with ρ = 7.
    Karras,
}

impl SigmaSpacing {
    /// `n` sigmas, falling from `max` to `min`.
    pub(super) fn sigmas(self, min: f64, max: f64, n: usize) -> Vec<f64> {
        match self {
            Self::Karras => {
                let (min, max) = (min.powf(1.0 / 7.0), max.powf(1.0 / 7.0));
                linspace(1.0, n).into_iter().map(|ramp| (max + ramp * (min - max)).powf(7.0)).collect()
            }
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
