//! Why something that people have is not a model that works here, with its name and a remedy.
//!
//! Looks at file names and configurations alone, so that a refusal comes before gigabytes are read.

use std::path::Path;

use super::model_place::checkpoints_in;
use super::onnx_folder::{onnx_files, onnx_graph};
use super::shards::weight_files;
use super::{ModelConfigs, ModelPlace};

const EXPORT: &str =
    "`optimum-cli export onnx --model FOLDER OUT` (from the Python package optimum-onnx) makes one";

/// How many files a sentence names.
const MOST_NAMES: usize = 5;

/// Why the model cannot be used, if it is a kind that is known not to work.
pub(super) fn reason_for_folder(place: &ModelPlace, configs: &ModelConfigs) -> Option<String> {
    if let Some(family) = &configs.other_family {
        return Some(format!("it is {family}, and stablehand draws with Stable Diffusion v1 models"));
    }
    let ModelPlace::Folder(path) = place else { return None };
    let checkpoints = checkpoints_in(path);
    if let ([_, _, ..], false) = (checkpoints.as_slice(), path.join("unet").exists()) {
        let (some, all) = (&checkpoints[..checkpoints.len().min(MOST_NAMES)], checkpoints.len());
        return Some(format!("it holds {all} checkpoints ({}): name one of them", some.join(", ")));
    }
    let unet = path.join("unet");
    let has_unet = !weight_files(&unet).is_empty() || onnx_graph(&unet).is_some();
    if !has_unet && !onnx_files(path).is_empty() {
        return Some(format!(
            "its ONNX files lie flat in one folder, as in builds for browsers and phones, which mostly have one \
             fixed size; stablehand needs the subfolders text_encoder, unet and vae_decoder: {EXPORT}"
        ));
    }
    if !path.join("tokenizer").is_dir() {
        return Some("it has no folder tokenizer".to_owned());
    }
    None
}

/// Why a file that has not the name of a file of weights cannot be used.
pub(super) fn reason_for_file(path: &Path) -> String {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("gguf") => "it is a GGUF file; use the checkpoint as .safetensors".to_owned(),
        Some("onnx") => "it is one graph of a model; name the folder that holds unet/model.onnx".to_owned(),
        _ => "it is a file, but not one of weights (.safetensors, .ckpt, .pt, .bin or .pth)".to_owned(),
    }
}
