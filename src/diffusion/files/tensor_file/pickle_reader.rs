//! The bytes of a pickle, read in order. Texts stay where they are: a value holds only their place.

/// The longest line, in bytes: names of modules and classes.
pub(super) const LONGEST_LINE: usize = 1000;

/// Why a pickle was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It goes on behind the bytes, and needs at least so many.
    Needs(u64),
    Refused(String),
}

/// The place of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Span {
    start: u32,
    length: u32,
}

impl Span {
    /// In bytes.
    pub fn length(self) -> usize {
        self.length as usize
    }
}

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads up to 4 GiB.
    pub fn new(bytes: &'a [u8]) -> Self {
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
        Self { bytes: &bytes[..bytes.len().min(most)], at: 0 }
    }

    pub fn position(&self) -> usize {
        self.at
    }

    pub fn byte(&mut self) -> Result<u8, Trouble> {
        Ok(self.array::<1>()?[0])
    }

    pub fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Trouble> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let found = rest.first_chunk().ok_or_else(|| Trouble::Needs(self.at as u64 + LENGTH as u64))?;
        self.at += LENGTH;
        Ok(*found)
    }

    pub fn take(&mut self, length: u64) -> Result<Span, Trouble> {
        let end = (self.at as u64).saturating_add(length);
        if end > self.bytes.len() as u64 {
            return Err(Trouble::Needs(end));
        }
        let needs = |_| Trouble::Needs(end);
        let span = Span {
            start: u32::try_from(self.at).map_err(needs)?,
            length: u32::try_from(length).map_err(needs)?,
        };
        self.at += span.length as usize;
        Ok(span)
    }

    /// The text up to the next line break, which is skipped.
    pub fn line(&mut self) -> Result<Span, Trouble> {
        let rest = &self.bytes[self.at..];
        let rest = &rest[..rest.len().min(LONGEST_LINE)];
        match rest.iter().position(|byte| *byte == b'\n') {
            Some(length) => {
                let line = self.take(length as u64)?;
                self.at += 1;
                Ok(line)
            }
            None if rest.len() < LONGEST_LINE => Err(Trouble::Needs(self.bytes.len() as u64 + 1)),
            None => Err(Trouble::Refused("its pickle has a name that is too long".to_owned())),
        }
    }

    pub fn span(&self, span: Span) -> &'a [u8] {
        let start = span.start as usize;
        self.bytes.get(start..start + span.length as usize).unwrap_or_default()
    }

    pub fn text(&self, span: Span) -> Result<&'a str, Trouble> {
        std::str::from_utf8(self.span(span))
            .map_err(|_| Trouble::Refused("its pickle has a text that is not UTF-8".to_owned()))
    }
}
