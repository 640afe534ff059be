//! The folder with the operator's upscaler models. Requests name them by their files.

use std::path::PathBuf;
use std::time::Duration;

use super::add_on_folder::{AddOnFile, AddOnFolder, Kind, NotFound};
use crate::domain::UpscalerShelf;

const KIND: Kind = Kind { one: "upscaler", flag: "--upscaler-dir" };

/// A folder of upscaler models, shared by all threads.
#[derive(Debug)]
pub struct UpscalerFolder {
    folder: AddOnFolder,
}

impl UpscalerFolder {
    /// The folder need not be there yet.
    pub fn new(path: PathBuf, look_every: Duration) -> Self {
        Self { folder: AddOnFolder::new(path, look_every) }
    }

    /// The file that `name` means, or a sentence that says why there is none.
    pub fn file(&self, name: &str) -> Result<AddOnFile, String> {
        self.folder.find(name).map_err(|error| error.sentence(KIND, name))
    }
}

impl UpscalerShelf for UpscalerFolder {
    fn find(&self, name: &str) -> Result<Option<String>, String> {
        match self.folder.find(name) {
            Ok(file) => Ok(Some(file.name)),
            Err(NotFound::Unknown(_)) => Ok(None),
            Err(ambiguous) => Err(ambiguous.sentence(KIND, name)),
        }
    }

    fn names(&self) -> Vec<String> {
        self.folder.list().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["RealESRGAN_x4plus.pth", "4x-ink.safetensors"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let folder = UpscalerFolder::new(dir.path().to_owned(), Duration::ZERO);
        assert_eq!(folder.names(), ["4x-ink", "RealESRGAN_x4plus"]);
        assert_eq!(folder.find("RealESRGAN_x4plus.pth").unwrap().as_deref(), Some("RealESRGAN_x4plus"));
        assert_eq!(folder.find("SwinIR"), Ok(None));
        assert_eq!(
            folder.file("SwinIR").unwrap_err(),
            "There is no upscaler SwinIR; use one of 4x-ink, RealESRGAN_x4plus."
        );
    }
}
