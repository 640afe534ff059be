//! `outpaint`: pixels that are added around a picture.

use super::ImageSize;
use super::reader::{Reader, small};

/// The most pixels that `outpaint` adds on one side.
pub const MAX_OUTPAINT: u64 = 2048;

/// The pixels that are added to a picture on each side, and painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outpaint {
    pub left: u32,
    pub right: u32,
    pub top: u32,
    pub bottom: u32,
}

impl Outpaint {
    pub const SIDES: [&str; 4] = ["left", "right", "top", "bottom"];

    /// The size of a picture with these pixels around it.
    pub fn around(self, picture: ImageSize) -> ImageSize {
        let side =
            |picture: u32, before: u32, after: u32| picture.saturating_add(before).saturating_add(after);
        ImageSize {
            width: side(picture.width, self.left, self.right),
            height: side(picture.height, self.top, self.bottom),
        }
    }

    /// Reads the object `outpaint`, whose fields are [`Self::SIDES`].
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let outpaint = reader.within("outpaint", |sides| {
            sides.refuse_unknown(&Self::SIDES);
            let pixels = Self::SIDES.map(|side| match sides.is_present(side) {
                true => sides.integer(side, 0, MAX_OUTPAINT).map(small),
                false => Some(0),
            });
            let [Some(left), Some(right), Some(top), Some(bottom)] = pixels else { return None };
            Some(Self { left, right, top, bottom })
        })??;
        if outpaint == Self::default() {
            reader.unmet("outpaint", "It adds no pixels; name some of left, right, top and bottom.");
            return None;
        }
        Some(outpaint)
    }
}
