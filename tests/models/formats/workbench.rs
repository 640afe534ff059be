//! Where the rows of the table make their files.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::checkpoints::{FILES, Tensors, component, diffusers_folder, model, original, write};

/// A folder in which every file or folder that is made has a place of its own.
pub struct Workbench {
    root: TempDir,
    made: Cell<usize>,
}

impl Workbench {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), made: Cell::new(0) }
    }

    /// A new, empty folder.
    pub fn place(&self) -> PathBuf {
        self.made.set(self.made.get() + 1);
        let place = self.root.path().join(self.made.get().to_string());
        fs::create_dir(&place).unwrap();
        place
    }

    /// `NAME.safetensors` with these tensors.
    pub fn checkpoint(&self, name: &str, tensors: &Tensors) -> PathBuf {
        let path = self.place().join(format!("{name}.safetensors"));
        write(tensors, &path);
        path
    }

    /// The built-in model as a checkpoint, changed.
    pub fn edited(&self, edit: impl FnOnce(&mut Tensors)) -> PathBuf {
        let mut tensors = original();
        edit(&mut tensors);
        self.checkpoint("fox", &tensors)
    }

    /// A file with these bytes.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.place().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A copy of the built-in model's folder, changed. The bench keeps it.
    pub fn folder(&self, edit: impl FnOnce(&Path)) -> PathBuf {
        let place = self.place().join("fox");
        // The folder must outlive the row, so it moves to the bench.
        fs::rename(diffusers_folder().keep(), &place).unwrap();
        edit(&place);
        place
    }

    /// The same with one JSON file changed.
    pub fn configured(&self, file: &str, edit: impl FnOnce(&mut Map<String, Value>)) -> PathBuf {
        self.folder(|path| edit_json(&path.join(file), edit))
    }

    /// The same with the weights of one part changed and under another name.
    pub fn part(&self, part: &str, name: &str, edit: impl FnOnce(&mut Tensors)) -> PathBuf {
        self.folder(|path| {
            let file = file_of(part);
            let mut tensors = component(part, file);
            edit(&mut tensors);
            fs::remove_file(path.join(part).join(file)).unwrap();
            write(&tensors, &path.join(part).join(name));
        })
    }
}

/// The name of a part's file in the built-in model's folder.
pub fn file_of(part: &str) -> &'static str {
    FILES.iter().find(|(found, _)| *found == part).unwrap().1
}

/// The bytes of a part's file.
pub fn bytes_of(part: &str) -> Vec<u8> {
    fs::read(model().join(part).join(file_of(part))).unwrap()
}

pub fn edit_json(path: &Path, edit: impl FnOnce(&mut Map<String, Value>)) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(json.as_object_mut().unwrap());
    fs::write(path, json.to_string()).unwrap();
}
