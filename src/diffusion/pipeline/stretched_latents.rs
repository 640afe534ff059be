//! Latents of another size, stretched: A1111's resize mode 3, "just resize (latent upscale)".
//!
//! This is torch's `interpolate(mode="bilinear")` with its defaults: corners are not aligned, and nothing is smoothed
//! before it shrinks.

use ndarray::{Array4, Axis, Zip};

/// `[images, channels, h, w]` at another height and width.
pub(super) fn stretched(latents: Array4<f32>, (height, width): (usize, usize)) -> Array4<f32> {
    let latents = along(latents, Axis(2), height);
    along(latents, Axis(3), width)
}

fn along(latents: Array4<f32>, axis: Axis, to: usize) -> Array4<f32> {
    let from = latents.len_of(axis);
    if from == to || from == 0 {
        return latents;
    }
    let mut shape = latents.raw_dim();
    shape[axis.index()] = to;
    let mut out = Array4::zeros(shape);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sides of latents"
    )]
    for (at, mut out) in out.axis_iter_mut(axis).enumerate() {
        let centre = ((at as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
        let first = (centre as usize).min(from - 1);
        let weight = centre - first as f32;
        Zip::from(&mut out)
            .and(latents.index_axis(axis, first))
            .and(latents.index_axis(axis, (first + 1).min(from - 1)))
            .for_each(|out, first, second| *out = first * (1.0 - weight) + second * weight);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latents_are_stretched_as_by_torch() {
        // torch.nn.functional.interpolate(torch.arange(6.).reshape(1, 1, 2, 3), size=(3, 5), mode="bilinear")
        let latents =
            Array4::from_shape_fn((1, 1, 2, 3), |(_, _, y, x)| f32::from(u8::try_from(3 * y + x).unwrap()));
        let expected = [[0.0, 0.4, 1.0, 1.6, 2.0], [1.5, 1.9, 2.5, 3.1, 3.5], [3.0, 3.4, 4.0, 4.6, 5.0]];
        let stretched = stretched(latents.clone(), (3, 5));
        for (found, expected) in stretched.iter().zip(expected.as_flattened()) {
            assert!((found - expected).abs() < 1e-6, "{stretched}");
        }
        assert_eq!(super::stretched(latents.clone(), (2, 3)), latents);
        // interpolate(torch.arange(6.).reshape(1, 1, 2, 3), size=(1, 2), mode="bilinear")
        let small = super::stretched(latents, (1, 2));
        assert_eq!(small.iter().copied().collect::<Vec<_>>(), [1.75, 3.25]);
    }
}
