//! LoRAs of other model families, recognised before anything of them is read, so that their owner hears the family
//! and not the name of some tensor.

use super::modules::ModuleNames;

/// How the tensors of other families are called.
const STARTS: [(&str, &str); 13] = [
    ("lora_te1_", "Stable Diffusion XL"),
    ("lora_te2_", "Stable Diffusion XL"),
    ("text_encoder_2.", "Stable Diffusion XL"),
    ("lora_prior_", "Stable Cascade"),
    ("lora_unet_double_blocks_", "FLUX"),
    ("lora_unet_single_blocks_", "FLUX"),
    ("transformer.single_transformer_blocks.", "FLUX"),
    ("lora_unet_joint_blocks_", "Stable Diffusion 3"),
    ("lora_unet_blocks_", "a video model"),
    ("diffusion_model.double_blocks.", "FLUX"),
    ("diffusion_model.", "a model in ComfyUI's names"),
    ("lora_transformer_", "a transformer model"),
    ("transformer.", "a transformer model"),
];
/// SD v1 has one transformer block where XL has up to ten.
const SECOND_BLOCKS: [&str; 2] = ["transformer_blocks_1_", "transformer_blocks.1."];

/// The family that a tensor's name gives away.
pub fn of_name(name: &str) -> Option<&'static str> {
    let started = STARTS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, family)| *family);
    let of_unet = name.starts_with("lora_unet_") || name.starts_with("unet.");
    started.or_else(|| {
        (of_unet && SECOND_BLOCKS.iter().any(|block| name.contains(block))).then_some("Stable Diffusion XL")
    })
}

/// Why text embeddings so wide are none of this model's; none where it reads such itself.
pub fn of_width(width: usize, names: &ModuleNames) -> Option<String> {
    let own = names.embedding_width().filter(|own| *own != width)?;
    let family = family_of_width(width).unwrap_or("another model");
    Some(format!("it is for {family}, whose text embeddings are {width} wide; this model's are {own}"))
}

/// Whose text embeddings are so wide.
pub fn family_of_width(width: usize) -> Option<&'static str> {
    match width {
        768 => Some("Stable Diffusion v1"),
        1024 => Some("Stable Diffusion 2"),
        1280 | 2048 => Some("Stable Diffusion XL"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_by_their_names() {
        for (name, family) in [
            ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", Some("Stable Diffusion XL")),
            ("lora_unet_input_blocks_4_1_transformer_blocks_1_attn1_to_q.alpha", Some("Stable Diffusion XL")),
            (
                "unet.mid_block.attentions.0.transformer_blocks.1.attn1.to_q.lora_A.weight",
                Some("Stable Diffusion XL"),
            ),
            ("lora_unet_double_blocks_0_img_attn_proj.alpha", Some("FLUX")),
            ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha", None),
            ("text_encoder.text_model.encoder.layers.1.mlp.fc1.lora_A.weight", None),
        ] {
            assert_eq!(of_name(name), family, "{name}");
        }
    }
}
