//! The folder with the operator's LoRAs, by whose names requests ask for them.

use std::path::PathBuf;
use std::time::Duration;

use super::add_ons::{AddOn, AddOnFolder, NotFound};
use crate::domain::LoraShelf;

/// So many names fit into a sentence.
const FEW: usize = 10;

/// A folder of LoRAs; one serves all threads.
#[derive(Debug)]
pub struct LoraFolder(AddOnFolder);

impl LoraFolder {
    /// The folder need not be there yet.
    pub fn new(path: PathBuf, look_every: Duration) -> Self {
        Self(AddOnFolder::new(path, look_every))
    }

    /// The file that `name` means, or a sentence that says why there is none.
    pub fn file(&self, name: &str) -> Result<AddOn, String> {
        self.0.find(name).map_err(|error| match error {
            NotFound::Unknown(there) if there.is_empty() => format!(
                "There is no LoRA {name}: this server has none. (Its operator puts .safetensors files into the folder that --lora-dir names.)"
            ),
            NotFound::Unknown(there) if there.len() <= FEW => {
                format!("There is no LoRA {name}; there are {}.", there.join(", "))
            }
            NotFound::Unknown(there) => {
                format!("There is no LoRA {name} among the {} that this server has.", there.len())
            }
            NotFound::Ambiguous(files) => {
                let few: Vec<_> = files.iter().take(FEW).map(String::as_str).collect();
                format!("More than one LoRA is called {name}: ask for one of {}.", few.join(", "))
            }
            NotFound::Pickle(file) => format!(
                "{file} is a pickle, which can run code when it is read: only .safetensors files are read."
            ),
        })
    }
}

impl LoraShelf for LoraFolder {
    fn find(&self, name: &str) -> Result<String, String> {
        self.file(name).map(|file| file.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_what_is_not_there_hears_what_is() {
        let dir = tempfile::tempdir().unwrap();
        let folder = || LoraFolder::new(dir.path().to_owned(), Duration::ZERO);
        assert!(folder().find("fox").unwrap_err().starts_with("There is no LoRA fox: this server has none."));
        for file in ["ink.safetensors", "a/fur.safetensors", "old.pt"] {
            std::fs::create_dir_all(dir.path().join("a")).unwrap();
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(folder().find("fox").unwrap_err(), "There is no LoRA fox; there are a/fur, ink.");
        assert_eq!(folder().find("fur").unwrap(), "a/fur");
        assert!(folder().find("old").unwrap_err().starts_with("old.pt is a pickle"));
    }
}
