//! Pictures whose opposite edges fit together, so that copies of them side by side have no seams.
//!
//! A1111 has circular padding in every convolution for this, which needs graphs of its own. Here the UNet and the VAE see
//! the latents with a rim of those from the opposite edges. What they say about the rim is cut off. So the padding of the
//! convolutions lies outside the picture, and its edges see each other. This works with every model.

use ndarray::{Array4, ArrayView3, Axis, concatenate, s};

use crate::diffusion::image::Region;
use crate::domain::ImageSize;

/// The rim in latents: a multiple of what the UNet halves its maps by. What lies further away hardly changes an edge.
pub(super) const RIM: usize = 8;

/// Latents with a rim of the latents that lie at the opposite edges.
pub(super) fn with_rim(latents: &Array4<f32>) -> Array4<f32> {
    let along = |latents: &Array4<f32>, axis: Axis| {
        let side = latents.len_of(axis);
        let places = (0..side + 2 * RIM).map(|at| (at + side * RIM - RIM) % side.max(1));
        let lines: Vec<_> = places.map(|at| latents.index_axis(axis, at).insert_axis(axis)).collect();
        // Lines of one array have one shape.
        concatenate(axis, &lines).unwrap_or_else(|_| latents.clone())
    };
    along(&along(latents, Axis(2)), Axis(3))
}

/// The latents `[c, h, w]` within their rim, if they have one.
#[expect(clippy::needless_pass_by_value, reason = "a view is a reference")]
pub(super) fn within_rim(latents: ArrayView3<'_, f32>, has_rim: bool) -> ArrayView3<'_, f32> {
    let (_, height, width) = latents.dim();
    let rim = if has_rim { RIM } else { 0 };
    latents.slice_move(s![.., rim..height - rim, rim..width - rim])
}

/// The picture within a decoded one with a rim. `scale` is the pixels along a side of a latent.
pub(super) fn part_within_rim(ImageSize { width, height }: ImageSize, scale: u32) -> Region {
    let rim = rim_pixels(scale);
    Region { left: rim, top: rim, width, height }
}

/// The size of a decoded picture with its rim.
pub(super) fn size_with_rim(ImageSize { width, height }: ImageSize, scale: u32) -> ImageSize {
    let rim = 2 * rim_pixels(scale);
    ImageSize { width: width + rim, height: height + rim }
}

#[expect(clippy::cast_possible_truncation, reason = "eight latents")]
fn rim_pixels(scale: u32) -> u32 {
    RIM as u32 * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(height: usize, width: usize) -> Array4<f32> {
        Array4::from_shape_fn((2, 1, height, width), |(n, _, y, x)| {
            f32::from(u16::try_from(100 * n + 10 * y + x).unwrap())
        })
    }

    #[test]
    fn the_rim_goes_on_at_the_opposite_edge() {
        let latents = numbered(3, 5);
        let rimmed = with_rim(&latents);
        assert_eq!(rimmed.dim(), (2, 1, 3 + 2 * RIM, 5 + 2 * RIM));
        for ((n, c, y, x), &value) in rimmed.indexed_iter() {
            assert_eq!(
                value.to_bits(),
                latents[[n, c, (y + 3 * RIM - RIM) % 3, (x + 5 * RIM - RIM) % 5]].to_bits()
            );
        }
        let within = within_rim(rimmed.index_axis(Axis(0), 1), true);
        assert_eq!(within, latents.index_axis(Axis(0), 1));
    }
}
