//! What the tests of this room compare with: the values that `tests/golden/inpainting_pixels.py` wrote.

use serde_json::Value;

use super::RgbImage;

pub fn inpainting() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/inpainting_pixels.json")).unwrap()
}

/// The script's picture: waves with hard edges and some grain.
pub fn picture(width: u32, height: u32) -> RgbImage {
    let mut state = 1_u32;
    let places = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| (y, x, c))));
    let pixels = places.map(|(y, x, channel)| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let edge = if (x / 16 + y / 24 + channel) % 2 == 0 { 200 } else { 20 };
        u8::try_from(edge + (state >> 27)).unwrap()
    });
    RgbImage { width, height, pixels: pixels.collect() }
}

/// The bytes of a hexadecimal text.
pub fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
