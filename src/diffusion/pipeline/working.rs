//! The memory of a pipeline's jobs: what its sessions take while they draw, and what they keep afterwards.
//!
//! On a CPU a session gives its memory back when it has drawn; on a card it keeps what its largest call took. The
//! figures are the estimates of `memory.rs`.

use super::Pipeline;
use super::adapted::UNetOf;
use super::deep_features::Depth;
use super::enlarging::Enlarging;
use super::{tiling, vae::Encoding};
use crate::diffusion::image::drawing_size;
use crate::diffusion::text::{MAX_ENCODED, may_change};
use crate::domain::{GenerationInput, ImageSize, ResizeMode, Upscaler, Vae, prompt_parts};

/// The bytes of a prompt that fill a chunk: four for each of its 75 tokens.
const BYTES_OF_A_CHUNK: usize = 300;

/// Bytes that sessions keep between their runs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    /// For each [`Depth`].
    pub unet: [u64; Depth::ALL.len()],
    pub decoder: u64,
    /// The tiny VAE.
    pub tiny: u64,
    pub encoder: u64,
}

/// The images of a batch that may share UNet calls.
struct Calls<'a> {
    size: ImageSize,
    unet: UNetOf<'a>,
    images: usize,
    /// The most rows that one of them takes.
    rows_each: u64,
    /// Whether some of their calls run the outer layers alone.
    caches: bool,
}

/// One pass of a job.
struct Pass<'a> {
    job: &'a GenerationInput,
    size: ImageSize,
    /// Rows of a UNet call that one picture takes.
    rows_each: u64,
}

impl Pipeline {
    /// The bytes of the device's memory that it holds between two jobs, with those of an ordinary job. An estimate.
    pub fn memory(&self) -> u64 {
        self.memory_for(&[]) + self.prepared_memory()
    }

    /// The most bytes that it holds while it draws these jobs together, and what an ordinary job needs at least.
    /// [`Self::prepared_memory`] comes on top. An estimate.
    pub fn memory_for(&self, jobs: &[&GenerationInput]) -> u64 {
        let needs = &self.memory_needs;
        let usual = needs.usual_size();
        let [whole, outer] = self.kept.unet;
        let (mut unet, mut adapted) = (whole.max(self.usual_unet_call()) + outer, Vec::new());
        for calls in self.calls_of(jobs) {
            let depths = Depth::ALL.into_iter().filter(|depth| *depth == Depth::Whole || calls.caches);
            let bytes = depths.map(|depth| needs.unet_of(depth, calls.size, self.rows(&calls))).sum::<u64>();
            let counted = match (&calls.unet, &self.adapted) {
                (UNetOf::Model, _) => {
                    unet = unet.max(bytes);
                    continue;
                }
                (UNetOf::Copy(combination), Some(adapted)) => adapted.kept_by(combination),
                _ => 0,
            };
            // Copies with LoRAs count with the usual call, or with what they keep if that is more.
            adapted.push((calls.unet, bytes.saturating_sub(counted.max(self.usual_unet_call()))));
        }
        let own_sizes = || jobs.iter().filter_map(|job| self.encoded_size(job));
        let passes = self.passes(jobs);
        let sizes = || passes.iter().map(|pass| pass.size);
        let tiny = self.tiny_memory(&passes);
        // On a CPU the two halves of the VAE take turns, and so does the tiny one.
        let decoding = passes.iter().map(|Pass { job, size, .. }| match (job.vae, self.device.is_cpu()) {
            (Vae::Tiny, true) if !self.encodes(job) => self.decoding_memory(Vae::Tiny, *size),
            (Vae::Tiny, false) => 0,
            _ => needs.vae(*size),
        });
        let on_cpu = own_sizes().chain(enlarged_by_pixels(jobs)).filter(|_| self.device.is_cpu());
        let decoder = decoding.chain(on_cpu.map(|size| needs.vae(size)));
        let decoder = decoder.chain([needs.vae(usual), self.kept.decoder]).max();
        let reads = |job: &&&GenerationInput| !self.device.is_cpu() && self.encodes(job);
        let reading = jobs.iter().filter(reads).map(|job| needs.vae(self.drawing_size(job)));
        // In each pass, an inpainting UNet sees a picture. Under a mask, a second pass keeps one.
        let is_shown = |pass: &&Pass<'_>| self.unet.is_inpainting() || pass.job.is_masked();
        let shown = passes.iter().filter(is_shown).map(|pass| pass.size);
        let on_card = own_sizes().chain(enlarged_by_pixels(jobs)).chain(shown);
        let on_card = on_card.filter(|_| !self.device.is_cpu()).map(|size| needs.vae(size));
        let encoder = reading.chain(on_card);
        let encoder = encoder.chain([self.kept.encoder]).max();
        let pictures = jobs.iter().map(|job| self.pictures(job)).sum::<u64>();
        let texts = jobs.iter().map(|job| self.encoded_prompts(job)).sum::<u64>();
        // Loaded for one of these jobs, or for one before.
        let checks = self
            .checking
            .as_ref()
            .is_some_and(|checking| checking.is_loaded() || jobs.iter().any(|job| !job.nsfw));
        let has_float32 =
            self.decoding.has_float32() || self.encoding.as_ref().is_some_and(Encoding::has_float32);
        let in_float32 = sizes().chain([usual]).map(|size| needs.vae_in_float32(size)).max();
        needs.weights()
            + in_float32.filter(|_| has_float32).unwrap_or(0)
            + if checks { needs.checker() } else { 0 }
            + tiny
            + unet
            + largest_by_unet(adapted)
            + self.controls(jobs)
            + self.deep_features(jobs)
            + decoder.unwrap_or(0)
            + encoder.unwrap_or(0)
            + self.upscalers_memory(jobs)
            + texts
            + pictures.max(needs.pictures(usual, 1))
    }

    /// The bytes of a job's pictures. What is laid back into a smaller one is drawn at the size of its second pass.
    fn pictures(&self, job: &GenerationInput) -> u64 {
        let of = |size| self.memory_needs.pictures(size, u64::from(job.num_outputs));
        of(job.result_size()).max(job.hires.as_ref().map_or(0, |hires| of(hires.target.kept)))
    }

    /// The bytes of a job's encoded prompts, at most as far as their words tell. They are never on a card for longer than a
    /// call.
    fn encoded_prompts(&self, job: &GenerationInput) -> u64 {
        if !self.device.is_cpu() {
            return 0;
        }
        let steps = |prompt: &str| if may_change(prompt) { job.num_inference_steps as usize } else { 1 };
        let chunks = |prompt: &str| 1 + prompt.len() / BYTES_OF_A_CHUNK + prompt.matches("BREAK").count();
        let of = |prompt: &str| prompt_parts(prompt).len() * steps(prompt) * chunks(prompt);
        let pictures = if job.wildcards { job.num_outputs as usize } else { 1 };
        let encoded = ((of(&job.prompt) + of(&job.negative_prompt)) * pictures).min(MAX_ENCODED);
        (encoded * self.prompts.window() * self.unet.text_width() * size_of::<f32>()) as u64
    }

    /// The bytes that the jobs' ControlNets take besides their weights and a usual call of each, which are prepared.
    fn controls(&self, jobs: &[&GenerationInput]) -> u64 {
        let (needs, usual) = (&self.memory_needs, self.usual_unet_call());
        let kept = |name: &str| self.controlnets.as_ref().map_or(0, |controlnets| controlnets.kept_by(name));
        let (mut further, mut given) = (Vec::new(), 0);
        for Pass { job, size, rows_each } in self.passes(jobs) {
            let images = (job.num_outputs as usize).min(self.batching.images) as u64;
            let rows = images * rows_each;
            if job.controlnets.is_empty() {
                continue;
            }
            let bytes = needs.control_call(size, rows);
            let names = job.controlnets.iter().map(|unit| unit.model.as_str());
            // Prepared ones count with the usual call, or with what they keep if that is more.
            further.extend(names.map(|name| (name, bytes.saturating_sub(kept(name).max(usual)))));
            given += needs.residuals(size, rows, job.controlnets.len() as u64);
        }
        largest_of_each(further) + given
    }

    /// The bytes of the deep features that jobs keep between calls of the whole UNet.
    fn deep_features(&self, jobs: &[&GenerationInput]) -> u64 {
        let passes = self.passes(jobs);
        let of = |Pass { job, size, rows_each }: &Pass<'_>| {
            let images = u64::from(job.num_outputs);
            let in_call = images.min(self.batching.images as u64);
            self.memory_needs.deep_features(*size, images * rows_each, in_call * rows_each)
        };
        passes.iter().filter(|pass| self.caches(pass.job)).map(of).sum()
    }

    /// Whether some calls of a job run the outer layers of the UNet alone.
    fn caches(&self, job: &GenerationInput) -> bool {
        job.cache_interval > 1 && job.controlnets.is_empty() && self.model.rules().max_cache_interval > 1
    }

    /// The bytes of a UNet call of the model's own size, as large as a server's calls are.
    pub(super) fn usual_unet_call(&self) -> u64 {
        self.memory_needs.unet(self.memory_needs.usual_size(), self.batching.largest_call())
    }

    pub(super) fn drawing_size(&self, input: &GenerationInput) -> ImageSize {
        self.drawn_for(input.size)
    }

    /// The size at which a picture of this size is drawn.
    pub(super) fn drawn_for(&self, size: ImageSize) -> ImageSize {
        drawing_size(size, self.model.description.max_side, self.model.description.grid)
    }

    /// The size at which the UNet and the VAE see a job's drawing.
    pub(super) fn size_with_rim(&self, input: &GenerationInput, drawn_at: ImageSize) -> ImageSize {
        match input.variation.tiling {
            true => tiling::size_with_rim(drawn_at, self.model.description.vae_scale_factor),
            false => drawn_at,
        }
    }

    /// The size at which a job's picture is encoded, where that is not the size of its drawing.
    fn encoded_size(&self, input: &GenerationInput) -> Option<ImageSize> {
        let picture =
            input.init_image.as_ref().filter(|_| input.inpainting.resize_mode == ResizeMode::Latent)?;
        Some(picture.size()?.fitted(self.model.description.vae_scale_factor))
    }

    /// Whether a job's pictures go through the encoder at the size of its drawing.
    fn encodes(&self, job: &GenerationInput) -> bool {
        job.init_image.is_some() || self.unet.is_inpainting() || self.unet.edits_images()
    }

    /// The bytes of a call of either decoder, besides its weights.
    pub(super) fn decoding_memory(&self, vae: Vae, size: ImageSize) -> u64 {
        match vae {
            Vae::Full => self.memory_needs.vae(size),
            Vae::Tiny => self.tiny.size().map_or(0, |(_, width)| self.memory_needs.tiny_vae(size, width)),
        }
    }

    /// The bytes of the tiny VAE, where it is loaded or one of these passes asks for it. On a card, with those of its
    /// largest call.
    fn tiny_memory(&self, passes: &[Pass<'_>]) -> u64 {
        let asked = passes.iter().filter(|pass| pass.job.vae == Vae::Tiny);
        let calls = asked.map(|pass| self.decoding_memory(Vae::Tiny, pass.size)).max();
        if calls.is_none() && !self.tiny.is_loaded() {
            return 0;
        }
        let weights = self.tiny.size().map_or(0, |(bytes, _)| bytes);
        let kept = calls.unwrap_or(0).max(self.kept.tiny);
        weights + if self.device.is_cpu() { 0 } else { kept }
    }

    fn calls_of<'a>(&'a self, jobs: &[&'a GenerationInput]) -> Vec<Calls<'a>> {
        let mut all: Vec<Calls<'a>> = Vec::new();
        for Pass { job, size, rows_each } in self.passes(jobs) {
            let form = self.unet_form(job);
            let unet = match &self.adapted {
                _ if job.loras.is_empty() && form.is_usual() => UNetOf::Model,
                Some(adapted) => adapted.unet_of(&job.loras, form),
                None => UNetOf::Unknown(&job.loras, form),
            };
            let (images, caches) = (job.num_outputs as usize, self.caches(job));
            match all.iter_mut().find(|calls| calls.size == size && calls.unet == unet) {
                Some(calls) => {
                    calls.images += images;
                    calls.rows_each = calls.rows_each.max(rows_each);
                    calls.caches |= caches;
                }
                None => all.push(Calls { size, unet, images, rows_each, caches }),
            }
        }
        all
    }

    /// The passes of jobs that draw.
    fn passes<'a>(&self, jobs: &[&'a GenerationInput]) -> Vec<Pass<'a>> {
        let mut passes = Vec::with_capacity(jobs.len());
        for job in jobs.iter().copied().filter(|job| job.upscale.is_none()) {
            let rows = |rows: u32| if self.unet.embeds_guidance() { 1 } else { u64::from(rows) };
            let size = self.size_with_rim(job, self.drawing_size(job));
            passes.push(Pass { job, size, rows_each: rows(job.rows_per_image()) });
            if let Some(second) = job.second_pass() {
                passes.push(Pass { job, size: second.size, rows_each: rows(second.rows_per_image()) });
            }
        }
        passes
    }

    /// The bytes of upscaler models for these jobs, and of the pictures that they make. The models are loaded one beside
    /// the other.
    fn upscalers_memory(&self, jobs: &[&GenerationInput]) -> u64 {
        let mut names: Vec<&str> = Vec::new();
        let mut bytes = 0;
        for job in jobs {
            let hires = job.hires.as_ref().map(|hires| &hires.upscaler);
            let Some(Upscaler::Model(name)) = hires.or(job.upscale.as_ref().map(|job| &job.upscaler)) else {
                continue;
            };
            // A file that cannot be read fails its job.
            let Ok(known) = self.upscalers.look_at(name) else { continue };
            if !names.contains(&name.as_str()) {
                names.push(name);
                bytes += known.memory;
            }
            bytes += if self.device.is_cpu() { Enlarging::LARGEST } else { 0 };
        }
        bytes
    }

    /// The rows of the largest call.
    fn rows(&self, calls: &Calls<'_>) -> u64 {
        let images = calls.images.min(self.batching.images) as u64;
        let rows = calls.rows_each * images;
        // Calls on a card are padded.
        if self.device.is_cpu() { rows } else { rows.next_power_of_two() }
    }
}

/// The sizes at which pictures are encoded between two passes.
fn enlarged_by_pixels(jobs: &[&GenerationInput]) -> impl Iterator<Item = ImageSize> {
    let hires = jobs.iter().filter_map(|job| job.hires.as_ref());
    hires.filter(|hires| !hires.upscaler.is_latent()).map(|hires| hires.target.covers)
}

/// The largest for each UNet, added up: each has a session of its own.
fn largest_by_unet(bytes: Vec<(UNetOf<'_>, u64)>) -> u64 {
    largest_of_each(bytes)
}

/// The largest number of each, added up.
fn largest_of_each<T: PartialEq>(mut bytes: Vec<(T, u64)>) -> u64 {
    let mut sum = 0;
    while let Some((unet, first)) = bytes.pop() {
        let same = bytes.extract_if(.., |(other, _)| *other == unet).map(|(_, bytes)| bytes);
        sum += same.fold(first, u64::max);
    }
    sum
}

#[cfg(test)]
mod tests;
