//! The path of a file inside a repository, from a server's list or from the operator. It is relative and plain, so it
//! stays inside the folder that it is joined to, on every operating system.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Components separated by slashes, none of them empty, `.` or `..`; no backslash, no control character, no
/// drive letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoPath(String);

/// Holds the text, escaped for display.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a plain path inside a repository")]
pub struct PathError(String);

const MAX_LENGTH: usize = 512;

impl RepoPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Splits the path after its first folder.
    pub fn split_folder(&self) -> Option<(&str, &str)> {
        self.0.split_once('/')
    }

    /// The path of the file under `folder`.
    pub fn under(&self, folder: &Path) -> PathBuf {
        folder.join(&self.0)
    }

    pub fn has_extension(&self, extension: &str) -> bool {
        let found = Path::new(self.file_name()).extension();
        found.is_some_and(|found| found.eq_ignore_ascii_case(extension))
    }

    /// Whether it is a Python pickle, which can run any code when it is read.
    pub fn is_pickle(&self) -> bool {
        ["ckpt", "bin", "pt", "pth", "pkl"].iter().any(|extension| self.has_extension(extension))
    }
}

impl FromStr for RepoPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let is_drive = text.as_bytes().get(1) == Some(&b':');
        let is_plain = text.len() <= MAX_LENGTH
            && !is_drive
            && !text.chars().any(|c| c == '\\' || c.is_control())
            && text.split('/').all(|component| !matches!(component, "" | "." | ".."));
        match is_plain {
            true => Ok(Self(text.to_owned())),
            false => Err(PathError(format!("{:?}", text.chars().take(80).collect::<String>()))),
        }
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_stays_under_its_folder() {
        for text in
            ["model_index.json", "unet/config.json", "a/b/c.safetensors", "..a/b..", "déjà vu.safetensors"]
        {
            let path: RepoPath = text.parse().unwrap();
            assert!(path.under(Path::new("/models")).starts_with("/models"), "{text}");
        }
    }

    #[test]
    fn a_path_that_leaves_its_folder_is_refused() {
        for text in [
            "",
            "/",
            "/etc/passwd",
            "//host/share",
            "..",
            "../x",
            "unet/../../x",
            "unet/./x",
            "unet//x",
            "unet/",
            "C:\\x",
            "C:/x",
            "c:x",
            "unet\\..\\x",
            "\\\\host\\share",
            "x\0.json",
            "x\n.json",
            &"x".repeat(513),
        ] {
            assert!(text.parse::<RepoPath>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_folder(text in r"[a.:/\\\x00 ]{0,12}|\PC{0,12}") {
            if let Ok(path) = text.parse::<RepoPath>() {
                let joined = path.under(Path::new("/models"));
                let components: Vec<_> = joined.components().skip(2).collect();
                prop_assert!(!components.is_empty());
                prop_assert!(components.iter().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }

    #[test]
    fn an_error_shows_no_control_characters() {
        let error = "\u{1b}[2Jx\0".parse::<RepoPath>().unwrap_err().to_string();
        assert_eq!(error, "\"\\u{1b}[2Jx\\0\" is not a plain path inside a repository");
    }
}
