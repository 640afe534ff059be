//! A ControlNet in a request: which one, the picture that it follows, and how much it says.
//!
//! The words are those of A1111's ControlNet extension, in lower case. A [`ControlNetShelf`] knows which ControlNets exist.

use std::fmt::Debug;

use super::{ImageSource, Preprocessor};

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
