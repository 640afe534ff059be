//! What kinds of models a repository holds, judged by the names of its files.
//!
//! Repositories mix everything: model folders, checkpoints in one or several precisions, pickles beside or instead of
//! .safetensors files, VAEs and sub-folders. Where the names leave one model, it is taken. Otherwise the operator chooses.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::api::Tree;
use super::selection::Selection;
use super::{HubError, ModelKind, RepoPath, layouts};

/// What may lie beside a checkpoint `NAME.…`: at most one VAE, in the order in which it is looked for there.
const VAES_BESIDE: [&str; 5] = [".vae.safetensors", ".vae.ckpt", ".vae.pt", ".vae.bin", ".vae.pth"];
const CHECKER_BESIDE: &str = ".safety_checker.safetensors";
const CONFIG_BESIDE: &str = ".yaml";
/// A larger file with a configuration's name is something else.
const MAX_CONFIG: u64 = 1 << 20;
/// How many models an error names.
const MAX_NAMED: usize = 10;

/// The files of a repository, or of one of its folders.
pub struct Listing<'a> {
    tree: &'a Tree,
    /// The name of the repository.
    name: &'a str,
    /// The folder with a slash at the end; empty at the top.
    pub folder: String,
    /// All folders of the repository that hold a whole model.
    model_folders: Rc<BTreeSet<&'a str>>,
}

/// A model that can be named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Candidate {
    Folder(RepoPath),
    File(RepoPath),
}

impl<'a> Listing<'a> {
    pub fn new(tree: &'a Tree, name: &'a str) -> Self {
        let model_folders = tree.keys().filter_map(|path| {
            if path.file_name() == layouts::INDEX {
                return Some(path.folder().unwrap_or_default());
            }
            let folder = path.folder().filter(|_| path.is_weights() || path.has_extension("onnx"))?;
            if folder == "unet" { Some("") } else { folder.strip_suffix("/unet") }
        });
        Self { tree, name, folder: String::new(), model_folders: Rc::new(model_folders.collect()) }
    }

    /// The files in a folder of the repository.
    pub fn below(&self, folder: &RepoPath) -> Self {
        Self {
            tree: self.tree,
            name: self.name,
            folder: format!("{folder}/"),
            model_folders: Rc::clone(&self.model_folders),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.paths().next().is_none()
    }

    /// The model that is here, if the names leave no choice.
    pub fn model(&self) -> Result<Selection, HubError> {
        if self.in_folder("unet").any(is_safetensors) {
            return self.diffusers();
        }
        if self.in_folder("unet").any(|path| path.has_extension("onnx")) {
            return self.onnx();
        }
        let at_the_top: Vec<_> = self.checkpoints().filter(|path| self.is_at_the_top(path)).collect();
        if let [only] = at_the_top[..] {
            return Ok(self.checkpoint(only));
        }
        if at_the_top.is_empty() && self.in_folder("unet").any(RepoPath::is_pickle) {
            return self.diffusers();
        }
        match &self.candidates()[..] {
            [Candidate::File(only)] => Ok(self.checkpoint(only)),
            [Candidate::Folder(only)] => self.below(only).model(),
            // The error then names the part without weights.
            [] if self.find(&format!("{}{}", self.folder, layouts::INDEX)).is_some() => self.diffusers(),
            [] => Err(HubError::Refused(format!(
                "{} has no .safetensors file, no .ckpt file and no folder unet with weights or ONNX files",
                self.shown()
            ))),
            _ => {
                Err(HubError::Reference(format!("{} has more than one model{}", self.shown(), self.choice())))
            }
        }
    }

    /// A checkpoint, with the VAE, the safety checker and the configuration beside it.
    pub fn checkpoint(&self, path: &RepoPath) -> Selection {
        let stem = path.without_extension();
        let beside = |suffix: &str| self.find(&format!("{stem}{suffix}"));
        let vae = VAES_BESIDE.iter().find_map(|suffix| beside(suffix));
        let config = beside(CONFIG_BESIDE).filter(|path| self.tree[*path].size <= MAX_CONFIG);
        let others = vae.into_iter().chain(beside(CHECKER_BESIDE)).chain(config);
        Selection {
            kind: ModelKind::File,
            folder: None,
            checkpoint: Some(path.clone()),
            files: others.chain([path]).cloned().collect(),
            indexes: Vec::new(),
        }
    }

    /// The paths of all models that can be named.
    pub fn candidate_paths(&self) -> Vec<RepoPath> {
        self.candidates().iter().map(|candidate| candidate.path().clone()).collect()
    }

    /// The end of an error sentence: the models that can be named.
    pub fn choice(&self) -> String {
        let found = self.candidates();
        let mut names: Vec<_> =
            found.iter().take(MAX_NAMED).map(|candidate| self.typed(candidate.path())).collect();
        if found.len() > MAX_NAMED {
            names.push(format!("and {} more", found.len() - MAX_NAMED));
        }
        match names.is_empty() {
            true => String::new(),
            false => format!("; name one: {}", names.join(", ")),
        }
    }

    /// The name of a file or folder as a person types it: in quotation marks if a shell would split it.
    fn typed(&self, path: &RepoPath) -> String {
        let name = format!("{}:{path}", self.name);
        let is_plain = name.chars().all(|c| c.is_alphanumeric() || "/:@._+-=,".contains(c));
        if is_plain { name } else { format!("'{}'", name.replace('\'', r"'\''")) }
    }

    /// The repository, or its folder.
    pub fn shown(&self) -> String {
        match self.folder.trim_end_matches('/') {
            "" => self.name.to_owned(),
            folder => format!("{}:{folder}", self.name),
        }
    }

    fn paths(&self) -> impl Iterator<Item = &'a RepoPath> {
        self.tree.keys().filter(|path| path.as_str().starts_with(&self.folder))
    }

    /// The files directly in a folder. Hidden files are left out, and those whose names cannot be given on the command
    /// line.
    pub fn in_folder(&self, folder: &str) -> impl Iterator<Item = &'a RepoPath> {
        let folder = format!("{}{folder}", self.folder);
        let is_there = move |path: &&RepoPath| path.folder() == Some(&folder) && can_be_named(path);
        self.tree.keys().filter(is_there)
    }

    pub fn find(&self, path: &str) -> Option<&'a RepoPath> {
        Some(self.tree.get_key_value(path)?.0)
    }

    fn is_at_the_top(&self, path: &RepoPath) -> bool {
        path.folder().unwrap_or_default() == self.folder.trim_end_matches('/')
    }

    /// Whether the file is a part of a model folder.
    fn is_part(&self, path: &RepoPath) -> bool {
        let mut folder = path.folder();
        while let Some(inner) = folder {
            let (outer, name) = inner.rsplit_once('/').unwrap_or(("", inner));
            if layouts::is_part(name) && self.model_folders.contains(outer) {
                return true;
            }
            folder = Some(outer).filter(|outer| !outer.is_empty());
        }
        false
    }

    /// The one-file models, at the top and below.
    fn checkpoints(&self) -> impl Iterator<Item = &'a RepoPath> {
        self.paths().filter(|path| is_safetensors(path) && can_be_named(path) && !self.lies_beside(path))
    }

    /// Whether the file is the VAE or the safety checker of a checkpoint beside it.
    fn lies_beside(&self, path: &RepoPath) -> bool {
        let mut suffixes = VAES_BESIDE.into_iter().chain([CHECKER_BESIDE]);
        let stem = suffixes.find_map(|suffix| path.as_str().strip_suffix(suffix));
        stem.is_some_and(|stem| {
            ["safetensors", "ckpt", "pt", "bin", "pth"]
                .iter()
                .any(|extension| self.find(&format!("{stem}.{extension}")).is_some())
        })
    }

    /// All models that can be named. Pickles count only where there is nothing else of that name, and other pickles than
    /// checkpoints (`.ckpt`) only where there is nothing else at all.
    fn candidates(&self) -> Vec<Candidate> {
        let here = self.folder.trim_end_matches('/');
        let below = |folder: &&str| *folder != here && format!("{folder}/").starts_with(&self.folder);
        let folders = self.model_folders.iter().copied().filter(below);
        let folders = folders.filter_map(|folder| folder.parse().ok()).map(Candidate::Folder);
        let is_alone = |path: &&RepoPath| {
            !["safetensors", "fp16.safetensors"]
                .iter()
                .any(|other| self.find(&format!("{}.{other}", path.without_extension())).is_some())
        };
        let usable = |path: &&RepoPath| can_be_named(path) && !self.is_part(path) && !self.lies_beside(path);
        let ckpts = self.paths().filter(|path| path.has_extension("ckpt")).filter(usable).filter(is_alone);
        let files = self.checkpoints().filter(|path| !self.is_part(path)).chain(ckpts);
        let mut found: Vec<_> = folders.chain(files.cloned().map(Candidate::File)).collect();
        if found.is_empty() {
            let pickles = self.paths().filter(|path| path.is_pickle()).filter(usable);
            found = pickles.cloned().map(Candidate::File).collect();
        }
        // What is at the top comes first.
        found.sort_by_key(|candidate| (candidate.path().as_str().matches('/').count(), candidate.clone()));
        found
    }
}

impl Candidate {
    fn path(&self) -> &RepoPath {
        match self {
            Self::Folder(path) | Self::File(path) => path,
        }
    }
}

fn is_safetensors(path: &RepoPath) -> bool {
    path.has_extension("safetensors")
}

/// Whether the command line can name the file: it is not hidden, and it has no second colon.
fn can_be_named(path: &RepoPath) -> bool {
    !path.as_str().contains(':') && !path.file_name().starts_with('.')
}
