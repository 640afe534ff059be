//! The folder with the operator's ControlNets. Requests name them by their files.
//!
//! A ControlNet is a file, or a folder as diffusers writes it: `config.json` with the weights beside it. Such a folder's
//! name is the ControlNet's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::add_on_folder::{AddOnFile, AddOnFolder, Kind, Listing, find_in};
use super::refreshed::Refreshed;
use crate::domain::ControlNetShelf;

const KIND: Kind = Kind { one: "ControlNet", flag: "--controlnet-dir" };
/// What diffusers calls the weights in a folder, the preferred form first. Others are variants of the same weights.
const WEIGHTS: [&str; 2] = ["diffusion_pytorch_model.fp16", "diffusion_pytorch_model"];
pub(super) const CONFIG: &str = "config.json";

/// A folder of ControlNets, shared by all threads.
#[derive(Debug)]
pub struct ControlNetFolder(Refreshed<BTreeMap<String, AddOnFile>>);

impl ControlNetFolder {
    /// The folder need not be there yet.
    pub fn new(path: PathBuf, look_every: Duration) -> Self {
        let folder = AddOnFolder::new(path, Duration::ZERO);
        Self(Refreshed::new(look_every, move |_| controlnets_in(&folder.list())))
    }

    /// The files of weights, each with the name of its ControlNet.
    pub fn files(&self) -> Vec<AddOnFile> {
        self.list().values().cloned().collect()
    }

    /// The same by name.
    fn list(&self) -> Listing {
        self.0.get()
    }

    /// The file that `name` means, or a sentence that says why there is none.
    pub fn file(&self, name: &str) -> Result<AddOnFile, String> {
        let shown: String = name.chars().take(80).collect();
        find_in(&self.list(), name).map_err(|error| error.sentence(KIND, &shown))
    }
}

/// The files of ControlNets among all files.
fn controlnets_in(files: &BTreeMap<String, AddOnFile>) -> BTreeMap<String, AddOnFile> {
    let named = |file: &AddOnFile| {
        let Some((folder, weights)) = file.name.rsplit_once('/') else { return Some(file.clone()) };
        if !file.path.with_file_name(CONFIG).is_file() {
            return Some(file.clone());
        }
        let rank = WEIGHTS.iter().position(|name| *name == weights)?;
        let has_better = WEIGHTS[..rank].iter().any(|name| files.contains_key(&format!("{folder}/{name}")));
        (!has_better).then(|| AddOnFile { name: folder.to_owned(), ..file.clone() })
    };
    files.values().filter_map(named).map(|file| (file.name.clone(), file)).collect()
}

impl ControlNetShelf for ControlNetFolder {
    fn find(&self, name: &str) -> Result<String, String> {
        self.file(name).map(|file| file.name)
    }

    fn names(&self) -> Vec<String> {
        self.list().keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_diffusers_folders_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let folder = || ControlNetFolder::new(dir.path().to_owned(), Duration::ZERO);
        assert!(folder().find("canny").unwrap_err().ends_with("(--controlnet-dir) is empty."));
        for file in [
            "control_v11p_sd15_canny.pth",
            "sd15/tile.safetensors",
            "sd-controlnet-depth/config.json",
            "sd-controlnet-depth/diffusion_pytorch_model.safetensors",
            "sd-controlnet-depth/diffusion_pytorch_model.bin",
            "sd-controlnet-depth/diffusion_pytorch_model.fp16.safetensors",
        ] {
            write(file);
        }
        let folder = folder();
        assert_eq!(folder.names(), ["control_v11p_sd15_canny", "sd-controlnet-depth", "sd15/tile"]);
        assert_eq!(folder.find("control_v11p_sd15_canny.pth").unwrap(), "control_v11p_sd15_canny");
        assert_eq!(folder.find("tile").unwrap(), "sd15/tile");
        let depth = folder.file("sd-controlnet-depth").unwrap();
        assert_eq!(depth.file_name(), "diffusion_pytorch_model.fp16.safetensors");
        assert_eq!(
            folder.find("../secret").unwrap_err(),
            "There is no ControlNet ../secret; use one of control_v11p_sd15_canny, sd-controlnet-depth, sd15/tile."
        );
    }
}
