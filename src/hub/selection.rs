//! Which files of a repository are pulled: those that stablehand can use, and each weight only once.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use super::api::Tree;
use super::{HubError, ModelKind, RepoPath};

/// The usable files of a repository.
#[derive(Debug, PartialEq, Eq)]
pub struct Selection {
    pub kind: ModelKind,
    pub files: BTreeSet<RepoPath>,
    /// The lists of shards among the files. Their shards have to be added.
    pub indexes: Vec<RepoPath>,
}

/// The parts of a folder in diffusers' layout, each with the base name of its weights.
const COMPONENTS: [(&str, &str); 3] =
    [("text_encoder", "model"), ("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")];
/// The parts of a folder of ONNX graphs. The first three are required.
const ONNX_PARTS: [&str; 5] = ["text_encoder", "unet", "vae_decoder", "vae_encoder", "safety_checker"];
const CONFIG_FOLDERS: [&str; 3] = ["tokenizer", "scheduler", "feature_extractor"];
const ROOT_CONFIGS: [&str; 2] = ["model_index.json", "stablehand.json"];
/// Extensions of files that an ONNX model does not need: weights of other frameworks, pictures, texts.
const UNUSED: [&str; 7] = ["safetensors", "msgpack", "h5", "ot", "png", "jpg", "md"];

impl Selection {
    /// Selects from `tree`, the files of the repository `name`.
    pub fn from_tree(tree: &Tree, name: &str) -> Result<Self, HubError> {
        let listing = Listing { tree, name };
        if listing.has_weights("unet") {
            return listing.diffusers();
        }
        if listing.in_folder("unet").any(|path| path.has_extension("onnx")) {
            return listing.onnx();
        }
        listing.only_checkpoint()
    }

    /// Selects one file by its name.
    pub fn file(tree: &Tree, name: &str, file: &RepoPath) -> Result<Self, HubError> {
        let listing = Listing { tree, name };
        if file.is_pickle() {
            return Err(pickle(file.file_name()));
        }
        if !file.has_extension("safetensors") {
            return Err(HubError::Reference(format!(
                "{name}:{file} is not a .safetensors file; without :FILE, all usable files of {name} are pulled"
            )));
        }
        if !tree.contains_key(file) {
            return Err(HubError::Refused(format!("{name} has no file {file}{}", listing.candidates())));
        }
        Ok(Self { kind: ModelKind::File, files: [file.clone()].into(), indexes: Vec::new() })
    }

    /// Adds the shards that the list at `index` names.
    pub fn add_shards<'a>(
        &mut self,
        index: &RepoPath,
        names: impl IntoIterator<Item = &'a str>,
        tree: &Tree,
    ) -> Result<(), HubError> {
        let folder = index.split_folder().map_or("", |(folder, _)| folder);
        for name in names {
            let path: Option<RepoPath> = format!("{folder}/{name}").parse().ok();
            let shard = path.filter(|path| {
                !name.contains('/') && path.has_extension("safetensors") && tree.contains_key(path)
            });
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
}

/// The error for a pickle. All pickles are refused, without a look inside.
pub fn pickle(name: &str) -> HubError {
    HubError::Refused(format!(
        "{name} is a pickle, which can run any code when it is read: pull the same model as .safetensors"
    ))
}

struct Listing<'a> {
    tree: &'a Tree,
    name: &'a str,
}

impl<'a> Listing<'a> {
    /// The files directly in `folder`, without hidden ones and names that are invalid on some systems.
    fn in_folder(&self, folder: &str) -> impl Iterator<Item = &'a RepoPath> {
        self.tree.keys().filter(move |path| {
            let name = path.split_folder().filter(|(found, _)| *found == folder).map(|(_, name)| name);
            name.is_some_and(|name| !name.starts_with('.') && !name.contains(['/', ':']))
        })
    }

    fn find(&self, path: &str) -> Option<&'a RepoPath> {
        self.tree.keys().find(|found| found.as_str() == path)
    }

    fn has_weights(&self, component: &str) -> bool {
        self.in_folder(component).any(|path| path.has_extension("safetensors"))
    }

    /// The configurations, and the graphs that the model brings.
    fn configs(&self) -> BTreeSet<RepoPath> {
        let root = ROOT_CONFIGS.iter().filter_map(|name| self.find(name));
        let folders = CONFIG_FOLDERS.iter().flat_map(|folder| self.in_folder(folder));
        let texts = folders.filter(|path| path.has_extension("json") || path.has_extension("txt"));
        let graphs = self.in_folder("graphs").filter(|path| path.has_extension("onnx"));
        root.chain(texts).chain(graphs).cloned().collect()
    }

    fn diffusers(&self) -> Result<Selection, HubError> {
        let mut selection =
            Selection { kind: ModelKind::Diffusers, files: self.configs(), indexes: Vec::new() };
        for (component, base) in COMPONENTS {
            let weights = self.weights(component, base).ok_or_else(|| self.missing_weights(component))?;
            if weights.has_extension("json") {
                selection.indexes.push(weights.clone());
            }
            selection.files.insert(weights.clone());
            selection.files.extend(self.find(&format!("{component}/config.json")).cloned());
        }
        Ok(selection)
    }

    /// The weights of a part, or the list of their shards. Half precision is preferred: it takes half the space, and
    /// cards use it anyway.
    fn weights(&self, component: &str, base: &str) -> Option<&'a RepoPath> {
        let usual = [
            format!("{component}/{base}.fp16.safetensors"),
            format!("{component}/{base}.safetensors.index.fp16.json"),
            format!("{component}/{base}.fp16.safetensors.index.json"),
            format!("{component}/{base}.safetensors"),
            format!("{component}/{base}.safetensors.index.json"),
        ];
        if let Some(found) = usual.iter().find_map(|path| self.find(path)) {
            return Some(found);
        }
        let mut others = self.in_folder(component).filter(|path| path.has_extension("safetensors"));
        others.next().filter(|_| others.next().is_none())
    }

    fn missing_weights(&self, component: &str) -> HubError {
        let name = self.name;
        let reason = match self.in_folder(component).any(RepoPath::is_pickle) {
            true => format!(
                "the weights of its {component} only as pickles, which can run any code when they are read"
            ),
            false => format!("no .safetensors file with a usual name for its {component}"),
        };
        HubError::Refused(format!("{name} has {reason}{}", self.candidates()))
    }

    fn onnx(&self) -> Result<Selection, HubError> {
        let mut files = self.configs();
        for part in ONNX_PARTS {
            let graphs: Vec<_> = self.in_folder(part).filter(|path| path.has_extension("onnx")).collect();
            if graphs.is_empty() && ONNX_PARTS[..3].contains(&part) {
                return Err(HubError::Refused(format!("{} has no {part}/model.onnx", self.name)));
            }
            let usual = graphs.iter().any(|path| path.file_name() == "model.onnx");
            let left_out = |path: &RepoPath| {
                path.is_pickle()
                    || UNUSED.iter().any(|extension| path.has_extension(extension))
                    || usual && is_variant(path.file_name())
            };
            let wanted = self.in_folder(part).filter(|path| !left_out(path));
            files.extend(wanted.cloned());
        }
        Ok(Selection { kind: ModelKind::Onnx, files, indexes: Vec::new() })
    }

    /// The checkpoint of a repository without model folders.
    fn only_checkpoint(&self) -> Result<Selection, HubError> {
        match self.checkpoints()[..] {
            [only] => Selection::file(self.tree, self.name, only),
            [] => {
                let pickles = self.tree.keys().any(RepoPath::is_pickle);
                let reason = match pickles {
                    true => {
                        "only pickles (.ckpt, .bin), which can run any code when they are read: look for the same model as .safetensors"
                    }
                    false => "no .safetensors file and no folder unet with ONNX or .safetensors files",
                };
                Err(HubError::Refused(format!("{} has {reason}", self.name)))
            }
            _ => Err(HubError::Reference(format!(
                "{} has more than one model{}",
                self.name,
                self.candidates()
            ))),
        }
    }

    /// The one-file models at the top of the repository.
    fn checkpoints(&self) -> Vec<&'a RepoPath> {
        let at_the_top = self.tree.keys().filter(|path| path.split_folder().is_none());
        at_the_top.filter(|path| path.has_extension("safetensors") && !path.as_str().contains(':')).collect()
    }

    /// The end of an error sentence: the files that can be named.
    fn candidates(&self) -> String {
        let found = self.checkpoints();
        let mut names: Vec<_> = found.iter().take(5).map(|path| format!("{}:{path}", self.name)).collect();
        if found.len() > names.len() {
            names.push("…".to_owned());
        }
        match names.is_empty() {
            true => String::new(),
            false => format!("; name one file: {}", names.join(", ")),
        }
    }
}

/// Whether it is another precision of `model.onnx`, or the weights of one.
fn is_variant(name: &str) -> bool {
    let rest = name.strip_prefix("model").unwrap_or_default();
    rest.starts_with(['_', '.', '-']) && (rest.contains(".onnx")) && !rest.starts_with(".onnx")
}
