//! Canny's edges as OpenCV finds them (`cv2.Canny(image, low, high)`): ControlNets were trained on these.
//!
//! Sobel's derivatives of each channel, the strongest channel of each pixel, the sum of their absolute values as the strength, the
//! strongest pixel across an edge, and then everything above `low` that touches something above `high`.

use crate::diffusion::image::RgbImage;

/// tan 22.5° × 2¹⁵, as OpenCV rounds it.
const TAN_22_5: i64 = 13_573;
const SHIFT: u32 = 15;
const WHITE: [u8; 3] = [255; 3];

/// White edges on black.
pub(super) fn canny(image: &RgbImage, low: f32, high: f32) -> RgbImage {
    let (width, height) = (image.width as usize, image.height as usize);
    let gradients: Vec<[i32; 2]> =
        (0..height).flat_map(|y| (0..width).map(move |x| gradient(image, x, y))).collect();
    #[expect(clippy::cast_possible_truncation, reason = "at most 255")]
    let (low, high) = (low.floor() as i32, high.floor() as i32);
    let strength = |x: isize, y: isize| {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return 0 };
        if x < width && y < height { norm(gradients[y * width + x]) } else { 0 }
    };
    let is_peak = |x: usize, y: usize| {
        let [dx, dy] = gradients[y * width + x];
        let (strong, x, y) = (norm([dx, dy]), x.cast_signed(), y.cast_signed());
        let (across, down) = (i64::from(dx.abs()), i64::from(dy.abs()) << SHIFT);
        if down < across * TAN_22_5 {
            strong > strength(x - 1, y) && strong >= strength(x + 1, y)
        } else if down > across * TAN_22_5 + (across << (SHIFT + 1)) {
            strong > strength(x, y - 1) && strong >= strength(x, y + 1)
        } else {
            let side = if (dx ^ dy) < 0 { -1 } else { 1 };
            strong > strength(x - side, y - 1) && strong > strength(x + side, y + 1)
        }
    };
    let mut is_candidate = vec![false; width * height];
    let mut edges = Vec::new();
    for index in 0..width * height {
        let strong = norm(gradients[index]);
        if strong > low && is_peak(index % width, index / width) {
            is_candidate[index] = true;
            if strong > high {
                edges.push(index);
            }
        }
    }
    let mut map = RgbImage { pixels: vec![0; image.pixels.len()], ..*image };
    while let Some(index) = edges.pop() {
        if !std::mem::take(&mut is_candidate[index]) {
            continue;
        }
        map.pixels[index * 3..index * 3 + 3].copy_from_slice(&WHITE);
        let (x, y) = (index % width, index / width);
        for y in y.saturating_sub(1)..(y + 2).min(height) {
            edges.extend((x.saturating_sub(1)..(x + 2).min(width)).map(|x| y * width + x));
        }
    }
    map
}

fn norm([dx, dy]: [i32; 2]) -> i32 {
    dx.abs() + dy.abs()
}

/// Sobel's derivatives of the channel where they are strongest. Pixels beyond the border are those at the border.
fn gradient(image: &RgbImage, x: usize, y: usize) -> [i32; 2] {
    let (width, height) = (image.width as usize, image.height as usize);
    let columns = [x.saturating_sub(1), x, (x + 1).min(width - 1)];
    let rows = [y.saturating_sub(1), y, (y + 1).min(height - 1)];
    let mut strongest = [0, 0];
    for channel in 0..3 {
        let value = |row: usize, column: usize| i32::from(image.pixels[(row * width + column) * 3 + channel]);
        let column = |x: usize| value(rows[0], x) + 2 * value(rows[1], x) + value(rows[2], x);
        let row = |y: usize| value(y, columns[0]) + 2 * value(y, columns[1]) + value(y, columns[2]);
        let found = [column(columns[2]) - column(columns[0]), row(rows[2]) - row(rows[0])];
        if norm(found) > norm(strongest) {
            strongest = found;
        }
    }
    strongest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_those_of_opencv() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../../tests/golden/canny.json")).unwrap();
        for case in golden.as_array().unwrap() {
            let number = |name: &str| u32::try_from(case[name].as_u64().unwrap()).unwrap();
            let (width, height, seed) = (number("width"), number("height"), number("seed"));
            // The picture of `tests/golden/canny.py`: discs of colour.
            let pixel = |x: u32, y: u32| {
                let discs = (0..6_u32)
                    .map(|i| (i * 37 + seed) % width)
                    .zip((0..6_u32).map(|i| (i * 53 + seed * 3) % height));
                let mut colour = [30, 60, 90];
                for (i, (cx, cy)) in (1_u32..).zip(discs) {
                    let far = x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2);
                    if far < (5 + 3 * i).pow(2) {
                        colour = [40, 25, 70].map(|step| u8::try_from(i * step % 256).unwrap());
                    }
                }
                colour
            };
            let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y))).collect();
            let image = RgbImage { width, height, pixels };
            for map in case["maps"].as_array().unwrap() {
                let threshold = |index: usize| u8::try_from(map[index].as_u64().unwrap()).unwrap().into();
                let found = canny(&image, threshold(0), threshold(1));
                let rows: Vec<String> = found
                    .pixels
                    .chunks(width as usize * 3)
                    .map(|row| row.iter().step_by(3).map(|byte| if *byte == 0 { '.' } else { '#' }).collect())
                    .collect();
                assert_eq!(rows.join("\n"), map[2].as_str().unwrap());
            }
        }
    }
}
