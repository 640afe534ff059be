//! Whether pictures are what they should be: the device's against the CPU's, and against themselves.

use super::Failure;
use super::row::{Row, size_name};
use super::subject::{SEED, Subject, first_image};
use crate::diffusion::{RgbImage, encode_png};
use crate::domain::{GenerationInput, ImageSize, ImageSource};

/// Few: differences show after a few, and a CPU takes its time.
const STEPS: u32 = 5;
/// What is good: above it, nobody sees the difference.
const GOOD: &str = "over 30 is good";

/// The same seed on the device and on the CPU.
pub(super) fn with_cpu(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    if subject.runtime.device().is_cpu() {
        return Ok(vec![Row::without("against the CPU", "this is the CPU")]);
    }
    let size = subject.sizes[0];
    let input = subject.input(size, STEPS);
    Ok(vec![compared_with_cpu(subject, "against the CPU", &input, GOOD)?])
}

/// The same with other sizes, a long prompt, and from a picture.
pub(super) fn other_inputs_with_cpu(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    const NAME: &str = "other inputs";
    if subject.runtime.device().is_cpu() {
        return Ok(vec![Row::without(NAME, "this is the CPU")]);
    }
    let size = subject.sizes[0];
    let input = subject.input(size, STEPS);
    let mut cases = vec![
        ("an odd size", GenerationInput { size: ImageSize { width: 104, height: 72 }, ..input.clone() }),
        // Two windows of the text encoder.
        (
            "a prompt of two windows",
            GenerationInput { prompt: "a red fox in deep snow, ".repeat(14), ..input.clone() },
        ),
        ("no guidance", GenerationInput { guidance_scale: 1.0, ..input.clone() }),
    ];
    if subject.pipeline.model().rules().takes_images {
        let image = subject.draw(&input, SEED + 1)?;
        let png = encode_png(&image, &[]).map_err(|error| Failure::Other(error.to_string()))?;
        let source = ImageSource::from_bytes(png).map_err(Failure::Other)?;
        let from_picture = GenerationInput { init_image: Some(source.clone()), ..input.clone() };
        cases.push(("from a picture", from_picture.clone()));
        cases.push(("repainted", GenerationInput { mask: Some(source), ..from_picture }));
    }
    let mut rows = Vec::new();
    for (note, input) in cases {
        let row = compared_with_cpu(subject, NAME, &input, note);
        rows.push(row.unwrap_or_else(|failure| Row::without(NAME, format!("{note} failed: {failure}"))));
    }
    Ok(rows)
}

/// The same seed twice on the device.
pub(super) fn repeated(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    let size = subject.sizes[0];
    let input = subject.input(size, STEPS);
    let first = subject.draw(&input, SEED)?;
    let second = subject.draw(&input, SEED)?;
    Ok(vec![compared("seed again", size, &first, &second, GOOD)])
}

/// The same seed alone and beside three others.
pub(super) fn in_a_batch(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    let size = subject.sizes[0];
    let input = subject.input(size, STEPS);
    let alone = subject.draw(&input, SEED)?;
    let mut batch = subject.batch(size, 8, STEPS)?;
    while batch.iter().any(|generation| !generation.is_done()) {
        let mut all: Vec<_> = batch.iter_mut().collect();
        subject.pipeline.step(&mut all)?;
    }
    let beside = first_image(&mut subject.pipeline, &batch[0])?;
    Ok(vec![compared("seed in a batch", size, &alone, &beside, GOOD).rows(8)])
}

fn compared_with_cpu(
    subject: &mut Subject,
    name: &'static str,
    input: &GenerationInput,
    note: &str,
) -> Result<Row, Failure> {
    let ours = subject.draw(input, SEED)?;
    let cpu = subject.draw_on_cpu(input, SEED)?;
    Ok(compared(name, input.size, &ours, &cpu, note))
}

pub(super) fn compared(name: &'static str, size: ImageSize, a: &RgbImage, b: &RgbImage, note: &str) -> Row {
    match psnr(a, b) {
        Some(decibels) if decibels.is_finite() => Row::new(name, decibels, "dB").size(size).note(note),
        Some(_) => Row::without(name, format!("identical ({note})")).size(size),
        None => {
            Row::without(name, format!("{} and {} differ in size", size_name(a.size()), size_name(b.size())))
        }
    }
}

/// The peak signal-to-noise ratio in decibels; infinite for equal pictures, none for two sizes.
fn psnr(a: &RgbImage, b: &RgbImage) -> Option<f64> {
    if a.size() != b.size() || a.pixels.len() != b.pixels.len() {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "pictures have fewer bytes")]
    let count = a.pixels.len().max(1) as f64;
    let squares = a.pixels.iter().zip(&b.pixels).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
    let mean = squares.sum::<f64>() / count;
    Some(10.0 * (255.0_f64.powi(2) / mean).log10())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_compared_in_decibels() {
        let grey = |value| RgbImage { width: 2, height: 1, pixels: vec![value; 6] };
        assert_eq!(psnr(&grey(7), &grey(7)), Some(f64::INFINITY));
        assert!(psnr(&grey(0), &grey(255)).unwrap().abs() < 1e-9);
        assert!((psnr(&grey(100), &grey(101)).unwrap() - 48.13).abs() < 0.01);
        assert_eq!(psnr(&grey(0), &RgbImage { width: 1, height: 2, pixels: vec![0; 6] }), None);
        let size = ImageSize { width: 2, height: 1 };
        let row = compared("seed again", size, &grey(7), &grey(7), GOOD);
        assert_eq!((row.value, row.note.as_deref()), (None, Some("identical (over 30 is good)")));
    }
}
