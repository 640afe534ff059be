//! The transparent part of a picture, which some clients paint to say what to repaint.

use image::DynamicImage;

use super::decode::decode_with_alpha;
use super::{ImageError, RgbImage};

/// A mask of the picture's size, upright: white where the picture is wholly transparent, black elsewhere. None if no
/// pixel is.
pub fn transparent_mask(bytes: &[u8]) -> Result<Option<RgbImage>, ImageError> {
    let Some(image) = decode_with_alpha(bytes)? else { return Ok(None) };
    let (width, height) = (image.width(), image.height());
    let transparent: Vec<bool> = match image {
        DynamicImage::ImageRgba8(image) => image.pixels().map(|pixel| pixel.0[3] == 0).collect(),
        other => other.into_luma_alpha16().pixels().map(|pixel| pixel.0[1] == 0).collect(),
    };
    if !transparent.contains(&true) {
        return Ok(None);
    }
    let pixels = transparent.into_iter().flat_map(|is| [if is { 255 } else { 0 }; 3]).collect();
    Ok(Some(RgbImage { width, height, pixels }))
}

/// A mask of the picture's size, upright: white where the picture is more opaque than not, black elsewhere, as A1111
/// reads masks with transparency (`create_binary_mask` in its `modules/processing.py`). None if every pixel is wholly
/// opaque.
pub fn opaque_mask(bytes: &[u8]) -> Result<Option<RgbImage>, ImageError> {
    let Some(image) = decode_with_alpha(bytes)? else { return Ok(None) };
    let (width, height) = (image.width(), image.height());
    let alpha: Vec<u8> = image.into_rgba8().pixels().map(|pixel| pixel.0[3]).collect();
    if alpha.iter().all(|alpha| *alpha == u8::MAX) {
        return Ok(None);
    }
    let pixels = alpha.into_iter().flat_map(|alpha| [if alpha > 128 { 255 } else { 0 }; 3]).collect();
    Ok(Some(RgbImage { width, height, pixels }))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, LumaA, Rgba, RgbaImage};

    use super::*;

    fn file(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// Transparent in the left column, half transparent in the middle one.
    fn columns() -> RgbaImage {
        RgbaImage::from_fn(3, 2, |x, _| Rgba([200, 10, 10, [0, 128, 255][x as usize]]))
    }

    #[test]
    fn only_wholly_transparent_pixels_are_white() {
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            let mask = transparent_mask(&file(columns(), format)).unwrap().unwrap();
            assert_eq!((mask.width, mask.height), (3, 2));
            assert_eq!(mask.pixels, [[255; 3], [0; 3], [0; 3]].concat().repeat(2), "{format:?}");
        }
        let faint = image::ImageBuffer::from_fn(2, 1, |x, _| LumaA([9_u16, u16::try_from(x).unwrap()]));
        let mask = transparent_mask(&file(faint, ImageFormat::Png)).unwrap().unwrap();
        assert_eq!(mask.pixels, [[255; 3], [0; 3]].concat());
    }

    #[test]
    fn what_is_more_opaque_than_not_is_the_other_mask() {
        let mask = opaque_mask(&file(columns(), ImageFormat::Png)).unwrap().unwrap();
        assert_eq!(mask.pixels, [[0; 3], [0; 3], [255; 3]].concat().repeat(2));
        let opaque = RgbaImage::from_pixel(2, 2, Rgba([1, 2, 3, 255]));
        assert_eq!(opaque_mask(&file(opaque, ImageFormat::Png)).unwrap(), None);
        assert_eq!(opaque_mask(&file(image::RgbImage::new(2, 2), ImageFormat::Jpeg)).unwrap(), None);
        assert!(opaque_mask(b"no picture").is_err());
    }

    #[test]
    fn a_picture_without_a_transparent_pixel_makes_no_mask() {
        let opaque = RgbaImage::from_pixel(2, 2, Rgba([1, 2, 3, 255]));
        assert_eq!(transparent_mask(&file(opaque, ImageFormat::Png)).unwrap(), None);
        let rgb = image::RgbImage::new(2, 2);
        assert_eq!(transparent_mask(&file(rgb, ImageFormat::Jpeg)).unwrap(), None);
        assert!(transparent_mask(b"no picture").is_err());
    }
}
