//! The modules of the first LoRA trainer's files, which number them instead of naming them.
//!
//! The trainer walks through the model's modules, and in each one of certain classes through the linear layers (and the
//! convolutions, if resnets are among the classes): `inject_trainable_lora` and `inject_trainable_lora_extended` of
//! cloneofsimo's `lora_diffusion/lora.py`. The classes are in the file's metadata under the part's name. The order is that
//! in which diffusers makes its modules; until version 0.14, a block's feed-forward layer came between its two attentions.

use std::collections::BTreeMap;

use super::super::TensorFile;
use super::modules::{ModelModule, ModuleNames};
use super::role::Role;
use crate::domain::ModelPart;

/// The tensors of a numbered module, by its number.
pub type Numbered = BTreeMap<usize, BTreeMap<Role, String>>;

/// The modules in the order of their numbers, or a sentence that says why the file is for another model.
pub fn modules<'a>(
    part: ModelPart,
    numbered: &Numbered,
    file: &TensorFile,
    names: &'a ModuleNames,
) -> Result<Vec<&'a ModelModule>, String> {
    let classes = file.note(part.name());
    let has_resnets = |classes: &str| classes.contains("ResnetBlock2D");
    let extended = match classes {
        Some(classes) => vec![has_resnets(classes)],
        None => vec![false, true],
    };
    for extended in extended {
        for old in [true, false] {
            let modules = order(part, names, extended, old);
            let fits = |(number, tensors): (&usize, &BTreeMap<Role, String>)| {
                modules.get(*number).is_some_and(|module| fit(module, tensors, file))
            };
            if numbered.iter().all(fits) {
                return Ok(modules);
            }
        }
    }
    Err(format!(
        "its {} numbered modules of the {part} do not fit this model's, in no order that trainers had",
        numbered.len()
    ))
}

fn order(part: ModelPart, names: &ModuleNames, extended: bool, old: bool) -> Vec<&ModelModule> {
    let mut modules: Vec<_> = names
        .of_part(part)
        .filter_map(|module| Some((place(part, &module.path, extended, old)?, module)))
        .collect();
    modules.sort_by(|(one, _), (other, _)| one.cmp(other));
    modules.into_iter().map(|(_, module)| module).collect()
}

/// Where the trainer meets a module. None for modules that it leaves alone.
fn place(part: ModelPart, path: &str, extended: bool, old: bool) -> Option<Vec<usize>> {
    let words: Vec<&str> = path.split('.').collect();
    let position = |list: &[&str], word: &str| list.iter().position(|known| *known == word);
    if part == ModelPart::TextEncoder {
        let ["text_model", "encoder", "layers", layer, "self_attn", layer_name] = words[..] else {
            return None;
        };
        return Some(vec![
            layer.parse().ok()?,
            position(&["k_proj", "v_proj", "q_proj", "out_proj"], layer_name)?,
        ]);
    }
    // The middle block is made last.
    let (block, rest) = match words[..] {
        ["down_blocks", block, ref rest @ ..] => ([0, block.parse().ok()?], rest),
        ["up_blocks", block, ref rest @ ..] => ([1, block.parse().ok()?], rest),
        ["mid_block", ref rest @ ..] => ([2, 0], rest),
        _ => return None,
    };
    let inside = match *rest {
        ["attentions", attention, "transformer_blocks", transformer, "ff", "net", "0", "proj"] => {
            [0, attention.parse().ok()?, transformer.parse().ok()?, if old { 1 } else { 2 }, 0]
        }
        ["attentions", attention, "transformer_blocks", transformer, name, ref layer @ ..] => {
            let second = if old { 2 } else { 1 };
            let name = match name {
                "attn1" => 0,
                "attn2" => second,
                _ => return None,
            };
            let layer = match *layer {
                [layer] => position(&["to_q", "to_k", "to_v"], layer)?,
                ["to_out", "0"] => 3,
                _ => return None,
            };
            [0, attention.parse().ok()?, transformer.parse().ok()?, name, layer]
        }
        ["resnets", resnet, layer] if extended => [
            1,
            resnet.parse().ok()?,
            position(&["conv1", "time_emb_proj", "conv2", "conv_shortcut"], layer)?,
            0,
            0,
        ],
        _ => return None,
    };
    Some([&block[..], &inside].concat())
}

/// Whether a module's matrices fit its weight, by their outer sizes.
fn fit(module: &ModelModule, tensors: &BTreeMap<Role, String>, file: &TensorFile) -> bool {
    let weight = module.weight.as_deref().unwrap_or_default();
    let size = |role: Role, axis: usize| {
        tensors.get(&role).and_then(|name| file.shape(name)).and_then(|shape| shape.get(axis))
    };
    size(Role::Up, 0) == weight.first() && size(Role::Down, 1) == weight.get(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_in_the_order_in_which_diffusers_makes_them() {
        let block = "down_blocks.0.attentions.0.transformer_blocks.0";
        let paths = [
            format!("{block}.attn1.to_q"),
            format!("{block}.attn1.to_k"),
            format!("{block}.attn1.to_v"),
            format!("{block}.attn1.to_out.0"),
            format!("{block}.ff.net.0.proj"),
            format!("{block}.attn2.to_q"),
            format!("{block}.attn2.to_out.0"),
            "down_blocks.0.resnets.0.conv1".to_owned(),
            "down_blocks.0.resnets.0.time_emb_proj".to_owned(),
            "up_blocks.0.resnets.0.conv2".to_owned(),
            "mid_block.attentions.0.transformer_blocks.0.attn1.to_q".to_owned(),
        ];
        let places: Vec<_> =
            paths.iter().map(|path| place(ModelPart::UNet, path, true, true).unwrap()).collect();
        assert!(places.is_sorted(), "{places:?}");
        let newer = |path: &str| place(ModelPart::UNet, path, false, false);
        assert!(newer(&paths[6]).unwrap() < newer(&paths[4]).unwrap(), "the feed-forward layer is behind");
        for path in ["conv_in", "down_blocks.0.resnets.0.conv1", "down_blocks.0.attentions.0.proj_in", "x"] {
            assert_eq!(newer(path), None, "{path}");
        }
        let text = |layer: &str| {
            place(
                ModelPart::TextEncoder,
                &format!("text_model.encoder.layers.3.self_attn.{layer}"),
                false,
                true,
            )
        };
        assert!(text("k_proj") < text("v_proj") && text("v_proj") < text("q_proj"));
        assert_eq!(place(ModelPart::TextEncoder, "text_model.encoder.layers.3.mlp.fc1", false, true), None);
    }
}
