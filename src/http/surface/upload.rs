//! Pictures that came with a request, on their way into a job's `input`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::diffusion::image::{
    ImageError, RgbImage, encode_png, opaque_mask, transparent_mask, upright_size,
};
use crate::domain::ImageSize;

/// A picture file as base64, as `input` takes it.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The size of a picture, once it is upright. None if its header cannot be read.
pub fn size(bytes: &[u8]) -> Option<ImageSize> {
    upright_size(bytes).ok()
}

/// The transparent part of a picture as a mask for `input`: a PNG file as base64, white where to repaint. None if nothing
/// is transparent. The error is a sentence about the picture. Blocks while it decodes.
pub fn mask_from_transparency(bytes: &[u8]) -> Result<Option<String>, String> {
    mask_file(transparent_mask(bytes))
}

/// The same of the part that is more opaque than not. None if nothing is transparent.
pub fn mask_from_opacity(bytes: &[u8]) -> Result<Option<String>, String> {
    mask_file(opaque_mask(bytes))
}

fn mask_file(mask: Result<Option<RgbImage>, ImageError>) -> Result<Option<String>, String> {
    let mask = mask.map_err(|error| format!("It cannot be decoded: {error}."))?;
    let png = mask.map(|mask| encode_png(&mask, &[])).transpose().map_err(|error| error.to_string())?;
    Ok(png.map(|png| base64(&png)))
}
