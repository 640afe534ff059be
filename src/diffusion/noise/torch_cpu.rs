//! The random numbers of `torch.randn` on the CPU, bit for bit.
//!
//! It follows PyTorch's own code (`ATen/native/cpu/DistributionTemplates.h`, `avx_mathfun.h`,
//! `core/MT19937RNGEngine.h`), even where its compiler fuses a multiplication with an addition.
//! `tests/golden/noise_golden.py` has the measurements. The numbers are those of the AVX2 kernels, which torch
//! also uses on AVX-512 machines.

use crate::diffusion::bytes::{ByteReader, ByteWriter};

/// `torch.Generator("cpu").manual_seed(seed)`.
#[derive(Debug, Clone)]
pub struct TorchGenerator {
    engine: Mt19937,
    /// The second normal of a scalar pair, kept for the next scalar draw.
    cached: Option<f64>,
}

impl TorchGenerator {
    /// Only the low 32 bits of the seed matter, as in torch.
    pub fn new(seed: u64) -> Self {
        Self { engine: Mt19937::new(seed), cached: None }
    }

    /// Writes how far it is.
    pub fn save(&self, out: &mut ByteWriter) {
        self.engine.state.iter().for_each(|word| out.u32(*word));
        out.count(self.engine.next);
        out.u8(self.cached.is_some().into());
        out.u64(self.cached.unwrap_or_default().to_bits());
    }

    /// A generator that is as far as the saved one was.
    pub fn read(saved: &mut ByteReader) -> Option<Self> {
        let mut state = Box::new([0; STATE]);
        for word in state.iter_mut() {
            *word = saved.u32()?;
        }
        let next = saved.count().filter(|next| *next <= STATE)?;
        let is_cached = saved.u8()? == 1;
        let cached = f64::from_bits(saved.u64()?);
        Some(Self { engine: Mt19937 { state, next }, cached: is_cached.then_some(cached) })
    }

    /// `torch.randn(n, generator=self)`: `n` standard normals as f32.
    #[cfg(test)]
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        self.fill(&mut out);
        out
    }

    /// Fills `out` as one call of `torch.randn` does. Two short calls differ from one long call.
    pub fn fill(&mut self, out: &mut [f32]) {
        if out.len() < BLOCK {
            for value in out {
                #[expect(clippy::cast_possible_truncation, reason = "torch computes in f64 and rounds once")]
                {
                    *value = self.scalar_normal() as f32;
                }
            }
            return;
        }
        for value in out.iter_mut() {
            *value = self.engine.uniform24();
        }
        for block in out.chunks_exact_mut(BLOCK) {
            normal_block(block);
        }
        if !out.len().is_multiple_of(BLOCK) {
            // torch draws the last sixteen again, rather than a shorter block.
            let start = out.len() - BLOCK;
            let tail = &mut out[start..];
            for value in tail.iter_mut() {
                *value = self.engine.uniform24();
            }
            normal_block(tail);
        }
    }

    /// `at::normal_distribution<double>`: Box-Muller in f64, the sine kept for the next call.
    fn scalar_normal(&mut self) -> f64 {
        if let Some(value) = self.cached.take() {
            return value;
        }
        let u1 = self.engine.uniform53();
        let u2 = self.engine.uniform53();
        let radius = (-2.0 * (-u2).ln_1p()).sqrt();
        let theta = 2.0 * std::f64::consts::PI * u1;
        self.cached = Some(radius * theta.sin());
        radius * theta.cos()
    }
}

const BLOCK: usize = 16;

/// Sixteen uniforms to sixteen normals: the radius from `[j]`, the angle from `[j + 8]`.
fn normal_block(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * log_avx(1.0 - *a)).sqrt();
        let (sin, cos) = sincos_avx(std::f32::consts::TAU * *b);
        *a = radius * cos;
        *b = radius * sin;
    }
}

/// Cephes `logf` as `avx_mathfun.h` has it, with the fused operations of torch's wheels.
#[expect(
    clippy::excessive_precision,
    clippy::approx_constant,
    clippy::unreadable_literal,
    clippy::many_single_char_names,
    reason = "constants and names are written as in the header"
)]
fn log_avx(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 8] = [
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    ];
    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_wrap,
        reason = "the exponent of a normal f32 is exact in both"
    )]
    let mut e = ((bits >> 23) as i32 - 0x7f) as f32 + 1.0;
    let mut m = f32::from_bits((bits & 0x807f_ffff) | 0.5f32.to_bits());
    if m < 0.707106781186547524 {
        e -= 1.0;
        m = (m - 1.0) + m;
    } else {
        m -= 1.0;
    }
    let z = m * m;
    let mut y = COEFFICIENTS.iter().fold(7.0376836292e-2f32, |y, &c| y.mul_add(m, c));
    y *= m;
    y = y.mul_add(z, e * -2.12194440e-4);
    y = (-z).mul_add(0.5, y);
    e.mul_add(0.693359375, m + y)
}

/// Cephes `sincosf` for `x >= 0`, as `avx_mathfun.h` has it: `(sin, cos)`.
#[expect(
    clippy::excessive_precision,
    clippy::unreadable_literal,
    clippy::many_single_char_names,
    reason = "constants and names are written as in the header"
)]
fn sincos_avx(x: f32) -> (f32, f32) {
    #[expect(clippy::cast_possible_truncation, reason = "x lies in [0, 2π), so the octant is a small number")]
    let octant = ((x * 1.27323954473516) as i32 + 1) & !1;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let y = octant as f32;
    let mut r = y.mul_add(-0.78515625, x);
    r = y.mul_add(-2.4187564849853515625e-4, r);
    r = y.mul_add(-3.77489497744594108e-8, r);
    let z = r * r;
    let mut c = 2.443315711809948e-5f32.mul_add(z, -1.388731625493765e-3);
    c = c.mul_add(z, 4.166664568298827e-2);
    c *= z;
    c = c.mul_add(z, -(z * 0.5)) + 1.0;
    let mut s = (-1.9515295891e-4f32).mul_add(z, 8.3321608736e-3);
    s = s.mul_add(z, -1.6666654611e-1);
    s *= z;
    s = s.mul_add(r, r);
    let (sin, cos) = if octant & 2 == 0 { (s, c) } else { (c, s) };
    (if octant & 4 == 0 { sin } else { -sin }, if !(octant - 2) & 4 == 0 { cos } else { -cos })
}

const STATE: usize = 624;

/// Matsumoto and Nishimura's Mersenne Twister, seeded as `init_genrand` does.
#[derive(Debug, Clone)]
struct Mt19937 {
    state: Box<[u32; STATE]>,
    next: usize,
}

impl Mt19937 {
    fn new(seed: u64) -> Self {
        let mut state = Box::new([0u32; STATE]);
        #[expect(clippy::cast_possible_truncation, reason = "torch uses the low 32 bits only")]
        let mut x = seed as u32;
        state[0] = x;
        for (j, slot) in (1u32..).zip(state[1..].iter_mut()) {
            x = 1_812_433_253u32.wrapping_mul(x ^ (x >> 30)).wrapping_add(j);
            *slot = x;
        }
        Self { state, next: STATE }
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE] & 0x7fff_ffff);
            let odd = if y & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[i] = self.state[(i + 397) % STATE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// 24 random bits in [0, 1).
    #[expect(clippy::cast_precision_loss, reason = "24 bits are exact in f32")]
    fn uniform24(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    /// 53 random bits in [0, 1). The first draw is the high word.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are exact in f64")]
    fn uniform53(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let low = u64::from(self.next_u32());
        (((high << 32) | low) & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use sha2::{Digest, Sha256};

    const GOLDEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/noise_golden.json"));

    fn bits(values: &[f32]) -> Vec<u64> {
        values.iter().map(|v| u64::from(v.to_bits())).collect()
    }

    fn sha256(values: &[f32]) -> String {
        let mut hash = Sha256::new();
        for v in values {
            hash.update(v.to_bits().to_le_bytes());
        }
        hash.finalize().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }

    #[test]
    fn every_draw_has_the_bits_of_torch() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        for run in golden["runs"].as_array().unwrap() {
            let mut generator = TorchGenerator::new(run["seed"].as_u64().unwrap());
            for draw in run["draws"].as_array().unwrap() {
                let n = usize::try_from(draw["n"].as_u64().unwrap()).unwrap();
                let values = generator.randn(n);
                let list = |key: &str| -> Vec<u64> {
                    draw[key].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
                };
                let name = format!("seed {} n {n}", run["seed"]);
                assert_eq!(bits(&values[..n.min(4)]), list("first"), "{name}");
                assert_eq!(bits(&values[n - n.min(4)..]), list("last"), "{name}");
                assert_eq!(sha256(&values), draw["sha256"].as_str().unwrap(), "{name}");
            }
        }
    }

    #[test]
    fn an_empty_draw_is_empty() {
        assert!(TorchGenerator::new(1).randn(0).is_empty());
    }
}
