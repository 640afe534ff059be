//! The folder with the operator's LoRAs. Requests name them by their files.
//!
//! A LoRA may have a second name, which its trainer noted in the file (`ss_output_name`). A1111 writes that one into
//! prompts. The files are opened to look for it on a thread of its own, each one once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::add_on_folder::{AddOnFile, AddOnFolder, Kind, NotFound, composed};
use super::refreshed::Refreshed;
use super::{TensorFile, extension_rank};
use crate::domain::LoraShelf;

const KIND: Kind = Kind { one: "LoRA", flag: "--lora-dir" };
/// The most files that are opened to find second names.
const MOST_OPENED: usize = 2000;
const SECOND_NAME: &str = "ss_output_name";

/// A folder of LoRAs, shared by all threads.
#[derive(Debug)]
pub struct LoraFolder {
    folder: Arc<AddOnFolder>,
    second_names: Refreshed<SecondNames>,
}

#[derive(Default)]
struct SecondNames {
    /// A second name, and the files that have it.
    files: BTreeMap<String, Vec<String>>,
    /// The second name of each file that was opened, if it has one.
    opened: Vec<(AddOnFile, Option<String>)>,
}

impl LoraFolder {
    /// The folder need not be there yet.
    pub fn new(path: PathBuf, look_every: Duration) -> Self {
        let folder = Arc::new(AddOnFolder::new(path, look_every));
        let listed = Arc::clone(&folder);
        let second_names =
            Refreshed::new(look_every, move |before: &SecondNames| before.read_again(&listed.list()));
        Self { folder, second_names }
    }

    /// The file that `name` means, or a sentence that says why there is none.
    pub fn file(&self, name: &str) -> Result<AddOnFile, String> {
        let found = match self.folder.find(name) {
            Err(NotFound::Unknown(there)) => {
                self.by_second_name(name).unwrap_or(Err(NotFound::Unknown(there)))
            }
            found => found,
        };
        found.map_err(|error| error.sentence(KIND, name))
    }

    /// None where no file has it.
    fn by_second_name(&self, name: &str) -> Option<Result<AddOnFile, NotFound>> {
        let files = self.second_names.get().files.get(composed(name).as_ref())?.clone();
        Some(match files.as_slice() {
            [only] => self.folder.find(only),
            _ => Err(NotFound::Ambiguous(files)),
        })
    }
}

impl SecondNames {
    /// The second names in a folder. Files that were opened before are not opened again unless they have changed.
    fn read_again(&self, listing: &BTreeMap<String, AddOnFile>) -> Self {
        let known: BTreeMap<&str, &(AddOnFile, Option<String>)> =
            self.opened.iter().map(|known| (known.0.name.as_str(), known)).collect();
        let mut names = Self::default();
        // Files of torch have no notes.
        let may_have_notes = |file: &&AddOnFile| extension_rank(&file.file_name()) == Some(0);
        for file in listing.values().filter(may_have_notes).take(MOST_OPENED) {
            let second = match known.get(file.name.as_str()) {
                Some((same, second)) if same == file => second.clone(),
                // A request for a broken file reports it.
                _ => TensorFile::open(&file.path)
                    .ok()
                    .and_then(|opened| opened.note(SECOND_NAME).map(|name| composed(name).into_owned())),
            };
            if let Some(second) = &second {
                names.files.entry(second.clone()).or_default().push(file.name.clone());
            }
            names.opened.push((file.clone(), second));
        }
        names
    }
}

impl LoraShelf for LoraFolder {
    fn find(&self, name: &str) -> Result<String, String> {
        self.file(name).map(|file| file.name)
    }

    fn names(&self) -> Vec<String> {
        self.folder.list().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let dir = tempfile::tempdir().unwrap();
        let folder = || LoraFolder::new(dir.path().to_owned(), Duration::ZERO);
        assert_eq!(
            folder().find("fox").unwrap_err(),
            "There is no LoRA fox: the folder of LoRAs (--lora-dir) is empty."
        );
        for file in ["ink.safetensors", "a/fur.safetensors", "old.pt"] {
            std::fs::create_dir_all(dir.path().join("a")).unwrap();
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(folder().find("fox").unwrap_err(), "There is no LoRA fox; use one of a/fur, ink, old.");
        assert_eq!(folder().find("fur").unwrap(), "a/fur");
        assert_eq!(folder().find("old.pt").unwrap(), "old");
    }

    #[test]
    fn a_lora_is_found_by_the_name_in_its_metadata() {
        let dir = tempfile::tempdir().unwrap();
        let folder = LoraFolder::new(dir.path().to_owned(), Duration::ZERO);
        let write = |file: &str, name: &str| {
            let header = format!(r#"{{"__metadata__":{{"ss_output_name":"{name}"}}}}"#);
            let length = u64::try_from(header.len()).unwrap().to_le_bytes();
            std::fs::write(dir.path().join(file), [&length[..], header.as_bytes()].concat()).unwrap();
        };
        write("fox_v2_12345.safetensors", "fox");
        write("ink.safetensors", "../ink");
        std::fs::write(dir.path().join("broken.safetensors"), "").unwrap();
        assert_eq!(folder.find("fox").unwrap(), "fox_v2_12345");
        assert_eq!(folder.find("../ink").unwrap(), "ink");
        write("other.safetensors", "fox");
        assert!(folder.find("fox").unwrap_err().ends_with("ask for one of fox_v2_12345, other."));
        write("fox.safetensors", "cat");
        assert_eq!(folder.find("fox").unwrap(), "fox", "a file's own name comes first");
    }
}
