//! A part of a picture that is drawn alone, at its own size.
//!
//! The rules are those of A1111's "Only masked" (`modules/masking.py`), which diffusers has as `padding_mask_crop`.

use super::RgbImage;
use crate::domain::ImageSize;

/// A rectangle of pixels. It has at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

impl Region {
    /// All of a picture.
    pub fn whole(ImageSize { width, height }: ImageSize) -> Self {
        Self { left: 0, top: 0, width, height }
    }

    pub fn size(self) -> ImageSize {
        ImageSize { width: self.width, height: self.height }
    }

    /// The smallest that holds every chosen pixel of a picture of this width. None if no pixel is chosen.
    pub fn around(chosen: impl Iterator<Item = bool>, width: u32) -> Option<Self> {
        let width = width.max(1) as usize;
        let mut bounds: Option<[usize; 4]> = None;
        for at in chosen.enumerate().filter_map(|(at, chosen)| chosen.then_some(at)) {
            let (x, y) = (at % width, at / width);
            let [left, top, right, bottom] = bounds.unwrap_or([x, y, x, y]);
            bounds = Some([left.min(x), top, right.max(x), bottom.max(y)]);
        }
        let [left, top, right, bottom] = bounds?.map(|bound| u32::try_from(bound).unwrap_or(u32::MAX));
        Some(Self { left, top, width: right - left + 1, height: bottom - top + 1 })
    }

    /// With `padding` more pixels on each side, where the picture has them.
    #[must_use]
    pub fn padded(self, padding: u32, picture: ImageSize) -> Self {
        let (left, top) = (self.left.saturating_sub(padding), self.top.saturating_sub(padding));
        let end = |end: u32, side: u32| end.saturating_add(padding).min(side);
        Self {
            left,
            top,
            width: end(self.left + self.width, picture.width) - left,
            height: end(self.top + self.height, picture.height) - top,
        }
    }

    /// Grown to the shape of `drawn_at`, as far as the picture reaches.
    #[must_use]
    pub fn expanded(self, drawn_at: ImageSize, picture: ImageSize) -> Self {
        let shape = f64::from(drawn_at.width) / f64::from(drawn_at.height);
        if f64::from(self.width) / f64::from(self.height) > shape {
            let height = f64::from(self.width) / shape;
            let (top, height) = grown(self.top, self.height, height, picture.height);
            Self { top, height, ..self }
        } else {
            let width = f64::from(self.height) * shape;
            let (left, width) = grown(self.left, self.width, width, picture.width);
            Self { left, width, ..self }
        }
    }

    /// This part of a picture, which must reach so far.
    pub fn cut(self, picture: &RgbImage) -> RgbImage {
        let row = |y: u32| {
            let start = (y as usize * picture.width as usize + self.left as usize) * 3;
            &picture.pixels[start..][..self.width as usize * 3]
        };
        let pixels = (self.top..self.top + self.height).flat_map(row).copied().collect();
        RgbImage { width: self.width, height: self.height, pixels }
    }
}

/// A span of one axis, grown on both sides to `wanted` pixels, and moved to lie within `side`: its start and its length.
fn grown(start: u32, length: u32, wanted: f64, side: u32) -> (u32, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the reference rounds down, and casts saturate")]
    let more = (wanted - f64::from(length)) as i64;
    let (side, mut start, mut end) =
        (i64::from(side), i64::from(start), i64::from(start) + i64::from(length));
    start -= more / 2;
    end += more - more / 2;
    if end >= side {
        start -= end - side;
        end = side;
    }
    if start < 0 {
        end = (end - start).min(side);
        start = 0;
    }
    let pixels = |value: i64| u32::try_from(value).unwrap_or_default();
    (pixels(start), pixels(end - start))
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn regions_are_those_of_a1111_and_diffusers() {
        let golden = golden::inpainting();
        let cases = golden["regions"].as_array().unwrap();
        assert!(cases.len() > 100);
        for case in cases {
            let numbers = |name: &str| -> Vec<u32> {
                case[name]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|n| u32::try_from(n.as_u64().unwrap()).unwrap())
                    .collect()
            };
            let size = |name: &str| ImageSize { width: numbers(name)[0], height: numbers(name)[1] };
            let (picture, drawn_at, boxed) = (size("picture"), size("drawn_at"), numbers("mask"));
            let inside = |at: u32| {
                let (x, y) = (at % picture.width, at / picture.width);
                (boxed[0]..boxed[2]).contains(&x) && (boxed[1]..boxed[3]).contains(&y)
            };
            let around =
                Region::around((0..picture.width * picture.height).map(inside), picture.width).unwrap();
            let region = around.padded(numbers("padding")[0], picture).expanded(drawn_at, picture);
            let found =
                [region.left, region.top, region.left + region.width, region.top + region.height].to_vec();
            assert_eq!(found, numbers("region"), "{case}");
        }
    }

    #[test]
    fn an_empty_mask_has_no_region() {
        assert_eq!(Region::around([false; 12].into_iter(), 4), None);
    }

    #[test]
    fn a_part_is_cut_out() {
        let picture = RgbImage { width: 3, height: 2, pixels: (0..18).collect() };
        let part = Region { left: 1, top: 1, width: 2, height: 1 }.cut(&picture);
        assert_eq!((part.size(), part.pixels), (ImageSize { width: 2, height: 1 }, (12..18).collect()));
    }
}
