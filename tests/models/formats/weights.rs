//! Tensors in other types and under other names.

use half::{bf16, f16};
use safetensors::tensor::Dtype;

use crate::checkpoints::{Tensor, Tensors, converted};

/// Halves as single floats, which changes nothing.
pub fn full(tensors: &Tensors) -> Tensors {
    converted(tensors, Dtype::F32, |value| value.to_f32().to_le_bytes().to_vec())
}

/// Halves as brain floats, which drops digits.
pub fn brain(tensors: &Tensors) -> Tensors {
    converted(tensors, Dtype::BF16, |value| bf16::from_f32(value.to_f32()).to_le_bytes().to_vec())
}

/// What is left of halves that were brain floats, as single floats.
pub fn from_brain(tensors: &Tensors) -> Tensors {
    converted(tensors, Dtype::F32, |value| bf16::from_f32(value.to_f32()).to_f32().to_le_bytes().to_vec())
}

/// Halves as doubles, which changes nothing.
pub fn double(tensors: &Tensors) -> Tensors {
    converted(tensors, Dtype::F64, |value| value.to_f64().to_le_bytes().to_vec())
}

/// Halves as eight bits with five for the exponent: their upper halves.
pub fn e5m2(tensors: &Tensors) -> Tensors {
    converted(tensors, Dtype::F8_E5M2, |value| vec![value.to_le_bytes()[1]])
}

/// What is left of halves that were so.
pub fn from_e5m2(tensors: &Tensors) -> Tensors {
    let cut = |value: f16| f16::from_le_bytes([0, value.to_le_bytes()[1]]);
    converted(tensors, Dtype::F32, |value| cut(value).to_f32().to_le_bytes().to_vec())
}

/// A half as eight bits with four for the exponent: its exponent is less by eight, and three digits are left. What is too
/// small is zero.
fn e4m3_of(value: f16) -> u8 {
    let bits = value.to_bits();
    let (sign, exponent, digits) = (bits >> 15, (bits >> 10) & 31, (bits >> 7) & 7);
    let byte = (sign << 7) | if exponent > 8 { ((exponent - 8) << 3) | digits } else { 0 };
    u8::try_from(byte).unwrap()
}

/// Halves as eight bits with four for the exponent.
pub fn e4m3(tensors: &Tensors) -> Tensors {
    converted(tensors, Dtype::F8_E4M3, |value| vec![e4m3_of(value)])
}

/// What is left of halves that were so.
pub fn from_e4m3(tensors: &Tensors) -> Tensors {
    let back = |byte: u8| {
        let (sign, rest) = (u16::from(byte >> 7) << 15, u16::from(byte & 127));
        f16::from_bits(if rest == 0 { sign } else { sign | ((rest << 7) + (8 << 10)) })
    };
    converted(tensors, Dtype::F32, |value| back(e4m3_of(value)).to_f32().to_le_bytes().to_vec())
}

/// A tensor of zeros.
pub fn zeros(dtype: Dtype, shape: &[usize]) -> Tensor {
    let bytes = vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8];
    Tensor { dtype, shape: shape.to_vec(), bytes }
}

/// Tensors of zeros by their names, for files of other kinds.
pub fn named(tensors: &[(&str, &[usize])]) -> Tensors {
    tensors.iter().map(|(name, shape)| ((*name).to_owned(), zeros(Dtype::F16, shape))).collect()
}

/// The tensors whose names begin so, without that beginning.
pub fn below(tensors: &Tensors, prefix: &str) -> Tensors {
    let strip =
        |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()));
    tensors.iter().filter_map(strip).collect()
}

/// The same tensors under other names.
pub fn renamed(tensors: &Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

/// Adds ones to the end of the shapes of these tensors, or removes them.
pub fn reshape(tensors: &mut Tensors, is_meant: impl Fn(&str) -> bool, ones: bool) {
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| is_meant(name)) {
        match ones {
            true => tensor.shape.extend([1, 1]),
            false => tensor.shape.truncate(2),
        }
    }
}
