//! The schedulers: at which timesteps the model is called, and how each answer moves the latents on.
//!
//! A [`Scheduler`] belongs to one generation. It is made of three values:
//!
//! - a `Schedule` (`schedule.rs`): timesteps, sigmas and scalings of every model call, computed once;
//! - a `Sampler` (`sampler.rs`): the formula of one call. Each file that is named after a scheduler holds one, with its paper and
//!   equation;
//! - a `State` (`sampler.rs`): what the formula remembers from earlier calls.
//!
//! Samplers share [`Denoise`], which reads the model's answer, and the mathematics in `adams_bashforth.rs`,
//! `ancestral.rs`, `churn.rs`, `two_calls.rs`, `kdpm2.rs`, `dpm_solver.rs` and `multistep_sde.rs`. [`SchedulerConfig`] is the
//! model's own file. Latents have the shape `[images, channels, height, width]`. Nothing here knows models, pictures or jobs.
//!
//! # To add a scheduler
//!
//! 1. Write one file here: the sampler, and a function `build` that makes its schedule and itself from a `Plan`.
//! 2. Add one line to the table in `domain/scheduler.rs`: its names, and what it can do.
//!
//! The compiler then asks for two more lines in this file: `mod`, and an arm in [`build`]. Requests, error sentences, the
//! OpenAPI document and the text in PNG files read the table. Tests ask for the rest: its class in
//! `tests/golden/schedulers_extra_golden.py`, which writes its reference values, and its name in the guide. A key of
//! `scheduler_config.json` that no scheduler has read yet is one line in `config.rs`. A new way to space sigmas is a
//! variant in `schedule/spacing.rs` and a line of
//! `domain/spacing.rs`.
//!
//! # Rounding
//!
//! The reference is diffusers 0.42.1, and k-diffusion where diffusers has no class; each file names it. Coefficients are computed in f32 in the order of the
//! reference where that uses 0-dimensional tensors: equal rounding is worth more here than better rounding.

mod adams_bashforth;
mod ancestral;
mod churn;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod denoise;
mod dpm_2s_a;
mod dpm_3m_sde;
mod dpm_m;
mod dpm_m_sde;
mod dpm_s;
mod dpm_sde;
mod dpm_solver;
mod error;
mod euler_a;
mod euler_d;
mod heun;
mod ipndm;
mod k_lms;
mod kdpm2;
mod kdpm2_a;
mod kdpm2_d;
mod lcm;
mod multistep_sde;
mod pndm;
mod sampler;
mod schedule;
mod scheduler;
mod tcd;
mod two_calls;
mod uni_pc;

#[cfg(test)]
mod tests;

pub use self::config::SchedulerConfig;
pub use self::denoise::{Denoise, PredictionType};
pub use self::error::SchedulerError;
pub use self::sampler::State as SchedulerState;
pub use self::scheduler::Scheduler;

use self::sampler::Sampler;
use self::schedule::{NoiseLevel, Schedule, SigmaSpacing, TimestepSpacing};
use crate::domain::{Sampling, SchedulerKind, Spacing};

/// What a scheduler is built from.
#[derive(Clone, Copy)]
struct Plan<'a> {
    config: &'a SchedulerConfig,
    steps: usize,
    /// How timesteps are picked, where the request says so and not the file.
    asked_timesteps: Option<TimestepSpacing>,
    /// How sigmas are spaced, for the schedulers that space them; `None` where they are those of the timesteps.
    sigma_spacing: Option<SigmaSpacing>,
    /// What the request asks beyond the model's own file.
    sampling: Sampling,
}

impl Plan<'_> {
    /// How timesteps are picked: by the request, the file, or the class.
    fn timestep_spacing(&self, default: TimestepSpacing) -> Result<TimestepSpacing, SchedulerError> {
        self.asked_timesteps.map_or_else(|| self.config.spacing(default), Ok)
    }

    /// The share of noise that a stochastic step adds.
    fn eta(&self, default: f32) -> Result<f32, SchedulerError> {
        let eta = self.sampling.eta.unwrap_or(default);
        if (0.0..=1.0).contains(&eta) {
            Ok(eta)
        } else {
            Err(SchedulerError::value("eta", eta, "between 0 and 1"))
        }
    }

    /// The deviation of the noise that a stochastic step adds.
    fn s_noise(&self) -> f32 {
        self.sampling.s_noise.unwrap_or(1.0)
    }
}

/// What a scheduler's file builds.
type Parts = (Schedule, Box<dyn Sampler>);

/// A scheduler of `kind` for `steps` steps over the model's training schedule.
pub fn build(
    kind: SchedulerKind,
    config: &SchedulerConfig,
    steps: usize,
    sampling: Sampling,
) -> Result<Scheduler, SchedulerError> {
    if let Some(reason) = sampling.spacing.and_then(|spacing| kind.refuses(spacing)) {
        return Err(SchedulerError::Spacing { scheduler: kind.as_str(), reason });
    }
    let sigma_spacing = match sampling.spacing {
        Some(spacing) => SigmaSpacing::new(spacing),
        None => config.sigma_spacing(kind)?,
    };
    let asked_timesteps = sampling.spacing.and_then(TimestepSpacing::new);
    let plan = &Plan { config, steps, asked_timesteps, sigma_spacing, sampling };
    let parts = match kind {
        SchedulerKind::Ddim => ddim::build(plan),
        SchedulerKind::Ddpm => ddpm::build(plan),
        SchedulerKind::Deis => deis::build(plan),
        SchedulerKind::Dpm2SA => dpm_2s_a::build(plan),
        SchedulerKind::Dpm3MSde => dpm_3m_sde::build(plan),
        SchedulerKind::DpmM => dpm_m::build(plan),
        SchedulerKind::DpmMSde => dpm_m_sde::build(plan, dpm_m_sde::Rule::Midpoint),
        SchedulerKind::DpmMSdeHeun => dpm_m_sde::build(plan, dpm_m_sde::Rule::Heun),
        SchedulerKind::DpmS => dpm_s::build(plan),
        SchedulerKind::DpmSde => dpm_sde::build(plan),
        SchedulerKind::EulerA => euler_a::build(plan),
        SchedulerKind::EulerD => euler_d::build(plan),
        SchedulerKind::Heun => heun::build(plan),
        SchedulerKind::Ipndm => ipndm::build(plan),
        SchedulerKind::Kdpm2A => kdpm2_a::build(plan),
        SchedulerKind::Kdpm2D => kdpm2_d::build(plan),
        SchedulerKind::KLms => k_lms::build(plan),
        SchedulerKind::Lcm => lcm::build(plan),
        SchedulerKind::Pndm => pndm::build(plan),
        SchedulerKind::Tcd => tcd::build(plan),
        SchedulerKind::UniPc => uni_pc::build(plan),
    };
    Ok(Scheduler::new(kind, parts?))
}

/// The spacing with which a scheduler draws: what the request asks, or else what the model's file says, where it has a
/// name.
pub fn spacing(kind: SchedulerKind, config: &SchedulerConfig, asked: Option<Spacing>) -> Option<Spacing> {
    let of_file = || match config.sigma_spacing(kind).ok()?? {
        SigmaSpacing::Karras => Some(Spacing::Karras),
        SigmaSpacing::Exponential => Some(Spacing::Exponential),
        SigmaSpacing::Beta => Some(Spacing::Beta),
        _ => None,
    };
    asked.or_else(of_file)
}

/// The schedulers that draw with zero terminal SNR as the model was trained with it, and those that ignore it, as
/// diffusers' do.
pub fn by_zero_snr() -> (Vec<SchedulerKind>, Vec<SchedulerKind>) {
    let file = |zero| SchedulerConfig { rescale_betas_zero_snr: Some(zero), ..SchedulerConfig::default() };
    let schedule = |kind: SchedulerKind, zero| {
        build(kind, &file(zero), 10, Sampling::default()).map(|scheduler| scheduler.schedule)
    };
    SchedulerKind::ALL.into_iter().partition(|kind| schedule(*kind, true) != schedule(*kind, false))
}

/// The schedulers that call this model at whole timesteps only, and those that also call it between two of them.
pub fn by_whole_timesteps(config: &SchedulerConfig) -> (Vec<SchedulerKind>, Vec<SchedulerKind>) {
    // Few steps may hit whole timesteps by chance.
    const STEPS: usize = 50;
    let scheduler = |kind: &SchedulerKind| build(*kind, config, STEPS, Sampling::default());
    let is_whole = |scheduler: Scheduler| scheduler.timesteps().iter().all(|t| t.fract() == 0.0);
    // A scheduler that cannot be built from this configuration refuses jobs with the reason.
    let kinds = SchedulerKind::ALL.into_iter().filter(|kind| scheduler(kind).is_ok());
    kinds.partition(|kind| scheduler(kind).is_ok_and(is_whole))
}
