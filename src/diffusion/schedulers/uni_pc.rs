//! UNIPC: a multistep predictor, and a corrector that needs no further model call.
//!
//! Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 and 6: `UniP` extrapolates through the last answers
//! in λ = ln α − ln σ; when the next answer is there, `UniC` takes the step again with it before going
//! on. The weights ρ solve the order conditions R·ρ = b of equation 9, with B(h) = h ("bh1") or eʰ − 1
//! ("bh2"). The reference is diffusers' `UniPCMultistepScheduler`.

use super::config::{FinalSigma, PredictionType, SchedulerConfig, SchedulerError, TimestepSpacing};
use super::dpm_m::{alpha_sigma, lambda};
use super::tables::{DDPM_BETAS, Karras, NoiseTable, ZeroSnr, solver_schedule};
use super::{Scheduler, check_step};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};
use std::collections::VecDeque;

pub(super) struct UniPc {
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
    prediction: PredictionType,
    predict_x0: bool,
    bh1: bool,
    solver_order: usize,
    lower_order_final: bool,
    /// Steps after which no correction follows.
    uncorrected: Vec<usize>,
    /// Converted answers, newest first.
    outputs: VecDeque<Array4<f32>>,
    /// The latents that the last predictor started from, and its order.
    last: Option<(Array4<f32>, usize)>,
}

impl UniPc {
    pub fn new(config: &SchedulerConfig, steps: usize, karras: bool) -> Result<Self, SchedulerError> {
        let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Finite)?;
        let bh1 = match config.solver_type.as_deref() {
            // The other names are what DPM-Solver and DEIS files say.
            None | Some("bh2" | "midpoint" | "heun" | "logrho") => false,
            Some("bh1") => true,
            Some(other) => return Err(SchedulerError::value("solver_type", other, "\"bh1\" or \"bh2\"")),
        };
        let solver_order = config.solver_order.unwrap_or(2);
        if !(1..=3).contains(&solver_order) {
            return Err(SchedulerError::value("solver_order", solver_order, "1, 2 or 3"));
        }
        let (predict_x0, lower_order_final) =
            (config.predict_x0.unwrap_or(true), config.lower_order_final.unwrap_or(true));
        let zero = config.final_sigma()? == FinalSigma::Zero;
        if zero && (bh1 || !predict_x0 || !(lower_order_final || solver_order == 1)) {
            // The reference computes 0 times infinity there.
            let expected = "\"sigma_min\" with bh1, without predict_x0 or without lower_order_final";
            return Err(SchedulerError::value("final_sigmas_type", "zero", expected));
        }
        let spacing = config.spacing(TimestepSpacing::Linspace)?;
        let mode = if karras { Karras::Rounded } else { Karras::Off };
        let (timesteps, mut sigmas) = solver_schedule(config, &table, spacing, table.len(), steps, mode)?;
        if karras && !zero {
            sigmas[steps] = sigmas[steps - 1];
        }
        Ok(Self {
            timesteps,
            sigmas,
            prediction: config.prediction()?,
            predict_x0,
            bh1,
            solver_order,
            lower_order_final,
            uncorrected: config.disable_corrector.clone().unwrap_or_default(),
            outputs: VecDeque::with_capacity(solver_order + 1),
            last: None,
        })
    }

    fn convert(&self, noise_pred: &Array4<f32>, sample: &Array4<f32>, i: usize) -> Array4<f32> {
        let (alpha, sigma) = alpha_sigma(self.sigmas[i]);
        let (prediction, x0) = (self.prediction, self.predict_x0);
        Zip::from(sample).and(noise_pred).map_collect(|&x, &m| match (prediction, x0) {
            (PredictionType::Epsilon, true) => (x - sigma * m) / alpha,
            (PredictionType::Sample, true) | (PredictionType::Epsilon, false) => m,
            (PredictionType::VPrediction, true) => alpha * x - sigma * m,
            (PredictionType::Sample, false) => (x - alpha * m) / sigma,
            (PredictionType::VPrediction, false) => alpha * m + sigma * x,
        })
    }

    /// One step from sigma `from` to the next, `order` answers deep, from latents `x`. With `arrived`, the
    /// answer at its end, it is the corrector; `self.outputs[0]` is the answer at `from`.
    fn advance(
        &self,
        x: &Array4<f32>,
        from: usize,
        order: usize,
        arrived: Option<&Array4<f32>>,
    ) -> Array4<f32> {
        let (sigma_from, sigma_to) = (self.sigmas[from], self.sigmas[from + 1]);
        let h = lambda(sigma_to) - lambda(sigma_from);
        let hh = if self.predict_x0 { -h } else { h };
        let phi_1 = hh.exp_m1();
        let b_h = if self.bh1 { hh } else { phi_1 };
        let ((alpha_from, s_from), (alpha, s)) = (alpha_sigma(sigma_from), alpha_sigma(sigma_to));
        let (share, outer) = if self.predict_x0 { (s / s_from, alpha) } else { (alpha / alpha_from, s) };
        let ratios: Vec<f32> =
            (1..order).map(|k| (lambda(self.sigmas[from - k]) - lambda(sigma_from)) / h).collect();
        let rhos = weights(&ratios, hh, phi_1, b_h, arrived.is_some());

        let m0 = &self.outputs[0];
        let mut sum = Array4::<f32>::zeros(x.dim());
        for ((k, &ratio), &rho) in (1..).zip(&ratios).zip(&rhos) {
            Zip::from(&mut sum).and(&self.outputs[k]).and(m0).for_each(|s, &m, &m0| {
                *s += rho * ((m - m0) / ratio);
            });
        }
        if let (Some(arrived), Some(&rho)) = (arrived, rhos.last()) {
            Zip::from(&mut sum).and(arrived).and(m0).for_each(|s, &m, &m0| *s += rho * (m - m0));
        }
        let (first, second) = (outer * phi_1, outer * b_h);
        Zip::from(x).and(m0).and(&sum).map_collect(|&x, &m0, &s| share * x - first * m0 - second * s)
    }
}

/// The weights of the earlier answers, and with `corrector` of the one at the step's end, last.
fn weights(ratios: &[f32], hh: f32, phi_1: f32, b_h: f32, corrector: bool) -> Vec<f32> {
    let unknowns = ratios.len() + usize::from(corrector);
    match (unknowns, corrector) {
        (0, _) => return Vec::new(),
        // The reference fixes these rather than solving for them.
        (1, _) => return vec![0.5],
        _ => {}
    }
    let mut nodes: Vec<f32> = ratios.to_vec();
    nodes.push(1.0);
    let mut rows: Vec<Vec<f64>> = Vec::with_capacity(unknowns);
    let (mut phi, mut factorial) = (phi_1 / hh - 1.0, 1.0f32);
    for (power, next) in (0i32..).zip(2u8..).take(unknowns) {
        let mut row: Vec<f64> = nodes[..unknowns].iter().map(|n| f64::from(n.powi(power))).collect();
        row.push(f64::from(phi * factorial / b_h));
        rows.push(row);
        factorial *= f32::from(next);
        phi = phi / hh - 1.0 / factorial;
    }
    solve(rows)
}

/// Gaussian elimination with pivoting of up to three equations, the right-hand side the last column.
fn solve(mut rows: Vec<Vec<f64>>) -> Vec<f32> {
    let n = rows.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let top = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(r, _)| *r != column) {
            let factor = row[column] / top[column];
            for (value, above) in row.iter_mut().zip(&top) {
                *value -= factor * above;
            }
        }
    }
    #[allow(clippy::cast_possible_truncation)]
    rows.iter().enumerate().map(|(i, row)| (row[n] / row[i]) as f32).collect()
}

impl Scheduler for UniPc {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigmas(&self) -> Option<&[f32]> {
        Some(&self.sigmas)
    }

    fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError> {
        Ok(alpha_sigma(self.sigmas[i]))
    }

    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        _noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.timesteps.len(), noise_pred, sample)?;
        let output = self.convert(noise_pred, sample, i);
        if let Some((start, order)) = self.last.take()
            && i > 0
            && !self.uncorrected.contains(&(i - 1))
        {
            *sample = self.advance(&start, i - 1, order.min(i), Some(&output));
        }
        self.outputs.truncate(self.solver_order - 1);
        self.outputs.push_front(output);
        let left = if self.lower_order_final { self.timesteps.len() - i } else { self.solver_order };
        let order = self.solver_order.min(left).min(self.outputs.len()).min(i + 1);
        let next = self.advance(sample, i, order, None);
        self.last = Some((std::mem::replace(sample, next), order));
        Ok(())
    }
}
