//! One version of a repository in the cache of the hub's own programs: a folder with the names of the files, which are
//! links to their contents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::api::{Tree, TreeFile};
use super::selection::Selection;
use super::{HubError, ModelKind, RepoPath};
use crate::domain::{ModelFamily, ModelIndex, UNetConditioning};

/// The files of a version, and those whose content is not there.
pub struct Snapshot {
    folder: PathBuf,
    pub tree: Tree,
    missing: BTreeSet<RepoPath>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

const MAX_FILES: usize = 20_000;
const MAX_DEPTH: usize = 8;
/// The limit for files that are read: indexes and configurations.
const MAX_TEXT: u64 = 16 << 20;

impl Snapshot {
    /// Lists the files under `folder`. What cannot be read is left out.
    pub fn read(folder: &Path) -> Self {
        let mut snapshot = Self { folder: folder.to_owned(), tree: Tree::new(), missing: BTreeSet::new() };
        snapshot.add(folder, "", MAX_DEPTH);
        snapshot
    }

    fn add(&mut self, folder: &Path, prefix: &str, depth: usize) {
        for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else { continue };
            let Ok(path) = format!("{prefix}{name}").parse::<RepoPath>() else { continue };
            if self.tree.len() >= MAX_FILES {
                return;
            }
            if kind.is_dir() && depth > 0 {
                self.add(&entry.path(), &format!("{path}/"), depth - 1);
                continue;
            }
            let size = fs::metadata(entry.path()).ok().filter(Metadata::is_file).map(|file| file.len());
            if size.is_none() {
                if !kind.is_symlink() {
                    continue;
                }
                self.missing.insert(path.clone());
            }
            self.tree.insert(path, TreeFile { size: size.unwrap_or(0), checksum: None });
        }
    }

    /// The path of a selected model: its folder or its file.
    pub fn path(&self, selection: &Selection) -> PathBuf {
        let inner = selection.checkpoint.as_ref().or(selection.folder.as_ref());
        inner.map_or_else(|| self.folder.clone(), |inner| inner.under(&self.folder))
    }

    pub fn bytes(&self, selection: &Selection) -> u64 {
        let belongs = |path: &RepoPath| match (selection.kind, &selection.folder) {
            (ModelKind::File, _) => selection.files.contains(path),
            (_, Some(folder)) => Path::new(path.as_str()).starts_with(folder.as_str()),
            (_, None) => true,
        };
        self.tree.iter().filter(|(path, _)| belongs(path)).map(|(_, file)| file.size).sum()
    }

    /// What a selected model lacks, if it lacks something.
    pub fn problem(&self, selection: &mut Selection) -> Option<String> {
        for index in std::mem::take(&mut selection.indexes) {
            let Some(list) = self.json::<ShardIndex>(&index) else {
                return Some(format!("{index} cannot be read"));
            };
            let shards = list.weight_map.values().map(String::as_str);
            if let Err(error) = selection.add_shards(&index, shards, &self.tree) {
                return Some(error.to_string());
            }
        }
        let folder = selection.folder.as_ref().map(RepoPath::as_str).unwrap_or_default();
        let is_needed = |path: &&RepoPath| {
            let is_other_weight = selection.kind != ModelKind::File
                && path.is_weights()
                && Path::new(path.as_str()).starts_with(folder);
            selection.files.contains(*path) || is_other_weight
        };
        let missing = self.missing.iter().find(is_needed)?;
        Some(format!("the content of {missing} is missing"))
    }

    /// Whether the configurations of a selected folder say that it is a model of another family.
    pub fn is_other_family(&self, selection: &Selection) -> bool {
        let find = |name: &str| {
            let is_it = |path: &&RepoPath| selection.local(path).is_ok_and(|local| local.as_str() == name);
            selection.files.iter().find(is_it)
        };
        let index = find("model_index.json").and_then(|path| self.json::<ModelIndex>(path));
        let unet = find("unet/config.json").and_then(|path| self.json::<UNetConditioning>(path));
        let (index, unet) = (index.unwrap_or_default(), unet.unwrap_or_default());
        selection.kind != ModelKind::File && ModelFamily::other_by_configs(&index, &unet, false).is_some()
    }

    /// Whether there are files in a folder.
    pub fn has_folder(&self, folder: &RepoPath) -> bool {
        self.tree.keys().any(|path| path != folder && Path::new(path.as_str()).starts_with(folder.as_str()))
    }

    /// The error that a selection from its files, or from those in `folder`, gives, and what is known about its cause.
    pub fn why_incomplete(
        &self,
        error: &HubError,
        repository: &Path,
        folder: Option<&RepoPath>,
    ) -> Option<String> {
        let folder = folder.map(RepoPath::as_str).unwrap_or_default();
        let mut below = self.tree.keys().filter(|path| Path::new(path.as_str()).starts_with(folder));
        let has_index = below.any(|path| path.file_name() == "model_index.json");
        let blobs = fs::read_dir(repository.join("blobs")).into_iter().flatten().filter_map(Result::ok);
        let is_cut_off = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().ends_with(".incomplete");
        match blobs.into_iter().any(|entry| is_cut_off(&entry)) {
            true => Some("a download was interrupted".to_owned()),
            false => has_index.then(|| error.to_string()),
        }
    }

    fn json<T: DeserializeOwned>(&self, path: &RepoPath) -> Option<T> {
        let mut text = Vec::new();
        File::open(path.under(&self.folder)).ok()?.take(MAX_TEXT).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }
}
