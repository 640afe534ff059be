//! PEFT's configuration of a LoRA, above all its alpha: in the file's own metadata, as diffusers writes it
//! (`lora_adapter_metadata`, where keys begin with the part), or in `adapter_config.json` beside the file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::domain::ModelPart;

const METADATA_KEY: &str = "lora_adapter_metadata";
/// PEFT's own names of the two files.
const WEIGHTS: &str = "adapter_model.safetensors";
const CONFIG: &str = "adapter_config.json";
const LARGEST_CONFIG: u64 = 1 << 20;

/// The fields; empty where there is no configuration.
#[derive(Debug, Default)]
pub struct PeftConfig(Map<String, Value>);

impl PeftConfig {
    /// For the LoRA at `path`. `metadata` is the value of [`Self::metadata_key`] in the file, if it has one.
    pub fn read(path: &Path, metadata: Option<&str>) -> Result<Self, String> {
        let (place, text) = if let Some(text) = metadata {
            (METADATA_KEY, text.to_owned())
        } else if path.file_name().is_some_and(|name| name == WEIGHTS) {
            let mut text = String::new();
            match File::open(path.with_file_name(CONFIG)) {
                Ok(file) => file.take(LARGEST_CONFIG).read_to_string(&mut text),
                Err(_) => return Ok(Self::default()),
            }
            .map_err(|error| format!("{CONFIG} beside it cannot be read: {error}"))?;
            (CONFIG, text)
        } else {
            return Ok(Self::default());
        };
        let fields = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| format!("its {place} is not a JSON object: {error}"))?;
        Ok(Self(fields))
    }

    pub const fn metadata_key() -> &'static str {
        METADATA_KEY
    }

    /// The factor of a module's product where the tensors state no alpha. `module` is its name in a state dict.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "ranks are small; as PEFT computes"
    )]
    pub fn scaling(&self, part: ModelPart, module: &str, rank: usize) -> f32 {
        let rank = rank as f64;
        let patterned = self.get(part, "alpha_pattern").and_then(Value::as_object).and_then(|patterns| {
            let is_end = |end: &str| {
                module.strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('.'))
            };
            patterns.iter().find(|(end, _)| is_end(end)).and_then(|(_, alpha)| alpha.as_f64())
        });
        let alpha =
            patterned.or_else(|| self.get(part, "lora_alpha").and_then(Value::as_f64)).unwrap_or(rank);
        let by_root = self.get(part, "use_rslora").and_then(Value::as_bool) == Some(true);
        (alpha / if by_root { rank.sqrt() } else { rank }) as f32
    }

    fn get(&self, part: ModelPart, key: &str) -> Option<&Value> {
        self.0.get(&format!("{part}.{key}")).or_else(|| self.0.get(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(json: &str) -> PeftConfig {
        PeftConfig::read(Path::new("fox.safetensors"), Some(json)).unwrap()
    }

    fn is(value: f32, expected: f32) -> bool {
        (value - expected).abs() < 1e-6
    }

    #[test]
    fn the_factor_is_alpha_over_the_rank_and_1_without_a_configuration() {
        assert!(is(adapter("{}").scaling(ModelPart::UNet, "a.to_q", 4), 1.0));
        assert!(is(adapter(r#"{"lora_alpha": 2}"#).scaling(ModelPart::UNet, "a.to_q", 4), 0.5));
        assert!(is(
            adapter(r#"{"lora_alpha": 2, "use_rslora": true}"#).scaling(ModelPart::UNet, "a", 4),
            1.0
        ));
    }

    #[test]
    fn each_part_and_each_module_may_have_its_own_alpha() {
        let adapter = adapter(
            r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}, "text_encoder.lora_alpha": 1}"#,
        );
        assert!(is(adapter.scaling(ModelPart::UNet, "b.attn1.to_q", 4), 0.5));
        assert!(is(adapter.scaling(ModelPart::UNet, "b.xattn1.to_q", 4), 2.0));
        assert!(is(adapter.scaling(ModelPart::TextEncoder, "a.q_proj", 4), 0.25));
    }

    #[test]
    fn a_configuration_that_is_not_an_object_is_refused() {
        for json in ["", "[]", "{", "null"] {
            assert!(PeftConfig::read(Path::new("a"), Some(json)).is_err(), "{json}");
        }
    }
}
