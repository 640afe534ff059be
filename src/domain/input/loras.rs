//! The LoRAs of a request.

use super::{InputRules, Reader};
use crate::domain::lora::{self, Lora, LoraOrigin, MAX_LORAS};

const NO_LORAS: &str = "is not supported by this model, because its weights are inside its ONNX graphs; use a model \
with .safetensors files.";

/// Reads the LoRA of the field, then those of the tags in the prompt. Tags in the negative prompt are removed and have no
/// effect, because a merged LoRA changes the model for both prompts.
pub(super) fn read(
    reader: &mut Reader,
    rules: &InputRules,
    prompt: &str,
    warnings: &mut Vec<String>,
) -> Vec<Lora> {
    let scale = reader.number("lora_scale", "from 0 to 1", |s| (0.0..=1.0).contains(&s)).unwrap_or(1.0);
    let name = reader.string("lora");
    if reader.is_present("lora_scale") && !reader.is_present("lora") {
        warnings.push("lora_scale has no effect without lora.".to_owned());
    }
    let Some(shelf) = rules.loras.as_deref() else {
        if name.is_some() {
            reader.violation(format!("lora {NO_LORAS}"));
        }
        if lora::has_lora_tags(prompt) {
            reader.unmet("prompt", &format!("A <lora:…> in it {NO_LORAS}"));
        }
        return Vec::new();
    };
    let mut loras = Vec::new();
    if let Some(name) = name {
        match lora::find(name, shelf) {
            Ok(name) => {
                let origin = LoraOrigin::Field;
                loras.push(Lora { name, unet: scale, text_encoder: scale, blocks: None, origin });
            }
            Err(sentence) => reader.unmet("lora", &sentence),
        }
    }
    match lora::loras_in(prompt, shelf) {
        Ok(tagged) => loras.extend(tagged),
        Err(sentence) => reader.unmet("prompt", &sentence),
    }
    if loras.len() > MAX_LORAS {
        reader.unmet(
            "prompt",
            &format!("The request names more than {MAX_LORAS} LoRAs; at most {MAX_LORAS} are allowed."),
        );
    }
    loras
}
