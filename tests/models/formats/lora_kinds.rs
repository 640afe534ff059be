//! The kinds of LoRAs beside the plain one: each changes the same weight by a matrix that is multiplied out here, and
//! draws what a plain LoRA with that very matrix draws.

use safetensors::tensor::Dtype;

use super::add_ons::{Becomes, Row, hold};
use crate::checkpoints::{Tensor, Tensors};

/// The module, and the side of its square weight.
const MODULE: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";
const SIDE: usize = 48;

/// Rows of a matrix.
type Matrix = Vec<Vec<f32>>;

/// A matrix of small numbers, other ones for each seed.
fn matrix(rows: usize, columns: usize, seed: usize) -> Matrix {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let number = |row: usize, column: usize| {
        ((row * 7919 + column * 104_729 + seed * 1_299_709) % 1009) as f32 / 1009.0 - 0.5
    };
    (0..rows).map(|row| (0..columns).map(|column| number(row, column)).collect()).collect()
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let columns = 0..b[0].len();
    let cell = |row: &[f32], column: usize| row.iter().zip(b).map(|(value, row)| value * row[column]).sum();
    a.iter().map(|row| columns.clone().map(|column| cell(row, column)).collect()).collect()
}

/// Each number times the number in the same place.
fn hadamard(a: &Matrix, b: &Matrix) -> Matrix {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).collect()).collect()
}

/// Each number of `a` times all of `b`.
fn kronecker(a: &Matrix, b: &Matrix) -> Matrix {
    let row = |outer: &[f32], inner: &[f32]| {
        outer.iter().flat_map(|outer| inner.iter().map(move |inner| outer * inner)).collect()
    };
    a.iter().flat_map(|outer| b.iter().map(move |inner| row(outer, inner))).collect()
}

fn times(factor: f32, a: Matrix) -> Matrix {
    a.into_iter().map(|row| row.into_iter().map(|value| value * factor).collect()).collect()
}

fn tensor(matrix: &Matrix) -> Tensor {
    let bytes = matrix.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dtype: Dtype::F32, shape: vec![matrix.len(), matrix[0].len()], bytes }
}

fn number(value: f32) -> Tensor {
    Tensor { dtype: Dtype::F32, shape: Vec::new(), bytes: value.to_le_bytes().into() }
}

/// A file with the module's tensors.
fn file<const N: usize>(tensors: [(&str, Tensor); N]) -> Tensors {
    tensors.map(|(end, tensor)| (format!("{MODULE}.{end}"), tensor)).into()
}

/// A plain LoRA of the full rank, whose product is `delta`.
fn plain(delta: &Matrix) -> Tensors {
    let one = |row: usize| (0..SIDE).map(|column| if row == column { 1.0 } else { 0.0 }).collect();
    file([("lora_up.weight", tensor(delta)), ("lora_down.weight", tensor(&(0..SIDE).map(one).collect()))])
}

#[rustfmt::skip] // a row is a line where it fits
pub const ROWS: &[Row] = &[
    Row::lora("LoHa", Becomes::DrawnAs(|| {
        let (one, two) = (product(&matrix(SIDE, 2, 1), &matrix(2, SIDE, 2)), product(&matrix(SIDE, 2, 3), &matrix(2, SIDE, 4)));
        plain(&times(8.0, hadamard(&one, &two)))
    }), || file([
        ("hada_w1_a", tensor(&matrix(SIDE, 2, 1))), ("hada_w1_b", tensor(&matrix(2, SIDE, 2))),
        ("hada_w2_a", tensor(&matrix(SIDE, 2, 3))), ("hada_w2_b", tensor(&matrix(2, SIDE, 4))), ("alpha", number(16.0)),
    ])),
    Row::lora("LoKr of two whole matrices", Becomes::DrawnAs(|| plain(&kronecker(&matrix(4, 4, 1), &matrix(12, 12, 2)))), || file([
        ("lokr_w1", tensor(&matrix(4, 4, 1))), ("lokr_w2", tensor(&matrix(12, 12, 2))),
    ])),
    Row::lora("LoKr of a split matrix", Becomes::DrawnAs(|| {
        plain(&times(8.0, kronecker(&matrix(4, 4, 1), &product(&matrix(12, 2, 2), &matrix(2, 12, 3)))))
    }), || file([
        ("lokr_w1", tensor(&matrix(4, 4, 1))), ("lokr_w2_a", tensor(&matrix(12, 2, 2))), ("lokr_w2_b", tensor(&matrix(2, 12, 3))),
        ("alpha", number(16.0)),
    ])),
    Row::lora("a full difference", Becomes::DrawnAs(|| plain(&matrix(SIDE, SIDE, 1))), || file([("diff", tensor(&matrix(SIDE, SIDE, 1)))])),
    Row::lora("a scale in the place of alpha", Becomes::DrawnAs(|| {
        plain(&times(0.7, product(&matrix(SIDE, 2, 1), &matrix(2, SIDE, 2))))
    }), || file([
        ("lora_up.weight", tensor(&matrix(SIDE, 2, 1))), ("lora_down.weight", tensor(&matrix(2, SIDE, 2))), ("scale", number(0.7)),
    ])),
    Row::lora("half of a LoHa", Becomes::Refused(&["fur", "attn1_to_q"]), || file([
        ("hada_w1_a", tensor(&matrix(SIDE, 2, 1))), ("hada_w1_b", tensor(&matrix(2, SIDE, 2))),
    ])),
];

#[test]
fn kinds_of_loras() {
    hold(ROWS);
}
