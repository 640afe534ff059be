//! DPM-M-SDE and DPM-3M-SDE: DPM-Solver++ multistep for the reverse SDE, of second order (2M) by the midpoint rule or by
//! Heun's, or of third order (3M).
//!
//! Crowson's k-diffusion, `sample_dpmpp_2m_sde` and `sample_dpmpp_3m_sde`, after Lu et al. 2022 (arXiv 2211.01095): with
//! h = ln(σ/σ') and h' = h(1 + η), x' = e^(−h')·x + (1 − e^(−h'))·x0 + c·D₁ − φ₃·D₂ + σ'·√(1 − e^(−2ηh))·z, where Dₖ are the
//! terms of the polynomial through the last x0, c is (1 − e^(−h'))/2 by the midpoint rule and φ₂ = 1 − (1 − e^(−h'))/h'
//! otherwise, φ₃ = φ₂/h' − 1/2, and z the Brownian motion's increment on the way. Second order has D₁ = (x0 − x0₋₁)·h/h₋₁
//! alone, and so has third order until it knows three x0. A last step to 0 takes x0. The reference is k-diffusion; diffusers'
//! `DPMSolverMultistepScheduler` with `algorithm_type` "sde-dpmsolver++" is DPM-M here, and draws other noise.

use ndarray::{Array4, Zip};

use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, NoiseTable, ZeroSnr};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError};

/// How the last answers are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Midpoint,
    Heun,
    ThirdOrder,
}

struct DpmMSde {
    rule: Rule,
    prediction: PredictionType,
    eta: f64,
    s_noise: f32,
}

pub(super) fn build(plan: &Plan, rule: Rule) -> Result<Parts, SchedulerError> {
    let table = NoiseTable::new(plan.config, DDPM_BETAS, ZeroSnr::Finite)?;
    let schedule = Schedule::k_diffusion_alone(plan, &table)?;
    let (prediction, eta) = (plan.config.prediction()?, plan.eta(1.0)?.into());
    Ok((schedule, Box::new(DpmMSde { rule, prediction, eta, s_noise: plan.s_noise() })))
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
        let (sigma, next) = call.sigmas();
        let denoise = call.denoise(self.prediction);
        let x0 = Zip::from(&*sample).and(call.noise_pred).map_collect(|&x, &m| denoise.x0(x, m));
        state.remember(x0, if self.rule == Rule::ThirdOrder { 3 } else { 2 });
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
        // How far the step that ended `back` calls ago went, in units of this one.
        let ratio = |back: usize| {
            let (i, sigmas) = (call.index, &call.schedule.sigmas);
            log_ratio(sigmas[i.saturating_sub(back)], sigmas[(i + 1).saturating_sub(back)]) / h
        };
        let phi_2 = 1.0 - toward / both;
        match (m.get(1), m.get(2)) {
            (Some(m1), Some(m2)) => {
                let phi_3 = phi_2 / both - 0.5;
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
                let rule = if self.rule == Rule::Midpoint { 0.5 * toward } else { phi_2 };
                let slope = (rule / ratio(1)) as f32;
                Zip::from(&mut *sample).and(&m[0]).and(m1).for_each(|x, &m0, &m1| *x += slope * (m0 - m1));
            }
            _ => {}
        }
        add_noise(self.eta, self.s_noise, h, call, sample, state);
        Ok(())
    }
}

/// ln(from/to): how far a step goes in λ.
fn log_ratio(from: f32, to: f32) -> f64 {
    (f64::from(from) / f64::from(to)).ln()
}

/// The noise of the SDE's step of `h` in λ to the next sigma.
#[expect(clippy::cast_possible_truncation, reason = "coefficients are computed in f64 for latents in f32")]
fn add_noise(eta: f64, s_noise: f32, h: f64, call: &mut Call, sample: &mut Array4<f32>, state: &mut State) {
    if eta > 0.0 {
        let (sigma, next) = call.sigmas();
        let deviation = next * (-(-2.0 * eta * h).exp_m1()).sqrt() as f32 * s_noise;
        sample.scaled_add(deviation, &call.brownian(&mut state.brownian, sigma, next));
    }
}
