//! Which files of a repository are pulled: those that stablehand can use, and each weight only once.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::api::Tree;
use super::listing::Listing;
use super::{HubError, ModelKind, RepoPath};

/// The usable files of a repository.
#[derive(Debug, PartialEq, Eq)]
pub struct Selection {
    pub kind: ModelKind,
    /// The folder of the repository that holds the model, if it is not the top.
    pub folder: Option<RepoPath>,
    /// The checkpoint, if the model is one file. The other files lie beside it.
    pub checkpoint: Option<RepoPath>,
    pub files: BTreeSet<RepoPath>,
    /// The lists of shards among the files. Their shards have to be added.
    pub indexes: Vec<RepoPath>,
}

impl Selection {
    /// Selects from `tree`, the files of the repository `name`.
    pub fn from_tree(tree: &Tree, name: &str) -> Result<Self, HubError> {
        Listing::new(tree, name).model()
    }

    /// Selects a ControlNet: the file or folder at `path`, or what the repository holds.
    pub fn controlnet(tree: &Tree, name: &str, path: Option<&RepoPath>) -> Result<Self, HubError> {
        let listing = Listing::new(tree, name);
        let folder = match path {
            Some(path) if tree.contains_key(path) => return Self::at(tree, name, path),
            Some(path) => listing.below(path),
            None => listing,
        };
        match folder.controlnet() {
            Some(selection) => Ok(selection),
            None => path.map_or_else(|| Self::from_tree(tree, name), |path| Self::at(tree, name, path)),
        }
    }

    /// Selects one file by its path, or the model in a folder.
    pub fn at(tree: &Tree, name: &str, path: &RepoPath) -> Result<Self, HubError> {
        let listing = Listing::new(tree, name);
        let inside = listing.below(path);
        if !tree.contains_key(path) && !inside.is_empty() {
            return inside.model();
        }
        if !path.is_weights() {
            return Err(HubError::Reference(format!(
                "{name}:{path} is not a .safetensors file or a pickle (.ckpt, .pt, .bin); without :FILE, all usable files \
                 of {name} are pulled"
            )));
        }
        match tree.contains_key(path) {
            true => Ok(listing.checkpoint(path)),
            false => Err(HubError::Refused(format!("{name} has no file {path}{}", listing.choice()))),
        }
    }

    /// The paths of all models that can be named, if there are several.
    pub fn candidates(tree: &Tree, name: &str) -> Vec<RepoPath> {
        Listing::new(tree, name).candidate_paths()
    }

    /// The configurations of a model folder that has no weights.
    pub fn configs(tree: &Tree) -> Self {
        Listing::new(tree, "").configs_alone()
    }

    /// Adds the shards that the list at `index` names.
    pub fn add_shards<'a>(
        &mut self,
        index: &RepoPath,
        names: impl IntoIterator<Item = &'a str>,
        tree: &Tree,
    ) -> Result<(), HubError> {
        let folder = index.folder().unwrap_or_default();
        for name in names {
            let path: Option<RepoPath> = format!("{folder}/{name}").parse().ok();
            let shard = path
                .filter(|path| !name.contains('/') && path.is_weights() && tree.contains_key(path))
                .filter(|path| path.is_pickle() == index.as_str().contains(".bin."));
            let shard = shard.ok_or_else(|| {
                let name = name.chars().take(80).collect::<String>();
                HubError::Refused(format!(
                    "{index} names the shard {name:?}, but there is no such file beside it"
                ))
            })?;
            self.files.insert(shard);
        }
        Ok(())
    }

    /// The path of one of the files in the model's own folder.
    pub fn local(&self, path: &RepoPath) -> Result<RepoPath, HubError> {
        let text = match (&self.checkpoint, &self.folder) {
            (Some(_), _) => path.file_name(),
            (None, Some(folder)) => {
                let inner = path.as_str().strip_prefix(folder.as_str());
                inner.map_or(path.as_str(), |inner| inner.trim_start_matches('/'))
            }
            (None, None) => path.as_str(),
        };
        text.parse().map_err(|error| HubError::Reference(format!("{error}")))
    }

    /// One sentence about the pickles among the files.
    pub fn note_on_pickles(&self) -> Option<String> {
        let pickles: Vec<_> =
            self.files.iter().filter(|file| file.is_pickle()).map(RepoPath::as_str).collect();
        let are = match pickles.len() {
            0 => return None,
            1 => "is a pickle",
            _ => "are pickles",
        };
        Some(format!(
            "{} {are}: stablehand reads only tensors from pickles and runs no code",
            pickles.join(", ")
        ))
    }
}
