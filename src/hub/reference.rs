//! What `models pull` can pull: a repository of a hub, one file of it, or a URL.

use std::borrow::Cow;
use std::fmt;

use super::page::model_on_page;
use super::{HubError, RepoPath};
use crate::domain::WebUrl;

/// Where a model comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelRef {
    /// The usable files of a repository: a model folder, or its only checkpoint.
    Repository(Repository),
    /// One file of a repository, or the model in one of its folders.
    Path(Repository, RepoPath),
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

pub(super) const MAIN: &str = "main";
const FORM: &str =
    "write ORG/NAME, ORG/NAME:FILE.safetensors, ORG/NAME:FOLDER, ORG/NAME@REVISION or https://…";

impl ModelRef {
    /// Reads what the operator wrote. The URL of a page of the hub at `base` stands for the repository or the file that
    /// the page shows.
    pub fn parse(text: &str, base: &WebUrl) -> Result<Self, HubError> {
        if let Some(link) = link(text, base) {
            // The URL may hold a key, so the error does not repeat it.
            let url: WebUrl =
                link.parse().map_err(|error| HubError::Reference(format!("the URL to pull from {error}")))?;
            return model_on_page(&url, base).unwrap_or(Ok(Self::Url(url)));
        }
        Self::parse_name(text)
    }

    /// Reads `ORG/NAME`, `ORG/NAME@REVISION` or one of them with `:PATH`.
    pub(super) fn parse_name(text: &str) -> Result<Self, HubError> {
        let refuse =
            |reason: &dyn fmt::Display| HubError::Reference(format!("'{text}' cannot be pulled: {reason}"));
        let (repository, file) = match text.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (text, None),
        };
        let repository = Repository::parse(repository.trim_end_matches('/')).ok_or_else(|| refuse(&FORM))?;
        match file {
            Some(file) => {
                let file = file.trim_end_matches('/').parse().map_err(|error| refuse(&error))?;
                Ok(Self::Path(repository, file))
            }
            None => Ok(Self::Repository(repository)),
        }
    }
}

/// The text as a URL, if it is one. Some browsers copy the hub's links without `https://`.
fn link<'a>(text: &'a str, base: &WebUrl) -> Option<Cow<'a, str>> {
    if text.contains("://") {
        return Some(Cow::Borrowed(text));
    }
    let (host, path) = text.split_once('/')?;
    let is_hub = host.eq_ignore_ascii_case(base.host()) && host.contains('.') && path.contains('/');
    is_hub.then(|| Cow::Owned(format!("{}://{text}", base.as_url().scheme())))
}

/// The form that `models pull` reads. A URL shows only its host, because its path and its query may be secret.
impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repository(repository) => repository.fmt(f),
            Self::Path(repository, path) => write!(f, "{repository}:{path}"),
            Self::Url(url) => f.write_str(url.host()),
        }
    }
}

impl Repository {
    /// Reads `ORG/NAME` or `ORG/NAME@REVISION`.
    pub(super) fn parse(text: &str) -> Option<Self> {
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
            ModelRef::Url(url) => url.as_str().to_owned(),
            other => other.to_string(),
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
            "org/name:folder/in folder",
            "https://models.example/dream.safetensors?token=1",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn a_page_of_the_hub_is_what_it_shows_and_any_other_page_is_a_url() {
        assert_eq!(
            shown("https://hub.example/org/name/blob/main/a/b.safetensors"),
            "org/name:a/b.safetensors"
        );
        assert_eq!(shown("hub.example/org/name/tree/fp16"), "org/name@fp16");
        assert_eq!(shown("org/name/"), "org/name");
        assert_eq!(shown("org/name:folder/"), "org/name:folder");
        for url in ["https://other.example/org/name", "https://hub.example/org/name/discussions/1"] {
            assert_eq!(shown(url), url);
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
