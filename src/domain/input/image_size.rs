//! The size of a picture: what a request may ask for, and the largest size that is drawn for one that is not drawn itself.

use super::InputRules;
use super::reader::Reader;

/// The largest `width × height`.
pub const MAX_PIXELS: u32 = 786_432;
pub const MIN_SIDE: u32 = 64;

/// The size of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSize {
    pub width: u32,
    pub height: u32,
}

impl ImageSize {
    /// Reads `width` and `height`.
    pub(super) fn read(reader: &mut Reader, rules: &InputRules, default: Self) -> Self {
        let width = reader.side("width", rules.grid).unwrap_or(default.width);
        let height = reader.side("height", rules.grid).unwrap_or(default.height);
        if u64::from(width) * u64::from(height) > u64::from(MAX_PIXELS) {
            reader.unmet(
                "width",
                &format!("width × height is {width} × {height}; at most {MAX_PIXELS} pixels are allowed."),
            );
        }
        Self { width, height }
    }

    /// The largest size of this shape within [`MAX_PIXELS`] and on the grid. Sides are rounded down, as A1111 does.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a side times a factor of at most 1"
    )]
    pub fn fitted(self, grid: u32) -> Self {
        let grid = grid.max(1);
        let pixels = f64::from(self.width) * f64::from(self.height);
        let scale = (f64::from(MAX_PIXELS) / pixels.max(1.0)).sqrt().min(1.0);
        let longest = MAX_PIXELS / MIN_SIDE;
        let side = |side: u32| {
            let on_grid = (f64::from(side) * scale) as u32 / grid * grid;
            on_grid.min(longest / grid * grid).max(MIN_SIDE.next_multiple_of(grid))
        };
        let (width, height) = (side(self.width), side(self.height));
        // A very long shape whose short side was raised to the least one.
        if width >= height {
            Self { width: width.min(MAX_PIXELS / height / grid * grid), height }
        } else {
            Self { width, height: height.min(MAX_PIXELS / width / grid * grid) }
        }
    }
}
