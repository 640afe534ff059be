//! Latents at another size, as torch's `nn.functional.interpolate` makes them.
//!
//! Every mode is a weighted sum of values along one axis, and then along the other. The weights follow
//! `aten/src/ATen/native/UpSample.h` and `native/cpu/UpSampleKernel.cpp`, with `align_corners=False`.

use ndarray::{Array4, ArrayView1, ArrayViewMut1, Axis, Zip};

use crate::domain::LatentMode;

/// The values that one value of the result is made of: where the first is, and their weights.
type Taps = Vec<(usize, f32)>;

/// `latents`, `[images, channels, h, w]`, with sides of `height` and `width`.
pub(super) fn interpolate(
    latents: &Array4<f32>,
    (height, width): (usize, usize),
    mode: LatentMode,
) -> Array4<f32> {
    resized(&resized(latents, Axis(3), width, mode), Axis(2), height, mode)
}

fn resized(values: &Array4<f32>, axis: Axis, to: usize, mode: LatentMode) -> Array4<f32> {
    let taps: Vec<Taps> = (0..to).map(|at| taps(mode, at, values.len_of(axis), to)).collect();
    let mut shape = values.raw_dim();
    shape[axis.index()] = to;
    let mut result = Array4::zeros(shape);
    Zip::from(result.lanes_mut(axis)).and(values.lanes(axis)).for_each(
        |mut lane: ArrayViewMut1<f32>, from: ArrayView1<f32>| {
            for (value, taps) in lane.iter_mut().zip(&taps) {
                *value = taps.iter().map(|(at, weight)| from[*at] * weight).sum();
            }
        },
    );
    result
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "positions along an axis of some hundred values"
)]
fn taps(mode: LatentMode, at: usize, from: usize, to: usize) -> Taps {
    let scale = from as f32 / to as f32;
    let center = (at as f32 + 0.5) * scale;
    let last = from.saturating_sub(1);
    let within = |position: i64| usize::try_from(position).unwrap_or(0).min(last);
    match mode {
        LatentMode::Nearest => vec![(within((at as f32 * scale).floor() as i64), 1.0)],
        LatentMode::NearestExact => vec![(within(center.floor() as i64), 1.0)],
        LatentMode::Bilinear { antialias: true } => filtered(scale, center, from, 1.0, triangle),
        LatentMode::Bicubic { antialias: true } => filtered(scale, center, from, 2.0, |x| cubic(x, -0.5)),
        LatentMode::Bilinear { antialias: false } => {
            let position = (center - 0.5).max(0.0);
            let first = position.floor();
            let share = position - first;
            vec![(within(first as i64), 1.0 - share), (within(first as i64 + 1), share)]
        }
        LatentMode::Bicubic { antialias: false } => {
            let first = (center - 0.5).floor();
            let share = center - 0.5 - first;
            let weight = |offset: i64| cubic(share - offset as f32, -0.75);
            (-1..3).map(|offset| (within(first as i64 + offset), weight(offset))).collect()
        }
    }
}

/// The weights of a filter that grows with the step where the result is smaller.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "positions along an axis of some hundred values"
)]
fn filtered(scale: f32, center: f32, from: usize, radius: f32, filter: impl Fn(f32) -> f32) -> Taps {
    let stretch = scale.max(1.0);
    let support = radius * stretch;
    let position = |x: f32| usize::try_from(x as i64).unwrap_or(0).min(from);
    let (start, end) = (position(center - support + 0.5), position(center + support + 0.5));
    let weigh = |at: usize| (at, filter((at as f32 - center + 0.5) / stretch));
    let mut taps: Taps = (start..end).map(weigh).collect();
    let total: f32 = taps.iter().map(|(_, weight)| weight).sum();
    for (_, weight) in &mut taps {
        *weight /= total;
    }
    taps
}

fn triangle(x: f32) -> f32 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic convolution with the parameter `a` (IEEE ASSP 1981).
fn cubic(x: f32, a: f32) -> f32 {
    let x = x.abs();
    match x {
        x if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::Upscaler;

    #[test]
    fn latents_are_resized_as_torch_resizes_them() {
        let golden: Value =
            serde_json::from_str(include_str!("../../../tests/golden/interpolate.json")).unwrap();
        let size = |value: &Value| serde_json::from_value::<[usize; 2]>(value.clone()).unwrap();
        let values = |value: &Value| serde_json::from_value::<Vec<f32>>(value.clone()).unwrap();
        for case in golden.as_array().unwrap() {
            let name = case["mode"].as_str().unwrap();
            let Ok(Upscaler::Latent(mode)) = Upscaler::parse(name, None) else { panic!("{name}") };
            let ([h, w], [height, width]) = (size(&case["from"]), size(&case["to"]));
            let latents = Array4::from_shape_vec((1, 1, h, w), values(&case["latents"])).unwrap();
            let resized = interpolate(&latents, (height, width), mode);
            assert_eq!(resized.dim(), (1, 1, height, width));
            for (ours, theirs) in resized.iter().zip(values(&case["resized"])) {
                assert!(
                    (ours - theirs).abs() <= 1e-5,
                    "{name}, {h}×{w} to {height}×{width}: {ours} {theirs}"
                );
            }
        }
    }
}
