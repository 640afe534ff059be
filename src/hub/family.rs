//! Whether a repository's own configuration says that its model is of another family, before any weights come.

use serde::Deserialize;
use serde_json::Value;

/// `model_index.json`.
#[derive(Deserialize, Default)]
pub struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    text_encoder_2: Option<Value>,
}

/// `unet/config.json`.
#[derive(Deserialize, Default)]
pub struct UNetConfig {
    cross_attention_dim: Option<Value>,
    addition_embed_type: Option<Value>,
}

/// The family, unless it is Stable Diffusion v1 as far as can be seen.
pub fn other_family(index: &ModelIndex, unet: &UNetConfig) -> Option<String> {
    let class = index.class_name.as_deref().unwrap_or("StableDiffusionPipeline");
    let has_two_encoders = index.text_encoder_2.as_ref().is_some_and(|part| !is_absent(part))
        || unet.addition_embed_type.as_ref().and_then(Value::as_str) == Some("text_time");
    let width = unet.cross_attention_dim.as_ref().and_then(Value::as_i64);
    if class.contains("XL") {
        Some(format!("Stable Diffusion XL ({class} in its model_index.json)"))
    } else if !class.contains("StableDiffusion") || class.contains("StableDiffusion3") {
        Some(format!(
            "a {} by its model_index.json",
            class.chars().take(80).collect::<String>().escape_debug()
        ))
    } else if has_two_encoders || width == Some(2048) {
        Some("Stable Diffusion XL (it has two text encoders)".to_owned())
    } else if width == Some(1024) {
        Some("Stable Diffusion 2 (its cross_attention_dim is 1024)".to_owned())
    } else {
        None
    }
}

/// Parts that a pipeline could have and has not are `[null, null]`.
fn is_absent(part: &Value) -> bool {
    part.as_array().is_none_or(|names| names.iter().all(Value::is_null))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn families_are_told_by_class_width_and_encoders() {
        let family = |index: Value, unet: Value| {
            other_family(&serde_json::from_value(index).unwrap(), &serde_json::from_value(unet).unwrap())
        };
        for class in
            ["StableDiffusionPipeline", "StableDiffusionInpaintPipeline", "OnnxStableDiffusionPipeline"]
        {
            assert_eq!(family(json!({"_class_name": class}), json!({"cross_attention_dim": 768})), None);
        }
        assert_eq!(family(json!({}), json!({})), None);
        assert_eq!(family(json!({"text_encoder_2": [null, null]}), json!({})), None);
        for (index, unet, part) in [
            (json!({"_class_name": "StableDiffusionXLPipeline"}), json!({}), "Stable Diffusion XL"),
            (json!({"_class_name": "StableDiffusion3Pipeline"}), json!({}), "a StableDiffusion3Pipeline"),
            (json!({"_class_name": "FluxPipeline"}), json!({}), "a FluxPipeline"),
            (json!({}), json!({"cross_attention_dim": 1024}), "Stable Diffusion 2"),
            (json!({}), json!({"cross_attention_dim": 2048}), "Stable Diffusion XL"),
            (json!({"text_encoder_2": ["transformers", "CLIPTextModel"]}), json!({}), "Stable Diffusion XL"),
        ] {
            assert!(family(index, unet).unwrap().starts_with(part), "{part}");
        }
    }
}
