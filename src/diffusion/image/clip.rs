//! A picture as CLIP's vision model reads it.
//!
//! This is transformers' `CLIPImageProcessor` (`image_processing_pil_clip.py`) with its default settings, which every
//! Stable Diffusion v1 folder has.

use fast_image_resize::FilterType;
use ndarray::Array4;

use super::{ImageError, RgbImage};
use crate::domain::ImageSize;

const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// `[1, 3, side, side]`: the shorter edge is resized to `side` pixels (bicubic, as in Pillow), the centre is cropped,
/// and each channel is normalised.
pub fn clip_input(image: &RgbImage, side: u32) -> Result<Array4<f32>, ImageError> {
    let short = image.width.min(image.height).max(1);
    // transformers rounds down.
    let scaled =
        |edge: u32| u32::try_from(u64::from(edge) * u64::from(side) / u64::from(short)).unwrap_or(side);
    let whole = ImageSize { width: scaled(image.width), height: scaled(image.height) };
    let resized = image.resize_by(whole, FilterType::CatmullRom)?;
    let (left, top) = ((whole.width - side) / 2, (whole.height - side) / 2);
    Ok(Array4::from_shape_fn((1, 3, side as usize, side as usize), |(_, channel, y, x)| {
        let row = top as usize + y;
        let at = (row * whole.width as usize + left as usize + x) * 3 + channel;
        (f32::from(resized.pixels[at]) / 255.0 - MEAN[channel]) / STD[channel]
    }))
}

#[cfg(test)]
mod tests {
    use super::super::golden::picture;
    use super::*;
    use serde_json::Value;

    #[test]
    fn pictures_become_the_tensors_of_transformers() {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/clip.json")).unwrap();
        for case in golden.as_array().unwrap() {
            let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
            let size = [0, 1].map(|at| u32::try_from(number(&case["size"][at])).unwrap());
            let input = clip_input(&picture(size[0], size[1]), 224).unwrap();
            assert_eq!(input.dim(), (1, 3, 224, 224));
            for sample in case["samples"].as_array().unwrap() {
                let [channel, y, x] = [0, 1, 2].map(|at| number(&sample[at]));
                let (found, wanted) = (f64::from(input[[0, channel, y, x]]), sample[3].as_f64().unwrap());
                // One step of a byte is 0.015.
                assert!((found - wanted).abs() < 0.0151, "{size:?} at {sample}: {found}");
            }
        }
    }
}
