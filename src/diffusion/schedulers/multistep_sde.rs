//! What DPM-M-SDE and DPM-3M-SDE share: DPM-Solver++ multistep for the reverse SDE, in k-diffusion's form.
//!
//! With h = ln(σ/σ') and h' = h(1 + η), a step is x' = σ'/σ·e^(−ηh)·x + (1 − e^(−h'))·x0, what the earlier x0 correct, and
//! σ'·√(1 − e^(−2ηh))·z, where z is the Brownian motion's increment on the way. A last step to 0 takes x0. (Crowson's
//! k-diffusion, `sample_dpmpp_2m_sde` and `sample_dpmpp_3m_sde`.)

use std::collections::VecDeque;

use ndarray::{Array4, Zip};

use super::sampler::{Call, State};
use super::schedule::{DDPM_BETAS, NoiseTable, ZeroSnr};
use super::{Plan, PredictionType, Schedule, SchedulerError};

pub(super) struct MultistepSde {
    prediction: PredictionType,
    eta: f64,
    s_noise: f32,
}

/// A step's lengths in λ.
pub(super) struct Lengths<'a> {
    call: usize,
    sigmas: &'a [f32],
    /// h
    pub h: f64,
    /// h'
    pub both: f64,
    /// 1 − e^(−h')
    pub toward: f64,
}

impl Lengths<'_> {
    /// The same as h of the step `back` calls ago.
    pub fn earlier(&self, back: usize) -> f64 {
        let at = |call: usize| self.sigmas[call.saturating_sub(back)];
        log_ratio(at(self.call), at(self.call + 1))
    }
}

impl MultistepSde {
    pub fn build(plan: &Plan) -> Result<(Schedule, Self), SchedulerError> {
        let table = NoiseTable::new(plan.config, DDPM_BETAS, ZeroSnr::Finite)?;
        let schedule = Schedule::k_diffusion_alone(plan, &table)?;
        let (prediction, eta) = (plan.config.prediction()?, plan.eta(1.0)?.into());
        Ok((schedule, Self { prediction, eta, s_noise: plan.s_noise() }))
    }

    /// One step that looks at the last `order` answers, this one's included. `correct` adds what the earlier ones say; it is
    /// given all of them as x0, the newest first.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "coefficients are computed in f64 for latents in f32"
    )]
    pub fn step(
        &self,
        order: usize,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
        correct: impl FnOnce(&mut Array4<f32>, &VecDeque<Array4<f32>>, &Lengths),
    ) {
        let (sigma, next) = call.sigmas();
        let denoise = call.denoise(self.prediction);
        let x0 = Zip::from(&*sample).and(call.noise_pred).map_collect(|&x, &m| denoise.x0(x, m));
        state.remember(x0, order);
        let m = &state.history;
        if next == 0.0 {
            sample.assign(&m[0]);
            return;
        }
        let h = log_ratio(sigma, next);
        let both = h * (1.0 + self.eta);
        let toward = -(-both).exp_m1();
        let (share, toward_x0) = ((-both).exp() as f32, toward as f32);
        Zip::from(&mut *sample).and(&m[0]).for_each(|x, &m0| *x = share * *x + toward_x0 * m0);
        correct(sample, m, &Lengths { call: call.index, sigmas: &call.schedule.sigmas, h, both, toward });
        if self.eta > 0.0 {
            let deviation = next * (-(-2.0 * self.eta * h).exp_m1()).sqrt() as f32 * self.s_noise;
            sample.scaled_add(deviation, &call.brownian(&mut state.brownian, sigma, next));
        }
    }
}

/// ln(from/to): how far a step goes in λ.
fn log_ratio(from: f32, to: f32) -> f64 {
    (f64::from(from) / f64::from(to)).ln()
}
