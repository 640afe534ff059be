//! The way from a sigma to its timestep, and back.

#![expect(clippy::cast_precision_loss, reason = "training timesteps lie far below 2^24")]

use super::numpy::{interpolate, log};

/// The logarithms of the training sigmas. A timestep between two of them is found linearly.
pub struct LogSigmas(Vec<f32>);

impl LogSigmas {
    /// `sigmas` rise, one for each training timestep.
    pub fn new(sigmas: &[f32]) -> Self {
        Self(sigmas.iter().map(|&sigma| log(sigma)).collect())
    }

    /// The (fractional) timestep of a sigma.
    pub fn timestep(&self, sigma: f64) -> f64 {
        let log_sigma = sigma.max(1e-10).ln();
        if self.0.len() < 2 {
            return 0.0;
        }
        let i = self.last_where(|entry| f64::from(entry) <= log_sigma);
        let (low, high) = (self.0[i], self.0[i + 1]);
        let w = ((f64::from(low) - log_sigma) / f64::from(low - high)).clamp(0.0, 1.0);
        (1.0 - w) * i as f64 + w * (i + 1) as f64
    }

    /// The same wholly in f32, as the reference does it where the sigma is a tensor (KDPM2).
    pub fn timestep_f32(&self, sigma: f32) -> f32 {
        let log_sigma = log(sigma.max(1e-10));
        if self.0.len() < 2 {
            return 0.0;
        }
        let i = self.last_where(|entry| entry <= log_sigma);
        let (low, high) = (self.0[i], self.0[i + 1]);
        let w = ((low - log_sigma) / (low - high)).clamp(0.0, 1.0);
        (1.0 - w) * i as f32 + w * (i + 1) as f32
    }

    /// The sigma of a (fractional) timestep: k-diffusion's `t_to_sigma`.
    pub fn sigma(&self, timestep: f64) -> f64 {
        interpolate(&self.0, timestep).exp()
    }

    /// The last entry, of those that have a next one, at which `holds`.
    fn last_where(&self, holds: impl Fn(f32) -> bool) -> usize {
        let last = self.0.iter().rposition(|&entry| holds(entry)).unwrap_or(0);
        last.min(self.0.len().saturating_sub(2))
    }
}
