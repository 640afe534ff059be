//! How many values a pickle may make: a limit on the memory that a small file takes.

use super::pickle_reader::Trouble;

/// What a small file may make: values on the stack, in containers and in the memo.
const LEAST: u64 = 200_000;
const MOST: u64 = 8_000_000;
/// Bytes of the file for each further value: then values take less memory than the file has bytes.
const BYTES_A_VALUE: u64 = 32;

/// The values that are left to make.
pub(super) struct Room(usize);

impl Room {
    pub fn in_file_of(length: u64) -> Self {
        let values = (LEAST + length / BYTES_A_VALUE).min(MOST);
        Self(usize::try_from(values).unwrap_or(usize::MAX))
    }

    /// What is left after so many values.
    pub fn after(&self, values: usize) -> Result<Self, Trouble> {
        let too_many =
            || Trouble::Refused("its pickle makes more values than a file of its size needs".to_owned());
        self.0.checked_sub(values).map(Self).ok_or_else(too_many)
    }

    pub fn spend(&mut self, values: usize) -> Result<(), Trouble> {
        *self = self.after(values)?;
        Ok(())
    }
}
