//! The end of a generation: decodes its latents and writes PNG files with the parameters in them.

use ndarray::{Array4, Axis};
use serde_json::json;

use super::drawn_prompts::in_request;
use super::{DiffusionError, Generation, Picture, Pipeline, tiling};
use crate::diffusion::image::{Parameters, PictureFile, PictureTexts, RgbImage};
use crate::diffusion::schedulers;
use crate::domain::{ImageSize, Precision, Sampling, Vae};

impl Pipeline {
    /// Decodes the latents, and enlarges the pictures where the model draws smaller ones than requested.
    pub fn finish(&mut self, generation: &Generation) -> Result<Vec<Picture>, DiffusionError> {
        if let Some(step) = generation.broken_at {
            return Err(DiffusionError::Latents { step, steps: generation.progress().1 });
        }
        if let Some(fault) = &generation.fault {
            return Err(DiffusionError::Upscaling(fault.clone()));
        }
        let vae = generation.input.vae;
        self.note_decoding(vae, self.size_with_rim(&generation.input, generation.drawn_at));
        let mut pictures = Vec::with_capacity(generation.images());
        for (index, latents) in (0..).zip(generation.latents.axis_chunks_iter(Axis(0), 1)) {
            let mut image = match generation.input.variation.tiling {
                true => self.decode_tile(generation, &latents.to_owned())?,
                false => self.decode_by(vae, &latents.to_owned())?,
            };
            // Before it is enlarged: the checker looks at 224 pixels anyway.
            let flagged = match self.checking.as_mut().filter(|_| !generation.input.nsfw) {
                Some(checking) => checking.flags(&image)?,
                None => false,
            };
            if let Some(overlay) = &generation.overlay {
                image = overlay.lay_over(image)?;
            } else if image.size() != generation.input.size {
                image = image.resize(generation.input.size)?;
            }
            let seed = generation.input.variation.seed_of(generation.seed, index);
            let texts = self.texts(generation, index);
            let png = PictureFile::Png.encode(&image, &texts)?.bytes;
            let prompts = generation.drawn_prompts().get(index as usize).cloned();
            pictures.push(Picture { seed, image, png, texts, prompts, flagged });
        }
        Ok(pictures)
    }

    /// On a card, the decoder keeps what its largest call took.
    pub(super) fn note_decoding(&mut self, vae: Vae, size: ImageSize) {
        if self.device.is_cpu() {
            return;
        }
        let taken = self.decoding_memory(vae, size);
        let kept = match vae {
            Vae::Full => &mut self.kept.decoder,
            Vae::Tiny => &mut self.kept.tiny,
        };
        *kept = taken.max(*kept);
    }

    /// The picture from latents `[1, channels, height, width]`, not enlarged.
    pub fn decode(&mut self, latents: &Array4<f32>) -> Result<RgbImage, DiffusionError> {
        self.decode_by(Vae::Full, latents)
    }

    /// The same by either decoder.
    pub(super) fn decode_by(&mut self, vae: Vae, latents: &Array4<f32>) -> Result<RgbImage, DiffusionError> {
        let pixels = match vae {
            Vae::Full => self.decoding.decode(latents)?,
            Vae::Tiny => self.tiny.decode(latents)?,
        };
        Ok(RgbImage::from_tensor(pixels.index_axis(Axis(0), 0))?)
    }

    /// The same for a picture that tiles, at the requested size: it is enlarged together with its rim.
    fn decode_tile(
        &mut self,
        generation: &Generation,
        latents: &Array4<f32>,
    ) -> Result<RgbImage, DiffusionError> {
        let decoded = self.decode_by(generation.input.vae, &tiling::with_rim(latents))?;
        let region = tiling::part_within_rim(generation.drawn_at, self.model.description.vae_scale_factor);
        Ok(decoded.resize_part(region, generation.input.size)?)
    }

    /// The parameters as text: in A1111's format for existing readers, and as the `input` of a request that draws the
    /// picture again.
    fn texts(&self, generation: &Generation, index: u32) -> PictureTexts {
        let request = generation.request();
        let drawn = generation.drawn_prompts().get(index as usize).map(|drawn| {
            let mut request = in_request(drawn, request);
            // A second pass draws its own prompts.
            if let (Some(hires), Some(second)) = (&mut request.hires, generation.drawn.get(index as usize)) {
                hires.prompt = hires.prompt.as_ref().map(|_| second.prompt.clone());
                hires.negative_prompt =
                    hires.negative_prompt.as_ref().map(|_| second.negative_prompt.clone());
            }
            request
        });
        let input = drawn.as_ref().unwrap_or(request);
        let learned = generation.prompts.learned.iter();
        let ti_hashes: Vec<_> = learned.map(|word| (word.name.clone(), word.hash.clone())).collect();
        let spacing =
            schedulers::spacing(input.scheduler, &self.model.description.scheduler, input.sampling.spacing);
        let mut not_read = self.model.description.not_read.clone();
        if self.model.description.deaf_to_zero_snr.contains(&input.scheduler) {
            not_read.push("zero terminal SNR".to_owned());
        }
        let mut further = input.variation.infotext(index);
        if input.vae == Vae::Tiny {
            // A1111's words.
            further.push(("VAE Decoder", "TAESD".to_owned()));
        }
        if input.precision != Precision::default() {
            further.push(("Precision", input.precision.as_str().to_owned()));
        }
        if input.cache_interval > 1 {
            further.push(("Cache interval", input.cache_interval.to_string()));
        }
        if generation.is_masked {
            further.extend(input.inpainting.infotext(input.mask_blur, input.mask_invert));
        }
        let infotext = Parameters {
            prompt: &input.prompt,
            // It has no effect on a UNet that embeds guidance.
            negative_prompt: if self.model.description.embeds_guidance { "" } else { &input.negative_prompt },
            clip_skip: input.clip_skip,
            steps: input.num_inference_steps,
            scheduler: input.scheduler,
            sampling: Sampling { spacing, ..input.sampling },
            guidance_scale: input.guidance_scale,
            guidance_rescale: input.guidance_rescale,
            guidance_end: input.guidance_end,
            image_guidance_scale: input.image_guidance_scale,
            seed: input.variation.seed_of(generation.seed, index),
            noise: input.noise,
            size: input.size,
            drawn_at: generation.first.as_ref().map_or(generation.drawn_at, |first| first.drawn_at),
            hires: input.hires.as_ref(),
            strength: generation.strength,
            prompt_cut: generation.prompts.cut,
            model: &self.model.description.name,
            not_read: &not_read,
            loras: &input.loras,
            controlnets: &input.controlnets,
            lora_hashes: generation.adapted.as_ref().map_or(&[], |adapted| adapted.hashes()),
            ti_hashes: &ti_hashes,
            further: &further,
            lora_skipped: generation.adapted.as_ref().map_or(&[], |adapted| adapted.skipped()),
        };
        let mut request = input.request_for(generation.seed, index);
        if let Some(strength) = generation.strength {
            // Without the pictures, which belong to the client and are large.
            request["prompt_strength"] = json!(strength);
        }
        if generation.is_masked {
            request["mask_invert"] = json!(input.mask_invert);
            request["mask_blur"] = json!(input.mask_blur);
        }
        input.inpainting.write_to(&mut request);
        PictureTexts { parameters: infotext.infotext(), request: request.to_string() }
    }
}
