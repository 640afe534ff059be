//! Our own inner loops for the processor, as operators of ONNX Runtime.
//!
//! `operator` is what a session sees, and `convolution` what it calls: 3×3 convolutions by Winograd's algorithm, which
//! make a result from 2.25 products where the direct way takes nine. `minimal` has the algorithm's matrices, `tiles` and
//! `panel` the transforms, `multiply` the innermost loop. All work on lanes of sixteen channels with the vectors of
//! `vector`, compiled for each `level` of a processor's instructions. Knows no models and no graphs.

mod convolution;
mod level;
mod minimal;
mod multiply;
mod operator;
mod panel;
#[cfg(test)]
mod tests;
mod tiles;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use level::Level;
pub use operator::{operators, operators_at};
