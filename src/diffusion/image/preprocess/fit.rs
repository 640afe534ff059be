//! Brings a picture to another size, with the ways that A1111's ControlNet extension has.

use crate::diffusion::image::{ImageError, RgbImage};
use crate::domain::{ControlResize, ImageSize};

pub(super) fn fit(image: &RgbImage, size: ImageSize, resize: ControlResize) -> Result<RgbImage, ImageError> {
    match resize {
        ControlResize::Stretch => image.resize(size),
        ControlResize::Crop => {
            // The largest part of the picture with the shape of `size`, from its middle.
            let part = largest(image.size(), size);
            cut(image, part).resize(size)
        }
        ControlResize::Fill => {
            let inner = largest(size, image.size());
            Ok(framed(&image.resize(inner)?, size, border_colour(image)))
        }
    }
}

/// The largest size inside `outer` with the shape of `shape`.
fn largest(outer: ImageSize, shape: ImageSize) -> ImageSize {
    let scaled = |side: u32, by: u32, of: u32| {
        let rounded = (u64::from(side) * u64::from(by) + u64::from(of) / 2) / u64::from(of.max(1));
        u32::try_from(rounded).unwrap_or(u32::MAX).max(1)
    };
    let is_wider =
        u64::from(outer.width) * u64::from(shape.height) > u64::from(outer.height) * u64::from(shape.width);
    match is_wider {
        true => {
            ImageSize { width: scaled(outer.height, shape.width, shape.height).min(outer.width), ..outer }
        }
        false => {
            ImageSize { height: scaled(outer.width, shape.height, shape.width).min(outer.height), ..outer }
        }
    }
}

/// The middle of the picture.
fn cut(image: &RgbImage, size: ImageSize) -> RgbImage {
    let (left, top) = ((image.width - size.width) / 2, (image.height - size.height) / 2);
    let row = |y: u32| {
        let start = (y as usize * image.width as usize + left as usize) * 3;
        &image.pixels[start..start + size.width as usize * 3]
    };
    let pixels = (top..top + size.height).flat_map(row).copied().collect();
    RgbImage { width: size.width, height: size.height, pixels }
}

/// The picture in the middle of a larger one of this colour.
fn framed(image: &RgbImage, size: ImageSize, colour: [u8; 3]) -> RgbImage {
    let mut pixels = colour.repeat(size.width as usize * size.height as usize);
    let (left, top) = ((size.width - image.width) / 2, (size.height - image.height) / 2);
    for (y, row) in (top as usize..).zip(image.pixels.chunks_exact(image.width as usize * 3)) {
        let start = (y * size.width as usize + left as usize) * 3;
        pixels[start..start + row.len()].copy_from_slice(row);
    }
    RgbImage { width: size.width, height: size.height, pixels }
}

/// The median of each channel along the border.
fn border_colour(image: &RgbImage) -> [u8; 3] {
    let (last_x, last_y) = (image.width.saturating_sub(1), image.height.saturating_sub(1));
    let is_border = |index: usize| {
        let (x, y) = (index % image.width as usize, index / image.width as usize);
        x == 0 || y == 0 || x == last_x as usize || y == last_y as usize
    };
    let border: Vec<[u8; 3]> = image
        .pixels
        .as_chunks::<3>()
        .0
        .iter()
        .enumerate()
        .filter(|(at, _)| is_border(*at))
        .map(|(_, p)| *p)
        .collect();
    [0, 1, 2].map(|channel| {
        let mut values: Vec<u8> = border.iter().map(|pixel| pixel[channel]).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four columns by two rows: black, red, red, black.
    fn wide() -> RgbImage {
        let row = [[0; 3], [255, 0, 0], [255, 0, 0], [0; 3]].concat();
        RgbImage { width: 4, height: 2, pixels: row.repeat(2) }
    }

    #[test]
    fn a_wide_picture_is_stretched_cropped_or_filled() {
        let square = ImageSize { width: 2, height: 2 };
        let fit = |resize| fit(&wide(), square, resize).unwrap();
        assert_eq!(fit(ControlResize::Crop).pixels, [255, 0, 0].repeat(4));
        assert_eq!(fit(ControlResize::Stretch).size(), square);
        let tall = ImageSize { width: 4, height: 6 };
        let filled = super::fit(&wide(), tall, ControlResize::Fill).unwrap();
        assert_eq!(filled.size(), tall);
        assert_eq!(&filled.pixels[4 * 2 * 3..4 * 4 * 3], &wide().pixels, "the picture is in the middle");
        let black = |pixels: &[u8]| pixels.iter().all(|byte| *byte == 0);
        assert!(black(&border_colour(&wide())) == black(&filled.pixels[..4 * 2 * 3]));
    }

    #[test]
    fn the_largest_part_has_the_shape_and_at_least_a_pixel() {
        let size = |width, height| ImageSize { width, height };
        assert_eq!(largest(size(100, 50), size(512, 512)), size(50, 50));
        assert_eq!(largest(size(50, 100), size(512, 256)), size(50, 25));
        assert_eq!(largest(size(5000, 1), size(64, 512)), size(1, 1));
        assert_eq!(largest(size(64, 64), size(1, 5000)), size(1, 64));
    }
}
