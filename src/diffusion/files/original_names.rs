//! The tensor names of original checkpoints (CompVis' latent diffusion), made from those of diffusers.
//!
//! The original code numbers a UNet's blocks in one sequence, and diffusers nests them. The mapping is that of
//! diffusers' `scripts/convert_original_stable_diffusion_to_diffusers.py`.

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

const TEXT_ENCODER: &str = "cond_stage_model.transformer.";
pub const UNET: &str = "model.diffusion_model.";
const UNET_EMA: &str = "model_ema.diffusion_model";
const VAE: &str = "first_stage_model.";

/// The names under which an original checkpoint may have a weight, the likeliest first.
pub fn names(part: ModelPart, diffusers: &str, depth: Depth) -> Vec<String> {
    match part {
        // Files without the middle part come from trainers that merged newer transformers.
        ModelPart::TextEncoder => {
            let bare = diffusers.strip_prefix("text_model.").unwrap_or(diffusers);
            vec![format!("{TEXT_ENCODER}{diffusers}"), format!("{TEXT_ENCODER}{bare}")]
        }
        ModelPart::UNet => {
            let Some(name) = unet(diffusers, depth) else { return Vec::new() };
            // Its averaged twin, for files that have only that: with its dots taken out.
            let ema = format!("{UNET_EMA}{}", name.replace('.', ""));
            vec![format!("{UNET}{name}"), ema]
        }
        // A VAE's own file has no prefix.
        ModelPart::VaeDecoder | ModelPart::VaeEncoder => {
            vae(diffusers, depth).map(|name| vec![format!("{VAE}{name}"), name]).unwrap_or_default()
        }
        ModelPart::SafetyChecker => Vec::new(),
    }
}

fn unet(name: &str, depth: Depth) -> Option<String> {
    let layers = depth.unet_layers_per_block;
    let (block, rest) = name.split_once('.')?;
    Some(match block {
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

/// Stands for the place of an upsampler among the modules of its block, which [`places`] tries out.
const UPSAMPLER: &str = "*";

/// A name with the places tried where an upsampler may be: behind a resnet, or behind an attention.
pub fn places(name: &str) -> impl Iterator<Item = String> {
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
                let found: Vec<_> = found.iter().flat_map(|name| places(name)).collect();
                assert!(found.iter().any(|name| name == original), "{name}: {original} is not in {found:?}");
            }
        }
    }

    #[test]
    fn names_of_averaged_weights_have_no_dots() {
        assert_eq!(
            names(ModelPart::UNet, "conv_out.bias", Depth::STABLE_DIFFUSION_V1)[1],
            "model_ema.diffusion_modelout2bias"
        );
    }

    #[test]
    fn an_unknown_tensor_has_no_original_name() {
        for name in ["", "x", "down_blocks.x.resnets.0.conv1.weight", "unknown.weight", "up_blocks.0"] {
            assert!(names(ModelPart::UNet, name, Depth::STABLE_DIFFUSION_V1).is_empty(), "{name}");
        }
    }
}
