//! The size at which a model draws, which may be smaller than the requested one.

use crate::domain::ImageSize;

/// The size to draw at, all in pixels.
///
/// It is the requested size if the longer side is at most `max_side` and both sides are multiples of `grid`. Otherwise the
/// longer side is the largest that `max_side` and `grid` allow. The other is the multiple of `grid` that is nearest to
/// the requested aspect, and at least one. The caller enlarges the drawn picture.
pub fn drawing_size(asked: ImageSize, max_side: Option<u32>, grid: u32) -> ImageSize {
    let grid = grid.max(1);
    let asked_long = asked.width.max(asked.height).max(1);
    let asked_short = asked.width.min(asked.height);
    let long = (asked_long.min(max_side.unwrap_or(u32::MAX)) / grid * grid).max(grid);
    let short = nearest_multiple(asked_short, long, asked_long, grid).clamp(grid, long);
    if asked.width >= asked.height {
        ImageSize { width: long, height: short }
    } else {
        ImageSize { width: short, height: long }
    }
}

/// `side · to / from`, rounded to a multiple of `grid`, halves up.
fn nearest_multiple(side: u32, to: u32, from: u32, grid: u32) -> u32 {
    let (product, unit) = (u128::from(side) * u128::from(to), u128::from(from) * u128::from(grid));
    let multiples = (2 * product + unit) / (2 * unit);
    u32::try_from(multiples * u128::from(grid)).unwrap_or(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_stays_within_max_side_at_the_nearest_aspect() {
        for (asked, max_side, grid, drawn) in [
            ((512, 512), Some(128), 32, (128, 128)),
            ((768, 512), Some(128), 32, (128, 96)),
            ((512, 768), Some(128), 32, (96, 128)),
            ((1024, 512), Some(128), 32, (128, 64)),
            ((1024, 768), Some(128), 32, (128, 96)),
            ((1024, 64), Some(128), 32, (128, 32)),
            ((64, 1024), Some(128), 32, (32, 128)),
            ((1024, 960), Some(128), 32, (128, 128)),
            // within max_side
            ((128, 128), Some(128), 32, (128, 128)),
            ((128, 64), Some(128), 32, (128, 64)),
            ((64, 96), Some(128), 32, (64, 96)),
            ((512, 768), Some(768), 64, (512, 768)),
            ((1024, 768), None, 8, (1024, 768)),
            // off the grid, even where the side is within
            ((100, 100), Some(128), 32, (96, 96)),
            ((130, 64), None, 64, (128, 64)),
            // a side that the grid does not divide, or that is below the grid
            ((512, 512), Some(100), 32, (96, 96)),
            ((512, 256), Some(100), 64, (64, 64)),
            ((512, 512), Some(16), 32, (32, 32)),
            ((16, 16), Some(128), 32, (32, 32)),
            ((0, 0), Some(0), 0, (1, 1)),
            ((u32::MAX, u32::MAX), None, 8, (u32::MAX - 7, u32::MAX - 7)),
        ] {
            let asked = ImageSize { width: asked.0, height: asked.1 };
            let drawn = ImageSize { width: drawn.0, height: drawn.1 };
            assert_eq!(drawing_size(asked, max_side, grid), drawn, "{asked:?} {max_side:?} {grid}");
        }
    }
}
