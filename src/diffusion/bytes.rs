//! Numbers and arrays as bytes and back, exactly: little-endian, and floats by their bits.
//!
//! What is read may be damaged or made up: [`ByteReader`] answers `None` for bytes that are not there, and takes no more
//! memory than the bytes do.

use ndarray::Array4;

#[derive(Debug, Default)]
pub struct ByteWriter(Vec<u8>);

impl ByteWriter {
    pub fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    pub fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    pub fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// A number of things, or the number of one.
    pub fn count(&mut self, count: usize) {
        self.u64(count as u64);
    }

    pub fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    /// Any bytes, without their number.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The shape and the values.
    pub fn array(&mut self, array: &Array4<f32>) {
        array.shape().iter().for_each(|side| self.count(*side));
        self.0.reserve(array.len() * size_of::<f32>());
        array.iter().for_each(|value| self.f32(*value));
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads from the front on what a [`ByteWriter`] wrote.
#[derive(Debug, Clone, Copy)]
pub struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn raw(&mut self, length: usize) -> Option<&'a [u8]> {
        let (read, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(read)
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    pub fn count(&mut self) -> Option<usize> {
        self.u64()?.try_into().ok()
    }

    pub fn array(&mut self) -> Option<Array4<f32>> {
        let shape = [self.count()?, self.count()?, self.count()?, self.count()?];
        let bytes = shape.iter().try_fold(size_of::<f32>(), |size, side| size.checked_mul(*side))?;
        let (values, _) = self.raw(bytes)?.as_chunks();
        let values = values.iter().map(|value| f32::from_bits(u32::from_le_bytes(*value))).collect();
        Array4::from_shape_vec(shape, values).ok()
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_to_the_bit() {
        let array =
            Array4::from_shape_vec((1, 2, 1, 2), vec![-0.0, f32::MIN_POSITIVE / 2.0, f32::INFINITY, 0.1]);
        let array = array.unwrap();
        let mut writer = ByteWriter::default();
        writer.u8(7);
        writer.u32(u32::MAX);
        writer.count(3);
        writer.array(&array);
        writer.raw(b"end");
        let bytes = writer.into_bytes();
        let mut reader = ByteReader::new(&bytes);
        assert_eq!((reader.u8(), reader.u32(), reader.count()), (Some(7), Some(u32::MAX), Some(3)));
        let read = reader.array().unwrap();
        assert_eq!(read.dim(), array.dim());
        assert!(read.iter().zip(&array).all(|(a, b)| a.to_bits() == b.to_bits()));
        assert!(reader.raw(3) == Some(b"end") && reader.is_empty());
        assert_eq!((reader.u8(), reader.u64(), reader.raw(1)), (None, None, None));
    }

    #[test]
    fn an_array_that_is_not_there_takes_no_memory() {
        for shape in [[u64::MAX; 4], [1 << 40, 1, 1, 1], [0, u64::MAX, u64::MAX, 2], [1, 1, 1, 3]] {
            let mut writer = ByteWriter::default();
            for side in shape {
                writer.u64(side);
            }
            writer.u64(0);
            let bytes = writer.into_bytes();
            assert_eq!(ByteReader::new(&bytes).array(), None, "{shape:?}");
        }
    }
}
