//! Models from where people publish them: a hub such as Hugging Face's, or any URL; and the folder they go into.
//!
//! Everything a server says is checked before it counts: names stay in the folder, sizes and SHA-256 are those
//! that were stated, pickles and other families are refused. What was pulled shows whole or not at all; what broke
//! off is gone on with. Nothing is known here of what is in a model but its configurations. All calls block.
//!
//! The `hf-hub` crate is not used: it keeps a cache of links of its own, neither goes on with a file that broke off nor
//! checks its SHA-256, takes no other URLs, and brings a second HTTP client and TLS.

mod api;
mod client;
mod download;
mod error;
mod manifest;
mod models_dir;
mod part;
mod path;
mod plan;
mod pull;
mod reference;
mod retry;
mod selection;
mod staging;

use std::fmt::Write as _;

use ureq::tls::RootCerts;

pub use error::HubError;
pub use manifest::{Manifest, ModelKind, PulledFile};
pub use models_dir::{ModelsDir, PulledModel, Unfinished};
pub use path::{PathError, RepoPath};
pub use pull::{PullProgress, Pulled};
pub use reference::{ModelRef, Repository};

use crate::domain::WebUrl;
use client::Client;

/// A hub, and what may be asked of it.
#[derive(Debug)]
pub struct Hub {
    base: WebUrl,
    client: Client,
}

/// What a file's bytes must come to, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Checksum {
    Sha256(String),
    /// Git's own SHA-1 over a header and the file, which hubs state of small files.
    GitBlob(String),
}

const DEFAULT_BASE: &str = "https://huggingface.co";

impl Hub {
    /// `base`: another hub than Hugging Face's. `token`: of an account there.
    pub fn new(base: Option<&str>, token: Option<&str>, roots: RootCerts) -> Result<Self, HubError> {
        let text = base.unwrap_or(DEFAULT_BASE);
        let base: WebUrl = text
            .parse()
            .map_err(|error| HubError::Reference(format!("HF_ENDPOINT {error}, and is '{text}'")))?;
        if base.as_url().query().is_some() {
            return Err(HubError::Reference(format!("HF_ENDPOINT should have no query, and is '{text}'")));
        }
        let client = Client::new(roots, &base, token)?;
        Ok(Self { base, client })
    }

    pub fn base(&self) -> &WebUrl {
        &self.base
    }

    /// The hub's URL with these parts of a path, each escaped.
    fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Result<WebUrl, HubError> {
        let mut url = self.base.as_url().clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        url.as_str()
            .parse()
            .map_err(|reason| HubError::Redirect { host: self.base.host().to_owned(), reason })
    }
}

impl Checksum {
    fn as_str(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::GitBlob(_) => "SHA-1",
        }
    }
}

/// A SHA-256 as people write it, in lower case.
pub fn sha256_text(text: &str) -> Option<String> {
    hash_text(text.strip_prefix("sha256:").unwrap_or(text), 64)
}

fn sha1_text(text: &str) -> Option<String> {
    hash_text(text, 40)
}

fn hash_text(text: &str, digits: usize) -> Option<String> {
    let is_hash = text.len() == digits && text.chars().all(|c| c.is_ascii_hexdigit());
    is_hash.then(|| text.to_ascii_lowercase())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes as file managers show them.
#[allow(clippy::cast_precision_loss)] // one decimal is shown
pub fn size_text(bytes: u64) -> String {
    let units = ["kB", "MB", "GB"];
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.*} {}", usize::from(value < 99.5), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_a_file_manager_shows_them() {
        for (bytes, shown) in [
            (0, "0.0 kB"),
            (776_000, "776 kB"),
            (8_456_789, "8.5 MB"),
            (999_600, "1.0 MB"),
            (3_438_000_000, "3.4 GB"),
        ] {
            assert_eq!(size_text(bytes), shown);
        }
    }

    #[test]
    fn hashes_are_digits_and_nothing_else() {
        let hash = "A".repeat(64);
        assert_eq!(sha256_text(&hash), Some("a".repeat(64)));
        assert_eq!(sha256_text(&format!("sha256:{hash}")), Some("a".repeat(64)));
        for text in ["", "a", &"g".repeat(64), &"a".repeat(65), &"é".repeat(32)] {
            assert_eq!(sha256_text(text), None, "{text}");
        }
    }
}
