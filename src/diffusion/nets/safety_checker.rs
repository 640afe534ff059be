//! The safety checker of some model folders: CLIP's vision model with a list of concepts, all in one graph.

use std::time::Duration;

use ndarray::Array4;
use ort::value::TensorElementType;

use super::ModelError;
use super::port::Port;
use super::session::{PartSession, tensor};
use crate::diffusion::image::{RgbImage, clip_input};
use crate::domain::ModelPart;

pub struct SafetyChecker {
    session: PartSession,
    clip_input: Port,
    /// The picture itself. Some graphs take it and return it black if it is flagged; that output is not used.
    images: Option<Port>,
    has_nsfw_concepts: Port,
}

/// The side of CLIP's pictures in pixels, if the graph does not state it.
const SIDE: u32 = 224;

impl SafetyChecker {
    pub fn new(session: PartSession) -> Result<Self, ModelError> {
        // Exporters leave all sizes open, so only the names distinguish the two pictures.
        let is_clip = |port: &Port| port.rank() == 4 && port.name.contains("clip");
        let clip_input = session.input("picture that CLIP reads (clip_input)", is_clip)?;
        let images = session.input("picture", |port| port.rank() == 4 && !is_clip(port)).ok();
        let known: Vec<&Port> = images.iter().chain([&clip_input]).collect();
        session.only(&known)?;
        let has_nsfw_concepts =
            session.output_with_element(TensorElementType::Bool, "verdict (has_nsfw_concepts)")?;
        Ok(Self { session, clip_input, images, has_nsfw_concepts })
    }

    /// Whether it flags the picture.
    pub fn flags(&mut self, image: &RgbImage) -> Result<bool, ModelError> {
        let unusable = |error: &dyn std::fmt::Display| ModelError::Run {
            part: ModelPart::SafetyChecker,
            reason: error.to_string(),
        };
        let side = self.clip_input.fixed(2).and_then(|side| u32::try_from(side).ok()).unwrap_or(SIDE);
        let seen = clip_input(image, side).map_err(|error| unusable(&error))?;
        let mut inputs = vec![(self.clip_input.name.as_str(), tensor(&self.clip_input, &seen)?)];
        if let Some(port) = &self.images {
            let shape = (1, image.height as usize, image.width as usize, 3);
            let values = image.pixels.iter().map(|&byte| f32::from(byte) / 255.0).collect();
            let pixels = Array4::from_shape_vec(shape, values).map_err(|error| unusable(&error))?;
            inputs.push((port.name.as_str(), tensor(port, &pixels)?));
        }
        let verdict = self.session.run(inputs, &self.has_nsfw_concepts)?;
        Ok(verdict.iter().any(|&flag| flag != 0.0))
    }

    pub fn time_in_run(&self) -> Duration {
        self.session.time_in_run()
    }
}
