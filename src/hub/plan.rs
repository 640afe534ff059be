//! The plan of a pull: which files it will download. It is made before the first byte of weights, from a hub's list here
//! and from the server's answer for a URL in `url_plan`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::selection::Selection;
use super::staging::Place;
use super::url_plan::Found;
use super::{Checksum, Hub, HubError, ModelKind, ModelRef, RepoPath, Repository, Wanted};
use crate::domain::{ControlNetConfig, ModelFamily, ModelIndex, TinyVaeConfig, UNetConditioning, WebUrl};

pub struct Plan {
    /// The name of the model.
    pub name: String,
    pub place: Place,
    /// The URL of the source, for the manifest.
    pub source: String,
    pub repository: Option<Repository>,
    pub commit: Option<String>,
    pub kind: ModelKind,
    /// The checkpoint first, if the model is one file. Otherwise the smallest first, so that an error in a configuration
    /// shows early.
    pub files: Vec<PlannedFile>,
    /// What the operator should know of it, each one sentence.
    pub notes: Vec<String>,
}

pub struct PlannedFile {
    /// The path in the model's folder.
    pub path: RepoPath,
    /// The path in the repository.
    pub origin: RepoPath,
    pub url: WebUrl,
    pub size: Option<u64>,
    pub checksum: Option<Checksum>,
    pub validator: Option<String>,
}

/// The list of the shards of one model part.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

const MAX_FILES: usize = 5000;

impl PlannedFile {
    /// The source's identifier of this version of the file.
    pub fn version(&self) -> Option<&str> {
        self.validator.as_deref().or(self.checksum.as_ref().map(Checksum::as_str))
    }
}

impl Plan {
    pub fn bytes(&self) -> Option<u64> {
        self.files.iter().map(|file| file.size).sum()
    }
}

impl Hub {
    /// `sha256` is the checksum that the operator demands of the only file.
    pub(super) fn plan(&self, reference: &ModelRef, sha256: Option<&str>) -> Result<Plan, HubError> {
        let mut plan = match reference {
            ModelRef::Repository(repository) => self.plan_repository(repository, None)?,
            ModelRef::Path(repository, path) => self.plan_repository(repository, Some(path))?,
            ModelRef::Url(url) => match self.look_at(url)? {
                Found::File(plan) => *plan,
                Found::Page(reference) => return self.plan(&reference, sha256),
            },
        };
        if let Some(sha256) = sha256 {
            plan.demand_sha256(sha256)?;
        }
        Ok(plan)
    }

    fn plan_repository(&self, repository: &Repository, path: Option<&RepoPath>) -> Result<Plan, HubError> {
        let commit = self.commit(repository)?;
        let tree = self.tree(repository, &commit)?;
        let name = repository.to_string();
        let selected = match (self.wanted, path) {
            // Both are one part of a model, alone in its folder.
            (Wanted::ControlNet | Wanted::TinyVae, path) => Selection::controlnet(&tree, &name, path),
            (Wanted::Model, Some(path)) => Selection::at(&tree, &name, path),
            (Wanted::Model, None) => Selection::from_tree(&tree, &name),
        };
        let mut selection = match selected {
            Ok(selection) => selection,
            Err(error) => {
                // A model of another family may have none of the usual files.
                let configs = Selection::configs(&tree);
                self.check_family(repository, &commit, &configs)?;
                return Err(error);
            }
        };
        let one = match self.wanted {
            Wanted::Model => None,
            Wanted::ControlNet => Some("ControlNet"),
            Wanted::TinyVae => Some("tiny VAE"),
        };
        if let Some(one) = one.filter(|_| [ModelKind::Diffusers, ModelKind::Onnx].contains(&selection.kind)) {
            return Err(HubError::Refused(format!(
                "{repository} is a whole model and no {one}: pull it with `stablehand models pull`"
            )));
        }
        if self.wanted == Wanted::TinyVae && selection.kind == ModelKind::ControlNet {
            selection.kind = ModelKind::TinyVae;
        }
        if selection.kind != ModelKind::File {
            self.check_family(repository, &commit, &selection)?;
        }
        for index in std::mem::take(&mut selection.indexes) {
            let list: ShardIndex = self.config(repository, &commit, &index)?;
            selection.add_shards(&index, list.weight_map.values().map(String::as_str), &tree)?;
        }
        if selection.files.len() > MAX_FILES {
            let (name, count) = (repository, selection.files.len());
            return Err(HubError::Refused(format!(
                "{name} has {count} files to pull, but at most {MAX_FILES} are allowed"
            )));
        }

        // The model is named after its file or its folder, if it is not the whole repository.
        let (reference, name) = match selection.checkpoint.as_ref().or(selection.folder.as_ref()) {
            Some(path) => (ModelRef::Path(repository.clone(), path.clone()), format!("{name}:{path}")),
            None => (ModelRef::Repository(repository.clone()), name),
        };
        let planned = selection.files.iter().filter_map(|path| Some((path, tree.get(path)?)));
        let mut files = planned
            .map(|(path, file)| {
                Ok(PlannedFile {
                    path: selection.local(path)?,
                    origin: path.clone(),
                    url: self.file_url(repository, &commit, path)?,
                    size: Some(file.size),
                    checksum: file.checksum.clone(),
                    validator: None,
                })
            })
            .collect::<Result<Vec<_>, HubError>>()?;
        files.sort_by_key(|file| (selection.checkpoint.as_ref() != Some(&file.origin), file.size));
        Ok(Plan {
            name,
            place: Place::for_model(&reference, &files[0].path),
            source: format!("{}/{}", self.base.as_str().trim_end_matches('/'), repository.id()),
            repository: Some(repository.clone()),
            commit: Some(commit),
            kind: selection.kind,
            files,
            notes: selection.note_on_pickles().into_iter().collect(),
        })
    }

    /// Refuses other model families. The configurations of the repository are enough for that, and they are small.
    fn check_family(
        &self,
        repository: &Repository,
        commit: &str,
        selection: &Selection,
    ) -> Result<(), HubError> {
        let find = |path: &str| {
            let is_it = |file: &&RepoPath| selection.local(file).is_ok_and(|local| local.as_str() == path);
            selection.files.iter().find(is_it)
        };
        let refuse = |fault: Option<String>| match fault {
            Some(fault) => Err(HubError::Refused(format!("{repository} cannot be used: {fault}"))),
            None => Ok(()),
        };
        if selection.kind == ModelKind::ControlNet {
            let config =
                find("config.json").map(|path| self.config::<ControlNetConfig>(repository, commit, path));
            return refuse(config.transpose()?.as_ref().and_then(ControlNetConfig::fault));
        }
        if selection.kind == ModelKind::TinyVae {
            let config =
                find("config.json").map(|path| self.config::<TinyVaeConfig>(repository, commit, path));
            return refuse(config.transpose()?.as_ref().and_then(TinyVaeConfig::fault));
        }
        let index = find("model_index.json").map(|path| self.config::<ModelIndex>(repository, commit, path));
        let unet =
            find("unet/config.json").map(|path| self.config::<UNetConditioning>(repository, commit, path));
        let (index, unet) = (index.transpose()?.unwrap_or_default(), unet.transpose()?.unwrap_or_default());
        match ModelFamily::other_by_configs(&index, &unet, false) {
            Some(family) => Err(HubError::Refused(format!(
                "{repository} is {family}, but stablehand supports only Stable Diffusion v1 models"
            ))),
            None => Ok(()),
        }
    }
}

impl Plan {
    /// Demands this checksum of the model's only file. What lies beside a checkpoint has its own.
    fn demand_sha256(&mut self, sha256: &str) -> Result<(), HubError> {
        let is_one = self.kind == ModelKind::File;
        let Some(file) = self.files.first_mut().filter(|_| is_one) else {
            return Err(HubError::Reference(format!(
                "--sha256 works for one file, but {} has several",
                self.name
            )));
        };
        match &file.checksum {
            Some(Checksum::Sha256(stated)) if stated != sha256 => Err(HubError::Refused(format!(
                "{} has the SHA-256 {stated}, not {sha256}: nothing was pulled",
                self.name
            ))),
            _ => {
                file.checksum = Some(Checksum::Sha256(sha256.to_owned()));
                Ok(())
            }
        }
    }
}
