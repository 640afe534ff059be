//! How a picture is cut into tiles for an upscaler.
//!
//! Each tile sees some pixels more on every side than it is kept of, so that no seam shows: what a convolution makes up
//! beyond the edge of its input does not reach the middle.

use ndarray::{Array4, ArrayView3};

use crate::diffusion::image::RgbImage;
use crate::domain::ImageSize;

/// The side of a tile that is kept, and how much more of the picture it sees on every side, in pixels. Both are multiples
/// of every factor that an upscaler unshuffles by.
const SIDE: usize = 192;
const PAD: usize = 16;

/// The longest side of a tile with what it sees around.
pub(super) fn largest() -> u64 {
    (SIDE + 2 * PAD) as u64
}

/// A part of the picture, with what is seen around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    down: Span,
    across: Span,
}

/// One side of it, in the picture's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// What is seen.
    from: usize,
    to: usize,
    /// What is kept.
    start: usize,
    end: usize,
}

/// The tiles of a picture, row by row.
pub fn tiles(size: ImageSize) -> Vec<Tile> {
    let (rows, columns) = (spans(size.height as usize), spans(size.width as usize));
    rows.iter().flat_map(|down| columns.iter().map(|across| Tile { down: *down, across: *across })).collect()
}

fn spans(length: usize) -> Vec<Span> {
    let span = |start: usize| {
        let end = (start + SIDE).min(length);
        Span { from: start.saturating_sub(PAD), to: (end + PAD).min(length), start, end }
    };
    (0..length).step_by(SIDE).map(span).collect()
}

impl Tile {
    /// All of a picture.
    #[cfg(test)]
    pub(super) fn whole(size: ImageSize) -> Self {
        let span = |length: u32| Span { from: 0, to: length as usize, start: 0, end: length as usize };
        Self { down: span(size.height), across: span(size.width) }
    }

    /// Of what it sees.
    pub fn height(&self) -> usize {
        self.down.to - self.down.from
    }

    pub fn width(&self) -> usize {
        self.across.to - self.across.from
    }

    /// What it sees of `picture`, `[1, 3, h, w]` of 0…1. Sides that are no multiples of `multiple` are made so by
    /// repeating the last pixel.
    pub fn read(&self, picture: &RgbImage, multiple: usize) -> Array4<f32> {
        let row = picture.width as usize * 3;
        let (height, width) =
            (self.height().next_multiple_of(multiple), self.width().next_multiple_of(multiple));
        Array4::from_shape_fn((1, 3, height, width), |(_, color, y, x)| {
            let y = self.down.from + y.min(self.height() - 1);
            let x = self.across.from + x.min(self.width() - 1);
            f32::from(picture.pixels[y * row + x * 3 + color]) / 255.0
        })
    }

    /// Writes what is kept of `enlarged`, `[3, H, W]` of 0…1, into the enlarged picture.
    #[expect(clippy::needless_pass_by_value, reason = "a view is a reference")]
    pub fn write(&self, enlarged: ArrayView3<f32>, scale: usize, canvas: &mut RgbImage) {
        let row = canvas.width as usize * 3;
        for y in self.down.start * scale..self.down.end * scale {
            for x in self.across.start * scale..self.across.end * scale {
                for color in 0..3 {
                    let value = enlarged[[color, y - self.down.from * scale, x - self.across.from * scale]];
                    canvas.pixels[y * row + x * 3 + color] = byte(value);
                }
            }
        }
    }
}

/// NaN becomes 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0…255")]
fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_pixel_once_and_see_around_it() {
        for (width, height, count) in [(1, 1, 1), (192, 192, 1), (193, 192, 2), (500, 300, 6)] {
            let mut kept = vec![0_u8; (width * height) as usize];
            let all = tiles(ImageSize { width, height });
            assert_eq!(all.len(), count);
            for tile in &all {
                assert!(tile.width() as u64 <= largest() && tile.height() as u64 <= largest());
                for y in tile.down.start..tile.down.end {
                    for x in tile.across.start..tile.across.end {
                        kept[y * width as usize + x] += 1;
                    }
                }
            }
            assert!(kept.iter().all(|times| *times == 1), "{width}×{height}");
        }
    }

    #[test]
    fn a_tile_that_is_read_and_written_is_the_picture() {
        let pixels = (0..250 * 200 * 3).map(|index| u8::try_from(index % 251).unwrap()).collect();
        let picture = RgbImage { width: 250, height: 200, pixels };
        let mut canvas = RgbImage { width: 250, height: 200, pixels: vec![0; 250 * 200 * 3] };
        for tile in tiles(picture.size()) {
            let read = tile.read(&picture, 4);
            assert!(read.dim().2.is_multiple_of(4) && read.dim().3.is_multiple_of(4));
            tile.write(read.index_axis(ndarray::Axis(0), 0), 1, &mut canvas);
        }
        assert_eq!(canvas, picture);
    }
}
