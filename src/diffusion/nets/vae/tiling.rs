//! Sends a large picture through the VAE in overlapping tiles.
//!
//! The VAE's memory grows with the pixels of a call: several gigabytes at 1024 × 768. Tiles overlap by a quarter
//! and fade linearly towards their inner edges, so that one blends into the next. (diffusers' `AutoencoderKL.tiled_decode`
//! has the same tiles.) A tile normalises by its own statistics, so the result differs a little from that of one call.
//! Pictures up to a limit are processed in one call, as in the reference.

use ndarray::{Array4, ArrayView1, Zip, s};

use crate::diffusion::nets::ModelError;
use crate::domain::ModelPart;

/// The most pixels in one call.
const WHOLE_PIXELS: usize = 768 * 768;
/// A tile's side and its overlap with the next tile, in pixels.
const TILE: usize = 512;
const OVERLAP: usize = 128;

/// The pixels of the largest call for a picture of so many pixels.
pub fn pixels_per_call(pixels: u64) -> u64 {
    if pixels <= WHOLE_PIXELS as u64 { pixels } else { (TILE * TILE) as u64 }
}

/// How a picture is cut. Units are latents, except for `scale`, the pixels along a latent's side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiling {
    scale: usize,
    whole: usize,
    tile: usize,
    overlap: usize,
}

/// One tile's extent along one axis, and its weights there.
struct Span {
    start: usize,
    /// One for each value of the tile.
    weights: Vec<f32>,
}

impl Tiling {
    pub fn new(vae_scale_factor: u32) -> Self {
        let scale = vae_scale_factor.max(1) as usize;
        Self { scale, whole: WHOLE_PIXELS / scale / scale, tile: TILE / scale, overlap: OVERLAP / scale }
    }

    /// Everything in one call.
    #[cfg(test)]
    pub fn off(self) -> Self {
        Self { whole: usize::MAX, ..self }
    }

    /// From latents `[1, c, h, w]` to pixels, by `call` on tiles of them.
    pub fn enlarging(
        self,
        latents: &Array4<f32>,
        call: impl FnMut(&Array4<f32>) -> Result<Array4<f32>, ModelError>,
    ) -> Result<Array4<f32>, ModelError> {
        let (_, _, height, width) = latents.dim();
        self.tiled(ModelPart::VaeDecoder, latents, (height, width), (1, self.scale), call)
    }

    /// From pixels to latents.
    pub fn shrinking(
        self,
        pixels: &Array4<f32>,
        call: impl FnMut(&Array4<f32>) -> Result<Array4<f32>, ModelError>,
    ) -> Result<Array4<f32>, ModelError> {
        let (_, _, height, width) = pixels.dim();
        self.tiled(
            ModelPart::VaeEncoder,
            pixels,
            (height / self.scale, width / self.scale),
            (self.scale, 1),
            call,
        )
    }

    /// `from` and `to` are the values along a latent's side in the input and in the output.
    fn tiled(
        self,
        part: ModelPart,
        input: &Array4<f32>,
        (height, width): (usize, usize),
        (from, to): (usize, usize),
        mut call: impl FnMut(&Array4<f32>) -> Result<Array4<f32>, ModelError>,
    ) -> Result<Array4<f32>, ModelError> {
        if height * width <= self.whole {
            return call(input);
        }
        let mut sum: Option<Array4<f32>> = None;
        for rows in self.spans(height, to) {
            for columns in self.spans(width, to) {
                let extent =
                    |span: &Span, by: usize| span.start * by..span.start * by + span.weights.len() / to * by;
                let place = s![.., .., extent(&rows, from), extent(&columns, from)];
                let mut tile = call(&input.slice(place).as_standard_layout().into_owned())?;
                weigh(&mut tile, &rows.weights, &columns.weights);
                let (images, channels, ..) = tile.dim();
                let sum =
                    sum.get_or_insert_with(|| Array4::zeros((images, channels, height * to, width * to)));
                let mut place = sum.slice_mut(s![.., .., extent(&rows, to), extent(&columns, to)]);
                if place.shape() != tile.shape() {
                    return Err(ModelError::Run {
                        part,
                        reason: format!(
                            "it returned a tile of {:?} instead of {:?}",
                            tile.shape(),
                            place.shape()
                        ),
                    });
                }
                place += &tile;
            }
        }
        sum.map_or_else(|| call(input), Ok)
    }

    /// The tiles along an axis of `length` latents. Their weights, `to` for each latent, add up to 1 everywhere.
    fn spans(self, length: usize, to: usize) -> Vec<Span> {
        let tile = self.tile.min(length);
        let stride = tile - self.overlap.min(tile - 1);
        let count = 1 + (length - tile).div_ceil(stride);
        // Spread evenly, so that the last tile is no sliver.
        let starts: Vec<usize> = (0..count).map(|i| (length - tile) * i / (count - 1).max(1)).collect();
        let mut total = vec![0.0; length * to];
        let mut spans: Vec<Span> = Vec::with_capacity(count);
        for (i, &start) in starts.iter().enumerate() {
            let mut weights = vec![1.0; tile * to];
            if let Some(before) = i.checked_sub(1) {
                fade(weights.iter_mut(), (starts[before] + tile - start) * to);
            }
            if let Some(next) = starts.get(i + 1) {
                fade(weights.iter_mut().rev(), (start + tile - next) * to);
            }
            total[start * to..].iter_mut().zip(&weights).for_each(|(total, weight)| *total += weight);
            spans.push(Span { start, weights });
        }
        for Span { start, weights } in &mut spans {
            weights.iter_mut().zip(&total[*start * to..]).for_each(|(weight, total)| *weight /= total);
        }
        spans
    }
}

/// Rises from near 0 to near 1 over the first `length` weights, as the neighbour falls.
#[expect(clippy::cast_precision_loss, reason = "pixels of a tile")]
fn fade<'a>(weights: impl Iterator<Item = &'a mut f32>, length: usize) {
    for (at, weight) in weights.take(length).enumerate() {
        *weight *= (at as f32 + 0.5) / length as f32;
    }
}

fn weigh(tile: &mut Array4<f32>, rows: &[f32], columns: &[f32]) {
    for mut lane in tile.rows_mut() {
        if lane.len() == columns.len() {
            Zip::from(&mut lane).and(ArrayView1::from(columns)).for_each(|value, weight| *value *= weight);
        }
    }
    for mut plane in tile.outer_iter_mut() {
        for (mut row, weight) in plane.axis_iter_mut(ndarray::Axis(1)).zip(rows) {
            row.mapv_inplace(|value| value * weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Tiling = Tiling { scale: 2, whole: 20, tile: 5, overlap: 2 };

    fn ramp(height: usize, width: usize) -> Array4<f32> {
        Array4::from_shape_fn((1, 2, height, width), |(_, c, y, x)| {
            f32::from(u8::try_from(100 * c + 9 * y + x).unwrap())
        })
    }

    /// Each latent becomes `scale²` pixels of its value, and back.
    fn enlarge(latents: &Array4<f32>) -> Array4<f32> {
        let (n, c, h, w) = latents.dim();
        Array4::from_shape_fn((n, c, 2 * h, 2 * w), |(n, c, y, x)| latents[[n, c, y / 2, x / 2]])
    }

    #[test]
    fn tiles_add_up_to_the_picture() {
        for (height, width) in [(5, 5), (5, 6), (9, 4), (8, 11), (1, 30)] {
            let latents = ramp(height, width);
            let mut largest = 0;
            let tiled = SMALL
                .enlarging(&latents, |tile| {
                    largest = largest.max(tile.len() / 2);
                    Ok(enlarge(tile))
                })
                .unwrap();
            let whole = enlarge(&latents);
            assert_eq!(tiled.dim(), whole.dim());
            let furthest = tiled.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(furthest < 1e-3, "{furthest} at {height}×{width}");
            assert!(largest <= 25, "{largest}");

            let back =
                SMALL.shrinking(&whole, |tile| Ok(tile.slice(s![.., .., ..;2, ..;2]).to_owned())).unwrap();
            let furthest = back.iter().zip(&latents).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(furthest < 1e-3, "{furthest} at {height}×{width}");
        }
    }

    #[test]
    fn a_small_picture_is_one_call() {
        let mut calls = 0;
        let call = |tile: &Array4<f32>| {
            calls += 1;
            Ok(enlarge(tile))
        };
        SMALL.enlarging(&ramp(4, 5), call).unwrap();
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_tile_of_the_wrong_size_is_an_error() {
        assert!(SMALL.enlarging(&ramp(9, 9), |tile| Ok(tile.clone())).is_err());
    }
}
