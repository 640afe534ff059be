//! The softmax of a block of scores, which continues that of the blocks before.

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]

use crate::kernels::vector::{LANES, Vector};

use super::block::{LANES_OF_QUERIES, Queries, each};

/// 1.5 · 2²³, which rounds to a whole number when it is added, and 127, the exponent of 1.
const WHOLE: f32 = 12_582_912.0;
const WHOLE_AND_BIAS: f32 = WHOLE + 127.0;
/// 2ʳ for |r| ≤ ½, from r¹ up, with an error of 1e-7 (a minimax polynomial).
const POWERS: [f32; 5] = [0.693_146_94, 0.240_222_42, 0.055_507_337, 0.009_671_513, 0.001_326_472_7];
/// Below this, 2 to it is no normal number in float32.
const SMALLEST: f32 = -126.0;

/// Of each query: the largest score so far, and the sum of 2 to all scores less the largest.
#[derive(Clone, Copy)]
pub struct State {
    pub largest: Queries,
    pub sum: Queries,
}

impl State {
    /// A score of −∞ less this is no NaN.
    pub const START: Self =
        Self { largest: Queries([[f32::MIN; LANES]; LANES_OF_QUERIES]), sum: Queries::ZERO };

    /// Makes weights of the scores: 2 to them, less the largest. Returns what the weights of earlier blocks become less by.
    #[inline(always)]
    pub fn weigh<V: Vector>(&mut self, scores: &mut [Queries]) -> Queries {
        let mut less = Queries::ZERO;
        for lane in 0..LANES_OF_QUERIES {
            let mut largest = self.largest.0[lane];
            for row in &*scores {
                // What is no number is found later.
                each(
                    &mut largest,
                    &row.0[lane],
                    |largest, score| if score > largest { score } else { largest },
                );
            }
            less.0[lane] = self.largest.0[lane];
            each(&mut less.0[lane], &largest, |before, largest| power_of_two::<V>(before - largest));
            self.largest.0[lane] = largest;
            // By itself first: a long chain of sums loses digits.
            let mut sum = [0.0; LANES];
            for row in &mut *scores {
                each(&mut row.0[lane], &largest, |score, largest| power_of_two::<V>(score - largest));
                each(&mut sum, &row.0[lane], |sum, weight| sum + weight);
            }
            each(&mut self.sum.0[lane], &less.0[lane], |before, less| before * less);
            each(&mut self.sum.0[lane], &sum, |before, sum| before + sum);
        }
        less
    }
}

/// 2ˣ for x ≤ 0. What is too small becomes the smallest result, and what is no number stays none.
#[inline(always)]
fn power_of_two<V: Vector>(x: f32) -> f32 {
    let times_plus = |a: f32, b: f32, c: f32| if V::IS_FUSED { a.mul_add(b, c) } else { a * b + c };
    let x = if SMALLEST > x { SMALLEST } else { x };
    let shifted = x + WHOLE_AND_BIAS;
    let r = x - (shifted - WHOLE_AND_BIAS);
    let [p1, p2, p3, p4, p5] = POWERS;
    let mut power = times_plus(p5, r, p4);
    for p in [p3, p2, p1, 1.0] {
        power = times_plus(power, r, p);
    }
    // The whole number becomes the exponent.
    power * f32::from_bits(shifted.to_bits() << 23)
}
