//! The kept part of a picture, laid over the drawn one.
//!
//! The VAE changes the kept part a little, and a model that draws small makes it coarse. The overlay restores the
//! original pixels and fades into the repainted part, as A1111's `mask_blur` does (`processing.py`: the mask
//! under a Gaussian of that many pixels). Where only a region was drawn, the rest is the original.

use super::{ImageError, Mask, Region, RgbImage};
use crate::domain::ResizeMode;

/// A picture and how much of each of its pixels is repainted.
pub struct Overlay {
    original: RgbImage,
    /// From 0 (kept) to 1, row by row from the top.
    repainted: Vec<f32>,
    /// The part that is drawn, if it is not the whole picture at its own size.
    region: Option<Region>,
}

impl Overlay {
    /// `mask` has the size of `original`. A Gaussian with a deviation of `blur` pixels blurs its edge.
    pub fn new(original: RgbImage, mask: &Mask, blur: u32) -> Self {
        let width = original.width as usize;
        let mut repainted: Vec<f32> =
            mask.repainted().map(|repainted| f32::from(u8::from(repainted))).collect();
        if blur > 0 && width > 0 {
            let kernel = gaussian(blur);
            repainted = blurred_down(&blurred_across(&repainted, width, &kernel), width, &kernel);
        }
        Self { original, repainted, region: None }
    }

    /// How far beyond its edge a mask with this blur has an effect, in pixels.
    pub fn reach(blur: u32) -> u32 {
        (5 * blur).div_ceil(2)
    }

    pub fn original(&self) -> &RgbImage {
        &self.original
    }

    /// The region in which anything is repainted, as far as a byte can tell. None if nothing is.
    pub fn extent(&self) -> Option<Region> {
        Region::around(self.repainted.iter().map(|&share| share * 255.0 >= 0.5), self.original.width)
    }

    /// The overlay for a picture that is drawn for this region alone.
    #[must_use]
    pub fn drawn_within(self, region: Region) -> Self {
        Self { region: Some(region), ..self }
    }

    /// Lays the original over the drawn picture, which may have been drawn at another size.
    pub fn lay_over(&self, drawn: RgbImage) -> Result<RgbImage, ImageError> {
        let region = self.region.unwrap_or(Region::whole(self.original.size()));
        let drawn = match self.region {
            Some(region) => drawn.fit(region.size(), ResizeMode::Crop)?,
            None if drawn.size() == region.size() => drawn,
            None => drawn.resize(region.size())?,
        };
        let (width, part) = (self.original.width as usize, region.width as usize);
        let mut picture = self.original.clone();
        for (y, row) in (region.top as usize..).zip(drawn.pixels.chunks_exact(part.max(1) * 3)) {
            let start = y * width + region.left as usize;
            let values = picture.pixels[start * 3..][..part * 3].chunks_exact_mut(3);
            for ((pixel, drawn), &share) in
                values.zip(row.chunks_exact(3)).zip(&self.repainted[start..][..part])
            {
                for (value, &drawn) in pixel.iter_mut().zip(drawn) {
                    let original = f32::from(*value);
                    let mixed = original + share * (f32::from(drawn) - original);
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
        }
        Ok(picture)
    }
}

/// Weights from the middle outwards, over two and a half deviations. With their mirror image they sum to 1.
#[expect(clippy::cast_precision_loss, reason = "a few pixels")]
fn gaussian(deviation: u32) -> Vec<f32> {
    let spread = 2.0 * (deviation.max(1) as f32).powi(2);
    let weights: Vec<f32> =
        (0..=Overlay::reach(deviation)).map(|at| (-((at * at) as f32) / spread).exp()).collect();
    let sum = 2.0 * weights.iter().sum::<f32>() - weights[0];
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Blurs each row. Beyond its ends a row goes on with its last values.
fn blurred_across(values: &[f32], width: usize, kernel: &[f32]) -> Vec<f32> {
    let reach = kernel.len() - 1;
    let mut out = Vec::with_capacity(values.len());
    for row in values.chunks_exact(width) {
        // Most rows of a large picture are kept as a whole.
        if is_kept(row) {
            out.extend_from_slice(row);
            continue;
        }
        let padded: Vec<f32> = std::iter::repeat_n(row[0], reach)
            .chain(row.iter().copied())
            .chain(std::iter::repeat_n(row[width - 1], reach))
            .collect();
        let at = |step: isize| &padded[reach.saturating_add_signed(step)..][..width];
        out.extend(weighed(kernel, at));
    }
    out
}

/// Blurs each column in the same way.
fn blurred_down(values: &[f32], width: usize, kernel: &[f32]) -> Vec<f32> {
    let last = values.len() / width - 1;
    let reach = kernel.len() - 1;
    let kept: Vec<bool> = values.chunks_exact(width).map(is_kept).collect();
    let mut out = Vec::with_capacity(values.len());
    for y in 0..=last {
        if kept[y.saturating_sub(reach)..=(y + reach).min(last)].iter().all(|&kept| kept) {
            out.resize(out.len() + width, 0.0);
            continue;
        }
        let at = |step: isize| &values[y.saturating_add_signed(step).min(last) * width..][..width];
        out.extend(weighed(kernel, at));
    }
    out
}

fn is_kept(row: &[f32]) -> bool {
    row.iter().all(|&share| share == 0.0)
}

/// The sum of lines, where `line(step)` lies `step` values from the middle.
fn weighed<'a>(kernel: &[f32], line: impl Fn(isize) -> &'a [f32]) -> Vec<f32> {
    let middle = line(0);
    let mut around = vec![0.0; middle.len()];
    for (step, weight) in (1..).zip(&kernel[1..]) {
        for ((sum, after), before) in around.iter_mut().zip(line(step)).zip(line(-step)) {
            *sum += weight * (after + before);
        }
    }
    middle.iter().zip(around).map(|(value, around)| kernel[0] * value + around).collect()
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
        let drawn = Overlay::new(plain(100), &mask, blur).lay_over(plain(200)).unwrap();
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
    fn outside_the_region_everything_is_the_original() {
        let mut dot = plain(0);
        dot.pixels[(40 + 20) * 3..][..3].fill(255);
        let mask = Mask::new(&dot, SIZE, false).unwrap();
        let overlay = Overlay::new(plain(100), &mask, 2);
        let region = overlay.extent().unwrap();
        // The faintest share of a dot of one pixel that a byte shows.
        assert!(region.width > 3 && region.width <= 11 && region.left + region.width / 2 == 20, "{region:?}");
        let drawn = RgbImage { width: 8, height: 8, pixels: vec![200; 8 * 8 * 3] };
        let picture = overlay.drawn_within(region).lay_over(drawn).unwrap();
        assert_eq!(picture.size(), SIZE);
        let changed: Vec<usize> =
            (0..120).filter(|at| picture.pixels[at * 3] != 100).map(|at| at % 40).collect();
        assert!(!changed.is_empty() && changed.iter().all(|x| (15..=25).contains(x)), "{changed:?}");
        assert!(Overlay::new(plain(100), &Mask::nothing(SIZE), 2).extent().is_none());
    }

    #[test]
    fn a_picture_that_was_drawn_smaller_is_enlarged() {
        let overlay = Overlay::new(plain(1), &Mask::everything(SIZE), 2);
        let small = RgbImage { width: 10, height: 1, pixels: vec![9; 30] };
        assert_eq!(overlay.lay_over(small).unwrap(), plain(9));
    }
}
