//! The embedding of the guidance scale, which models take that were distilled with guidance (latent consistency models).

use ndarray::Array2;

/// Embeds guidance scales, `[scales, width]`: the sines and cosines of `1000·(scale − 1)` at falling frequencies, as diffusers'
/// `get_guidance_scale_embedding` has them.
#[expect(clippy::cast_precision_loss, reason = "a width of a few hundred")]
pub fn guidance_embedding(scales: &[f32], width: usize) -> Array2<f32> {
    let half = width / 2;
    let step = 10_000_f32.ln() / (half.saturating_sub(1).max(1) as f32);
    let frequencies: Vec<f32> = (0..half).map(|index| (index as f32 * -step).exp()).collect();
    let mut embedding = Array2::zeros((scales.len(), width));
    for (scale, mut row) in scales.iter().zip(embedding.outer_iter_mut()) {
        let w = (scale - 1.0) * 1000.0;
        for (index, frequency) in frequencies.iter().enumerate() {
            let (sine, cosine) = (w * frequency).sin_cos();
            row[index] = sine;
            row[half + index] = cosine;
        }
    }
    embedding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_embedded_as_in_diffusers() {
        let golden: Vec<(f32, usize, Vec<f32>)> =
            serde_json::from_str(include_str!("../../../tests/golden/guidance_embedding.json")).unwrap();
        for (scale, width, expected) in golden {
            let embedding = guidance_embedding(&[scale], width);
            assert_eq!(embedding.len(), expected.len());
            for (value, expected) in embedding.iter().zip(&expected) {
                // An ulp of w·f, of which there may be ten thousand radians.
                assert!((value - expected).abs() < 2e-3, "{scale} {width}: {value} is not {expected}");
            }
        }
    }
}
