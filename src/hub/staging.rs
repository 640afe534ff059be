//! The folder of a model, and the staging folder beside it that collects the files until the model is complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::models_dir::PulledModel;
use super::partial_file::sync_folder;
use super::{HubError, ModelRef, RepoPath, Repository};

/// The place of a model inside the models folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub group: String,
    pub leaf: String,
}

/// The staging folder of a model. It is locked as long as this value lives.
pub struct Staging {
    models: PathBuf,
    place: Place,
    pub folder: PathBuf,
    _lock: File,
}

/// The file in a staging folder with the name of its model.
pub const NAME_FILE: &str = ".pulling";

impl Staging {
    /// Opens the staging folder with the files of an earlier pull, or creates it. `lock` is the lock of the place.
    pub fn open(models: &Path, place: Place, name: &str, lock: File) -> Result<Self, HubError> {
        let folder = place.staging(models);
        let disk = |error| HubError::disk(&folder, error);
        remove_if_there(&place.old(models)).map_err(disk)?;
        fs::create_dir_all(&folder).map_err(disk)?;
        if fs::symlink_metadata(&folder).map_err(disk)?.is_symlink() {
            return Err(disk(io::Error::other("it is a symbolic link")));
        }
        fs::write(folder.join(NAME_FILE), name).map_err(disk)?;
        Ok(Self { models: models.to_owned(), place, folder, _lock: lock })
    }

    /// The bytes that have been collected.
    pub fn bytes(&self) -> u64 {
        let name = fs::metadata(self.folder.join(NAME_FILE)).map_or(0, |metadata| metadata.len());
        bytes_under(&self.folder).saturating_sub(name)
    }

    /// Keeps the folder if it holds something that another pull can use; otherwise removes it.
    pub fn abandon(self) {
        if self.bytes() == 0 {
            // A folder that stays behind does no harm.
            let _ = fs::remove_dir_all(&self.folder);
            let _ = fs::remove_dir(self.models.join(&self.place.group));
        }
    }

    /// Turns the staging folder into the model: removes other files and replaces the earlier version.
    pub fn finish(self, manifest: Manifest) -> Result<PulledModel, HubError> {
        let (staging, old) = (&self.folder, self.place.old(&self.models));
        let folder = self.place.folder(&self.models);
        let finish = || {
            let own: Vec<_> = manifest.files.iter().map(|file| staging.join(&file.path)).collect();
            remove_others(staging, &own)?;
            manifest.write(staging)?;
            sync_folder(staging)?;
            if folder.exists() {
                fs::rename(&folder, &old)?;
            }
            fs::rename(staging, &folder).inspect_err(|_| drop(fs::rename(&old, &folder)))?;
            sync_folder(folder.parent().unwrap_or(&folder))?;
            remove_if_there(&old)
        };
        finish().map_err(|error| HubError::disk(&folder, error))?;
        Ok(PulledModel::new(manifest, folder))
    }
}

impl Place {
    pub fn for_model(reference: &ModelRef, file: &RepoPath) -> Self {
        match reference {
            ModelRef::Repository(repository) => {
                Self { group: repository.org.clone(), leaf: leaf(repository) }
            }
            ModelRef::Path(repository, file) => Self {
                group: repository.org.clone(),
                leaf: format!("{}--{}", leaf(repository), file.as_str().replace('/', "--")),
            },
            ModelRef::Url(url) => {
                let url = url.as_url();
                let port = url.port().map(|port| format!("_{port}")).unwrap_or_default();
                let host = url.host_str().unwrap_or_default().replace(['[', ']'], "").replace(':', "_");
                Self { group: format!("{host}{port}"), leaf: file.file_name().to_owned() }
            }
        }
    }

    pub fn folder(&self, models: &Path) -> PathBuf {
        models.join(&self.group).join(&self.leaf)
    }

    fn staging(&self, models: &Path) -> PathBuf {
        models.join(&self.group).join(format!(".{}.part", self.leaf))
    }

    pub fn old(&self, models: &Path) -> PathBuf {
        models.join(&self.group).join(format!(".{}.old", self.leaf))
    }
}

fn leaf(repository: &Repository) -> String {
    match &repository.revision {
        Some(revision) => format!("{}@{}", repository.name, revision.replace('/', "--")),
        None => repository.name.clone(),
    }
}

/// The bytes of all files under `folder`. Links are not followed.
pub fn bytes_under(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let bytes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { bytes_under(&entry.path()) } else { metadata.len() })
    });
    bytes.sum()
}

/// Removes all files under `folder` except `own`, and the folders that are then empty.
fn remove_others(folder: &Path, own: &[PathBuf]) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, own)?;
            if fs::read_dir(&path)?.next().is_none() {
                fs::remove_dir(path)?;
            }
        } else if !own.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

pub fn remove_if_there(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
