//! IPNDM: improved pseudo linear multistep, for models whose time runs from 1 to 0.
//!
//! Crowson's v-diffusion, `plms`, after Liu et al. 2022 (arXiv 2202.09778): with σ = sin²(πs/2) and
//! α = √(1 − σ²), ε = σ·x + α·v, Adams-Bashforth over the last four, and x' = α'·(x − σ·ε̄)/α + σ'·ε̄. The
//! reference is diffusers' `IPNDMScheduler`, which ignores the model's noise table, calls it with t in
//! (0, 1], and knows no way to add noise. Stable Diffusion makes nothing recognisable with it; it is
//! here because the hosted worker had it.

use super::config::{SchedulerConfig, SchedulerError};
use super::tables::linspace_f32;
use super::{Scheduler, check_step};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};
use std::collections::VecDeque;

pub(super) struct Ipndm {
    timesteps: Vec<f32>,
    /// One more than steps, as the alphas.
    betas: Vec<f32>,
    alphas: Vec<f32>,
    /// Newest first.
    ets: VecDeque<Array4<f32>>,
}

impl Ipndm {
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, SchedulerError> {
        config.check_steps(steps)?;
        if config.trained_betas.is_some() {
            return Err(SchedulerError::value("trained_betas", "a list", "missing for IPNDM"));
        }
        let mut times = linspace_f32(1.0, 0.0, steps + 1);
        times[steps] = 0.0;
        let betas: Vec<f32> = times.iter().map(|&s| sine(s * std::f32::consts::PI / 2.0).powi(2)).collect();
        let alphas: Vec<f32> = betas.iter().map(|b| (1.0 - b * b).sqrt()).collect();
        let timesteps = betas.iter().zip(&alphas).take(steps).map(|(&b, &a)| angle(b, a)).collect();
        Ok(Self { timesteps, betas, alphas, ets: VecDeque::with_capacity(5) })
    }
}

/// f32 sine and arc tangent through f64: within an ulp of torch's and the same on every platform's libm.
#[allow(clippy::cast_possible_truncation)]
fn sine(x: f32) -> f32 {
    f64::from(x).sin() as f32
}

#[allow(clippy::cast_possible_truncation)]
fn angle(b: f32, a: f32) -> f32 {
    f64::from(b).atan2(f64::from(a)) as f32 / std::f32::consts::PI * 2.0
}

impl Scheduler for Ipndm {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn noising(&self, _i: usize) -> Result<(f32, f32), SchedulerError> {
        Err(SchedulerError::NoImageStart("IPNDM"))
    }

    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        _noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.timesteps.len(), noise_pred, sample)?;
        let (alpha, sigma) = (self.alphas[i], self.betas[i]);
        let (next_alpha, next_sigma) = (self.alphas[i + 1], self.betas[i + 1]);
        let newest = Zip::from(&*sample).and(noise_pred).map_collect(|&x, &m| x * sigma + m * alpha);
        self.ets.truncate(3);
        self.ets.push_front(newest);
        let ets = &self.ets;
        let mean = match ets.len() {
            1 => ets[0].clone(),
            2 => Zip::from(&ets[0]).and(&ets[1]).map_collect(|&a, &b| (3.0 * a - b) / 2.0),
            3 => Zip::from(&ets[0])
                .and(&ets[1])
                .and(&ets[2])
                .map_collect(|&a, &b, &c| (23.0 * a - 16.0 * b + 5.0 * c) / 12.0),
            _ => Zip::from(&ets[0])
                .and(&ets[1])
                .and(&ets[2])
                .and(&ets[3])
                .map_collect(|&a, &b, &c, &d| (1.0 / 24.0) * (55.0 * a - 59.0 * b + 37.0 * c - 9.0 * d)),
        };
        let divisor = alpha.max(1e-8);
        Zip::from(sample).and(&mean).for_each(|x, &e| {
            *x = next_alpha * ((*x - sigma * e) / divisor) + e * next_sigma;
        });
        Ok(())
    }
}
