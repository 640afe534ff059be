//! The safety checker as a pipeline uses it: loaded when a request first wants its verdict.
//!
//! Most servers never need it, and it is as large as the rest of the text side. Once loaded it stays. If it cannot be
//! loaded, the request fails: its pictures were to be checked.

use std::time::Duration;

use super::Model;
use crate::diffusion::image::RgbImage;
use crate::diffusion::nets::{ModelError, PartSession, SafetyChecker};
use crate::domain::ModelPart;
use crate::runtime::Runtime;

pub(super) struct Checking {
    model: Model,
    runtime: Runtime,
    loaded: Option<SafetyChecker>,
}

impl Checking {
    /// `None` if the model has no safety checker that works.
    pub fn new(model: &Model, runtime: &Runtime, loaded: Option<SafetyChecker>) -> Option<Self> {
        model.files.part(ModelPart::SafetyChecker)?;
        Some(Self { model: model.clone(), runtime: runtime.clone(), loaded })
    }

    /// Whether it flags the picture.
    pub fn flags(&mut self, image: &RgbImage) -> Result<bool, ModelError> {
        let checker = match self.loaded.take() {
            Some(checker) => checker,
            None => self.load()?,
        };
        self.loaded.insert(checker).flags(image)
    }

    fn load(&self) -> Result<SafetyChecker, ModelError> {
        let missing =
            || ModelError::Graph { part: ModelPart::SafetyChecker, reason: "it is missing".to_owned() };
        let files = self.model.files.part(ModelPart::SafetyChecker).ok_or_else(missing)?;
        SafetyChecker::new(PartSession::load(files, &self.runtime)?)
    }

    pub fn is_loaded(&self) -> bool {
        self.loaded.is_some()
    }

    pub fn time_in_run(&self) -> Duration {
        self.loaded.as_ref().map_or(Duration::ZERO, SafetyChecker::time_in_run)
    }
}
