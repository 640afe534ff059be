//! An ancestral step: down to below the next sigma, then up to it by fresh noise.

/// `(sigma_up, sigma_down)` between two sigmas, in the f32 of the reference (Crowson's k-diffusion,
/// `get_ancestral_step`): `σ_up²` = η²·σ'²(σ² − σ'²)/σ² and `σ_down²` = σ'² − `σ_up²`.
pub(super) fn ancestral(from: f32, to: f32, eta: f32) -> (f32, f32) {
    let up = eta * (to * to * (from * from - to * to) / (from * from)).sqrt();
    (up, (to * to - up * up).max(0.0).sqrt())
}
