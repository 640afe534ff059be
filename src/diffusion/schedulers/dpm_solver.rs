//! What DPM-M and DPM-S share: the settings of DPM-Solver and the coefficients of its update. UNIPC uses λ and the
//! reading of answers as well.
//!
//! Lu et al. 2022, DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095): the probability-flow ODE is
//! solved exactly in λ = ln α − ln σ but for a polynomial (order 1 to 3) through several answers. `algorithm_type`
//! chooses between x0 ("dpmsolver++") and ε ("dpmsolver") as what is interpolated; "sde-" adds the noise of the
//! reverse SDE.

use ndarray::{Array4, Zip};

use super::config::FinalSigma;
use super::sampler::{Call, State};
use super::schedule::NoiseTable;
use super::{NoiseLevel, PredictionType, SchedulerConfig, SchedulerError};

/// What is interpolated, and whether noise is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    DpmSolver,
    DpmSolverPp,
    SdeDpmSolver,
    SdeDpmSolverPp,
}

/// The keys that DPM-M and DPM-S read.
#[derive(Debug, Clone, Copy)]
pub(super) struct DpmSolver {
    pub algorithm: Algorithm,
    /// `solver_type` "heun" instead of "midpoint".
    pub heun: bool,
    pub order: usize,
    prediction: PredictionType,
}

impl DpmSolver {
    pub fn new(config: &SchedulerConfig) -> Result<Self, SchedulerError> {
        let algorithm = match config.algorithm_type.as_deref() {
            // "deis" is what a DEIS file says; the reference reads it as this class's own.
            None | Some("dpmsolver++" | "deis") => Algorithm::DpmSolverPp,
            Some("dpmsolver") => Algorithm::DpmSolver,
            Some("sde-dpmsolver") => Algorithm::SdeDpmSolver,
            Some("sde-dpmsolver++") => Algorithm::SdeDpmSolverPp,
            Some(other) => {
                let expected = "\"dpmsolver++\", \"dpmsolver\", \"sde-dpmsolver++\" or \"sde-dpmsolver\"";
                return Err(SchedulerError::value("algorithm_type", other, expected));
            }
        };
        let heun = match config.solver_type.as_deref() {
            None | Some("midpoint" | "logrho" | "bh1" | "bh2") => false,
            Some("heun") => true,
            Some(other) => {
                return Err(SchedulerError::value("solver_type", other, "\"midpoint\" or \"heun\""));
            }
        };
        let order = config.solver_order.unwrap_or(2);
        if !(1..=3).contains(&order) {
            return Err(SchedulerError::value("solver_order", order, "1, 2 or 3"));
        }
        let solver = Self { algorithm, heun, order, prediction: config.prediction()? };
        if !solver.interpolates_x0() && config.final_sigma()? == FinalSigma::Zero {
            let expected = "\"sigma_min\" for an algorithm_type without ++";
            return Err(SchedulerError::value("final_sigmas_type", "zero", expected));
        }
        if let Some(other) = config.variance_type.as_deref().filter(|v| v.starts_with("learned")) {
            return Err(SchedulerError::value("variance_type", other, "missing for this scheduler"));
        }
        Ok(solver)
    }

    fn interpolates_x0(self) -> bool {
        matches!(self.algorithm, Algorithm::DpmSolverPp | Algorithm::SdeDpmSolverPp)
    }

    /// Remembers the answer as what is interpolated.
    pub fn remember(self, call: &Call, sample: &Array4<f32>, state: &mut State) {
        state.remember(x0_or_noise(self.prediction, self.interpolates_x0(), call, sample), self.order);
    }

    /// The update between two sigmas.
    pub fn update(self, from: f32, to: f32) -> Update {
        Update::new(self.algorithm, from, to)
    }

    /// The noise of the SDE's step, if this is one.
    pub fn add_noise(self, update: &Update, call: &mut Call, sample: &mut Array4<f32>) {
        if matches!(self.algorithm, Algorithm::SdeDpmSolver | Algorithm::SdeDpmSolverPp) {
            sample.scaled_add(update.noise, &call.draw());
        }
    }
}

/// The model's answer as x0 or as noise.
pub(super) fn x0_or_noise(
    prediction: PredictionType,
    x0: bool,
    call: &Call,
    sample: &Array4<f32>,
) -> Array4<f32> {
    let denoise = call.denoise(prediction);
    let both = Zip::from(sample).and(call.noise_pred);
    if x0 {
        both.map_collect(|&x, &m| denoise.x0(x, m))
    } else {
        both.map_collect(|&x, &m| denoise.epsilon(x, m))
    }
}

/// λ at k-diffusion's sigma; +∞ at 0.
pub(super) fn lambda(sigma: f32) -> f32 {
    NoiseLevel::variance_preserving(sigma).lambda()
}

/// How many training timesteps `lambda_min_clipped` cuts from the noisy end.
pub(super) fn clipped(config: &SchedulerConfig, table: &NoiseTable) -> usize {
    let Some(min) = config.lambda_min_clipped else { return 0 };
    let below = |a: &&f32| f64::from(NoiseLevel::from_alpha_cumprod(**a).lambda()) < min;
    table.alphas_cumprod().iter().rev().take_while(below).count().min(table.len() - 1)
}

/// The coefficients of x' = `sample`·x + `d0`·D0 + `d1`·D1 + `d2`·D2 + `noise`·z for a step between two sigmas, where
/// Dₖ are the polynomial's terms.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    sample: f32,
    d0: f32,
    /// Order 2 by the midpoint rule.
    d1_midpoint: f32,
    /// Order 2 by Heun's rule, and order 3.
    pub d1_heun: f32,
    pub d2: f32,
    noise: f32,
}

impl Update {
    fn new(algorithm: Algorithm, from: f32, to: f32) -> Self {
        let h = lambda(to) - lambda(from);
        let [from, to] = [from, to].map(NoiseLevel::variance_preserving);
        let (alpha, sigma) = (to.signal, to.noise);
        match algorithm {
            Algorithm::DpmSolverPp => {
                let phi = (-h).exp() - 1.0;
                Self {
                    sample: sigma / from.noise,
                    d0: -(alpha * phi),
                    d1_midpoint: -(0.5 * (alpha * phi)),
                    d1_heun: alpha * (phi / h + 1.0),
                    d2: -(alpha * ((phi + h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Algorithm::DpmSolver => {
                let phi = h.exp() - 1.0;
                Self {
                    sample: alpha / from.signal,
                    d0: -(sigma * phi),
                    d1_midpoint: -(0.5 * (sigma * phi)),
                    d1_heun: -(sigma * (phi / h - 1.0)),
                    d2: -(sigma * ((phi - h) / (h * h) - 0.5)),
                    noise: 0.0,
                }
            }
            Algorithm::SdeDpmSolverPp => {
                let phi = 1.0 - (-2.0 * h).exp();
                Self {
                    sample: sigma / from.noise * (-h).exp(),
                    d0: alpha * phi,
                    d1_midpoint: 0.5 * (alpha * phi),
                    d1_heun: alpha * (phi / (-2.0 * h) + 1.0),
                    d2: alpha * ((phi - 2.0 * h) / ((2.0 * h) * (2.0 * h)) - 0.5),
                    noise: sigma * phi.sqrt(),
                }
            }
            Algorithm::SdeDpmSolver => {
                let phi = h.exp() - 1.0;
                Self {
                    sample: alpha / from.signal,
                    d0: -(2.0 * (sigma * phi)),
                    d1_midpoint: -(sigma * phi),
                    d1_heun: -(2.0 * (sigma * (phi / h - 1.0))),
                    d2: 0.0,
                    noise: sigma * ((2.0 * h).exp() - 1.0).sqrt(),
                }
            }
        }
    }

    /// The first-order step for one value of the latents and D0.
    pub fn first_order(&self, x: f32, d0: f32) -> f32 {
        self.sample * x + self.d0 * d0
    }

    /// The coefficient of D1 at order 2.
    pub fn d1(&self, heun: bool) -> f32 {
        if heun { self.d1_heun } else { self.d1_midpoint }
    }
}
