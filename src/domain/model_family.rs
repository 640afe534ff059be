//! Families of diffusion models, and what gives each away.
//!
//! stablehand draws with Stable Diffusion v1. Files of other families are recognised here, and only here, so that their
//! owner reads the family's name and not the name of some tensor that did not fit.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelFamily {
    StableDiffusion1,
    StableDiffusion2,
    StableDiffusionXl,
    StableDiffusion3,
    StableCascade,
    Flux,
    /// Some model that makes videos.
    Video,
    /// Some model with a transformer in the place of the UNet.
    Transformer,
}

/// `model_index.json`, as far as it tells the family.
#[derive(Debug, Deserialize, Default)]
pub struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    text_encoder_2: Option<Value>,
}

/// The fields of `unet/config.json` that tell the family.
#[derive(Debug, Deserialize, Default)]
pub struct UNetConditioning {
    cross_attention_dim: Option<Value>,
    addition_embed_type: Option<Value>,
}

/// How tensors in checkpoints of other families are called.
const CHECKPOINT_TENSORS: [(&str, ModelFamily); 4] = [
    ("conditioner.embedders.", ModelFamily::StableDiffusionXl),
    ("cond_stage_model.model.", ModelFamily::StableDiffusion2),
    ("joint_blocks.", ModelFamily::StableDiffusion3),
    ("double_blocks.", ModelFamily::Flux),
];

/// How tensors in LoRAs for other families begin.
const LORA_TENSORS: [(&str, ModelFamily); 15] = [
    // `lora_te1_` tells nothing: diffusers' converter writes it for Stable Diffusion v1, too.
    ("lora_te2_", ModelFamily::StableDiffusionXl),
    ("text_encoder_2.", ModelFamily::StableDiffusionXl),
    ("text_encoders.clip_g.", ModelFamily::StableDiffusionXl),
    ("lora_prior_", ModelFamily::StableCascade),
    ("lora_unet_double_blocks_", ModelFamily::Flux),
    ("lora_unet_single_blocks_", ModelFamily::Flux),
    ("transformer.single_transformer_blocks.", ModelFamily::Flux),
    ("diffusion_model.double_blocks.", ModelFamily::Flux),
    ("diffusion_model.single_blocks.", ModelFamily::Flux),
    ("lora_unet_joint_blocks_", ModelFamily::StableDiffusion3),
    ("diffusion_model.joint_blocks.", ModelFamily::StableDiffusion3),
    ("diffusion_model.blocks.", ModelFamily::Video),
    ("lora_unet_blocks_", ModelFamily::Video),
    ("lora_transformer_", ModelFamily::Transformer),
    ("transformer.", ModelFamily::Transformer),
];

/// SD v1 has one transformer block where SD XL has up to ten.
const SECOND_BLOCKS: [&str; 2] = ["transformer_blocks_1_", "transformer_blocks.1."];

impl ModelFamily {
    pub const fn name(self) -> &'static str {
        match self {
            Self::StableDiffusion1 => "Stable Diffusion v1",
            Self::StableDiffusion2 => "Stable Diffusion 2",
            Self::StableDiffusionXl => "Stable Diffusion XL",
            Self::StableDiffusion3 => "Stable Diffusion 3",
            Self::StableCascade => "Stable Cascade",
            Self::Flux => "FLUX",
            Self::Video => "a video model",
            Self::Transformer => "a transformer model",
        }
    }

    /// The family whose text embeddings have this width.
    pub fn from_embedding_width(width: usize) -> Option<Self> {
        match width {
            768 => Some(Self::StableDiffusion1),
            1024 => Some(Self::StableDiffusion2),
            1280 | 2048 => Some(Self::StableDiffusionXl),
            _ => None,
        }
    }

    /// The other family that a checkpoint's tensor of this name belongs to.
    pub fn from_checkpoint_tensor(name: &str) -> Option<Self> {
        let starts_module = |mark: &str| name.starts_with(mark) || name.contains(&format!(".{mark}"));
        CHECKPOINT_TENSORS.iter().find(|(mark, _)| starts_module(mark)).map(|(_, family)| *family)
    }

    /// The other family that a LoRA with a tensor of this name is for.
    pub fn from_lora_tensor(name: &str) -> Option<Self> {
        let started = LORA_TENSORS.iter().find(|(start, _)| name.starts_with(start));
        let is_unet = ["lora_unet_", "unet.", "diffusion_model."].iter().any(|start| name.starts_with(start));
        match started {
            Some((_, family)) => Some(*family),
            None if is_unet && SECOND_BLOCKS.iter().any(|block| name.contains(block)) => {
                Some(Self::StableDiffusionXl)
            }
            None => None,
        }
    }

    /// The other family that a model's configuration files tell of, as the end of the sentence "this model is …". None
    /// where they could be Stable Diffusion v1's.
    pub fn other_by_configs(
        index: &ModelIndex,
        unet: &UNetConditioning,
        has_second_text_encoder: bool,
    ) -> Option<String> {
        let class = index.class_name.as_deref().unwrap_or("StableDiffusionPipeline");
        let xl = Self::StableDiffusionXl;
        if class.contains("XL") {
            return Some(format!("{xl} ({} in its model_index.json)", shown(class)));
        }
        if !class.contains("StableDiffusion") || class.contains("StableDiffusion3") {
            return Some(format!("a {} according to its model_index.json", shown(class)));
        }
        let indexed = index.text_encoder_2.as_ref().is_some_and(|part| !is_absent(part));
        let embeds_time = unet.addition_embed_type.as_ref().and_then(Value::as_str) == Some("text_time");
        if has_second_text_encoder || indexed || embeds_time {
            return Some(format!("{xl} (it has two text encoders)"));
        }
        // One number, or one for each level.
        let width = unet.cross_attention_dim.as_ref();
        let width = width.map(|width| width.get(0).unwrap_or(width)).and_then(Value::as_u64);
        let family = Self::from_embedding_width(usize::try_from(width?).ok()?);
        let other = family.filter(|family| *family != Self::StableDiffusion1)?;
        Some(format!("{other} (its cross_attention_dim is {})", width.unwrap_or_default()))
    }
}

impl fmt::Display for ModelFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A class name that a stranger wrote, fit for a sentence.
fn shown(class: &str) -> String {
    class.chars().take(80).collect::<String>().escape_debug().to_string()
}

/// diffusers writes `[null, null]` for a part that a pipeline could have and has not.
fn is_absent(part: &Value) -> bool {
    part.as_array().is_none_or(|names| names.iter().all(Value::is_null))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configs_tell_the_family_by_class_width_and_text_encoders() {
        let family = |index: Value, unet: Value| {
            let index = serde_json::from_value(index).unwrap();
            ModelFamily::other_by_configs(&index, &serde_json::from_value(unet).unwrap(), false)
        };
        for class in
            ["StableDiffusionPipeline", "StableDiffusionInpaintPipeline", "OnnxStableDiffusionPipeline"]
        {
            assert_eq!(family(json!({"_class_name": class}), json!({"cross_attention_dim": 768})), None);
        }
        assert_eq!(family(json!({}), json!({})), None);
        assert_eq!(family(json!({"text_encoder_2": [null, null]}), json!({})), None);
        for (index, unet, part) in [
            (json!({"_class_name": "StableDiffusionXLPipeline"}), json!({}), "Stable Diffusion XL"),
            (json!({"_class_name": "StableDiffusion3Pipeline"}), json!({}), "a StableDiffusion3Pipeline"),
            (json!({"_class_name": "FluxPipeline"}), json!({}), "a FluxPipeline"),
            (json!({}), json!({"cross_attention_dim": 1024}), "Stable Diffusion 2"),
            (json!({}), json!({"cross_attention_dim": 2048}), "Stable Diffusion XL"),
            (json!({}), json!({"addition_embed_type": "text_time"}), "Stable Diffusion XL"),
            (json!({"text_encoder_2": ["transformers", "CLIPTextModel"]}), json!({}), "Stable Diffusion XL"),
        ] {
            assert!(family(index, unet).unwrap().starts_with(part), "{part}");
        }
    }

    #[test]
    fn loras_tell_the_family_by_their_tensors() {
        let xl = Some(ModelFamily::StableDiffusionXl);
        for (name, family) in [
            ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", xl),
            ("lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha", None),
            ("text_encoders.clip_g.transformer.text_model.encoder.layers.0.mlp.fc1.alpha", xl),
            ("diffusion_model.input_blocks.4.1.transformer_blocks.1.attn1.to_q.alpha", xl),
            ("diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.alpha", None),
            ("diffusion_model.joint_blocks.0.x_block.attn.qkv.alpha", Some(ModelFamily::StableDiffusion3)),
            ("lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.alpha", xl),
            ("unet.mid_block.attentions.0.transformer_blocks.1.attn1.to_q.lora_A.weight", xl),
            ("lora_unet_double_blocks_0_img_attn_proj.alpha", Some(ModelFamily::Flux)),
            ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha", None),
            ("text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_A.weight", None),
        ] {
            assert_eq!(ModelFamily::from_lora_tensor(name), family, "{name}");
        }
    }
}
