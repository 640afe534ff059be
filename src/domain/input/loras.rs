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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{GenerationInput, LoraShelf};

    /// A folder with the LoRAs fur and ink.
    #[derive(Debug)]
    struct FurAndInk;

    impl LoraShelf for FurAndInk {
        fn find(&self, name: &str) -> Result<String, String> {
            let found = ["fur", "ink"]
                .into_iter()
                .find(|there| name.strip_suffix(".safetensors").unwrap_or(name) == *there);
            found.map(str::to_owned).ok_or_else(|| format!("There is no LoRA {name}."))
        }

        fn names(&self) -> Vec<String> {
            vec!["fur".to_owned(), "ink".to_owned()]
        }
    }

    fn with_loras() -> InputRules {
        InputRules { loras: Some(Arc::new(FurAndInk)), ..InputRules::default() }
    }

    #[test]
    fn the_field_and_the_prompt_name_loras() {
        let prompt = "a fox <lora:ink:0.5:2>";
        let request = json!({"prompt": prompt, "lora": "fur.safetensors", "lora_scale": 0.3, "negative_prompt": "<lora:none>"});
        let input = GenerationInput::parse(&request, &with_loras()).unwrap();
        let lora = |name: &str, unet, text_encoder, origin| Lora {
            name: name.to_owned(),
            unet,
            text_encoder,
            blocks: None,
            origin,
        };
        let expected = [lora("fur", 0.3, 0.3, LoraOrigin::Field), lora("ink", 2.0, 0.5, LoraOrigin::Prompt)];
        assert_eq!((input.loras.as_slice(), input.prompt.as_str()), (&expected[..], prompt));
        let again = input.request_for(7, 0);
        assert_eq!(
            (&again["lora"], &again["lora_scale"], &again["prompt"]),
            (&json!("fur"), &json!(0.3), &json!(prompt))
        );
        let parsed = GenerationInput::parse(&again, &with_loras()).unwrap();
        assert_eq!(parsed.loras, input.loras);
    }

    #[test]
    fn a_missing_lora_is_refused_by_name() {
        let refused = |input: Value| GenerationInput::parse(&input, &with_loras()).unwrap_err().0;
        assert_eq!(
            refused(json!({"prompt": "<lora:cat>", "lora": "dog", "lora_scale": 2})),
            [
                "lora_scale does not meet the constraints. It is 2; it must be from 0 to 1.",
                "lora does not meet the constraints. There is no LoRA dog.",
                "prompt does not meet the constraints. There is no LoRA cat.",
            ]
        );
        assert_eq!(
            refused(json!({"prompt": "<lora:ink>".repeat(9)})),
            [
                "prompt does not meet the constraints. The request names more than 8 LoRAs; at most 8 are allowed."
            ]
        );
        assert_eq!(refused(json!({"prompt": "", "lora": ["ink"]})), ["lora should be str type, not list."]);
    }

    #[test]
    fn a_model_without_lora_support_refuses_loras() {
        let why = "is not supported by this model, because its weights are inside its ONNX graphs; use a model with \
                   .safetensors files.";
        assert_eq!(
            GenerationInput::parse(&json!({"prompt": "<lora:ink>", "lora": "fur"}), &InputRules::default())
                .unwrap_err()
                .0,
            [format!("lora {why}"), format!("prompt does not meet the constraints. A <lora:…> in it {why}"),]
        );
    }
}
