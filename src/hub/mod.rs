//! Pulls models from a hub such as Hugging Face's, or from any URL, into the models folder.
//!
//! Everything that a server sends is checked: file names stay inside the folder, sizes and SHA-256 must match, and other
//! model families are refused. A model appears in the folder only when it is complete. Interrupted downloads resume. Of a
//! model's contents, this room reads only the configurations. All calls block.
//!
//! A running server pulls for its clients too, with [`Hub::for_clients`].
//!
//! What the hub's own programs have downloaded is found in their cache ([`HubCache`]) and used from there.
//!
//! The `hf-hub` crate is not used: it keeps its own cache of links, does not resume or check downloads, takes no other
//! URLs, and brings a second HTTP client and TLS library.

mod api;
mod client;
mod disposition;
mod download;
mod error;
mod hub_cache;
mod layouts;
mod listing;
mod lora_file;
mod manifest;
mod models_dir;
mod page;
mod partial_file;
mod path;
mod plan;
mod pull;
mod reference;
mod retry;
mod selection;
mod similar;
mod snapshot;
mod staging;
mod url_plan;

use std::env;
use std::fmt::Write as _;

use ureq::tls::RootCerts;

pub use error::HubError;
pub use hub_cache::{CachedModel, HubCache};
pub use lora_file::is_lora;
pub use manifest::{Manifest, ModelKind, PulledFile};
pub use models_dir::{CopiedModel, ModelsDir, PulledModel, Unfinished};
pub use path::{PathError, RepoPath};
pub use pull::{PullProgress, Pulled};
pub use reference::{ModelRef, Repository};
pub use similar::similar;

use crate::domain::WebUrl;
use crate::fetch::{AllowedAddresses, root_certificates};
use client::Client;

/// A hub, with the client that calls it.
#[derive(Debug)]
pub struct Hub {
    base: WebUrl,
    client: Client,
    wanted: Wanted,
}

/// What is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Model,
    ControlNet,
    TinyVae,
}

/// The announced checksum of a file, in hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Checksum {
    Sha256(String),
    /// Git's SHA-1 of a header and the file. Hubs announce it for small files.
    GitBlob(String),
}

const DEFAULT_BASE: &str = "https://huggingface.co";

impl Hub {
    /// `base` is the URL of another hub than Hugging Face's, `token` the token of an account there. `download_token` is for
    /// the site of a URL that is no page of the hub.
    pub fn new(
        base: Option<&str>,
        token: Option<&str>,
        download_token: Option<&str>,
        roots: RootCerts,
    ) -> Result<Self, HubError> {
        let text = base.unwrap_or(DEFAULT_BASE);
        let base: WebUrl = text
            .parse()
            .map_err(|error| HubError::Reference(format!("HF_ENDPOINT {error}: it is '{text}'")))?;
        if base.as_url().query().is_some() {
            return Err(HubError::Reference(format!(
                "HF_ENDPOINT should be a URL without a query: it is '{text}'"
            )));
        }
        let client = Client::new(roots, &base, token, download_token)?;
        Ok(Self { base, client, wanted: Wanted::Model })
    }

    /// The hub that the environment names, with the tokens there.
    pub fn from_environment() -> Result<Self, HubError> {
        let (base, token) = (variable("HF_ENDPOINT")?, variable("HF_TOKEN")?);
        let download_token = variable("STABLEHAND_DOWNLOAD_TOKEN")?;
        Self::new(base.as_deref(), token.as_deref(), download_token.as_deref(), roots()?)
    }

    /// The same for what a server's clients ask for: it calls only public addresses and those that are `allowed`, uses no
    /// proxy, and sends no token but the hub's, to the hub.
    pub fn for_clients(self, allowed: AllowedAddresses) -> Result<Self, HubError> {
        Ok(Self { client: self.client.for_clients(roots()?, allowed), ..self })
    }

    /// The same, but a repository's ControlNet is pulled and not its model.
    #[must_use]
    pub fn for_controlnets(self) -> Self {
        Self { wanted: Wanted::ControlNet, ..self }
    }

    /// The same, but a repository's tiny VAE is pulled.
    #[must_use]
    pub fn for_tiny_vaes(self) -> Self {
        Self { wanted: Wanted::TinyVae, ..self }
    }

    pub fn base(&self) -> &WebUrl {
        &self.base
    }

    /// A URL of the hub with this path. Each segment is escaped.
    fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Result<WebUrl, HubError> {
        let mut url = self.base.as_url().clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts);
        }
        let url = url.as_str().parse();
        url.map_err(|error| HubError::Reference(format!("the URL at {} {error}", self.base.host())))
    }
}

fn roots() -> Result<RootCerts, HubError> {
    root_certificates().map_err(|error| HubError::Reference(error.to_string()))
}

/// An environment variable, unless it is unset or empty.
fn variable(name: &str) -> Result<Option<String>, HubError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => {
            Err(HubError::Reference(format!("{name} should be valid UTF-8")))
        }
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

/// Reads a SHA-256 as people write it. Returns it in lower case.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_has_only_hexadecimal_digits() {
        let hash = "A".repeat(64);
        assert_eq!(sha256_text(&hash), Some("a".repeat(64)));
        assert_eq!(sha256_text(&format!("sha256:{hash}")), Some("a".repeat(64)));
        for text in ["", "a", &"g".repeat(64), &"a".repeat(65), &"é".repeat(32)] {
            assert_eq!(sha256_text(text), None, "{text}");
        }
    }
}
