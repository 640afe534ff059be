//! The largest size that is drawn for a size that is not: beyond the limit, or off the model's grid.

use super::{ImageSize, MAX_PIXELS, MIN_SIDE};

impl ImageSize {
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
