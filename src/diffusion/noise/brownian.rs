//! Brownian motion by seed: the noise of samplers that solve an SDE.
//!
//! It follows torchsde's `BrownianTree` (`_brownian/brownian_interval.py`) as k-diffusion's `BrownianTreeNoiseSampler` asks
//! it, bit for bit (but for the last bit of torch's square root of a length, which depends on the processor): an interval is halved again and again, and each half's increment is drawn from that of the whole
//! (Brownian bridge) by a generator of its own, whose seed numpy's `SeedSequence` makes from the picture's seed and the
//! place in the tree. So the motion depends on the seed and its two ends alone, whatever steps ask for it.

use std::collections::HashMap;
use std::sync::Arc;

use ndarray::{Array4, Axis};

use super::Generator;
use super::seed_sequence::first_word;
use crate::domain::NoiseSource;

/// A motion for each image of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BrownianNoise {
    motions: Vec<Motion>,
    shape: (usize, usize, usize),
}

impl BrownianNoise {
    /// For images of shape `(c, h, w)`, between two times.
    pub(super) fn new(
        source: NoiseSource,
        seeds: &[u64],
        shape: (usize, usize, usize),
        between: (f32, f32),
    ) -> Self {
        let size = shape.0 * shape.1 * shape.2;
        Self { motions: seeds.iter().map(|&seed| Motion::new(source, seed, size, between)).collect(), shape }
    }

    /// Unit noise `[images, c, h, w]` for the way from one time to another: the increment, over the root of its length.
    /// Times outside are held at the ends.
    pub fn between(&mut self, from: f32, to: f32) -> Array4<f32> {
        let (c, h, w) = self.shape;
        let mut noise = Array4::zeros((self.motions.len(), c, h, w));
        let deviation = (to - from).abs().sqrt();
        for (motion, mut image) in self.motions.iter_mut().zip(noise.axis_iter_mut(Axis(0))) {
            if let Some(values) = image.as_slice_mut() {
                motion.add_increment(from.min(to), from.max(to), values);
            }
        }
        let sign = if from > to { -1.0 } else { 1.0 };
        if deviation > 0.0 {
            noise.mapv_inplace(|value| value * sign / deviation);
        }
        noise
    }
}

/// One image's motion.
#[derive(Debug, Clone, PartialEq)]
struct Motion {
    source: NoiseSource,
    seed: u64,
    whole: Interval,
    increment: Arc<[f32]>,
    /// The increments of left halves that the last query needed. The next one needs half of them again.
    left_halves: HashMap<(u32, u64), Arc<[f32]>>,
}

/// A piece of the time, and its place in the tree: how deep, and the path of left (0) and right (1).
#[derive(Debug, Clone, Copy, PartialEq)]
struct Interval {
    start: f64,
    end: f64,
    depth: u32,
    path: u64,
}

impl Motion {
    fn new(source: NoiseSource, seed: u64, size: usize, (start, end): (f32, f32)) -> Self {
        let (start, end) = (f64::from(start), f64::from(end));
        let mut increment = vec![0.0; size];
        Generator::new(source, first_word(seed, &[]).into()).fill(&mut increment);
        scale(&mut increment, (end - start).max(0.0).sqrt());
        let whole = Interval { start: rounded(start), end: rounded(end), depth: 0, path: 0 };
        Self { source, seed, whole, increment: increment.into(), left_halves: HashMap::new() }
    }

    /// Adds the increment between two times to `out`.
    fn add_increment(&mut self, from: f32, to: f32, out: &mut [f32]) {
        let [from, to] =
            [from, to].map(|time| rounded(f64::from(time)).max(self.whole.start).min(self.whole.end));
        let known = std::mem::take(&mut self.left_halves);
        if from < to {
            self.visit(self.whole, &Arc::clone(&self.increment), (from, to), &known, out);
        }
    }

    fn visit(
        &mut self,
        interval: Interval,
        increment: &Arc<[f32]>,
        (from, to): (f64, f64),
        known: &HashMap<(u32, u64), Arc<[f32]>>,
        out: &mut [f32],
    ) {
        let Interval { start, end, depth, path } = interval;
        let middle = rounded(0.5 * (end + start));
        if (from <= start && to >= end) || !(start < middle && middle < end) {
            out.iter_mut().zip(increment.iter()).for_each(|(sum, w)| *sum += w);
            return;
        }
        let left = match known.get(&(depth, path)) {
            Some(left) => Arc::clone(left),
            None => self.left_half(interval, middle, increment),
        };
        self.left_halves.insert((depth, path), Arc::clone(&left));
        let depth = depth + 1;
        if from < middle {
            let half = Interval { end: middle, depth, path: 2 * path, ..interval };
            self.visit(half, &left, (from, to.min(middle)), known, out);
        }
        if to > middle {
            let half = Interval { start: middle, depth, path: 2 * path + 1, ..interval };
            let right = increment.iter().zip(left.iter()).map(|(whole, left)| whole - left).collect();
            self.visit(half, &right, (from.max(middle), to), known, out);
        }
    }

    /// The increment over the left half of an interval, given that over the whole: normal, with the mean that its share of
    /// the time gives.
    #[expect(clippy::cast_possible_truncation, reason = "torch multiplies f32 by scalars in f32")]
    fn left_half(&self, interval: Interval, middle: f64, increment: &[f32]) -> Arc<[f32]> {
        let Interval { start, end, depth, path } = interval;
        let per_length = 1.0 / (end - start);
        let (left, right) = (middle - start, end - middle);
        let seed = first_word(self.seed, &[path, depth.into()]);
        let mut half = vec![0.0; increment.len()];
        Generator::new(self.source, seed.into()).fill(&mut half);
        scale(&mut half, (left * right * per_length).sqrt());
        let (left, per_length) = (left as f32, per_length as f32);
        half.iter_mut().zip(increment).for_each(|(half, whole)| *half += left * whole * per_length);
        half.into()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "torch multiplies f32 by scalars in f32")]
fn scale(values: &mut [f32], by: f64) {
    let by = by as f32;
    for value in values {
        *value *= by;
    }
}

/// Python's `round(time, 6)`: the decimal that is nearest to the very number.
fn rounded(time: f64) -> f64 {
    format!("{time:.6}").parse().unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::diffusion::noise::BatchNoise;

    const GOLDEN: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/brownian_golden.json"));

    #[test]
    fn every_increment_has_the_bits_of_torchsde() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let runs = golden["runs"].as_array().unwrap();
        assert!(runs.len() >= 5);
        for run in runs {
            let numbers = |value: &Value| -> Vec<u32> {
                value
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|bits| u32::try_from(bits.as_u64().unwrap()).unwrap())
                    .collect()
            };
            let seed = run["seed"].as_u64().unwrap();
            let ends: Vec<f32> = numbers(&run["ends"]).into_iter().map(f32::from_bits).collect();
            let mut motion = Motion::new(NoiseSource::Cpu, seed, 24, (ends[0], ends[1]));
            for query in run["queries"].as_array().unwrap() {
                let times: Vec<f32> = numbers(&query["times"]).into_iter().map(f32::from_bits).collect();
                let mut drawn = [0.0; 24];
                motion.add_increment(times[0].min(times[1]), times[0].max(times[1]), &mut drawn);
                let bits: Vec<u32> = drawn.iter().map(|value| value.to_bits()).collect();
                assert_eq!(bits, numbers(&query["bits"]), "seed {seed}, {times:?} of {ends:?}");
            }
        }
    }

    #[test]
    fn a_motion_does_not_depend_on_its_batch_or_on_what_was_asked_before() {
        for source in NoiseSource::ALL {
            let batch = BatchNoise::new(source, [3, 9]);
            let mut both = batch.brownian((4, 2, 2), (0.03, 14.6));
            both.between(14.6, 7.0);
            let both = both.between(7.0, 2.0);
            let alone = BatchNoise::new(source, [9]).brownian((4, 2, 2), (0.03, 14.6)).between(7.0, 2.0);
            assert_eq!(both.index_axis(Axis(0), 1), alone.index_axis(Axis(0), 0));
        }
    }

    #[test]
    fn any_times_give_finite_noise() {
        let noise = BatchNoise::new(NoiseSource::Cpu, [1]);
        for ends in [(0.03, 14.6), (0.03, 4096.0), (1.0, 1.0), (0.0, 0.0), (f32::INFINITY, 0.0)] {
            let mut brownian = noise.brownian((1, 1, 2), ends);
            for (from, to) in [(14.6, 0.03), (5.0, 5.0), (5.0, 4.999_999_5), (9e9, -1.0), (0.5, 0.7)] {
                assert!(
                    brownian.between(from, to).iter().all(|value| value.is_finite()),
                    "{ends:?} {from} {to}"
                );
            }
        }
    }
}
