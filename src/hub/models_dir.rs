//! The models folder: lists, finds and removes pulled models.
//!
//! A model is a folder two levels down, `ORG/NAME` or `HOST/FILE`, with its files and a manifest. A pull collects the
//! files in a staging folder (`ORG/.NAME.part`) and renames it when the model is complete. Nothing is written into a
//! complete model.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::{Manifest, ModelKind};
use super::staging::{NAME_FILE, Place, Staging, bytes_under, remove_if_there};
use super::{HubError, RepoPath, similar};
use crate::private_dir;

/// A folder that models are pulled into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelsDir {
    path: PathBuf,
}

/// A complete model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledModel {
    pub manifest: Manifest,
    folder: PathBuf,
}

/// A model that somebody copied into the folder: a file of weights, or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopiedModel {
    /// The name of its file or folder.
    pub name: String,
    pub bytes: u64,
    pub path: PathBuf,
}

/// An unfinished pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    pub name: String,
    pub bytes: u64,
    folder: PathBuf,
}

const LOCKS: &str = ".locks";

impl ModelsDir {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All models, sorted by name.
    pub fn list(&self) -> Result<Vec<PulledModel>, HubError> {
        let folders = self.folders()?.into_iter().filter(|folder| !is_hidden(folder));
        let mut models: Vec<_> = folders
            .filter_map(|folder| Some(PulledModel { manifest: Manifest::read(&folder)?, folder }))
            .collect();
        models.sort_by(|a, b| a.manifest.name.cmp(&b.manifest.name));
        Ok(models)
    }

    /// The unfinished pulls, which another pull resumes.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>, HubError> {
        let folders = self.folders()?.into_iter().filter(|folder| is_hidden(folder));
        let named = folders.filter_map(|folder| {
            let name = fs::read_to_string(folder.join(NAME_FILE)).ok().filter(|name| name.len() < 4096)?;
            Some(Unfinished { name, bytes: bytes_under(&folder), folder })
        });
        Ok(named.collect())
    }

    /// The model with this name. The last part of the name (`NAME`, `FILE`, or `FILE` without its extension) is enough
    /// when only one model has it.
    pub fn find(&self, name: &str) -> Result<Option<PulledModel>, HubError> {
        let mut models = self.list()?;
        if let Some(index) = models.iter().position(|model| model.manifest.name == name) {
            return Ok(Some(models.swap_remove(index)));
        }
        models.retain(|model| model.answers_to(name));
        match models.len() {
            0 => Ok(None),
            1 => Ok(models.pop()),
            _ => {
                let candidates = models.into_iter().map(|model| model.manifest.name).collect();
                Err(HubError::Ambiguous { name: name.to_owned(), candidates })
            }
        }
    }

    /// The models that lie in the folder itself and were not pulled, sorted by name.
    pub fn copied(&self) -> Vec<CopiedModel> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let copied = entries.filter_map(|entry| {
            let (name, path) = (entry.file_name().into_string().ok()?, entry.path());
            let is_weights = || name.parse::<RepoPath>().is_ok_and(|name| name.is_weights());
            // Folders of pulled models have folders only.
            let is_model = if path.is_dir() { has_files(&path) } else { is_weights() };
            let bytes = match path.metadata() {
                Ok(file) if file.is_file() => file.len(),
                _ => bytes_under(&path),
            };
            (is_model && !is_hidden(&path)).then_some(CopiedModel { name, bytes, path })
        });
        let mut copied: Vec<_> = copied.collect();
        copied.sort_by(|a, b| a.name.cmp(&b.name));
        copied
    }

    /// The copied model with this name, with or without the extension of its file.
    pub fn find_copied(&self, name: &str) -> Option<CopiedModel> {
        let mut copied = self.copied();
        let stem = |model: &CopiedModel| {
            model.name.parse::<RepoPath>().map(|name| name.without_extension().to_owned())
        };
        let exact = copied.iter().position(|model| model.name == name);
        let found =
            exact.or_else(|| copied.iter().position(|model| stem(model).is_ok_and(|stem| stem == name)));
        found.map(|index| copied.swap_remove(index))
    }

    /// Removes a model or an unfinished pull, given its name or path. Returns its name and the freed bytes.
    pub fn remove(&self, name: &str) -> Result<(String, u64), HubError> {
        let (name, folder) = self.removable(name)?;
        let place = self.place_of(&folder)?;
        let lock = self.lock(&place, &name)?;
        let bytes = bytes_under(&folder);
        let doomed = place.old(&self.path);
        let disk = |error| HubError::disk(&folder, error);
        // One rename hides the model, so nobody finds half of it.
        remove_if_there(&doomed).map_err(disk)?;
        fs::rename(&folder, &doomed).map_err(disk)?;
        remove_if_there(&doomed).map_err(disk)?;
        drop(lock);
        // Fails if the group has other models.
        let _ = fs::remove_dir(self.path.join(&place.group));
        Ok((name, bytes))
    }

    /// The full name and the folder of what `name` means.
    fn removable(&self, name: &str) -> Result<(String, PathBuf), HubError> {
        if let Some(model) = self.find(name)? {
            return Ok((model.manifest.name, model.folder));
        }
        if let Some(unfinished) = self.unfinished()?.into_iter().find(|found| found.name == name) {
            return Ok((unfinished.name, unfinished.folder));
        }
        let not_pulled = || self.not_pulled(name);
        let (path, models) = (Path::new(name).canonicalize(), self.path.canonicalize());
        let path = path.map_err(|_| not_pulled())?;
        let is_inside = models.is_ok_and(|models| path.starts_with(&models) && path != models);
        if !is_inside {
            return Err(HubError::Outside { path, dir: self.path.clone() });
        }
        let is_it = |model: &PulledModel| {
            [model.folder.clone(), model.path()]
                .iter()
                .any(|own| own.canonicalize().is_ok_and(|own| own == path))
        };
        let found = self.list()?.into_iter().find(is_it).ok_or_else(not_pulled)?;
        Ok((found.manifest.name, found.folder))
    }

    /// The error for a name that no model has.
    fn not_pulled(&self, name: &str) -> HubError {
        let models = self.list().unwrap_or_default();
        let names = models.iter().map(|model| model.manifest.name.as_str());
        HubError::NotPulled { name: name.to_owned(), similar: similar(name, names).map(str::to_owned) }
    }

    /// Opens the staging folder of a model and locks it.
    pub(super) fn stage(&self, place: Place, name: &str) -> Result<Staging, HubError> {
        let lock = self.lock(&place, name)?;
        Staging::open(&self.path, place, name, lock)
    }

    /// The model at `place`, if one is there.
    pub(super) fn at(&self, place: &Place) -> Option<PulledModel> {
        let folder = place.folder(&self.path);
        Some(PulledModel { manifest: Manifest::read(&folder)?, folder })
    }

    fn lock(&self, place: &Place, name: &str) -> Result<File, HubError> {
        let folder = self.path.join(LOCKS);
        let disk = |error| HubError::disk(&folder, error);
        // This may create the server's data folder, which only its owner may read.
        private_dir::create(&folder).map_err(disk)?;
        let path = folder.join(format!("{}--{}", place.group, place.leaf));
        let file = File::options().write(true).create(true).truncate(false).open(path).map_err(disk)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(HubError::Busy { name: name.to_owned() }),
            Err(TryLockError::Error(error)) => Err(disk(error)),
        }
    }

    /// The folders of models and of unfinished pulls.
    fn folders(&self) -> Result<Vec<PathBuf>, HubError> {
        let groups = folders_in(&self.path).map_err(|error| HubError::disk(&self.path, error))?;
        let groups = groups.into_iter().filter(|group| !is_hidden(group));
        Ok(groups.flat_map(|group| folders_in(&group).unwrap_or_default()).collect())
    }

    /// The place of a folder. Fails if links lead it out of the models folder.
    fn place_of(&self, folder: &Path) -> Result<Place, HubError> {
        let outside = || HubError::Outside { path: folder.to_owned(), dir: self.path.clone() };
        let (real, models) = (folder.canonicalize(), self.path.canonicalize());
        let (real, models) = real.ok().zip(models.ok()).ok_or_else(outside)?;
        let inside = real.strip_prefix(&models).map_err(|_| outside())?;
        let mut parts = inside.components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        match (parts.next(), parts.next(), parts.next()) {
            (Some(group), Some(leaf), None) => {
                let visible = leaf.strip_prefix('.').and_then(|leaf| leaf.strip_suffix(".part"));
                Ok(Place { group, leaf: visible.map_or(leaf.clone(), str::to_owned) })
            }
            _ => Err(outside()),
        }
    }
}

impl PulledModel {
    pub(super) fn new(manifest: Manifest, folder: PathBuf) -> Self {
        Self { manifest, folder }
    }

    /// The path for `--model`: the folder, or the one file in it.
    pub fn path(&self) -> PathBuf {
        match (self.manifest.kind, &self.manifest.files[..]) {
            (ModelKind::File, [file, ..]) => self.folder.join(&file.path),
            _ => self.folder.clone(),
        }
    }

    /// The path of one of its files.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn answers_to(&self, name: &str) -> bool {
        let own = self.manifest.name.as_str();
        let last = own.rsplit(['/', ':']).next().unwrap_or(own);
        let stem = last.parse::<RepoPath>().ok().filter(RepoPath::is_weights);
        last == name || stem.is_some_and(|last| last.without_extension() == name)
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

fn has_files(folder: &Path) -> bool {
    fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| entry.path().is_file())
}

/// The folders in `path`. None if `path` does not exist.
fn folders_in(path: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_was_copied_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let models = ModelsDir::new(folder.path().to_owned());
        assert_eq!(models.copied(), []);
        fs::write(folder.path().join("dream.safetensors"), b"abc").unwrap();
        fs::write(folder.path().join("notes.txt"), b"abc").unwrap();
        fs::write(folder.path().join(".hidden.safetensors"), b"abc").unwrap();
        for made in ["fox", "org/pulled"] {
            fs::create_dir_all(folder.path().join(made)).unwrap();
            fs::write(folder.path().join(made).join("model_index.json"), b"{}").unwrap();
        }
        let names = models.copied().into_iter().map(|model| (model.name, model.bytes));
        let expected = [("dream.safetensors", 3), ("fox", 2)];
        assert_eq!(names.collect::<Vec<_>>(), expected.map(|(name, bytes)| (name.to_owned(), bytes)));
        for (name, found) in [
            ("dream", Some("dream.safetensors")),
            ("dream.safetensors", Some("dream.safetensors")),
            ("fox", Some("fox")),
            ("org", None),
            ("notes", None),
            (".hidden", None),
            ("../fox", None),
            ("", None),
        ] {
            assert_eq!(models.find_copied(name).map(|model| model.name).as_deref(), found, "{name}");
        }
    }
}
