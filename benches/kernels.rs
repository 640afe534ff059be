//! The 3×3 convolutions of Stable Diffusion v1 at 512 × 512: our operator against ONNX Runtime's convolution in blocks of
//! channels, in turns: `cargo bench --bench kernels [-- UNet | VAE]`.
//!
//! GFLOP/s count the products of a direct convolution, so that both have the same number. F(4, 3) needs a quarter of them:
//! four times the processor's peak is the bound. The error is the largest of some hundred results against float64,
//! relative to the largest of them.

use std::time::{Duration, Instant};

use ndarray::Array4;
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::Tensor;
use stablehand::kernels::{Level, operators_at};
use stablehand::runtime::{DeviceChoice, Runtime};

const TRIALS: usize = 5;
const LANES: usize = 16;

/// Network; batch, side of the image, input channels, output channels; how many a step or a decode has.
const SHAPES: [(&str, [usize; 4], usize); 25] = [
    ("UNet", [2, 64, 320, 320], 7),
    ("UNet", [2, 64, 640, 320], 2),
    ("UNet", [2, 64, 960, 320], 1),
    ("UNet", [2, 64, 640, 640], 1),
    ("UNet", [2, 32, 320, 640], 1),
    ("UNet", [2, 32, 640, 640], 6),
    ("UNet", [2, 32, 960, 640], 1),
    ("UNet", [2, 32, 1280, 640], 1),
    ("UNet", [2, 32, 1920, 640], 1),
    ("UNet", [2, 32, 1280, 1280], 1),
    ("UNet", [2, 16, 640, 1280], 1),
    ("UNet", [2, 16, 1280, 1280], 7),
    ("UNet", [2, 16, 1920, 1280], 1),
    ("UNet", [2, 16, 2560, 1280], 2),
    ("UNet", [2, 8, 1280, 1280], 11),
    ("UNet", [2, 8, 2560, 1280], 3),
    ("VAE", [1, 64, 512, 512], 10),
    ("VAE", [1, 128, 512, 512], 7),
    ("VAE", [1, 256, 512, 512], 1),
    ("VAE", [1, 256, 512, 256], 1),
    ("VAE", [1, 256, 256, 256], 5),
    ("VAE", [1, 512, 256, 256], 1),
    ("VAE", [1, 512, 256, 128], 1),
    ("VAE", [1, 512, 128, 128], 5),
    // a hires pass of 768 × 1024, by its smaller side
    ("UNet", [2, 96, 320, 320], 0),
];

fn main() -> ort::Result<()> {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let runtime = Runtime::load(DeviceChoice::Cpu).expect("ONNX Runtime loads");
    let environment = runtime.environment();
    let threads = runtime.threads();
    println!("{threads} threads; milliseconds (GFLOP/s, error)\n");
    print!("{:>28} {:>16}", "b×side² in → out, how many", "in blocks");
    // Without vectors it is no choice.
    let levels: Vec<Level> = Level::all().into_iter().filter(|level| *level != Level::Baseline).collect();
    for level in &levels {
        print!(" {:>26}", format!("{level:?}"));
    }
    println!("   ratio");
    let mut totals = vec![0.0; levels.len() + 1];
    for (network, shape, count) in SHAPES {
        if wanted.as_ref().is_some_and(|wanted| !network.eq_ignore_ascii_case(wanted)) {
            continue;
        }
        let times = one(environment, network, shape, count, threads, &levels)?;
        for (total, time) in totals.iter_mut().zip(times) {
            #[expect(clippy::cast_precision_loss, reason = "a few")]
            let count = count as f64;
            *total += time * count;
        }
    }
    println!(
        "\nall of them: {} ms",
        totals.iter().map(|total| format!("{total:.0}")).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

/// Times one convolution in blocks and at each level. Milliseconds.
fn one(
    environment: &Environment,
    network: &str,
    shape: [usize; 4],
    count: usize,
    threads: usize,
    levels: &[Level],
) -> ort::Result<Vec<f64>> {
    let [batch, side, inputs, outputs] = shape;
    let x = Array4::from_shape_vec((batch, inputs, side, side), random(batch * inputs * side * side, 1))
        .expect("as many as there are");
    let weights = random(outputs * inputs * 9, 2);
    let mut sessions = vec![session(environment, shape, &weights, threads, None)?];
    for level in levels {
        sessions.push(session(environment, shape, &weights, threads, Some(*level))?);
    }
    let mut shortest = vec![Duration::MAX; sessions.len()];
    let mut errors = vec![0.0; sessions.len()];
    for trial in 0..=TRIALS {
        for (index, session) in sessions.iter_mut().enumerate() {
            let x_value = Tensor::from_array(x.clone())?;
            let started = Instant::now();
            let results = session.run(ort::inputs!["x" => x_value])?;
            let time = started.elapsed();
            if trial == 0 {
                errors[index] = error(shape, &x, &weights, results[0].try_extract_tensor::<f32>()?.1);
            } else {
                shortest[index] = shortest[index].min(time);
            }
        }
    }
    let times: Vec<f64> = shortest.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    #[expect(clippy::cast_precision_loss, reason = "to show")]
    let operations = 2.0 * (batch * side * side * inputs * outputs * 9) as f64;
    print!("{:>28}", format!("{network} {batch}×{side}² {inputs} → {outputs}, {count}"));
    for (index, time) in times.iter().enumerate() {
        let rate = format!("{time:8.2} ({:4.0}", operations / time / 1e6);
        if index == 0 { print!(" {rate:>15})") } else { print!(" {rate:>15}, {:.1e})", errors[index]) }
    }
    println!("   {:.2}", times[0] / times[times.len() - 1]);
    Ok(times)
}

/// A session of one convolution: our operator at a level, or ONNX Runtime's own, which it works on in blocks.
fn session(
    environment: &Environment,
    [batch, side, inputs, outputs]: [usize; 4],
    weights: &[f32],
    threads: usize,
    level: Option<Level>,
) -> ort::Result<Session> {
    let mut values = weights.to_vec();
    if level.is_some() {
        for (index, value) in weights.iter().enumerate() {
            let (output, input, place) = (index / 9 / inputs, index / 9 % inputs, index % 9);
            values[((output / LANES * inputs + input) * 9 + place) * LANES + output % LANES] = *value;
        }
    }
    let (name, domain) = if level.is_some() { ("Conv3x3", "stablehand") } else { ("Conv", "") };
    let pads = [text(1, "pads"), (0..4).flat_map(|_| number(8, 1)).collect(), number(20, 7)].concat();
    let node =
        [text(1, "x"), text(1, "w"), text(1, "b"), text(2, "y"), text(4, name), text(7, domain)].concat();
    let node = if level.is_some() { node } else { [node, bytes(5, &pads)].concat() };
    let graph = [
        bytes(1, &node),
        text(2, "convolution"),
        bytes(5, &tensor("w", &[outputs, inputs, 3, 3], &values)),
        bytes(5, &tensor("b", &[outputs], &vec![0.0; outputs])),
        bytes(11, &image("x", [batch, inputs, side, side])),
        bytes(12, &image("y", [batch, outputs, side, side])),
    ]
    .concat();
    let onnx = number(2, 21);
    let ours = [text(1, "stablehand"), number(2, 1)].concat();
    let model = [number(1, 9), bytes(7, &graph), bytes(8, &onnx), bytes(8, &ours)].concat();
    let builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        .with_intra_op_spinning(false)?;
    let mut builder = match level {
        Some(level) => builder.with_operators(operators_at(threads, level)?)?,
        None => builder,
    };
    builder.commit_from_memory(&model)
}

// Fields of ONNX's protobuf.

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(u8::try_from(value & 127).unwrap_or_default() | 128);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or_default());
    bytes
}

fn number(field: usize, value: usize) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: usize, value: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2), &varint(value.len()), value].concat()
}

fn text(field: usize, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}

fn tensor(name: &str, sizes: &[usize], values: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let sizes: Vec<u8> = sizes.iter().flat_map(|size| number(1, *size)).collect();
    [sizes, number(2, 1), text(8, name), bytes(9, &raw)].concat()
}

fn image(name: &str, sizes: [usize; 4]) -> Vec<u8> {
    let shape: Vec<u8> = sizes.iter().flat_map(|size| bytes(1, &number(1, *size))).collect();
    let tensor = [number(1, 1), bytes(2, &shape)].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

/// The largest difference of some results to the sums in float64, relative to the largest.
fn error([_, side, inputs, outputs]: [usize; 4], x: &Array4<f32>, weights: &[f32], results: &[f32]) -> f64 {
    let (mut worst, mut largest) = (0_f64, 0_f64);
    for index in (0..results.len()).step_by((results.len() / 400) | 1) {
        let (image, output) = (index / (side * side) / outputs, index / (side * side) % outputs);
        let (row, column) = (index / side % side, index % side);
        let mut sum = 0.0;
        for input in 0..inputs {
            for (dy, dx) in (0..9).map(|place| (place / 3, place % 3)) {
                let (Some(y), Some(x_)) = ((row + dy).checked_sub(1), (column + dx).checked_sub(1)) else {
                    continue;
                };
                let value = x.get((image, input, y, x_)).copied().unwrap_or_default();
                sum += f64::from(value) * f64::from(weights[(output * inputs + input) * 9 + dy * 3 + dx]);
            }
        }
        worst = worst.max((sum - f64::from(results[index])).abs());
        largest = largest.max(sum.abs());
    }
    worst / largest
}

/// Numbers from −1 to 1 with a triangular distribution.
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f32::from(u16::try_from(state >> 48).unwrap_or_default()) / 65536.0
    };
    (0..count).map(|_| next() - next()).collect()
}
