//! Functions of numpy and torch. They round as those do, where that shows in the results.
//!
//! Tables are interpolated in f64 and stored in f32, as the reference does. The one exception is the square root in
//! the sigma table: torch takes a Newton step from the processor's `rsqrtps` guess, so its result differs by
//! an ulp between processor makers; ours is correctly rounded.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "indices and counts lie far below 2^24, and rounding f64 to f32 is what some lines are for"
)]

/// `torch.linspace(start, end, n)` in f32: counted from the nearer end, each value one fused operation.
pub fn torch_linspace(start: f64, end: f64, n: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    if n == 1 {
        return vec![start];
    }
    let step = (end - start) / (n - 1) as f32;
    let value = |i: usize| {
        if i < n / 2 { step.mul_add(i as f32, start) } else { (-step).mul_add((n - 1 - i) as f32, end) }
    };
    (0..n).map(value).collect()
}

/// `torch.cumprod` of f32: accumulated in f64, rounded at each step.
pub fn cumprod(values: impl Iterator<Item = f32>) -> Vec<f32> {
    values
        .scan(1.0f64, |product, v| {
            *product *= f64::from(v);
            Some(*product as f32)
        })
        .collect()
}

/// `numpy.linspace(0, last, n)` in f64, rising.
pub fn linspace(last: f64, n: usize) -> Vec<f64> {
    if n == 1 {
        return vec![0.0];
    }
    let step = last / (n - 1) as f64;
    (0..n).map(|i| if i == n - 1 { last } else { i as f64 * step }).collect()
}

/// `numpy.arange(last, 0, -train / n)`, falling, cut to `n` values: for some n the reference's floating-point
/// count gives one more, which would be timestep -1.
pub fn arange_down(last: f64, train: f64, n: usize) -> Vec<f64> {
    let step = -(train / n as f64);
    let delta = (last + step) - last;
    let len = ((0.0 - last) / step).ceil() as usize;
    (0..len.min(n)).map(|i| last + i as f64 * delta).collect()
}

/// `numpy.interp(t, arange(len), table)`.
pub fn interpolate(table: &[f32], t: f64) -> f64 {
    let last = table.len() - 1;
    if t >= last as f64 {
        return f64::from(table[last]);
    }
    let low = t.max(0.0).floor();
    let (a, b) = (f64::from(table[low as usize]), f64::from(table[low as usize + 1]));
    (b - a) * (t.max(0.0) - low) + a
}

/// `numpy.log` of a positive normal f32 (its AVX2 and AVX-512 kernel): a 5/5 rational approximation. Correct
/// rounding would move a fifth of the fractional timesteps by an ulp.
#[expect(clippy::excessive_precision, clippy::unreadable_literal, reason = "written as NumPy writes them")]
pub fn log(x: f32) -> f32 {
    const P: [f32; 6] = [
        2.589979117907922693523e-02,
        3.808837741388407920751e-01,
        1.480000633576506585156e+00,
        2.112677543073053063722e+00,
        9.999999999999998702752e-01,
        0.0,
    ];
    const Q: [f32; 6] = [
        5.875095403124574342950e-03,
        1.546476374983906719538e-01,
        9.864942958519418960339e-01,
        2.453006071784736363091e+00,
        2.612677543073109236779e+00,
        1.0,
    ];
    let bits = x.to_bits();
    let mut e = (bits >> 23) as f32 - 127.0;
    let mut m = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    if m > std::f32::consts::SQRT_2 {
        m *= 0.5;
        e += 1.0;
    }
    m -= 1.0;
    let poly = |c: &[f32; 6]| c[1..].iter().fold(c[0], |y, &c| y.mul_add(m, c));
    e.mul_add(std::f32::consts::LN_2, poly(&P) / poly(&Q))
}
