//! Our own inner loops for the processor, as operators of ONNX Runtime.
//!
//! `operator` is what a session sees, and `convolution` what it calls: 3×3 convolutions by Winograd's algorithm, which
//! make a result from 2.25 products where the direct way takes nine. `minimal` has the algorithm's matrices, `tiles` and
//! `panel` the transforms, `multiply` the innermost loop. All work on lanes of sixteen channels with the vectors of
//! `vector`, compiled for each `level` of a processor's instructions.
//!
//! `linear_operator` and `linear` do the same for linear layers in int8: `rounding` brings a row into eight bits, and `dot`
//! is the innermost loop. Knows no models and no graphs.

mod convolution;
mod dot;
mod level;
mod linear;
mod linear_operator;
mod minimal;
mod multiply;
mod operator;
mod panel;
mod rounding;
#[cfg(test)]
mod tests;
mod tiles;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use dot::multiplies_int8;
pub use level::Level;
pub use operator::{operators, operators_at};
