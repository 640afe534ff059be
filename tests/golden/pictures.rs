//! The start pictures of `pipelines.py`, computed again, and the distance between latents.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use ndarray::Array4;
use stablehand::domain::ImageSource;

fn png(image: RgbImage) -> ImageSource {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, ImageFormat::Png).unwrap();
    ImageSource::from_bytes(bytes.into_inner()).unwrap()
}

/// The script's `start_picture`: a disc on a slope.
pub fn start_picture(width: u32, height: u32) -> ImageSource {
    let shade = |at: u32, of: u32| u8::try_from(at * 255 / of).unwrap();
    let radius = i64::from(width.min(height) * 2 / 3);
    png(RgbImage::from_fn(width, height, |x, y| {
        let from_middle = |at: u32, of: u32| 2 * i64::from(at) - i64::from(of);
        let distance = from_middle(x, width).pow(2) + from_middle(y, height).pow(2);
        if distance < radius * radius {
            Rgb([230, 40, 40])
        } else {
            Rgb([shade(x, width), shade(y, height), 200])
        }
    }))
}

/// The script's `start_mask`: white in the right part. Its edge lies within a latent.
pub fn start_mask(width: u32, height: u32) -> ImageSource {
    let edge = width * 2 / 5 + 3;
    png(RgbImage::from_fn(width, height, |x, _| if x >= edge { Rgb([255; 3]) } else { Rgb([0; 3]) }))
}

/// ‖ours − theirs‖ / ‖theirs‖.
pub fn distance(ours: &Array4<f32>, theirs: &Array4<f32>) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut ours.iter().zip(theirs).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    // A single step of IPNDM ends in zeros.
    difference / norm(&mut theirs.iter().map(|&b| f64::from(b))).max(1e-3)
}
