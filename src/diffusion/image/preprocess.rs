//! What is done to a picture before a ControlNet sees it: brought to the drawing's size, then turned into a map.
//!
//! The maps are those of A1111's ControlNet extension (`scripts/processor.py`), made at the drawing's own size
//! ("pixel perfect").

mod canny;
mod shuffle;

use fast_image_resize::FilterType;
use image::imageops::blur;
use ndarray::Array4;

use self::canny::canny;
use self::shuffle::shuffle;
use super::{ImageError, RgbImage};
use crate::domain::{ControlResize, ImageSize, Preprocessor};

const WHITE: u8 = 255;
/// Smaller factors leave a picture as it is.
const LEAST_REDUCTION: f32 = 1.1;

impl RgbImage {
    /// The picture for a ControlNet, as a request asks for it. `numbers` are the preprocessor's; `seed` moves contents about.
    pub fn preprocess(
        &self,
        kind: Preprocessor,
        numbers: [f32; 2],
        resize: ControlResize,
        size: ImageSize,
        seed: u64,
    ) -> Result<Self, ImageError> {
        let fitted = self.fit_control(size, resize)?;
        Ok(match kind {
            Preprocessor::None => fitted,
            Preprocessor::Canny => canny(&fitted, numbers[0], numbers[1]),
            Preprocessor::Invert => fitted.by_byte(|byte| WHITE - byte),
            Preprocessor::Tile => reduce(fitted, numbers[0])?,
            Preprocessor::Shuffle => shuffle(&fitted, seed),
            Preprocessor::Blur => blurred(fitted, numbers[0])?,
            Preprocessor::Luminance => fitted.grey(|rgb| power(lightness(rgb), numbers[0])),
            Preprocessor::Intensity => {
                fitted.grey(|rgb| power(f32::from(rgb.into_iter().max().unwrap_or(0)) / 255.0, numbers[0]))
            }
            Preprocessor::Threshold => {
                let is_white = |rgb: [u8; 3]| rgb.iter().all(|value| f32::from(*value) > numbers[0]);
                fitted.grey(|rgb| if is_white(rgb) { WHITE } else { 0 })
            }
        })
    }

    /// The picture as ControlNets read it: `[1, 3, height, width]` of 0…1.
    pub(in crate::diffusion) fn to_hint(&self) -> Result<Array4<f32>, ImageError> {
        Ok(self.to_tensor()?.mapv(|value| value * 0.5 + 0.5))
    }

    fn by_byte(mut self, change: impl Fn(u8) -> u8) -> Self {
        self.pixels.iter_mut().for_each(|byte| *byte = change(*byte));
        self
    }

    /// Each pixel as grey.
    fn grey(mut self, grey: impl Fn([u8; 3]) -> u8) -> Self {
        for pixel in self.pixels.as_chunks_mut::<3>().0 {
            *pixel = [grey(*pixel); 3];
        }
        self
    }
}

/// Made smaller by a factor and enlarged again.
fn reduce(image: RgbImage, factor: f32) -> Result<RgbImage, ImageError> {
    if factor < LEAST_REDUCTION {
        return Ok(image);
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "pixels"
    )]
    let side = |pixels: u32| ((pixels as f32 / factor) as u32).max(1);
    let small = ImageSize { width: side(image.width), height: side(image.height) };
    // The mean of the pixels, as OpenCV's INTER_AREA.
    image.resize_by(small, FilterType::Box)?.resize(image.size())
}

fn blurred(image: RgbImage, sigma: f32) -> Result<RgbImage, ImageError> {
    let (width, height, bytes) = (image.width, image.height, image.pixels.len());
    let pixels = image::RgbImage::from_raw(width, height, image.pixels);
    let pixels = pixels.ok_or(ImageError::Length { width, height, bytes })?;
    Ok(RgbImage { width, height, pixels: blur(&pixels, sigma).into_raw() })
}

/// A value of 0…1 to a power, as a byte.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0…255")]
fn power(value: f32, exponent: f32) -> u8 {
    (value.powf(exponent) * 255.0).round().clamp(0.0, 255.0) as u8
}

/// CIE L* of an sRGB colour, 0…1.
fn lightness(rgb: [u8; 3]) -> f32 {
    let linear = |byte: u8| match f32::from(byte) / 255.0 {
        value if value <= 0.040_45 => value / 12.92,
        value => ((value + 0.055) / 1.055).powf(2.4),
    };
    let [r, g, b] = rgb.map(linear);
    let y = 0.212_671 * r + 0.715_16 * g + 0.072_169 * b;
    let lightness = if y > 0.008_856 { 116.0 * y.cbrt() - 16.0 } else { 903.3 * y };
    lightness / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> RgbImage {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        RgbImage { width, height, pixels: pixels.flat_map(|(x, y)| pixel(x, y)).collect() }
    }

    fn map(image: &RgbImage, kind: Preprocessor, numbers: [f32; 2]) -> RgbImage {
        image.preprocess(kind, numbers, ControlResize::Stretch, image.size(), 7).unwrap()
    }

    #[test]
    fn simple_maps_have_the_values_that_they_are_defined_by() {
        let two = image(2, 1, |x, _| if x == 0 { [0, 100, 200] } else { [255, 255, 255] });
        assert_eq!(map(&two, Preprocessor::None, [0.0; 2]), two);
        assert_eq!(map(&two, Preprocessor::Invert, [0.0; 2]).pixels, [255, 155, 55, 0, 0, 0]);
        assert_eq!(map(&two, Preprocessor::Intensity, [1.0, 0.0]).pixels, [200, 200, 200, 255, 255, 255]);
        assert_eq!(map(&two, Preprocessor::Threshold, [127.0, 0.0]).pixels, [0, 0, 0, 255, 255, 255]);
        // cv2.cvtColor(…, COLOR_RGB2LAB) gives 110 for the first.
        assert_eq!(map(&two, Preprocessor::Luminance, [1.0, 0.0]).pixels, [110, 110, 110, 255, 255, 255]);
    }

    #[test]
    fn blur_and_tile_keep_an_even_picture_and_soften_an_edge() {
        let even = image(64, 64, |_, _| [10, 20, 30]);
        let edge = image(64, 64, |x, _| if x < 32 { [0; 3] } else { [255; 3] });
        for (kind, number) in [(Preprocessor::Blur, 4.0), (Preprocessor::Tile, 8.0)] {
            assert_eq!(map(&even, kind, [number, 0.0]), even);
            let soft = map(&edge, kind, [number, 0.0]);
            let row: Vec<u8> = soft.pixels.iter().step_by(3).take(64).copied().collect();
            assert!(
                row.windows(2).filter(|pair| pair[1].abs_diff(pair[0]) > 128).count() == 0,
                "{kind:?} {row:?}"
            );
        }
        assert_eq!(map(&edge, Preprocessor::Tile, [1.0, 0.0]), edge);
    }

    #[test]
    fn a_hint_is_from_0_to_1() {
        let hint = image(2, 1, |x, _| if x == 0 { [0, 51, 255] } else { [255; 3] }).to_hint().unwrap();
        assert_eq!(hint.dim(), (1, 3, 1, 2));
        for (at, value) in
            [([0, 0, 0, 0], 0.0), ([0, 1, 0, 0], 0.2), ([0, 2, 0, 0], 1.0), ([0, 0, 0, 1], 1.0)]
        {
            assert!((hint[at] - value).abs() < 1e-6);
        }
    }
}
