//! Our own inner loops for the processor, as operators of ONNX Runtime.
//!
//! `operators` is what a session sees. `convolution` has 3×3 convolutions by Winograd's algorithm, which make a result from 2.25
//! products where the direct way takes nine. `minimal` has the algorithm's matrices, `tiles` and `panel` the transforms,
//! `multiply` the innermost loop. All work on lanes of sixteen channels with the vectors of `vector`, compiled for each `level`
//! of a processor's instructions.
//!
//! `attention` has attention that never holds all scores, and `group_norm` group norms with `silu`. `linear` has linear layers in
//! float32 and `linear_int8` in int8, for which `rounding` brings a row into eight bits and `dot` is the innermost loop. What
//! both have around their products is in `layer`. Knows no models and no graphs.

mod attention;
mod convolution;
mod dot;
mod exponential;
mod gelu;
mod group_norm;
mod layer;
mod level;
mod linear;
mod linear_int8;
mod minimal;
mod multiply;
mod operators;
mod panel;
mod rounding;
mod silu;
#[cfg(test)]
mod tests;
mod tiles;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use dot::multiplies_int8;
pub use level::Level;
pub use operators::{operators, operators_at};
