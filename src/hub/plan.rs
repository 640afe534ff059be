//! The plan of a pull: which files it will download. It is made before the first byte of weights, from a hub's list or
//! from the server's answer for a URL.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use ureq::http::header;

use super::client::{Answer, Range};
use super::retry::with_retries;
use super::selection::{Selection, pickle};
use super::staging::Place;
use super::{Checksum, Hub, HubError, ModelKind, ModelRef, RepoPath, Repository};
use crate::domain::{ModelFamily, ModelIndex, UNetConditioning, WebUrl};

pub struct Plan {
    /// The name of the model.
    pub name: String,
    pub place: Place,
    /// The URL of the source, for the manifest.
    pub source: String,
    pub repository: Option<Repository>,
    pub commit: Option<String>,
    pub kind: ModelKind,
    /// The smallest first, so that an error in a configuration shows early.
    pub files: Vec<PlannedFile>,
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
const MAX_NAME: usize = 128;

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
            ModelRef::File(repository, file) => self.plan_repository(repository, Some(file))?,
            ModelRef::Url(url) => self.plan_url(url)?,
        };
        if let Some(sha256) = sha256 {
            plan.demand_sha256(sha256)?;
        }
        Ok(plan)
    }

    fn plan_repository(&self, repository: &Repository, file: Option<&RepoPath>) -> Result<Plan, HubError> {
        if let Some(file) = file.filter(|file| file.is_pickle()) {
            return Err(pickle(file.file_name()));
        }
        let commit = self.commit(repository)?;
        let tree = self.tree(repository, &commit)?;
        let name = repository.to_string();
        let mut selection = match file {
            Some(file) => Selection::file(&tree, &name, file)?,
            None => Selection::from_tree(&tree, &name)?,
        };
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

        // If the repository holds one checkpoint, the model is that file.
        let single = selection.files.first().filter(|_| selection.kind == ModelKind::File).cloned();
        let (reference, name) = match &single {
            Some(file) => (ModelRef::File(repository.clone(), file.clone()), format!("{name}:{file}")),
            None => (ModelRef::Repository(repository.clone()), name),
        };
        let planned = selection.files.iter().filter_map(|path| Some((path, tree.get(path)?)));
        let mut files = planned
            .map(|(path, file)| {
                let local = single.as_ref().map_or(path.as_str(), RepoPath::file_name);
                Ok(PlannedFile {
                    path: local.parse().map_err(|error| HubError::Reference(format!("{error}")))?,
                    origin: path.clone(),
                    url: self.file_url(repository, &commit, path)?,
                    size: Some(file.size),
                    checksum: file.checksum.clone(),
                    validator: None,
                })
            })
            .collect::<Result<Vec<_>, HubError>>()?;
        files.sort_by_key(|file| file.size);
        Ok(Plan {
            name,
            place: Place::for_model(&reference, &files[0].path),
            source: format!("{}/{}", self.base.as_str().trim_end_matches('/'), repository.id()),
            repository: Some(repository.clone()),
            commit: Some(commit),
            kind: selection.kind,
            files,
        })
    }

    /// Refuses other model families. The configurations of the repository are enough for that, and they are small.
    fn check_family(
        &self,
        repository: &Repository,
        commit: &str,
        selection: &Selection,
    ) -> Result<(), HubError> {
        let find = |path: &str| selection.files.iter().find(|file| file.as_str() == path);
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

    fn plan_url(&self, url: &WebUrl) -> Result<Plan, HubError> {
        let asked = last_segment(url);
        if let Some(path) = asked.as_ref().filter(|path| path.is_pickle()) {
            return Err(pickle(path.file_name()));
        }
        // Request one byte, to see whether there is a file and what its name is.
        let first = Range { from: 0, to: Some(0), unchanged: None };
        let answer = with_retries(|| {
            let answer = self.client.get(url, Some(first))?;
            if matches!(answer.status, 200 | 206) { Ok(answer) } else { Err(url_refusal(&answer, url)) }
        })?;
        let is_page = answer.header(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"));
        let path = asked
            .filter(is_checkpoint)
            .or_else(|| disposition(&answer))
            .or_else(|| last_segment(&answer.url).filter(is_checkpoint));
        let path = match path {
            Some(path) if path.is_pickle() => return Err(pickle(path.file_name())),
            Some(path) if is_checkpoint(&path) && !is_page => path,
            _ => {
                let what = if is_page { "a web page" } else { "no .safetensors file" };
                return Err(HubError::Refused(format!(
                    "{} has {what} at this URL: give the URL of a .safetensors file",
                    url.host()
                )));
            }
        };
        let size = match answer.content_range() {
            Some((_, size)) => size,
            None => answer.content_length(),
        };
        let (host, port) =
            (url.host(), url.as_url().port().map(|port| format!(":{port}")).unwrap_or_default());
        let mut source = url.as_url().clone();
        source.set_query(None);
        let place = Place::for_model(&ModelRef::Url(url.clone()), &path);
        Ok(Plan {
            name: format!("{host}{port}/{path}"),
            place,
            source: source.into(),
            repository: None,
            commit: None,
            kind: ModelKind::File,
            files: vec![PlannedFile {
                origin: path.clone(),
                path,
                url: url.clone(),
                size,
                checksum: answer.linked_sha256.clone().map(Checksum::Sha256),
                validator: answer.validator().map(str::to_owned),
            }],
        })
    }
}

impl Plan {
    /// Demands this checksum of the only file.
    fn demand_sha256(&mut self, sha256: &str) -> Result<(), HubError> {
        let [file] = &mut self.files[..] else {
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

/// The error for a response from a URL outside the hub.
pub fn url_refusal(answer: &Answer, url: &WebUrl) -> HubError {
    let what = last_segment(url).map_or_else(|| "this URL".to_owned(), |path| path.to_string());
    let host = answer.host().to_owned();
    match answer.status {
        401 | 403 => HubError::Forbidden { host, what },
        404 | 410 => HubError::Missing { host, what },
        _ => answer.refusal(what),
    }
}

fn is_checkpoint(path: &RepoPath) -> bool {
    path.has_extension("safetensors")
}

/// The file name at the end of a URL.
fn last_segment(url: &WebUrl) -> Option<RepoPath> {
    file_name(url.as_url().path_segments()?.next_back()?)
}

/// The file name in a `Content-Disposition` header.
fn disposition(answer: &Answer) -> Option<RepoPath> {
    let text = answer.header(header::CONTENT_DISPOSITION)?;
    let value = |key: &str| {
        let part = text.split(';').find_map(|part| part.trim().strip_prefix(key))?;
        Some(part.trim_matches('"'))
    };
    let extended = value("filename*=").and_then(|value| value.rsplit_once('\'')).map(|(_, name)| name);
    extended.and_then(file_name).or_else(|| value("filename=").and_then(file_name))
}

/// The text as a file name, if it is a safe one.
fn file_name(encoded: &str) -> Option<RepoPath> {
    let name = percent_decode_str(encoded).decode_utf8().ok()?;
    let is_good = !name.contains(['/', ':']) && !name.starts_with('.') && name.len() <= MAX_NAME;
    name.parse().ok().filter(|_| is_good)
}
