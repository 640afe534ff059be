//! The directory of a zip archive as `torch.save` writes it: entries that are stored, not compressed, so that tensors can
//! be read in place.
//!
//! Only the directory at the end of the file counts, and each name may be there once: readers that look elsewhere, or take
//! another of two entries, would see another file.

use std::collections::HashMap;

use super::super::quoted_name;
use super::file_bytes::FileBytes;

/// A file of torch has an entry for each storage.
const MOST_ENTRIES: usize = 100_000;
const LONGEST_DIRECTORY: u64 = 32 << 20;
/// The record at the end, and the longest comment behind it.
const END: usize = 22;
const LONGEST_COMMENT: usize = 0xffff;
const LOCATOR: usize = 20;
const END_64: usize = 56;
const CENTRAL: usize = 46;
const LOCAL: u64 = 30;
/// In the place of a number of 32 bits: it is in the part for 64 bits.
const ELSEWHERE: u64 = 0xffff_ffff;
const ELSEWHERE_16: u64 = 0xffff;

pub(super) struct ZipDirectory {
    entries: HashMap<String, ZipEntry>,
}

struct ZipEntry {
    /// The offset of its own header, in front of its bytes.
    header: u64,
    length: u64,
    is_stored: bool,
}

impl ZipDirectory {
    pub fn read(file: &FileBytes) -> Result<Self, String> {
        let cut = || "it is a zip archive without its end: it was cut short; fetch it again".to_owned();
        let length = file.length();
        let tail_length = length.min((END + LONGEST_COMMENT + LOCATOR) as u64);
        let tail_start = length - tail_length;
        let tail = file.read_range(tail_start, tail_length).map_err(|error| error.to_string())?;
        let is_end = |at: &usize| {
            tail[*at..].starts_with(b"PK\x05\x06")
                && tail.len() - at - END == usize::try_from(number(&tail, at + 20, 2)).unwrap_or(0)
        };
        let end = (0..(tail.len() + 1).saturating_sub(END)).rev().find(is_end).ok_or_else(cut)?;
        let mut count = number(&tail, end + 10, 2);
        let (mut size, mut start) = (number(&tail, end + 12, 4), number(&tail, end + 16, 4));
        if count == ELSEWHERE_16 || size == ELSEWHERE || start == ELSEWHERE {
            let locator = end.checked_sub(LOCATOR).filter(|at| tail[*at..].starts_with(b"PK\x06\x07"));
            let at = number(&tail, locator.ok_or_else(cut)? + 8, 8);
            let end = file.read_range(at, END_64 as u64).map_err(|_| cut())?;
            if !end.starts_with(b"PK\x06\x06") {
                return Err(cut());
            }
            (count, size, start) = (number(&end, 32, 8), number(&end, 40, 8), number(&end, 48, 8));
        }
        if size > LONGEST_DIRECTORY || count > MOST_ENTRIES as u64 {
            return Err("it is a zip archive with more entries than a model has".to_owned());
        }
        let directory = file.read_range(start, size).map_err(|_| cut())?;
        let mut entries = HashMap::new();
        let mut rest = directory.as_slice();
        for _ in 0..count {
            let (name, entry, behind) = entry(rest)?;
            if entries.insert(name.to_owned(), entry).is_some() {
                return Err(format!("it is a zip archive that has {} twice", quoted_name(name)));
            }
            rest = behind;
        }
        Ok(Self { entries })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The offset and the length of an entry's bytes, or none where there is no such entry.
    pub fn place(&self, file: &FileBytes, name: &str) -> Result<Option<(u64, u64)>, String> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let shown = quoted_name(name);
        if !entry.is_stored {
            return Err(format!(
                "its entry {shown} is compressed or encrypted; torch.save writes entries as they are"
            ));
        }
        let broken =
            || format!("its entry {shown} lies beyond the end of the file: it was cut short; fetch it again");
        let header = file.read_range(entry.header, LOCAL).map_err(|_| broken())?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(format!("its entry {shown} is not where its directory says"));
        }
        let at = entry.header + LOCAL + number(&header, 26, 2) + number(&header, 28, 2);
        match at.checked_add(entry.length) {
            Some(end) if end <= file.length() => Ok(Some((at, entry.length))),
            _ => Err(broken()),
        }
    }
}

/// The entry at the beginning of the directory's `bytes`, its name, and what follows.
fn entry(bytes: &[u8]) -> Result<(&str, ZipEntry, &[u8]), String> {
    let broken =
        || "it is a zip archive with a broken directory: it was cut short; fetch it again".to_owned();
    let (head, rest) = bytes.split_at_checked(CENTRAL).ok_or_else(broken)?;
    if !head.starts_with(b"PK\x01\x02") {
        return Err(broken());
    }
    let lengths = [28, 30, 32].map(|at| usize::try_from(number(head, at, 2)).unwrap_or(0));
    let (name, rest) = rest.split_at_checked(lengths[0]).ok_or_else(broken)?;
    let (extra, rest) = rest.split_at_checked(lengths[1]).ok_or_else(broken)?;
    let (_, behind) = rest.split_at_checked(lengths[2]).ok_or_else(broken)?;
    let name = std::str::from_utf8(name).map_err(|_| broken())?;
    // Length, length when compressed, offset: those that need it are in the part for 64 bits, in this order.
    let mut numbers = [number(head, 24, 4), number(head, 20, 4), number(head, 42, 4)];
    let mut large = large_numbers(extra);
    for number in numbers.iter_mut().filter(|number| **number == ELSEWHERE) {
        *number = large.next().ok_or_else(broken)?;
    }
    let [length, compressed, header] = numbers;
    let (flags, method) = (number(head, 8, 2), number(head, 10, 2));
    let is_stored = method == 0 && flags & 1 == 0 && length == compressed;
    Ok((name, ZipEntry { header, length, is_stored }, behind))
}

/// The numbers of 64 bits in an entry's additional fields.
fn large_numbers(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut found: &[u8] = &[];
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let length = usize::try_from(number(head, 2, 2)).unwrap_or(0);
        let Some((field, behind)) = rest.split_at_checked(length) else { break };
        if number(head, 0, 2) == 1 {
            found = field;
            break;
        }
        extra = behind;
    }
    found.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The little-endian number of so many bytes. Zero where there are fewer.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let bytes = bytes.get(at..at + length).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
