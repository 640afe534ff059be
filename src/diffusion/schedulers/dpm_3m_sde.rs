//! DPM-3M-SDE: DPM-Solver++ multistep of third order for the reverse SDE.
//!
//! Crowson's k-diffusion, `sample_dpmpp_3m_sde`: with h = ln(σ/σ') and h' = h(1 + η), x' = e^(−h')·x + (1 − e^(−h'))·x0 +
//! φ₂·D₁ − φ₃·D₂ + σ'·√(1 − e^(−2ηh))·z, φ₂ = (e^(−h') − 1)/h' + 1, φ₃ = φ₂/h' − 1/2, and Dₖ the terms of the polynomial through
//! the last three x0; z is the Brownian motion's increment on the way. A last step to 0 takes x0. The reference is
//! k-diffusion; diffusers has no class.

use ndarray::{Array4, Zip};

use super::dpm_m_sde::{add_noise, log_ratio};
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, NoiseTable, ZeroSnr};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError};

struct Dpm3MSde {
    prediction: PredictionType,
    eta: f64,
    s_noise: f32,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let table = NoiseTable::new(plan.config, DDPM_BETAS, ZeroSnr::Finite)?;
    let schedule = Schedule::k_diffusion_alone(plan, &table)?;
    let (prediction, eta) = (plan.config.prediction()?, plan.eta(1.0)?.into());
    Ok((schedule, Box::new(Dpm3MSde { prediction, eta, s_noise: plan.s_noise() })))
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
        let (sigma, next) = call.sigmas();
        let denoise = call.denoise(self.prediction);
        let x0 = Zip::from(&*sample).and(call.noise_pred).map_collect(|&x, &m| denoise.x0(x, m));
        state.remember(x0, 3);
        let m = &state.history;
        if next == 0.0 {
            sample.assign(&m[0]);
            return Ok(());
        }
        let h = log_ratio(sigma, next);
        let both = h * (1.0 + self.eta);
        let toward = -(-both).exp_m1();
        let (share, toward_x0) = ((-both).exp() as f32, toward as f32);
        Zip::from(&mut *sample).and(&m[0]).for_each(|x, &m0| *x = share * *x + toward_x0 * m0);
        let phi_2 = 1.0 - toward / both;
        let phi_3 = phi_2 / both - 0.5;
        // How far the step that ended `back` calls ago went, in units of this one.
        let ratio = |back: usize| {
            let (i, sigmas) = (call.index, &call.schedule.sigmas);
            log_ratio(sigmas[i.saturating_sub(back)], sigmas[(i + 1).saturating_sub(back)]) / h
        };
        match (m.get(1), m.get(2)) {
            (Some(m1), Some(m2)) => {
                let (r0, r1) = (ratio(1), ratio(2));
                // D₁ = d₀ + (d₀ − d₁)·r₀/(r₀ + r₁) and D₂ = (d₀ − d₁)/(r₀ + r₁) for the slopes d₀ and d₁.
                let (slope, bend) = (phi_2 as f32, ((phi_2 * r0 - phi_3) / (r0 + r1)) as f32);
                let (inverse0, inverse1) = ((1.0 / r0) as f32, (1.0 / r1) as f32);
                Zip::from(&mut *sample).and(&m[0]).and(m1).and(m2).for_each(|x, &m0, &m1, &m2| {
                    let (d0, d1) = ((m0 - m1) * inverse0, (m1 - m2) * inverse1);
                    *x += slope * d0 + bend * (d0 - d1);
                });
            }
            (Some(m1), None) => {
                let slope = (phi_2 / ratio(1)) as f32;
                Zip::from(&mut *sample).and(&m[0]).and(m1).for_each(|x, &m0, &m1| *x += slope * (m0 - m1));
            }
            _ => {}
        }
        add_noise(self.eta, self.s_noise, h, call, sample, state);
        Ok(())
    }
}
