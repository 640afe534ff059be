//! A picture while it is enlarged: by a filter at once, or by a model tile by tile.

use std::vec::IntoIter;

use super::DiffusionError;
use super::upscalers::SharedUpscaler;
use crate::diffusion::image::RgbImage;
use crate::diffusion::nets::{Tile, tiles};
use crate::domain::{ImageSize, PixelMode, Target};

/// A model enlarges by its own factor, so it may have to do so again. A1111 does it as often.
const MOST_ROUNDS: usize = 3;
/// The most pixels that come out of a model. More would only be made smaller again.
const MOST_PIXELS: u64 = 1 << 26;

/// One picture on its way to another size.
pub(super) struct Enlarging {
    picture: RgbImage,
    target: Target,
    by: By,
}

/// What enlarges it.
pub(super) enum By {
    Pixels(PixelMode),
    Model(Rounds),
}

/// The tiles of each time that the model enlarges the picture.
pub(super) struct Rounds {
    net: SharedUpscaler,
    /// The sizes that it enlarges from after this one.
    after: IntoIter<ImageSize>,
    tiles: IntoIter<Tile>,
    canvas: RgbImage,
}

impl Enlarging {
    /// The most bytes of the pictures that a model enlarges and makes.
    pub const LARGEST: u64 = MOST_PIXELS * 3 * 5 / 4;

    pub fn by_pixels(picture: RgbImage, target: Target, mode: PixelMode) -> Self {
        Self { picture, target, by: By::Pixels(mode) }
    }

    pub fn by_model(picture: RgbImage, target: Target, net: SharedUpscaler) -> Result<Self, DiffusionError> {
        let (name, scale) = (net.borrow().name().to_owned(), net.borrow().scale());
        let mut after = rounds(picture.size(), target.covers, scale, &name)?.into_iter();
        after.next();
        let (tiles, canvas) = begin_round(&picture, scale);
        Ok(Self { picture, target, by: By::Model(Rounds { net, after, tiles, canvas }) })
    }

    /// The tiles of all rounds, by a model that enlarges `scale` times.
    pub fn tiles(from: ImageSize, target: Target, scale: usize, name: &str) -> Result<u32, DiffusionError> {
        let sizes = rounds(from, target.covers, scale, name)?;
        let count: usize = sizes.into_iter().map(|size| tiles(size).len()).sum();
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Whether only [`Self::finish`] is left.
    pub fn is_done(&self) -> bool {
        match &self.by {
            By::Pixels(_) => true,
            By::Model(rounds) => rounds.tiles.len() == 0 && rounds.after.len() == 0,
        }
    }

    /// Enlarges one tile.
    pub fn step(&mut self) -> Result<(), DiffusionError> {
        let By::Model(rounds) = &mut self.by else { return Ok(()) };
        if let Some(tile) = rounds.tiles.as_slice().first() {
            rounds.net.borrow_mut().enlarge(tile, &self.picture, &mut rounds.canvas)?;
            rounds.tiles.next();
        }
        if rounds.tiles.len() == 0 && rounds.after.next().is_some() {
            let scale = rounds.net.borrow().scale();
            self.picture = std::mem::replace(&mut rounds.canvas, blank(ImageSize { width: 0, height: 0 }));
            (rounds.tiles, rounds.canvas) = begin_round(&self.picture, scale);
        }
        Ok(())
    }

    /// The picture at its target. What a model did not reach is done by Lanczos, as in A1111.
    pub fn finish(&self) -> Result<RgbImage, DiffusionError> {
        let Target { covers, kept } = self.target;
        let enlarged = match &self.by {
            By::Pixels(PixelMode::Nearest) => self.picture.resize_nearest(covers),
            By::Pixels(PixelMode::Lanczos | PixelMode::None) => self.picture.resize(covers)?,
            By::Model(rounds) => rounds.canvas.resize(covers)?,
        };
        Ok(enlarged.middle(kept))
    }
}

fn begin_round(picture: &RgbImage, scale: usize) -> (IntoIter<Tile>, RgbImage) {
    (tiles(picture.size()).into_iter(), blank(enlarged(picture.size(), scale)))
}

fn blank(size: ImageSize) -> RgbImage {
    let bytes = size.width as usize * size.height as usize * 3;
    RgbImage { width: size.width, height: size.height, pixels: vec![0; bytes] }
}

fn enlarged(size: ImageSize, scale: usize) -> ImageSize {
    let scale = u32::try_from(scale).unwrap_or(u32::MAX);
    ImageSize { width: size.width.saturating_mul(scale), height: size.height.saturating_mul(scale) }
}

/// The sizes that a model enlarges from until `covers` is reached.
fn rounds(
    from: ImageSize,
    covers: ImageSize,
    scale: usize,
    name: &str,
) -> Result<Vec<ImageSize>, DiffusionError> {
    let pixels = |size: ImageSize| u64::from(size.width) * u64::from(size.height);
    if pixels(enlarged(from, scale)) > MOST_PIXELS {
        return Err(DiffusionError::Upscaling(format!(
            "The picture has {} × {} pixels, and {name} makes it {scale} times as wide and high; at most {MOST_PIXELS} \
             pixels may come out. Send a smaller picture.",
            from.width, from.height
        )));
    }
    let mut sizes = vec![from];
    let mut size = enlarged(from, scale);
    let is_short = |size: ImageSize| size.width < covers.width || size.height < covers.height;
    while scale > 1
        && is_short(size)
        && sizes.len() < MOST_ROUNDS
        && pixels(enlarged(size, scale)) <= MOST_PIXELS
    {
        sizes.push(size);
        size = enlarged(size, scale);
    }
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn square(side: u32) -> ImageSize {
        ImageSize { width: side, height: side }
    }

    #[test]
    fn a_model_enlarges_as_often_as_the_target_needs() {
        for (from, covers, scale, times) in
            [(128, 256, 2, 1), (128, 300, 2, 2), (128, 4096, 2, 3), (128, 128, 4, 1), (128, 512, 1, 1)]
        {
            assert_eq!(
                rounds(square(from), square(covers), scale, "x").unwrap().len(),
                times,
                "{from} {covers}"
            );
        }
        let error = rounds(square(4096), square(4096), 4, "x").unwrap_err().to_string();
        assert!(error.contains("4096 × 4096") && error.ends_with("Send a smaller picture."), "{error}");
    }

    #[test]
    fn a_filter_covers_the_target_and_keeps_the_middle() {
        let picture = RgbImage { width: 2, height: 1, pixels: vec![0, 0, 0, 255, 255, 255] };
        let target =
            Target { covers: ImageSize { width: 8, height: 4 }, kept: ImageSize { width: 4, height: 4 } };
        let enlarging = Enlarging::by_pixels(picture, target, PixelMode::Nearest);
        assert!(enlarging.is_done());
        let result = enlarging.finish().unwrap();
        assert_eq!((result.width, result.height), (4, 4));
        assert_eq!(result.pixels[..12], [0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255]);
    }
}
