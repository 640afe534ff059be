//! The tensor names of original checkpoints (CompVis' latent diffusion), made from those of diffusers.
//!
//! The original code numbers a UNet's blocks in one sequence, and diffusers nests them. The mapping is that of
//! diffusers' `scripts/convert_original_stable_diffusion_to_diffusers.py`.

use std::borrow::Cow;

use crate::domain::ModelPart;

/// The numbers of blocks in a model. The original numbering depends on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    pub unet_layers_per_block: usize,
    pub vae_levels: usize,
}

impl Depth {
    pub const STABLE_DIFFUSION_V1: Self = Self { unet_layers_per_block: 2, vae_levels: 4 };
}

/// How checkpoints and dumps of trainers call the parts, the likeliest first. Files of one part alone have no prefix.
const TEXT_ENCODERS: [&str; 8] = [
    "cond_stage_model.transformer.",
    "",
    "text_encoder.",
    "te.",
    "conditioner.embedders.0.transformer.",
    "text_encoders.clip_l.transformer.",
    "clip_l.transformer.",
    "cond_stage_model.",
];
pub const UNET: &str = "model.diffusion_model.";
const UNETS: [&str; 4] = [UNET, "", "diffusion_model.", "unet."];
const UNET_EMA: &str = "model_ema.diffusion_model";
/// The ControlNet, as its trainers and as dumps call it.
pub const CONTROLNET: &str = "control_model.";
const CONTROLNETS: [&str; 3] = [CONTROLNET, "", "controlnet."];
const SAFETY_CHECKERS: [&str; 2] = ["", "safety_checker."];
/// Files of the original decoder alone have numbers, and dumps of both halves a name before them.
const TINY_VAES: [&str; 4] = ["", "decoder.", "taesd_decoder.", "vae."];
const VAES: [&str; 3] = ["first_stage_model.", "", "vae."];

/// The names that a weight may have, the likeliest first. `diffusers` is its name there.
pub fn names(part: ModelPart, diffusers: &str, depth: Depth) -> Vec<String> {
    let both = |prefixes: &[&str], names: &[String]| -> Vec<String> {
        prefixes.iter().flat_map(|prefix| names.iter().map(move |name| format!("{prefix}{name}"))).collect()
    };
    let own = diffusers.to_owned();
    match part {
        // Files without the middle part come from newer transformers.
        ModelPart::TextEncoder => {
            let bare = diffusers.strip_prefix("text_model.").map(str::to_owned);
            both(&TEXT_ENCODERS, &[Some(own), bare].into_iter().flatten().collect::<Vec<_>>())
        }
        ModelPart::UNet => {
            let Some(name) = unet(diffusers, depth) else { return both(&UNETS, &[own]) };
            // Its averaged twin, for files that have only that: with its dots taken out.
            let averaged = format!("{UNET_EMA}{}", name.replace('.', ""));
            let mut names = both(&UNETS, &[name, own]);
            names.push(averaged);
            names.iter().flat_map(|name| places(name)).collect()
        }
        ModelPart::VaeDecoder | ModelPart::VaeEncoder => {
            // Before 0.18, diffusers named the VAE's attention in its own way.
            let old = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
            let old = old.into_iter().find(|(new, _)| diffusers.contains(&format!("attentions.0.{new}.")));
            let old = old.map(|(new, old)| diffusers.replace(new, old));
            both(&VAES, &[vae(diffusers, depth), Some(own), old].into_iter().flatten().collect::<Vec<_>>())
        }
        // The UNet's way down once more, with layers of its own.
        ModelPart::ControlNet => {
            let original = controlnet(diffusers).or_else(|| unet(diffusers, depth));
            both(&CONTROLNETS, &[original, Some(own)].into_iter().flatten().collect::<Vec<_>>())
        }
        // The original is one sequence, in which the decoder's first layer only squeezes its input.
        ModelPart::TinyVae => {
            let original = tiny_decoder(diffusers);
            both(&TINY_VAES, &[Some(own), original].into_iter().flatten().collect::<Vec<_>>())
        }
        // Newer transformers leave out a level. Dumps of whole pipelines have a prefix.
        ModelPart::SafetyChecker => {
            let bare = diffusers.strip_prefix("vision_model.").filter(|bare| bare.contains('.'));
            let bare = bare.map(str::to_owned);
            both(&SAFETY_CHECKERS, &[Some(own), bare].into_iter().flatten().collect::<Vec<_>>())
        }
    }
}

/// A name without what torch's wrappers write into it: compiled, parallel and adapted modules.
pub fn unwrapped(name: &str) -> Cow<'_, str> {
    const WRAPPERS: [&str; 5] =
        ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer"];
    let is_wrapper = |part: &&str| WRAPPERS.contains(part);
    let name = name.strip_prefix("state_dict.").unwrap_or(name);
    match name.split('.').any(|part| is_wrapper(&part)) {
        true => Cow::Owned(name.split('.').filter(|part| !is_wrapper(part)).collect::<Vec<_>>().join(".")),
        false => Cow::Borrowed(name),
    }
}

/// `decoder.layers.3.conv.0.weight` is layer 4 of the original decoder.
fn tiny_decoder(name: &str) -> Option<String> {
    let (number, rest) = name.strip_prefix("decoder.layers.")?.split_once('.')?;
    Some(format!("{}.{rest}", number.parse::<usize>().ok()? + 1))
}

fn unet(name: &str, depth: Depth) -> Option<String> {
    let layers = depth.unet_layers_per_block;
    let (block, rest) = name.split_once('.')?;
    Some(match block {
        // Of the guidance.
        "time_embedding" if rest.starts_with("cond_proj.") => format!("time_embed.{rest}"),
        "time_embedding" => {
            let rest = rest.strip_prefix("linear_")?;
            let (number, rest) = rest.split_once('.')?;
            format!("time_embed.{}.{rest}", if number == "1" { 0 } else { 2 })
        }
        "conv_in" => format!("input_blocks.0.0.{rest}"),
        "conv_norm_out" => format!("out.0.{rest}"),
        "conv_out" => format!("out.2.{rest}"),
        "mid_block" => {
            let (kind, index, rest) = nested(rest)?;
            match kind {
                "resnets" => format!("middle_block.{}.{}", index * 2, resnet(rest)),
                _ => format!("middle_block.1.{rest}"),
            }
        }
        "down_blocks" => {
            let (block, rest) = numbered(rest)?;
            let (kind, index, rest) = nested(rest)?;
            let first = 1 + block * (layers + 1);
            match kind {
                "resnets" => format!("input_blocks.{}.0.{}", first + index, resnet(rest)),
                "attentions" => format!("input_blocks.{}.1.{rest}", first + index),
                _ => format!("input_blocks.{}.0.op.{}", first + layers, rest.strip_prefix("conv.")?),
            }
        }
        "up_blocks" => {
            let (block, rest) = numbered(rest)?;
            let (kind, index, rest) = nested(rest)?;
            let first = block * (layers + 1);
            match kind {
                "resnets" => format!("output_blocks.{}.0.{}", first + index, resnet(rest)),
                "attentions" => format!("output_blocks.{}.1.{rest}", first + index),
                // Behind the attention, where the block has one: the outermost blocks do not have it.
                _ => format!("output_blocks.{}.{UPSAMPLER}.{rest}", first + layers),
            }
        }
        _ => return None,
    })
}

/// The layers that a UNet does not have. The mapping is that of diffusers' `convert_controlnet_checkpoint`.
fn controlnet(name: &str) -> Option<String> {
    let (block, rest) = name.split_once('.')?;
    Some(match block {
        "controlnet_cond_embedding" => {
            // Between them are activations, which have numbers of their own.
            let (layer, rest) = rest.split_once('.')?;
            let (number, rest) = match layer {
                "conv_in" => (0, rest),
                "conv_out" => (14, rest),
                _ => numbered(rest).map(|(index, rest)| (2 * (index + 1), rest))?,
            };
            format!("input_hint_block.{number}.{rest}")
        }
        "controlnet_down_blocks" => {
            let (index, rest) = numbered(rest)?;
            format!("zero_convs.{index}.0.{rest}")
        }
        "controlnet_mid_block" => format!("middle_block_out.0.{rest}"),
        _ => return None,
    })
}

/// Stands for the place of an upsampler among the modules of its block, which [`places`] tries out.
const UPSAMPLER: &str = "*";

/// A name with the places tried where an upsampler may be: behind a resnet, or behind an attention.
fn places(name: &str) -> impl Iterator<Item = String> {
    let many = name.contains(UPSAMPLER);
    ["1", "2"].into_iter().take(if many { 2 } else { 1 }).map(move |place| name.replace(UPSAMPLER, place))
}

/// A resnet's parts in the original's numbering.
fn resnet(rest: &str) -> String {
    let (part, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let part = match part {
        "norm1" => "in_layers.0",
        "conv1" => "in_layers.2",
        "time_emb_proj" => "emb_layers.1",
        "norm2" => "out_layers.0",
        "conv2" => "out_layers.3",
        "conv_shortcut" => "skip_connection",
        other => other,
    };
    format!("{part}.{rest}")
}

fn vae(name: &str, depth: Depth) -> Option<String> {
    let (half, rest) = name.split_once('.')?;
    if !matches!(half, "encoder" | "decoder") {
        return Some(name.to_owned()); // quant_conv, post_quant_conv
    }
    let (block, rest) = rest.split_once('.')?;
    let inner = match block {
        "conv_norm_out" => format!("norm_out.{rest}"),
        "mid_block" => {
            let (kind, index, rest) = nested(rest)?;
            match kind {
                "resnets" => {
                    format!("mid.block_{}.{}", index + 1, rest.replace("conv_shortcut", "nin_shortcut"))
                }
                _ => format!("mid.attn_1.{}", vae_attention(rest)?),
            }
        }
        "down_blocks" | "up_blocks" => {
            let (block_index, rest) = numbered(rest)?;
            let (kind, index, rest) = nested(rest)?;
            // The original counts its decoder's levels from the picture's side.
            let (side, level) = match block {
                "down_blocks" => ("down", block_index),
                _ => ("up", depth.vae_levels.checked_sub(block_index + 1)?),
            };
            match kind {
                "resnets" => {
                    format!("{side}.{level}.block.{index}.{}", rest.replace("conv_shortcut", "nin_shortcut"))
                }
                "downsamplers" => format!("{side}.{level}.downsample.{rest}"),
                _ => format!("{side}.{level}.upsample.{rest}"),
            }
        }
        _ => format!("{block}.{rest}"), // conv_in, conv_out
    };
    Some(format!("{half}.{inner}"))
}

fn vae_attention(rest: &str) -> Option<String> {
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "group_norm" => "norm",
        "to_q" => "q",
        "to_k" => "k",
        "to_v" => "v",
        "to_out.0" => "proj_out",
        _ => return None,
    };
    Some(format!("{part}.{kind}"))
}

/// `3.rest`.
fn numbered(name: &str) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// `resnets.1.rest`.
fn nested(name: &str) -> Option<(&str, usize, &str)> {
    let (kind, rest) = name.split_once('.')?;
    let (index, rest) = numbered(rest)?;
    Some((kind, index, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::files::Architecture;

    /// Written by `tests/golden/ldm_names_json.py`; diffusers' own reader accepts these names.
    const NAMES: &str = include_str!("../../../tests/golden/ldm_names.json");

    #[test]
    fn names_equal_those_of_original_checkpoints() {
        let golden: serde_json::Value = serde_json::from_str(NAMES).unwrap();
        for (model, architecture) in
            [("sd-v1", Architecture::StableDiffusionV1), ("tiny-sd", Architecture::TinySd)]
        {
            for (name, original) in golden[model].as_object().unwrap() {
                let (part, name) = name.split_once('/').unwrap();
                let part = match part {
                    "unet" => ModelPart::UNet,
                    "vae" => ModelPart::VaeDecoder,
                    _ => ModelPart::TextEncoder,
                };
                let found = names(part, name, architecture.depth());
                assert!(found.iter().any(|name| name == original), "{name}: {original} is not in {found:?}");
            }
        }
    }

    #[test]
    fn names_of_averaged_weights_have_no_dots() {
        let names = names(ModelPart::UNet, "conv_out.bias", Depth::STABLE_DIFFUSION_V1);
        assert_eq!(
            (names[0].as_str(), names.last().unwrap().as_str()),
            ("model.diffusion_model.out.2.bias", "model_ema.diffusion_modelout2bias")
        );
    }

    #[test]
    fn a_safety_checker_in_a_dump_has_its_names_behind_a_prefix() {
        let name = "vision_model.vision_model.post_layernorm.bias";
        let found = names(ModelPart::SafetyChecker, name, Depth::STABLE_DIFFUSION_V1);
        let short = "safety_checker.vision_model.post_layernorm.bias";
        assert_eq!(found[0], name);
        assert!(
            found.contains(&format!("safety_checker.{name}")) && found.iter().any(|found| found == short)
        );
    }

    #[test]
    fn an_unknown_tensor_has_no_original_name() {
        for name in ["", "x", "down_blocks.x.resnets.0.conv1.weight", "unknown.weight", "up_blocks.0"] {
            let names = names(ModelPart::UNet, name, Depth::STABLE_DIFFUSION_V1);
            assert!(names.iter().all(|found| found.ends_with(name)), "{name}: {names:?}");
        }
    }

    #[test]
    fn wrappers_are_no_part_of_a_name() {
        for (name, bare) in [
            ("module.unet.conv_in.weight", "unet.conv_in.weight"),
            ("_orig_mod.model.diffusion_model.out.2.bias", "model.diffusion_model.out.2.bias"),
            ("model.diffusion_model._orig_mod.out.2.bias", "model.diffusion_model.out.2.bias"),
            ("attn1.to_q.base_layer.weight", "attn1.to_q.weight"),
            ("model.modules.x", "model.modules.x"),
            ("", ""),
        ] {
            assert_eq!(unwrapped(name), bare);
        }
    }
}
