//! Where a model's folder is, and the folder beside it in which one is gathered until it is whole.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::manifest::Manifest;
use super::models_dir::PulledModel;
use super::part::sync_folder;
use super::{HubError, ModelRef, RepoPath, Repository};

/// Where a model's folder is in the models folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub group: String,
    pub leaf: String,
}

/// The folder in which a model is gathered, locked for as long as this lives.
pub struct Staging {
    models: PathBuf,
    place: Place,
    pub folder: PathBuf,
    _lock: File,
}

/// In a folder of gathering: the name of what is gathered.
pub const NAME_FILE: &str = ".pulling";

impl Staging {
    /// Begins, or goes on with what is there. `lock`: of the place.
    pub fn open(models: &Path, place: Place, name: &str, lock: File) -> Result<Self, HubError> {
        let folder = place.staging(models);
        let disk = |error| HubError::disk(&folder, error);
        remove_if_there(&place.old(models)).map_err(disk)?;
        fs::create_dir_all(&folder).map_err(disk)?;
        if fs::symlink_metadata(&folder).map_err(disk)?.is_symlink() {
            return Err(disk(io::Error::other("it is a link")));
        }
        fs::write(folder.join(NAME_FILE), name).map_err(disk)?;
        Ok(Self { models: models.to_owned(), place, folder, _lock: lock })
    }

    /// How many bytes are there by now.
    pub fn bytes(&self) -> u64 {
        let name = fs::metadata(self.folder.join(NAME_FILE)).map_or(0, |metadata| metadata.len());
        bytes_under(&self.folder).saturating_sub(name)
    }

    /// Leaves what could be gone on with, and nothing where there is none.
    pub fn abandon(self) {
        if self.bytes() == 0 {
            // What cannot be removed is in nobody's way.
            let _ = fs::remove_dir_all(&self.folder);
            let _ = fs::remove_dir(self.models.join(&self.place.group));
        }
    }

    /// Makes the folder a model: what is not of it goes, and it takes the place of the one before it.
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
    pub fn of(reference: &ModelRef, file: &RepoPath) -> Self {
        match reference {
            ModelRef::Repository(repository) => {
                Self { group: repository.org.clone(), leaf: leaf(repository) }
            }
            ModelRef::File(repository, file) => Self {
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

/// The bytes of all files under `folder`; links are not followed.
pub fn bytes_under(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let bytes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { bytes_under(&entry.path()) } else { metadata.len() })
    });
    bytes.sum()
}

/// Removes all files under `folder` but `own`, and the folders that are empty then.
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
