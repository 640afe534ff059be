use super::*;
use crate::kernels::tests::{random, spawn};

/// Without threads.
fn run(norm: &GroupNorm<'_>, level: Level, pixels: usize) -> Result<Vec<f32>, &'static str> {
    let mut output = vec![f32::NAN; norm.input.len()];
    let each = |tasks: usize, task: &(dyn Fn(usize) + Sync)| (0..tasks).for_each(task);
    norm.run(level, pixels, &mut output, &Threads { count: 1, run: &each })?;
    Ok(output)
}

/// The definition, in float64.
fn expected(norm: &GroupNorm<'_>, pixels: usize) -> Vec<f64> {
    let of_group = norm.channels / norm.groups;
    let mut results = Vec::new();
    for (index, group) in norm.input.chunks(of_group * pixels).enumerate() {
        let values: Vec<_> = group.iter().map(|value| f64::from(*value)).collect();
        let mean = values.iter().sum::<f64>() / as_float(values.len());
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / as_float(values.len()) + f64::from(norm.epsilon)).sqrt();
        results.extend(values.iter().enumerate().map(|(at, value)| {
            let channel = (index % norm.groups) * of_group + at / pixels;
            let (weight, bias) = (norm.weight[channel], norm.bias[channel]);
            let result = (value - mean) / deviation * f64::from(weight) + f64::from(bias);
            if norm.silu { result / (1.0 + (-result).exp()) } else { result }
        }));
    }
    results
}

#[test]
fn it_is_the_definition_on_all_sizes_and_levels() {
    for (batch, channels, groups, pixels) in
        [(1, 32, 32, 1), (2, 320, 32, 64), (1, 64, 8, 1023), (3, 16, 4, 7), (1, 4, 1, 70_001), (2, 6, 2, 65)]
    {
        let (weight, bias) = (random(channels, 1), random(channels, 2));
        for offset in [0.0, 300.0] {
            let input: Vec<_> =
                random(batch * channels * pixels, 3).iter().map(|value| 4.0 * value + offset).collect();
            for silu in [false, true] {
                let norm = GroupNorm {
                    groups,
                    channels,
                    epsilon: 1e-5,
                    silu,
                    input: &input,
                    weight: &weight,
                    bias: &bias,
                };
                let expected = expected(&norm, pixels);
                let first = run(&norm, Level::Baseline, pixels).unwrap();
                for (at, (value, expected)) in first.iter().zip(&expected).enumerate() {
                    let error = (f64::from(*value) - expected).abs();
                    assert!(error <= 4e-6, "{channels}×{pixels} at {at}: {value} in place of {expected}");
                }
                for level in Level::all() {
                    assert!(run(&norm, level, pixels).unwrap() == first, "{level:?} has the same bits");
                }
            }
        }
    }
}

#[test]
fn an_image_has_the_same_results_in_a_batch_and_with_threads() {
    let input = random(3 * 64 * 50, 5);
    let (weight, bias) = (random(64, 1), random(64, 2));
    let norm = GroupNorm {
        groups: 32,
        channels: 64,
        epsilon: 1e-6,
        silu: true,
        input: &input,
        weight: &weight,
        bias: &bias,
    };
    let all = run(&norm, Level::best(), 50).unwrap();
    let second = GroupNorm { input: &input[64 * 50..2 * 64 * 50], ..norm };
    assert!(run(&second, Level::best(), 50).unwrap() == all[64 * 50..2 * 64 * 50]);

    let mut output = vec![0.0; input.len()];
    norm.run(Level::best(), 50, &mut output, &Threads { count: 5, run: &spawn }).unwrap();
    assert!(output == all);
}

#[test]
fn what_is_no_number_stays_in_its_group() {
    let mut input = random(2 * 8 * 10, 5);
    input[3] = f32::NAN;
    let ones = [1.0; 8];
    let norm = GroupNorm {
        groups: 4,
        channels: 8,
        epsilon: 1e-6,
        silu: true,
        input: &input,
        weight: &ones,
        bias: &ones,
    };
    let results = run(&norm, Level::best(), 10).unwrap();
    assert!(results[..20].iter().all(|value| value.is_nan()));
    assert!(results[20..].iter().all(|value| value.is_finite()));
}

#[test]
fn tensors_of_other_sizes_are_refused() {
    let (input, ones) = ([1.0; 2 * 8 * 10], [1.0; 8]);
    let right = GroupNorm {
        groups: 4,
        channels: 8,
        epsilon: 1e-6,
        silu: true,
        input: &input,
        weight: &ones,
        bias: &ones,
    };
    run(&right, Level::best(), 10).unwrap();
    run(&GroupNorm { input: &[], ..right }, Level::best(), 0).unwrap();
    for (wrong, pixels) in [
        (GroupNorm { groups: 0, ..right }, 10),
        (GroupNorm { groups: 3, ..right }, 10),
        (GroupNorm { channels: 0, groups: 1, weight: &[], bias: &[], ..right }, 10),
        (GroupNorm { weight: &ones[1..], ..right }, 10),
        (GroupNorm { bias: &ones[1..], ..right }, 10),
        (GroupNorm { input: &input[1..], ..right }, 10),
        (right, 11),
        (right, 0),
        (right, usize::MAX),
    ] {
        assert!(run(&wrong, Level::best(), pixels).is_err());
    }
}
