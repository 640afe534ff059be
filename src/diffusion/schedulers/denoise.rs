//! The one rule that reads a model's answer: clean latents, noise or derivative from epsilon, v or sample.

use super::schedule::NoiseLevel;

/// What the model's output means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise in the latents.
    Epsilon,
    /// `v = α·ε − σ·x0` (Salimans and Ho 2022, arXiv 2202.00512, appendix D).
    VPrediction,
    /// The clean latents themselves.
    Sample,
}

/// Reads the model's answer `m` for latents `x` at one [`NoiseLevel`], where `x = signal·x0 + noise·ε`.
///
/// It works on single values; a sampler maps it over latents. Each formula rounds as the reference's does.
#[derive(Debug, Clone, Copy)]
pub struct Denoise {
    prediction: PredictionType,
    level: NoiseLevel,
    /// The share of v in x0: the noise, were the latents of unit variance.
    v_share: f32,
    clip: Option<f32>,
}

impl Denoise {
    /// In k-diffusion's scaling, where `x = x0 + sigma·ε`.
    pub(in super::super) fn at(prediction: PredictionType, sigma: f32) -> Self {
        Self::new(prediction, NoiseLevel::variance_exploding(sigma))
    }

    pub(super) fn new(prediction: PredictionType, level: NoiseLevel) -> Self {
        Self { prediction, level, v_share: level.noise / level.variance.sqrt(), clip: None }
    }

    /// Bounds x0 to `±range`, as `clip_sample` asks.
    pub(super) fn clipped(self, range: Option<f32>) -> Self {
        Self { clip: range, ..self }
    }

    /// The clean latents.
    pub(in super::super) fn x0(&self, x: f32, m: f32) -> f32 {
        let NoiseLevel { signal, noise, variance } = self.level;
        let x0 = match self.prediction {
            PredictionType::Epsilon => (x - noise * m) / signal,
            PredictionType::VPrediction => signal * x / variance - self.v_share * m,
            PredictionType::Sample => m,
        };
        self.clip.map_or(x0, |range| x0.clamp(-range, range))
    }

    /// The noise, by the answer alone: `clip_sample` does not change it. For latents of unit variance.
    pub(super) fn epsilon(&self, x: f32, m: f32) -> f32 {
        let NoiseLevel { signal, noise, .. } = self.level;
        match self.prediction {
            PredictionType::Epsilon => m,
            PredictionType::VPrediction => signal * m + noise * x,
            PredictionType::Sample => (x - signal * m) / noise,
        }
    }

    /// dx/dσ = (x − x0)/σ, the ODE of Karras et al. 2022 (arXiv 2206.00364, equation 3 with σ(t) = t). In
    /// k-diffusion's scaling.
    pub(super) fn derivative(&self, x: f32, m: f32) -> f32 {
        (x - self.x0(x, m)) / self.level.noise
    }
}
