//! IPNDM: improved pseudo linear multistep, for models whose time runs from 1 to 0.
//!
//! Crowson's v-diffusion, `plms`, after Liu et al. 2022 (arXiv 2202.09778): with σ = sin²(πs/2) and α = √(1 − σ²),
//! ε = σ·x + α·v, Adams-Bashforth over the last four, and x' = α'·(x − σ·ε̄)/α + σ'·ε̄. The reference is
//! diffusers' `IPNDMScheduler`, which ignores the model's noise table, calls it with t in (0, 1], and defines no way to
//! add noise. Stable Diffusion makes nothing recognisable with it; it is here because the hosted worker had it.

use ndarray::{Array4, Zip};

use super::adams_bashforth::{ORDER, adams_bashforth};
use super::sampler::{Call, Sampler, State};
use super::schedule::torch_linspace;
use super::{Parts, Plan, Schedule, SchedulerError};

struct Ipndm {
    /// σ at each call and at the end, as the alphas.
    sigmas: Vec<f32>,
    alphas: Vec<f32>,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let &Plan { config, steps, .. } = plan;
    config.check_steps(steps)?;
    if config.trained_betas.is_some() {
        return Err(SchedulerError::value("trained_betas", "a list", "missing for IPNDM"));
    }
    let mut times = torch_linspace(1.0, 0.0, steps + 1);
    times[steps] = 0.0;
    let sigmas: Vec<f32> = times.iter().map(|&s| sine(s * std::f32::consts::PI / 2.0).powi(2)).collect();
    let alphas: Vec<f32> = sigmas.iter().map(|sigma| (1.0 - sigma * sigma).sqrt()).collect();
    let timesteps = sigmas.iter().zip(&alphas).take(steps).map(|(&s, &a)| angle(s, a)).collect();
    Ok((Schedule::unscaled(timesteps), Box::new(Ipndm { sigmas, alphas })))
}

#[expect(clippy::cast_possible_truncation, reason = "f32 by way of f64: within an ulp of torch's everywhere")]
fn sine(x: f32) -> f32 {
    f64::from(x).sin() as f32
}

#[expect(clippy::cast_possible_truncation, reason = "f32 by way of f64: within an ulp of torch's everywhere")]
fn angle(sigma: f32, alpha: f32) -> f32 {
    f64::from(sigma).atan2(f64::from(alpha)) as f32 / std::f32::consts::PI * 2.0
}

impl Sampler for Ipndm {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let i = call.index;
        let (alpha, sigma) = (self.alphas[i], self.sigmas[i]);
        let (next_alpha, next_sigma) = (self.alphas[i + 1], self.sigmas[i + 1]);
        let noise = Zip::from(&*sample).and(call.noise_pred).map_collect(|&x, &m| x * sigma + m * alpha);
        state.remember(noise, ORDER);
        let mean = adams_bashforth(&state.history);
        let divisor = alpha.max(1e-8);
        Zip::from(sample).and(&mean).for_each(|x, &e| {
            *x = next_alpha * ((*x - sigma * e) / divisor) + e * next_sigma;
        });
        Ok(())
    }
}
