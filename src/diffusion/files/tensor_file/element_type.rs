//! The types of a tensor's values in files, and how each is read as f32.

use std::fmt;

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

/// Named as safetensors names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElementType {
    F64,
    F32,
    F16,
    Bf16,
    /// torch's `float8_e4m3fn`: no infinities, and only 0x7f and 0xff are not numbers.
    F8E4M3,
    /// torch's `float8_e5m2`: the upper half of an f16.
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    /// A type that is not read, by its name.
    Other(Box<str>),
}

/// The longest name of an unknown type that goes into a message.
const LONGEST_NAME: usize = 32;

const NAMES: [(&str, ElementType); 15] = [
    ("F64", ElementType::F64),
    ("F32", ElementType::F32),
    ("F16", ElementType::F16),
    ("BF16", ElementType::Bf16),
    ("F8_E4M3", ElementType::F8E4M3),
    ("F8_E5M2", ElementType::F8E5M2),
    ("I64", ElementType::I64),
    ("I32", ElementType::I32),
    ("I16", ElementType::I16),
    ("I8", ElementType::I8),
    ("U64", ElementType::U64),
    ("U32", ElementType::U32),
    ("U16", ElementType::U16),
    ("U8", ElementType::U8),
    ("BOOL", ElementType::Bool),
];

impl ElementType {
    pub fn from_name(name: &str) -> Self {
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, element)) => element.clone(),
            None => Self::Other(name.chars().take(LONGEST_NAME).collect::<String>().into()),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Self::Other(name) => name,
            known => NAMES.iter().find(|(_, element)| element == known).map_or("", |(name, _)| name),
        }
    }

    /// The bytes of a value. `None` for a type that is not read.
    pub fn width(&self) -> Option<usize> {
        match self {
            Self::F64 | Self::I64 | Self::U64 => Some(8),
            Self::F32 | Self::I32 | Self::U32 => Some(4),
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => Some(2),
            Self::F8E4M3 | Self::F8E5M2 | Self::I8 | Self::U8 | Self::Bool => Some(1),
            Self::Other(_) => None,
        }
    }

    pub fn is_float(&self) -> bool {
        self.is_float8() || matches!(self, Self::F64 | Self::F32 | Self::F16 | Self::Bf16)
    }

    pub fn is_float8(&self) -> bool {
        matches!(self, Self::F8E4M3 | Self::F8E5M2)
    }

    /// Reads little-endian values as f32. Of `bytes` and `values`, the shorter one decides how many.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "values become f32, which is what is computed with"
    )]
    pub fn read(&self, bytes: &[u8], values: &mut [f32]) {
        match self {
            Self::F64 => each(bytes, values, |bytes| f64::from_le_bytes(bytes) as f32),
            Self::F32 => each(bytes, values, f32::from_le_bytes),
            // As a slice, which the processor's own instructions convert.
            Self::F16 => halves(bytes).map(f16::from_bits).collect::<Vec<_>>().convert_to_f32_slice(values),
            Self::Bf16 => halves(bytes).map(bf16::from_bits).collect::<Vec<_>>().convert_to_f32_slice(values),
            Self::F8E4M3 => each(bytes, values, |[bits]| e4m3(bits)),
            Self::F8E5M2 => each(bytes, values, |[bits]| f16::from_bits(u16::from(bits) << 8).to_f32()),
            Self::I64 => each(bytes, values, |bytes| i64::from_le_bytes(bytes) as f32),
            Self::I32 => each(bytes, values, |bytes| i32::from_le_bytes(bytes) as f32),
            Self::I16 => each(bytes, values, |bytes| f32::from(i16::from_le_bytes(bytes))),
            Self::I8 => each(bytes, values, |bytes| f32::from(i8::from_le_bytes(bytes))),
            Self::U64 => each(bytes, values, |bytes| u64::from_le_bytes(bytes) as f32),
            Self::U32 => each(bytes, values, |bytes| u32::from_le_bytes(bytes) as f32),
            Self::U16 => each(bytes, values, |bytes| f32::from(u16::from_le_bytes(bytes))),
            Self::U8 => each(bytes, values, |[byte]| f32::from(byte)),
            Self::Bool => each(bytes, values, |[byte]| f32::from(u8::from(byte != 0))),
            Self::Other(_) => {}
        }
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn halves(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

fn each<const WIDTH: usize>(bytes: &[u8], values: &mut [f32], read: impl Fn([u8; WIDTH]) -> f32) {
    for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<WIDTH>().0) {
        *value = read(*bytes);
    }
}

/// One bit for the sign, four for the exponent (7 is zero), three for the fraction.
fn e4m3(bits: u8) -> f32 {
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 3 & 0xf), f32::from(bits & 7));
    match (exponent, bits & 7) {
        (0xf, 7) => f32::NAN,
        (0, _) => sign * fraction * f32::powi(2.0, -9),
        _ => sign * (1.0 + fraction / 8.0) * f32::powi(2.0, exponent - 7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits and what `torch.tensor([bits], dtype=torch.uint8).view(TYPE).float()` says.
    #[test]
    fn eight_bits_are_read_as_torch_reads_them() {
        let cases: [(&str, &[(u8, f32)]); 2] = [
            (
                "F8_E4M3",
                &[
                    (0x00, 0.0),
                    (0x80, -0.0),
                    (0x01, 0.001_953_125),
                    (0x07, 0.013_671_875),
                    (0x08, 0.015_625),
                    (0x38, 1.0),
                    (0xb9, -1.125),
                    (0x7e, 448.0),
                    (0xfe, -448.0),
                    (0x78, 256.0),
                ],
            ),
            (
                "F8_E5M2",
                &[
                    (0x00, 0.0),
                    (0x01, 0.000_015_258_789),
                    (0x04, 0.000_061_035_156),
                    (0x3c, 1.0),
                    (0xbd, -1.25),
                    (0x7b, 57344.0),
                    (0x7c, f32::INFINITY),
                    (0xfc, f32::NEG_INFINITY),
                ],
            ),
        ];
        for (name, values) in cases {
            let element = ElementType::from_name(name);
            for (bits, expected) in values {
                let mut value = [f32::NAN];
                element.read(&[*bits], &mut value);
                assert_eq!(value[0].to_bits(), expected.to_bits(), "{name} {bits:#x}");
            }
        }
        for (name, bits) in [("F8_E4M3", 0x7f), ("F8_E4M3", 0xff), ("F8_E5M2", 0x7d), ("F8_E5M2", 0xff)] {
            let mut value = [0.0];
            ElementType::from_name(name).read(&[bits], &mut value);
            assert!(value[0].is_nan(), "{name} {bits:#x}");
        }
    }

    #[test]
    fn each_type_is_read_in_its_own_width() {
        let bytes = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        for (name, expected) in [
            ("I64", -2.0),
            ("I32", -2.0),
            ("I16", -2.0),
            ("I8", -2.0),
            ("U64", 18_446_744_073_709_551_614.0),
            ("U32", 4_294_967_294.0),
            ("U16", 65534.0),
            ("U8", 254.0),
            ("BOOL", 1.0),
        ] {
            let element = ElementType::from_name(name);
            assert_eq!(element.name(), name);
            let mut value = [0.0];
            element.read(&bytes[..element.width().unwrap()], &mut value);
            assert_eq!(value.map(f32::to_bits), [f32::to_bits(expected)], "{name}");
        }
        let mut value = [0.0];
        ElementType::F64.read(&0.1_f64.to_le_bytes(), &mut value);
        assert_eq!(value.map(f32::to_bits), [0.1_f32.to_bits()]);
        let unknown = ElementType::from_name("F6_E2M3");
        assert!(unknown.width().is_none() && unknown.to_string() == "F6_E2M3");
    }
}
