//! What a checkpoint in one file says about itself: that it predicts v, and that its noise ends without any signal.
//!
//! The words are those that other programs (A1111, Forge, `ComfyUI`) look for: `NAME.yaml` beside `NAME.safetensors` (the original code's
//! configuration), the empty tensors `v_pred` and `ztsnr`, and `modelspec.prediction_type` in the file's metadata. Folders
//! say it in `scheduler_config.json`.

use std::path::Path;

use super::model_place::read_text;
use super::original_yaml::OriginalYaml;
use super::{FileError, ModelPlace, TensorFile};
use crate::diffusion::schedulers::SchedulerConfig;

/// Empty tensors that mark a checkpoint.
pub(super) const V_PREDICTION: &str = "v_pred";
pub(super) const ZERO_SNR: &str = "ztsnr";
/// Keys of the metadata, by Stability's specification and as `ComfyUI` writes it.
const METADATA: [&str; 2] = ["modelspec.prediction_type", "modelspec.predict_key"];
/// Characters of a word that a sentence quotes.
const LONGEST_WORD: usize = 40;
/// Bytes of the largest yaml. The original code's has two thousand.
const LARGEST_YAML: u64 = 256 << 10;

/// What was found, and what says so.
#[derive(Debug, Default, PartialEq)]
pub struct OwnWords {
    /// As `scheduler_config.json` would have it.
    prediction: Option<(&'static str, String)>,
    is_zero_snr: bool,
    yaml: OriginalYaml,
    /// Sentences about words that are not understood.
    pub notes: Vec<String>,
}

impl OwnWords {
    pub fn read(place: &ModelPlace) -> Result<Self, FileError> {
        let ModelPlace::Checkpoint { path, file, .. } = place else { return Ok(Self::default()) };
        let yaml = path.with_extension("yaml");
        let name = yaml.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let yaml = match yaml.is_file() {
            true => read_yaml(&yaml).map_err(|reason| FileError::Config { file: name.clone(), reason })?,
            false => OriginalYaml::default(),
        };
        let mut words = Self { is_zero_snr: file.shape(ZERO_SNR).is_some(), ..Self::default() };
        // The first that speaks is heard: the yaml is the user's own choice.
        let stated = yaml.parameterization.as_ref().map(|value| (value.clone(), name));
        let marked =
            || file.shape(V_PREDICTION).map(|_| ("v".to_owned(), format!("its tensor {V_PREDICTION}")));
        match stated.or_else(marked).or_else(|| in_metadata(file)) {
            None => {}
            Some((value, source)) => match prediction(&value) {
                Some(prediction) => words.prediction = Some((prediction, source)),
                None => words.notes.push(format!(
                    "{source} says that it predicts {:?}, which stablehand does not know: epsilon is used",
                    value.chars().take(LONGEST_WORD).collect::<String>()
                )),
            },
        }
        words.yaml = yaml;
        Ok(words)
    }

    /// The schedule of a checkpoint of this kind with the words over it.
    pub fn over(&self, scheduler: Option<SchedulerConfig>) -> Option<SchedulerConfig> {
        if *self == Self::default() {
            return scheduler;
        }
        let mut scheduler = scheduler.unwrap_or_default();
        if let Some((prediction, _)) = &self.prediction {
            scheduler.prediction_type = Some((*prediction).to_owned());
        }
        if self.is_zero_snr {
            scheduler.rescale_betas_zero_snr = Some(true);
            // Other spacings leave out the last timestep, which is the one without signal.
            scheduler.timestep_spacing = Some("trailing".to_owned());
        }
        let OriginalYaml { linear_start, linear_end, timesteps, .. } = self.yaml;
        scheduler.beta_start = linear_start.or(scheduler.beta_start);
        scheduler.beta_end = linear_end.or(scheduler.beta_end);
        scheduler.num_train_timesteps = timesteps.or(scheduler.num_train_timesteps);
        Some(scheduler)
    }

    /// What its latents are multiplied by, where the yaml says so.
    pub fn scaling_factor(&self) -> Option<f32> {
        self.yaml.scale_factor
    }

    /// What says how its answers are to be read, if something does.
    pub fn source(&self) -> Option<&str> {
        self.prediction.as_ref().map(|(_, source)| source.as_str())
    }
}

fn read_yaml(path: &Path) -> Result<OriginalYaml, String> {
    let bytes = read_text(path, LARGEST_YAML).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    OriginalYaml::parse(&text)
}

fn in_metadata(file: &TensorFile) -> Option<(String, String)> {
    let found = METADATA.iter().find_map(|key| Some((key, file.note(key)?.trim())));
    found
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (value.to_owned(), format!("its metadata ({key})")))
}

/// The word of `scheduler_config.json` for what people and programs write.
fn prediction(value: &str) -> Option<&'static str> {
    match value.trim().to_ascii_lowercase().as_str() {
        "v" | "v_prediction" | "v-prediction" | "v_pred" | "velocity" => Some("v_prediction"),
        "eps" | "epsilon" => Some("epsilon"),
        "x0" | "sample" => Some("sample"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_it_is_understood() {
        for (value, word) in [
            ("v", "v_prediction"),
            (" V_prediction", "v_prediction"),
            ("epsilon", "epsilon"),
            ("x0", "sample"),
        ] {
            assert_eq!(prediction(value), Some(word), "{value}");
        }
        assert_eq!(prediction("flow"), None);
    }

    #[test]
    fn without_a_word_the_schedule_stays_as_it_is() {
        assert_eq!(OwnWords::default().over(None), None);
        let words = OwnWords { is_zero_snr: true, ..OwnWords::default() };
        let scheduler = words.over(Some(SchedulerConfig::default())).unwrap();
        assert_eq!(scheduler.rescale_betas_zero_snr, Some(true));
        assert_eq!(scheduler.timestep_spacing.as_deref(), Some("trailing"));
        assert_eq!(scheduler.beta_start, SchedulerConfig::default().beta_start);
    }
}
