//! GELU, x Φ(x), where Φ is the normal distribution's share of what is smaller.

#![expect(clippy::inline_always, reason = "it must be compiled for the instructions of its caller")]

use super::exponential::exp;

/// The complementary error function of |z|, without its e^(−z²): a polynomial in 1 / (1 + P |z|) (Abramowitz and Stegun,
/// "Handbook of Mathematical Functions", 7.1.26). It is exact to 1.5e-7.
const P: f32 = 0.327_591_1;
const POWERS: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];

#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + P * z);
    let [p1, p2, p3, p4, p5] = POWERS;
    let tail = ((((p5 * t + p4) * t + p3) * t + p2) * t + p1) * t * exp(-z * z);
    // Half of it is the share beyond |x|.
    let beyond = 0.5 * tail;
    x * if x > 0.0 { 1.0 - beyond } else { beyond }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The integral of the normal distribution by Simpson's rule.
    fn share_below(x: f64) -> f64 {
        let steps = 2000;
        let width = x / f64::from(steps);
        let density = |t: f64| (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let inner: f64 =
            (1..steps).map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * density(f64::from(i) * width)).sum();
        0.5 + (density(0.0) + inner + density(x)) * width / 3.0
    }

    #[test]
    fn it_is_the_function_over_its_whole_range() {
        let mut x = -8.0_f32;
        while x < 8.0 {
            let exact = f64::from(x) * share_below(f64::from(x));
            let error = (f64::from(gelu(x)) - exact).abs();
            assert!(error <= 3e-7 * f64::from(x.abs()).max(1.0), "{x}: {} in place of {exact}", gelu(x));
            x += 0.013;
        }
    }

    #[test]
    fn extremes_stay_what_they_are() {
        assert_eq!(
            [0.0, 1e30, f32::INFINITY].map(|x| gelu(x).to_bits()),
            [0.0, 1e30, f32::INFINITY].map(f32::to_bits)
        );
        assert!(gelu(-1e4).abs() < 1e-30);
        assert!(gelu(f32::NAN).is_nan());
    }
}
