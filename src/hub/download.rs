//! Downloads one file. An interrupted download resumes, and never mixes two versions of the file.

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use super::client::{Access, Answer, Client, Range, interrupted};
use super::partial_file::{PartialFile, checksum_of};
use super::retry::Retries;
use super::{Checksum, HubError, RepoPath};
use crate::domain::WebUrl;
use crate::size_text::size_text;

/// A file to download, with what is known about it.
pub struct Source {
    pub url: WebUrl,
    pub access: Access,
    /// Its name in messages.
    pub name: String,
    pub size: Option<u64>,
    pub checksum: Option<Checksum>,
    /// Its `ETag` or date, for `If-Range`.
    pub validator: Option<String>,
}

/// A complete file.
pub struct Fetched {
    pub size: u64,
    pub sha256: String,
}

/// Is told how a download goes.
pub trait DownloadProgress {
    /// The bytes so far. The number can go back, when a download starts over.
    fn position(&self, bytes: u64);
    /// Something went wrong, but the download continues.
    fn note(&self, sentence: &str);
    /// Whether the download should end here, and why.
    fn stop(&self) -> Option<HubError>;
}

/// One download: the source, the target path, the HTTP client and the receiver of progress.
pub struct Download<'a> {
    pub source: Source,
    pub target: &'a Path,
    pub client: &'a Client,
    /// Makes the error for a response that brings no file.
    pub refusal: &'a dyn Fn(&Answer) -> HubError,
    pub progress: &'a dyn DownloadProgress,
}

const BUFFER: usize = 256 * 1024;
/// After so many new bytes, the tries are counted from zero again.
const WORTHWHILE: u64 = 1 << 20;
/// The limit that the format sets for the header of a .safetensors file.
const MAX_HEADER: u64 = 100_000_000;
/// How the files of `torch.save` begin: as a zip archive, and before PyTorch 1.6 as a pickle.
const ZIP: &[u8] = b"PK\x03\x04";
const PICKLE: &[u8] = b"\x80";

/// What the body of a response holds.
#[derive(PartialEq, Eq)]
enum Content {
    /// The rest of the file, from the end of the partial file on.
    Rest,
    /// The file from its first byte.
    Whole,
    /// Neither, because the file has changed, or the server sent another range.
    Unusable,
}

impl Download<'_> {
    /// Downloads the file to its target and checks it.
    pub fn run(mut self) -> Result<Fetched, HubError> {
        let mut partial = self.open()?;
        self.complete(&mut partial)?;
        if self.contradicts_its_name(&mut partial).map_err(|error| self.disk(error))? {
            partial.remove().map_err(|error| self.disk(error))?;
            return Err(HubError::Refused(format!(
                "{} is no file of weights, despite its name: look in a browser at what {} has there",
                self.source.name,
                self.source.url.host()
            )));
        }
        let fetched = Fetched { size: partial.size(), sha256: partial.sha256() };
        partial.finish(self.target).map_err(|error| self.disk(error))?;
        Ok(fetched)
    }

    /// The partial file for this version of the file.
    fn open(&self) -> Result<PartialFile, HubError> {
        let Source { checksum, validator, size, .. } = &self.source;
        let identity = checksum.as_ref().map(Checksum::as_str).or(validator.as_deref());
        let mut partial = PartialFile::open(self.target, identity).map_err(|error| self.disk(error))?;
        if size.is_some_and(|size| partial.size() > size) {
            partial.clear().map_err(|error| self.disk(error))?;
        }
        Ok(partial)
    }

    /// Downloads until the checksum is right. Starts over once if it is wrong.
    fn complete(&mut self, partial: &mut PartialFile) -> Result<(), HubError> {
        let mut is_second = false;
        loop {
            self.fill(partial)?;
            let Some(stated) = &self.source.checksum else { return Ok(()) };
            let found = partial.checksum(stated).map_err(|error| self.disk(error))?;
            if found == *stated {
                return Ok(());
            }
            partial.clear().map_err(|error| self.disk(error))?;
            if is_second {
                return Err(self.mismatch(stated, found.as_str()));
            }
            // A crash may have left wrong bytes in the partial file, so download it once more from the beginning.
            self.progress.note(&format!("{} is damaged: downloading it again", self.source.name));
            is_second = true;
        }
    }

    /// Requests the missing bytes until the file is complete.
    fn fill(&mut self, partial: &mut PartialFile) -> Result<(), HubError> {
        let mut retries = Retries::default();
        let mut highest = partial.size();
        while self.source.size != Some(partial.size()) {
            self.progress.position(partial.size());
            self.go_on()?;
            match self.request(partial) {
                Ok(()) if self.source.size.is_none() && partial.size() > 0 => return Ok(()),
                Ok(()) if self.source.size.is_none() => {
                    let host = self.source.url.host().to_owned();
                    retries
                        .wait_after(HubError::Unreachable { host, reason: "it sent nothing".to_owned() })?;
                }
                Ok(()) => {}
                Err(error) if error.is_temporary() || error.is_network_failure() => {
                    // Only bytes beyond the highest position so far are progress.
                    if partial.size() >= highest + WORTHWHILE {
                        highest = partial.size();
                        retries.reset();
                    }
                    let host = self.source.url.host();
                    let at = size_text(partial.size());
                    let sentence = format!("{host} broke off at {at} of {}: resuming", self.source.name);
                    retries.wait_after(error)?;
                    self.progress.note(&sentence);
                }
                Err(error) => return Err(error),
            }
        }
        self.progress.position(partial.size());
        Ok(())
    }

    /// Makes one request and takes in its body.
    fn request(&mut self, partial: &mut PartialFile) -> Result<(), HubError> {
        let Source { validator, checksum, .. } = &self.source;
        if partial.size() > 0 && validator.is_none() && checksum.is_none() {
            // Nothing would show that the rest belongs to the same version.
            partial.clear().map_err(|error| self.disk(error))?;
        }
        let unchanged = validator.as_deref();
        let range = (partial.size() > 0).then_some(Range { from: partial.size(), to: None, unchanged });
        let answer = self.client.get(&self.source.url, range, self.source.access)?;
        if !matches!(answer.status, 200 | 206 | 416) || range.is_none() && answer.status != 200 {
            return Err((self.refusal)(&answer));
        }
        let is_new = self.is_new_version(&answer);
        let content = self.content(partial, &answer);
        if content != Content::Rest && partial.size() > 0 {
            self.progress
                .note(&format!("{} has changed or cannot be resumed: starting over", self.source.name));
            partial.clear().map_err(|error| self.disk(error))?;
        }
        if content == Content::Unusable {
            return Ok(());
        }
        self.check_announcement(&answer)?;
        // A response with the rest of a file may leave the validator out.
        if content == Content::Whole || answer.validator().is_some() {
            self.source.validator = answer.validator().map(str::to_owned);
        }
        if is_new && content == Content::Whole {
            *partial = self.open()?;
        }
        self.append_body(answer, partial)
    }

    /// Whether the file has changed, judged by its validator, since no checksum is known.
    fn is_new_version(&self, answer: &Answer) -> bool {
        let known = self.source.validator.as_deref();
        self.source.checksum.is_none() && known.is_some() && known != answer.validator()
    }

    fn content(&self, partial: &PartialFile, answer: &Answer) -> Content {
        match (answer.status, answer.content_range()) {
            (200, _) => Content::Whole,
            (206, Some((from, size))) => {
                let known = self.source.validator.as_deref();
                let is_same = known.zip(answer.validator()).is_none_or(|(known, now)| known == now);
                let same_size = self.source.size.zip(size).is_none_or(|(stated, now)| stated == now);
                if from == partial.size() && is_same && same_size { Content::Rest } else { Content::Unusable }
            }
            _ => Content::Unusable,
        }
    }

    /// Takes in the size and the checksum that a response announces. Fails if they contradict what was announced before.
    fn check_announcement(&mut self, answer: &Answer) -> Result<(), HubError> {
        let served = match answer.status {
            206 => answer.content_range().and_then(|(_, size)| size),
            _ => answer.content_length(),
        };
        match (self.source.size, served) {
            // Without a checksum, the size comes only from this server, and may change.
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

    /// Appends the body to the partial file, up to the announced size.
    fn append_body(&self, answer: Answer, partial: &mut PartialFile) -> Result<(), HubError> {
        let url = answer.url.clone();
        let mut reader = answer.into_reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = reader.read(&mut buffer).map_err(|error| interrupted(error, &url))?;
            if read == 0 {
                break;
            }
            let served = partial.size() + read as u64;
            if let Some(stated) = self.source.size.filter(|stated| served > *stated) {
                partial.clear().map_err(|error| self.disk(error))?;
                let (host, file) = (url.host().to_owned(), self.source.name.clone());
                return Err(HubError::Size { host, file, stated, served });
            }
            partial.append(&buffer[..read]).map_err(|error| self.disk(error))?;
            self.progress.position(served);
            self.go_on()?;
        }
        if self.source.size.is_some_and(|size| partial.size() < size) {
            let reason = "the connection ended early".to_owned();
            return Err(HubError::Unreachable { host: url.host().to_owned(), reason });
        }
        Ok(())
    }

    /// Whether the file is named like weights and begins like none. Log-in pages are sometimes served under such names. The
    /// form may be another than the name says: people rename both, and whatever reads them goes by the bytes.
    fn contradicts_its_name(&self, partial: &mut PartialFile) -> io::Result<bool> {
        let name = self.target.file_name().unwrap_or_default().to_string_lossy();
        if !name.parse().is_ok_and(|name: RepoPath| name.is_weights()) {
            return Ok(false);
        }
        let mut head = [0; 9];
        let is_safetensors = partial.head(&mut head)? == head.len() && is_safetensors(head, partial.size());
        Ok(!(is_safetensors || head.starts_with(ZIP) || head.starts_with(PICKLE)))
    }

    /// Fails if the download should end here.
    fn go_on(&self) -> Result<(), HubError> {
        self.progress.stop().map_or(Ok(()), Err)
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

/// Whether a file of this size begins like a .safetensors file: with the length of its header, then a brace.
fn is_safetensors(head: [u8; 9], size: u64) -> bool {
    let [length @ .., brace] = head;
    let length = u64::from_le_bytes(length);
    brace == b'{' && length <= MAX_HEADER && length.saturating_add(8) <= size
}

/// Whether the file at `path` has this size and checksum.
pub fn is_whole(path: &Path, size: u64, checksum: Option<&Checksum>) -> bool {
    let is_file =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size);
    let is_same = |stated: &Checksum| checksum_of(path, stated).is_ok_and(|found| found == *stated);
    is_file && checksum.is_some_and(is_same)
}
