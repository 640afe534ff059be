//! Finds where the head of a request ends, and how long a body it announces, in whatever pieces the head comes.
//!
//! This only decides what actix-web gets when. actix-web reads the head again, and refuses one that is no head.

use std::mem;

/// How much of a line is looked at.
const LINE: usize = 64;

/// Looks for the empty line that ends a head, in pieces.
#[derive(Default)]
pub(super) struct HeadEnd {
    /// The line so far, in small letters and without its carriage return. Not more of it than a length needs.
    line: Vec<u8>,
    /// The length of the body, once a line has said it.
    body: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Where what follows it begins in the last piece.
    pub end: usize,
    /// How long its body is, if it says so. Otherwise 0.
    pub body: usize,
}

impl HeadEnd {
    /// The head, if it ends in this piece.
    pub fn find(&mut self, piece: &[u8]) -> Option<Head> {
        for (at, byte) in piece.iter().enumerate() {
            match byte {
                b'\n' if self.line.is_empty() => {
                    let body = mem::take(&mut self.body);
                    return Some(Head { end: at + 1, body });
                }
                b'\n' => {
                    if let Some(length) = announced(&self.line) {
                        self.body = length;
                    }
                    self.line.clear();
                }
                b'\r' => {}
                byte if self.line.len() < LINE => self.line.push(byte.to_ascii_lowercase()),
                _ => {}
            }
        }
        None
    }
}

/// The length that a line of a head announces.
fn announced(line: &[u8]) -> Option<usize> {
    let value = std::str::from_utf8(line).ok()?.strip_prefix("content-length:")?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line_in_whatever_pieces_it_comes() {
        for (head, end, body) in [
            ("GET / HTTP/1.1\r\n\r\nPOST", 18, 0),
            ("GET / HTTP/1.1\n\n", 16, 0),
            ("a\r\nb: c\r\n\r\n\r\n", 11, 0),
            ("a\r\nContent-Length: 12\r\n\r\nhello", 25, 12),
        ] {
            assert_eq!(HeadEnd::default().find(head.as_bytes()), Some(Head { end, body }), "{head:?}");
            let mut bytewise = HeadEnd::default();
            let found = head.bytes().position(|byte| bytewise.find(&[byte]).is_some());
            assert_eq!(found, Some(end - 1), "{head:?}");
        }
        assert_eq!(HeadEnd::default().find(b"GET / HTTP/1.1\r\nA: b\r\n"), None);
    }
}
