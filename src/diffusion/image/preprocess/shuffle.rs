//! Moves a picture's contents about: each pixel comes from somewhere else, near places from near places.

use crate::diffusion::image::RgbImage;

/// Pixels between two of the random numbers that the places are interpolated from.
const SPACING: usize = 256;

/// Like the extension's `ContentShuffleDetector`: two fields of smooth noise are the places that pixels come from. The
/// random numbers are those of `SplitMix64` for the seed.
pub(super) fn shuffle(image: &RgbImage, seed: u64) -> RgbImage {
    let (width, height) = (image.width as usize, image.height as usize);
    let mut random = SplitMix64(seed);
    let (across, down) = (smooth_noise(width, height, &mut random), smooth_noise(width, height, &mut random));
    #[expect(clippy::cast_precision_loss, reason = "pixels")]
    let (last_x, last_y) = (width.saturating_sub(1) as f32, height.saturating_sub(1) as f32);
    let pixels = across.into_iter().zip(down).flat_map(|(x, y)| sample(image, x * last_x, y * last_y));
    RgbImage { pixels: pixels.collect(), ..*image }
}

/// Smooth noise of 0…1 for each pixel, row by row.
fn smooth_noise(width: usize, height: usize, random: &mut SplitMix64) -> Vec<f32> {
    let (columns, rows) = (width / SPACING + 2, height / SPACING + 2);
    let grid: Vec<f32> = (0..columns * rows).map(|_| random.share()).collect();
    // The grid is spread over the picture and a margin of one spacing around it.
    let across: Vec<[(usize, f32); 4]> = places(width, columns);
    let noise = places(height, rows).into_iter().flat_map(|row| {
        let (grid, across) = (&grid, &across);
        across.iter().map(move |column| {
            let along =
                |y: usize| column.iter().map(|(x, weight)| weight * grid[y * columns + x]).sum::<f32>();
            row.iter().map(|(y, weight)| weight * along(*y)).sum::<f32>()
        })
    });
    let mut noise: Vec<f32> = noise.collect();
    let least = noise.iter().copied().fold(f32::INFINITY, f32::min);
    let range = noise.iter().copied().fold(f32::NEG_INFINITY, f32::max) - least;
    for value in &mut noise {
        *value = if range > 0.0 { (*value - least) / range } else { 0.0 };
    }
    noise
}

/// For each pixel of a side, the four of `count` random numbers that it lies between, with their weights in a cubic
/// interpolation (OpenCV's, a = −0.75).
fn places(side: usize, count: usize) -> Vec<[(usize, f32); 4]> {
    const A: f32 = -0.75;
    let weight = |distance: f32| match distance.abs() {
        d if d <= 1.0 => ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0,
        d if d < 2.0 => ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A,
        _ => 0.0,
    };
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap,
        reason = "pixels"
    )]
    let place = |pixel: usize| {
        let scale = count as f32 / (side + 2 * SPACING) as f32;
        let at = ((pixel + SPACING) as f32 + 0.5) * scale - 0.5;
        let first = at.floor() as isize - 1;
        [0, 1, 2, 3].map(|step| {
            let index = first + step;
            (index.clamp(0, count as isize - 1) as usize, weight(at - index as f32))
        })
    };
    (0..side).map(place).collect()
}

/// The colour at a place between pixels, by linear interpolation.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "inside the picture")]
fn sample(image: &RgbImage, x: f32, y: f32) -> [u8; 3] {
    let (left, top) = (x.floor() as usize, y.floor() as usize);
    let (right, bottom) =
        ((left + 1).min(image.width as usize - 1), (top + 1).min(image.height as usize - 1));
    let (dx, dy) = (x.fract(), y.fract());
    let value = |x: usize, y: usize, channel: usize| {
        f32::from(image.pixels[(y * image.width as usize + x) * 3 + channel])
    };
    [0, 1, 2].map(|channel| {
        let along = |y: usize| value(left, y, channel) * (1.0 - dx) + value(right, y, channel) * dx;
        (along(top) * (1.0 - dy) + along(bottom) * dy).round() as u8
    })
}

/// Steele, Lea and Flood 2014.
struct SplitMix64(u64);

impl SplitMix64 {
    /// 0 to 1.
    fn share(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        #[expect(clippy::cast_precision_loss, reason = "24 bits")]
        let share = ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32;
        share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides_and_colours_stay() {
        let picture = |width: u32, height: u32| {
            let pixels = (0..width * height).flat_map(|i| [u8::try_from(i % 256).unwrap(), 40, 200]);
            RgbImage { width, height, pixels: pixels.collect() }
        };
        for (width, height) in [(64, 64), (300, 70), (1, 1), (65, 520)] {
            let image = picture(width, height);
            let (a, b) = (shuffle(&image, 1), shuffle(&image, 1));
            assert_eq!((a.size(), &a), (image.size(), &b));
            assert!(a.pixels.as_chunks::<3>().0.iter().all(|[_, g, b]| (*g, *b) == (40, 200)));
            if width > 1 {
                assert_ne!(a, shuffle(&image, 2));
                assert_ne!(a, image);
            }
        }
    }
}
