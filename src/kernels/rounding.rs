//! A row of numbers in eight bits.

#![expect(clippy::inline_always, reason = "it must be compiled for the instructions of its caller")]

/// The largest number in eight bits. −128 is not used, so that both signs are alike.
pub const LARGEST: f32 = 127.0;
/// 1.5 · 2²³. A float32 of this size has no bits behind the point: adding it rounds to the nearest, ties to even.
const WHOLE: f32 = 12_582_912.0;

/// Writes `row` as whole numbers from −127 to 127 that are to be multiplied by the scale that is returned, beside their
/// sum. If a value is infinite or not a number, so is the scale.
#[inline(always)]
pub fn quantize(row: &[f32], numbers: &mut [i8]) -> (f32, i32) {
    // The bits of positive numbers are in the order of the numbers, with infinity and what is no number at the end.
    let largest = row.iter().fold(0, |largest: u32, value| largest.max(value.abs().to_bits()));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        numbers.fill(0);
        return (f32::NAN, 0);
    }
    let scale = largest / LARGEST;
    if scale < f32::MIN_POSITIVE {
        numbers.fill(0);
        return (0.0, 0);
    }
    let factor = LARGEST / largest;
    let mut sum = 0;
    for (number, value) in numbers.iter_mut().zip(row) {
        let whole = (value * factor + WHOLE).to_bits().wrapping_sub(WHOLE.to_bits()).cast_signed();
        #[expect(clippy::cast_possible_truncation, reason = "from −127 to 127")]
        let whole = whole as i8;
        *number = whole;
        sum += i32::from(whole);
    }
    (scale, sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_becomes_127_and_the_others_are_rounded_to_even() {
        let mut numbers = [0; 6];
        let (scale, sum) = quantize(&[254.0, -254.0, 1.0, 3.0, -5.0, 0.9], &mut numbers);
        assert_eq!((numbers, scale, sum), ([127, -127, 0, 2, -2, 0], 2.0, 0));
    }

    #[test]
    fn a_row_of_zeros_is_zero_and_what_is_no_number_is_not_hidden() {
        let mut numbers = [1; 2];
        for row in [[0.0, -0.0], [1e-40, 0.0]] {
            assert_eq!(quantize(&row, &mut numbers), (0.0, 0));
            assert_eq!(numbers, [0, 0]);
        }
        for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(quantize(&[1.0, value], &mut numbers).0.is_nan());
        }
        // The largest that there is.
        assert_eq!(quantize(&[f32::MAX, -f32::MAX], &mut numbers), (f32::MAX / LARGEST, 0));
    }
}
