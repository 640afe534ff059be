//! The random numbers of `torch.randn` on a CUDA device: Philox4x32-10 and Box-Muller.
//!
//! It follows `ATen/native/cuda/DistributionTemplates.h` and cuRAND's `curand_normal.h`. The generator is that of Salmon
//! et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". The key is the seed. Call `o` of a generator
//! gives thread `t` the counter `(o, 0, t, 0)` and with it four normals. The first goes to element `t`, the others to
//! elements beyond the grid of threads.
//!
//! The grid's size depends on the card (multiprocessors × threads of each). The largest image has 4 × 12288 latents,
//! which is 32 multiprocessors of 1536 threads. So on all but the smallest cards every image fits into the grid,
//! and only the first normal is computed here, as in A1111's `rng_philox.py`.
//!
//! Results are within 1e-6 of a card's, which uses fast, approximate sines.

use crate::diffusion::bytes::{ByteReader, ByteWriter};

/// `torch.Generator("cuda").manual_seed(seed)`.
#[derive(Debug, Clone)]
pub struct PhiloxGenerator {
    seed: u64,
    /// Calls so far; torch counts four numbers a call and a thread.
    calls: u32,
}

impl PhiloxGenerator {
    /// All 64 bits of the seed matter.
    pub fn new(seed: u64) -> Self {
        Self { seed, calls: 0 }
    }

    /// Writes how far it is.
    pub fn save(&self, out: &mut ByteWriter) {
        out.u64(self.seed);
        out.u32(self.calls);
    }

    /// A generator that is as far as the saved one was.
    pub fn read(saved: &mut ByteReader) -> Option<Self> {
        Some(Self { seed: saved.u64()?, calls: saved.u32()? })
    }

    /// Fills `out` as one call of `torch.randn` does. Two short calls differ from one long call.
    pub fn fill(&mut self, out: &mut [f32]) {
        if out.is_empty() {
            return;
        }
        for (thread, value) in (0..).zip(out) {
            let [x, y, ..] = philox([self.calls, 0, thread, 0], self.seed);
            *value = normal(x, y);
        }
        self.calls = self.calls.wrapping_add(1);
    }
}

const ROUNDS: u32 = 10;

/// Four random words for a counter.
#[expect(clippy::cast_possible_truncation, reason = "the two words of the key")]
fn philox(mut counter: [u32; 4], seed: u64) -> [u32; 4] {
    let mut key = [seed as u32, (seed >> 32) as u32];
    for _ in 0..ROUNDS {
        let (high0, low0) = product(0xD251_1F53, counter[0]);
        let (high1, low1) = product(0xCD9E_8D57, counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        // The golden ratio and √3 − 1, as Weyl sequences.
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// A product's high and low word.
#[expect(clippy::cast_possible_truncation, reason = "the low word")]
fn product(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    ((product >> 32) as u32, product as u32)
}

/// The first of the two normals that two random words make: `√(−2 ln u) · sin v` with u in (0, 1] and v in
/// (0, 2π], both rounded to f32 where the card rounds them.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "as the card rounds")]
fn normal(x: u32, y: u32) -> f32 {
    // cuRAND's CURAND_2POW32_INV and CURAND_2POW32_INV_2PI.
    const TURN: f32 = 2.328_306_4e-10;
    const TURN_2PI: f32 = 2.328_306_4e-10 * 6.283_185_5;
    let u = (x as f32).mul_add(TURN, TURN / 2.0);
    let v = (y as f32).mul_add(TURN_2PI, TURN_2PI / 2.0);
    ((-2.0 * f64::from(u).ln()).sqrt() * f64::from(v).sin()) as f32
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const GOLDEN: &str = include_str!("../../../tests/golden/philox_golden.json");

    fn numbers(values: &Value) -> Vec<f64> {
        values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
    }

    fn largest_difference(values: &[f32], expected: &[f64]) -> f64 {
        let apart = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs();
        values.iter().zip(expected).map(apart).fold(0.0, f64::max)
    }

    fn randn(seed: u64, call: u64, n: usize) -> Vec<f32> {
        let mut generator = PhiloxGenerator::new(seed);
        let mut out = vec![0.0; n];
        for _ in 0..=call {
            generator.fill(&mut out);
        }
        out
    }

    #[test]
    fn seed_0_gives_the_numbers_that_a1111_documents() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let documented = numbers(&golden["documented"]);
        assert!(largest_difference(&randn(0, 0, 12), &documented) < 1e-6);
    }

    #[test]
    fn words_are_exact_and_normals_within_a_millionth() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        for run in golden["runs"].as_array().unwrap() {
            let number = |key: &str| run[key].as_u64().unwrap();
            let (seed, call) = (number("seed"), number("call"));
            let n = usize::try_from(number("n")).unwrap();
            let name = format!("seed {seed} call {call} n {n}");
            for (thread, words) in [0, n - 1].into_iter().zip(run["words"].as_array().unwrap()) {
                let counter = [u32::try_from(call).unwrap(), 0, u32::try_from(thread).unwrap(), 0];
                let expected: Vec<_> =
                    words.as_array().unwrap().iter().map(|w| w.as_u64().unwrap()).collect();
                assert_eq!(philox(counter, seed).map(u64::from).to_vec(), expected, "{name}");
            }
            let values = randn(seed, call, n);
            let (first, last) = (numbers(&run["first"]), numbers(&run["last"]));
            assert!(largest_difference(&values, &first) < 1e-6, "{name}");
            assert!(largest_difference(&values[n - last.len()..], &last) < 1e-6, "{name}");
            let sum: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
            let expected = run["sum_of_squares"].as_f64().unwrap();
            assert!((sum / expected - 1.0).abs() < 1e-5, "{name}: {sum} is not {expected}");
        }
    }

    #[test]
    fn extreme_words_give_finite_normals() {
        for word in [0, 1, u32::MAX - 1, u32::MAX] {
            assert!(normal(word, 0x4000_0000).is_finite(), "{word}");
        }
    }
}
