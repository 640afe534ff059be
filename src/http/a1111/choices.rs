//! The settings that have a meaning here. A client sets them for all requests of the surface with `POST /options`, or for
//! one request with `override_settings`. They are kept in memory.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::checkpoint;
use crate::diffusion::image::PictureFile;
use crate::domain::{EndpointId, NoiseSource};
use crate::http::request::{Endpoints, ServedEndpoint};
use crate::http::surface::{FieldError, Fields};

/// The choices of the surface.
#[derive(Default)]
pub struct Choices(Mutex<Chosen>);

/// What is chosen. None is the default of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    pub endpoint: Option<EndpointId>,
    pub clip_skip: Option<u32>,
    pub noise: Option<NoiseSource>,
    pub format: Option<PictureFile>,
}

pub const CHECKPOINT: &str = "sd_model_checkpoint";
pub const CLIP_SKIP: &str = "CLIP_stop_at_last_layers";
pub const NOISE: &str = "randn_source";
pub const FORMAT: &str = "samples_format";
/// Clients send 0 for the usual layer too.
const MOST_CLIP_SKIP: i128 = 12;

impl Choices {
    pub fn get(&self) -> Chosen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, chosen: Chosen) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = chosen;
    }
}

impl Chosen {
    /// These choices with those that the fields make. A checkpoint that is not here is left out and returned.
    pub fn with(
        mut self,
        fields: &Fields,
        endpoints: &Endpoints,
    ) -> Result<(Self, Option<String>), FieldError> {
        let mut unknown = None;
        // Whatever is no text names no checkpoint.
        if let Some(name) = fields.value(&[CHECKPOINT]).and_then(Value::as_str) {
            match checkpoint::find(endpoints, name) {
                Some(endpoint) => self.endpoint = Some(endpoint.id.clone()),
                None => unknown = Some(shown(name)),
            }
        }
        if let Some(layers) = fields.integer(&[CLIP_SKIP])? {
            self.clip_skip = u32::try_from(layers.clamp(1, MOST_CLIP_SKIP)).ok();
        }
        match fields.word(&[NOISE])?.as_deref() {
            Some("cpu") => self.noise = Some(NoiseSource::Cpu),
            Some("gpu" | "nv") => self.noise = Some(NoiseSource::Cuda),
            _ => {}
        }
        if let Some(format) = fields.word(&[FORMAT])?.as_deref().and_then(PictureFile::parse) {
            self.format = Some(format);
        }
        Ok((self, unknown))
    }

    /// A1111 draws its noise on the GPU unless it is told otherwise. For its seeds to give its pictures, so do we.
    pub fn noise(&self) -> NoiseSource {
        self.noise.unwrap_or(NoiseSource::Cuda)
    }

    pub fn format(&self) -> PictureFile {
        self.format.unwrap_or_default()
    }

    /// The endpoint for requests that name none.
    pub fn endpoint<'a>(&self, endpoints: &'a Endpoints) -> Option<&'a ServedEndpoint> {
        let chosen = self.endpoint.as_ref().and_then(|id| endpoints.get(id));
        chosen.or_else(|| endpoints.default_one())
    }
}

/// A client's text, for a sentence.
pub fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
