//! The two layouts of a model folder, diffusers' and that of ONNX exports: which of its files are needed.

use std::collections::BTreeSet;

use super::listing::Listing;
use super::selection::Selection;
use super::{HubError, ModelKind, RepoPath};

/// The parts of a folder in diffusers' layout, each with the base names of its weights: as .safetensors, and as pickles.
const COMPONENTS: [(&str, &str, &str); 3] = [
    ("text_encoder", "model", "pytorch_model"),
    ("unet", "diffusion_pytorch_model", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model", "diffusion_pytorch_model"),
];
/// The same of a part that a folder may lack.
const OPTIONAL_COMPONENT: (&str, &str, &str) = ("safety_checker", "model", "pytorch_model");
/// The parts of a folder of ONNX graphs. The first three are required.
const ONNX_PARTS: [&str; 5] = ["text_encoder", "unet", "vae_decoder", "vae_encoder", "safety_checker"];
/// Other folders of a model folder that hold weights.
const OTHER_PARTS: [&str; 5] =
    ["text_encoder_2", "text_encoder_3", "transformer", "image_encoder", "controlnet"];
/// The weights of a ControlNet in a folder, the preferred form first.
const CONTROLNET_WEIGHTS: [&str; 4] = [
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.bin",
    "diffusion_pytorch_model.bin",
];
const CONFIG_FOLDERS: [&str; 3] = ["tokenizer", "scheduler", "feature_extractor"];
/// The file that makes a folder a model of diffusers'.
pub const INDEX: &str = "model_index.json";
const ROOT_CONFIGS: [&str; 2] = [INDEX, "stablehand.json"];
/// Extensions of files that an ONNX model does not need: weights of other frameworks, pictures, texts.
const UNUSED: [&str; 7] = ["safetensors", "msgpack", "h5", "ot", "png", "jpg", "md"];

/// Whether a model folder's inner folder of this name holds a part of the model.
pub fn is_part(name: &str) -> bool {
    COMPONENTS.iter().any(|(component, ..)| *component == name)
        || ONNX_PARTS.contains(&name)
        || OTHER_PARTS.contains(&name)
        || CONFIG_FOLDERS.contains(&name)
}

impl<'a> Listing<'a> {
    /// The configurations of a model folder, without any weights.
    pub fn configs_alone(&self) -> Selection {
        self.in_this_folder(ModelKind::Diffusers, self.configs(), Vec::new())
    }

    /// The configurations, and the graphs that the model brings.
    fn configs(&self) -> BTreeSet<RepoPath> {
        let root = ROOT_CONFIGS.iter().filter_map(|name| self.find(&format!("{}{name}", self.folder)));
        let folders = CONFIG_FOLDERS.iter().flat_map(|folder| self.in_folder(folder));
        let texts = folders.filter(|path| path.has_extension("json") || path.has_extension("txt"));
        let graphs = self.in_folder("graphs").filter(|path| path.has_extension("onnx"));
        root.chain(texts).chain(graphs).cloned().collect()
    }

    fn in_this_folder(
        &self,
        kind: ModelKind,
        files: BTreeSet<RepoPath>,
        indexes: Vec<RepoPath>,
    ) -> Selection {
        let folder = self.folder.trim_end_matches('/').parse().ok();
        Selection { kind, folder, checkpoint: None, files, indexes }
    }

    /// A folder in diffusers' layout.
    pub fn diffusers(&self) -> Result<Selection, HubError> {
        let (mut files, mut indexes) = (self.configs(), Vec::new());
        for part in COMPONENTS.into_iter().chain([OPTIONAL_COMPONENT]) {
            let (component, base, pickle_base) = part;
            let weights = self.weights(component, base, pickle_base);
            if weights.is_none() && part == OPTIONAL_COMPONENT {
                continue;
            }
            let weights = weights.ok_or_else(|| {
                HubError::Refused(format!(
                    "{} has no weights with a usual name for its {component}{}",
                    self.shown(),
                    self.choice()
                ))
            })?;
            if weights.has_extension("json") {
                indexes.push(weights.clone());
            }
            files.insert(weights.clone());
            files.extend(self.find(&format!("{}{component}/config.json", self.folder)).cloned());
        }
        Ok(self.in_this_folder(ModelKind::Diffusers, files, indexes))
    }

    /// A ControlNet in diffusers' layout: one part of a model, alone in its folder. None where there is none.
    pub fn controlnet(&self) -> Option<Selection> {
        let config = self.find(&format!("{}config.json", self.folder))?;
        let weights =
            CONTROLNET_WEIGHTS.iter().find_map(|name| self.find(&format!("{}{name}", self.folder)))?;
        let files = [config, weights].into_iter().cloned().collect();
        Some(self.in_this_folder(ModelKind::ControlNet, files, Vec::new()))
    }

    /// The weights of a part, or the list of their shards: .safetensors files if there are any, else pickles. Half precision
    /// is preferred: it takes half the space, and cards use it anyway.
    fn weights(&self, component: &str, base: &str, pickle_base: &str) -> Option<&'a RepoPath> {
        let forms = |base: &str, extension: &str| {
            [
                format!("{base}.fp16.{extension}"),
                format!("{base}.{extension}.index.fp16.json"),
                format!("{base}.fp16.{extension}.index.json"),
                format!("{base}.{extension}"),
                format!("{base}.{extension}.index.json"),
            ]
        };
        for (extension, base) in [("safetensors", base), ("bin", pickle_base)] {
            let usual = forms(base, extension);
            let found =
                usual.iter().find_map(|name| self.find(&format!("{}{component}/{name}", self.folder)));
            let only = || {
                let mut others = self.in_folder(component).filter(|path| path.has_extension(extension));
                others.next().filter(|_| others.next().is_none())
            };
            if let Some(found) = found.or_else(only) {
                return Some(found);
            }
        }
        None
    }

    /// A folder of ONNX exports.
    pub fn onnx(&self) -> Result<Selection, HubError> {
        let mut files = self.configs();
        for part in ONNX_PARTS {
            let graphs: Vec<_> = self.in_folder(part).filter(|path| path.has_extension("onnx")).collect();
            if graphs.is_empty() && ONNX_PARTS[..3].contains(&part) {
                return Err(HubError::Refused(format!("{} has no {part}/model.onnx", self.shown())));
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
        Ok(self.in_this_folder(ModelKind::Onnx, files, Vec::new()))
    }
}

/// Whether it is another precision of `model.onnx`, or the weights of one.
fn is_variant(name: &str) -> bool {
    let rest = name.strip_prefix("model").unwrap_or_default();
    rest.starts_with(['_', '.', '-']) && (rest.contains(".onnx")) && !rest.starts_with(".onnx")
}
