//! Questions to a hub about a repository: the commit of a revision, and its files.
//!
//! This is the HTTP API of Hugging Face's hub, as its own clients use it: `/api/models/ORG/NAME/revision/REV`,
//! `/api/models/ORG/NAME/tree/COMMIT?recursive=true` (in pages), `/ORG/NAME/resolve/COMMIT/FILE`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::header;

use super::client::{Access, Answer};
use super::retry::with_retries;
use super::{Checksum, Hub, HubError, RepoPath, Repository};
use crate::domain::WebUrl;

/// The files of a commit, by path.
pub type Tree = BTreeMap<RepoPath, TreeFile>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    pub size: u64,
    pub checksum: Option<Checksum>,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    /// Git's SHA-1 of the file. For a large file it is the SHA-1 of the pointer to it.
    oid: Option<String>,
    lfs: Option<Lfs>,
}

/// Git LFS's data about a large file.
#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "sha256")]
    oid: Option<String>,
    size: Option<u64>,
}

const MAX_ANSWER: u64 = 16 << 20;
const MAX_PAGES: usize = 50;
/// The limit for files that are read into memory: indexes and configurations.
const MAX_TEXT: u64 = 16 << 20;

impl Hub {
    /// The current commit of the repository's revision.
    pub(super) fn commit(&self, repository: &Repository) -> Result<String, HubError> {
        let Repository { org, name, .. } = repository;
        let url = self.url(["api", "models", org, name, "revision", repository.revision()])?;
        let (revision, _) = self.json::<Revision>(&url, repository, None)?;
        let is_commit =
            (7..=64).contains(&revision.sha.len()) && revision.sha.chars().all(|c| c.is_ascii_hexdigit());
        match is_commit {
            true => Ok(revision.sha),
            false => Err(self.invalid(repository, "it names no commit")),
        }
    }

    /// All files of a commit.
    pub(super) fn tree(&self, repository: &Repository, commit: &str) -> Result<Tree, HubError> {
        let Repository { org, name, .. } = repository;
        let mut url = self.url(["api", "models", org, name, "tree", commit])?.as_url().clone();
        url.set_query(Some("recursive=true"));
        let mut next: Option<WebUrl> = url.as_str().parse().ok();
        let mut tree = Tree::new();
        for _ in 0..MAX_PAGES {
            let Some(url) = next else { return Ok(tree) };
            let (entries, following) = self.json::<Vec<Entry>>(&url, repository, None)?;
            for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
                let path = entry
                    .path
                    .parse()
                    .map_err(|error| self.invalid(repository, format!("{error}; nothing was pulled")))?;
                tree.insert(path, entry.into());
            }
            next = following;
        }
        Err(self.invalid(repository, "its list of files does not end"))
    }

    /// The URL of a file in a commit.
    pub(super) fn file_url(
        &self,
        repository: &Repository,
        commit: &str,
        path: &RepoPath,
    ) -> Result<WebUrl, HubError> {
        let Repository { org, name, .. } = repository;
        let parts = [org.as_str(), name, "resolve", commit].into_iter();
        self.url(parts.chain(path.as_str().split('/')))
    }

    /// Reads a small JSON file of a commit.
    pub(super) fn config<T: DeserializeOwned>(
        &self,
        repository: &Repository,
        commit: &str,
        path: &RepoPath,
    ) -> Result<T, HubError> {
        let url = self.file_url(repository, commit, path)?;
        Ok(self.json(&url, repository, Some(path))?.0)
    }

    /// Reads the JSON at `url`. For a list in pages it also returns the URL of the next page.
    fn json<T: DeserializeOwned>(
        &self,
        url: &WebUrl,
        repository: &Repository,
        file: Option<&RepoPath>,
    ) -> Result<(T, Option<WebUrl>), HubError> {
        let what = what(repository, file);
        with_retries(|| {
            let answer = self.client.get(url, None, Access::Hub)?;
            if answer.status != 200 {
                return Err(self.refusal(&answer, repository, file));
            }
            let next = next_page(&answer);
            let host = answer.host().to_owned();
            let limit = if file.is_some() { MAX_TEXT } else { MAX_ANSWER };
            let bytes = answer.read(limit, &what)?;
            let value = serde_json::from_slice(&bytes).map_err(|error| HubError::Answer {
                host,
                what: what.clone(),
                reason: error.to_string(),
            })?;
            Ok((value, next))
        })
    }

    /// The error for a response without the file or the data. The hub's error codes tell more than the status.
    pub(super) fn refusal(
        &self,
        answer: &Answer,
        repository: &Repository,
        file: Option<&RepoPath>,
    ) -> HubError {
        // After a redirect to another server, the status says nothing about the account at the hub.
        if answer.url.as_url().origin() != self.base.as_url().origin() {
            return answer.refusal(what(repository, file));
        }
        let (host, name) = (answer.host().to_owned(), repository.id());
        let page = format!("{}/{name}", self.base.as_str().trim_end_matches('/'));
        match (answer.status, answer.header("x-error-code")) {
            (401, Some("GatedRepo")) | (403, _) => HubError::Gated { name, page },
            (404, Some("RevisionNotFound")) => {
                HubError::Missing { host, what: format!("revision {} of {name}", repository.revision()) }
            }
            (404, _) if file.is_some() => HubError::Missing { host, what: what(repository, file) },
            // The hub gives the same answer for a private repository and for one that does not exist.
            (401 | 404, _) => HubError::Hidden { host, name, page, has_token: self.client.has_hub_token() },
            _ => answer.refusal(what(repository, file)),
        }
    }

    fn invalid(&self, repository: &Repository, reason: impl Into<String>) -> HubError {
        HubError::Answer {
            host: self.base.host().to_owned(),
            what: repository.to_string(),
            reason: reason.into(),
        }
    }
}

impl From<Entry> for TreeFile {
    fn from(entry: Entry) -> Self {
        let lfs_sha256 = entry.lfs.as_ref().and_then(|lfs| lfs.oid.as_deref()).and_then(super::sha256_text);
        let git_blob = || entry.oid.as_deref().and_then(super::sha1_text).filter(|_| entry.lfs.is_none());
        let checksum = lfs_sha256.map(Checksum::Sha256).or_else(|| git_blob().map(Checksum::GitBlob));
        let size = entry.lfs.as_ref().and_then(|lfs| lfs.size).unwrap_or(entry.size);
        Self { size, checksum }
    }
}

fn what(repository: &Repository, file: Option<&RepoPath>) -> String {
    match file {
        Some(file) => format!("{repository}:{file}"),
        None => repository.to_string(),
    }
}

/// The URL in `Link: <…>; rel="next"`.
fn next_page(answer: &Answer) -> Option<WebUrl> {
    let link = answer.header(header::LINK)?;
    let next = link.split(',').find(|link| link.contains("rel=\"next\""))?;
    let (_, url) = next.split_once('<')?;
    answer.url.join(url.split_once('>')?.0).ok()
}
