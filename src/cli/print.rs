//! Prints a command's result to standard output.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};

use super::Failure;

/// Prints the text as it is, without a line break after it.
pub(super) fn print(text: &impl fmt::Display) -> Result<(), Failure> {
    write(text.to_string().as_bytes())
}

/// Writes bytes as they are. A reader that has closed its side, as `head` does, has all that it wants: that is no failure.
pub(super) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
