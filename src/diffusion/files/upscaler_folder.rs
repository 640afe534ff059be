//! The folder with the operator's upscaler models. Requests name them by their files.

use std::path::PathBuf;
use std::time::Duration;

use super::add_on_folder::{AddOnFile, AddOnFolder, FEW, Kind, NotFound};
use crate::domain::{Upscaler, UpscalerShelf};

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
        self.folder.find(name).map_err(|error| match error {
            NotFound::Unknown(there) => {
                let built_in = Upscaler::built_in().map(str::to_owned);
                let few: Vec<_> = built_in.chain(there.into_iter().take(FEW)).collect();
                format!("There is no upscaler {name}; use one of {}.", few.join(", "))
            }
            ambiguous @ NotFound::Ambiguous(_) => ambiguous.sentence(KIND, name),
        })
    }
}

impl UpscalerShelf for UpscalerFolder {
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
    fn models_are_found_by_name_and_unknown_ones_are_answered_with_the_known() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["RealESRGAN_x4plus.pth", "4x-ink.safetensors"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let folder = UpscalerFolder::new(dir.path().to_owned(), Duration::ZERO);
        assert_eq!(folder.names(), ["4x-ink", "RealESRGAN_x4plus"]);
        assert_eq!(folder.find("RealESRGAN_x4plus.pth").unwrap(), "RealESRGAN_x4plus");
        let unknown = folder.find("SwinIR").unwrap_err();
        assert!(unknown.starts_with("There is no upscaler SwinIR; use one of latent, "), "{unknown}");
        assert!(unknown.ends_with("lanczos, nearest, 4x-ink, RealESRGAN_x4plus."), "{unknown}");
    }
}
