//! Fields that some models do not take, or not with every value.

use super::reader::{Reader, small};
use super::{InputRules, MAX_CLIP_SKIP};
use crate::domain::{Precision, Vae};

/// A warning for each field that has no effect because the UNet takes the guidance scale itself.
pub(super) fn without_guidance(reader: &Reader, rules: &InputRules, negative_prompt: &str) -> Vec<String> {
    let fields = [
        ("negative_prompt", !negative_prompt.is_empty()),
        ("guidance_rescale", true),
        ("guidance_end", true),
    ];
    let without_effect = fields.into_iter().filter(|(name, says)| *says && reader.is_present(name));
    let sentence = |name| {
        format!("{name} has no effect with this model, because its UNet takes the guidance scale itself.")
    };
    without_effect.filter(|_| rules.embeds_guidance).map(|(name, _)| sentence(name)).collect()
}

pub(super) fn precision(reader: &mut Reader, rules: &InputRules) -> Option<Precision> {
    let precision =
        reader.choice("precision", &Precision::ALL.map(|precision| (precision.as_str(), precision)));
    if precision.is_some_and(|precision| !rules.precisions.contains(&precision)) {
        reader.unmet(
            "precision",
            "It is int8; this model supports only full, because its weights are inside its ONNX graphs.",
        );
        return None;
    }
    precision
}

pub(super) fn clip_skip(reader: &mut Reader, rules: &InputRules) -> Option<u32> {
    let layer = small(reader.integer("clip_skip", 1, u64::from(MAX_CLIP_SKIP))?);
    if layer <= rules.max_clip_skip {
        return Some(layer);
    }
    reader.unmet(
        "clip_skip",
        &match rules.max_clip_skip {
            0 | 1 => {
                format!("It is {layer}; this model supports only 1, because its text encoder gives only its last layer.")
            }
            max => format!("It is {layer}; this model supports 1 to {max}, because its text encoder gives only these layers."),
        },
    );
    None
}

pub(super) fn vae(reader: &mut Reader, rules: &InputRules) -> Option<Vae> {
    let vae = reader.choice("vae", &Vae::ALL.map(|vae| (vae.as_str(), vae)))?;
    if vae == Vae::Tiny {
        let found = rules.tiny_vae.as_ref().map(|shelf| shelf.check());
        if let Err(reason) = found.unwrap_or_else(|| Err("this model has no tiny VAE".to_owned())) {
            reader.unmet("vae", &format!("It is tiny, but {reason}."));
        }
    }
    Some(vae)
}
