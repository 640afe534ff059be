//! A model that draws: [`Model::open`], then a [`Pipeline`] with the three verbs begin, step and finish.
//!
//! `begin` encodes the prompt and draws the noise. `step` runs the UNet for all generations of the batch, and then each
//! generation's own scheduler. Images share a UNet call if they have the same LoRAs, size and prompt length; a call has a
//! limit on its images, so a step may take several calls. `finish` decodes. Between steps the caller may do other things:
//! cancel, report progress, check timeouts, or change the batch.

mod adapted;
mod add_ons;
mod batching;
mod begin;
mod checking;
mod chunk_encoder;
mod conditioning;
mod control;
mod controlnets;
mod deep_features;
mod description;
mod drawn_prompts;
mod enlarging;
mod finish;
mod first_latents;
mod float32;
mod generation;
mod guidance;
mod interpolate;
mod layout;
mod loaded;
mod memory;
mod merge;
mod model;
mod precision;
mod prepared;
mod preview;
mod prompt_check;
mod prompt_encoder;
mod prompt_texts;
mod saved;
mod second_pass;
mod step;
mod stretched_latents;
mod tiling;
mod tiny_decoding;
mod upscalers;
mod upscaling;
mod vae;
mod working;

use std::time::Duration;

pub use self::adapted::Adapted;
use self::adapted::AdaptedModels;
pub use self::add_ons::AddOnFolders;
pub use self::batching::{Batching, batch_rows};
use self::checking::Checking;
use self::controlnets::ControlNets;
pub use self::description::ModelDescription;
pub use self::generation::Generation;
pub use self::loaded::{LoadedModel, PartReport};
pub use self::memory::MemoryNeeds;
pub use self::model::Model;
pub use self::prepared::{Adaptation, Made, Making, Prepared};
use self::prompt_encoder::PromptEncoder;
use self::tiny_decoding::TinyDecoding;
pub use self::upscalers::Upscalers;
pub use self::upscaling::Upscaling;
use self::vae::{Decoding, Encoding};
use self::working::Kept;
use super::files::{GraphBuild, LoraError, PartFiles};
use super::image::{EncodedPicture, ImageError, PictureFile, PictureTexts, RgbImage};
use super::nets::{ModelError, UNet};
use super::schedulers::{SchedulerError, by_whole_timesteps};
use super::text::PromptError;
use crate::domain::{DrawnPrompts, GenerationInput, ModelPart, SchedulerKind};
use crate::runtime::Device;

/// A loaded model on a device. One thread owns it.
pub struct Pipeline {
    model: Model,
    device: Device,
    /// Which graphs its sessions have, where they are ours, and on how many threads those on a CPU run. With others, the
    /// last bits of its pictures would be others.
    build: GraphBuild,
    threads: usize,
    /// Why it draws nothing in int8, if so.
    without_int8: Option<&'static str>,
    prompts: PromptEncoder,
    unet: UNet,
    decoding: Decoding,
    tiny: TinyDecoding,
    /// `None` if the model cannot start from pictures.
    encoding: Option<Encoding>,
    /// `None` if the model has no safety checker that works.
    checking: Option<Checking>,
    memory_needs: MemoryNeeds,
    /// What its sessions keep between their runs.
    kept: Kept,
    /// Copies of the model's parts with LoRAs, where it can take them.
    adapted: Option<AdaptedModels>,
    /// ControlNets, where it can take them.
    controlnets: Option<ControlNets>,
    upscalers: Upscalers,
    batching: Batching,
}

/// One finished picture.
#[derive(Debug, Clone)]
pub struct Picture {
    pub seed: u64,
    pub image: RgbImage,
    /// The PNG file, with its parameters as text.
    pub png: Vec<u8>,
    /// How it was made.
    pub texts: PictureTexts,
    /// Its prompts, if wildcards drew them.
    pub prompts: Option<DrawnPrompts>,
    /// Whether the model's safety checker flagged it and the request wants no such pictures. It must not be shown.
    pub flagged: bool,
}

impl Picture {
    /// The picture as a file of another format.
    pub fn file(&self, format: PictureFile) -> Result<EncodedPicture, DiffusionError> {
        Ok(format.encode(&self.image, &self.texts)?)
    }
}

/// Why a picture could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum DiffusionError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the image for the ControlNet {model} cannot be used: {reason}")]
    ControlImage { model: String, reason: String },
    #[error(transparent)]
    Lora(#[from] LoraError),
    #[error(
        "the latents became infinite or not a number at step {step} of {steps}: use a lower guidance_scale or \
         lora_scale, another scheduler, or another copy of the model"
    )]
    Latents { step: u32, steps: u32 },
    #[error("the VAE gave values that are infinite or not a number: use the model with another VAE")]
    Vae,
    #[error("the prompt cannot be encoded: {0}")]
    Prompt(#[from] PromptError),
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// The tiny VAE cannot be used: a sentence.
    #[error("{0}")]
    TinyVae(String),
    /// A picture cannot be enlarged: a sentence.
    #[error("{0}")]
    Upscaling(String),
    #[error("it was given up")]
    GivenUp,
}

impl Pipeline {
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Peculiarities of this model, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.model.description.assumptions.clone();
        if self.unet.truncates_timesteps() {
            let (exact, cut) = by_whole_timesteps(&self.model.description.scheduler);
            let names = |kinds: Vec<SchedulerKind>| {
                kinds.into_iter().map(SchedulerKind::as_str).collect::<Vec<_>>().join(", ")
            };
            warnings.push(format!(
                "its UNet takes whole timesteps: pictures of {} are exact, and those of {} differ from the reference",
                names(exact),
                names(cut)
            ));
        }
        if self.encoding.as_ref().is_some_and(Encoding::draws_by_itself) {
            warnings.push(
                "its VAE encoder draws its own random numbers: pictures that start from a picture differ from one \
                 time to the next"
                    .to_owned(),
            );
        }
        warnings
    }

    /// What it takes as it draws.
    pub fn memory_needs(&self) -> &MemoryNeeds {
        &self.memory_needs
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether it draws with stablehand's own convolutions.
    pub fn has_own_convolutions(&self) -> bool {
        matches!(self.build, GraphBuild::Winograd { .. })
    }

    /// Whose convolutions it draws with, and on how many threads, for people. None where that is a card's to say.
    pub fn means(&self) -> Option<String> {
        let threads = match self.threads {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        };
        match self.model.files.part(ModelPart::UNet).is_some_and(PartFiles::takes_our_graph) {
            _ if !self.device.is_cpu() => None,
            true => Some(format!("{}, {threads}", self.build)),
            false => Some(format!("the model's own graphs, {threads}")),
        }
    }

    /// Finds out how many images should share a UNet call, where that is the device's to say. It takes some calls, of
    /// `most_rows` rows at most.
    pub fn measure_batching(&mut self, most_rows: u64) -> Result<(), ModelError> {
        if !self.device.is_cpu() {
            self.batching = Batching::measure(&mut self.unet, &self.model, most_rows)?;
        }
        Ok(())
    }

    /// How many images share a UNet call, and what calls took when that was found out.
    pub fn batching(&self) -> &Batching {
        &self.batching
    }

    /// Puts so many images into one UNet call, whatever was found out.
    #[must_use]
    pub fn with_images_per_call(mut self, images: usize) -> Self {
        self.batching.images = images.max(1);
        self
    }

    /// All three verbs, for callers with nothing to do between the steps.
    pub fn draw(&mut self, input: &GenerationInput, seed: u64) -> Result<Vec<Picture>, DiffusionError> {
        let mut generation = self.begin(input, seed)?;
        while !generation.is_done() {
            self.step(&mut [&mut generation])?;
        }
        self.finish(&generation)
    }

    /// The time spent in the sessions themselves so far.
    pub fn time_in_run(&self) -> Duration {
        let encoder = self.encoding.as_ref().map_or(Duration::ZERO, Encoding::time_in_run);
        let checker = self.checking.as_ref().map_or(Duration::ZERO, Checking::time_in_run);
        self.prompts.time_in_run()
            + self.unet.time_in_run()
            + self.decoding.time_in_run()
            + self.tiny.time_in_run()
            + encoder
            + checker
    }
}
