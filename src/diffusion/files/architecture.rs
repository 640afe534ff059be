//! Recognises a checkpoint in one file by its tensors. A file that cannot be used is refused by what it is.

use std::sync::Arc;

use super::original_names::{Depth, unwrapped};
use super::{Checkpoint, TensorFile, lora_kind};
use crate::domain::{ModelFamily, ModelPart};

/// The architectures that there are graphs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    StableDiffusionV1,
    /// The model inside the binary.
    TinySd,
}

const UNET: &str = "model.diffusion_model.";
const UNET_EMA: &str = "model_ema.diffusion_model";

const CONTROLNET: &str = "a ControlNet: put it into --controlnet-dir and name it in the field controlnet";

/// Other things that people have in `.safetensors` files, by a mark at the beginning of a tensor's name or of a module in it.
pub(super) const FOREIGN: [(&str, &str); 3] = [
    ("control_model.", CONTROLNET),
    ("input_hint_block.", CONTROLNET),
    ("emb_params", "a textual inversion: put it into --embeddings-dir and write its name in the prompt"),
];

impl Architecture {
    /// The architecture of a checkpoint in one file, or what the file is instead: the end of "it is …". A checkpoint with
    /// tensors of something else beside its own is a checkpoint.
    pub fn recognise(file: &Arc<TensorFile>) -> Result<Self, String> {
        let checkpoint = Checkpoint::new(vec![Arc::clone(file)], Self::StableDiffusionV1);
        // The names of these do not depend on the depth.
        let shape_of = |name: &str| checkpoint.shape(ModelPart::UNet, name);
        let first = shape_of("conv_in.weight");
        let width = match shape_of("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight") {
            Some([_, width]) => Some(*width),
            _ => None,
        };
        let architecture = match (first, width) {
            (Some([320, 4 | 8 | 9, 3, 3]), Some(768)) => Some(Self::StableDiffusionV1),
            (Some([48, 4, 3, 3]), Some(160)) => Some(Self::TinySd),
            _ => None,
        };
        // A ControlNet has the first half of a UNet. A UNet alone is a part of a folder.
        let has_vae = checkpoint.has(ModelPart::VaeDecoder, "decoder.conv_in.weight");
        let has_text = checkpoint.has(ModelPart::TextEncoder, "text_model.final_layer_norm.weight");
        if let Some(architecture) =
            architecture.filter(|_| shape_of("conv_out.weight").is_some() && (has_vae || has_text))
        {
            return Ok(architecture);
        }
        let names: Vec<String> =
            file.tensor_names().iter().map(|name| unwrapped(name).into_owned()).collect();
        let has = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
        if let Some(family) = names.iter().find_map(|name| ModelFamily::from_checkpoint_tensor(name)) {
            return Err(format!("a {family} checkpoint"));
        }
        for (mark, what) in FOREIGN {
            if names.iter().any(|name| {
                name.starts_with(mark) || name.contains(&format!(".{}", mark.trim_start_matches('.')))
            }) {
                return Err((*what).to_owned());
            }
        }
        if let Some(kind) = lora_kind(&names) {
            return Err(kind);
        }
        if !has(UNET) && !has(UNET_EMA) {
            return Err(if has("first_stage_model.") || has("decoder.conv_in.") {
                "a VAE alone: put it beside a checkpoint NAME.safetensors as NAME.vae.safetensors".to_owned()
            } else if has("concept_embeds") {
                "a safety checker alone: put it beside a checkpoint NAME.safetensors as NAME.safety_checker.safetensors"
                    .to_owned()
            } else if has("down_blocks.") || has("text_model.") {
                "one part of a diffusers folder: name the folder that has model_index.json".to_owned()
            } else {
                "no checkpoint that stablehand knows: it has no tensor model.diffusion_model.…".to_owned()
            });
        }
        let family = width.and_then(ModelFamily::from_embedding_width);
        if let Some(other) = family.filter(|family| *family != ModelFamily::StableDiffusion1) {
            return Err(format!("a {other} checkpoint"));
        }
        if let Some(architecture) = architecture {
            return Ok(architecture);
        }
        match (first, width) {
            (Some(shape), _) => Err(format!(
                "of an architecture that stablehand has no graph for (its UNet's first convolution is {shape:?})"
            )),
            (None, _) => Err("an incomplete checkpoint: its UNet has no first convolution".to_owned()),
        }
    }

    pub(super) fn depth(self) -> Depth {
        match self {
            Self::StableDiffusionV1 => Depth::STABLE_DIFFUSION_V1,
            Self::TinySd => Depth { unet_layers_per_block: 1, vae_levels: 4 },
        }
    }
}
