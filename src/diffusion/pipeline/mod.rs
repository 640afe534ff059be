//! Text to pictures in three verbs: begin, step, finish.
//!
//! `begin` tokenises, encodes and draws the noise; `step` runs the UNet once for everything in the
//! batch and lets each generation's own scheduler move on; `finish` decodes. Between steps the caller
//! may look around: cancel, progress, time-outs and batching need nothing else.

mod adapted;
mod add_ons;
mod batching;
mod decoding;
mod description;
mod finish;
mod generation;
mod memory;
mod preview;
mod prompt_check;
mod prompt_encoder;
mod start;
mod step;

use std::sync::Arc;
use std::time::Duration;

use ndarray::Array4;

use self::adapted::AdaptedModels;
pub use self::add_ons::{AddOnFolders, AddOns};
pub use self::batching::Batching;
use self::decoding::Decoding;
pub use self::description::ModelDescription;
pub use self::generation::Generation;
use self::memory::MemoryNeeds;
use self::prompt_encoder::PromptEncoder;
use self::start::{Given, Start};
use super::files::{LoraError, ModelFolder};
use super::image::{ImageError, Mask, Overlay, RgbImage, decode_image, drawing_size};
use super::nets::{ModelError, Posterior, SafetyChecker, TextEncoder, UNet, VaeEncoder};
use super::noise::BatchNoise;
use super::schedulers::{self, SchedulerError, SchedulerOptions};
use super::text::PromptError;
use crate::domain::{GenerationInput, ImageSize, ImageSource, ModelPart};
use crate::runtime::{Device, Runtime};

/// A loaded model on a device. One thread owns it.
pub struct Pipeline {
    description: ModelDescription,
    device: Device,
    prompts: PromptEncoder,
    unet: UNet,
    decoding: Decoding,
    /// None where the model cannot start from pictures.
    vae_encoder: Option<VaeEncoder>,
    safety_checker: Option<SafetyChecker>,
    memory_needs: MemoryNeeds,
    /// Makes this model anew with LoRAs in it, where it can take such.
    adapted: Option<AdaptedModels>,
    batching: Batching,
}

/// One finished picture.
#[derive(Debug, Clone)]
pub struct Picture {
    pub seed: u64,
    pub image: RgbImage,
    /// The PNG file, with its parameters as text.
    pub png: Vec<u8>,
    /// The model's safety checker flagged it, and the request wants no such pictures: not to be shown.
    pub flagged: bool,
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
    #[error(transparent)]
    Lora(#[from] LoraError),
    #[error(
        "the latents became infinite or not a number at step {step} of {steps}: use a lower guidance_scale or \
         lora_scale, another scheduler, or another copy of the model"
    )]
    Latents { step: u32, steps: u32 },
    #[error("the VAE gave pixels that are infinite or not a number: use the model with another VAE")]
    Pixels,
    #[error("the prompt cannot be encoded: {0}")]
    Prompt(#[from] PromptError),
}

impl Pipeline {
    /// Loads every part of the model.
    pub fn load(folder: &ModelFolder, runtime: &Runtime) -> Result<Self, ModelError> {
        let description = folder.describe()?;
        let text_encoder = TextEncoder::load(folder, runtime)?;
        let unet = UNet::load(folder, runtime)?;
        if unet.is_inpainting() && !folder.has(ModelPart::VaeEncoder) {
            return Err(ModelError::Graph {
                part: ModelPart::UNet,
                reason: "it is one for inpainting, which needs a vae_encoder beside it".to_owned(),
            });
        }
        text_encoder.check_window(description.tokenizer.window())?;
        unet.check_text_encoder(&text_encoder)?;
        Ok(Self {
            prompts: PromptEncoder::new(Arc::clone(&description.tokenizer), text_encoder, unet.tokens_read()),
            decoding: Decoding::load(folder, &description, runtime)?,
            vae_encoder: VaeEncoder::load(folder, &description, runtime)?,
            safety_checker: SafetyChecker::load(folder, runtime)?,
            batching: Batching::usual(runtime.device()),
            unet,
            adapted: None,
            device: runtime.device().clone(),
            memory_needs: folder.memory_needs(runtime.device())?,
            description,
        })
    }

    pub fn description(&self) -> &ModelDescription {
        &self.description
    }

    /// What is peculiar about this model, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.description.assumptions.clone();
        if self.unet.truncates_timesteps() {
            warnings.push(
                "its UNet takes whole timesteps: what K-LMS, EULER, HEUN and KDPM2 draw differs from the reference, \
                 and DDIM, PNDM and DPM-M are exact"
                    .to_owned(),
            );
        }
        let channels = self.description.latent_channels;
        if self.vae_encoder.as_ref().is_some_and(|encoder| encoder.draws_by_itself(channels)) {
            warnings.push(
                "its VAE encoder draws its own random numbers: pictures that start from a picture differ from one \
                 time to the next"
                    .to_owned(),
            );
        }
        warnings
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// About how many bytes of the device's memory it holds, with those that an ordinary job takes.
    pub fn memory(&self) -> u64 {
        self.memory_needs.usual() + self.adapted.as_ref().map_or(0, AdaptedModels::held)
    }

    /// About how many it would hold at most for this.
    pub fn memory_for(&self, input: &GenerationInput) -> u64 {
        let drawn_at = drawing_size(input.size, self.description.max_side, self.description.rules.grid);
        let rows_each = if input.guidance_scale > 1.0 { 2 } else { 1 };
        let at_once = (input.num_outputs as usize).min(self.batching.images) as u64;
        let needs = self.memory_needs.of(drawn_at, u64::from(input.num_outputs), at_once * rows_each);
        // What is kept of other LoRAs leaves for these.
        needs + if input.loras.is_empty() { 0 } else { self.memory_needs.adapted() }
    }

    /// Finds out how many images should share a UNet call, where that is the device's to say. It takes some calls.
    pub fn measure_batching(&mut self) -> Result<(), ModelError> {
        if !self.device.is_cpu() {
            self.batching = Batching::measure(&mut self.unet, &self.description)?;
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

    /// Takes LoRAs and learned words from these folders; `folder` and `runtime` are what it was loaded with.
    #[must_use]
    pub fn with_add_ons(mut self, add_ons: &AddOns, folder: &ModelFolder, runtime: &Runtime) -> Self {
        let loras = Arc::clone(&add_ons.loras);
        self.prompts.learn_from(Arc::clone(&add_ons.embeddings));
        self.adapted = Some(AdaptedModels::new(folder.clone(), runtime.clone(), loras, add_ons.lora_memory));
        self
    }

    /// Tokenises, encodes and draws the noise. Image i comes from `seed + i`.
    pub fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Generation, DiffusionError> {
        let scheduler = schedulers::build(
            input.scheduler,
            &self.description.scheduler,
            input.num_inference_steps as usize,
            SchedulerOptions { karras: input.karras, ..SchedulerOptions::default() },
        )?;
        let adapted = match &mut self.adapted {
            Some(adapted) => adapted.get(&input.loras)?,
            None => None,
        };
        let text_encoder = adapted.as_ref().and_then(|adapted| adapted.text_encoder.as_ref());
        let mut text_encoder = text_encoder.map(|text_encoder| text_encoder.borrow_mut());
        let embeddings = self.prompts.encode(input, text_encoder.as_deref_mut())?;
        drop(text_encoder);
        let drawn_at = drawing_size(input.size, self.description.max_side, self.description.rules.grid);
        let (given, overlay) = self.read(input, drawn_at)?;
        let latent_side = |pixels: u32| (pixels / self.description.vae_scale_factor) as usize;
        let shape = (
            self.description.latent_channels as usize,
            latent_side(drawn_at.height),
            latent_side(drawn_at.width),
        );
        let mut noise = BatchNoise::consecutive(input.noise, seed, input.num_outputs as usize);
        let steps = input.num_inference_steps as usize;
        let start = Start::new(given, shape, steps, &scheduler, &mut noise)?;
        let mut generation =
            Generation::new(input.clone(), seed, drawn_at, scheduler, (start, noise), embeddings);
        generation.overlay = overlay;
        generation.adapted = adapted;
        Ok(generation)
    }

    /// Reads the pictures of a request, at the size that is drawn at; and what is to be laid over the result.
    fn read(
        &mut self,
        input: &GenerationInput,
        drawn_at: ImageSize,
    ) -> Result<(Given, Option<Overlay>), DiffusionError> {
        let image = input.init_image.as_ref().map(pixels).transpose()?;
        let mask = input.mask.as_ref().map(pixels).transpose()?;
        let overlay = match (&image, &mask, input.mask_blur) {
            (Some(image), Some(mask), Some(blur)) => {
                let mask = Mask::new(mask, input.size, input.mask_invert)?;
                Some(Overlay::new(image.resize(input.size)?, &mask, blur))
            }
            _ => None,
        };
        let mask = match mask {
            Some(mask) => Some(Mask::new(&mask, drawn_at, input.mask_invert)?),
            // An inpainting UNet can do without a picture only if it may paint everywhere.
            None => self.unet.is_inpainting().then(|| Mask::everything(drawn_at)),
        };
        let image = match image {
            Some(image) => Some(image.resize(drawn_at)?.to_tensor()?),
            None => None,
        };
        let masked_image = match mask.as_ref().filter(|_| self.unet.is_inpainting()) {
            None => None,
            Some(mask) => {
                let blank = || Array4::zeros((1, 3, drawn_at.height as usize, drawn_at.width as usize));
                let mut masked = image.clone().unwrap_or_else(blank);
                mask.hide(&mut masked);
                Some(self.encode(&masked)?)
            }
        };
        let scale = self.description.vae_scale_factor as usize;
        let given = Given {
            image: image.map(|image| self.encode(&image)).transpose()?,
            strength: input.prompt_strength,
            mask: mask.map(|mask| mask.to_latents(scale)),
            masked_image,
        };
        Ok((given, overlay))
    }

    fn encode(&mut self, pixels: &Array4<f32>) -> Result<Posterior, ModelError> {
        let channels = self.description.latent_channels;
        let encoder = self.vae_encoder.as_mut().ok_or_else(|| ModelError::Graph {
            part: ModelPart::VaeEncoder,
            reason: "it is missing, and without it no picture can be started from".to_owned(),
        })?;
        encoder.encode(pixels, channels)
    }

    /// How long the sessions themselves have worked so far.
    pub fn time_in_run(&self) -> Duration {
        let encoder = self.vae_encoder.as_ref().map_or(Duration::ZERO, VaeEncoder::time_in_run);
        let checker = self.safety_checker.as_ref().map_or(Duration::ZERO, SafetyChecker::time_in_run);
        self.prompts.time_in_run() + self.unet.time_in_run() + self.decoding.time_in_run() + encoder + checker
    }
}

/// The pixels of a picture, whose bytes must be at hand by now.
fn pixels(source: &ImageSource) -> Result<RgbImage, ImageError> {
    match source {
        ImageSource::Bytes(bytes) => decode_image(bytes),
        ImageSource::Url(_) => Err(ImageError::Unfetched),
    }
}
