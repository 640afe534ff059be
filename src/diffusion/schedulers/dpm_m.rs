//! DPM-M: DPM-Solver++ multistep (2M by default), and its stochastic and noise-predicting relatives.
//!
//! Lu et al. 2022, DPM-Solver++ (arXiv 2211.01095), algorithm 2, and DPM-Solver (arXiv 2206.00927): the
//! probability-flow ODE solved exactly in λ = ln α − ln σ but for a polynomial (order 1 to 3) through
//! the last answers. `algorithm_type` chooses between x0 ("dpmsolver++") and ε ("dpmsolver") as what is
//! interpolated, "sde-" adds the noise of the reverse SDE. The reference is diffusers'
//! `DPMSolverMultistepScheduler`; the shared formulas are in `Update`, used by `dpm_s.rs` as well.

use super::config::{FinalSigma, PredictionType, SchedulerConfig, SchedulerError, TimestepSpacing};
use super::tables::{DDPM_BETAS, Karras, NoiseTable, ZeroSnr, solver_schedule};
use super::{Scheduler, check_step, draw};
use crate::diffusion::noise::BatchNoise;
use ndarray::{Array4, Zip};
use std::collections::VecDeque;

/// What is interpolated, and whether noise is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    DpmSolver,
    DpmSolverPp,
    SdeDpmSolver,
    SdeDpmSolverPp,
}

/// The keys that both DPM-Solvers read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Solver {
    pub algorithm: Algorithm,
    /// `solver_type` "heun" instead of "midpoint".
    pub heun: bool,
    pub order: usize,
    pub prediction: PredictionType,
}

impl Solver {
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
        if !solver.predicts_x0() && config.final_sigma()? == FinalSigma::Zero {
            let expected = "\"sigma_min\" for an algorithm_type without ++";
            return Err(SchedulerError::value("final_sigmas_type", "zero", expected));
        }
        if let Some(other) = config.variance_type.as_deref().filter(|v| v.starts_with("learned")) {
            return Err(SchedulerError::value("variance_type", other, "missing for this scheduler"));
        }
        Ok(solver)
    }

    fn predicts_x0(self) -> bool {
        matches!(self.algorithm, Algorithm::DpmSolverPp | Algorithm::SdeDpmSolverPp)
    }

    pub fn draws(self) -> bool {
        matches!(self.algorithm, Algorithm::SdeDpmSolver | Algorithm::SdeDpmSolverPp)
    }

    /// The model's answer as what this solver interpolates: x0, or the noise.
    pub fn convert(self, noise_pred: &Array4<f32>, sample: &Array4<f32>, sigma: f32) -> Array4<f32> {
        let (alpha, sigma) = alpha_sigma(sigma);
        let x0 = self.predicts_x0();
        let prediction = self.prediction;
        Zip::from(sample).and(noise_pred).map_collect(|&x, &m| match (prediction, x0) {
            (PredictionType::Epsilon, true) => (x - sigma * m) / alpha,
            (PredictionType::Sample, true) | (PredictionType::Epsilon, false) => m,
            (PredictionType::VPrediction, true) => alpha * x - sigma * m,
            (PredictionType::Sample, false) => (x - alpha * m) / sigma,
            (PredictionType::VPrediction, false) => alpha * m + sigma * x,
        })
    }
}

/// `(alpha_t, sigma_t)` of the variance-preserving process at k-diffusion's sigma.
pub(super) fn alpha_sigma(sigma: f32) -> (f32, f32) {
    let alpha = 1.0 / (sigma * sigma + 1.0).sqrt();
    (alpha, sigma * alpha)
}

/// λ = ln α − ln σ at k-diffusion's sigma; +∞ at 0.
pub(super) fn lambda(sigma: f32) -> f32 {
    let (alpha, sigma) = alpha_sigma(sigma);
    alpha.ln() - sigma.ln()
}

/// The coefficients of x' = x·`sample` + D0·`d0` + D1·`d1` + D2·`d2` + z·`noise` for a step of `h` in λ from
/// `from` to `to`, both sigmas.
#[derive(Debug, Clone, Copy)]
pub(super) struct Update {
    pub sample: f32,
    pub d0: f32,
    /// Order 2 by the midpoint rule.
    pub d1_midpoint: f32,
    /// Order 2 by Heun's rule, and order 3.
    pub d1_heun: f32,
    pub d2: f32,
    pub noise: f32,
}

impl Update {
    pub fn new(algorithm: Algorithm, from: f32, to: f32) -> Self {
        let h = lambda(to) - lambda(from);
        let ((alpha_from, sigma_from), (alpha, sigma)) = (alpha_sigma(from), alpha_sigma(to));
        match algorithm {
            Algorithm::DpmSolverPp => {
                let phi = (-h).exp() - 1.0;
                Self {
                    sample: sigma / sigma_from,
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
                    sample: alpha / alpha_from,
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
                    sample: sigma / sigma_from * (-h).exp(),
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
                    sample: alpha / alpha_from,
                    d0: -(2.0 * (sigma * phi)),
                    d1_midpoint: -(sigma * phi),
                    d1_heun: -(2.0 * (sigma * (phi / h - 1.0))),
                    d2: 0.0,
                    noise: sigma * ((2.0 * h).exp() - 1.0).sqrt(),
                }
            }
        }
    }
}

pub(super) struct DpmM {
    timesteps: Vec<f32>,
    sigmas: Vec<f32>,
    solver: Solver,
    lower_order_final: bool,
    /// Whether the last step is first-order whatever the count.
    euler_at_final: bool,
    /// Converted answers, newest first.
    outputs: VecDeque<Array4<f32>>,
}

impl DpmM {
    pub fn new(config: &SchedulerConfig, steps: usize, karras: bool) -> Result<Self, SchedulerError> {
        let table = NoiseTable::new(config, DDPM_BETAS, ZeroSnr::Finite)?;
        let solver = Solver::new(config)?;
        if solver.algorithm == Algorithm::SdeDpmSolver && solver.order == 3 {
            return Err(SchedulerError::value("solver_order", 3, "1 or 2 for \"sde-dpmsolver\""));
        }
        let spacing = config.spacing(TimestepSpacing::Linspace)?;
        // The reference does not round Karras timesteps of the cosine schedule.
        let cosine = config.beta_schedule.as_deref() == Some("squaredcos_cap_v2");
        let mode = match karras {
            false => Karras::Off,
            true if cosine => Karras::Fractional,
            true => Karras::Rounded,
        };
        let last = table.len() - table.clipped(config.lambda_min_clipped);
        let (timesteps, sigmas) = solver_schedule(config, &table, spacing, last, steps, mode)?;
        Ok(Self {
            timesteps,
            sigmas,
            solver,
            lower_order_final: config.lower_order_final.unwrap_or(true),
            euler_at_final: config.euler_at_final.unwrap_or(false)
                || config.final_sigma()? == FinalSigma::Zero,
            outputs: VecDeque::with_capacity(solver.order + 1),
        })
    }

    /// The order of step `i`: no more than there are answers, and lower at the end, where the last
    /// interval is unlike those before it.
    fn order_at(&self, i: usize) -> usize {
        let len = self.timesteps.len();
        let order = self.solver.order.min(self.outputs.len()).min(i + 1);
        let short = self.lower_order_final && len < 15;
        if i + 1 == len && (self.euler_at_final || short) {
            1
        } else if i + 2 == len && short {
            order.min(2)
        } else {
            order
        }
    }
}

impl Scheduler for DpmM {
    fn timesteps(&self) -> &[f32] {
        &self.timesteps
    }

    fn sigmas(&self) -> Option<&[f32]> {
        Some(&self.sigmas)
    }

    fn noising(&self, i: usize) -> Result<(f32, f32), SchedulerError> {
        Ok(alpha_sigma(self.sigmas[i]))
    }

    fn step(
        &mut self,
        noise_pred: &Array4<f32>,
        i: usize,
        sample: &mut Array4<f32>,
        noise: &mut BatchNoise,
    ) -> Result<(), SchedulerError> {
        check_step(i, self.timesteps.len(), noise_pred, sample)?;
        let (sigma, next) = (self.sigmas[i], self.sigmas[i + 1]);
        let output = self.solver.convert(noise_pred, sample, sigma);
        self.outputs.truncate(self.solver.order - 1);
        self.outputs.push_front(output);
        let update = Update::new(self.solver.algorithm, sigma, next);
        let fresh = if self.solver.draws() { Some(draw(noise, sample)?) } else { None };

        let (m, heun) = (&self.outputs, self.solver.heun);
        let back = |k: usize| lambda(self.sigmas[i + 1 - k]) - lambda(self.sigmas[i - k]);
        match self.order_at(i) {
            1 => Zip::from(&mut *sample).and(&m[0]).for_each(|x, &m0| {
                *x = update.sample * *x + update.d0 * m0;
            }),
            2 => {
                let inverse = 1.0 / (back(1) / back(0));
                let d1 = if heun { update.d1_heun } else { update.d1_midpoint };
                Zip::from(&mut *sample).and(&m[0]).and(&m[1]).for_each(|x, &m0, &m1| {
                    *x = update.sample * *x + update.d0 * m0 + d1 * (inverse * (m0 - m1));
                });
            }
            _ => {
                let (r0, r1) = (back(1) / back(0), back(2) / back(0));
                let (inverse0, inverse1) = (1.0 / r0, 1.0 / r1);
                let (slope, curve) = (r0 / (r0 + r1), 1.0 / (r0 + r1));
                Zip::from(&mut *sample).and(&m[0]).and(&m[1]).and(&m[2]).for_each(|x, &m0, &m1, &m2| {
                    let (d10, d11) = (inverse0 * (m0 - m1), inverse1 * (m1 - m2));
                    let (d1, d2) = (d10 + slope * (d10 - d11), curve * (d10 - d11));
                    *x = update.sample * *x + update.d0 * m0 + update.d1_heun * d1 + update.d2 * d2;
                });
            }
        }
        if let Some(fresh) = fresh {
            sample.scaled_add(update.noise, &fresh);
        }
        Ok(())
    }
}
