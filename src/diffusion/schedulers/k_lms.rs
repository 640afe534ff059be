//! K-LMS: linear multistep (Adams-Bashforth on an uneven grid) in sigma.
//!
//! Karras et al. 2022 (arXiv 2206.00364) give the ODE dx/dσ = (x − x0)/σ; Crowson's k-diffusion (`sample_lms`)
//! integrates it with x' = x + Σ cₖ·dₖ, where cₖ is the integral over [σᵢ, σᵢ₊₁] of the Lagrange basis polynomial
//! through the last (up to four) sigmas. The reference is diffusers' `LMSDiscreteScheduler`; its numerical
//! quadrature is of a cubic at most, which two Gauss-Legendre points integrate exactly.

use ndarray::{Array4, Zip};

use super::config::FinalSigma;
use super::sampler::{Call, Sampler, State};
use super::schedule::{DDPM_BETAS, FoundTimesteps, NoiseTable, ZeroSnr};
use super::{Parts, Plan, PredictionType, Schedule, SchedulerConfig, SchedulerError};

const ORDER: usize = 4;

struct KLms {
    prediction: PredictionType,
}

pub(super) fn build(plan: &Plan) -> Result<Parts, SchedulerError> {
    let table = NoiseTable::new(plan.config, DDPM_BETAS, ZeroSnr::Ignored)?;
    // This class alone has no keys for the ends of its Karras sigmas.
    let config = &SchedulerConfig { sigma_min: None, sigma_max: None, ..plan.config.clone() };
    let plan = &Plan { config, ..*plan };
    let schedule = Schedule::k_diffusion(plan, &table, FoundTimesteps::Fractional, FinalSigma::Zero)?;
    Ok((schedule, Box::new(KLms { prediction: config.prediction()? })))
}

impl Sampler for KLms {
    fn step(
        &self,
        call: &mut Call,
        sample: &mut Array4<f32>,
        state: &mut State,
    ) -> Result<(), SchedulerError> {
        let denoise = call.denoise(self.prediction);
        let derivative =
            Zip::from(&*sample).and(call.noise_pred).map_collect(|&x, &m| denoise.derivative(x, m));
        state.remember(derivative, ORDER);

        // The order follows the index, not the history: an image start begins above 1 and leaves out
        // the terms it has no derivative for, as the reference's zip does.
        let order = (call.index + 1).min(ORDER);
        let mut sum = Array4::<f32>::zeros(sample.dim());
        for (back, derivative) in state.history.iter().enumerate().take(order) {
            sum.scaled_add(coefficient(&call.schedule.sigmas, order, call.index, back), derivative);
        }
        *sample += &sum;
        Ok(())
    }
}

/// The weight of the derivative `back` calls ago at call `i`, for a polynomial through `order` points.
fn coefficient(sigmas: &[f32], order: usize, i: usize, back: usize) -> f32 {
    let sigma = |k: usize| f64::from(sigmas[k]);
    let basis = |tau: f64| {
        (0..order)
            .filter(|&k| k != back)
            .map(|k| (tau - sigma(i - k)) / (sigma(i - back) - sigma(i - k)))
            .product::<f64>()
    };
    let (from, to) = (sigma(i), sigma(i + 1));
    let (middle, half) = (f64::midpoint(from, to), (to - from) / 2.0);
    let node = half / 3f64.sqrt();
    #[expect(clippy::cast_possible_truncation, reason = "latents are f32")]
    {
        (half * (basis(middle - node) + basis(middle + node))) as f32
    }
}
