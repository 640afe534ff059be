//! The folder with the operator's wildcards: text files, whose lines a prompt's `__name__` chooses from.
//!
//! A name from a client never becomes a path: it is compared with the names of the files that were found. Only regular
//! files count, and no link is followed, so nothing outside the folder is ever read.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::add_on_folder::{Kind, NotFound, composed};
use super::refreshed::Refreshed;
use crate::domain::WildcardShelf;

const EXTENSION: &str = ".txt";
/// In bytes. People's lists have some kilobytes.
const LARGEST: u64 = 1 << 20;
/// The deepest level of folders, and the most files that are listed.
const DEEPEST: usize = 4;
const MOST_FILES: usize = 20_000;
const KIND: Kind = Kind { one: "wildcard", flag: "--wildcard-dir" };

/// A folder of wildcards, shared by all threads.
#[derive(Debug)]
pub struct WildcardFolder {
    listed: Refreshed<BTreeMap<String, PathBuf>>,
}

/// The files by their names: their paths below the folder, with `/` and without the extension.
type Listing = Arc<BTreeMap<String, PathBuf>>;

impl WildcardFolder {
    /// The folder need not be there yet.
    pub fn new(path: PathBuf, look_every: Duration) -> Self {
        let look = move |_: &_| {
            let mut found = BTreeMap::new();
            list_into(&mut found, &path, "", 0);
            found
        };
        Self { listed: Refreshed::new(look_every, look) }
    }

    /// The files as of the last look at the folder.
    fn list(&self) -> Listing {
        self.listed.get()
    }
}

impl WildcardShelf for WildcardFolder {
    fn find(&self, name: &str) -> Result<(), String> {
        let listing = self.list();
        if listing.contains_key(composed(name).as_ref()) {
            return Ok(());
        }
        Err(NotFound::Unknown(listing.keys().cloned().collect()).sentence(KIND, name))
    }

    fn lines(&self, name: &str) -> Result<Option<Vec<String>>, String> {
        let listing = self.list();
        let Some(path) = listing.get(composed(name).as_ref()) else { return Ok(None) };
        let lines = lines(path).map_err(|reason| format!("The wildcard {name} cannot be read: {reason}."))?;
        if lines.is_empty() {
            return Err(format!("The wildcard {name} has no lines."));
        }
        Ok(Some(lines))
    }
}

/// The lines of a file, without empty ones and comments.
fn lines(path: &Path) -> Result<Vec<String>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| match file.metadata()?.is_file() {
        true => file.take(LARGEST + 1).read_to_end(&mut bytes),
        false => Err(std::io::ErrorKind::InvalidInput.into()),
    });
    read.map_err(|error| error.kind().to_string())?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("it is larger than {} MiB", LARGEST >> 20));
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// Lists a folder and the folders in it. A folder that cannot be read is empty.
fn list_into(found: &mut BTreeMap<String, PathBuf>, folder: &Path, prefix: &str, depth: usize) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        // Of the entry itself, not of what a link leads to.
        let Ok(kind) = entry.file_type() else { continue };
        let (path, file_name) = (entry.path(), entry.file_name());
        let Some(name) = file_name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        if kind.is_dir() && depth < DEEPEST {
            list_into(found, &path, &format!("{prefix}{name}/"), depth + 1);
        } else if kind.is_file()
            && found.len() < MOST_FILES
            && let Some(stem) = name.strip_suffix(EXTENSION)
        {
            found.insert(composed(&format!("{prefix}{stem}")).into_owned(), path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, WildcardFolder) {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let folder = WildcardFolder::new(dir.path().to_owned(), Duration::ZERO);
        (dir, folder)
    }

    #[test]
    fn lines_are_read_without_comments_and_empty_ones() {
        let (_dir, folder) =
            folder(&[("a/animal.txt", "\u{feff}fox\r\n\n# birds\n  owl \ncat"), ("caf\u{e9}.txt", "x")]);
        assert_eq!(folder.lines("a/animal").unwrap().unwrap(), ["fox", "owl", "cat"]);
        assert_eq!(folder.find("cafe\u{301}"), Ok(()));
        assert_eq!(folder.lines("animal"), Ok(None));
        assert_eq!(
            folder.find("animal").unwrap_err(),
            "There is no wildcard animal; use one of a/animal, caf\u{e9}."
        );
    }

    #[test]
    fn an_empty_folder_says_where_files_go() {
        let (_dir, folder) = folder(&[("notes.md", "")]);
        assert!(folder.find("x").unwrap_err().ends_with("(--wildcard-dir) is empty."));
    }

    #[cfg(unix)]
    #[test]
    fn nothing_outside_the_folder_is_read() {
        let (outside, _) = folder(&[("secret.txt", "secret")]);
        let (dir, folder) = folder(&[("a.txt", "fox")]);
        std::os::unix::fs::symlink(outside.path().join("secret.txt"), dir.path().join("link.txt")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("dir")).unwrap();
        for name in ["link", "dir/secret", "../secret", "a.txt", "/etc/passwd", ""] {
            assert_eq!(folder.lines(name), Ok(None), "{name}");
            assert!(folder.find(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_huge_or_an_empty_file_is_refused() {
        let (_dir, folder) = folder(&[("huge.txt", &"fox\n".repeat(300_000)), ("empty.txt", "# nothing\n")]);
        assert_eq!(
            folder.lines("huge").unwrap_err(),
            "The wildcard huge cannot be read: it is larger than 1 MiB."
        );
        assert_eq!(folder.lines("empty").unwrap_err(), "The wildcard empty has no lines.");
    }
}
