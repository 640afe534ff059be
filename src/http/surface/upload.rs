//! Pictures that came with a request, on their way into a job's `input`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::diffusion::image::{encode_png, transparent_mask, upright_size};
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
    let mask = transparent_mask(bytes).map_err(|error| format!("It cannot be decoded: {error}."))?;
    let png = mask.map(|mask| encode_png(&mask, &[])).transpose().map_err(|error| error.to_string())?;
    Ok(png.map(|png| base64(&png)))
}
