//! What `models pull` can pull: a repository of a hub, one file of it, or a URL.

use std::fmt;

use super::{HubError, RepoPath};
use crate::domain::WebUrl;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// The usable files of a repository: a model folder, or its only checkpoint.
    Repository(Repository),
    /// One file of a repository.
    File(Repository, RepoPath),
    /// A file at any URL.
    Url(WebUrl),
}

/// `ORG/NAME`, with a branch, a tag or a commit; otherwise it is `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub org: String,
    pub name: String,
    pub revision: Option<String>,
}

const MAIN: &str = "main";
const FORM: &str = "write ORG/NAME, ORG/NAME:FILE.safetensors, ORG/NAME@REVISION or https://…";

impl ModelRef {
    /// Reads what the operator wrote. The URL of a page of the hub at `base` stands for the repository or the file that
    /// the page shows.
    pub fn parse(text: &str, base: &WebUrl) -> Result<Self, HubError> {
        let refuse =
            |reason: &dyn fmt::Display| HubError::Reference(format!("'{text}' cannot be pulled: {reason}"));
        if text.contains("://") {
            // The URL may hold a key, so the error does not repeat it.
            let url: WebUrl =
                text.parse().map_err(|error| HubError::Reference(format!("the URL to pull from {error}")))?;
            return Ok(Self::from_hub_page(&url, base).unwrap_or(Self::Url(url)));
        }
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (text, None),
        };
        let repository = Repository::parse(repository).ok_or_else(|| refuse(&FORM))?;
        match file {
            Some(file) => {
                let file = file.parse().map_err(|error| refuse(&error))?;
                Ok(Self::File(repository, file))
            }
            None => Ok(Self::Repository(repository)),
        }
    }

    /// The model on a page of the hub: `ORG/NAME`, `ORG/NAME/tree/REV`, `ORG/NAME/blob/REV/FILE` or
    /// `ORG/NAME/resolve/REV/FILE`.
    fn from_hub_page(url: &WebUrl, base: &WebUrl) -> Option<Self> {
        let (url, base) = (url.as_url(), base.as_url());
        if url.origin() != base.origin() || url.path().contains('%') {
            return None;
        }
        let path = url.path().strip_prefix(base.path().trim_end_matches('/'))?.trim_matches('/');
        let parts: Vec<&str> = path.splitn(5, '/').collect();
        match parts[..] {
            [org, name] => Repository::parse(&format!("{org}/{name}")).map(Self::Repository),
            [org, name, "tree", revision] => {
                Repository::parse(&format!("{org}/{name}@{revision}")).map(Self::Repository)
            }
            [org, name, "blob" | "resolve", revision, file] => {
                let mut repository = Repository::parse(&format!("{org}/{name}@{revision}"))?;
                repository.revision = repository.revision.filter(|revision| revision != MAIN);
                Some(Self::File(repository, file.parse().ok()?))
            }
            _ => None,
        }
    }
}

impl Repository {
    fn parse(text: &str) -> Option<Self> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let (org, name) = id.split_once('/')?;
        let fits = is_name(org) && is_name(name) && revision.is_none_or(is_revision);
        fits.then(|| Self {
            org: org.to_owned(),
            name: name.to_owned(),
            revision: revision.map(str::to_owned),
        })
    }

    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// `ORG/NAME`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.org, self.name)
    }
}

/// The form that `models pull` reads.
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

/// The hub's own rule for names. It forbids `--`, which our folder names use as a separator.
fn is_name(text: &str) -> bool {
    (1..=96).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !text.starts_with(['-', '.'])
        && !text.ends_with(['-', '.'])
        && !text.contains("--")
        && !text.contains("..")
}

fn is_revision(text: &str) -> bool {
    text.len() <= 128
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
        && !text.contains("..")
        && !text.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ModelRef, HubError> {
        ModelRef::parse(text, &"https://hub.example".parse().unwrap())
    }

    fn shown(text: &str) -> String {
        match parse(text).unwrap() {
            ModelRef::Repository(repository) => repository.to_string(),
            ModelRef::File(repository, file) => format!("{repository}:{file}"),
            ModelRef::Url(url) => url.as_str().to_owned(),
        }
    }

    #[test]
    fn repositories_files_and_urls_are_recognised() {
        for text in [
            "runwayml/stable-diffusion-v1-5",
            "org/name@fp16",
            "org/name@refs/pr/1",
            "org/name:v1-5.safetensors",
            "org/name@onnx:a/b.safetensors",
            "https://models.example/dream.safetensors?token=1",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn a_page_of_the_hub_means_what_it_shows() {
        for (url, meant) in [
            ("https://hub.example/org/name", "org/name"),
            ("https://hub.example/org/name/tree/fp16", "org/name@fp16"),
            ("https://hub.example/org/name/blob/main/a/b.safetensors", "org/name:a/b.safetensors"),
            (
                "https://hub.example/org/name/resolve/v1/b.safetensors?download=true",
                "org/name@v1:b.safetensors",
            ),
            ("https://other.example/org/name", "https://other.example/org/name"),
        ] {
            assert_eq!(shown(url), meant);
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_valid_forms() {
        for text in
            ["", "name", "a/b/c", "../x", "org/..", "-a/b", "a--b/c", "a b/c", "org/name@", "org/name@../x"]
        {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("ORG/NAME"), "{text}: {error}");
        }
        for text in ["org/name:", "org/name:../x.safetensors", "org/name:/x", "org/name:a\\b"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.ends_with("is not a plain path inside a repository"), "{text}: {error}");
        }
        let error = parse("ftp://models.example/?key=secret").unwrap_err().to_string();
        assert_eq!(error, "the URL to pull from should be an http or https URL");
    }
}
