//! The modules of a model under all the names that LoRAs use for them.
//!
//! A module has a weight, a bias or both: `down_blocks.0.attentions.0.proj_in`. Trainers write its path with dots or with
//! underscores, in diffusers' words or in those of the original code (`input_blocks.1.1.proj_in`).

use std::collections::{BTreeMap, HashMap};

use super::super::original_names::{self, Depth};
use crate::domain::{LoraBlock, ModelPart};

/// A parameter that a LoRA can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub part: ModelPart,
    /// Its name in the state dict, such as `conv_in.weight`.
    pub parameter: String,
    /// In the order of checkpoints: `[out, in]` or `[out, in, height, width]` of a weight.
    pub shape: Vec<usize>,
}

/// A module with the shapes of its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelModule {
    pub part: ModelPart,
    pub path: String,
    pub weight: Option<Vec<usize>>,
    pub bias: Option<Vec<usize>>,
    /// What block weights call its place.
    pub block: LoraBlock,
}

/// Finds a model's modules by their names.
pub struct ModuleNames {
    modules: Vec<ModelModule>,
    /// Paths with underscores for dots.
    by_path: HashMap<(ModelPart, String), usize>,
}

impl ModuleNames {
    /// From all parameters of both parts.
    pub fn new(parameters: impl IntoIterator<Item = Target>) -> Self {
        let mut modules: BTreeMap<(ModelPart, String), ModelModule> = BTreeMap::new();
        for Target { part, parameter, shape } in parameters {
            let Some((path, role)) = parameter.rsplit_once('.') else { continue };
            let module = modules.entry((part, path.to_owned())).or_insert_with(|| ModelModule {
                part,
                path: path.to_owned(),
                weight: None,
                bias: None,
                block: LoraBlock::Other,
            });
            match role {
                "weight" => module.weight = Some(shape),
                "bias" => module.bias = Some(shape),
                _ => {}
            }
        }
        let mut modules: Vec<_> = modules.into_values().collect();
        let depth = Depth { unet_layers_per_block: layers_per_block(&modules), vae_levels: 0 };
        let mut by_path = HashMap::with_capacity(2 * modules.len());
        for (index, module) in modules.iter_mut().enumerate() {
            by_path.insert((module.part, flat(&module.path)), index);
            if module.part == ModelPart::TextEncoder {
                // Newer transformers leave the first part of its names out.
                if let Some(path) = module.path.strip_prefix("text_model.") {
                    by_path.insert((ModelPart::TextEncoder, flat(path)), index);
                }
                // As A1111's extension tells them: what lies outside of the layers is in no block.
                module.block = match module.path.contains("encoder") {
                    true => LoraBlock::TextEncoder,
                    false => LoraBlock::Other,
                };
                continue;
            }
            let originals = original_names::names(ModelPart::UNet, &format!("{}.", module.path), depth);
            for original in originals.iter().filter_map(|name| name.strip_prefix(original_names::UNET)) {
                // Only the original code's name says which block it is.
                if module.block == LoraBlock::Other {
                    module.block = block(original);
                }
                by_path.insert((ModelPart::UNet, flat(original.trim_end_matches('.'))), index);
            }
        }
        Self { modules, by_path }
    }

    /// The module that a LoRA calls `name`.
    pub fn find(&self, name: &str) -> Option<&ModelModule> {
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
            index.and_then(|index| self.modules.get(*index))
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
            if let Some(path) = name.strip_prefix(prefix) {
                return in_part(part, path);
            }
        }
        // The wrapper of the LyCORIS package.
        let name = name.strip_prefix("lycoris_").unwrap_or(name);
        in_part(ModelPart::UNet, name).or_else(|| in_part(ModelPart::TextEncoder, name))
    }

    pub fn of_part(&self, part: ModelPart) -> impl Iterator<Item = &ModelModule> {
        self.modules.iter().filter(move |module| module.part == part)
    }

    /// The width of the text embeddings that the UNet reads.
    pub fn embedding_width(&self) -> Option<usize> {
        let reads_text = |module: &&ModelModule| module.path.ends_with("attn2.to_k");
        self.modules.iter().find(reads_text)?.weight.as_ref()?.get(1).copied()
    }
}

impl ModelModule {
    /// The name of its weight, in a state dict.
    pub fn weight_name(&self) -> String {
        format!("{}.weight", self.path)
    }

    pub fn bias_name(&self) -> String {
        format!("{}.bias", self.path)
    }
}

/// What block weights call the place of a UNet's module, by its name in the original code.
fn block(original: &str) -> LoraBlock {
    let numbered = |start: &str| {
        let rest = original.strip_prefix(start)?;
        rest.split_once('.')?.0.parse::<usize>().ok()
    };
    if original.starts_with("middle_block.") {
        return LoraBlock::Middle;
    }
    let found = numbered("input_blocks.").map(LoraBlock::In);
    found.or_else(|| numbered("output_blocks.").map(LoraBlock::Out)).unwrap_or(LoraBlock::Other)
}

fn flat(path: &str) -> String {
    path.replace('.', "_")
}

/// The number of layers in each of a UNet's blocks. The original code's numbering depends on it.
fn layers_per_block(modules: &[ModelModule]) -> usize {
    let has = |start: &str| {
        modules.iter().any(|module| module.part == ModelPart::UNet && module.path.starts_with(start))
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
            |part, module: &str| Target { part, parameter: format!("{module}.weight"), shape: vec![4, 4] };
        let unet = unet.map(|module| target(ModelPart::UNet, module));
        let text = text.map(|module| target(ModelPart::TextEncoder, module));
        ModuleNames::new(unet.into_iter().chain(text))
    }

    fn found(module: &str) -> Option<String> {
        names().find(module).map(|module| module.path.clone())
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
            "text_encoder.encoder.layers.0.self_attn.q_proj",
            "lora_te_encoder_layers_0_self_attn_q_proj",
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

    #[test]
    fn every_module_has_the_block_that_a1111_s_extension_gives_it() {
        for (module, block) in [
            ("conv_in", LoraBlock::In(0)),
            ("down_blocks.0.resnets.1.time_emb_proj", LoraBlock::In(2)),
            ("down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0", LoraBlock::In(5)),
            ("mid_block.attentions.0.proj_in", LoraBlock::Middle),
            ("up_blocks.0.upsamplers.0.conv", LoraBlock::Out(2)),
            ("up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj", LoraBlock::Out(5)),
            ("text_model.encoder.layers.0.self_attn.q_proj", LoraBlock::TextEncoder),
        ] {
            assert_eq!(names().find(module).unwrap().block, block, "{module}");
        }
    }
}
