//! DPM-M-SDE: DPM-Solver++ multistep (2M) for the reverse SDE, by the midpoint rule or by Heun's.
//!
//! Crowson's k-diffusion, `sample_dpmpp_2m_sde`, after Lu et al. 2022 (arXiv 2211.01095): with h = ln(σ/σ') and
//! h' = h(1 + η), x' = σ'/σ·e^(−ηh)·x + (1 − e^(−h'))·x0 + c·(x0 − x0₋₁)·h/h₋₁ + σ'·√(1 − e^(−2ηh))·z, where c is
//! (1 − e^(−h'))/2 by the midpoint rule and 1 − (1 − e^(−h'))/h' by Heun's, and z the Brownian motion's increment on the
//! way. A last step to 0 takes x0. The reference is k-diffusion; diffusers' `DPMSolverMultistepScheduler` with
//! `algorithm_type` "sde-dpmsolver++" is DPM-M here, and draws other noise.

use ndarray::{Array4, Zip};

use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, NoiseTable, ZeroSnr};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerError};

/// How the last two answers are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Midpoint,
    Heun,
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
        state.remember(x0, 2);
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
        if let Some(m1) = m.get(1) {
            let h_last = log_ratio(call.schedule.sigmas[call.index.saturating_sub(1)], sigma);
            let rule = match self.rule {
                Rule::Midpoint => 0.5 * toward,
                Rule::Heun => 1.0 - toward / both,
            };
            let correction = (rule * h / h_last) as f32;
            Zip::from(&mut *sample).and(&m[0]).and(m1).for_each(|x, &m0, &m1| *x += correction * (m0 - m1));
        }
        add_noise(self.eta, self.s_noise, h, call, sample, state);
        Ok(())
    }
}

/// ln(from/to): how far a step goes in λ.
pub(super) fn log_ratio(from: f32, to: f32) -> f64 {
    (f64::from(from) / f64::from(to)).ln()
}

/// The noise of the SDE's step of `h` in λ to the next sigma.
#[expect(clippy::cast_possible_truncation, reason = "coefficients are computed in f64 for latents in f32")]
pub(super) fn add_noise(
    eta: f64,
    s_noise: f32,
    h: f64,
    call: &mut Call,
    sample: &mut Array4<f32>,
    state: &mut State,
) {
    if eta > 0.0 {
        let (sigma, next) = call.sigmas();
        let deviation = next * (-(-2.0 * eta * h).exp_m1()).sqrt() as f32 * s_noise;
        sample.scaled_add(deviation, &call.brownian(&mut state.brownian, sigma, next));
    }
}
