//! The modules of a model under all the names that LoRAs use for them.
//!
//! A module has one weight: `down_blocks.0.attentions.0.proj_in`. Trainers write its path with dots or with
//! underscores, in diffusers' words or in those of the original code (`input_blocks.1.1.proj_in`).

use std::collections::HashMap;

use super::super::original_names::{self, Depth};
use crate::domain::ModelPart;

/// A weight that a LoRA can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub part: ModelPart,
    /// Its name in the state dict, such as `conv_in.weight`.
    pub weight: String,
    /// `[out, in]` or `[out, in, height, width]`.
    pub shape: Vec<usize>,
}

/// Finds a model's weights by the names of their modules.
pub struct ModuleNames {
    targets: Vec<Target>,
    /// Paths with underscores for dots.
    by_path: HashMap<(ModelPart, String), usize>,
}

impl ModuleNames {
    /// From all weights of both parts. Biases are ignored.
    pub fn new(weights: impl IntoIterator<Item = Target>) -> Self {
        let is_matrix =
            |target: &Target| target.weight.ends_with(".weight") && matches!(target.shape.len(), 2 | 4);
        let targets: Vec<_> = weights.into_iter().filter(is_matrix).collect();
        let depth = Depth { unet_layers_per_block: layers_per_block(&targets), vae_levels: 0 };
        let mut by_path = HashMap::with_capacity(2 * targets.len());
        for (index, target) in targets.iter().enumerate() {
            let mut insert = |weight: &str| {
                by_path.insert((target.part, flat(weight.trim_end_matches(".weight"))), index);
            };
            insert(&target.weight);
            if target.part == ModelPart::UNet {
                let originals = original_names::names(ModelPart::UNet, &target.weight, depth);
                let originals = originals.iter().filter_map(|name| name.strip_prefix(original_names::UNET));
                originals
                    .for_each(|original| original_names::places(original).for_each(|name| insert(&name)));
            }
        }
        Self { targets, by_path }
    }

    /// The weight of the module that a LoRA calls `module`.
    pub fn find(&self, module: &str) -> Option<&Target> {
        let in_part = |part: ModelPart, path: &str| {
            let path = flat(path);
            let index = self.by_path.get(&(part, path.clone())).or_else(|| {
                // Before PEFT, diffusers omitted the index of an attention's output and used one set of names for all
                // attentions.
                let renamed = match (part, path.rsplit_once("_to_")) {
                    (ModelPart::UNet, _) => format!("{path}_0"),
                    (ModelPart::TextEncoder, Some((attention, end))) => format!("{attention}_{end}_proj"),
                    _ => return None,
                };
                self.by_path.get(&(part, renamed))
            });
            index.and_then(|index| self.targets.get(*index))
        };
        let prefixes = [
            ("lora_unet_", ModelPart::UNet),
            ("unet.", ModelPart::UNet),
            ("diffusion_model.", ModelPart::UNet),
            ("lora_te_", ModelPart::TextEncoder),
            ("lora_te1_", ModelPart::TextEncoder),
            ("text_encoder.", ModelPart::TextEncoder),
            ("text_encoders.clip_l.transformer.", ModelPart::TextEncoder),
        ];
        for (prefix, part) in prefixes {
            if let Some(path) = module.strip_prefix(prefix) {
                return in_part(part, path);
            }
        }
        in_part(ModelPart::UNet, module).or_else(|| in_part(ModelPart::TextEncoder, module))
    }

    /// The width of the text embeddings that the UNet reads.
    pub fn embedding_width(&self) -> Option<usize> {
        let reads_text = |target: &&Target| target.weight.ends_with("attn2.to_k.weight");
        self.targets.iter().find(reads_text).and_then(|target| target.shape.get(1).copied())
    }
}

fn flat(path: &str) -> String {
    path.replace('.', "_")
}

/// The number of layers in each of a UNet's blocks. The original code's numbering depends on it.
fn layers_per_block(targets: &[Target]) -> usize {
    let has = |start: &str| {
        targets.iter().any(|target| target.part == ModelPart::UNet && target.weight.starts_with(start))
    };
    (0..8).take_while(|layer| has(&format!("down_blocks.0.resnets.{layer}."))).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few of SD v1's modules.
    fn names() -> ModuleNames {
        let unet = [
            "conv_in",
            "down_blocks.0.resnets.0.conv1",
            "down_blocks.0.resnets.1.time_emb_proj",
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
            "down_blocks.0.downsamplers.0.conv",
            "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0",
            "mid_block.attentions.0.proj_in",
            "mid_block.resnets.1.conv2",
            "up_blocks.0.resnets.2.conv_shortcut",
            "up_blocks.0.upsamplers.0.conv",
            "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj",
            "up_blocks.1.upsamplers.0.conv",
        ];
        let text = [
            "text_model.encoder.layers.0.self_attn.q_proj",
            "text_model.encoder.layers.0.self_attn.out_proj",
        ];
        let target =
            |part, module: &str| Target { part, weight: format!("{module}.weight"), shape: vec![4, 4] };
        let unet = unet.map(|module| target(ModelPart::UNet, module));
        let text = text.map(|module| target(ModelPart::TextEncoder, module));
        ModuleNames::new(unet.into_iter().chain(text))
    }

    fn found(module: &str) -> Option<String> {
        names().find(module).map(|target| target.weight.trim_end_matches(".weight").to_owned())
    }

    #[test]
    fn a_module_is_found_with_dots_and_with_underscores() {
        let module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
        for name in [
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
            "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
            module,
            "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q",
            "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q",
            "diffusion_model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        ] {
            assert_eq!(found(name).as_deref(), Some(module), "{name}");
        }
        let module = "text_model.encoder.layers.0.self_attn.q_proj";
        for name in [
            "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
            "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
            "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj",
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
            "text_encoder.text_model.encoder.layers.0.self_attn.to_q",
            module,
        ] {
            assert_eq!(found(name).as_deref(), Some(module), "{name}");
        }
        assert!(found("text_encoder.text_model.encoder.layers.0.self_attn.to_out").is_some());
        assert!(found("unet.down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out").is_some());
        for name in [
            "lora_unet_conv_out",
            "lora_te_conv_in",
            "text_encoders.clip_l.transformer.conv_in",
            "diffusion_model.text_model.encoder.layers.0.self_attn.q_proj",
            "unet.text_model.encoder.layers.0.self_attn.q_proj",
            "",
            "unet.",
        ] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_the_original_code_are_found() {
        for (original, module) in [
            ("input_blocks_0_0", "conv_in"),
            ("input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
            ("input_blocks_2_0_emb_layers_1", "down_blocks.0.resnets.1.time_emb_proj"),
            ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
            (
                "input_blocks_5_1_transformer_blocks_0_attn2_to_out_0",
                "down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0",
            ),
            ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
            ("middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"),
            ("output_blocks_2_0_skip_connection", "up_blocks.0.resnets.2.conv_shortcut"),
            ("output_blocks_2_1_conv", "up_blocks.0.upsamplers.0.conv"),
            (
                "output_blocks_5_1_transformer_blocks_0_ff_net_0_proj",
                "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj",
            ),
            ("output_blocks_5_2_conv", "up_blocks.1.upsamplers.0.conv"),
        ] {
            assert_eq!(found(&format!("lora_unet_{original}")).as_deref(), Some(module), "{original}");
        }
    }
}
