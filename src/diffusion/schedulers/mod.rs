//! The schedulers of diffusers: which timesteps the model is called at, and how its answers become
//! the next latents.
//!
//! One algorithm a file, each self-contained; the tables they share are in `tables.rs`. A scheduler is
//! built with its step count, belongs to one generation, and is addressed by step index: PNDM calls
//! the model twice at one timestep, so a timestep names no step. It knows latents and noise, nothing
//! of models, images or jobs.
//!
//! Coefficients are computed in f32 in the order of the reference where the reference does so with
//! 0-dimensional tensors: equal rounding is worth more here than a better one. `scheduler_tests.rs`
//! compares all of them with values from diffusers 0.42.1.

mod config;
mod ddim;
mod ddpm;
mod dpm_m;
mod dpm_s;
mod euler_a;
mod euler_d;
mod heun;
mod ipndm;
mod k_lms;
mod kdpm2_a;
mod kdpm2_d;
mod lcm;
mod pndm;
mod tables;
mod uni_pc;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::match_same_arms)]
mod scheduler_tests;

pub use config::{PredictionType, SchedulerConfig, SchedulerError, TimestepSpacing};

use crate::diffusion::noise::BatchNoise;
use crate::domain::SchedulerKind;
use ndarray::{Array4, ArrayViewMut4, Zip};

/// One generation's way from noise to latents.
pub trait Scheduler: Send {
    /// One timestep per model call, fractional where the reference's are.
    fn timesteps(&self) -> &[f32];

    /// Model calls a step. An image start begins at `(steps - kept) * order()`.
    fn order(&self) -> usize {
        1
    }

    /// What unit noise is multiplied by at a text start.
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    /// The sigmas behind the timesteps, for the families that have them.
    fn sigmas(&self) -> Option<&[f32]> {
        None
    }

    /// What the latents are divided by before the model sees them at call `i`; `None` is 1.
    fn input_divisor(&self, _i: usize) -> Option<f32> {
        None
    }

    /// How noised latents at call `i` are mixed: `(share of the image, share of the noise)`.
    fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError>;

    /// Takes the model's answer at call `i` and moves `sample` on, in place. Calls come in order from
    /// the first one kept; `noise` is drawn from only where the algorithm draws.
    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError>;

    /// Writes what the model is to see at call `i` into `out`, of the sample's shape.
    fn scale_model_input(
        &self,
        sample: &Array4<f32>,
        i: usize,
        mut out: ArrayViewMut4<f32>,
    ) -> Result<(), SchedulerError> {
        check_index(i, self.timesteps().len())?;
        check_shape("model input", out.shape(), sample.shape())?;
        match self.input_divisor(i) {
            None => out.assign(sample),
            Some(divisor) => Zip::from(&mut out).and(sample).for_each(|o, &x| *o = x / divisor),
        }
        Ok(())
    }

    /// `original` as it would look at call `i`, had it been noised with `noise`.
    fn add_noise(
        &self,
        original: &Array4<f32>,
        noise: &Array4<f32>,
        i: usize,
    ) -> Result<Array4<f32>, SchedulerError> {
        check_index(i, self.timesteps().len())?;
        check_shape("noise", noise.shape(), original.shape())?;
        let (signal, share) = self.noising(i)?;
        Ok(Zip::from(original).and(noise).map_collect(|&x, &z| signal * x + share * z))
    }

    /// The first model call of an image start that keeps `strength` of `steps`; the number of calls
    /// where nothing is kept.
    fn begin_index(&self, steps: usize, strength: f64) -> usize {
        // int(steps * strength), as the reference truncates; a NaN keeps nothing.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let kept = ((steps as f64 * strength) as usize).min(steps);
        if kept == 0 { self.timesteps().len() } else { (steps - kept) * self.order() }
    }
}

/// What a request may ask of a scheduler beyond the model's own file.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct SchedulerOptions {
    /// Karras sigmas, on top of the file's `use_karras_sigmas`.
    pub karras: bool,
    /// DDIM's eta: 0 is deterministic, 1 is DDPM's variance.
    pub eta: f32,
}

/// A scheduler of `kind` for `steps` steps over the model's training schedule.
pub fn build(
    kind: SchedulerKind,
    config: &SchedulerConfig,
    steps: usize,
    options: SchedulerOptions,
) -> Result<Box<dyn Scheduler>, SchedulerError> {
    if options.karras && !kind.has_karras() {
        return Err(SchedulerError::NoKarras(kind.as_str()));
    }
    let karras = options.karras || config.use_karras_sigmas == Some(true);
    Ok(match kind {
        SchedulerKind::Ddim => Box::new(ddim::Ddim::new(config, steps, options.eta)?),
        SchedulerKind::Ddpm => Box::new(ddpm::Ddpm::new(config, steps)?),
        SchedulerKind::DpmM => Box::new(dpm_m::DpmM::new(config, steps, karras)?),
        SchedulerKind::DpmS => Box::new(dpm_s::DpmS::new(config, steps, karras)?),
        SchedulerKind::EulerA => Box::new(euler_a::EulerA::new(config, steps)?),
        SchedulerKind::EulerD => Box::new(euler_d::EulerD::new(config, steps, karras)?),
        SchedulerKind::Heun => Box::new(heun::Heun::new(config, steps, karras)?),
        SchedulerKind::Ipndm => Box::new(ipndm::Ipndm::new(config, steps)?),
        SchedulerKind::Kdpm2A => Box::new(kdpm2_a::Kdpm2A::new(config, steps, karras)?),
        SchedulerKind::Kdpm2D => Box::new(kdpm2_d::Kdpm2D::new(config, steps, karras)?),
        SchedulerKind::KLms => Box::new(k_lms::KLms::new(config, steps, karras)?),
        SchedulerKind::Lcm => Box::new(lcm::Lcm::new(config, steps)?),
        SchedulerKind::UniPc => Box::new(uni_pc::UniPc::new(config, steps, karras)?),
        SchedulerKind::Pndm => Box::new(pndm::Pndm::new(config, steps)?),
    })
}

fn check_index(index: usize, len: usize) -> Result<(), SchedulerError> {
    if index < len { Ok(()) } else { Err(SchedulerError::OutOfRange { index, len }) }
}

fn check_shape(what: &'static str, got: &[usize], want: &[usize]) -> Result<(), SchedulerError> {
    if got == want {
        Ok(())
    } else {
        Err(SchedulerError::Shape { what, got: got.to_vec(), want: want.to_vec() })
    }
}

/// What every `step` checks before it touches anything.
fn check_step(
    i: usize,
    len: usize,
    noise_pred: &Array4<f32>,
    sample: &Array4<f32>,
) -> Result<(), SchedulerError> {
    check_index(i, len)?;
    check_shape("noise prediction", noise_pred.shape(), sample.shape())
}

/// Fresh noise of the sample's shape, one generator a row.
fn draw(noise: &mut BatchNoise, sample: &Array4<f32>) -> Result<Array4<f32>, SchedulerError> {
    let (_, c, h, w) = sample.dim();
    check_shape("noise", &[noise.len(), c, h, w], sample.shape())?;
    Ok(noise.randn((c, h, w)))
}

/// The clean latents by a model's answer at noise level `sigma`, in k-diffusion's scaling
/// (latents = x0 + sigma * noise).
#[derive(Debug, Clone, Copy)]
pub(super) struct Denoise {
    prediction: PredictionType,
    sigma: f32,
    c_out: f32,
    divisor: f32,
}

impl Denoise {
    pub(super) fn at(prediction: PredictionType, sigma: f32) -> Self {
        let divisor = sigma * sigma + 1.0;
        Self { prediction, sigma, c_out: -sigma / divisor.sqrt(), divisor }
    }

    pub(super) fn x0(&self, x: f32, m: f32) -> f32 {
        match self.prediction {
            PredictionType::Epsilon => x - self.sigma * m,
            PredictionType::VPrediction => m * self.c_out + x / self.divisor,
            PredictionType::Sample => m,
        }
    }

    /// dx / dsigma.
    fn derivative(&self, x: f32, m: f32) -> f32 {
        (x - self.x0(x, m)) / self.sigma
    }
}

/// The divisor of the model's input in the same scaling.
fn k_divisor(sigma: f32) -> f32 {
    (sigma * sigma + 1.0).sqrt()
}
