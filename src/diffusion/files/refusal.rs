//! Why something that people have is no model that works here, told by its name and reason.
//!
//! Looks at file names and config files alone, so that a refusal comes before gigabytes are read.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::ModelFolder;
use super::model_files::{has_extension, onnx_files};
use crate::diffusion::nets::ModelError;

#[derive(Deserialize, Default)]
struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
}

#[derive(Deserialize, Default)]
struct UNetConfig {
    cross_attention_dim: Option<Value>,
    addition_embed_type: Option<String>,
}

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
    if folder.has("unet") {
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

/// The family that the folder's config files name, unless it is Stable Diffusion v1.
fn family(path: &Path, folder: &ModelFolder) -> Result<Option<String>, ModelError> {
    let index: ModelIndex = folder.config("model_index.json")?.unwrap_or_default();
    let unet: UNetConfig = folder.config("unet/config.json")?.unwrap_or_default();
    let class = index.class_name.unwrap_or_else(|| "StableDiffusionPipeline".to_owned());
    let width = unet.cross_attention_dim.as_ref().and_then(Value::as_i64);
    Ok(if class.contains("XL") {
        Some(format!("a Stable Diffusion XL model ({class} in model_index.json)"))
    } else if path.join("text_encoder_2").exists() || unet.addition_embed_type.as_deref() == Some("text_time")
    {
        Some("a Stable Diffusion XL model (it has two text encoders)".to_owned())
    } else if class.contains("StableDiffusion3") || !class.contains("StableDiffusion") {
        Some(format!("a {class} by its model_index.json"))
    } else {
        width.and_then(family_of_width).map(str::to_owned)
    })
}

/// The family of a UNet that reads embeddings of this width, where it is another one.
pub(in crate::diffusion) fn family_of_width(cross_attention_dim: i64) -> Option<&'static str> {
    match cross_attention_dim {
        1024 => Some("a Stable Diffusion 2 model (its cross_attention_dim is 1024)"),
        2048 => Some("a Stable Diffusion XL model (its cross_attention_dim is 2048)"),
        _ => None,
    }
}

/// Whether a folder holds weights as `PyTorch` alone keeps them, and no others.
fn has_pickles(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let any = |extension: &str| names.iter().any(|name| has_extension(name, extension));
    any("bin") && !any("safetensors")
}
