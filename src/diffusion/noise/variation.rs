//! The first noise of a variation: noise of another seed blended in, or noise of another size in its middle.
//!
//! These are A1111's `subseed` and `seed_resize_from` (`modules/rng.py`, `ImageRNG.first` and `slerp`).

use ndarray::{Array3, Array4, ArrayView3, Axis, Zip, s};

use super::Generator;
use crate::domain::NoiseSource;

/// How the first noise differs from the seeds' own.
#[derive(Debug, Clone)]
pub struct NoiseVariation {
    /// The seed of the noise that is blended into each image, and how much of it, 0 to 1.
    pub blended: Option<(Vec<u64>, f64)>,
    /// Height and width in latents of the noise that lies in the middle.
    pub middle: Option<(usize, usize)>,
}

impl NoiseVariation {
    /// Changes what the generators of these seeds drew: `[images, c, h, w]`.
    pub(super) fn apply(&self, source: NoiseSource, seeds: &[u64], own: &mut Array4<f32>) {
        let (_, channels, height, width) = own.dim();
        let (h, w) = self.middle.unwrap_or((height, width));
        for (image, mut row) in own.axis_iter_mut(Axis(0)).enumerate() {
            let draw = |seed: u64| drawn(source, seed, (channels, h, w));
            let is_whole = (h, w) == (height, width);
            let mut noise = if is_whole { row.to_owned() } else { draw(seeds[image]) };
            if let Some((subseeds, strength)) = &self.blended {
                noise = slerp(*strength, noise.view(), draw(subseeds[image]).view());
            }
            // Where the noise is larger than the picture, its own middle is used.
            let (from_y, to_y, rows) = middle(h, height);
            let (from_x, to_x, columns) = middle(w, width);
            row.slice_mut(s![.., to_y..to_y + rows, to_x..to_x + columns]).assign(&noise.slice(s![
                ..,
                from_y..from_y + rows,
                from_x..from_x + columns
            ]));
        }
    }
}

fn drawn(source: NoiseSource, seed: u64, shape: (usize, usize, usize)) -> Array3<f32> {
    let mut noise = Array3::zeros(shape);
    if let Some(values) = noise.as_slice_mut() {
        Generator::new(source, seed).fill(values);
    }
    noise
}

/// Where a line of `noise` values lies in one of `side`: its start in the noise, its start in the line, its length.
fn middle(noise: usize, side: usize) -> (usize, usize, usize) {
    // The reference rounds the offset down, also where it is negative.
    if noise <= side {
        (0, (side - noise) / 2, noise)
    } else {
        let cut = (noise - side).div_ceil(2);
        (cut, 0, noise.saturating_sub(2 * cut))
    }
}

/// Spherical interpolation from `low` to `high`, `[c, h, w]`. The reference takes each column of latents (axis 1) as a
/// vector of its own.
#[expect(clippy::cast_possible_truncation, reason = "torch multiplies tensors of f32")]
#[expect(clippy::needless_pass_by_value, reason = "views are references")]
fn slerp(share: f64, low: ArrayView3<f32>, high: ArrayView3<f32>) -> Array3<f32> {
    let norm = |noise: ArrayView3<f32>| noise.mapv(|value| value * value).sum_axis(Axis(1)).mapv(f32::sqrt);
    let (low_norm, high_norm) = (norm(low), norm(high));
    let products = (&low * &high).sum_axis(Axis(1));
    let dot = products / (low_norm * high_norm);
    let mut blended = high.to_owned();
    if dot.mean().is_some_and(|mean| mean > 0.9995) {
        // As the reference has it: the shares are the other way round here.
        blended.zip_mut_with(&low, |high, low| *high = low * share as f32 + *high * (1.0 - share) as f32);
        return blended;
    }
    let omega = dot.mapv(f32::acos);
    let weight = |share: f64| omega.mapv(|omega| (share as f32 * omega).sin() / omega.sin());
    let (low_share, high_share) = (weight(1.0 - share), weight(share));
    for y in 0..low.dim().1 {
        Zip::from(blended.index_axis_mut(Axis(1), y))
            .and(low.index_axis(Axis(1), y))
            .and(&low_share)
            .and(&high_share)
            .for_each(|high, low, low_share, high_share| *high = low_share * low + high_share * *high);
    }
    blended
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::BatchNoise;
    use super::*;

    #[test]
    fn variations_are_those_of_a1111() {
        let golden: Value =
            serde_json::from_str(include_str!("../../../tests/golden/variations.json")).unwrap();
        let cases = golden.as_array().unwrap();
        assert!(cases.len() > 8);
        for case in cases {
            let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
            let side = |name: &str| (number(&case[name][0]), number(&case[name][1]));
            let (height, width) = side("size");
            let seed = case["seed"].as_u64().unwrap();
            let variation = NoiseVariation {
                blended: case["subseed"]
                    .as_u64()
                    .map(|subseed| (vec![subseed], case["strength"].as_f64().unwrap())),
                middle: (!case["from"].is_null()).then(|| side("from")),
            };
            let mut noise = BatchNoise::new(NoiseSource::Cpu, [seed]);
            noise.vary(variation);
            let first = noise.first((4, height, width));
            let next = noise.randn((4, height, width));
            for (name, found) in [("first", first), ("next", next)] {
                let expected = case[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
                assert_eq!(expected.len(), found.len());
                let furthest =
                    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                assert!(furthest <= 2e-6, "{name} {furthest} {case:.120}");
            }
        }
    }

    #[test]
    fn the_noise_of_cuda_is_varied_in_the_same_way() {
        let varied = |strength| {
            let mut noise = BatchNoise::new(NoiseSource::Cuda, [7, 7]);
            let blended = Some((vec![1, 2], strength));
            noise.vary(NoiseVariation { blended, middle: None });
            noise.first((4, 6, 5))
        };
        let own = |seed| BatchNoise::new(NoiseSource::Cuda, [seed]).randn((4, 6, 5));
        let near = |a: &Array4<f32>, b: &Array4<f32>| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near(&varied(0.0).slice_move(s![0..1, .., .., ..]), &own(7)));
        assert!(near(&varied(1.0).slice_move(s![1..2, .., .., ..]), &own(2)));
    }
}
