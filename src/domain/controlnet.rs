//! A ControlNet in a request: which one, the picture that it follows, and how much it says.
//!
//! The words are those of A1111's ControlNet extension, in lower case. A [`ControlNetShelf`] knows which ControlNets exist.

use std::fmt::Debug;

use serde::Deserialize;
use serde_json::Value;

use super::{ImageSource, ModelFamily, Preprocessor};

/// The most ControlNets in one request. Each one is asked at every step.
pub const MAX_CONTROLNETS: usize = 4;
/// The largest weight.
pub const MAX_CONTROL_WEIGHT: f32 = 2.0;

/// One ControlNet of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlUnit {
    /// Its name on the shelf.
    pub model: String,
    /// The picture that it follows.
    pub image: ImageSource,
    /// The factor of everything that it says, 0 to 2.
    pub weight: f32,
    /// The share of the steps before which it says nothing, 0 to 1.
    pub start: f64,
    /// The share of the steps after which it says nothing, 0 to 1.
    pub end: f64,
    pub preprocess: Preprocessor,
    /// The preprocessor's numbers, in the order of [`Preprocessor::thresholds`]. 0 where it takes none.
    pub thresholds: [f32; 2],
    pub mode: ControlMode,
    pub resize: ControlResize,
}

/// Who is heard more: the prompt or the ControlNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlMode {
    Balanced,
    /// "My prompt is more important".
    Prompt,
    /// "ControlNet is more important": only the prediction for the prompt is controlled, not the one to guide away from.
    Control,
}

/// How the picture is brought to the size of the drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlResize {
    /// "Just Resize".
    Stretch,
    /// "Crop and Resize": the middle of the picture.
    Crop,
    /// "Resize and Fill": the whole picture, and the colour of its border beside it.
    Fill,
}

/// The ControlNets that exist for a model.
pub trait ControlNetShelf: Debug + Send + Sync {
    /// The name on the shelf of the ControlNet that `name` means. The error is a sentence that says why there is none.
    fn find(&self, name: &str) -> Result<String, String>;

    /// The names of all of them, sorted.
    fn names(&self) -> Vec<String>;
}

/// `config.json` of a ControlNet in diffusers' layout.
#[derive(Debug, Default, Deserialize)]
pub struct ControlNetConfig {
    #[serde(rename = "_class_name")]
    class_name: Option<String>,
    cross_attention_dim: Option<Value>,
    controlnet_conditioning_channel_order: Option<String>,
    /// Whether each channel of what it gives is averaged over the picture, and only the prompt's side gets it.
    #[serde(default)]
    pub global_pool_conditions: bool,
}

impl ControlNetConfig {
    /// Why it is none for Stable Diffusion v1: the end of a sentence.
    pub fn fault(&self) -> Option<String> {
        let class = self.class_name.as_deref().unwrap_or("ControlNetModel");
        if class != "ControlNetModel" {
            let class = class.chars().take(80).collect::<String>().escape_debug().to_string();
            return Some(format!(
                "it is a {class} according to its config.json; only a ControlNetModel can be used"
            ));
        }
        let width = self.cross_attention_dim.as_ref().and_then(Value::as_u64);
        let width = width.and_then(|width| usize::try_from(width).ok());
        let family = width.and_then(ModelFamily::from_embedding_width);
        if let Some(other) = family.filter(|family| *family != ModelFamily::StableDiffusion1) {
            return Some(format!("it is a ControlNet for {other}"));
        }
        let order = self.controlnet_conditioning_channel_order.as_deref().filter(|order| *order != "rgb");
        order
            .map(|_| "its config.json wants pictures with blue before red, which is not supported".to_owned())
    }
}

impl ControlMode {
    pub const ALL: [Self; 3] = [Self::Balanced, Self::Prompt, Self::Control];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Prompt => "prompt",
            Self::Control => "control",
        }
    }

    pub const fn a1111_name(self) -> &'static str {
        match self {
            Self::Balanced => "Balanced",
            Self::Prompt => "My prompt is more important",
            Self::Control => "ControlNet is more important",
        }
    }
}

impl ControlResize {
    pub const ALL: [Self; 3] = [Self::Stretch, Self::Crop, Self::Fill];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stretch => "stretch",
            Self::Crop => "crop",
            Self::Fill => "fill",
        }
    }

    pub const fn a1111_name(self) -> &'static str {
        match self {
            Self::Stretch => "Just Resize",
            Self::Crop => "Crop and Resize",
            Self::Fill => "Resize and Fill",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_tells_what_it_is_for() {
        let fault = |config: Value| serde_json::from_value::<ControlNetConfig>(config).unwrap().fault();
        let of_sd1 = json!({"_class_name": "ControlNetModel", "cross_attention_dim": 768,
            "controlnet_conditioning_channel_order": "rgb", "global_pool_conditions": false});
        assert_eq!(fault(of_sd1), None);
        assert_eq!(fault(json!({})), None);
        for (config, reason) in [
            (
                json!({"_class_name": "FluxControlNetModel"}),
                "a FluxControlNetModel according to its config.json",
            ),
            (json!({"_class_name": "AutoencoderKL"}), "a AutoencoderKL"),
            (
                json!({"_class_name": "ControlNetModel", "cross_attention_dim": 2048}),
                "for Stable Diffusion XL",
            ),
            (json!({"cross_attention_dim": 1024}), "for Stable Diffusion 2"),
            (json!({"controlnet_conditioning_channel_order": "bgr"}), "blue before red"),
        ] {
            assert!(fault(config).unwrap().contains(reason), "{reason}");
        }
    }
}
