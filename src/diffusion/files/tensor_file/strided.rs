//! Tensors whose values do not lie in order: transposed matrices, and convolutions with their channels last.

/// Calls `take` with the values in the order of the shape, up to `most` bytes at a time. `bytes` hold everything from the
/// first value to the last; `strides` are in values of `width` bytes.
pub(super) fn each_piece(
    bytes: &[u8],
    shape: &[usize],
    strides: &[usize],
    width: usize,
    most: usize,
    mut take: impl FnMut(&[u8]),
) {
    let mut piece = Vec::with_capacity(most.min(bytes.len()));
    let (Some((row, outer)), Some((step, outer_strides))) = (shape.split_last(), strides.split_last()) else {
        return take(bytes);
    };
    if shape.contains(&0) {
        return;
    }
    let mut index = vec![0; outer.len()];
    loop {
        let start: usize = index.iter().zip(outer_strides).map(|(index, stride)| index * stride).sum();
        for place in 0..*row {
            let at = (start + place * step) * width;
            piece.extend_from_slice(bytes.get(at..at + width).unwrap_or_default());
            if piece.len() + width > most {
                take(&piece);
                piece.clear();
            }
        }
        // The next row: the last index counts fastest.
        let Some(turn) = (0..outer.len()).rev().find(|size| index[*size] + 1 < outer[*size]) else { break };
        index[turn] += 1;
        index[turn + 1..].fill(0);
    }
    if !piece.is_empty() {
        take(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_in_the_order_of_the_shape() {
        let bytes: Vec<u8> = (0..12_u16).flat_map(u16::to_le_bytes).collect();
        let read = |shape: &[usize], strides: &[usize], most| {
            let mut read = Vec::new();
            each_piece(&bytes, shape, strides, 2, most, |piece| {
                assert!(piece.len() <= most && piece.len() % 2 == 0);
                read.extend(piece.chunks(2).map(|pair| pair[0]));
            });
            read
        };
        for most in [2, 6, 7, 1000] {
            assert_eq!(read(&[3, 4], &[1, 3], most), [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]);
            assert_eq!(read(&[1, 2, 3, 2], &[12, 1, 4, 2], most), [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]);
            assert_eq!(read(&[3], &[4], most), [0, 4, 8]);
            assert_eq!(read(&[0, 3], &[1, 2], most), [0_u8; 0]);
        }
    }
}
