//! One file onto the disk: in as many pieces as the network makes of it, and never in a mixture of two versions.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use super::client::{Answer, Client, Range, cut};
use super::part::{Part, checksum_of};
use super::retry::Patience;
use super::{Checksum, HubError, size_text};
use crate::domain::WebUrl;

/// A file to fetch, and what is known of it.
pub struct Source {
    pub url: WebUrl,
    /// What to call it in messages.
    pub name: String,
    pub size: Option<u64>,
    pub checksum: Option<Checksum>,
    /// An `ETag` or a date, for `If-Range`.
    pub validator: Option<String>,
}

/// A file that is whole.
pub struct Fetched {
    pub size: u64,
    pub sha256: String,
}

/// Told where a file stands: bytes so far (which may go back), and what is going wrong.
pub trait Watch {
    fn position(&self, bytes: u64);
    fn note(&self, sentence: &str);
}

/// A source, where it goes, and who is asked and told.
pub struct Download<'a> {
    pub source: Source,
    pub target: &'a Path,
    pub client: &'a Client,
    /// What a status means that brings no file.
    pub refusal: &'a dyn Fn(&Answer) -> HubError,
    pub watch: &'a dyn Watch,
}

const BUFFER: usize = 256 * 1024;
/// A connection that brought this much was worth having.
const FRUIT: u64 = 1 << 20;
/// The format's own limit of a .safetensors file's header.
const MAX_HEADER: u64 = 100_000_000;

/// What an answer brings to a part.
#[derive(PartialEq, Eq)]
enum Fit {
    /// The rest, from the part's end on.
    Rest,
    /// The file from its beginning.
    Whole,
    /// Neither: the file has changed, or the server does not mean what it says.
    Neither,
}

impl Download<'_> {
    /// Fetches the file to its target, checked.
    pub fn run(mut self) -> Result<Fetched, HubError> {
        let mut part = self.open()?;
        self.complete(&mut part)?;
        if self.has_no_header(&mut part).map_err(|error| self.disk(error))? {
            part.remove().map_err(|error| self.disk(error))?;
            return Err(HubError::Refused(format!(
                "{} is no .safetensors file, whatever its name says: see in a browser what {} has there",
                self.source.name,
                self.source.url.host()
            )));
        }
        let fetched = Fetched { size: part.size(), sha256: part.sha256() };
        part.finish(self.target).map_err(|error| self.disk(error))?;
        Ok(fetched)
    }

    /// What there is of this version of the file.
    fn open(&self) -> Result<Part, HubError> {
        let Source { checksum, validator, size, .. } = &self.source;
        let identity = checksum.as_ref().map(Checksum::as_str).or(validator.as_deref());
        let mut part = Part::open(self.target, identity).map_err(|error| self.disk(error))?;
        if size.is_some_and(|size| part.size() > size) {
            part.clear().map_err(|error| self.disk(error))?;
        }
        Ok(part)
    }

    /// Fills the part until it is the file that was stated.
    fn complete(&mut self, part: &mut Part) -> Result<(), HubError> {
        let mut is_second = false;
        loop {
            self.fill(part)?;
            let Some(stated) = &self.source.checksum else { return Ok(()) };
            let found = part.checksum(stated).map_err(|error| self.disk(error))?;
            if found == *stated {
                return Ok(());
            }
            part.clear().map_err(|error| self.disk(error))?;
            if is_second {
                return Err(self.mismatch(stated, found.as_str()));
            }
            // A crash may have left something else in the part than was written, so once more from its beginning.
            self.watch.note(&format!("{} is damaged: fetching it once more", self.source.name));
            is_second = true;
        }
    }

    /// Asks for what is missing until nothing is.
    fn fill(&mut self, part: &mut Part) -> Result<(), HubError> {
        let mut patience = Patience::default();
        let mut highest = part.size();
        while self.source.size != Some(part.size()) {
            self.watch.position(part.size());
            match self.ask(part) {
                Ok(()) if self.source.size.is_none() && part.size() > 0 => return Ok(()),
                Ok(()) if self.source.size.is_none() => {
                    let host = self.source.url.host().to_owned();
                    patience.spend(HubError::Unreachable { host, reason: "it sends nothing".to_owned() })?;
                }
                Ok(()) => {}
                Err(error) if error.is_passing() || error.is_of_the_network() => {
                    // What was there before and is there again brings us no further.
                    if part.size() >= highest + FRUIT {
                        highest = part.size();
                        patience.renew();
                    }
                    let host = self.source.url.host();
                    let at = size_text(part.size());
                    let sentence =
                        format!("{host} broke off at {at} of {}: going on from there", self.source.name);
                    patience.spend(error)?;
                    self.watch.note(&sentence);
                }
                Err(error) => return Err(error),
            }
        }
        self.watch.position(part.size());
        Ok(())
    }

    /// One request, and all that it brings.
    fn ask(&mut self, part: &mut Part) -> Result<(), HubError> {
        let Source { validator, checksum, .. } = &self.source;
        if part.size() > 0 && validator.is_none() && checksum.is_none() {
            // Nothing would show that the rest is of the same file.
            part.clear().map_err(|error| self.disk(error))?;
        }
        let unchanged = validator.as_deref();
        let range = (part.size() > 0).then_some(Range { from: part.size(), to: None, unchanged });
        let answer = self.client.get(&self.source.url, range)?;
        if !matches!(answer.status, 200 | 206 | 416) || range.is_none() && answer.status != 200 {
            return Err((self.refusal)(&answer));
        }
        let is_new = self.is_new_version(&answer);
        let fit = self.fit(part, &answer);
        if fit != Fit::Rest && part.size() > 0 {
            self.watch.note(&format!(
                "{} has changed, or cannot be gone on with: beginning anew",
                self.source.name
            ));
            part.clear().map_err(|error| self.disk(error))?;
        }
        if fit == Fit::Neither {
            return Ok(());
        }
        self.check_statements(&answer)?;
        // The rest of a file need not say again what it is of.
        if fit == Fit::Whole || answer.validator().is_some() {
            self.source.validator = answer.validator().map(str::to_owned);
        }
        if is_new && fit == Fit::Whole {
            *part = self.open()?;
        }
        self.pour(answer, part)
    }

    /// Whether the file has changed, and nothing but its server says what it should be.
    fn is_new_version(&self, answer: &Answer) -> bool {
        let known = self.source.validator.as_deref();
        self.source.checksum.is_none() && known.is_some() && known != answer.validator()
    }

    fn fit(&self, part: &Part, answer: &Answer) -> Fit {
        match (answer.status, answer.content_range()) {
            (200, _) => Fit::Whole,
            (206, Some((from, size))) => {
                let known = self.source.validator.as_deref();
                let is_same = known.zip(answer.validator()).is_none_or(|(known, now)| known == now);
                let same_size = self.source.size.zip(size).is_none_or(|(stated, now)| stated == now);
                if from == part.size() && is_same && same_size { Fit::Rest } else { Fit::Neither }
            }
            _ => Fit::Neither,
        }
    }

    /// Takes in what an answer states of the file, or refuses it where something else was stated before.
    fn check_statements(&mut self, answer: &Answer) -> Result<(), HubError> {
        let served = match answer.status {
            206 => answer.content_range().and_then(|(_, size)| size),
            _ => answer.content_length(),
        };
        match (self.source.size, served) {
            // What its own server alone states may change.
            (Some(stated), Some(served)) if stated != served && self.source.checksum.is_some() => {
                let (host, file) = (answer.host().to_owned(), self.source.name.clone());
                return Err(HubError::Size { host, file, stated, served });
            }
            (_, Some(served)) => self.source.size = Some(served),
            (_, None) if self.source.checksum.is_none() => self.source.size = None,
            _ => {}
        }
        match (&self.source.checksum, &answer.linked_sha256) {
            (Some(stated @ Checksum::Sha256(sha256)), Some(linked)) if sha256 != linked => {
                Err(self.mismatch(stated, linked))
            }
            (None, Some(linked)) => {
                self.source.checksum = Some(Checksum::Sha256(linked.clone()));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn pour(&self, answer: Answer, part: &mut Part) -> Result<(), HubError> {
        let url = answer.url.clone();
        let mut reader = answer.into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = reader.read(&mut buffer).map_err(|error| cut(error, &url))?;
            if read == 0 {
                break;
            }
            let served = part.size() + read as u64;
            if let Some(stated) = self.source.size.filter(|stated| served > *stated) {
                part.clear().map_err(|error| self.disk(error))?;
                let (host, file) = (url.host().to_owned(), self.source.name.clone());
                return Err(HubError::Size { host, file, stated, served });
            }
            part.append(&buffer[..read]).map_err(|error| self.disk(error))?;
            self.watch.position(served);
        }
        if self.source.size.is_some_and(|size| part.size() < size) {
            let reason = "the connection ended early".to_owned();
            return Err(HubError::Unreachable { host: url.host().to_owned(), reason });
        }
        Ok(())
    }

    /// Whether what should be a .safetensors file does not begin like one: with the length of its header, and
    /// that with a brace. Pages that ask to log in are saved under such names, and pickles.
    fn has_no_header(&self, part: &mut Part) -> io::Result<bool> {
        if !self.target.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
            return Ok(false);
        }
        let mut head = [0; 9];
        if part.head(&mut head)? < head.len() {
            return Ok(true);
        }
        let [length @ .., brace] = head;
        let length = u64::from_le_bytes(length);
        Ok(brace != b'{' || length > MAX_HEADER || length + 8 > part.size())
    }

    fn mismatch(&self, stated: &Checksum, found: &str) -> HubError {
        HubError::Checksum {
            host: self.source.url.host().to_owned(),
            file: self.source.name.clone(),
            kind: stated.kind(),
            stated: stated.as_str().to_owned(),
            found: found.to_owned(),
        }
    }

    fn disk(&self, error: io::Error) -> HubError {
        HubError::disk(self.target, error)
    }
}

/// Whether the file at `path` is the one that is stated.
pub fn is_whole(path: &Path, size: u64, checksum: Option<&Checksum>) -> bool {
    let is_file =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size);
    let is_same = |stated: &Checksum| checksum_of(path, stated).is_ok_and(|found| found == *stated);
    is_file && checksum.is_some_and(is_same)
}
