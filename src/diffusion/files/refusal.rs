//! Why something that people have is no model that works here, told by its name and reason.
//!
//! Looks at file names and config files alone, so that a refusal comes before gigabytes are read.

use std::fs;
use std::path::Path;

use super::ModelFolder;
use super::model_files::{has_extension, onnx_files};
use crate::diffusion::nets::ModelError;
use crate::domain::{ModelFamily, ModelIndex, ModelPart, UNetConditioning};

const PICKLE: &str = "loading one runs whatever code its maker put into it, so stablehand never does; take the same model as .safetensors";
const EXPORT: &str =
    "`optimum-cli export onnx --model FOLDER OUT` (from the Python package optimum-onnx) makes one";

/// The reason why `folder` at `path` cannot be used, if it is a kind of model that is known not to work.
pub(super) fn reason(path: &Path, folder: &ModelFolder) -> Result<Option<String>, ModelError> {
    if path.is_file() {
        return Ok(Some(of_a_file(path)));
    }
    if let Some(family) = family(path, folder)? {
        return Ok(Some(format!("it is {family}, and stablehand draws with Stable Diffusion v1 models")));
    }
    if folder.has(ModelPart::UNet) {
        return Ok(None);
    }
    if has_pickles(&path.join("unet")) {
        return Ok(Some(format!("its weights are pickles: {PICKLE}")));
    }
    if !onnx_files(path).is_empty() {
        return Ok(Some(format!(
            "its ONNX files lie flat in the folder, as builds for browsers and phones do, mostly for one fixed size; it takes subfolders text_encoder, unet and vae_decoder: {EXPORT}"
        )));
    }
    Ok(None)
}

fn of_a_file(path: &Path) -> String {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("ckpt" | "pt" | "pth" | "bin") => format!("it is a pickle: {PICKLE}"),
        Some("gguf") => "it is a GGUF file; take the checkpoint as .safetensors".to_owned(),
        Some("onnx") => "it is one graph of a model; name the folder that holds unet/model.onnx".to_owned(),
        _ => "it is a file, and no .safetensors".to_owned(),
    }
}

/// The other family that the folder's configuration files tell of.
fn family(path: &Path, folder: &ModelFolder) -> Result<Option<String>, ModelError> {
    let index: ModelIndex = folder.config("model_index.json")?.unwrap_or_default();
    let unet: UNetConditioning = folder.config("unet/config.json")?.unwrap_or_default();
    Ok(ModelFamily::other_by_configs(&index, &unet, path.join("text_encoder_2").exists()))
}

/// Whether a folder holds weights as `PyTorch` alone keeps them, and no others.
fn has_pickles(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let any = |extension: &str| names.iter().any(|name| has_extension(name, extension));
    any("bin") && !any("safetensors")
}
