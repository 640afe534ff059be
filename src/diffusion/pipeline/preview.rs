//! Previews of a picture while it is drawn, from its latents alone: without the decoder, so they cost almost nothing. A job
//! with a tiny VAE gets them from that, since it is there: larger and sharper. Each of those decodes the whole picture on the
//! engine's thread, so it takes as long as the tiny VAE takes at the end.
//!
//! A linear map makes one pixel of each latent, and the small picture is scaled. The map is applied to the clean latents
//! according to the last prediction, since the current ones are mostly noise.
//!
//! The worker asks for a preview after a step (`worker/stepping.rs`), through `Engine::preview`, at most once a second and
//! only while a client listens to the job's events or stream.

use ndarray::{Array2, Array3, ArrayView3, Axis};

use super::{DiffusionError, Generation, Pipeline};
use crate::diffusion::image::{ImageError, RgbImage, encode_png};
use crate::domain::{ImageSize, Vae};

/// The longer side of a preview, in pixels.
const LONGEST: u32 = 128;
/// The same of one by a tiny VAE.
const LONGEST_DECODED: u32 = 256;

impl Pipeline {
    /// A preview of the first image, as a small PNG file. `None` if the model has no map from latents to colours, before
    /// the first step, and if a safety checker must see the picture first.
    pub fn preview(&mut self, generation: &Generation) -> Option<Vec<u8>> {
        if self.checking.is_some() && !generation.input.nsfw {
            return None;
        }
        let prediction = self.model.description.scheduler.prediction().ok()?;
        let clean = generation.predicted_original(prediction)?;
        match generation.input.vae {
            Vae::Full => self.model.description.latent_rgb.as_ref()?.draw(clean.view()).ok(),
            Vae::Tiny => self.decoded_preview(generation.drawn_at, clean),
        }
    }

    /// The preview of clean latents by the tiny VAE. None if it is gone.
    fn decoded_preview(&mut self, drawn_at: ImageSize, clean: Array3<f32>) -> Option<Vec<u8>> {
        self.note_decoding(Vae::Tiny, drawn_at);
        let picture = self.decode_by(Vae::Tiny, &clean.insert_axis(Axis(0))).ok()?;
        let longer = LONGEST_DECODED.min(picture.width.max(picture.height));
        encode_png(&picture.resize(preview_size(picture.size(), longer)).ok()?, &[]).ok()
    }

    /// Ends a generation where it is: its pictures are what they look like so far.
    pub fn cut_short(&self, generation: &mut Generation) -> Result<(), DiffusionError> {
        Ok(generation.cut_short(self.model.description.scheduler.prediction()?)?)
    }
}

/// `rgb = latents · factors + bias`, in −1…1.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentRgb {
    /// `[channels, 3]`.
    factors: Array2<f32>,
    bias: [f32; 3],
}

impl LatentRgb {
    /// One row of red, green and blue for each latent channel.
    pub fn new(factors: &[[f32; 3]], bias: [f32; 3]) -> Self {
        let flat = factors.iter().flatten().copied().collect();
        let shape = (factors.len(), 3);
        // As many values as the shape has, by construction.
        Self { factors: Array2::from_shape_vec(shape, flat).unwrap_or_default(), bias }
    }

    /// Stable Diffusion v1's, for latents in the UNet's scale, as Keturn published them
    /// (<https://discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204>).
    pub fn stable_diffusion_v1() -> Self {
        let factors =
            [[0.298, 0.207, 0.208], [0.187, 0.286, 0.173], [-0.158, 0.189, 0.264], [-0.184, -0.271, -0.473]];
        Self::new(&factors, [0.0; 3])
    }

    pub fn channels(&self) -> usize {
        self.factors.nrows()
    }

    /// The preview of clean latents `[channels, height, width]`, as a PNG file.
    #[expect(clippy::needless_pass_by_value, reason = "a view is a reference")]
    pub fn draw(&self, latents: ArrayView3<f32>) -> Result<Vec<u8>, ImageError> {
        let (channels, height, width) = latents.dim();
        if channels != self.channels() {
            return Err(ImageError::Shape { shape: latents.shape().to_vec() });
        }
        let mut pixels = Array3::zeros((3, height, width));
        for (color, mut plane) in pixels.outer_iter_mut().enumerate() {
            plane.fill(self.bias[color]);
            for (latent, factor) in latents.outer_iter().zip(self.factors.column(color)) {
                plane.scaled_add(*factor, &latent);
            }
        }
        let small = RgbImage::from_tensor(pixels.view())?;
        encode_png(&small.resize(preview_size(small.size(), LONGEST))?, &[])
    }
}

/// The same aspect with this longer side.
fn preview_size(size: ImageSize, longer: u32) -> ImageSize {
    let longest = size.width.max(size.height).max(1);
    let scaled = |side: u32| (side * longer / longest).max(1);
    ImageSize { width: scaled(size.width), height: scaled(size.height) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latents_become_pixels_by_the_map_and_are_scaled_to_the_longest_side() {
        let map = LatentRgb::new(&[[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]], [0.0, 0.0, -1.0]);
        let latents =
            Array3::from_shape_fn((2, 4, 8), |(channel, _, _)| if channel == 0 { 1.0 } else { -1.0 });
        let file = map.draw(latents.view()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!((reader.info().width, reader.info().height), (128, 64));
        assert!(pixels.chunks(3).all(|pixel| pixel == [255, 64, 0]), "{:?}", &pixels[..3]);
    }

    #[test]
    fn latents_of_another_model_have_no_preview() {
        assert!(LatentRgb::stable_diffusion_v1().draw(Array3::zeros((16, 8, 8)).view()).is_err());
        assert_eq!(
            preview_size(ImageSize { width: 0, height: 0 }, LONGEST),
            ImageSize { width: 1, height: 1 }
        );
    }
}
