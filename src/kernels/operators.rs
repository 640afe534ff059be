//! The kernels as operators of ONNX Runtime, in the domain `stablehand`. Each has a file with its inputs, outputs and attributes.

mod attention;
mod call;
mod conv3x3;
mod group_norm;
mod layer;
mod linear;
mod linear_int8;
#[cfg(test)]
mod tests;

use ort::operator::OperatorDomain;

use self::attention::AttentionOperator;
use self::call::Pool;
use self::conv3x3::Conv3x3;
use self::group_norm::GroupNormOperator;
use self::linear::LinearOperator;
use self::linear_int8::LinearInt8Operator;
use super::level::Level;

const DOMAIN: &str = "stablehand";

/// The operators for a session that works with so many threads.
pub fn operators(threads: usize) -> ort::Result<OperatorDomain> {
    operators_at(threads, Level::best())
}

/// The same with the instructions of one level, for measurements. This processor must have them.
pub fn operators_at(threads: usize, level: Level) -> ort::Result<OperatorDomain> {
    if !Level::all().contains(&level) {
        return Err(ort::Error::new(format!("this processor has no {level:?}")));
    }
    let threads = threads.max(1);
    OperatorDomain::new(DOMAIN)?
        .add(AttentionOperator { threads, level, scratch: Pool::default() })?
        .add(Conv3x3 { threads, level, scratch: Pool::default() })?
        .add(GroupNormOperator { threads, level })?
        .add(LinearOperator { threads, level, scratch: Pool::default() })?
        .add(LinearInt8Operator { threads, level, scratch: Pool::default() })
}
