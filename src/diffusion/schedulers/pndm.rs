//! PNDM: pseudo linear multistep, with or without its Runge-Kutta start.
//!
//! Liu et al. 2022 (arXiv 2202.09778): equation 11 moves between timesteps,
//! x' = √(ᾱ'/ᾱ)·x − (ᾱ' − ᾱ)·ε̄ / (ᾱ·√(1 − ᾱ') + √(ᾱ·(1 − ᾱ)·ᾱ')), and ε̄ is Adams-Bashforth over the
//! last four answers (equation 12). With `skip_prk_steps` (SD v1) the second timestep is called twice,
//! the second time to redo the first step with the mean of both ends; without it, the first three steps
//! are fourth-order Runge-Kutta (equation 13), four calls each. The reference is diffusers'
//! `PNDMScheduler`. Which rule a call follows is counted from the first call *made*, so an image
//! start, which slices the list, loses the doubled timestep and runs one off: so does the reference.

use super::config::{PredictionType, SchedulerConfig, SchedulerError, TimestepSpacing};
use super::ddim::as_f32;
use super::tables::{DDPM_BETAS, NoiseTable, ZeroSnr, whole_timesteps};
use super::{Scheduler, check_step};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};
use std::collections::VecDeque;

pub(super) struct Pndm {
    table: NoiseTable,
    final_alpha: f32,
    whole: Vec<usize>,
    timesteps: Vec<f32>,
    stride: usize,
    /// How many leading calls are Runge-Kutta's; 0 if they are skipped.
    runge_kutta: usize,
    prediction: PredictionType,
    /// Calls made.
    counter: usize,
    /// Newest first.
    ets: VecDeque<Array4<f32>>,
    start: Option<Array4<f32>>,
    /// Runge-Kutta's weighted sum of a step's answers so far.
    sum: Option<Array4<f32>>,
}

impl Pndm {
    pub fn new(config: &SchedulerConfig, steps: usize) -> Result<Self, SchedulerError> {
        config.refuse_unsupported()?;
        let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Ignored)?;
        let spaced = whole_timesteps(config, config.spacing(TimestepSpacing::Leading)?, steps)?;
        let stride = table.len() / steps;
        let skip = config.skip_prk_steps.unwrap_or(false);
        if !skip && steps < 4 {
            return Err(SchedulerError::Steps { steps, min: 4, max: table.len() });
        }
        let whole = if skip { doubled(&spaced) } else { with_runge_kutta(&spaced, stride) };
        Ok(Self {
            final_alpha: if config.set_alpha_to_one.unwrap_or(false) { 1.0 } else { table.alpha(0) },
            timesteps: as_f32(&whole),
            whole,
            stride,
            runge_kutta: if skip { 0 } else { 12 },
            table,
            prediction: config.prediction_of_noise()?,
            counter: 0,
            ets: VecDeque::with_capacity(5),
            start: None,
            sum: None,
        })
    }

    /// Equation 11 from timestep `t` to `prev`; below 0 is before the first.
    fn transfer(&self, x: &Array4<f32>, t: usize, prev: Option<usize>, model: &Array4<f32>) -> Array4<f32> {
        let alpha = self.table.alpha(t);
        let alpha_prev = prev.map_or(self.final_alpha, |prev| self.table.alpha(prev));
        let (beta, beta_prev) = (1.0 - alpha, 1.0 - alpha_prev);
        let (signal, spread) = (alpha.sqrt(), beta.sqrt());
        let share = (alpha_prev / alpha).sqrt();
        let change = alpha_prev - alpha;
        let denominator = alpha * beta_prev.sqrt() + (alpha * beta * alpha_prev).sqrt();
        let velocity = self.prediction == PredictionType::VPrediction;
        Zip::from(x).and(model).map_collect(|&x, &m| {
            let eps = if velocity { signal * m + spread * x } else { m };
            share * x - change * eps / denominator
        })
    }

    fn step_runge_kutta(&mut self, noise_pred: &Array4<f32>, t: usize, sample: &mut Array4<f32>) {
        // Halves of a stride are taken by even calls; odd ones repeat the timestep they came to.
        let half = if self.counter.is_multiple_of(2) { self.stride / 2 } else { 0 };
        let from = self.whole[self.counter / 4 * 4];
        let mut model = noise_pred.clone();
        match self.counter % 4 {
            0 => {
                self.sum = Some(noise_pred * (1.0 / 6.0));
                self.remember(noise_pred);
                self.start = Some(sample.clone());
            }
            1 | 2 => {
                if let Some(sum) = &mut self.sum {
                    sum.scaled_add(1.0 / 3.0, noise_pred);
                }
            }
            _ => {
                if let Some(mut sum) = self.sum.take() {
                    sum.scaled_add(1.0 / 6.0, noise_pred);
                    model = sum;
                }
            }
        }
        let start = self.start.as_ref().unwrap_or(sample);
        *sample = self.transfer(start, from, t.checked_sub(half), &model);
    }

    fn step_multistep(&mut self, noise_pred: &Array4<f32>, t: usize, sample: &mut Array4<f32>) {
        let (mut from, mut to) = (t, t.checked_sub(self.stride));
        if self.counter == 1 {
            (from, to) = (t + self.stride, Some(t));
        } else {
            self.remember(noise_pred);
        }
        let ets = &self.ets;
        // Written as the reference sums them.
        let model = match (ets.len(), self.counter) {
            (1, 0) => {
                self.start = Some(sample.clone());
                noise_pred.clone()
            }
            (1, _) => {
                if let Some(start) = self.start.take() {
                    *sample = start;
                }
                Zip::from(noise_pred).and(&ets[0]).map_collect(|&m, &e| f32::midpoint(m, e))
            }
            (2, _) => Zip::from(&ets[0]).and(&ets[1]).map_collect(|&a, &b| (3.0 * a - b) / 2.0),
            (3, _) => Zip::from(&ets[0])
                .and(&ets[1])
                .and(&ets[2])
                .map_collect(|&a, &b, &c| (23.0 * a - 16.0 * b + 5.0 * c) / 12.0),
            _ => Zip::from(&ets[0])
                .and(&ets[1])
                .and(&ets[2])
                .and(&ets[3])
                .map_collect(|&a, &b, &c, &d| (1.0 / 24.0) * (55.0 * a - 59.0 * b + 37.0 * c - 9.0 * d)),
        };
        *sample = self.transfer(sample, from, to, &model);
    }

    fn remember(&mut self, noise_pred: &Array4<f32>) {
        self.ets.truncate(3);
        self.ets.push_front(noise_pred.clone());
    }
}

/// The second timestep twice.
fn doubled(spaced: &[usize]) -> Vec<usize> {
    let mut list = spaced.to_vec();
    if let Some(&second) = spaced.get(1) {
        list.insert(1, second);
    }
    list
}

/// Three Runge-Kutta steps over the first four timesteps, each at both ends and twice in the middle,
/// then the rest from the fourth on.
fn with_runge_kutta(spaced: &[usize], stride: usize) -> Vec<usize> {
    let steps = spaced.windows(2).take(3);
    let mut list: Vec<usize> =
        steps.flat_map(|pair| [pair[0], pair[1] + stride / 2, pair[1] + stride / 2, pair[1]]).collect();
    list.extend(&spaced[3..]);
    list
}

impl Scheduler for Pndm {
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
        _noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.whole.len(), noise_pred, sample)?;
        let t = self.whole[i];
        if self.counter < self.runge_kutta {
            self.step_runge_kutta(noise_pred, t, sample);
        } else {
            self.step_multistep(noise_pred, t, sample);
        }
        self.counter += 1;
        Ok(())
    }
}
