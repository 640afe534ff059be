//! K-LMS: linear multistep (Adams-Bashforth on an uneven grid) in sigma.
//!
//! Karras et al. 2022 (arXiv 2206.00364) give the ODE dx/dσ = (x − x0)/σ; Crowson's k-diffusion
//! integrates it with x' = x + Σ cₖ·dₖ, where cₖ is the integral over [σᵢ, σᵢ₊₁] of the Lagrange basis
//! polynomial through the last (up to four) sigmas. The reference is diffusers'
//! `LMSDiscreteScheduler`; its numerical quadrature is of a cubic at most, which two Gauss-Legendre
//! points integrate exactly.

use super::config::{FinalSigma, PredictionType, SchedulerConfig, SchedulerError};
use super::tables::{DDPM_BETAS, Karras, NoiseTable, SigmaSchedule, ZeroSnr};
use super::{Denoise, Scheduler, check_step, k_divisor};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};
use std::collections::VecDeque;

const ORDER: usize = 4;

pub(super) struct KLms {
    schedule: SigmaSchedule,
    prediction: PredictionType,
    /// Newest first.
    derivatives: VecDeque<Array4<f32>>,
}

impl KLms {
    pub fn new(config: &SchedulerConfig, steps: usize, karras: bool) -> Result<Self, SchedulerError> {
        let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Ignored)?;
        let mode = if karras { Karras::Fractional } else { Karras::Off };
        // This class alone has no keys for the ends of its Karras sigmas.
        let config = &SchedulerConfig { sigma_min: None, sigma_max: None, ..config.clone() };
        Ok(Self {
            schedule: SigmaSchedule::new(config, &table, steps, mode, FinalSigma::Zero)?,
            prediction: config.prediction()?,
            derivatives: VecDeque::with_capacity(ORDER + 1),
        })
    }

    /// The weight of the derivative `back` calls ago at call `i`, for a polynomial through `order` points.
    fn coefficient(&self, order: usize, i: usize, back: usize) -> f32 {
        let sigma = |k: usize| f64::from(self.schedule.sigmas[k]);
        let basis = |tau: f64| {
            (0..order)
                .filter(|&k| k != back)
                .map(|k| (tau - sigma(i - k)) / (sigma(i - back) - sigma(i - k)))
                .product::<f64>()
        };
        let (from, to) = (sigma(i), sigma(i + 1));
        let (middle, half) = (f64::midpoint(from, to), (to - from) / 2.0);
        let node = half / 3f64.sqrt();
        #[allow(clippy::cast_possible_truncation)]
        {
            (half * (basis(middle - node) + basis(middle + node))) as f32
        }
    }
}

impl Scheduler for KLms {
    fn timesteps(&self) -> &[f32] {
        &self.schedule.timesteps
    }

    fn init_noise_sigma(&self) -> f32 {
        self.schedule.init_noise_sigma
    }

    fn sigmas(&self) -> Option<&[f32]> {
        Some(&self.schedule.sigmas)
    }

    fn input_divisor(&self, i: usize) -> Option<f32> {
        Some(k_divisor(self.schedule.sigmas[i]))
    }

    fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError> {
        Ok((1.0, self.schedule.sigmas[i]))
    }

    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        _noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.schedule.timesteps.len(), noise_pred, sample)?;
        let denoise = Denoise::at(self.prediction, self.schedule.sigmas[i]);
        let derivative = Zip::from(&*sample).and(noise_pred).map_collect(|&x, &m| denoise.derivative(x, m));
        self.derivatives.truncate(ORDER - 1);
        self.derivatives.push_front(derivative);

        // The order follows the index, not the history: an image start begins above 1 and leaves out
        // the terms it has no derivative for, as the reference's zip does.
        let order = (i + 1).min(ORDER);
        let mut sum = Array4::<f32>::zeros(sample.dim());
        for (back, derivative) in self.derivatives.iter().enumerate().take(order) {
            sum.scaled_add(self.coefficient(order, i, back), derivative);
        }
        *sample += &sum;
        Ok(())
    }
}
