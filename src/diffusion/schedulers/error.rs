//! Why a scheduler cannot be built or stepped: one sentence that names the key, the value and what is allowed.

use std::fmt::Display;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchedulerError {
    #[error("the scheduler configuration is not a JSON object: {0}")]
    Json(String),
    #[error("scheduler configuration: {key} is {value}, but must be {expected}")]
    Value { key: &'static str, value: String, expected: String },
    #[error("{field} is {steps}, but this schedule has between {min} and {max} steps")]
    Steps { field: &'static str, steps: usize, min: usize, max: usize },
    #[error("model call {index} was requested, but the schedule has {len} model calls")]
    OutOfRange { index: usize, len: usize },
    #[error("model call {index} is the second half of a step, but the first half was not run")]
    SecondHalf { index: usize },
    #[error("the {what} has shape {got:?}, but the latents have {want:?}")]
    Shape { what: &'static str, got: Vec<usize>, want: Vec<usize> },
    #[error("{0} cannot start from an image: it defines no way to add noise")]
    NoImageStart(&'static str),
    #[error("{scheduler} {reason}")]
    Spacing { scheduler: &'static str, reason: String },
}

impl SchedulerError {
    /// Too many steps, or too few.
    pub(super) fn steps(steps: usize, min: usize, max: usize) -> Self {
        Self::Steps { field: "num_inference_steps", steps, min, max }
    }

    /// The same where another field says how many steps there are.
    #[must_use]
    pub fn of_steps_in(self, field: &'static str) -> Self {
        match self {
            Self::Steps { steps, min, max, .. } => Self::Steps { field, steps, min, max },
            other => other,
        }
    }

    pub(super) fn value(key: &'static str, value: impl Display, expected: impl Into<String>) -> Self {
        Self::Value { key, value: value.to_string(), expected: expected.into() }
    }
}

pub(super) fn check_index(index: usize, len: usize) -> Result<(), SchedulerError> {
    if index < len { Ok(()) } else { Err(SchedulerError::OutOfRange { index, len }) }
}

pub(super) fn check_shape(what: &'static str, got: &[usize], want: &[usize]) -> Result<(), SchedulerError> {
    if got == want {
        Ok(())
    } else {
        Err(SchedulerError::Shape { what, got: got.to_vec(), want: want.to_vec() })
    }
}
