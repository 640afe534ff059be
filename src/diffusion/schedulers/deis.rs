//! DEIS: the diffusion exponential integrator sampler, multistep in ln ρ.
//!
//! Zhang and Chen 2022 (arXiv 2204.13902), tAB-DEIS: in ρ = σ/α the ODE is dx̃/dρ = ε for x̃ = x/α, and ε is a polynomial in
//! ln ρ through the last (up to three) answers, which is integrated exactly: x' = α'·(x/α + Σ cₖ·εₖ). The reference is
//! diffusers' `DEISMultistepScheduler`, which never goes to 0: it ends at the lowest training sigma, or repeats the last
//! of spaced sigmas.

use ndarray::{Array4, Zip};

use super::dpm_solver::x0_or_noise;
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, FoundTimesteps, NoiseTable, ZeroSnr};
use super::{
    NoiseLevel, Parts, Plan, PredictionType, Schedule, SchedulerConfig, SchedulerError, TimestepSpacing,
};

struct Deis {
    prediction: PredictionType,
    order: usize,
    lower_order_final: bool,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    // The class has no keys for the ends of its sigmas.
    let last = Some("sigma_min".to_owned());
    let config =
        &SchedulerConfig { sigma_min: None, sigma_max: None, final_sigmas_type: last, ..plan.config.clone() };
    let plan = &Plan { config, ..*plan };
    let order = config.solver_order.unwrap_or(2);
    if !(1..=3).contains(&order) {
        return Err(SchedulerError::value("solver_order", order, "1, 2 or 3"));
    }
    let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Ignored)?;
    let spacing = plan.timestep_spacing(TimestepSpacing::Linspace)?;
    let mut schedule = Schedule::solver(plan, &table, spacing, 0, FoundTimesteps::Rounded)?;
    if plan.sigma_spacing.is_some() {
        schedule.repeat_last_sigma();
    }
    let lower_order_final = config.lower_order_final.unwrap_or(true);
    Ok((schedule, Box::new(Deis { prediction: config.prediction()?, order, lower_order_final })))
}

impl Deis {
    /// The order of call `i` of `len`: no more than there are `answers`, and lower at the end of few steps.
    fn order_at(&self, i: usize, len: usize, answers: usize) -> usize {
        let short = self.lower_order_final && len < 15;
        let most = if short { len.saturating_sub(i).max(1) } else { self.order };
        self.order.min(answers).min(most)
    }
}

impl Sampler for Deis {
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
        let answer = x0_or_noise(self.prediction, false, call, sample);
        state.remember(answer, self.order);
        let (i, sigmas) = (call.index, &call.schedule.sigmas);
        let order = self.order_at(i, call.schedule.timesteps.len(), state.history.len()).min(i + 1);
        // k-diffusion's sigma is ρ.
        let logs: Vec<f64> = (0..order).map(|back| f64::from(sigmas[i - back]).ln()).collect();
        let (from, to) = (f64::from(sigmas[i]), f64::from(sigmas[i + 1]));
        let [alpha, alpha_next] =
            [sigmas[i], sigmas[i + 1]].map(|sigma| f64::from(NoiseLevel::variance_preserving(sigma).signal));
        let share = (alpha_next / alpha) as f32;
        *sample *= share;
        for (k, answer) in state.history.iter().enumerate().take(order) {
            let weight = alpha_next * (basis_integral(&logs, k, to) - basis_integral(&logs, k, from));
            Zip::from(&mut *sample).and(answer).for_each(|x, &m| *x += weight as f32 * m);
        }
        Ok(())
    }
}

/// The antiderivative at ρ of the Lagrange polynomial in ln ρ that is 1 at `logs[k]` and 0 at the other nodes, of which
/// there are up to two.
fn basis_integral(logs: &[f64], k: usize, rho: f64) -> f64 {
    let l = rho.ln();
    let others: Vec<f64> =
        logs.iter().enumerate().filter(|(other, _)| *other != k).map(|(_, log)| *log).collect();
    let scale: f64 = others.iter().map(|other| logs[k] - other).product();
    let integral = match others.as_slice() {
        // ∫ dρ
        [] => rho,
        // ∫ (ln ρ − a) dρ
        [a] => rho * (l - 1.0 - a),
        // ∫ (ln ρ − a)(ln ρ − b) dρ
        [a, b, ..] => rho * (l * l - (2.0 + a + b) * (l - 1.0) + a * b),
    };
    integral / scale
}
