//! Pixels: decoded from picture files, resized, masked, turned into the VAE's tensors and back, encoded as PNG.
//!
//! Nothing here knows models, prompts or jobs. Results follow Pillow, numpy and diffusers.

mod clip;
mod decode;
mod decode_room;
mod file;
mod fit;
#[cfg(test)]
mod golden;
mod infotext;
mod mask;
mod overlay;
mod png;
mod preprocess;
mod region;
mod size;
mod surroundings;
mod texts;
mod tiff;
mod transparency;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use ndarray::{Array4, ArrayView3};

use crate::domain::ImageSize;

pub use decode::{decode_image, upright_size};
pub use file::{EncodedPicture, PictureFile, PictureTexts};
pub use infotext::enlarged_infotext;
pub use png::encode_png;
pub use texts::png_texts;
pub use transparency::{opaque_mask, transparent_mask};

pub(super) use clip::clip_input;
pub(super) use infotext::Parameters;
pub(super) use mask::Mask;
pub(super) use overlay::Overlay;
pub(super) use region::Region;
pub(super) use size::drawing_size;

/// A picture of 8 bits a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RgbImage {
    pub width: u32,
    pub height: u32,
    /// Row by row from the top, three bytes (red, green, blue) a pixel.
    pub pixels: Vec<u8>,
}

/// Why a picture cannot be read, changed or written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("a picture's tensor has the shape {shape:?}; it must be [3, height, width]")]
    Shape { shape: Vec<usize> },
    #[error("a picture of {width}×{height} has {bytes} bytes of pixels; it must have three for each pixel")]
    Length { width: u32, height: u32, bytes: usize },
    #[error("'{0}' is not a valid keyword for a PNG's text")]
    Keyword(String),
    #[error("the picture could not be resized: {0}")]
    Resize(String),
    #[error("the picture to start from cannot be used: {0}")]
    Format(String),
    #[error("the picture to start from could not be read as {format}: {reason}")]
    Decode { format: &'static str, reason: String },
    #[error("init_image does not meet the constraints. {0}")]
    TooLarge(String),
    #[error("the picture to start from was not fetched")]
    Unfetched,
    #[error("the picture could not be encoded: {0}")]
    Encode(String),
    #[error("the PNG could not be written: {0}")]
    Png(#[from] ::png::EncodingError),
}

impl RgbImage {
    /// The picture in a decoded tensor `[3, height, width]` of about −1…1, as diffusers' `VaeImageProcessor`
    /// makes it (`image_processor.py`: `denormalize`, then `numpy_to_pil`). NaN becomes black.
    #[expect(clippy::needless_pass_by_value, reason = "a view is a reference")]
    pub fn from_tensor(tensor: ArrayView3<f32>) -> Result<Self, ImageError> {
        let (channels, rows, columns) = tensor.dim();
        let (3, Ok(width), Ok(height)) = (channels, u32::try_from(columns), u32::try_from(rows)) else {
            return Err(ImageError::Shape { shape: tensor.shape().to_vec() });
        };
        // Channels last, which is the order of the bytes.
        let pixels = tensor.permuted_axes([1, 2, 0]).iter().map(|&value| byte(value)).collect();
        Ok(Self { width, height, pixels })
    }

    pub fn size(&self) -> ImageSize {
        ImageSize { width: self.width, height: self.height }
    }

    /// The picture as the VAE's encoder reads it: `[1, 3, height, width]` of −1…1, as diffusers'
    /// `VaeImageProcessor` makes it (`pil_to_numpy`, then `normalize`).
    pub fn to_tensor(&self) -> Result<Array4<f32>, ImageError> {
        let (width, height) = (self.width as usize, self.height as usize);
        let values = self.pixels.iter().map(|&byte| 2.0 * (f32::from(byte) / 255.0) - 1.0).collect();
        let channels_last = Array4::from_shape_vec((1, height, width, 3), values).map_err(|_| {
            ImageError::Length { width: self.width, height: self.height, bytes: self.pixels.len() }
        })?;
        Ok(channels_last.permuted_axes([0, 3, 1, 2]).as_standard_layout().into_owned())
    }

    /// The picture at another size, as Pillow's `resize(size, LANCZOS)` gives it, within one step a channel.
    pub fn resize(&self, size: ImageSize) -> Result<Self, ImageError> {
        self.resize_by(size, FilterType::Lanczos3)
    }

    /// The picture at another size, as Pillow's `resize(size, NEAREST)` gives it.
    #[must_use]
    pub fn resize_nearest(&self, size: ImageSize) -> Self {
        let source = |at: u32, from: u32, to: u32| {
            (2 * u64::from(at) + 1) * u64::from(from) / (2 * u64::from(to.max(1)))
        };
        let mut pixels = Vec::with_capacity(size.width as usize * size.height as usize * 3);
        for y in 0..size.height {
            for x in 0..size.width {
                let row = source(y, self.height, size.height) * u64::from(self.width);
                let at = 3 * usize::try_from(row + source(x, self.width, size.width)).unwrap_or(usize::MAX);
                pixels.extend_from_slice(self.pixels.get(at..at + 3).unwrap_or(&[0; 3]));
            }
        }
        Self { width: size.width, height: size.height, pixels }
    }

    /// The middle of the picture, of this size at most.
    #[must_use]
    pub fn middle(self, size: ImageSize) -> Self {
        let (width, height) = (size.width.min(self.width), size.height.min(self.height));
        if (width, height) == (self.width, self.height) {
            return self;
        }
        let (left, top) = ((self.width - width) / 2, (self.height - height) / 2);
        let row = |y: u32| {
            let start = ((top + y) as usize * self.width as usize + left as usize) * 3;
            self.pixels.get(start..start + width as usize * 3).unwrap_or_default()
        };
        Self { width, height, pixels: (0..height).flat_map(row).copied().collect() }
    }

    /// The same with another of Pillow's filters. `CatmullRom` is its BICUBIC.
    fn resize_by(&self, size: ImageSize, filter: FilterType) -> Result<Self, ImageError> {
        // Pillow resizes across first and rounds to bytes in between. The library would start with the columns.
        // That differs visibly at hard edges, where the filter overshoots.
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        self.resize_axis(ImageSize { height: self.height, ..size }, &options)?.resize_axis(size, &options)
    }

    /// Changes one of the two sides.
    fn resize_axis(&self, size: ImageSize, options: &ResizeOptions) -> Result<Self, ImageError> {
        let ImageSize { width, height } = size;
        let refuse = |error: &dyn std::fmt::Display| ImageError::Resize(error.to_string());
        let source = ImageRef::new(self.width, self.height, &self.pixels, PixelType::U8x3)
            .map_err(|error| refuse(&error))?;
        let mut target = Image::new(width, height, PixelType::U8x3);
        Resizer::new().resize(&source, &mut target, options).map_err(|error| refuse(&error))?;
        Ok(Self { width, height, pixels: target.into_vec() })
    }
}

/// Halves round to even, as numpy's do. The cast turns NaN into 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0…255")]
fn byte(value: f32) -> u8 {
    ((value * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;
    use serde_json::Value;

    const GOLDEN: &str = include_str!("../../../tests/golden/image.json");

    fn golden() -> Value {
        serde_json::from_str(GOLDEN).unwrap()
    }

    fn number(value: &Value) -> u32 {
        u32::try_from(value.as_u64().unwrap()).unwrap()
    }

    fn bytes(hex: &Value) -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn tensor_values_become_the_bytes_of_numpy() {
        let golden = golden();
        let values: Vec<f32> =
            golden["bits"].as_array().unwrap().iter().map(|bits| f32::from_bits(number(bits))).collect();
        let wide = values.len() / 3;
        let image =
            RgbImage::from_tensor(Array3::from_shape_vec((3, 1, wide), values).unwrap().view()).unwrap();
        let by_channel: Vec<u8> =
            (0..3).flat_map(|c| image.pixels.iter().skip(c).step_by(3).copied()).collect();
        assert_eq!(by_channel, bytes(&golden["bytes"]));
        assert_eq!((image.width as usize, image.height), (wide, 1));
        assert_eq!([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0].map(byte), [0, 255, 0, 128]);
    }

    #[test]
    fn rows_columns_and_channels_keep_their_places() {
        let tensor = Array3::from_shape_fn((3, 2, 4), |(c, y, x)| {
            f32::from(u8::try_from(c * 100 + y * 10 + x).unwrap()) / 127.5 - 1.0
        });
        let image = RgbImage::from_tensor(tensor.view()).unwrap();
        assert_eq!((image.width, image.height), (4, 2));
        assert_eq!(image.pixels[(4 + 2) * 3..][..3], [12, 112, 212]);
        assert!(matches!(
            RgbImage::from_tensor(Array3::zeros((4, 2, 2)).view()),
            Err(ImageError::Shape { .. })
        ));
    }

    #[test]
    fn resizing_is_within_one_step_of_pillow() {
        for case in golden()["lanczos"].as_array().unwrap() {
            let image = RgbImage {
                width: number(&case["from"][0]),
                height: number(&case["from"][1]),
                pixels: bytes(&case["pixels"]),
            };
            let size = ImageSize { width: number(&case["to"][0]), height: number(&case["to"][1]) };
            let resized = image.resize(size).unwrap();
            assert_eq!(resized.size(), size);
            let expected = bytes(&case["resized"]);
            assert_eq!(resized.pixels.len(), expected.len());
            let furthest = resized.pixels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
            assert!(furthest <= Some(1), "{furthest:?} at {size:?}");
        }
    }

    #[test]
    fn an_image_with_too_few_pixels_is_refused() {
        let image = RgbImage { width: 4, height: 4, pixels: vec![0; 3] };
        assert!(matches!(image.resize(ImageSize { width: 8, height: 8 }), Err(ImageError::Resize(_))));
        assert!(matches!(encode_png(&image, &[]), Err(ImageError::Length { .. })));
    }
}
