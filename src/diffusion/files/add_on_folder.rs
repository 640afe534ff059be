//! A folder that the operator drops add-ons into (LoRAs, textual inversions), listed by name.
//!
//! A name from a client never becomes a path: it is compared with the names of the files that were found. This module
//! looks at names, sizes and times only; it does not read files. It looks on a thread of its own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use super::extension_rank;
use super::refreshed::Refreshed;

/// The deepest level of folders and the most files that are listed: more than people have, and a limit where a link
/// leads back.
const DEEPEST: usize = 4;
const MOST_FILES: usize = 20_000;
/// The most names in one sentence.
const FEW: usize = 10;

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddOnFile {
    /// Its path below the folder, with `/` and without its extension.
    pub name: String,
    pub path: PathBuf,
    pub modified: Option<SystemTime>,
    pub bytes: u64,
}

/// The files in a folder at one moment, by name.
pub type Listing = Arc<BTreeMap<String, AddOnFile>>;

/// A folder of add-ons, shared by all threads.
#[derive(Debug)]
pub struct AddOnFolder {
    listed: Refreshed<BTreeMap<String, AddOnFile>>,
}

/// Why a name does not mean a file that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotFound {
    /// With the known names, sorted.
    Unknown(Vec<String>),
    Ambiguous(Vec<String>),
}

/// What the files of a folder are, for sentences.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// Such as "LoRA".
    pub one: &'static str,
    /// The flag that names the folder.
    pub flag: &'static str,
}

impl NotFound {
    /// A sentence for whoever asked for `name`.
    pub(super) fn sentence(&self, Kind { one, flag }: Kind, name: &str) -> String {
        match self {
            Self::Unknown(there) if there.is_empty() => {
                format!("There is no {one} {name}: the folder of {one}s ({flag}) is empty.")
            }
            Self::Unknown(there) if there.len() <= FEW => {
                format!("There is no {one} {name}; use one of {}.", there.join(", "))
            }
            Self::Unknown(there) => {
                format!(
                    "There is no {one} {name} among the {} in the folder of {one}s ({flag}).",
                    there.len()
                )
            }
            Self::Ambiguous(files) => {
                let few: Vec<_> = files.iter().take(FEW).map(String::as_str).collect();
                format!("More than one {one} is called {name}: ask for one of {}.", few.join(", "))
            }
        }
    }
}

impl AddOnFile {
    /// The last segment of its name.
    pub fn stem(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    pub fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl AddOnFolder {
    /// The folder need not exist yet. A path of a file means a folder with only that file.
    pub fn new(path: PathBuf, look_every: Duration) -> Self {
        let look = move |_: &_| {
            let mut found = BTreeMap::new();
            match path.is_file() {
                true => add(&mut found, path.clone(), ""),
                false => list_into(&mut found, &path, "", 0),
            }
            found
        };
        Self { listed: Refreshed::new(look_every, look) }
    }

    /// The files as of the last look at the folder.
    pub fn list(&self) -> Listing {
        self.listed.get()
    }

    /// The file that `name` means: its name in the folder, with or without its extension, or the last segment of that
    /// name where only one file has it. Names are the same if they look the same: `é` may be one character or two.
    pub fn find(&self, name: &str) -> Result<AddOnFile, NotFound> {
        find_in(&self.list(), name)
    }
}

/// The file of the listing that `name` means, as [`AddOnFolder::find`] says.
pub(super) fn find_in(listing: &Listing, name: &str) -> Result<AddOnFile, NotFound> {
    let bare = match extension_rank(name).and_then(|_| name.rsplit_once('.')) {
        Some((bare, _)) => bare,
        None => name,
    };
    if let Some(found) = [name, bare].iter().find_map(|name| listing.get(*name)) {
        return Ok(found.clone());
    }
    let bare = composed(bare);
    let whole: Vec<&AddOnFile> = listing.values().filter(|file| composed(&file.name) == bare).collect();
    let alike = match whole.is_empty() {
        true => listing.values().filter(|file| composed(file.stem()) == bare).collect(),
        false => whole,
    };
    match alike.as_slice() {
        [] => Err(NotFound::Unknown(listing.keys().cloned().collect())),
        [only] => Ok((*only).clone()),
        many => Err(NotFound::Ambiguous(many.iter().map(|file| file.name.clone()).collect())),
    }
}

/// The name with each letter and its accents as one character, where Unicode has one (NFC).
pub(super) fn composed(name: &str) -> Cow<'_, str> {
    match is_nfc(name) {
        true => Cow::Borrowed(name),
        false => Cow::Owned(name.nfc().collect()),
    }
}

/// Lists a folder and the folders in it. A folder that cannot be read is empty.
fn list_into(found: &mut BTreeMap<String, AddOnFile>, folder: &Path, prefix: &str, depth: usize) {
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        // By path: links are their owner's.
        if !path.is_dir() {
            add(found, path, prefix);
        } else if depth < DEEPEST
            && let Some(name) = visible_name(&path)
        {
            list_into(found, &path, &format!("{prefix}{name}/"), depth + 1);
        }
    }
}

fn visible_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str().filter(|name| !name.starts_with('.'))
}

/// Adds a file if its name is that of an add-on.
fn add(found: &mut BTreeMap<String, AddOnFile>, path: PathBuf, prefix: &str) {
    let Some(file_name) = visible_name(&path) else { return };
    let (Some(rank), Some((stem, _))) = (extension_rank(file_name), file_name.rsplit_once('.')) else {
        return;
    };
    let name = format!("{prefix}{stem}");
    // Of two forms with the same name, the preferred one wins.
    let is_second = found.get(&name).is_some_and(|other| extension_rank(&other.file_name()) < Some(rank));
    if found.len() >= MOST_FILES || is_second {
        return;
    }
    // Opening anything but a regular file, such as a FIFO, may never return.
    let Some(metadata) = fs::metadata(&path).ok().filter(fs::Metadata::is_file) else { return };
    let (modified, bytes) = (metadata.modified().ok(), metadata.len());
    found.insert(name.clone(), AddOnFile { name, path, modified, bytes });
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn folder(files: &[&str]) -> (tempfile::TempDir, AddOnFolder) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let folder = AddOnFolder::new(dir.path().to_owned(), LONG);
        (dir, folder)
    }

    #[test]
    fn names_are_found_however_their_accents_are_written() {
        let (one, two) = ("caf\u{e9}", "cafe\u{301}");
        let (_dir, folder) = folder(&["style/cafe\u{301}.safetensors", "na\u{ef}f.safetensors"]);
        for name in [one, two, "style/caf\u{e9}", "style/cafe\u{301}.safetensors"] {
            assert_eq!(folder.find(name).unwrap().name, format!("style/{two}"), "{name}");
        }
        assert_eq!(folder.find("nai\u{308}f").unwrap().name, "na\u{ef}f");
        assert!(folder.find("cafe").is_err());
    }

    #[test]
    fn a_name_as_it_is_written_wins_over_one_that_looks_the_same() {
        let (_dir, folder) = folder(&["caf\u{e9}.safetensors", "cafe\u{301}.safetensors"]);
        for name in ["caf\u{e9}", "cafe\u{301}"] {
            assert_eq!(folder.find(name).unwrap().name, name);
        }
    }

    #[test]
    fn files_are_found_with_and_without_folder_and_extension() {
        let (_dir, folder) =
            folder(&["fox.safetensors", "style/ink v1.2.safetensors", "notes.txt", ".hidden.safetensors"]);
        for (name, found) in [
            ("fox", "fox"),
            ("fox.safetensors", "fox"),
            ("style/ink v1.2", "style/ink v1.2"),
            ("ink v1.2", "style/ink v1.2"),
            ("ink v1.2.safetensors", "style/ink v1.2"),
        ] {
            assert_eq!(folder.find(name).unwrap().name, found);
        }
        let there = vec!["fox".to_owned(), "style/ink v1.2".to_owned()];
        for name in ["cat", "Fox", "notes", ".hidden", "ink", ""] {
            assert_eq!(folder.find(name), Err(NotFound::Unknown(there.clone())), "{name}");
        }
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let (dir, _) = folder(&["secret.safetensors", "loras/fox.safetensors"]);
        let folder = AddOnFolder::new(dir.path().join("loras"), LONG);
        let outside = dir.path().join("secret");
        for name in [
            "../secret",
            "..\\secret",
            "style/../../secret",
            outside.to_str().unwrap(),
            "fox\0",
            "./fox",
            "/fox",
        ] {
            assert!(matches!(folder.find(name), Err(NotFound::Unknown(_))), "{name}");
        }
    }

    #[test]
    fn an_ambiguous_name_is_refused_with_the_candidates() {
        let (_dir, folder) =
            folder(&["a/fox.safetensors", "b/fox.safetensors", "b/old.pt", "both.pt", "both.safetensors"]);
        assert_eq!(
            folder.find("fox"),
            Err(NotFound::Ambiguous(vec!["a/fox".to_owned(), "b/fox".to_owned()]))
        );
        assert_eq!(folder.find("a/fox").unwrap().name, "a/fox");
        for name in ["old", "b/old", "old.pt", "b/old.pt"] {
            assert_eq!(folder.find(name).unwrap().file_name(), "old.pt");
        }
        assert_eq!(folder.find("both").unwrap().file_name(), "both.safetensors", "the preferred form");
    }

    #[test]
    fn a_missing_folder_is_empty() {
        let (dir, _) = folder(&[]);
        assert_eq!(
            AddOnFolder::new(dir.path().join("none"), LONG).find("fox"),
            Err(NotFound::Unknown(Vec::new()))
        );
    }

    #[cfg(unix)]
    #[test]
    fn only_regular_files_are_listed() {
        let (dir, folder) = folder(&["fox.safetensors"]);
        let fifo = dir.path().join("fifo.safetensors");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        std::os::unix::fs::symlink(&fifo, dir.path().join("link.safetensors")).unwrap();
        assert_eq!(folder.list().keys().collect::<Vec<_>>(), ["fox"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_circular_link_is_followed_to_the_limit_only() {
        let (dir, _) = folder(&["fox.safetensors"]);
        std::os::unix::fs::symlink(dir.path(), dir.path().join("again")).unwrap();
        let folder = AddOnFolder::new(dir.path().to_owned(), LONG);
        assert_eq!(folder.list().len(), 1 + DEEPEST);
        assert_eq!(folder.find("again/fox").unwrap().stem(), "fox");
    }
}
