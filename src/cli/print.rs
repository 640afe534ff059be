//! Prints a command's result to standard output.

use std::fmt;
use std::io::{self, Write as _};

use super::Failure;

/// Prints the text as it is, without a line break after it.
pub(super) fn print(text: &impl fmt::Display) -> Result<(), Failure> {
    write!(io::stdout(), "{text}")
        .map_err(|error| Failure::Other(format!("cannot write to standard output: {error}")))
}
