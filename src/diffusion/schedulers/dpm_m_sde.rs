//! DPM-M-SDE: DPM-Solver++ multistep (2M) for the reverse SDE, by the midpoint rule or by Heun's.
//!
//! Crowson's k-diffusion, `sample_dpmpp_2m_sde`, after Lu et al. 2022 (arXiv 2211.01095): the step of `multistep_sde.rs`,
//! corrected by c·(x0 − x0₋₁)·h/h₋₁, where c is (1 − e^(−h'))/2 by the midpoint rule and 1 − (1 − e^(−h'))/h' by Heun's. The
//! reference is k-diffusion; diffusers' `DPMSolverMultistepScheduler` with `algorithm_type` "sde-dpmsolver++" is DPM-M
//! here, and draws other noise.

use ndarray::{Array4, Zip};

use super::multistep_sde::MultistepSde;
use super::sampler::{Call, Sampler, State};
use super::{Parts, Plan, SchedulerError};

/// How the last two answers are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Midpoint,
    Heun,
}

struct DpmMSde {
    rule: Rule,
    solver: MultistepSde,
}

pub(super) fn build(plan: &Plan, rule: Rule) -> Result<Parts, SchedulerError> {
    let (schedule, solver) = MultistepSde::build(plan)?;
    Ok((schedule, Box::new(DpmMSde { rule, solver })))
}

impl Sampler for DpmMSde {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "coefficients are computed in f64 for latents in f32"
    )]
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        self.solver.step(2, call, sample, state, |sample, m, lengths| {
            let Some(m1) = m.get(1) else { return };
            let rule = match self.rule {
                Rule::Midpoint => 0.5 * lengths.toward,
                Rule::Heun => 1.0 - lengths.toward / lengths.both,
            };
            let correction = (rule * lengths.h / lengths.earlier(1)) as f32;
            Zip::from(sample).and(&m[0]).and(m1).for_each(|x, &m0, &m1| *x += correction * (m0 - m1));
        });
        Ok(())
    }
}
