//! The kept part of a picture, laid over the drawn one.
//!
//! The VAE changes the kept part a little, and a model that draws small makes it coarse. The overlay restores the
//! original pixels and fades into the repainted part, as A1111's `mask_blur` does (`processing.py`: the mask
//! under a Gaussian of that many pixels).

use super::{ImageError, Mask, RgbImage};

/// A picture and how much of each of its pixels is repainted.
pub struct Overlay {
    original: RgbImage,
    /// From 0 (kept) to 1, row by row from the top.
    repainted: Vec<f32>,
}

impl Overlay {
    /// `mask` has the size of `original`. A Gaussian with a deviation of `blur` pixels blurs its edge.
    pub fn new(original: RgbImage, mask: &Mask, blur: u32) -> Self {
        let width = original.width as usize;
        let repainted: Vec<f32> = mask.repainted().map(|repainted| f32::from(u8::from(repainted))).collect();
        let kernel = gaussian(blur);
        let across = blurred(&repainted, width, 1, &kernel);
        let repainted = blurred(&across, across.len() / width.max(1), width, &kernel);
        Self { original, repainted }
    }

    /// Lays it over a picture of the same size.
    pub fn lay_over(&self, picture: &mut RgbImage) -> Result<(), ImageError> {
        if picture.size() != self.original.size() || picture.pixels.len() != self.original.pixels.len() {
            return Err(ImageError::Resize("the picture that was drawn has another size".to_owned()));
        }
        let kept = self.original.pixels.chunks_exact(3);
        for ((pixel, kept), &share) in picture.pixels.chunks_exact_mut(3).zip(kept).zip(&self.repainted) {
            for (value, &original) in pixel.iter_mut().zip(kept) {
                let mixed = f32::from(original) + share * (f32::from(*value) - f32::from(original));
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between two bytes"
                )]
                {
                    *value = mixed.round() as u8;
                }
            }
        }
        Ok(())
    }
}

/// Weights from the middle outwards, over two and a half deviations. With their mirror image they sum to 1.
#[expect(clippy::cast_precision_loss, reason = "a few pixels")]
fn gaussian(deviation: u32) -> Vec<f32> {
    let reach = (5 * deviation).div_ceil(2);
    let spread = 2.0 * (deviation.max(1) as f32).powi(2);
    let weights: Vec<f32> = (0..=reach).map(|at| (-((at * at) as f32) / spread).exp()).collect();
    let sum = 2.0 * weights.iter().sum::<f32>() - weights[0];
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Blurs along lines of `length` values that lie `stride` apart. The values at the ends of a line are repeated beyond it.
fn blurred(values: &[f32], length: usize, stride: usize, kernel: &[f32]) -> Vec<f32> {
    let mut out = values.to_vec();
    for (index, out) in out.iter_mut().enumerate() {
        let at = index / stride % length;
        let start = index - at * stride;
        let value = |at: usize| values[start + at.min(length - 1) * stride];
        let both = |step: usize| value(at + step) + value(at.saturating_sub(step));
        let around: f32 = kernel.iter().enumerate().skip(1).map(|(step, weight)| weight * both(step)).sum();
        *out = kernel[0] * value(at) + around;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ImageSize;

    const SIZE: ImageSize = ImageSize { width: 40, height: 3 };

    fn plain(value: u8) -> RgbImage {
        RgbImage {
            width: SIZE.width,
            height: SIZE.height,
            pixels: vec![value; (SIZE.width * SIZE.height * 3) as usize],
        }
    }

    /// The red values of one row, after 200 was drawn over 100 in the right half.
    fn row(blur: u32) -> Vec<u8> {
        let mut white_right = plain(0);
        for (at, value) in white_right.pixels.iter_mut().enumerate() {
            *value = if at / 3 % 40 < 20 { 0 } else { 255 };
        }
        let mask = Mask::new(&white_right, SIZE, false).unwrap();
        let mut drawn = plain(200);
        Overlay::new(plain(100), &mask, blur).lay_over(&mut drawn).unwrap();
        drawn.pixels[40 * 3..80 * 3].iter().step_by(3).copied().collect()
    }

    #[test]
    fn without_blur_kept_pixels_are_exactly_the_original() {
        let expected: Vec<u8> = (0..40).map(|x| if x < 20 { 100 } else { 200 }).collect();
        assert_eq!(row(0), expected);
    }

    #[test]
    fn with_blur_the_edge_fades() {
        let row = row(4);
        assert_eq!((row[0], row[39]), (100, 200));
        assert!(row.is_sorted() && row[15..25].windows(2).all(|pair| pair[0] < pair[1]), "{row:?}");
        assert_eq!(u32::from(row[19]) + u32::from(row[20]), 300, "as much on either side");
    }

    #[test]
    fn another_size_is_an_error() {
        let overlay = Overlay::new(plain(1), &Mask::everything(SIZE), 2);
        let mut other = RgbImage { width: 1, height: 1, pixels: vec![0; 3] };
        assert!(overlay.lay_over(&mut other).is_err());
    }
}
