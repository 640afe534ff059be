//! A ControlNet's file: what it is, and its weights for a model.
//!
//! There are two forms: the weights themselves, and ("difference") what is to be added to those of the UNet that the
//! ControlNet began as. Other things that people call ControlNets are refused by what they are.

use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;

use super::controlnet_folder::CONFIG;
use super::original_names::unwrapped;
use super::{AddOnFile, FileError, Originals, Parameters as _, PartFiles, TensorFile, Weights, lora_kind};
use crate::domain::{ControlNetConfig, ModelFamily};

/// The largest configuration that is read, in bytes.
const LONGEST_CONFIG: u64 = 64 << 10;
/// Marks a file of differences. The tensor is empty.
const DIFFERENCE: &str = "difference";
/// What the last layer is called: the original's name and diffusers'.
const LAST_LAYERS: [&str; 2] = ["middle_block_out.0.weight", "controlnet_mid_block.weight"];
/// Other things, by the beginning of a tensor's name or of a module in it.
const FOREIGN: [(&str, &str); 11] = [
    ("lora_controlnet", "a Control-LoRA, which holds too little of a ControlNet: use the whole ControlNet"),
    ("lllite_", "a ControlNet-LLLite, which only Stable Diffusion XL has"),
    ("ip_adapter.", "an IP-Adapter, not a ControlNet"),
    ("image_proj.", "an IP-Adapter, not a ControlNet"),
    ("adapter.body.", "a T2I-Adapter, not a ControlNet"),
    ("body.0.", "a T2I-Adapter, not a ControlNet"),
    ("controlnet_x_embedder.", "a ControlNet for FLUX"),
    ("controlnet_blocks.", "a ControlNet for FLUX or Stable Diffusion 3"),
    ("add_embedding.", "a ControlNet for Stable Diffusion XL"),
    ("label_emb.", "a ControlNet for Stable Diffusion XL"),
    ("motion_modules.", "a ControlNet for videos (AnimateDiff)"),
];

/// Why a ControlNet cannot be used with a model.
#[derive(Debug, Clone, thiserror::Error)]
#[error("The ControlNet {name} cannot be used: {reason}.")]
pub struct ControlNetError {
    pub name: String,
    /// The end of a sentence that begins with "cannot be used:".
    pub reason: String,
}

/// A ControlNet, opened and checked against a model.
pub struct ControlNetFile {
    name: String,
    files: PartFiles,
    /// The UNet whose weights its own are to be added to.
    base: Option<PartFiles>,
    averages: bool,
}

impl ControlNetFile {
    /// Opens it for the model with this UNet. Reads names and shapes, and no weights.
    pub fn open(file: &AddOnFile, unet: &PartFiles) -> Result<Self, ControlNetError> {
        let refuse = |reason: String| ControlNetError { name: file.name.clone(), reason };
        let config = read_config(&file.path.with_file_name(CONFIG)).map_err(refuse)?;
        let opened = Arc::new(TensorFile::open(&file.path).map_err(|error| refuse(flat(&error)))?);
        let names: Vec<String> =
            opened.tensor_names().iter().map(|name| unwrapped(name).into_owned()).collect();
        if let Some(what) = foreign(&opened, &names) {
            return Err(refuse(format!("it is {what}")));
        }
        let is_difference = names.iter().any(|name| name == DIFFERENCE);
        let files = unet.controlnet(opened).and_then(|files| {
            let files = files.ok_or_else(|| {
                FileError::Graph("the model's weights are inside its own graphs".to_owned())
            })?;
            files.check_weights().map(|()| files)
        });
        let files = files.map_err(|error| refuse(flat(&error)))?;
        // A1111 knows it by a file beside it, and people by its name.
        let is_shuffle = file.stem().to_ascii_lowercase().contains("shuffle");
        let averages = config.map_or(is_shuffle, |config| config.global_pool_conditions);
        Ok(Self { name: file.name.clone(), files, base: is_difference.then(|| unet.clone()), averages })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn files(&self) -> &PartFiles {
        &self.files
    }

    /// Whether each channel of what it gives is averaged over the picture, and only the prompt's side gets it
    /// (`global_pool_conditions` in diffusers, as the shuffle ControlNet has it).
    pub fn averages(&self) -> bool {
        self.averages
    }

    /// Adds the UNet's weights to those that are differences.
    pub fn complete(&self, weights: &mut Weights) -> Result<(), ControlNetError> {
        let Some(base) = &self.base else { return Ok(()) };
        let names: Vec<String> = weights.names().map(str::to_owned).collect();
        let refuse = |reason: String| ControlNetError { name: self.name.clone(), reason };
        for name in names {
            let Ok(Some(mut values)) = base.values(&name) else { continue };
            let mut originals = Originals { weights, files: &self.files };
            let differences = originals.values(&name).map_err(refuse)?;
            if differences.len() != values.len() {
                return Err(refuse(format!(
                    "it holds differences, and {name} of this model has another size"
                )));
            }
            for (value, difference) in values.iter_mut().zip(differences) {
                *value += difference;
            }
            originals.replace(&name, &values).map_err(refuse)?;
        }
        Ok(())
    }
}

/// What the file is instead of a ControlNet for Stable Diffusion v1: the end of "it is …".
fn foreign(file: &TensorFile, names: &[String]) -> Option<String> {
    let has =
        |mark: &str| names.iter().any(|name| name.starts_with(mark) || name.contains(&format!(".{mark}")));
    if let Some((_, what)) = FOREIGN.iter().find(|(mark, _)| has(mark)) {
        return Some((*what).to_owned());
    }
    if let Some(family) = names.iter().find_map(|name| ModelFamily::from_checkpoint_tensor(name)) {
        return Some(format!("for {family}"));
    }
    if !LAST_LAYERS.iter().any(|layer| has(layer)) {
        return Some(lora_kind(names).unwrap_or_else(|| {
            "no ControlNet: it has neither middle_block_out nor controlnet_mid_block".to_owned()
        }));
    }
    let reads_text = |name: &&String| name.ends_with("attn2.to_k.weight");
    let width = names.iter().find(reads_text).and_then(|name| file.shape(name)?.get(1).copied());
    let family = width.and_then(ModelFamily::from_embedding_width)?;
    (family != ModelFamily::StableDiffusion1).then(|| format!("a ControlNet for {family}"))
}

/// The configuration beside the weights, if there is one. The error is the end of a sentence.
fn read_config(path: &Path) -> Result<Option<ControlNetConfig>, String> {
    // Opening anything but a regular file may never return.
    let Some(metadata) = path.metadata().ok().filter(Metadata::is_file) else { return Ok(None) };
    if metadata.len() > LONGEST_CONFIG {
        return Err(format!("its {CONFIG} has {} bytes; at most {LONGEST_CONFIG} are read", metadata.len()));
    }
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("its {CONFIG} cannot be read: {error}"))?;
    let config: ControlNetConfig =
        serde_json::from_str(&text).map_err(|error| format!("its {CONFIG} cannot be read: {error}"))?;
    config.fault().map_or(Ok(Some(config)), Err)
}

/// An error as the end of a sentence.
fn flat(error: &FileError) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use safetensors::tensor::{Dtype, TensorView};

    use super::*;
    use crate::diffusion::files::ModelPlace;
    use crate::domain::ModelPart;

    fn open(path: PathBuf) -> Result<ControlNetFile, ControlNetError> {
        let parts = PartFiles::find_all(&ModelPlace::Embedded).unwrap();
        let file = AddOnFile { name: "it".to_owned(), path, modified: None, bytes: 0 };
        ControlNetFile::open(&file, &parts[&ModelPart::UNet])
    }

    #[test]
    fn what_is_no_controlnet_of_stable_diffusion_1_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = [0; 4 * 1024];
        for (tensors, reason) in [
            (&[("lora_controlnet", vec![1])][..], "a Control-LoRA"),
            (&[("body.0.in_conv.weight", vec![1])], "a T2I-Adapter"),
            (&[("controlnet_x_embedder.weight", vec![1])], "for FLUX"),
            (&[("control_model.label_emb.0.0.weight", vec![1])], "for Stable Diffusion XL"),
            (&[("model.diffusion_model.out.2.bias", vec![4])], "it is no ControlNet"),
            (
                &[
                    ("control_model.middle_block_out.0.weight", vec![1]),
                    ("control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight", vec![1, 1024]),
                ],
                "a ControlNet for Stable Diffusion 2",
            ),
            (&[("control_model.middle_block_out.0.weight", vec![1])], "has no tensor"),
        ] {
            let view = |shape: &Vec<usize>| {
                let length = 4 * shape.iter().product::<usize>();
                TensorView::new(Dtype::F32, shape.clone(), &bytes[..length]).unwrap()
            };
            let path = dir.path().join("it.safetensors");
            let views = tensors.iter().map(|(name, shape)| ((*name).to_owned(), view(shape)));
            safetensors::serialize_to_file(views, None, &path).unwrap();
            let error = open(path).err().unwrap().to_string();
            assert!(
                error.contains(reason) && error.starts_with("The ControlNet it cannot be used: "),
                "{error}"
            );
        }
    }

    #[test]
    fn a_configuration_of_another_class_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"_class_name": "FluxControlNetModel"}"#).unwrap();
        let error = open(dir.path().join("diffusion_pytorch_model.safetensors")).err().unwrap().to_string();
        assert!(error.contains("it is a FluxControlNetModel according to its config.json"), "{error}");
    }
}
