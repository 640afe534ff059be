//! Churn: fresh noise before a step of Karras et al.'s samplers, from which the step then goes down.
//!
//! Karras et al. 2022 (arXiv 2206.00364), algorithm 2: `σ̂` = σ(1 + γ) with γ = min(`s_churn` / N, √2 − 1) where
//! `s_tmin` ≤ σ ≤ `s_tmax`, and x̂ = x + √(σ̂² − σ²)·`s_noise`·z. The model sees x̂ at σ̂. The reference is k-diffusion;
//! diffusers shows the model x instead.

use ndarray::Array4;

use super::schedule::{LogSigmas, NoiseTable};
use super::{NoiseLevel, Plan, Schedule};
use crate::diffusion::noise::BatchNoise;

#[derive(Debug, Clone, Copy)]
pub(super) struct Churn {
    gamma: f32,
    /// The sigmas between which noise is added.
    between: (f32, f32),
    s_noise: f32,
}

impl Churn {
    /// What the request asks; `None` if it asks for no churn.
    pub fn asked(plan: &Plan) -> Option<Self> {
        let s_churn = plan.sampling.s_churn.filter(|churn| *churn > 0.0)?;
        #[expect(clippy::cast_precision_loss, reason = "step counts lie far below 2^24")]
        let gamma = (s_churn / plan.steps as f32).min(std::f32::consts::SQRT_2 - 1.0);
        let most = plan.sampling.s_tmax.filter(|most| *most > 0.0).unwrap_or(f32::INFINITY);
        let between = (plan.sampling.s_tmin.unwrap_or(0.0), most);
        Some(Self { gamma, between, s_noise: plan.s_noise() })
    }

    /// The same, with the schedule's first halves of steps moved to σ̂.
    pub fn new(plan: &Plan, schedule: &mut Schedule, table: &NoiseTable) -> Option<Self> {
        let churn = Self::asked(plan)?;
        let logs = LogSigmas::new(&table.sigmas());
        for call in (0..schedule.timesteps.len()).step_by(schedule.calls_per_step) {
            let (sigma, raised) = (schedule.sigmas[call], churn.raise(schedule.sigmas[call]));
            if raised > sigma {
                schedule.timesteps[call] = logs.timestep_f32(raised);
                schedule.input_divisors[call] = NoiseLevel::variance_exploding(raised).input_divisor();
            }
        }
        Some(churn)
    }

    /// σ̂, or σ without churn.
    pub fn raised(churn: Option<&Self>, sigma: f32) -> f32 {
        churn.map_or(sigma, |churn| churn.raise(sigma))
    }

    fn raise(&self, sigma: f32) -> f32 {
        let (least, most) = self.between;
        if (least..=most).contains(&sigma) { sigma * (self.gamma + 1.0) } else { sigma }
    }

    /// Adds the noise before a call. It is drawn at every step, as the reference draws it.
    pub fn add(&self, call: usize, schedule: &Schedule, sample: &mut Array4<f32>, noise: &mut BatchNoise) {
        if !call.is_multiple_of(schedule.calls_per_step) {
            return;
        }
        let (_, c, h, w) = sample.dim();
        let fresh = noise.randn((c, h, w));
        let (sigma, raised) = (schedule.sigmas[call], self.raise(schedule.sigmas[call]));
        if raised > sigma {
            sample.scaled_add((raised * raised - sigma * sigma).sqrt() * self.s_noise, &fresh);
        }
    }
}
