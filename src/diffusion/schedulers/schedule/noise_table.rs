//! The noise that training mixed into its pictures, timestep by timestep.

use super::numpy::{cumprod, torch_linspace};
use crate::diffusion::schedulers::{SchedulerConfig, SchedulerError};

/// The defaults of the beta keys, which differ by class.
#[derive(Debug, Clone, Copy)]
pub struct BetaDefaults {
    start: f64,
    end: f64,
    schedule: &'static str,
}

/// DDPM's, which most classes share.
pub const DDPM_BETAS: BetaDefaults = BetaDefaults { start: 0.0001, end: 0.02, schedule: "linear" };
/// Heun's and KDPM2's.
pub const K_BETAS: BetaDefaults = BetaDefaults { start: 0.00085, end: 0.012, schedule: "linear" };
/// LCM's.
pub const LCM_BETAS: BetaDefaults = BetaDefaults { start: 0.00085, end: 0.012, schedule: "scaled_linear" };

/// What a class does with `rescale_betas_zero_snr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZeroSnr {
    /// It does not know the key.
    Ignored,
    /// It rescales: the last ᾱ is then 0.
    Exact,
    /// It rescales and keeps the last ᾱ at 2^-24, so that the last sigma is finite (4096).
    Finite,
}

/// ᾱ, `alphas_cumprod`: the share of signal in the variance at each training timestep, falling.
#[derive(Debug, Clone)]
pub struct NoiseTable(Vec<f32>);

impl NoiseTable {
    pub fn new(
        config: &SchedulerConfig,
        defaults: BetaDefaults,
        zero_snr: ZeroSnr,
    ) -> Result<Self, SchedulerError> {
        let n = config.train_timesteps()?;
        let mut betas = betas(config, defaults, n)?;
        let rescale = zero_snr != ZeroSnr::Ignored && config.rescale_betas_zero_snr == Some(true);
        if rescale {
            betas = rescale_zero_snr(&betas);
        }
        let mut alphas_cumprod = cumprod(betas.iter().map(|b| 1.0 - b));
        if rescale
            && zero_snr == ZeroSnr::Finite
            && let Some(last) = alphas_cumprod.last_mut()
        {
            *last = 2f32.powi(-24);
        }
        Ok(Self(alphas_cumprod))
    }

    /// How many timesteps the model was trained with.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// ᾱ at timestep `t`, held at the last entry for a t beyond training.
    pub fn alpha(&self, t: usize) -> f32 {
        self.0[t.min(self.0.len() - 1)]
    }

    /// ᾱ at every training timestep.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.0
    }

    /// √((1 − ᾱ)/ᾱ) at every training timestep, rising.
    pub fn sigmas(&self) -> Vec<f32> {
        self.0.iter().map(|a| ((1.0 - a) / a).sqrt()).collect()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "betas are stored in f32, and counts lie far below 2^24"
)]
fn betas(config: &SchedulerConfig, defaults: BetaDefaults, n: usize) -> Result<Vec<f32>, SchedulerError> {
    if let Some(betas) = &config.trained_betas {
        return check_betas(betas, n).cloned();
    }
    let between = |key, value: f64| {
        if value > 0.0 && value < 1.0 {
            Ok(value)
        } else {
            Err(SchedulerError::value(key, value, "a number between 0 and 1"))
        }
    };
    let start = between("beta_start", config.beta_start.unwrap_or(defaults.start))?;
    let end = between("beta_end", config.beta_end.unwrap_or(defaults.end))?;
    match config.beta_schedule.as_deref().unwrap_or(defaults.schedule) {
        "linear" => Ok(torch_linspace(start, end, n)),
        "scaled_linear" => {
            Ok(torch_linspace(start.sqrt(), end.sqrt(), n).into_iter().map(|b| b * b).collect())
        }
        "squaredcos_cap_v2" => {
            let bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
            let n = n as f64;
            let beta = |i: f64| (1.0 - bar((i + 1.0) / n) / bar(i / n)).min(0.999);
            Ok((0..n as usize).map(|i| beta(i as f64) as f32).collect())
        }
        other => Err(SchedulerError::value(
            "beta_schedule",
            other,
            "\"linear\", \"scaled_linear\" or \"squaredcos_cap_v2\"",
        )),
    }
}

fn check_betas(betas: &Vec<f32>, n: usize) -> Result<&Vec<f32>, SchedulerError> {
    if betas.len() != n {
        let got = format!("{} values", betas.len());
        return Err(SchedulerError::value("trained_betas", got, format!("num_train_timesteps ({n}) values")));
    }
    match betas.iter().find(|b| !(**b > 0.0 && **b < 1.0)) {
        Some(bad) => Err(SchedulerError::value("trained_betas", bad, "numbers between 0 and 1")),
        None => Ok(betas),
    }
}

/// Lin et al. 2023 (arXiv 2305.08891), algorithm 1: shifts and scales √ᾱ so that the last timestep carries no
/// signal.
fn rescale_zero_snr(betas: &[f32]) -> Vec<f32> {
    let mut bar: Vec<f32> = cumprod(betas.iter().map(|b| 1.0 - b)).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (bar.first(), bar.last()) else { return Vec::new() };
    let scale = first / (first - last);
    for a in &mut bar {
        *a = (*a - last) * scale;
        *a *= *a;
    }
    (0..bar.len()).map(|i| 1.0 - if i == 0 { bar[0] } else { bar[i] / bar[i - 1] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_table_of_sd_v1_has_the_bits_of_torch() {
        let table = NoiseTable::new(&SchedulerConfig::default(), DDPM_BETAS, ZeroSnr::Ignored).unwrap();
        let golden: Vec<u32> = serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/alphas_cumprod_golden.json"
        )))
        .unwrap();
        let bits: Vec<u32> = table.alphas_cumprod().iter().map(|a| a.to_bits()).collect();
        assert_eq!(bits, golden);
    }
}
