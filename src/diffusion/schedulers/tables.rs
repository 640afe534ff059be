//! The arithmetic that the schedulers share: the noise table of training, the inference steps picked
//! from it, and the way from a sigma back to a timestep.
//!
//! Tables are interpolated in f64 and stored in f32, as `NumPy` and torch do in the reference; where
//! the reference's own rounding is observable (torch's fused linspace, its double accumulator in
//! `cumprod`, `NumPy`'s f32 logarithm), it is reproduced. The one exception is the square root in the
//! sigma table: torch's is a Newton step from the processor's `rsqrtps` guess and so differs by an
//! ulp between processor makers; this one is correctly rounded.

// Indices and step counts are far below 2^24, and rounding f64 to f32 is the point of many lines.
#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]

use super::config::{FinalSigma, SchedulerConfig, SchedulerError, TimestepSpacing};

/// The beta keys' defaults, which differ by class.
#[derive(Debug, Clone, Copy)]
pub(super) struct BetaDefaults {
    pub start: f64,
    pub end: f64,
    pub schedule: &'static str,
}

/// DDPM's, which most classes share.
pub(super) const DDPM_BETAS: BetaDefaults = BetaDefaults { start: 0.0001, end: 0.02, schedule: "linear" };
/// Heun's and KDPM2's.
pub(super) const K_BETAS: BetaDefaults = BetaDefaults { start: 0.00085, end: 0.012, schedule: "linear" };
/// LCM's.
pub(super) const LCM_BETAS: BetaDefaults =
    BetaDefaults { start: 0.00085, end: 0.012, schedule: "scaled_linear" };

/// What a class does with `rescale_betas_zero_snr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZeroSnr {
    /// It does not know the key.
    Ignored,
    /// It rescales: the last alpha is then 0.
    Exact,
    /// It rescales and keeps the last alpha at 2^-24, so that the last sigma is finite (4096).
    Finite,
}

/// The noise that training mixed in at each of its timesteps.
#[derive(Debug, Clone)]
pub(super) struct NoiseTable {
    /// `alphas_cumprod`: the share of signal variance, falling.
    pub alphas_cumprod: Vec<f32>,
}

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
        Ok(Self { alphas_cumprod })
    }

    pub fn len(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// `alphas_cumprod[t]`, held at the last entry for a t beyond training.
    pub fn alpha(&self, t: usize) -> f32 {
        self.alphas_cumprod[t.min(self.alphas_cumprod.len() - 1)]
    }

    /// `sqrt((1 - alpha) / alpha)` for every training timestep, rising.
    pub fn sigmas(&self) -> Vec<f32> {
        self.alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect()
    }

    /// How many training timesteps `lambda_min_clipped` cuts from the noisy end (`DPMSolver` only).
    pub fn clipped(&self, lambda_min: Option<f64>) -> usize {
        let Some(min) = lambda_min else { return 0 };
        let below = |a: &&f32| f64::from(a.sqrt().ln() - (1.0 - **a).sqrt().ln()) < min;
        self.alphas_cumprod.iter().rev().take_while(below).count().min(self.alphas_cumprod.len() - 1)
    }
}

fn betas(config: &SchedulerConfig, defaults: BetaDefaults, n: usize) -> Result<Vec<f32>, SchedulerError> {
    if let Some(betas) = &config.trained_betas {
        if betas.len() != n {
            let got = format!("{} values", betas.len());
            return Err(SchedulerError::value(
                "trained_betas",
                got,
                format!("num_train_timesteps ({n}) values"),
            ));
        }
        if let Some(bad) = betas.iter().find(|b| !(**b > 0.0 && **b < 1.0)) {
            return Err(SchedulerError::value("trained_betas", bad, "numbers between 0 and 1"));
        }
        return Ok(betas.clone());
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
        "linear" => Ok(linspace_f32(start, end, n)),
        "scaled_linear" => Ok(linspace_f32(start.sqrt(), end.sqrt(), n).into_iter().map(|b| b * b).collect()),
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

/// `torch.linspace(start, end, n)`: counted from the nearer end, each value one fused operation.
pub(super) fn linspace_f32(start: f64, end: f64, n: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if n == 1 {
        return vec![start];
    }
    let step = (end - start) / (n - 1) as f32;
    (0..n)
        .map(
            |i| {
                if i < n / 2 {
                    step.mul_add(i as f32, start)
                } else {
                    (-step).mul_add((n - 1 - i) as f32, end)
                }
            },
        )
        .collect()
}

/// `torch.cumprod` of f32: accumulated in f64, rounded at each step.
fn cumprod(values: impl Iterator<Item = f32>) -> Vec<f32> {
    values
        .scan(1.0f64, |product, v| {
            *product *= f64::from(v);
            Some(*product as f32)
        })
        .collect()
}

/// Lin et al. 2023 (arXiv 2305.08891), algorithm 1: shifts and scales `sqrt(alphas_cumprod)` so that
/// the last timestep carries no signal.
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

/// `numpy.linspace(0, last, n)` in f64, rising.
pub(super) fn linspace(last: f64, n: usize) -> Vec<f64> {
    if n == 1 {
        return vec![0.0];
    }
    let step = last / (n - 1) as f64;
    (0..n).map(|i| if i == n - 1 { last } else { i as f64 * step }).collect()
}

/// `numpy.arange(train, 0, -train / n)`, falling, cut to `n` values: for some n the reference's
/// floating-point count gives one more, which would be timestep -1.
fn arange_down(last: f64, train: f64, n: usize) -> Vec<f64> {
    let step = -(train / n as f64);
    let delta = (last + step) - last;
    let len = ((0.0 - last) / step).ceil() as usize;
    (0..len.min(n)).map(|i| last + i as f64 * delta).collect()
}

/// Whole timesteps, falling, for the families that index `alphas_cumprod` (DDIM, DDPM, PNDM).
pub(super) fn whole_timesteps(
    config: &SchedulerConfig,
    spacing: TimestepSpacing,
    steps: usize,
) -> Result<Vec<usize>, SchedulerError> {
    config.check_steps(steps)?;
    let (train, offset) = (config.train_timesteps()?, config.offset()?);
    let list: Vec<usize> = match spacing {
        TimestepSpacing::Leading => (0..steps).rev().map(|i| i * (train / steps) + offset).collect(),
        TimestepSpacing::Linspace => linspace((train - 1) as f64, steps)
            .into_iter()
            .rev()
            .map(|t| t.round_ties_even() as usize)
            .collect(),
        TimestepSpacing::Trailing => arange_down(train as f64, train as f64, steps)
            .into_iter()
            .map(|t| (t.round_ties_even() as usize).saturating_sub(1))
            .collect(),
    };
    if list.first().is_some_and(|&t| t >= train) {
        let expected = format!("small enough that {steps} steps stay below num_train_timesteps ({train})");
        return Err(SchedulerError::value("steps_offset", offset, expected));
    }
    Ok(list)
}

/// DPM-Solver's and `UniPC`'s whole timesteps: one step more is spaced, and the last of it dropped.
/// `last` is `num_train_timesteps` less what `lambda_min_clipped` cuts.
pub(super) fn solver_timesteps(
    config: &SchedulerConfig,
    spacing: TimestepSpacing,
    last: usize,
    steps: usize,
) -> Result<Vec<usize>, SchedulerError> {
    config.check_steps(steps)?;
    let (train, offset) = (config.train_timesteps()?, config.offset()?);
    Ok(match spacing {
        TimestepSpacing::Leading => (1..=steps).rev().map(|i| i * (last / (steps + 1)) + offset).collect(),
        TimestepSpacing::Linspace => linspace((last - 1) as f64, steps + 1)
            .into_iter()
            .skip(1)
            .rev()
            .map(|t| t.round_ties_even() as usize)
            .collect(),
        TimestepSpacing::Trailing => arange_down(last as f64, train as f64, steps)
            .into_iter()
            .map(|t| (t.round_ties_even() as usize).saturating_sub(1))
            .collect(),
    })
}

/// `numpy.interp(t, arange(len), table)`.
pub(super) fn interpolate(table: &[f32], t: f64) -> f64 {
    let last = table.len() - 1;
    if t >= last as f64 {
        return f64::from(table[last]);
    }
    let low = t.max(0.0).floor();
    let (a, b) = (f64::from(table[low as usize]), f64::from(table[low as usize + 1]));
    (b - a) * (t.max(0.0) - low) + a
}

/// Karras et al. 2022 (arXiv 2206.00364), equation 5 with rho = 7: `n` sigmas from max to min.
pub(super) fn karras(sigma_min: f64, sigma_max: f64, n: usize) -> Vec<f64> {
    let (min, max) = (sigma_min.powf(1.0 / 7.0), sigma_max.powf(1.0 / 7.0));
    linspace(1.0, n).into_iter().map(|ramp| (max + ramp * (min - max)).powf(7.0)).collect()
}

/// The way from a sigma to its (fractional) timestep: linear in log sigma between table entries.
pub(super) struct LogSigmas(Vec<f32>);

impl LogSigmas {
    pub fn new(sigmas: &[f32]) -> Self {
        Self(sigmas.iter().map(|&s| numpy_log(s)).collect())
    }

    fn low(&self, at_or_below: impl Fn(f32) -> bool) -> usize {
        let low = self.0.iter().rposition(|&l| at_or_below(l)).unwrap_or(0);
        low.min(self.0.len().saturating_sub(2))
    }

    pub fn timestep(&self, sigma: f64) -> f64 {
        let log = sigma.max(1e-10).ln();
        if self.0.len() < 2 {
            return 0.0;
        }
        let i = self.low(|l| f64::from(l) <= log);
        let (low, high) = (self.0[i], self.0[i + 1]);
        let w = ((f64::from(low) - log) / f64::from(low - high)).clamp(0.0, 1.0);
        (1.0 - w) * i as f64 + w * (i + 1) as f64
    }

    /// The same wholly in f32, as the reference does it where the sigma is a tensor (KDPM2).
    pub fn timestep_f32(&self, sigma: f32) -> f32 {
        let log = numpy_log(sigma.max(1e-10));
        if self.0.len() < 2 {
            return 0.0;
        }
        let i = self.low(|l| l <= log);
        let (low, high) = (self.0[i], self.0[i + 1]);
        let w = ((low - log) / (low - high)).clamp(0.0, 1.0);
        (1.0 - w) * i as f32 + w * (i + 1) as f32
    }
}

/// `NumPy`'s f32 logarithm of a positive normal number (its AVX2 and AVX-512 kernel): a 5/5 rational
/// approximation. Correct rounding would move a fifth of the fractional timesteps by an ulp.
#[allow(clippy::excessive_precision, clippy::unreadable_literal)]
fn numpy_log(x: f32) -> f32 {
    const P: [f32; 6] = [
        2.589979117907922693523e-02,
        3.808837741388407920751e-01,
        1.480000633576506585156e+00,
        2.112677543073053063722e+00,
        9.999999999999998702752e-01,
        0.0,
    ];
    const Q: [f32; 6] = [
        5.875095403124574342950e-03,
        1.546476374983906719538e-01,
        9.864942958519418960339e-01,
        2.453006071784736363091e+00,
        2.612677543073109236779e+00,
        1.0,
    ];
    let bits = x.to_bits();
    let mut e = (bits >> 23) as f32 - 127.0;
    let mut m = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    if m > std::f32::consts::SQRT_2 {
        m *= 0.5;
        e += 1.0;
    }
    m -= 1.0;
    let poly = |c: &[f32; 6]| c[1..].iter().fold(c[0], |y, &c| y.mul_add(m, c));
    e.mul_add(std::f32::consts::LN_2, poly(&P) / poly(&Q))
}

/// Timesteps and sigmas of the k-diffusion families.
#[derive(Debug, Clone)]
pub(super) struct SigmaSchedule {
    /// One per step, fractional where the reference's are.
    pub timesteps: Vec<f32>,
    /// One more than steps; the last is where the last step ends.
    pub sigmas: Vec<f32>,
    pub init_noise_sigma: f32,
}

/// What the Karras option does to timesteps: KDPM2 and DPM-Solver round them, the others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Karras {
    Off,
    Fractional,
    Rounded,
}

impl SigmaSchedule {
    pub fn new(
        config: &SchedulerConfig,
        table: &NoiseTable,
        steps: usize,
        mode: Karras,
        last: FinalSigma,
    ) -> Result<Self, SchedulerError> {
        config.check_steps(steps)?;
        config.refuse_unsupported()?;
        let spacing = config.spacing(TimestepSpacing::Linspace)?;
        let train = config.train_timesteps()?;
        let mut timesteps: Vec<f32> = match spacing {
            TimestepSpacing::Linspace => {
                linspace((train - 1) as f64, steps).into_iter().rev().map(|t| t as f32).collect()
            }
            _ => whole_timesteps_unchecked(config, spacing, steps)?,
        };
        let table_sigmas = table.sigmas();
        let mut sigmas: Vec<f64> =
            timesteps.iter().map(|&t| interpolate(&table_sigmas, f64::from(t))).collect();
        if mode != Karras::Off {
            let (min, max) = config.sigma_ends()?;
            sigmas = karras(min.unwrap_or(sigmas[steps - 1]), max.unwrap_or(sigmas[0]), steps);
            timesteps = karras_timesteps(&table_sigmas, &sigmas, mode);
        }
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|s| s as f32).collect();
        sigmas.push(match last {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => table_sigmas[0],
        });
        let max = sigmas.iter().copied().fold(0.0, f32::max);
        let init_noise_sigma =
            if spacing == TimestepSpacing::Leading { (max * max + 1.0).sqrt() } else { max };
        Ok(Self { timesteps, sigmas, init_noise_sigma })
    }
}

/// Sigma families interpolate and so hold a timestep beyond training at the table's end.
fn whole_timesteps_unchecked(
    config: &SchedulerConfig,
    spacing: TimestepSpacing,
    steps: usize,
) -> Result<Vec<f32>, SchedulerError> {
    let shifted = SchedulerConfig { steps_offset: None, ..config.clone() };
    let offset = if spacing == TimestepSpacing::Leading { config.offset()? } else { 0 };
    Ok(whole_timesteps(&shifted, spacing, steps)?.into_iter().map(|t| (t + offset) as f32).collect())
}

fn karras_timesteps(table_sigmas: &[f32], sigmas: &[f64], mode: Karras) -> Vec<f32> {
    let logs = LogSigmas::new(table_sigmas);
    let of = |&sigma: &f64| {
        let t = logs.timestep(sigma);
        (if mode == Karras::Rounded { t.round_ties_even() } else { t }) as f32
    };
    sigmas.iter().map(of).collect()
}

/// The sigmas of DPM-Solver and `UniPC`, and their whole timesteps: `Karras` between the table's ends.
pub(super) fn solver_schedule(
    config: &SchedulerConfig,
    table: &NoiseTable,
    spacing: TimestepSpacing,
    last: usize,
    steps: usize,
    mode: Karras,
) -> Result<(Vec<f32>, Vec<f32>), SchedulerError> {
    config.refuse_unsupported()?;
    let table_sigmas = table.sigmas();
    let whole = solver_timesteps(config, spacing, last, steps)?;
    let (timesteps, mut sigmas): (Vec<f32>, Vec<f32>) = if mode == Karras::Off {
        let sigma = |&t: &usize| interpolate(&table_sigmas, t as f64) as f32;
        (whole.iter().map(|&t| t as f32).collect(), whole.iter().map(sigma).collect())
    } else {
        let (min, max) = config.sigma_ends()?;
        let min = min.unwrap_or_else(|| f64::from(table_sigmas[0]));
        let max = max.unwrap_or_else(|| f64::from(table_sigmas[table_sigmas.len() - 1]));
        let sigmas = karras(min, max, steps);
        // The tensor of timesteps is int64: what is not rounded is cut off.
        let timesteps = karras_timesteps(&table_sigmas, &sigmas, mode);
        (timesteps.iter().map(|t| t.trunc()).collect(), sigmas.iter().map(|&s| s as f32).collect())
    };
    sigmas.push(match config.final_sigma()? {
        FinalSigma::Zero => 0.0,
        FinalSigma::SigmaMin => table_sigmas[0],
    });
    Ok((timesteps, sigmas))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
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
        let bits: Vec<u32> = table.alphas_cumprod.iter().map(|a| a.to_bits()).collect();
        assert_eq!(bits, golden);
    }

    #[test]
    fn every_trailing_schedule_has_as_many_steps_as_were_asked_for() {
        for steps in 1..=1000 {
            let list =
                whole_timesteps(&SchedulerConfig::default(), TimestepSpacing::Trailing, steps).unwrap();
            assert_eq!(list.len(), steps);
            assert!(list.windows(2).all(|w| w[0] > w[1]), "{steps}");
        }
    }
}
