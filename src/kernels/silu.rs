//! `SiLU`, x / (1 + e⁻ˣ).

#![expect(clippy::inline_always, reason = "it must be compiled for the instructions of its caller")]

use super::exponential::exp;

#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_function_over_its_whole_range() {
        let mut x = -90.0_f32;
        while x < 90.0 {
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let error = (f64::from(silu(x)) - exact).abs();
            assert!(error <= 3e-7 * exact.abs() + 1e-36, "{x}: {} in place of {exact}", silu(x));
            x += 0.001_7;
        }
        assert_eq!([0.0, -0.0].map(|x| silu(x).to_bits()), [0.0, -0.0].map(f32::to_bits));
    }

    #[test]
    fn extremes_stay_what_they_are() {
        assert_eq!(
            [f32::MAX, f32::INFINITY].map(|x| silu(x).to_bits()),
            [f32::MAX, f32::INFINITY].map(f32::to_bits)
        );
        assert!(silu(-1e20).abs() < 1e-17 && silu(-200.0).abs() < 1e-35);
        assert!(silu(f32::NAN).is_nan());
    }
}
