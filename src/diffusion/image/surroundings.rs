//! Fills the repainted area of a picture with the colours around it.
//!
//! This is A1111's "fill" (`modules/masking.py`): the kept pixels, blurred less and less widely, are laid over each other.
//! Its blur is Pillow's `GaussianBlur`: three box blurs whose length has a fraction (Gwosdek et al. 2011, "Theoretical
//! foundations of Gaussian convolution by extended box filtering").

use super::{Mask, RgbImage};

/// The deviations of the blurs in pixels, and how often each is laid over the others.
const BLURS: [(f32, usize); 6] = [(256.0, 1), (64.0, 1), (16.0, 2), (4.0, 4), (2.0, 2), (0.0, 1)];
/// Box blurs for each Gaussian.
const PASSES: usize = 3;

/// Red, green, blue and opacity, 0 to 255.
type Pixel = [u8; 4];

impl RgbImage {
    /// The picture with its repainted area filled. The mask has its size.
    #[must_use]
    pub fn filled_from_surroundings(&self, mask: &Mask) -> Self {
        // Colours are multiplied by the opacity, which is 0 or 255 here.
        let kept: Vec<Pixel> = self
            .pixels
            .chunks_exact(3)
            .zip(mask.repainted())
            .map(|(rgb, repainted)| if repainted { [0; 4] } else { [rgb[0], rgb[1], rgb[2], 255] })
            .collect();
        let (width, height) = (self.width as usize, self.height as usize);
        let mut filled = vec![[0; 4]; kept.len()];
        for (deviation, repeats) in BLURS {
            let blurred = gaussian(&kept, (width, height), deviation);
            for (below, above) in filled.iter_mut().zip(blurred.into_iter().map(unmultiplied)) {
                for _ in 0..repeats {
                    *below = laid_over(*below, above);
                }
            }
        }
        let pixels = filled.into_iter().flat_map(|[red, green, blue, _]| [red, green, blue]).collect();
        Self { width: self.width, height: self.height, pixels }
    }
}

/// Colours as they are shown, from colours that are multiplied by their opacity.
fn unmultiplied(pixel: Pixel) -> Pixel {
    let opacity = u32::from(pixel[3]);
    if opacity == 0 || opacity == 255 {
        return pixel;
    }
    let shown = |value: u8| low_byte((u32::from(value) * 255 / opacity).min(255));
    [shown(pixel[0]), shown(pixel[1]), shown(pixel[2]), pixel[3]]
}

/// Porter and Duff's "over", with Pillow's rounding (`alpha_composite`: weights of 15 bits).
fn laid_over(below: Pixel, above: Pixel) -> Pixel {
    const BITS: u32 = 7;
    if above[3] == 0 {
        return below;
    }
    let opacity = u32::from(above[3]);
    let opacity_of_both = opacity * 255 + u32::from(below[3]) * (255 - opacity);
    let weight = ((opacity * 255 * 255) << BITS) / opacity_of_both;
    let rest = (255 << BITS) - weight;
    let mixed = |at: usize| {
        let sum = u32::from(above[at]) * weight + u32::from(below[at]) * rest;
        low_byte(divided_by_255(sum + (0x80 << BITS)) >> BITS)
    };
    [mixed(0), mixed(1), mixed(2), low_byte(divided_by_255(opacity_of_both + 0x80))]
}

fn divided_by_255(value: u32) -> u32 {
    ((value >> 8) + value) >> 8
}

fn gaussian(pixels: &[Pixel], (width, height): (usize, usize), deviation: f32) -> Vec<Pixel> {
    if deviation <= 0.0 || pixels.is_empty() {
        return pixels.to_vec();
    }
    let radius = box_radius(deviation);
    let mut across = pixels.to_vec();
    for _ in 0..PASSES {
        across.chunks_exact_mut(width).for_each(|line| box_blur(line, radius));
    }
    let mut turned = transposed(&across, width);
    for _ in 0..PASSES {
        turned.chunks_exact_mut(height).for_each(|line| box_blur(line, radius));
    }
    transposed(&turned, height)
}

/// The radius of the box whose repeated blur has this deviation. Formulas 7, 11, 14 and figure 2 of the paper.
fn box_radius(deviation: f32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "three")]
    let variance = deviation * deviation / PASSES as f32;
    let length = 12.0_f32.mul_add(variance, 1.0).sqrt();
    let whole = ((length - 1.0) / 2.0).floor();
    let fraction = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
    whole + fraction / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)))
}

/// Replaces each pixel by the mean of those within `radius`, of which the outermost count in part. Beyond its ends the
/// line goes on with its last pixels.
/// Weights are of 24 bits.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and below 2^24")]
fn box_blur(line: &mut [Pixel], radius: f32) {
    let whole = radius as usize;
    let weight = (16_777_216.0 / (radius * 2.0 + 1.0)) as u64;
    let edge_weight = ((1 << 24) - (2 * whole as u64 + 1) * weight) / 2;
    let last = line.len().cast_signed() - 1;
    let before = line.to_vec();
    let value = |at: isize, channel: usize| u64::from(before[at.clamp(0, last) as usize][channel]);
    for channel in 0..4 {
        let reach = whole.cast_signed();
        let mut sum: u64 = (-reach..=reach).map(|at| value(at, channel)).sum();
        for (at, pixel) in (0..).zip(line.iter_mut()) {
            let edges = value(at - reach - 1, channel) + value(at + reach + 1, channel);
            pixel[channel] = low_byte(((sum * weight + edges * edge_weight + (1 << 23)) >> 24) as u32);
            sum = sum + value(at + reach + 1, channel) - value(at - reach, channel);
        }
    }
}

fn transposed(pixels: &[Pixel], width: usize) -> Vec<Pixel> {
    let height = pixels.len() / width.max(1);
    (0..width).flat_map(|x| (0..height).map(move |y| (x, y))).map(|(x, y)| pixels[y * width + x]).collect()
}

fn low_byte(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;
    use crate::domain::ImageSize;

    #[test]
    fn the_fill_is_that_of_a1111() {
        for case in golden::inpainting()["surroundings"].as_array().unwrap() {
            let number = |value: &serde_json::Value| u32::try_from(value.as_u64().unwrap()).unwrap();
            let size = ImageSize { width: number(&case["size"][0]), height: number(&case["size"][1]) };
            let boxed: Vec<u32> = case["mask"].as_array().unwrap().iter().map(number).collect();
            let white = |at: u32| {
                let (x, y) = (at % size.width, at / size.width);
                (boxed[0]..boxed[2]).contains(&x) && (boxed[1]..boxed[3]).contains(&y)
            };
            let pixels =
                (0..size.width * size.height).flat_map(|at| [if white(at) { 255 } else { 0 }; 3]).collect();
            let mask =
                Mask::new(&RgbImage { width: size.width, height: size.height, pixels }, size, false).unwrap();
            let filled = golden::picture(size.width, size.height).filled_from_surroundings(&mask);
            let expected = golden::bytes(&case["pixels"]);
            let furthest = filled.pixels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
            assert_eq!(furthest, Some(0), "{size:?}");
        }
    }

    #[test]
    fn a_picture_without_any_kept_pixel_is_black() {
        let picture = golden::picture(9, 5);
        let filled = picture.filled_from_surroundings(&Mask::everything(picture.size()));
        assert!(filled.pixels.iter().all(|&value| value == 0));
    }
}
