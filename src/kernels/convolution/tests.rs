use super::*;
use crate::kernels::tests::{random, spawn};

/// One convolution with everything that can be added to it.
struct Case {
    images: Images,
    inputs: usize,
    outputs: usize,
    input: Vec<f32>,
    /// [outputs][inputs][9]
    weights: Vec<f32>,
    in_blocks: Vec<f32>,
    bias: Vec<f32>,
    shift: Vec<f32>,
    image: Vec<f32>,
}

impl Case {
    fn new((batch, height, width): (usize, usize, usize), inputs: usize, outputs: usize) -> Self {
        let images = Images { batch, height, width };
        let weights = random(outputs * inputs * 9, 2);
        let mut in_blocks = vec![0.0; weights.len()];
        for (index, weight) in weights.iter().enumerate() {
            let (output, input, place) = (index / 9 / inputs, index / 9 % inputs, index % 9);
            in_blocks[((output / LANES * inputs + input) * 9 + place) * LANES + output % LANES] = *weight;
        }
        Self {
            images,
            inputs,
            outputs,
            input: random(batch * inputs * images.plane(), 1),
            weights,
            in_blocks,
            bias: random(outputs, 3),
            shift: random(batch * outputs, 4),
            image: random(batch * outputs * images.plane(), 5),
        }
    }

    fn convolution(&self) -> Convolution<'_> {
        Convolution {
            images: self.images,
            inputs: self.inputs,
            outputs: self.outputs,
            input: &self.input,
            weights: &self.in_blocks,
            bias: &self.bias,
            shift: Some(&self.shift),
            image: Some(&self.image),
        }
    }

    fn run(&self, level: Level, side: Side, threads: usize) -> Vec<f32> {
        let mut output = vec![f32::NAN; self.image.len()];
        let threads = Threads { count: threads, run: &spawn };
        self.convolution().run(level, side, &mut output, &mut Scratch::default(), &threads).unwrap();
        output
    }

    /// The result at `index`, by the definition and in f64.
    fn expected(&self, index: usize) -> f64 {
        let Images { height, width, .. } = self.images;
        let (plane, pixel) = (index / self.images.plane(), index % self.images.plane());
        let (image, output) = (plane / self.outputs, plane % self.outputs);
        let (y, x) = (pixel / width, pixel % width);
        let mut sum =
            f64::from(self.bias[output]) + f64::from(self.shift[plane]) + f64::from(self.image[index]);
        for input in 0..self.inputs {
            for (dy, dx) in (0..9).map(|place| (place / 3, place % 3)) {
                let (Some(row), Some(column)) = ((y + dy).checked_sub(1), (x + dx).checked_sub(1)) else {
                    continue;
                };
                if row < height && column < width {
                    let pixels = &self.input[(image * self.inputs + input) * self.images.plane()..];
                    let weight = self.weights[(output * self.inputs + input) * 9 + dy * 3 + dx];
                    sum += f64::from(pixels[row * width + column]) * f64::from(weight);
                }
            }
        }
        sum
    }

    /// The largest difference at about `samples` places, relative to the largest value there.
    fn error(&self, results: &[f32], samples: usize) -> f64 {
        let (mut worst, mut largest) = (0_f64, 0_f64);
        // Odd, so that all columns and rows come up.
        for index in (0..results.len()).step_by((results.len() / samples) | 1) {
            let expected = self.expected(index);
            let difference = (expected - f64::from(results[index])).abs();
            assert!(difference.is_finite(), "{index}");
            (worst, largest) = (worst.max(difference), largest.max(expected.abs()));
        }
        worst / largest
    }
}

/// Of the largest value.
const TOLERANCE: f64 = 5e-6;

#[test]
fn every_size_gives_the_direct_sums_at_every_level() {
    for (size, inputs, outputs) in [
        ((1, 1, 1), 16, 16),
        ((3, 2, 5), 16, 48),
        ((2, 7, 4), 48, 16),
        ((1, 8, 8), 160, 32),
        ((2, 9, 13), 32, 48),
        ((1, 12, 16), 272, 16),
        ((5, 3, 31), 16, 32),
        ((1, 33, 26), 16, 16),
        ((16, 8, 8), 16, 16),
    ] {
        let case = Case::new(size, inputs, outputs);
        for level in Level::all() {
            for side in [Side::Two, Side::Four] {
                let error = case.error(&case.run(level, side, 1), usize::MAX);
                assert!(error < TOLERANCE, "{level:?} {side:?} {size:?} {inputs} to {outputs}: {error:.1e}");
            }
        }
    }
}

#[test]
fn neither_the_batch_nor_the_threads_change_a_bit() {
    let case = Case::new((3, 19, 22), 48, 80);
    let alone = Case::new((1, 19, 22), 48, 80);
    for level in Level::all() {
        for side in [Side::Two, Side::Four] {
            let one = case.run(level, side, 1);
            for threads in [2, 7, 40] {
                assert!(one == case.run(level, side, threads), "{level:?} {side:?} {threads}");
            }
            // Its numbers are the first of the batch's.
            assert!(one[..alone.image.len()] == alone.run(level, side, 1), "{level:?} {side:?}");
        }
    }
}

#[test]
fn tensors_of_other_sizes_are_refused() {
    let case = Case::new((1, 4, 4), 16, 16);
    let run = |tasks: usize, task: &(dyn Fn(usize) + Sync)| (0..tasks).for_each(task);
    let threads = Threads { count: 1, run: &run };
    let refused = |convolution: Convolution<'_>, length: usize| {
        let mut output = vec![0.0; length];
        convolution
            .run(Level::Baseline, Side::Two, &mut output, &mut Scratch::default(), &threads)
            .unwrap_err()
    };
    let whole = || case.convolution();
    assert!(refused(Convolution { inputs: 8, ..whole() }, 256).contains("multiples of 16"));
    assert!(refused(Convolution { input: &case.input[1..], ..whole() }, 256).contains("input"));
    assert!(refused(Convolution { weights: &[], ..whole() }, 256).contains("weights"));
    assert!(refused(Convolution { bias: &case.bias[1..], ..whole() }, 256).contains("bias"));
    assert!(refused(Convolution { shift: Some(&[0.0]), ..whole() }, 256).contains("shift"));
    assert!(refused(Convolution { image: Some(&[0.0]), ..whole() }, 256).contains("image to add"));
    assert!(refused(whole(), 255).contains("output"));
    let huge = Images { batch: usize::MAX, height: 2, width: 2 };
    assert!(refused(Convolution { images: huge, ..whole() }, 256).contains("input"));
}

#[test]
fn no_pixels_are_no_work() {
    let case = Case::new((0, 4, 4), 16, 16);
    assert!(case.run(Level::best(), Side::Four, 3).is_empty());
}

#[test]
fn wide_inputs_are_summed_up_in_slabs() {
    // 64 tiles of 4 × 4, and more than 64 times 16 channels.
    let case = Case::new((1, 30, 29), 1040, 32);
    for level in Level::all() {
        for side in [Side::Two, Side::Four] {
            let one = case.run(level, side, 1);
            let error = case.error(&one, 400);
            assert!(error < TOLERANCE, "{level:?} {side:?}: {error:.1e}");
            assert!(one == case.run(level, side, 3), "{level:?} {side:?}");
        }
    }
}

#[test]
fn latents_of_every_size_and_batch_are_right_with_every_number_of_threads() {
    for (size, threads) in [
        ((1, 8, 8), 64),
        ((16, 8, 8), 3),
        ((7, 8, 9), 1),
        ((2, 11, 8), 16),
        ((3, 17, 31), 2),
        ((1, 64, 64), 5),
        ((2, 48, 64), 33),
        ((1, 96, 128), 2),
    ] {
        let case = Case::new(size, 16, 16);
        let side = Side::fastest(case.images);
        let error = case.error(&case.run(Level::best(), side, threads), 2000);
        assert!(error < TOLERANCE, "{side:?} {size:?} with {threads} threads: {error:.1e}");
    }
}

/// Input and output channels of all convolutions of Stable Diffusion v1: the UNet, and the VAE.
const CHANNELS: [(usize, usize); 19] = [
    (320, 320),
    (320, 640),
    (640, 320),
    (640, 640),
    (640, 1280),
    (960, 320),
    (960, 640),
    (1280, 640),
    (1280, 1280),
    (1920, 640),
    (1920, 1280),
    (2560, 1280),
    (128, 128),
    (128, 256),
    (256, 128),
    (256, 256),
    (256, 512),
    (512, 256),
    (512, 512),
];

/// At a small size: the error grows with the channels, not with the image.
#[test]
#[ignore = "slow without optimisation"]
fn the_channels_of_stable_diffusion_stay_exact() {
    for (inputs, outputs) in CHANNELS {
        let case = Case::new((1, 9, 13), inputs, outputs);
        for level in Level::all() {
            for side in [Side::Two, Side::Four] {
                let error = case.error(&case.run(level, side, 2), 400);
                println!("{inputs} to {outputs} {level:?} {side:?}: {error:.1e}");
                assert!(error < TOLERANCE, "{level:?} {side:?} {inputs} to {outputs}: {error:.1e}");
            }
        }
    }
}
