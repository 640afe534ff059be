//! The cache that diffusers and the hub's own client fill. Its models are used where they are, and never changed.
//!
//! A repository is a folder `models--ORG--NAME`: `refs/main` has the commit of a branch, `snapshots/COMMIT` the files of
//! that commit as links, and `blobs` their contents. A file that is still being downloaded is called `….incomplete`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::reference::{MAIN, ModelRef, Repository};
use super::selection::Selection;
use super::snapshot::Snapshot;
use super::{HubError, ModelKind, RepoPath};

/// A folder that the hub's own programs download into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubCache {
    path: PathBuf,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// The name for `--model`.
    pub name: String,
    pub kind: ModelKind,
    pub bytes: u64,
    /// The model's folder or file.
    pub path: PathBuf,
    /// What it lacks, if it is not complete.
    pub problem: Option<String>,
}

impl CachedModel {
    /// The form of the model as people call it.
    pub fn form(&self) -> String {
        self.kind.form_of(&self.path.to_string_lossy())
    }
}

/// How many models of one version are listed.
const MAX_LISTED: usize = 20;

impl HubCache {
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The cache of this user, where the hub's own programs look for it. It need not exist.
    pub fn of_this_user() -> Option<Self> {
        let home = directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned());
        let named = |name: &str| {
            let path = PathBuf::from(env::var_os(name).filter(|path| !path.is_empty())?);
            // Those programs are written in Python and read the tilde themselves.
            match (path.strip_prefix("~"), &home) {
                (Ok(inner), Some(home)) => Some(home.join(inner)),
                _ => Some(path),
            }
        };
        let path = named("HF_HUB_CACHE")
            .or_else(|| named("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(named("HF_HOME")?.join("hub")))
            .or_else(|| Some(named("XDG_CACHE_HOME")?.join("huggingface/hub")))
            .or_else(|| Some(home.clone()?.join(".cache/huggingface/hub")))?;
        Some(Self::at(path))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The Stable Diffusion models, as far as names and configurations tell, sorted by name. Caches hold models of all
    /// kinds.
    pub fn list(&self) -> Vec<CachedModel> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().filter_map(Result::ok);
        let mut models: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (org, name) = name.strip_prefix("models--")?.split_once("--")?;
                Repository::parse(&format!("{org}/{name}"))
            })
            .flat_map(|repository| self.versions(&repository))
            .flat_map(|(repository, folder)| self.models_in(&repository, &folder))
            .collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        models
    }

    /// The model with this full name. Fails if it is there and not complete.
    pub fn find(&self, name: &str) -> Result<Option<CachedModel>, HubError> {
        let (repository, path) = match ModelRef::parse_name(name) {
            Ok(ModelRef::Repository(repository)) => (repository, None),
            Ok(ModelRef::Path(repository, path)) => (repository, Some(path)),
            Ok(ModelRef::Url(_)) | Err(_) => return Ok(None),
        };
        let Some(folder) = self.version(&repository) else { return Ok(None) };
        let snapshot = Snapshot::read(&folder);
        let model = match select(&snapshot, &repository, path.as_ref()) {
            Ok(mut selection) => model(&snapshot, &repository, &mut selection),
            // Part of a repository is usual here. The caller says that there is no such model.
            Err(_) if path.as_ref().is_some_and(|path| !snapshot.has_folder(path)) => return Ok(None),
            Err(error) if error.is_usage() => return Err(error),
            Err(error) => match snapshot.why_incomplete(&error, &self.folder(&repository), path.as_ref()) {
                Some(problem) => incomplete(&repository, path.as_ref(), &folder, &snapshot, problem),
                None => return Ok(None),
            },
        };
        match model.problem {
            Some(problem) => Err(HubError::IncompleteCache { name: model.name, path: model.path, problem }),
            None => Ok(Some(model)),
        }
    }

    fn folder(&self, repository: &Repository) -> PathBuf {
        self.path.join(format!("models--{}--{}", repository.org, repository.name))
    }

    /// The folder of the repository's revision: what its reference names, or the commit of that name.
    fn version(&self, repository: &Repository) -> Option<PathBuf> {
        let folder = self.folder(repository);
        let revision = repository.revision();
        let commit = fs::read_to_string(folder.join("refs").join(revision)).ok();
        let commit = commit.as_deref().map_or(revision, str::trim);
        let is_commit =
            !commit.is_empty() && commit.len() <= 64 && commit.chars().all(|c| c.is_ascii_hexdigit());
        let snapshot = folder.join("snapshots").join(commit);
        (is_commit && snapshot.is_dir()).then_some(snapshot)
    }

    /// All versions of a repository that have a name, with their folders. Without any reference, each commit is one.
    fn versions(&self, repository: &Repository) -> Vec<(Repository, PathBuf)> {
        let folder = self.folder(repository);
        let mut names = Vec::new();
        references(&folder.join("refs"), "", &mut names, 3);
        if names.is_empty() {
            names.extend(file_names(&folder.join("snapshots")));
        }
        let versions = names.into_iter().filter_map(|name| {
            let revision = Some(name).filter(|name| name != MAIN);
            let version = Repository { revision, ..repository.clone() };
            // Read again: a name from the disk may have any form.
            let version = Repository::parse(&version.to_string())?;
            Some((version.clone(), self.version(&version)?))
        });
        versions.collect()
    }

    /// The models in a version of a repository.
    fn models_in(&self, repository: &Repository, folder: &Path) -> Vec<CachedModel> {
        let snapshot = Snapshot::read(folder);
        let selections = match select(&snapshot, repository, None) {
            Ok(selection) => vec![selection],
            Err(error) => {
                let paths = Selection::candidates(&snapshot.tree, &repository.to_string());
                if paths.is_empty() {
                    let problem = snapshot.why_incomplete(&error, &self.folder(repository), None);
                    let is_ours = snapshot.tree.keys().any(|path| path.file_name() == "model_index.json");
                    let problem = problem.filter(|_| {
                        is_ours && !snapshot.is_other_family(&Selection::configs(&snapshot.tree))
                    });
                    return problem
                        .map(|problem| incomplete(repository, None, folder, &snapshot, problem))
                        .into_iter()
                        .collect();
                }
                let selected = paths.iter().filter_map(|path| select(&snapshot, repository, Some(path)).ok());
                selected.take(MAX_LISTED).collect()
            }
        };
        // Models of other kinds, such as those of transformers, have a configuration at the top.
        let is_of_other_kind = |selection: &Selection| match &selection.checkpoint {
            Some(file) => {
                snapshot.tree.contains_key("config.json")
                    || !(file.has_extension("safetensors") || file.has_extension("ckpt"))
            }
            None => snapshot.is_other_family(selection),
        };
        let usable = selections.into_iter().filter(|selection| !is_of_other_kind(selection));
        usable.map(|mut selection| model(&snapshot, repository, &mut selection)).collect()
    }
}

fn select(
    snapshot: &Snapshot,
    repository: &Repository,
    path: Option<&RepoPath>,
) -> Result<Selection, HubError> {
    let name = repository.to_string();
    match path {
        Some(path) => Selection::at(&snapshot.tree, &name, path),
        None => Selection::from_tree(&snapshot.tree, &name),
    }
}

fn model(snapshot: &Snapshot, repository: &Repository, selection: &mut Selection) -> CachedModel {
    let problem = snapshot.problem(selection);
    let inner = selection.checkpoint.as_ref().or(selection.folder.as_ref());
    let name = inner.map_or_else(|| repository.to_string(), |inner| format!("{repository}:{inner}"));
    let (bytes, path) = (snapshot.bytes(selection), snapshot.path(selection));
    CachedModel { name, kind: selection.kind, bytes, path, problem }
}

/// A model folder in the version at `top`: the one at `inner`, if it is not the top.
fn incomplete(
    repository: &Repository,
    inner: Option<&RepoPath>,
    top: &Path,
    snapshot: &Snapshot,
    problem: String,
) -> CachedModel {
    let belongs =
        |path: &RepoPath| inner.is_none_or(|inner| Path::new(path.as_str()).starts_with(inner.as_str()));
    let bytes = snapshot.tree.iter().filter(|(path, _)| belongs(path)).map(|(_, file)| file.size).sum();
    let name = inner.map_or_else(|| repository.to_string(), |inner| format!("{repository}:{inner}"));
    let path = inner.map_or_else(|| top.to_owned(), |inner| inner.under(top));
    CachedModel { name, kind: ModelKind::Diffusers, bytes, path, problem: Some(problem) }
}

/// The names of the references under `folder`: a name with slashes is a file in folders.
fn references(folder: &Path, prefix: &str, names: &mut Vec<String>, depth: usize) {
    for name in file_names(folder) {
        let path = folder.join(OsStr::new(&name));
        if path.is_dir() && depth > 0 {
            references(&path, &format!("{prefix}{name}/"), names, depth - 1);
        } else {
            names.push(format!("{prefix}{name}"));
        }
    }
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

#[cfg(test)]
#[cfg(unix)]
mod tests;
