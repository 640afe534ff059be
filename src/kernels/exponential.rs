//! eˣ, written so that the compiler makes vectors of it.

#![expect(clippy::inline_always, reason = "it must be compiled for the instructions of its caller")]

/// 1.5 · 2²³. Adding it rounds to a whole number, which is then in the lowest bits.
const WHOLE: f32 = 12_582_912.0;
/// ln 2 in two parts. The first has so few digits that its products with whole numbers are exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// eʳ for |r| ≤ ½ ln 2: the polynomial of Cephes' `expf` (Moshier), from r² up; 1 + r come before.
const POWERS: [f32; 6] = [0.5, 1.666_666_5e-1, 4.166_579_6e-2, 8.333_452e-3, 1.398_2e-3, 1.987_569_1e-4];
/// Beyond these, e to it is no normal number in float32.
const SMALLEST: f32 = -87.3;
const LARGEST: f32 = 88.0;

/// eˣ with an error of two units in the last place. What is too large or too small becomes the largest or smallest result.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = in_range(x);
    let shifted = x * std::f32::consts::LOG2_E + WHOLE;
    let twos = shifted - WHOLE;
    let r = x - twos * LN_2[0] - twos * LN_2[1];
    let [p0, p1, p2, p3, p4, p5] = POWERS;
    let tail = ((((p5 * r + p4) * r + p3) * r + p2) * r + p1) * r + p0;
    let power = tail * (r * r) + r + 1.0;
    // 2 to the whole number: its bits become the exponent.
    f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// Other than `f32::clamp`, this makes [`SMALLEST`] of what is no number, and is two instructions.
#[inline(always)]
fn in_range(x: f32) -> f32 {
    let x = if x > SMALLEST { x } else { SMALLEST };
    if x < LARGEST { x } else { LARGEST }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_function_over_its_whole_range() {
        let mut x = SMALLEST;
        while x < LARGEST {
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error <= 2.4e-7, "{x}: {} in place of {exact}", exp(x));
            x += 0.000_7;
        }
        assert_eq!(exp(0.0).to_bits(), 1_f32.to_bits());
    }

    #[test]
    fn what_is_beyond_is_the_smallest_or_the_largest() {
        for x in [-1e30, f32::NEG_INFINITY, f32::NAN] {
            assert!(exp(x) < 1.3e-38, "{x}");
        }
        for x in [1e30, f32::INFINITY] {
            assert!(exp(x) > 1.6e38 && exp(x).is_finite(), "{x}");
        }
    }
}
