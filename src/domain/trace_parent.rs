//! Which trace and which span of it caused something: the `traceparent` of W3C Trace Context.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

/// A span of some program, as other programs name it when they go on with its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: NonZeroU128,
    pub span: NonZeroU64,
    /// Whether that program keeps the trace.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Reads a header's value. None: it is malformed, and whoever reads it begins a trace of its own.
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.splitn(5, '-');
        let [version, trace, span, flags] = [2, 32, 16, 2].map(|digits| {
            let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
            fields.next().filter(|field| field.len() == digits && field.bytes().all(is_hex))
        });
        let version = version.filter(|version| *version != "ff")?;
        // A later version may have more fields.
        if fields.next().is_some() && version == "00" {
            return None;
        }
        let number = |field: Option<&str>| u128::from_str_radix(field?, 16).ok();
        Some(Self {
            trace: NonZeroU128::new(number(trace)?)?,
            span: NonZeroU64::new(u64::try_from(number(span)?).ok()?)?,
            is_sampled: number(flags)? & 1 == 1,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.is_sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back() {
        for text in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000001-0000000000000002-00",
        ] {
            assert_eq!(TraceParent::parse(text).unwrap().to_string(), text);
        }
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-what-comes-later";
        assert_eq!(
            TraceParent::parse(later).unwrap().to_string(),
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        );
    }

    #[test]
    fn malformed_headers_are_none() {
        for text in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333\u{e9}-01",
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }
}
