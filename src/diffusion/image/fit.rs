//! Brings a picture to the shape of another size: stretched, cut, or with a rim.
//!
//! These are A1111's resize modes (`modules/images.py`, `resize_image`), which diffusers' `VaeImageProcessor` has as
//! `resize_mode`. Sizes are in pixels.

use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions};

use super::{ImageError, Region, RgbImage};
use crate::domain::{ControlResize, ImageSize, Outpaint, ResizeMode};

impl RgbImage {
    /// The picture at another size. Latents are not stretched here, so `Latent` is the same as `Stretch`.
    pub fn fit(&self, size: ImageSize, mode: ResizeMode) -> Result<Self, ImageError> {
        match mode {
            ResizeMode::Stretch | ResizeMode::Latent => self.resize(size),
            ResizeMode::Crop => self.cover(size),
            ResizeMode::Fill => self.contain(size, |_, edge, within| beyond(edge, within)),
        }
    }

    /// The same in the way of A1111's ControlNet extension (`scripts/controlnet.py`, `detectmap_proc`), where a rim has
    /// the colour of the border.
    pub fn fit_control(&self, size: ImageSize, resize: ControlResize) -> Result<Self, ImageError> {
        match resize {
            ControlResize::Stretch => self.resize(size),
            ControlResize::Crop => self.cover(size),
            ControlResize::Fill => {
                let colour = self.border_colour();
                self.contain(size, |channel, _, _| colour[channel])
            }
        }
    }

    /// Scales the picture so that it covers `size`, and keeps the middle.
    fn cover(&self, size: ImageSize) -> Result<Self, ImageError> {
        let scaled = self.scaled(size, self.is_narrower_than(size));
        // What is cut off is never computed: of a very long picture it would be huge.
        let left = (scaled.width / 2).saturating_sub(size.width / 2);
        let top = (scaled.height / 2).saturating_sub(size.height / 2);
        let (across, left) = cut(self.width, scaled.width, left, size.width);
        let (down, top) = cut(self.height, scaled.height, top, size.height);
        self.resize_box([left, top, across, down], size)
    }

    /// A region of the picture at another size. The filter sees what lies beyond the region's edges.
    pub fn resize_part(&self, region: Region, size: ImageSize) -> Result<Self, ImageError> {
        let Region { left, top, width, height } = region;
        self.resize_box([left, top, width, height].map(f64::from), size)
    }

    /// The same with left, top, width and height in parts of pixels.
    fn resize_box(&self, [left, top, across, down]: [f64; 4], size: ImageSize) -> Result<Self, ImageError> {
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
        let wide = self.resize_axis(
            ImageSize { width: size.width, height: self.height },
            &options.crop(left, 0.0, across, f64::from(self.height)),
        )?;
        wide.resize_axis(size, &options.crop(0.0, top, f64::from(size.width), down))
    }

    /// Scales the picture so that it lies within `size`, in the middle of a rim. `rim` makes a value of it from its channel,
    /// the edge's value and the one within.
    fn contain(&self, size: ImageSize, rim: impl Fn(usize, u8, u8) -> u8) -> Result<Self, ImageError> {
        let inner = self.resize(self.scaled(size, !self.is_narrower_than(size)))?;
        let before = |all: u32, inner: u32| (all / 2).saturating_sub(inner / 2);
        let (left, top) = (before(size.width, inner.width), before(size.height, inner.height));
        let after = |all: u32, before: u32, inner: u32| all.saturating_sub(before + inner);
        let right = after(size.width, left, inner.width);
        let bottom = after(size.height, top, inner.height);
        Ok(inner.framed(Outpaint { left, right, top, bottom }, rim))
    }

    /// The picture with more pixels around it, which repeat its edges.
    #[must_use]
    pub fn padded(&self, by: Outpaint) -> Self {
        self.framed(by, |_, edge, _| edge)
    }

    /// A frame around the picture. `frame` makes a value of it from its channel, the edge's value and the one within.
    fn framed(&self, by: Outpaint, frame: impl Fn(usize, u8, u8) -> u8) -> Self {
        let size = by.around(self.size());
        let mut pixels = Vec::with_capacity(size.width as usize * size.height as usize * 3);
        let (width, height) = (self.width as usize, self.height as usize);
        let row = |y: usize| &self.pixels[y * width * 3..][..width * 3];
        let mut add_row = |values: &[u8]| {
            let pixel = |x: usize| &values[x * 3..][..3];
            let rim = |edge: &[u8], within: &[u8]| [0, 1, 2].map(|c| frame(c, edge[c], within[c]));
            let left = rim(pixel(0), pixel(1.min(width - 1)));
            let right = rim(pixel(width - 1), pixel(width.saturating_sub(2)));
            pixels.extend(std::iter::repeat_n(left, by.left as usize).flatten());
            pixels.extend(values);
            pixels.extend(std::iter::repeat_n(right, by.right as usize).flatten());
        };
        let rim = |edge: &[u8], within: &[u8]| -> Vec<u8> {
            edge.iter()
                .zip(within)
                .enumerate()
                .map(|(at, (&edge, &within))| frame(at % 3, edge, within))
                .collect()
        };
        let above = rim(row(0), row(1.min(height - 1)));
        let below = rim(row(height - 1), row(height.saturating_sub(2)));
        (0..by.top).for_each(|_| add_row(&above));
        (0..height).for_each(|y| add_row(row(y)));
        (0..by.bottom).for_each(|_| add_row(&below));
        Self { width: size.width, height: size.height, pixels }
    }

    /// The median of each channel along the border.
    fn border_colour(&self) -> [u8; 3] {
        let width = self.width.max(1) as usize;
        let (last_x, last_y) = (width - 1, self.height.saturating_sub(1) as usize);
        let pixels = self.pixels.as_chunks::<3>().0.iter().enumerate();
        let border: Vec<&[u8; 3]> = pixels
            .filter(|(at, _)| [0, last_x].contains(&(at % width)) || [0, last_y].contains(&(at / width)))
            .map(|(_, pixel)| pixel)
            .collect();
        [0, 1, 2].map(|channel| {
            let mut values: Vec<u8> = border.iter().map(|pixel| pixel[channel]).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        })
    }

    /// Whether `size` is wider in shape than the picture.
    fn is_narrower_than(&self, size: ImageSize) -> bool {
        u64::from(size.width) * u64::from(self.height) > u64::from(size.height) * u64::from(self.width)
    }

    /// The size at which the picture's width is that of `size`, or its height. The other side is rounded down.
    fn scaled(&self, size: ImageSize, by_width: bool) -> ImageSize {
        let other = |other: u32, to: u32, from: u32| {
            let scaled = u64::from(other) * u64::from(to) / u64::from(from.max(1));
            u32::try_from(scaled).unwrap_or(u32::MAX).max(1)
        };
        if by_width {
            ImageSize { width: size.width, height: other(self.height, size.width, self.width) }
        } else {
            ImageSize { width: other(self.width, size.height, self.height), height: size.height }
        }
    }
}

/// The part of `from` pixels that becomes `kept` of `scaled` ones, from the one at `start`: its length and its start.
fn cut(from: u32, scaled: u32, start: u32, kept: u32) -> (f64, f64) {
    let scale = f64::from(from) / f64::from(scaled);
    let start = f64::from(start) * scale;
    ((f64::from(kept) * scale).min(f64::from(from) - start), start)
}

/// What lies beyond an edge. Pillow draws the reference's rim from a box without pixels, where its bicubic filter goes on
/// with the slope: 9/8 of the edge without 1/8 of the value within.
fn beyond(edge: u8, within: u8) -> u8 {
    let value = (9 * i32::from(edge) - i32::from(within) + 4) >> 3;
    u8::try_from(value.clamp(0, 255)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::*;

    #[test]
    fn pictures_are_cut_and_framed_as_diffusers_does_it() {
        let golden = golden::inpainting();
        for case in golden["fit"].as_array().unwrap() {
            let side = |name: &str, at: usize| u32::try_from(case[name][at].as_u64().unwrap()).unwrap();
            let picture = golden::picture(side("from", 0), side("from", 1));
            let mode = match case["mode"].as_str().unwrap() {
                "crop" => ResizeMode::Crop,
                _ => ResizeMode::Fill,
            };
            let fitted =
                picture.fit(ImageSize { width: side("to", 0), height: side("to", 1) }, mode).unwrap();
            let expected = golden::bytes(&case["pixels"]);
            assert_eq!(fitted.pixels.len(), expected.len());
            let furthest = fitted.pixels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
            // The rim of a picture that differs by one differs by up to 10/8.
            assert!(furthest <= Some(2), "{furthest:?} at {}", case["mode"]);
        }
    }

    #[test]
    fn a_controlnet_s_picture_is_cropped_or_filled_with_its_border_s_colour() {
        // Black, red, red, black.
        let row = [[0; 3], [255, 0, 0], [255, 0, 0], [0; 3]].concat();
        let wide = RgbImage { width: 4, height: 2, pixels: row.repeat(2) };
        let square = wide.fit_control(ImageSize { width: 2, height: 2 }, ControlResize::Crop).unwrap();
        assert_eq!(square.pixels, [255, 0, 0].repeat(4));
        let filled = wide.fit_control(ImageSize { width: 4, height: 6 }, ControlResize::Fill).unwrap();
        assert_eq!(&filled.pixels[4 * 2 * 3..4 * 4 * 3], &wide.pixels, "the picture is in the middle");
        let colour = wide.border_colour();
        assert_eq!(filled.pixels[..4 * 2 * 3], colour.repeat(8));
        assert_eq!(filled.pixels[4 * 4 * 3..], colour.repeat(8));
        // The border has as many red pixels as black ones, and the larger of two middle values counts.
        assert_eq!(colour, [255, 0, 0]);
    }

    #[test]
    fn a_very_long_picture_is_cut_before_it_is_enlarged() {
        let line = RgbImage { width: 60_000, height: 1, pixels: vec![9; 180_000] };
        let size = ImageSize { width: 512, height: 512 };
        let covered = line.fit(size, ResizeMode::Crop).unwrap();
        assert!(covered.size() == size && covered.pixels.iter().all(|&value| value == 9));
        let contained = line.fit(size, ResizeMode::Fill).unwrap();
        assert!(contained.size() == size && contained.pixels.iter().all(|&value| value == 9));
    }

    #[test]
    fn a_part_is_resized_as_within_the_whole() {
        let picture = golden::picture(40, 30);
        let whole = picture.resize(ImageSize { width: 80, height: 60 }).unwrap();
        let region = Region { left: 10, top: 5, width: 20, height: 15 };
        let part = picture.resize_part(region, ImageSize { width: 40, height: 30 }).unwrap();
        let doubled = Region { left: 20, top: 10, width: 40, height: 30 };
        // Weights are rounded for each size.
        let expected = doubled.cut(&whole);
        let furthest = part.pixels.iter().zip(&expected.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(part.size() == expected.size() && furthest <= Some(1), "{furthest:?}");
        assert_eq!(picture.resize_part(region, region.size()).unwrap(), region.cut(&picture));
    }

    #[test]
    fn padding_repeats_the_edges() {
        let picture = RgbImage { width: 2, height: 1, pixels: vec![1, 2, 3, 4, 5, 6] };
        let padded = picture.padded(Outpaint { left: 1, right: 2, top: 0, bottom: 1 });
        let row = [1, 2, 3, 1, 2, 3, 4, 5, 6, 4, 5, 6, 4, 5, 6];
        assert_eq!((padded.size(), padded.pixels), (ImageSize { width: 5, height: 2 }, [row, row].concat()));
    }
}
