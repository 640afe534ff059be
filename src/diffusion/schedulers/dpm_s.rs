//! DPM-S: DPM-Solver++ singlestep (2S by default).
//!
//! Lu et al. 2022, DPM-Solver++ (arXiv 2211.01095), algorithm 1: steps are taken in groups of up to
//! `solver_order`; each call of a group solves again from the group's start, with one answer more. The
//! reference is diffusers' `DPMSolverSinglestepScheduler`, which spreads the groups over the step count
//! rather than calling the model more often, spaces only by linspace, and ends on a first-order step
//! wherever the last sigma is 0. Conversion and coefficients are `dpm_m.rs`'s.

use super::config::{FinalSigma, SchedulerConfig, SchedulerError, TimestepSpacing};
use super::dpm_m::{Algorithm, Solver, Update, alpha_sigma, lambda};
use super::tables::{DDPM_BETAS, Karras, NoiseTable, ZeroSnr, solver_schedule};
use super::{Scheduler, check_step, draw};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};
use std::collections::VecDeque;

pub(super) struct DpmS {
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
    solver: Solver,
    /// The place of each step in its group.
    orders: Vec<usize>,
    /// Converted answers, newest first.
    outputs: VecDeque<Array4<f32>>,
    /// The latents at the group's start.
    start: Option<Array4<f32>>,
}

impl DpmS {
    pub fn new(config: &SchedulerConfig, steps: usize, karras: bool) -> Result<Self, SchedulerError> {
        let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Ignored)?;
        let solver = Solver::new(config)?;
        if solver.algorithm == Algorithm::SdeDpmSolver {
            let expected = "\"dpmsolver++\", \"dpmsolver\" or \"sde-dpmsolver++\" for DPM-S";
            return Err(SchedulerError::value("algorithm_type", "sde-dpmsolver", expected));
        }
        let mode = if karras { Karras::Rounded } else { Karras::Off };
        let last = table.len() - table.clipped(config.lambda_min_clipped);
        let (timesteps, sigmas) =
            solver_schedule(config, &table, TimestepSpacing::Linspace, last, steps, mode)?;
        let zero = config.final_sigma()? == FinalSigma::Zero;
        // The reference switches this on by itself where the groups would not come out even.
        let lower = config.lower_order_final.unwrap_or(false) || zero || !steps.is_multiple_of(solver.order);
        Ok(Self {
            timesteps,
            sigmas,
            solver,
            orders: orders(steps, solver.order, lower, zero),
            outputs: VecDeque::with_capacity(solver.order + 1),
            start: None,
        })
    }
}

/// 1, 2, … up to `order`, again and again; with `lower`, the last group is short enough to end on the
/// last step with a lower order.
fn orders(steps: usize, order: usize, lower: bool, zero: bool) -> Vec<usize> {
    let mut list: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    if lower && order > 1 && steps.is_multiple_of(order) {
        // A full last group would end on the highest order: 1, 2 becomes 1, 1 and 1, 2, 3 becomes 1, 2, 1.
        list[steps - 1] = 1;
    }
    if zero {
        list[steps - 1] = 1;
    }
    list
}

impl Scheduler for DpmS {
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
        noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.timesteps.len(), noise_pred, sample)?;
        let output = self.solver.convert(noise_pred, sample, self.sigmas[i]);
        self.outputs.truncate(self.solver.order - 1);
        self.outputs.push_front(output);
        let fresh = if self.solver.draws() { Some(draw(noise, sample)?) } else { None };

        // An image start may fall inside a group: it has no more answers than it made.
        let order = self.orders[i].min(self.outputs.len());
        if order == 1 || self.start.is_none() {
            self.start = Some(sample.clone());
        }
        let from = self.sigmas[i + 1 - order];
        let update = Update::new(self.solver.algorithm, from, self.sigmas[i + 1]);
        let since = |k: usize| lambda(self.sigmas[k]) - lambda(from);
        let h = since(i + 1);
        if let Some(start) = &self.start {
            sample.assign(start);
        }
        let (m, heun) = (&self.outputs, self.solver.heun);
        match order {
            1 => Zip::from(&mut *sample).and(&m[0]).for_each(|x, &m0| {
                *x = update.sample * *x + update.d0 * m0;
            }),
            2 => {
                let inverse = 1.0 / (since(i) / h);
                let d1 = if heun { update.d1_heun } else { update.d1_midpoint };
                Zip::from(&mut *sample).and(&m[0]).and(&m[1]).for_each(|x, &m0, &m1| {
                    *x = update.sample * *x + update.d0 * m1 + d1 * (inverse * (m0 - m1));
                });
            }
            _ => {
                let (r0, r1) = (since(i) / h, since(i - 1) / h);
                Zip::from(&mut *sample).and(&m[0]).and(&m[1]).and(&m[2]).for_each(|x, &m0, &m1, &m2| {
                    let (d10, d11) = (1.0 / r1 * (m1 - m2), 1.0 / r0 * (m0 - m2));
                    let base = update.sample * *x + update.d0 * m2;
                    *x = if heun {
                        let d1 = (r0 * d10 - r1 * d11) / (r0 - r1);
                        let d2 = 2.0 * (d11 - d10) / (r0 - r1);
                        base + update.d1_heun * d1 + update.d2 * d2
                    } else {
                        base + update.d1_heun * d11
                    };
                });
            }
        }
        if let Some(fresh) = fresh {
            sample.scaled_add(update.noise, &fresh);
        }
        Ok(())
    }
}
