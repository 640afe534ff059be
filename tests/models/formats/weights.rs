//! Tensors in other types and under other names.

use half::bf16;
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
