//! PEFT's configuration of a LoRA or of a kind like it, above all its alpha: in the file's own metadata, as diffusers writes it
//! (`lora_adapter_metadata`, where keys begin with the part), or in `adapter_config.json` beside the file.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use super::super::model_place::read_text;
use super::rotation::Formula;
use crate::domain::ModelPart;

const METADATA_KEY: &str = "lora_adapter_metadata";
/// PEFT's own names of the two files.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];
const CONFIG: &str = "adapter_config.json";
const LARGEST_CONFIG: u64 = 1 << 20;
/// More terms of a series change nothing that a weight could hold.
const MOST_TERMS: u64 = 64;

/// How PEFT's OFT makes rotations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OftSettings {
    pub formula: Formula,
    /// The largest norm of a block, where it is constrained.
    pub limit: Option<f64>,
}

/// The fields; empty where there is no configuration.
#[derive(Debug, Default)]
pub struct PeftConfig {
    fields: Map<String, Value>,
    /// Whether PEFT wrote one beside the file, which is not there.
    is_missing: bool,
}

impl PeftConfig {
    /// For the LoRA at `path`. `metadata` is the value of [`Self::metadata_key`] in the file, if it has one.
    pub fn read(path: &Path, metadata: Option<&str>) -> Result<Self, String> {
        let (place, text) = if let Some(text) = metadata {
            (METADATA_KEY, text.to_owned())
        } else if path.file_name().is_some_and(|name| WEIGHTS.iter().any(|usual| name == *usual)) {
            let text = match read_text(&path.with_file_name(CONFIG), LARGEST_CONFIG) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Ok(Self { is_missing: true, ..Self::default() });
                }
                text => text.map_err(|error| error.to_string()),
            };
            let text = text.and_then(|text| String::from_utf8(text).map_err(|error| error.to_string()));
            (CONFIG, text.map_err(|reason| format!("{CONFIG} beside it cannot be read: {reason}"))?)
        } else {
            return Ok(Self::default());
        };
        let fields = serde_json::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|error| format!("its {place} is not a JSON object: {error}"))?;
        Ok(Self { fields, is_missing: false })
    }

    /// Whether the file has a name that PEFT gives, and the configuration that belongs to it is not there.
    pub fn is_missing(&self) -> bool {
        self.is_missing
    }

    pub const fn metadata_key() -> &'static str {
        METADATA_KEY
    }

    /// The factor of a module's change where the tensors state no alpha. `module` is its name in a state dict. Without a
    /// rank, that of the configuration counts; if it has none either, the factor is 1.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "ranks are small; as PEFT computes"
    )]
    pub fn scaling(&self, part: ModelPart, module: &str, rank: Option<usize>) -> f32 {
        let rank = rank.map(|rank| rank as f64).or_else(|| {
            let patterned = self.patterned(part, "rank_pattern", module);
            patterned.or_else(|| self.get(part, "r").and_then(Value::as_f64)).filter(|rank| *rank > 0.0)
        });
        let Some(rank) = rank else { return 1.0 };
        let alpha = self
            .patterned(part, "alpha_pattern", module)
            .or_else(|| self.get(part, "lora_alpha").and_then(Value::as_f64))
            // In LoHa and LoKr.
            .or_else(|| self.get(part, "alpha").and_then(Value::as_f64))
            .unwrap_or(rank);
        let by_root = self.get(part, "use_rslora").and_then(Value::as_bool) == Some(true);
        (alpha / if by_root { rank.sqrt() } else { rank }) as f32
    }

    /// Whether a module is among the `feedforward_modules` of (IA)³. None without a list of them.
    pub fn is_feedforward(&self, part: ModelPart, module: &str) -> Option<bool> {
        let list = self.get(part, "feedforward_modules")?.as_array()?;
        Some(list.iter().filter_map(Value::as_str).any(|end| is_end(module, end)))
    }

    /// How OFT makes rotations; what the configuration does not say is as in PEFT's defaults.
    pub fn oft(&self, part: ModelPart) -> Result<OftSettings, String> {
        if self.is_missing {
            return Err(format!("it is an OFT of PEFT, which needs its {CONFIG}: put that beside it"));
        }
        let flag = |key: &str| self.get(part, key).and_then(Value::as_bool);
        let terms = self.get(part, "num_cayley_neumann_terms").and_then(Value::as_u64).unwrap_or(5);
        let formula = match flag("use_cayley_neumann").unwrap_or(true) {
            false => Formula::Minus,
            true if terms <= MOST_TERMS => {
                Formula::Series { terms: usize::try_from(terms).unwrap_or(usize::MAX) }
            }
            true => {
                return Err(format!(
                    "its num_cayley_neumann_terms is {terms}; at most {MOST_TERMS} are supported"
                ));
            }
        };
        let eps = self.get(part, "eps").and_then(Value::as_f64).unwrap_or(6e-5);
        Ok(OftSettings { formula, limit: flag("coft").unwrap_or(false).then_some(eps) })
    }

    fn patterned(&self, part: ModelPart, key: &str, module: &str) -> Option<f64> {
        let patterns = self.get(part, key)?.as_object()?;
        patterns.iter().find(|(end, _)| is_end(module, end)).and_then(|(_, value)| value.as_f64())
    }

    fn get(&self, part: ModelPart, key: &str) -> Option<&Value> {
        self.fields.get(&format!("{part}.{key}")).or_else(|| self.fields.get(key))
    }
}

/// Whether the module's name ends with this name.
fn is_end(module: &str, end: &str) -> bool {
    module.strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('.'))
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
        assert!(is(adapter("{}").scaling(ModelPart::UNet, "a.to_q", Some(4)), 1.0));
        assert!(is(adapter(r#"{"lora_alpha": 2}"#).scaling(ModelPart::UNet, "a.to_q", Some(4)), 0.5));
        assert!(is(
            adapter(r#"{"lora_alpha": 2, "use_rslora": true}"#).scaling(ModelPart::UNet, "a", Some(4)),
            1.0
        ));
    }

    #[test]
    fn each_part_and_each_module_may_have_its_own_alpha() {
        let adapter = adapter(
            r#"{"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn1.to_q": 2}, "text_encoder.lora_alpha": 1}"#,
        );
        assert!(is(adapter.scaling(ModelPart::UNet, "b.attn1.to_q", Some(4)), 0.5));
        assert!(is(adapter.scaling(ModelPart::UNet, "b.xattn1.to_q", Some(4)), 2.0));
        assert!(is(adapter.scaling(ModelPart::TextEncoder, "a.q_proj", Some(4)), 0.25));
    }

    #[test]
    fn a_whole_matrix_has_the_rank_of_the_configuration() {
        let lokr = adapter(r#"{"alpha": 2, "r": 8, "rank_pattern": {"to_k": 4}}"#);
        assert!(is(lokr.scaling(ModelPart::UNet, "a.to_q", None), 0.25));
        assert!(is(lokr.scaling(ModelPart::UNet, "a.to_k", None), 0.5));
        assert!(is(lokr.scaling(ModelPart::UNet, "a.to_k", Some(2)), 1.0));
        assert!(is(adapter("{}").scaling(ModelPart::UNet, "a.to_q", None), 1.0));
    }

    #[test]
    fn the_settings_of_oft_and_ia3_are_read() {
        let oft = |json: &str| adapter(json).oft(ModelPart::UNet);
        let series = OftSettings { formula: Formula::Series { terms: 5 }, limit: None };
        assert_eq!(oft("{}"), Ok(series));
        let exact = OftSettings { formula: Formula::Minus, limit: Some(0.5) };
        assert_eq!(oft(r#"{"use_cayley_neumann": false, "coft": true, "eps": 0.5}"#), Ok(exact));
        assert!(oft(r#"{"num_cayley_neumann_terms": 65}"#).unwrap_err().contains("at most 64"));
        let ia3 = adapter(r#"{"feedforward_modules": ["ff.net.2"]}"#);
        assert_eq!(ia3.is_feedforward(ModelPart::UNet, "a.ff.net.2"), Some(true));
        assert_eq!(ia3.is_feedforward(ModelPart::UNet, "a.to_k"), Some(false));
        assert_eq!(adapter("{}").is_feedforward(ModelPart::UNet, "a.to_k"), None);
    }

    #[test]
    fn a_configuration_that_is_not_there_is_said_and_one_that_cannot_be_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| PeftConfig::read(&folder.path().join(name), None);
        let missing = read("adapter_model.bin").unwrap();
        assert!(missing.is_missing() && !read("fox.safetensors").unwrap().is_missing());
        assert!(missing.oft(ModelPart::UNet).unwrap_err().contains("adapter_config.json"));
        let config = folder.path().join(CONFIG);
        std::fs::write(&config, "\u{feff}{\"lora_alpha\": 2}").unwrap();
        let found = read("adapter_model.safetensors").unwrap();
        assert!(is(found.scaling(ModelPart::UNet, "a", Some(4)), 0.5) && !found.is_missing());
        std::fs::write(&config, b"\xff").unwrap();
        assert!(read("adapter_model.bin").unwrap_err().contains("cannot be read"));
        std::fs::remove_file(&config).unwrap();
        std::fs::create_dir(&config).unwrap();
        assert!(read("adapter_model.bin").unwrap_err().contains("it is not a file"));
    }

    #[test]
    fn a_configuration_that_is_not_an_object_is_refused() {
        for json in ["", "[]", "{", "null"] {
            assert!(PeftConfig::read(Path::new("a"), Some(json)).is_err(), "{json}");
        }
    }
}
