//! What a page of the hub shows: links that people copy from their browser's address bar or from a file's menu.

use percent_encoding::percent_decode_str;

use super::reference::{MAIN, ModelRef, Repository};
use super::{HubError, RepoPath};
use crate::domain::WebUrl;

/// What a hub puts in front of the revision in the links of a folder, of a file and of a history.
const KINDS: [&str; 7] = ["tree", "blob", "resolve", "raw", "blame", "commits", "commit"];
/// The parameter with which the page of a folder shows one of its files.
const SHOWN_FILE: &str = "show_file_info";

/// The model on the page at `url`: `ORG/NAME`, `ORG/NAME/tree/REV/FOLDER`, `ORG/NAME/blob/REV/FILE`,
/// `ORG/NAME/resolve/REV/FILE`. `None` if it is not a page of a model of the hub at `base`.
pub fn model_on_page(url: &WebUrl, base: &WebUrl) -> Option<Result<ModelRef, HubError>> {
    let (url, base) = (url.as_url(), base.as_url());
    if url.origin() != base.origin() {
        return None;
    }
    let path = url.path().strip_prefix(base.path().trim_end_matches('/'))?;
    // A slash inside a segment is written %2F, as in `refs%2Fpr%2F1`.
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let decoded: Option<Vec<String>> =
        segments.map(|segment| Some(percent_decode_str(segment).decode_utf8().ok()?.into_owned())).collect();
    let segments = decoded?;
    let (repository, rest) = segments.split_at_checked(2)?;
    let [org, name] = repository else { return None };
    let (revision, path) = match rest {
        [] => (MAIN.to_owned(), Vec::new()),
        [kind, rest @ ..] if KINDS.contains(&kind.as_str()) && !rest.is_empty() => {
            let (revision, path) = rest.split_at(revision_length(rest));
            (revision.join("/"), path.to_vec())
        }
        _ => return None,
    };
    let shown = url.query_pairs().find(|(key, _)| key == SHOWN_FILE).map(|(_, file)| file.into_owned());
    let path = shown.unwrap_or_else(|| path.join("/"));
    Some(read(org, name, &revision, &path))
}

/// How many segments belong to the revision. The hub writes `refs/pr/1` and `refs/convert/parquet` in one segment, but it
/// also answers to three.
fn revision_length(segments: &[String]) -> usize {
    match segments {
        [refs, kind, _, ..] if refs == "refs" && ["pr", "convert"].contains(&kind.as_str()) => 3,
        _ => 1,
    }
}

fn read(org: &str, name: &str, revision: &str, path: &str) -> Result<ModelRef, HubError> {
    let text = match revision {
        MAIN => format!("{org}/{name}"),
        revision => format!("{org}/{name}@{revision}"),
    };
    let refuse = |reason: &dyn std::fmt::Display| {
        HubError::Reference(format!("this page of the hub cannot be pulled: {reason}"))
    };
    let repository = Repository::parse(&text)
        .ok_or_else(|| refuse(&format!("{text:?} is not a repository with a revision")))?;
    if path.is_empty() {
        return Ok(ModelRef::Repository(repository));
    }
    let path: RepoPath = path.parse().map_err(|error| refuse(&error))?;
    Ok(ModelRef::Path(repository, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_page(url: &str, base: &str) -> Option<String> {
        let found = model_on_page(&url.parse().unwrap(), &base.parse().unwrap())?;
        Some(found.map_or_else(|error| error.to_string(), |reference| reference.to_string()))
    }

    #[test]
    fn each_link_of_a_repository_means_what_its_page_shows() {
        for (path, meant) in [
            ("", "org/name"),
            ("/", "org/name"),
            ("?library=diffusers", "org/name"),
            ("#files", "org/name"),
            ("/tree/main", "org/name"),
            ("/tree/fp16/", "org/name@fp16"),
            ("/tree/main/Models/A", "org/name:Models/A"),
            ("/tree/main/Models%20B/", "org/name:Models B"),
            ("/tree/refs%2Fpr%2F1", "org/name@refs/pr/1"),
            ("/tree/refs/pr/1/unet", "org/name@refs/pr/1:unet"),
            ("/tree/refs", "org/name@refs"),
            ("/blob/main/a/b.safetensors", "org/name:a/b.safetensors"),
            ("/blob/v1/sub%20dir/model%20v1.safetensors", "org/name@v1:sub dir/model v1.safetensors"),
            ("/blob/refs%2Fpr%2F1/b.safetensors", "org/name@refs/pr/1:b.safetensors"),
            ("/resolve/main/b.safetensors?download=true", "org/name:b.safetensors"),
            ("/raw/main/b.safetensors", "org/name:b.safetensors"),
            ("/blame/main/b.safetensors", "org/name:b.safetensors"),
            ("/commits/main", "org/name"),
            (
                "/commit/0123456789012345678901234567890123456789",
                "org/name@0123456789012345678901234567890123456789",
            ),
            ("/tree/main?show_file_info=a%2Fb.safetensors", "org/name:a/b.safetensors"),
        ] {
            for base in ["https://hub.example", "https://hub.example/mirror/"] {
                let url = format!("{}/org/name{path}", base.trim_end_matches('/'));
                assert_eq!(on_page(&url, base).as_deref(), Some(meant), "{url}");
            }
        }
    }

    #[test]
    fn other_pages_are_no_models() {
        for url in [
            "https://hub.example",
            "https://hub.example/org",
            "https://hub.example/org/name/discussions/1",
            "https://hub.example/org/name/tree",
            "https://other.example/org/name",
            "http://hub.example/org/name",
            "https://hub.example/org/name/blob/main/%ff.safetensors",
        ] {
            assert_eq!(on_page(url, "https://hub.example"), None, "{url}");
        }
    }

    #[test]
    fn a_link_that_leaves_its_repository_is_refused() {
        for path in [
            "org/name/blob/main/..%2F..%2Fx.safetensors",
            "org/name/blob/main/%2Fetc%2Fpasswd",
            "org/name/blob/main/a%5C..%5Cb",
            "org/name/blob/main/a%00b",
            "org/name/tree/..%2F..%2Fapi",
            "org/na%2Fme",
            "..%2Forg/name",
            "org/name/tree/main?show_file_info=../x",
        ] {
            let refused = on_page(&format!("https://hub.example/{path}"), "https://hub.example").unwrap();
            assert!(refused.starts_with("this page of the hub cannot be pulled: "), "{path}: {refused}");
        }
    }
}
