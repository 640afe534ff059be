//! DPM-M: DPM-Solver++ multistep (2M by default), and its stochastic and noise-predicting relatives.
//!
//! Lu et al. 2022, DPM-Solver++ (arXiv 2211.01095), algorithm 2: the polynomial goes through the answers of the last
//! steps. Settings and coefficients are `dpm_solver.rs`'s. The reference is diffusers'
//! `DPMSolverMultistepScheduler`.

use ndarray::{Array4, Zip};

use super::dpm_solver::{Algorithm, DpmSolver, clipped, lambda};
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, FoundTimesteps, NoiseTable, ZeroSnr};
use super::{Parts, Plan, Schedule, SchedulerError, TimestepSpacing};

struct DpmM {
    solver: DpmSolver,
    lower_order_final: bool,
    /// Whether the last step is of first order whatever the number of steps.
    euler_at_final: bool,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let config = plan.config;
    let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Finite)?;
    let solver = DpmSolver::new(config)?;
    if solver.algorithm == Algorithm::SdeDpmSolver && solver.order == 3 {
        return Err(SchedulerError::value("solver_order", 3, "1 or 2 for \"sde-dpmsolver\""));
    }
    let spacing = plan.timestep_spacing(TimestepSpacing::Linspace)?;
    // The reference does not round Karras timesteps of the cosine schedule.
    let cosine = config.beta_schedule.as_deref() == Some("squaredcos_cap_v2");
    let found = if cosine { FoundTimesteps::Fractional } else { FoundTimesteps::Rounded };
    let schedule = Schedule::solver(plan, &table, spacing, clipped(config, &table), found)?;
    let sampler = DpmM {
        solver,
        lower_order_final: config.lower_order_final.unwrap_or(true),
        euler_at_final: config.euler_at_final.unwrap_or(false) || schedule.last_sigma() == 0.0,
    };
    Ok((schedule, Box::new(sampler)))
}

impl DpmM {
    /// The order of call `i` of `len`: no more than there are `answers`, and lower at the end, where the last interval
    /// is unlike those before it.
    fn order_at(&self, i: usize, len: usize, answers: usize) -> usize {
        let order = self.solver.order.min(answers).min(i + 1);
        let short = self.lower_order_final && len < 15;
        if i + 1 == len && (self.euler_at_final || short) {
            1
        } else if i + 2 == len && short {
            order.min(2)
        } else {
            order
        }
    }
}

impl Sampler for DpmM {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        self.solver.remember(call, sample, state);
        let (sigma, next) = call.sigmas();
        let update = self.solver.update(sigma, next);
        let (i, sigmas, m) = (call.index, &call.schedule.sigmas, &state.history);
        let back = |k: usize| lambda(sigmas[i + 1 - k]) - lambda(sigmas[i - k]);
        match self.order_at(i, call.schedule.timesteps.len(), m.len()) {
            1 => Zip::from(&mut *sample).and(&m[0]).for_each(|x, &m0| *x = update.first_order(*x, m0)),
            2 => {
                let inverse = 1.0 / (back(1) / back(0));
                let d1 = update.d1(self.solver.heun);
                Zip::from(&mut *sample).and(&m[0]).and(&m[1]).for_each(|x, &m0, &m1| {
                    *x = update.first_order(*x, m0) + d1 * (inverse * (m0 - m1));
                });
            }
            _ => {
                let (r0, r1) = (back(1) / back(0), back(2) / back(0));
                let (inverse0, inverse1) = (1.0 / r0, 1.0 / r1);
                let (slope, curve) = (r0 / (r0 + r1), 1.0 / (r0 + r1));
                Zip::from(&mut *sample).and(&m[0]).and(&m[1]).and(&m[2]).for_each(|x, &m0, &m1, &m2| {
                    let (d10, d11) = (inverse0 * (m0 - m1), inverse1 * (m1 - m2));
                    let (d1, d2) = (d10 + slope * (d10 - d11), curve * (d10 - d11));
                    *x = update.first_order(*x, m0) + update.d1_heun * d1 + update.d2 * d2;
                });
            }
        }
        self.solver.add_noise(&update, call, sample);
        Ok(())
    }
}
