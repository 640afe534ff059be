//! Reads an ONNX file's outputs and tensors without loading it: walks over its protobuf (onnx.proto3) and skips the
//! weights, so that the cost does not depend on the model's size. The file is not trusted: every length is checked
//! against its container.

use std::io::{self, BufRead, ErrorKind, Read, Seek, SeekFrom};

use half::{bf16, f16};

/// The longest name of an output or a tensor.
const LONGEST_NAME: u64 = 4096;
/// The largest tensor that is read here, in bytes. A layer norm of any CLIP has a few kilobytes.
const LARGEST_TENSOR: u64 = 1 << 20;
const LARGEST_RANK: usize = 8;

/// What was read of a file.
#[derive(Debug, Default)]
pub struct OnnxFile {
    pub outputs: Vec<String>,
    pub tensors: Vec<StoredTensor>,
}

/// A weight and where its values are.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct StoredTensor {
    pub name: String,
    pub shape: Vec<u64>,
    /// Its `doc_string`.
    pub note: String,
    /// A `TensorProto.DataType`.
    pub element: u64,
    values: Values,
}

#[derive(Debug, Default, Clone, PartialEq)]
enum Values {
    #[default]
    None,
    /// In the file itself.
    Within { at: u64, bytes: u64 },
    /// In a file beside it.
    Beside { file: String, at: u64, bytes: u64 },
}

/// A field of a message: its number, and a number or the range of its bytes.
enum Field {
    Number(u64, u64),
    Bytes(u64, u64, u64),
}

impl OnnxFile {
    /// The names of a graph's outputs, and the tensors that `wanted` chooses by name.
    pub fn read(file: &mut (impl BufRead + Seek), wanted: impl Fn(&str) -> bool) -> io::Result<Self> {
        let end = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        let mut found = Self::default();
        each_field(file, end, |file, field| match field {
            // ModelProto.graph
            Field::Bytes(7, _, end) => each_field(file, end, |file, field| match field {
                // GraphProto.initializer, .output
                Field::Bytes(5, _, end) => {
                    let tensor = StoredTensor::read(file, end)?;
                    if wanted(&tensor.name) {
                        found.tensors.push(tensor);
                    }
                    Ok(())
                }
                Field::Bytes(12, _, end) => each_field(file, end, |file, field| {
                    // ValueInfoProto.name
                    if let Field::Bytes(1, at, end) = field {
                        found.outputs.push(text(file, at, end)?);
                    }
                    Ok(())
                }),
                _ => Ok(()),
            }),
            _ => Ok(()),
        })?;
        Ok(found)
    }
}

impl StoredTensor {
    fn read(file: &mut (impl BufRead + Seek), end: u64) -> io::Result<Self> {
        let mut tensor = Self::default();
        let mut beside = Vec::new();
        each_field(file, end, |file, field| {
            match field {
                // TensorProto.dims (packed or not), .data_type, .float_data, .name, .raw_data, .doc_string, .external_data
                Field::Number(1, size) => tensor.shape.push(size),
                Field::Bytes(1, _, end) => {
                    while file.stream_position()? < end && tensor.shape.len() < LARGEST_RANK {
                        tensor.shape.push(varint(file)?);
                    }
                }
                Field::Number(2, element) => tensor.element = element,
                Field::Bytes(4 | 9, at, end) => tensor.values = Values::Within { at, bytes: end - at },
                Field::Bytes(8, at, end) => tensor.name = text(file, at, end)?,
                Field::Bytes(12, at, end) => tensor.note = text(file, at, end)?,
                Field::Bytes(13, _, end) => beside.push(entry(file, end)?),
                _ => {}
            }
            Ok(())
        })?;
        let external =
            |key: &str| beside.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        if let Some(location) = external("location") {
            let number = |key| external(key).map_or(Ok(0), str::parse).map_err(|_| broken("external data"));
            tensor.values =
                Values::Beside { file: location.to_owned(), at: number("offset")?, bytes: number("length")? };
        }
        Ok(tensor)
    }

    /// The file beside the graph that holds the values, if they are not in the graph's own.
    pub fn file_beside(&self) -> Option<&str> {
        match &self.values {
            Values::Beside { file, .. } => Some(file),
            _ => None,
        }
    }

    /// Where in the file beside the graph its values are: the first byte, and how many.
    pub fn range_beside(&self) -> Option<(u64, u64)> {
        match self.values {
            Values::Beside { at, bytes, .. } => Some((at, bytes)),
            _ => None,
        }
    }

    /// The values as f32, out of the file that holds them.
    pub fn values(&self, file: &mut (impl Read + Seek)) -> io::Result<Vec<f32>> {
        let (at, bytes) = match self.values {
            Values::Within { at, bytes } | Values::Beside { at, bytes, .. } => (at, bytes),
            Values::None => return Err(broken("tensor without values")),
        };
        if bytes > LARGEST_TENSOR {
            return Err(broken("tensor of unexpected size"));
        }
        file.seek(SeekFrom::Start(at))?;
        let mut values = Vec::new();
        file.take(bytes).read_to_end(&mut values)?;
        if values.len() as u64 != bytes {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let halves = || values.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        match self.element {
            1 => Ok(values
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                .collect()),
            10 => Ok(halves().map(|bits| f16::from_bits(bits).to_f32()).collect()),
            16 => Ok(halves().map(|bits| bf16::from_bits(bits).to_f32()).collect()),
            _ => Err(broken("tensor that holds no floating-point numbers")),
        }
    }
}

/// Calls `read` with each field up to `end`. `read` may read the field's bytes, but need not.
fn each_field<F: BufRead + Seek>(
    file: &mut F,
    end: u64,
    mut read: impl FnMut(&mut F, Field) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = file.stream_position()?;
    while at < end {
        let tag = varint(file)?;
        let number = tag >> 3;
        match tag & 7 {
            0 => {
                let value = varint(file)?;
                read(file, Field::Number(number, value))?;
                at = file.stream_position()?;
            }
            1 => at = file.stream_position()? + 8,
            2 => {
                let length = varint(file)?;
                let start = file.stream_position()?;
                at = start.checked_add(length).filter(|&stop| stop <= end).ok_or_else(|| broken("length"))?;
                read(file, Field::Bytes(number, start, at))?;
            }
            5 => at = file.stream_position()? + 4,
            _ => return Err(broken("field")),
        }
        // Relative, so that what is buffered stays so.
        let here = file.stream_position()?;
        let step = i64::try_from(i128::from(at) - i128::from(here)).map_err(|_| broken("length"))?;
        file.seek_relative(step)?;
    }
    if at == end { Ok(()) } else { Err(broken("length")) }
}

fn varint(file: &mut impl Read) -> io::Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        file.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(value);
        }
    }
    Err(broken("number"))
}

fn text(file: &mut (impl Read + Seek), at: u64, end: u64) -> io::Result<String> {
    let length = end - at;
    if length > LONGEST_NAME {
        return Err(broken("name"));
    }
    let mut text = String::new();
    file.take(length).read_to_string(&mut text)?;
    Ok(text)
}

/// A `StringStringEntryProto`.
fn entry(file: &mut (impl BufRead + Seek), end: u64) -> io::Result<(String, String)> {
    let mut entry = (String::new(), String::new());
    each_field(file, end, |file, field| {
        match field {
            Field::Bytes(1, at, end) => entry.0 = text(file, at, end)?,
            Field::Bytes(2, at, end) => entry.1 = text(file, at, end)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(entry)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the ONNX file has a broken {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const MODEL: &[u8] = include_bytes!("../../../tests/models/tiny-sd-onnx/text_encoder/model.onnx");

    #[test]
    fn outputs_and_tensors_are_found_by_name() {
        let mut file = Cursor::new(MODEL);
        let found = OnnxFile::read(&mut file, |name| name.contains("final_layer_norm.weight")).unwrap();
        assert_eq!(found.outputs, ["last_hidden_state"]);
        let [tensor] = found.tensors.as_slice() else { panic!("one tensor") };
        let values = tensor.values(&mut file).unwrap();
        assert!(values.len() == 160 && values.iter().all(|value| value.is_finite() && value.abs() < 100.0));
    }

    #[test]
    fn a_broken_file_is_an_error_and_never_a_panic() {
        let read = |bytes: &[u8]| OnnxFile::read(&mut Cursor::new(bytes), |_| true).map(drop);
        assert!(read(b"").is_ok());
        for cut in (1..MODEL.len()).step_by(9973) {
            assert!(read(&MODEL[..cut]).is_err(), "{cut}");
        }
        for bytes in [
            &b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
            b"\x3a\x05\x62",
            b"\xff\xff",
            b"\x3c",
            b"\x39\x00",
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for _ in 0..500 {
            let mut bytes = MODEL[..4096].to_vec();
            for _ in 0..8 {
                let at = noise() % bytes.len();
                bytes[at] = u8::try_from(noise() % 256).unwrap();
            }
            let _ = read(&bytes);
        }
    }
}
