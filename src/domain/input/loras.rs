//! A request's LoRAs: those that it asks for, of those that there are.

use super::{InputRules, Reader};
use crate::domain::lora::{self, Lora, LoraOrigin, MAX_LORAS};

const NO_LORAS: &str = "is not supported by this model, whose weights lie inside its ONNX graphs: a model of \
.safetensors files takes LoRAs.";

/// The field's LoRA, then those of the prompt's tags. Tags of the negative prompt are taken out of its words and mean
/// nothing, since what is merged into a model speaks to both prompts.
pub(super) fn read(reader: &mut Reader, rules: &InputRules, prompt: &str) -> Vec<Lora> {
    let scale = reader.number("lora_scale", "from 0 to 1", |s| (0.0..=1.0).contains(&s)).unwrap_or(1.0);
    let name = reader.string("lora");
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
                loras.push(Lora { name, unet: scale, text_encoder: scale, origin: LoraOrigin::Field });
            }
            Err(sentence) => reader.unmet("lora", &sentence),
        }
    }
    match lora::loras_of_tags(prompt, shelf) {
        Ok(tagged) => loras.extend(tagged),
        Err(sentence) => reader.unmet("prompt", &sentence),
    }
    if loras.len() > MAX_LORAS {
        reader.unmet(
            "prompt",
            &format!("It asks for more than {MAX_LORAS} LoRAs, which is the most there may be."),
        );
    }
    loras
}
