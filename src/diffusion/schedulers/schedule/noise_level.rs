//! How much noise latents hold.

/// How latents mix clean latents x0 and unit noise ε: `x = signal·x0 + noise·ε`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoiseLevel {
    pub signal: f32,
    pub noise: f32,
    /// `signal² + noise²`: the variance of the latents, if that of x0 is 1.
    pub variance: f32,
}

impl NoiseLevel {
    /// DDPM's form: ᾱ is the share of signal in the variance, which stays 1.
    pub fn from_alpha_cumprod(alpha: f32) -> Self {
        Self { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt(), variance: 1.0 }
    }

    /// DPM-Solver's form at k-diffusion's sigma: α = 1/√(σ² + 1) and σ·α.
    pub fn variance_preserving(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        Self { signal, noise: sigma * signal, variance: 1.0 }
    }

    /// k-diffusion's form: the signal stays as it is and noise of deviation sigma lies over it.
    pub fn variance_exploding(sigma: f32) -> Self {
        Self { signal: 1.0, noise: sigma, variance: sigma * sigma + 1.0 }
    }

    /// What the latents are divided by before the model sees them: it was trained on unit variance.
    pub fn input_divisor(self) -> f32 {
        self.variance.sqrt()
    }

    /// λ = ln α − ln σ, half the logarithm of the signal-to-noise ratio; +∞ without noise.
    pub fn lambda(self) -> f32 {
        self.signal.ln() - self.noise.ln()
    }
}
