//! The size of an enlarged picture: a factor, or one or both sides.

use serde_json::{Map, Value, json};

use super::ImageSize;
use super::reader::{Reader, small};

/// The longest side of an enlarged picture, in pixels. Its memory is planned; this bounds what a request may ask for.
pub const MAX_ENLARGED_SIDE: u32 = 4096;
/// The largest factor.
pub const MAX_SCALE: f64 = 8.0;

/// How large a picture becomes, as the request says it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Enlarged {
    /// Both sides by this factor.
    Scale(f64),
    /// One side; the other keeps the shape. Or both: the picture covers them, and is cut.
    Sides { width: Option<u32>, height: Option<u32> },
}

/// A target: the size that the picture is enlarged to, and the part from the middle of it that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub covers: ImageSize,
    pub kept: ImageSize,
}

impl Enlarged {
    /// Reads `scale`, or `width` and `height`.
    pub(super) fn read(reader: &mut Reader, default: f64) -> Self {
        let scale = reader
            .double("scale", &format!("from 1 to {MAX_SCALE}"), |scale| (1.0..=MAX_SCALE).contains(&scale));
        let mut side = |name: &str| reader.integer(name, 8, u64::from(MAX_ENLARGED_SIDE)).map(small);
        let (width, height) = (side("width"), side("height"));
        if (width, height) == (None, None) {
            return Self::Scale(scale.unwrap_or(default));
        }
        if reader.is_present("scale") {
            reader.unmet("scale", "It cannot be combined with a width or a height.");
        }
        Self::Sides { width, height }
    }

    /// What a picture of size `from` becomes, with sides that are multiples of `grid` (rounded down, as A1111 does).
    /// The error is a sentence.
    pub fn target(self, from: ImageSize, grid: u32) -> Result<Target, String> {
        let (w, h) = (u64::from(from.width.max(1)), u64::from(from.height.max(1)));
        // A1111's `calculate_target_resolution` (modules/processing.py).
        let (covers, kept) = match self {
            Self::Scale(scale) => {
                let size = (scaled(w, scale), scaled(h, scale));
                (size, size)
            }
            Self::Sides { width, height } => {
                let wide = |x: u64| (x, x * h / w);
                let high = |y: u64| (y * w / h, y);
                match (width.map(u64::from), height.map(u64::from)) {
                    (Some(x), Some(y)) if w * y < h * x => (wide(x), (x, y)),
                    (Some(x), Some(y)) => (high(y), (x, y)),
                    (Some(x), None) => (wide(x), wide(x)),
                    (None, Some(y)) => (high(y), high(y)),
                    (None, None) => ((w, h), (w, h)),
                }
            }
        };
        let on_grid = |side: u64| small(side / u64::from(grid) * u64::from(grid)).max(grid);
        let size = |(x, y)| ImageSize { width: on_grid(x), height: on_grid(y) };
        let (covers, kept) = (size(covers), size(kept));
        let longest = covers.width.max(covers.height).max(kept.width).max(kept.height);
        if longest > MAX_ENLARGED_SIDE {
            return Err(format!(
                "The picture would become {} × {} pixels; at most {MAX_ENLARGED_SIDE} a side are allowed.",
                covers.width, covers.height
            ));
        }
        Ok(Target {
            covers,
            kept: ImageSize { width: kept.width.min(covers.width), height: kept.height.min(covers.height) },
        })
    }

    /// Writes it as a request has it.
    pub(super) fn write(self, into: &mut Map<String, Value>) {
        match self {
            Self::Scale(scale) => {
                into.insert("scale".to_owned(), json!(scale));
            }
            Self::Sides { width, height } => {
                for (name, side) in [("width", width), ("height", height)] {
                    if let Some(side) = side {
                        into.insert(name.to_owned(), json!(side));
                    }
                }
            }
        }
    }
}

/// `int(side × scale)`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "sides of pictures, by a factor of 8 at most"
)]
fn scaled(side: u64, scale: f64) -> u64 {
    (side as f64 * scale) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(enlarged: Enlarged, from: (u32, u32)) -> [(u32, u32); 2] {
        let Target { covers, kept } =
            enlarged.target(ImageSize { width: from.0, height: from.1 }, 8).unwrap();
        [(covers.width, covers.height), (kept.width, kept.height)]
    }

    #[test]
    fn targets_are_those_of_a1111_on_the_grid() {
        for (from, enlarged, covers, kept) in [
            ((512, 768), Enlarged::Scale(2.0), (1024, 1536), (1024, 1536)),
            // 665.6 and 998.4, then down to the grid
            ((512, 768), Enlarged::Scale(1.3), (664, 992), (664, 992)),
            ((512, 768), Enlarged::Sides { width: Some(1024), height: None }, (1024, 1536), (1024, 1536)),
            ((512, 768), Enlarged::Sides { width: None, height: Some(1152) }, (768, 1152), (768, 1152)),
            // wider than the picture: cut above and below
            ((512, 512), Enlarged::Sides { width: Some(1024), height: Some(768) }, (1024, 1024), (1024, 768)),
            ((512, 512), Enlarged::Sides { width: Some(768), height: Some(1024) }, (1024, 1024), (768, 1024)),
            ((64, 64), Enlarged::Scale(1.0), (64, 64), (64, 64)),
        ] {
            assert_eq!(target(enlarged, from), [covers, kept], "{from:?} {enlarged:?}");
        }
    }

    #[test]
    fn a_target_beyond_the_limit_is_refused() {
        let from = ImageSize { width: 1024, height: 512 };
        assert_eq!(
            Enlarged::Scale(8.0).target(from, 8).unwrap_err(),
            "The picture would become 8192 × 4096 pixels; at most 4096 a side are allowed."
        );
        let tall = ImageSize { width: 64, height: 12_288 };
        assert!(Enlarged::Sides { width: Some(4096), height: Some(4096) }.target(tall, 8).is_err());
    }
}
