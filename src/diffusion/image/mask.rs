//! The mask of a picture: which pixels are repainted.

use ndarray::Array4;

use super::{ImageError, Region, RgbImage};
use crate::domain::{ImageSize, Outpaint, ResizeMode};

/// A mask of a picture. Each pixel is either repainted or kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    /// Row by row from the top.
    repainted: Vec<bool>,
}

impl Mask {
    /// The mask in a picture, as diffusers' `mask_processor` reads it (`do_binarize`, `do_convert_grayscale`): it is
    /// resized, made grey and split at the middle. White is repainted; with `invert`, black is.
    pub fn new(image: &RgbImage, size: ImageSize, invert: bool) -> Result<Self, ImageError> {
        let image = image.resize(size)?;
        let repainted = image.pixels.chunks_exact(3).map(|pixel| (grey(pixel) >= 128) != invert).collect();
        Ok(Self { width: size.width as usize, height: size.height as usize, repainted })
    }

    /// A mask that keeps everything.
    pub fn nothing(size: ImageSize) -> Self {
        Self { repainted: vec![false; size.width as usize * size.height as usize], ..Self::everything(size) }
    }

    /// The mask of a picture with more pixels around it, which are repainted, with those up to `overlap` pixels within its
    /// edge.
    #[must_use]
    pub fn outpainted(&self, by: Outpaint, overlap: u32) -> Self {
        let before = |added: u32| if added == 0 { 0 } else { (added + overlap) as usize };
        let (left, top) = (before(by.left), before(by.top));
        let width = self.width + by.left as usize + by.right as usize;
        let height = self.height + by.top as usize + by.bottom as usize;
        let (right, bottom) =
            (width.saturating_sub(before(by.right)), height.saturating_sub(before(by.bottom)));
        let mut repainted = vec![true; width * height];
        for y in top..bottom {
            for x in left..right {
                let at = (y - by.top as usize) * self.width + x - by.left as usize;
                repainted[y * width + x] = self.repainted[at];
            }
        }
        Self { width, height, repainted }
    }

    /// The part of the mask within a region, brought to another size with the rim that its picture gets.
    pub fn fit(&self, region: Region, size: ImageSize) -> Result<Self, ImageError> {
        let row = |y: u32| {
            let start = y as usize * self.width + region.left as usize;
            &self.repainted[start..][..region.width as usize]
        };
        let white = |&repainted: &bool| [if repainted { 255 } else { 0 }; 3];
        let pixels = (region.top..region.top + region.height).flat_map(row).flat_map(white).collect();
        let part = RgbImage { width: region.width, height: region.height, pixels };
        Self::new(&part.fit(size, ResizeMode::Fill)?, size, false)
    }

    /// Whether each pixel is repainted, row by row from the top.
    pub fn repainted(&self) -> impl Iterator<Item = bool> {
        self.repainted.iter().copied()
    }

    /// A mask that repaints everything.
    pub fn everything(size: ImageSize) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        Self { width, height, repainted: vec![true; width * height] }
    }

    /// Makes the repainted pixels of a picture `[1, 3, height, width]` grey, which is 0.
    pub fn hide(&self, picture: &mut Array4<f32>) {
        for ((_, _, y, x), value) in picture.indexed_iter_mut() {
            if self.repainted.get(y * self.width + x) == Some(&true) {
                *value = 0.0;
            }
        }
    }

    /// `[1, 1, height, width]` in latents, each `scale` pixels wide and high; 1 where a latent is repainted. The first
    /// pixel of a latent decides, as in torch's `interpolate` ("nearest").
    pub fn to_latents(&self, scale: usize) -> Array4<f32> {
        let (height, width) = (self.height / scale, self.width / scale);
        Array4::from_shape_fn((1, 1, height, width), |(_, _, y, x)| {
            f32::from(u8::from(self.repainted[y * scale * self.width + x * scale]))
        })
    }
}

/// Pillow's `convert("L")`: ITU-R 601-2 in 16-bit fixed point.
fn grey(pixel: &[u8]) -> u8 {
    let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ImageSize = ImageSize { width: 16, height: 8 };

    /// The right half is `colour`, the rest black.
    fn half(colour: [u8; 3]) -> RgbImage {
        let pixels = (0..SIZE.width * SIZE.height)
            .flat_map(|at| if at % SIZE.width < SIZE.width / 2 { [0; 3] } else { colour })
            .collect();
        RgbImage { width: SIZE.width, height: SIZE.height, pixels }
    }

    fn latents(colour: [u8; 3], invert: bool) -> Vec<f32> {
        Mask::new(&half(colour), SIZE, invert).unwrap().to_latents(8).into_raw_vec_and_offset().0
    }

    #[test]
    fn white_is_repainted_and_black_kept_unless_inverted() {
        assert_eq!(latents([255; 3], false), [0.0, 1.0]);
        assert_eq!(latents([255; 3], true), [1.0, 0.0]);
        assert_eq!(latents([128; 3], false), [0.0, 1.0]);
        assert_eq!(latents([127; 3], false), [0.0, 0.0]);
        // Pillow's grey of pure green is 150, of pure red 76.
        assert_eq!(latents([0, 255, 0], false), [0.0, 1.0]);
        assert_eq!(latents([255, 0, 0], false), [0.0, 0.0]);
    }

    #[test]
    fn a_mask_of_another_size_is_resized() {
        let dot = RgbImage { width: 1, height: 1, pixels: vec![255; 3] };
        assert_eq!(Mask::new(&dot, SIZE, false).unwrap(), Mask::everything(SIZE));
    }

    #[test]
    fn outpainting_repaints_the_added_pixels_and_an_overlap() {
        let picture = ImageSize { width: 4, height: 2 };
        let by = Outpaint { left: 2, bottom: 1, ..Outpaint::default() };
        let shown = |mask: Mask| -> Vec<String> {
            let dots: Vec<char> =
                mask.repainted().map(|repainted| if repainted { '#' } else { '.' }).collect();
            dots.chunks(mask.width).map(|row| row.iter().collect()).collect()
        };
        assert_eq!(shown(Mask::nothing(picture).outpainted(by, 0)), ["##....", "##....", "######"]);
        assert_eq!(shown(Mask::nothing(picture).outpainted(by, 1)), ["###...", "######", "######"]);
        assert_eq!(shown(Mask::everything(picture).outpainted(by, 0)), ["######"; 3]);
        assert_eq!(shown(Mask::nothing(picture).outpainted(by, 9)), ["######"; 3]);
    }

    #[test]
    fn a_part_of_a_mask_is_enlarged_with_its_rim() {
        let mask = Mask::new(&half([255; 3]), SIZE, false).unwrap();
        let region = Region { left: 4, top: 0, width: 8, height: 8 };
        let part = mask.fit(region, ImageSize { width: 32, height: 16 }).unwrap();
        // The region becomes 16 × 16 in the middle; its right half is white, and so is the rim beyond it.
        assert_eq!(
            part.repainted().take(32).collect::<Vec<_>>(),
            (0..32).map(|x| x >= 16).collect::<Vec<_>>()
        );
    }

    #[test]
    fn repainted_pixels_are_hidden() {
        let mut picture = Array4::from_elem((1, 3, 8, 16), 0.5);
        Mask::new(&half([255; 3]), SIZE, false).unwrap().hide(&mut picture);
        assert!((picture.sum() - 0.5 * 3.0 * 64.0).abs() < 1e-6);
        assert!((picture[[0, 2, 7, 8]]).abs() < f32::EPSILON);
    }
}
