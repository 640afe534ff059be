//! DPM-S: DPM-Solver++ singlestep (2S by default).
//!
//! Lu et al. 2022, DPM-Solver++ (arXiv 2211.01095), algorithm 1: steps are taken in groups of up to `solver_order`; each
//! call of a group solves again from the group's start, with one answer more. Settings and coefficients are
//! `dpm_solver.rs`'s. The reference is diffusers' `DPMSolverSinglestepScheduler`, which spreads the groups over the
//! step count rather than calling the model more often, spaces only by linspace, and ends on a first-order step
//! wherever the last sigma is 0.

use ndarray::{Array4, Zip};

use super::dpm_solver::{Algorithm, DpmSolver, clipped, lambda};
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, FoundTimesteps, NoiseTable, ZeroSnr};
use super::{Parts, Plan, Schedule, SchedulerError, TimestepSpacing};

struct DpmS {
    solver: DpmSolver,
    /// The place of each step in its group.
    orders: Vec<usize>,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let &Plan { config, steps, .. } = plan;
    let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Ignored)?;
    let solver = DpmSolver::new(config)?;
    if solver.algorithm == Algorithm::SdeDpmSolver {
        let expected = "\"dpmsolver++\", \"dpmsolver\" or \"sde-dpmsolver++\" for DPM-S";
        return Err(SchedulerError::value("algorithm_type", "sde-dpmsolver", expected));
    }
    // The reference has no other spacing of timesteps, so the file is not asked.
    let spacing = plan.asked_timesteps.unwrap_or(TimestepSpacing::Linspace);
    let clipped = clipped(config, &table);
    let schedule = Schedule::solver(plan, &table, spacing, clipped, FoundTimesteps::Rounded)?;
    let zero = schedule.last_sigma() == 0.0;
    // The reference switches this on by itself where the groups would not come out even.
    let lower = config.lower_order_final.unwrap_or(false) || zero || !steps.is_multiple_of(solver.order);
    let orders = orders(schedule.timesteps.len(), solver.order, lower, zero);
    Ok((schedule, Box::new(DpmS { solver, orders })))
}

/// 1, 2, … up to `order`, again and again; with `lower`, the last group is short enough to end on the
/// last step with a lower order.
fn orders(steps: usize, order: usize, lower: bool, zero: bool) -> Vec<usize> {
    let mut list: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    // A full last group would end on the highest order: 1, 2 becomes 1, 1 and 1, 2, 3 becomes 1, 2, 1.
    if (zero || (lower && order > 1 && steps.is_multiple_of(order)))
        && let Some(last) = list.last_mut()
    {
        *last = 1;
    }
    list
}

impl Sampler for DpmS {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        self.solver.remember(call, sample, state);
        let (i, sigmas) = (call.index, &call.schedule.sigmas);
        // An image start may fall inside a group: it has no more answers than it made.
        let order = self.orders[i].min(state.history.len());
        match &state.start {
            Some(start) if order > 1 => sample.assign(start),
            _ => state.start = Some(sample.clone()),
        }
        let from = sigmas[i + 1 - order];
        let update = self.solver.update(from, sigmas[i + 1]);
        let since = |k: usize| lambda(sigmas[k]) - lambda(from);
        let (h, m, heun) = (since(i + 1), &state.history, self.solver.heun);
        match order {
            1 => Zip::from(&mut *sample).and(&m[0]).for_each(|x, &m0| *x = update.first_order(*x, m0)),
            2 => {
                let inverse = 1.0 / (since(i) / h);
                let d1 = update.d1(heun);
                Zip::from(&mut *sample).and(&m[0]).and(&m[1]).for_each(|x, &m0, &m1| {
                    *x = update.first_order(*x, m1) + d1 * (inverse * (m0 - m1));
                });
            }
            _ => {
                let (r0, r1) = (since(i) / h, since(i - 1) / h);
                Zip::from(&mut *sample).and(&m[0]).and(&m[1]).and(&m[2]).for_each(|x, &m0, &m1, &m2| {
                    let (d10, d11) = (1.0 / r1 * (m1 - m2), 1.0 / r0 * (m0 - m2));
                    let base = update.first_order(*x, m2);
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
        self.solver.add_noise(&update, call, sample);
        Ok(())
    }
}
