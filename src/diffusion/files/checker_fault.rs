//! Why a model's safety checker cannot be used. Our graph is for the one that every Stable Diffusion v1 model has.
//!
//! A model with a checker that cannot be used still draws. Requests for its verdict are told that there is none.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{GraphBuild, ModelPlace, PartFiles, PartGraph};

/// The sizes of CLIP ViT-L/14's vision model, which our graph has.
const SIZES: [(&str, u64); 6] = [
    ("hidden_size", 1024),
    ("intermediate_size", 4096),
    ("num_hidden_layers", 24),
    ("num_attention_heads", 16),
    ("image_size", 224),
    ("patch_size", 14),
];
/// What CLIP's pictures are normalised with, as `image/clip.rs` does it.
const MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f64; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];
/// Files state five to eight digits.
const TOLERANCE: f64 = 1e-4;

/// `safety_checker/config.json`.
#[derive(Deserialize, Default)]
struct CheckerConfig {
    vision_config: Option<Map<String, Value>>,
}

/// `feature_extractor/preprocessor_config.json`.
#[derive(Deserialize, Default)]
struct PreprocessorConfig {
    image_mean: Option<Vec<f64>>,
    image_std: Option<Vec<f64>>,
}

/// Why the checker with these files cannot be used. None if it can. One with a graph of its own is not looked into.
pub(super) fn checker_fault(place: &ModelPlace, files: &PartFiles) -> Option<String> {
    if !files.takes_our_graph() {
        return None;
    }
    check(place, files).err()
}

fn check(place: &ModelPlace, files: &PartFiles) -> Result<(), String> {
    // A model that brings a graph for the weights may have other sizes.
    let graph = files.graph(GraphBuild::Cpu).map_err(|error| error.to_string())?;
    let is_ours = matches!(graph, PartGraph::Weightless(graph) if graph.is_built_in());
    if is_ours {
        let config: CheckerConfig = read(place, "safety_checker/config.json")?;
        check_sizes(&config.vision_config.unwrap_or_default())?;
    }
    check_pictures(&read(place, "feature_extractor/preprocessor_config.json")?)?;
    files.check_weights().map_err(|error| match is_ours {
        true => format!("its weights are not those of a checker with CLIP ViT-L/14: {error}"),
        false => error.to_string(),
    })
}

/// A configuration, with nothing set if there is none.
fn read<T: DeserializeOwned + Default>(place: &ModelPlace, file: &str) -> Result<T, String> {
    let config = place.config(file).map_err(|error| error.to_string())?;
    let config = config.map(|file| file.as_value()).transpose().map_err(|error| error.to_string())?;
    Ok(config.unwrap_or_default())
}

fn check_sizes(vision: &Map<String, Value>) -> Result<(), String> {
    for (name, ours) in SIZES {
        let other = vision.get(name).filter(|value| value.as_u64() != Some(ours) && !value.is_null());
        if let Some(theirs) = other {
            let theirs: String = theirs.to_string().chars().take(40).collect();
            return Err(format!(
                "its {name} is {theirs}, and stablehand knows only checkers with CLIP ViT-L/14, where it is {ours}"
            ));
        }
    }
    match vision.get("hidden_act").and_then(Value::as_str) {
        None | Some("quick_gelu") => Ok(()),
        Some(other) => {
            let other: String = other.chars().take(40).collect();
            Err(format!("its hidden_act is {other:?}, and stablehand knows only checkers with quick_gelu"))
        }
    }
}

fn check_pictures(config: &PreprocessorConfig) -> Result<(), String> {
    let differ = |theirs: Option<&Vec<f64>>, ours: [f64; 3]| {
        let near = |theirs: &Vec<f64>| {
            theirs.len() == 3 && theirs.iter().zip(ours).all(|(a, b)| (a - b).abs() <= TOLERANCE)
        };
        theirs.is_some_and(|theirs| !near(theirs))
    };
    if differ(config.image_mean.as_ref(), MEAN) || differ(config.image_std.as_ref(), STD) {
        return Err(
            "its feature_extractor normalises pictures in another way than CLIP, which stablehand does not know"
                .to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sizes(vision: &Value) -> Result<(), String> {
        check_sizes(vision.as_object().unwrap())
    }

    #[test]
    fn the_checker_of_every_v1_model_is_known_and_another_size_is_named() {
        // As in the folders of Stable Diffusion v1.5; other keys are of no interest.
        let vit_l = json!({"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "image_size": 224, "patch_size": 14, "hidden_act": "quick_gelu", "top_k": 50});
        assert_eq!(sizes(&vit_l), Ok(()));
        assert_eq!(sizes(&json!({})), Ok(()));
        let sentence = sizes(&json!({"hidden_size": 1280, "num_hidden_layers": 32})).unwrap_err();
        assert!(sentence.contains("hidden_size is 1280") && sentence.contains("CLIP ViT-L/14"), "{sentence}");
        assert!(sizes(&json!({"hidden_act": "gelu"})).unwrap_err().contains("gelu"));
    }

    #[test]
    fn another_normalisation_is_refused() {
        let config = |mean: &[f64]| PreprocessorConfig { image_mean: Some(mean.to_vec()), image_std: None };
        assert_eq!(check_pictures(&config(&[0.481_454_66, 0.457_827_5, 0.408_210_73])), Ok(()));
        assert!(check_pictures(&config(&[0.5, 0.5, 0.5])).is_err());
        assert!(check_pictures(&config(&[])).is_err());
    }
}
