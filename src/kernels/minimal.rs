//! Winograd's minimal algorithms F(m, 3) in one dimension (Lavin and Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2015). Nested, they make m × m results of a 3×3 convolution from (m + 2)² products in place of 9 m².

#![expect(clippy::inline_always, reason = "all of it must be compiled for one level")]

use super::vector::Vector;

/// F(M, 3), with N = M + 2: `output(input(d) · weights(g))` is the correlation of `d` with `g`.
pub trait Minimal<const N: usize, const M: usize> {
    /// Bᵀ d
    fn input<V: Vector>(d: &[V; N]) -> [V; N];
    /// G g
    fn weights<V: Vector>(g: &[V; 3]) -> [V; N];
    /// Aᵀ m
    fn output<V: Vector>(m: &[V; N]) -> [V; M];
}

/// F(2, 3): interpolates at 0, 1, −1 and ∞.
pub struct F2;
/// F(4, 3): interpolates at 0, ±√½, ±√2 and ∞.
pub struct F4;

impl Minimal<4, 2> for F2 {
    #[inline(always)]
    fn input<V: Vector>(d: &[V; 4]) -> [V; 4] {
        [d[0].subtract(d[2]), d[1].add(d[2]), d[2].subtract(d[1]), d[1].subtract(d[3])]
    }

    #[inline(always)]
    fn weights<V: Vector>(g: &[V; 3]) -> [V; 4] {
        let ends = g[0].add(g[2]).times(0.5);
        [g[0], g[1].times_plus(0.5, ends), g[1].times_plus(-0.5, ends), g[2]]
    }

    #[inline(always)]
    fn output<V: Vector>(m: &[V; 4]) -> [V; 2] {
        [m[0].add(m[1].add(m[2])), m[1].subtract(m[2]).subtract(m[3])]
    }
}

/// The points of F(4, 3): ±A and ±B, with AB = 1. With these it is four times as exact as with 1 and 2.
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

impl Minimal<6, 4> for F4 {
    #[inline(always)]
    fn input<V: Vector>(d: &[V; 6]) -> [V; 6] {
        // x⁴ − B² x² and x³ − B² x, whose sums and differences vanish at the other points.
        let near = d[2].times_plus(-2.0, d[4]);
        let near_odd = d[1].times_plus(-2.0, d[3]);
        let far = d[2].times_plus(-0.5, d[4]);
        let far_odd = d[1].times_plus(-0.5, d[3]);
        [
            d[0].add(d[2].times_plus(-2.5, d[4])),
            near_odd.times_plus(A, near),
            near_odd.times_plus(-A, near),
            far_odd.times_plus(B, far),
            far_odd.times_plus(-B, far),
            d[1].add(d[3].times_plus(-2.5, d[5])),
        ]
    }

    #[inline(always)]
    fn weights<V: Vector>(g: &[V; 3]) -> [V; 6] {
        // (g₀ + p g₁ + p² g₂) over the product of the distances from p to the other points
        let near = g[2].times_plus(-1.0 / 3.0, g[0].times(-2.0 / 3.0));
        let far = g[2].times_plus(1.0 / 3.0, g[0].times(1.0 / 6.0));
        [
            g[0],
            g[1].times_plus(-2.0 / 3.0 * A, near),
            g[1].times_plus(2.0 / 3.0 * A, near),
            g[1].times_plus(B / 6.0, far),
            g[1].times_plus(-B / 6.0, far),
            g[2],
        ]
    }

    #[inline(always)]
    fn output<V: Vector>(m: &[V; 6]) -> [V; 4] {
        let (near, far) = (m[1].add(m[2]), m[3].add(m[4]));
        let (near_odd, far_odd) = (m[1].subtract(m[2]), m[3].subtract(m[4]));
        [
            m[0].add(near.add(far)),
            far_odd.times_plus(B, near_odd.times(A)),
            far.times_plus(2.0, near.times(0.5)),
            m[5].add(far_odd.times_plus(2.0 * B, near_odd.times(0.5 * A))),
        ]
    }
}
