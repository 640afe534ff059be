//! Sizes that clients ask for, and the sizes at which they are drawn.
//!
//! Clients of other APIs ask for sizes beyond our limit or off the model's grid, and cannot be told not to. The picture
//! is then drawn at the largest size of that shape that is allowed, and enlarged to what was asked.

use crate::domain::ImageSize;

/// The longest side of a picture that is answered.
pub const MAX_SIDE: u32 = 4096;
/// The shortest.
pub const SHORTEST: u32 = 16;
/// The most pixels of all the pictures of one answer together, which are in memory at the same time.
pub const MAX_TOTAL: u64 = 1 << 26;

/// What was asked for, and what is drawn for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canvas {
    pub asked: ImageSize,
    pub drawn: ImageSize,
}

impl Canvas {
    /// `count` pictures of the size `asked`, by a model with this grid. The error is a sentence about the size.
    pub fn new(asked: ImageSize, count: u32, grid: u32) -> Result<Self, String> {
        let ImageSize { width, height } = asked;
        if ![width, height].iter().all(|side| (SHORTEST..=MAX_SIDE).contains(side)) {
            return Err(format!(
                "It is {width} × {height} pixels; each side must be from {SHORTEST} to {MAX_SIDE}."
            ));
        }
        fit_together(asked, count)?;
        Ok(Self { asked, drawn: asked.fitted(grid) })
    }

    /// The size of a picture that came in, brought within the limits and drawn as it is answered.
    pub fn like(picture: ImageSize, grid: u32) -> Self {
        let drawn = picture.fitted(grid);
        Self { asked: drawn, drawn }
    }

    /// The size to bring the drawn picture to, if it is another.
    pub fn enlarge_to(&self) -> Option<ImageSize> {
        (self.asked != self.drawn).then_some(self.asked)
    }
}

/// Whether the pictures of an answer fit into memory together. The error is a sentence.
pub fn fit_together(ImageSize { width, height }: ImageSize, count: u32) -> Result<(), String> {
    if u64::from(width) * u64::from(height) * u64::from(count) > MAX_TOTAL {
        return Err(format!(
            "{count} pictures of {width} × {height} are more than {MAX_TOTAL} pixels together; ask for fewer or smaller ones."
        ));
    }
    Ok(())
}

/// A size such as `1024x1024` or `1024*1024`. None for whatever else.
pub fn read_size(text: &str) -> Option<ImageSize> {
    let (width, height) = text.trim().split_once(['x', 'X', '*', '×'])?;
    Some(ImageSize { width: width.trim().parse().ok()?, height: height.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MAX_PIXELS, MIN_SIDE};

    fn size((width, height): (u32, u32)) -> ImageSize {
        ImageSize { width, height }
    }

    #[test]
    fn sizes_are_drawn_at_the_largest_size_of_their_shape() {
        for (asked, grid, drawn) in [
            ((512, 512), 64, (512, 512)),
            ((1024, 768), 8, (1024, 768)),
            ((1024, 1024), 8, (880, 880)),
            ((1024, 1024), 64, (832, 832)),
            ((1792, 1024), 8, (1168, 664)),
            ((1328, 1328), 8, (880, 880)),
            ((912, 512), 64, (896, 512)),
            ((912, 512), 8, (912, 512)),
            ((100, 30), 8, (96, 64)),
            ((16, 16), 64, (64, 64)),
            ((4096, 16), 64, (4096, 64)),
            ((4096, 4096), 8, (880, 880)),
        ] {
            let canvas = Canvas::new(size(asked), 1, grid).unwrap();
            assert_eq!(canvas.drawn, size(drawn), "{asked:?} on {grid}");
            assert_eq!(canvas.enlarge_to().is_some(), asked != drawn);
        }
    }

    #[test]
    fn every_size_is_drawn_within_our_limit_and_on_the_grid() {
        let sides = [16, 17, 63, 64, 65, 255, 512, 777, 1024, 1500, 4095, 4096, 65_535, 1 << 25];
        for (width, height) in sides.into_iter().flat_map(|width| sides.map(|height| (width, height))) {
            for grid in [1, 8, 32, 64] {
                let drawn = Canvas::like(size((width, height)), grid).drawn;
                let ok = |side: u32| {
                    side >= MIN_SIDE && side.is_multiple_of(grid) && side <= MAX_PIXELS / MIN_SIDE
                };
                assert!(ok(drawn.width) && ok(drawn.height), "{width}x{height} on {grid}: {drawn:?}");
                assert!(
                    u64::from(drawn.width) * u64::from(drawn.height) <= u64::from(MAX_PIXELS),
                    "{drawn:?}"
                );
            }
        }
    }

    #[test]
    fn a_size_that_would_not_fit_into_memory_is_refused() {
        assert!(Canvas::new(size((4096, 4096)), 4, 8).is_ok());
        let sentence = Canvas::new(size((4096, 4096)), 5, 8).unwrap_err();
        assert!(
            sentence.starts_with("5 pictures of 4096 × 4096 are more than 67108864 pixels"),
            "{sentence}"
        );
        let sentence = Canvas::new(size((4097, 512)), 1, 8).unwrap_err();
        assert_eq!(sentence, "It is 4097 × 512 pixels; each side must be from 16 to 4096.");
        assert!(Canvas::new(size((512, 0)), 1, 8).is_err());
    }

    #[test]
    fn a_size_has_two_numbers() {
        for text in ["640x480", " 640 x 480 ", "640*480", "640X480", "640×480"] {
            assert_eq!(read_size(text), Some(size((640, 480))), "{text}");
        }
        for text in ["auto", "", "640", "x", "640x", "-1x5", "99999999999x1", "1x2x3"] {
            assert_eq!(read_size(text), None, "{text}");
        }
    }
}
