//! DPM-3M-SDE: DPM-Solver++ multistep of third order for the reverse SDE.
//!
//! Crowson's k-diffusion, `sample_dpmpp_3m_sde`: the step of `multistep_sde.rs`, corrected by φ₂·D₁ − φ₃·D₂ with φ₂ =
//! (e^(−h') − 1)/h' + 1, φ₃ = φ₂/h' − 1/2, and Dₖ the terms of the polynomial through the last three x0. The reference is
//! k-diffusion; diffusers has no class.

use ndarray::{Array4, Zip};

use super::multistep_sde::MultistepSde;
use super::sampler::{Call, Sampler, State};
use super::{Parts, Plan, SchedulerError};

struct Dpm3MSde(MultistepSde);

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let (schedule, solver) = MultistepSde::build(plan)?;
    Ok((schedule, Box::new(Dpm3MSde(solver))))
}

impl Sampler for Dpm3MSde {
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
        self.0.step(3, call, sample, state, |sample, m, lengths| {
            let phi_2 = 1.0 - lengths.toward / lengths.both;
            let phi_3 = phi_2 / lengths.both - 0.5;
            let ratio = |back: usize| lengths.earlier(back) / lengths.h;
            match (m.get(1), m.get(2)) {
                (Some(m1), Some(m2)) => {
                    let (r0, r1) = (ratio(1), ratio(2));
                    // D₁ = d₀ + (d₀ − d₁)·r₀/(r₀ + r₁) and D₂ = (d₀ − d₁)/(r₀ + r₁) for the slopes d₀ and d₁.
                    let (slope, bend) = (phi_2 as f32, ((phi_2 * r0 - phi_3) / (r0 + r1)) as f32);
                    let (inverse0, inverse1) = ((1.0 / r0) as f32, (1.0 / r1) as f32);
                    Zip::from(sample).and(&m[0]).and(m1).and(m2).for_each(|x, &m0, &m1, &m2| {
                        let (d0, d1) = ((m0 - m1) * inverse0, (m1 - m2) * inverse1);
                        *x += slope * d0 + bend * (d0 - d1);
                    });
                }
                (Some(m1), None) => {
                    let slope = (phi_2 / ratio(1)) as f32;
                    Zip::from(sample).and(&m[0]).and(m1).for_each(|x, &m0, &m1| *x += slope * (m0 - m1));
                }
                _ => {}
            }
        });
        Ok(())
    }
}
