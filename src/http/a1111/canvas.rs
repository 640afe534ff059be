//! The size of the pictures: what was asked, and what is drawn for it.

use crate::domain::ImageSize;
use crate::http::surface::{Canvas, FieldError, Fields};

const DEFAULT_SIDE: u32 = 512;

/// `count` pictures of `width` × `height`, for a model with this grid.
pub fn read(fields: &Fields, count: u32, grid: u32) -> Result<Canvas, FieldError> {
    let side = |name: &str| -> Result<u32, FieldError> {
        let side = fields.integer(&[name])?.unwrap_or(DEFAULT_SIDE.into());
        u32::try_from(side).map_err(|_| FieldError::new(name, format!("{name} is not a number of pixels.")))
    };
    let asked = ImageSize { width: side("width")?, height: side("height")? };
    Canvas::new(asked, count, grid).map_err(|sentence| {
        FieldError::new("width", format!("width and height do not meet the constraints. {sentence}"))
    })
}
