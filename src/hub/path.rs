//! The path of a file inside a repository, from a server's list or from the operator. It is relative and plain, so it
//! stays inside the folder that it is joined to, on every operating system.

use std::borrow::Borrow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Components separated by slashes, none of them empty, `.` or `..`; no backslash, no control character, none that turns
/// the direction of text, no drive letter.
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

    /// The folder that it is in, if it is in one.
    pub fn folder(&self) -> Option<&str> {
        Some(self.0.rsplit_once('/')?.0)
    }

    /// The path without the extension of its file.
    pub fn without_extension(&self) -> &str {
        let name = self.file_name();
        let stem = name.rfind('.').filter(|at| *at > 0).unwrap_or(name.len());
        &self.0[..self.0.len() - name.len() + stem]
    }

    /// The path of the file under `folder`.
    pub fn under(&self, folder: &Path) -> PathBuf {
        folder.join(&self.0)
    }

    pub fn has_extension(&self, extension: &str) -> bool {
        let found = Path::new(self.file_name()).extension();
        found.is_some_and(|found| found.eq_ignore_ascii_case(extension))
    }

    /// Whether its name is that of a file of `torch.save`, a Python pickle.
    pub fn is_pickle(&self) -> bool {
        ["ckpt", "bin", "pt", "pth"].iter().any(|extension| self.has_extension(extension))
    }

    /// Whether its name is that of a file of weights.
    pub fn is_weights(&self) -> bool {
        self.is_pickle() || self.has_extension("safetensors")
    }
}

impl FromStr for RepoPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let is_drive = text.as_bytes().get(1) == Some(&b':');
        let is_plain = text.len() <= MAX_LENGTH
            && !is_drive
            && !text.chars().any(|c| c == '\\' || c.is_control() || turns_text(c))
            && text.split('/').all(|component| !matches!(component, "" | "." | ".."));
        match is_plain {
            true => Ok(Self(text.to_owned())),
            false => Err(PathError(format!("{:?}", text.chars().take(80).collect::<String>()))),
        }
    }
}

/// A list of files can be searched by text.
impl Borrow<str> for RepoPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Whether the character makes a terminal show a name in another order, so that `x\u{202e}tpkc.` looks like another
/// kind of file.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
            "x\u{202e}srosnetefas.ckpt",
            &"x".repeat(513),
        ] {
            assert!(text.parse::<RepoPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_has_a_folder_a_name_and_an_extension() {
        for (text, folder, name, stem) in [
            ("a/b/c.vae.pt", Some("a/b"), "c.vae.pt", "a/b/c.vae"),
            ("c.d/e", Some("c.d"), "e", "c.d/e"),
            (".c", None, ".c", ".c"),
        ] {
            let path: RepoPath = text.parse().unwrap();
            assert_eq!((path.folder(), path.file_name(), path.without_extension()), (folder, name, stem));
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
