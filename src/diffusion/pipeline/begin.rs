//! The beginning of a generation: encodes the prompts, reads the pictures, draws the noise.

use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use ndarray::Array4;

use super::control::Control;
use super::deep_features::DeepFeatures;
use super::drawn_prompts::drawn_prompts;
use super::first_latents::{FirstLatents, Given};
use super::layout::{Drawing, Layout};
use super::prepared::{Adaptation, Prepared};
use super::second_pass::FirstDrawing;
use super::{DiffusionError, Generation, Pipeline};
use crate::diffusion::image::Mask;
use crate::diffusion::nets::{ModelError, Posterior};
use crate::diffusion::noise::{BatchNoise, NoiseVariation};
use crate::diffusion::text::PromptSteps;
use crate::domain::{DrawnPrompts, GenerationInput, IMAGE_GUIDANCE_SCALE, ImageSize, ModelPart, Vae};

impl Pipeline {
    /// Tokenises, encodes and draws the noise. Image i comes from `seed + i`. LoRAs are merged first, here and now.
    pub fn begin(&mut self, input: &GenerationInput, seed: u64) -> Result<Generation, DiffusionError> {
        let prepared = match self.adapt(input)? {
            Adaptation::Ready(prepared) => prepared,
            Adaptation::Make(making) => {
                let made = making.run(&AtomicBool::new(false))?;
                self.keep(made)
            }
        };
        self.begin_with(prepared, input, seed)
    }

    /// The same as [`Self::begin`] with what [`Self::adapt`] says that the request needs.
    pub fn begin_with(
        &mut self,
        prepared: Prepared,
        input: &GenerationInput,
        seed: u64,
    ) -> Result<Generation, DiffusionError> {
        // Of what was asked for: completed, it is in full precision.
        let not_in_int8 = self.not_in_int8(input);
        // Both passes have the same random subseed.
        let input = &self.completed(input)?;
        let drawn = drawn_prompts(input, seed, self.model.rules().wildcards.as_deref(), "")?;
        if input.vae == Vae::Tiny {
            self.tiny.load()?;
        }
        // What cannot be done in the second pass is refused before the first.
        let second = self.second_pass(&prepared, input, seed)?;
        let mut generation = self.begin_pass(prepared, input, (seed, drawn), None)?;
        generation.next = second;
        if let Some(sentence) = not_in_int8 {
            generation.warn(sentence);
        }
        Ok(generation)
    }

    /// One pass of a generation, whose wildcards have been drawn. A second one starts from what the first drew.
    pub(super) fn begin_pass(
        &mut self,
        prepared: Prepared,
        input: &GenerationInput,
        (seed, drawn): (u64, Vec<DrawnPrompts>),
        second: Option<FirstDrawing>,
    ) -> Result<Generation, DiffusionError> {
        let Prepared { adapted, controlnets } = prepared;
        let input = &self.completed(input)?;
        let scheduler = self.scheduler(input)?;
        let text_encoder = adapted.as_ref().and_then(|adapted| adapted.text_encoder.as_ref());
        let mut text_encoder =
            text_encoder.map(|text_encoder| text_encoder.lock().unwrap_or_else(PoisonError::into_inner));
        let words = adapted.as_ref().map_or(&[][..], |adapted| adapted.words());
        let before = second.as_ref().map(|drawn| drawn.steps);
        let steps = PromptSteps { steps: input.num_inference_steps, before };
        let prompts = self.prompts.encode(input, &drawn, steps, text_encoder.as_deref_mut(), words)?;
        drop(text_encoder);
        let asked = second.as_ref().map_or(input.size, |drawn| drawn.asked);
        let drawing = Drawing {
            asked,
            first: self.drawn_for(asked),
            // It has the size that was asked for, however small the model draws.
            second: second.as_ref().map(|drawn| drawn.target),
            latent: self.model.description.vae_scale_factor,
            // The other UNets see the picture beside the latents, at their size.
            stretches: !self.unet.is_inpainting() && !self.unet.edits_images(),
        };
        let drawn_at = drawing.size();
        let (mut given, layout) = self.read(input, drawing)?;
        given.enlarged = second.map(|drawn| drawn.latents);
        let controls = controlnets.into_iter().zip(&input.controlnets);
        let controls = controls.map(|(loaded, unit)| Control::new(loaded, unit, drawn_at, layout.window));
        let controls = controls.collect::<Result<Vec<_>, _>>()?;
        let latent_side = |pixels: u32| (pixels / self.model.description.vae_scale_factor) as usize;
        let latent_sides = |size: ImageSize| (latent_side(size.height), latent_side(size.width));
        let (height, width) = latent_sides(drawn_at);
        let shape = (self.model.description.latent_channels as usize, height, width);
        let mut noise = self.noise(input, seed, latent_sides);
        let steps = input.num_inference_steps as usize;
        let start = FirstLatents::new(given, shape, steps, &scheduler, &mut noise)?;
        let mut generation =
            Generation::new(input.clone(), seed, drawn_at, scheduler, (start, noise), prompts);
        generation.controls = controls;
        generation.drawn = drawn;
        for name in std::mem::take(&mut generation.prompts.unknown) {
            generation
                .warn(format!("embedding:{name} names no textual inversion: it was read as plain words."));
        }
        layout.warning.into_iter().for_each(|sentence| generation.warn(sentence));
        generation.overlay = layout.overlay;
        for (lora, skipped) in adapted.iter().flat_map(|adapted| adapted.skipped()) {
            generation
                .warn(format!("the LoRA {lora} is used in part: this model has no place for {skipped}."));
        }
        generation.adapted = adapted;
        if let Some(sentence) = self.unchecked(input) {
            generation.warn(sentence);
        }
        if input.cache_interval > 1
            && generation.controls.is_empty()
            && self.ready_outer_layers(&generation)?
        {
            generation.deep = DeepFeatures::every(input.cache_interval);
        }
        Ok(generation)
    }

    /// Whether the generation's UNet can run its outer layers alone.
    fn ready_outer_layers(&mut self, generation: &Generation) -> Result<bool, ModelError> {
        match generation.adapted_unet() {
            Some(unet) => unet.lock().unwrap_or_else(PoisonError::into_inner).ready_outer_layers(),
            None => self.unet.ready_outer_layers(),
        }
    }

    /// The request with the fields that this kind of UNet needs, and without those that it has no use for.
    fn completed(&self, input: &GenerationInput) -> Result<GenerationInput, DiffusionError> {
        let mut input = input.clone();
        input.variation = input.variation.with_drawn_subseed()?;
        input.image_guidance_scale = match self.unet.edits_images() {
            true => input.image_guidance_scale.or(Some(IMAGE_GUIDANCE_SCALE)),
            false => None,
        };
        input.precision = self.precision(&input);
        if self.unet.edits_images() {
            input.mask = None;
        }
        Ok(input)
    }

    /// The noise of a request. `latent_sides` are height and width of a drawing in latents.
    fn noise(
        &self,
        input: &GenerationInput,
        seed: u64,
        latent_sides: impl Fn(ImageSize) -> (usize, usize),
    ) -> BatchNoise {
        let variation = &input.variation;
        let seeds = (0..input.num_outputs).map(|image| variation.seed_of(seed, image));
        let mut noise = BatchNoise::new(input.noise, seeds);
        if variation.blends() || variation.seed_resize.is_some() {
            let subseeds =
                (0..input.num_outputs).map(|image| variation.subseed_of(image).unwrap_or_default());
            noise.vary(NoiseVariation {
                blended: variation.blends().then(|| (subseeds.collect(), variation.strength)),
                middle: variation.seed_resize.map(|size| latent_sides(self.drawn_for(size))),
            });
        }
        noise
    }

    /// A sentence for the client, if it wants its pictures checked and nothing can check them.
    fn unchecked(&self, input: &GenerationInput) -> Option<String> {
        if input.nsfw || self.checking.is_some() {
            return None;
        }
        let why = match self.model.files.checker_fault {
            Some(_) => "this model's safety checker cannot be used (`stablehand models check` says why)",
            None => "this model has no safety checker",
        };
        Some(format!("nsfw is false, but {why}: no picture was checked."))
    }

    /// Encodes the pictures of a request. `Layout` keeps the overlay and its warning.
    fn read(&mut self, input: &GenerationInput, drawing: Drawing) -> Result<(Given, Layout), DiffusionError> {
        let (drawn_at, scale) = (drawing.size(), drawing.latent);
        let mut layout = Layout::new(input, drawing)?;
        let image = layout.image.take().map(|image| image.to_tensor()).transpose()?;
        let blank = || Array4::zeros((1, 3, drawn_at.height as usize, drawn_at.width as usize));
        if self.unet.edits_images() {
            // Requests always have a picture. Trials of a model need none.
            let edited_image = Some(self.encode(&image.unwrap_or_else(blank))?);
            return Ok((Given { edited_image, ..Given::default() }, layout));
        }
        // Without a mask, an inpainting UNet paints everywhere.
        let everything = || self.unet.is_inpainting().then(|| Mask::everything(drawn_at));
        let mask = layout.mask.take().or_else(everything);
        let masked_image = match mask.as_ref().filter(|_| self.unet.is_inpainting()) {
            None => None,
            Some(mask) => {
                let mut masked = image.clone().unwrap_or_else(blank);
                mask.hide(&mut masked);
                Some(self.encode(&masked)?)
            }
        };
        let given = Given {
            image: image.map(|image| self.encode(&image)).transpose()?,
            strength: input.prompt_strength,
            mask: mask.map(|mask| mask.to_latents(scale as usize)),
            fill: input.inpainting.fill,
            masked_image,
            edited_image: None,
            enlarged: None,
        };
        Ok((given, layout))
    }

    pub(super) fn encode(&mut self, pixels: &Array4<f32>) -> Result<Posterior, DiffusionError> {
        let encoding = self.encoding.as_mut().ok_or_else(|| ModelError::Graph {
            part: ModelPart::VaeEncoder,
            reason: "it is missing, so the model cannot start from a picture".to_owned(),
        })?;
        if !self.device.is_cpu() {
            let (_, _, height, width) = pixels.dim();
            let side = |pixels: usize| u32::try_from(pixels).unwrap_or(u32::MAX);
            let taken = self.memory_needs.vae(ImageSize { width: side(width), height: side(height) });
            self.kept.encoder = self.kept.encoder.max(taken);
        }
        encoding.encode(pixels)
    }
}
