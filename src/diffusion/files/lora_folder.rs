//! The folder with the operator's LoRAs. Requests name them by their files.
//!
//! A LoRA may have a second name, which its trainer noted in the file (`ss_output_name`). A1111 writes that one into
//! prompts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::add_on_folder::{AddOnFile, AddOnFolder, Kind, Listing, NotFound, composed};
use super::{TensorFile, extension_rank};
use crate::domain::LoraShelf;

const KIND: Kind = Kind { one: "LoRA", flag: "--lora-dir" };
/// The most files that are opened to find second names.
const MOST_OPENED: usize = 2000;
const SECOND_NAME: &str = "ss_output_name";

/// A folder of LoRAs, shared by all threads.
#[derive(Debug)]
pub struct LoraFolder {
    folder: AddOnFolder,
    /// The second names of the files in a listing, read when one is first needed.
    second_names: Mutex<Option<(Listing, SecondNames)>>,
}

/// A second name, and the files that have it.
type SecondNames = Arc<BTreeMap<String, Vec<String>>>;

impl LoraFolder {
    /// The folder need not be there yet.
    pub fn new(path: PathBuf, look_every: Duration) -> Self {
        Self { folder: AddOnFolder::new(path, look_every), second_names: Mutex::new(None) }
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
        let files = self.second_names().get(composed(name).as_ref())?.clone();
        Some(match files.as_slice() {
            [only] => self.folder.find(only),
            _ => Err(NotFound::Ambiguous(files)),
        })
    }

    fn second_names(&self) -> SecondNames {
        let listing = self.folder.list();
        let mut read = self.second_names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, names)) = read.as_ref().filter(|(read_at, _)| *read_at == listing) {
            return Arc::clone(names);
        }
        let mut names = BTreeMap::<String, Vec<String>>::new();
        // Files of torch have no notes.
        let may_have_notes = |file: &&AddOnFile| extension_rank(&file.file_name()) == Some(0);
        for file in listing.values().filter(may_have_notes).take(MOST_OPENED) {
            // A request for a broken file reports it.
            let Ok(opened) = TensorFile::open(&file.path) else { continue };
            if let Some(name) = opened.note(SECOND_NAME) {
                names.entry(composed(name).into_owned()).or_default().push(file.name.clone());
            }
        }
        let names = Arc::new(names);
        *read = Some((listing, Arc::clone(&names)));
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
