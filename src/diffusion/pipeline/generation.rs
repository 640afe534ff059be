//! One request in progress: its latents, schedule and encoded prompts, and how far it is.

use std::sync::{Arc, Mutex};

use ndarray::{Array3, Array4, ArrayViewMut4, Axis, Zip, s};

use super::adapted::Adapted;
use super::conditioning::EncodedPrompts;
use super::control::Control;
use super::deep_features::DeepFeatures;
use super::first_latents::{FirstLatents, Original};
use super::float32::is_finite;
use super::saved::PictureHash;
use super::second_pass::{FirstPass, SecondPass};
use super::tiling::with_rim;
use crate::diffusion::image::Overlay;
use crate::diffusion::nets::{EncodedPrompt, UNet};
use crate::diffusion::noise::BatchNoise;
use crate::diffusion::schedulers::{Denoise, PredictionType, Scheduler, SchedulerError};
use crate::domain::{DrawnPrompts, GenerationInput, ImageSize};

/// Made by [`Pipeline::begin`](super::Pipeline::begin), read by `finish`.
pub struct Generation {
    /// The request without its pictures, which have been read.
    pub(super) input: GenerationInput,
    pub(super) seed: u64,
    /// How much of the given picture may change, if there is one.
    pub(super) strength: Option<f64>,
    /// What the request's pictures were, for [`Saved`](super::saved).
    pub(super) pictures: PictureHash,
    /// Whether the request had a mask, or pixels to add.
    pub(super) is_masked: bool,
    /// The size of the latents in pixels, which may be below the requested size.
    pub(super) drawn_at: ImageSize,
    pub(super) prompts: EncodedPrompts,
    /// Of each image, if wildcards drew them.
    pub(super) drawn: Vec<DrawnPrompts>,
    /// The model's parts with the request's LoRAs, if it has any.
    pub(super) adapted: Option<Arc<Adapted>>,
    /// The ControlNets that it follows.
    pub(super) controls: Vec<Control>,
    /// `[images, channels, height, width]`.
    pub(super) latents: Array4<f32>,
    /// The UNet's input at the current step: the scaled latents, and beside them what some UNets see of a picture.
    pub(super) model_input: Array4<f32>,
    /// The same without the picture to change, where guidance compares both.
    pub(super) blind_input: Option<Array4<f32>>,
    /// Both with a rim, for a picture that tiles.
    rimmed: Option<(Array4<f32>, Option<Array4<f32>>)>,
    pub(super) noise_pred: Array4<f32>,
    pub(super) deep: DeepFeatures,
    pub(super) scheduler: Scheduler,
    pub(super) noise: BatchNoise,
    /// The latents and the noise with what the scheduler adds before the next call. They count once the call is made: a
    /// call that fails for want of memory may be made again.
    raised: Option<(Array4<f32>, BatchNoise)>,
    /// The given picture, where only a part of it is repainted.
    original: Option<Original>,
    /// Laid over the finished pictures.
    pub(super) overlay: Option<Overlay>,
    /// The first call. A start from a picture skips calls.
    begin: usize,
    /// The next call.
    pub(super) call: usize,
    /// The first call whose prediction is, or will be, in `noise_pred`.
    pub(super) seen_since: usize,
    /// What follows this pass: the second one, until it has begun.
    pub(super) next: Option<Box<SecondPass>>,
    /// What came before it, if it is a second pass.
    pub(super) first: Option<Box<FirstPass>>,
    warnings: Vec<String>,
    /// Why it could not be enlarged. It is done then.
    pub(super) fault: Option<String>,
    /// After which step its latents were no longer finite. It is done then.
    pub(super) broken_at: Option<u32>,
}

impl Generation {
    /// Image i's random numbers come from `seed + i`.
    pub(super) fn new(
        input: GenerationInput,
        seed: u64,
        drawn_at: ImageSize,
        scheduler: Scheduler,
        (start, noise): (FirstLatents, BatchNoise),
        prompts: EncodedPrompts,
    ) -> Self {
        let FirstLatents { latents, begin, conditioning, original } = start;
        let input_rows = input.rows_per_image();
        let (model_input, blind_input) = match conditioning {
            None => (latents.clone(), None),
            Some(shown) => {
                let (images, channels, height, width) = latents.dim();
                let blind = Array4::zeros((images, channels + shown.dim().1, height, width));
                let mut input = blind.clone();
                input.slice_mut(s![.., channels.., .., ..]).assign(&shown);
                (input, (input_rows == 3).then_some(blind))
            }
        };
        Self {
            noise_pred: latents.clone(),
            model_input,
            blind_input,
            rimmed: None,
            deep: DeepFeatures::every(1),
            strength: input
                .init_image
                .as_ref()
                .filter(|_| input.image_guidance_scale.is_none())
                .map(|_| input.prompt_strength),
            warnings: input.warnings.clone(),
            pictures: PictureHash::new(&input),
            is_masked: input.is_masked(),
            input: input.without_pictures(),
            seed,
            drawn_at,
            prompts,
            drawn: Vec::new(),
            adapted: None,
            controls: Vec::new(),
            latents,
            scheduler,
            noise,
            raised: None,
            original,
            overlay: None,
            begin,
            call: begin,
            seen_since: begin,
            next: None,
            first: None,
            fault: None,
            broken_at: None,
        }
    }

    /// The UNet with LoRAs, where the model's own is not used.
    pub(super) fn adapted_unet(&self) -> Option<&Mutex<UNet>> {
        self.adapted.as_ref().and_then(|adapted| adapted.unet.as_ref())
    }

    pub fn images(&self) -> usize {
        self.latents.dim().0
    }

    /// What the client should know about how it was drawn, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(super) fn warn(&mut self, sentence: String) {
        self.warnings.push(sentence);
    }

    /// The current latents `[images, channels, height, width]`.
    pub fn latents(&self) -> &Array4<f32> {
        &self.latents
    }

    /// One for each UNet call, without those that a start from a picture skips.
    pub fn timesteps(&self) -> &[f32] {
        &self.scheduler.timesteps()[self.begin..]
    }

    pub fn is_done(&self) -> bool {
        self.has_made_all_calls() && self.next.is_none() || self.has_failed()
    }

    fn has_failed(&self) -> bool {
        self.broken_at.is_some() || self.fault.is_some()
    }

    fn has_made_all_calls(&self) -> bool {
        self.call == self.scheduler.timesteps().len()
    }

    /// Whether a UNet call is next.
    pub(super) fn is_drawing(&self) -> bool {
        !self.has_made_all_calls() && !self.has_failed()
    }

    /// Whether the first pass is over and the second has not begun.
    pub(super) fn is_between_passes(&self) -> bool {
        self.has_made_all_calls() && !self.is_done()
    }

    /// Becomes its second pass.
    pub(super) fn become_second(&mut self, mut second: Self) {
        let steps = self.progress().1 - second.progress().1.max(1);
        second.follow(self, steps);
        *self = second;
    }

    /// It comes after `first`, which took so many steps with all that lay between.
    fn follow(&mut self, first: &mut Self, steps: u32) {
        let (input, drawn_at) = (first.input.clone(), first.drawn_at);
        let drawn = std::mem::take(&mut first.drawn);
        self.first = Some(Box::new(FirstPass { input, drawn_at, drawn, steps }));
        let own = std::mem::replace(&mut self.warnings, std::mem::take(&mut first.warnings));
        for sentence in own {
            if !self.warnings.contains(&sentence) {
                self.warnings.push(sentence);
            }
        }
        // The text in the pictures tells the words of both passes.
        for word in std::mem::take(&mut first.prompts.learned) {
            if self.prompts.learned.iter().all(|known| known.name != word.name) {
                self.prompts.learned.push(word);
            }
        }
        self.prompts.cut = self.prompts.cut.max(first.prompts.cut);
        // The text in the pictures tells how much of the client's picture the first pass changed.
        self.strength = first.strength;
    }

    /// The prompts that were drawn for each picture.
    pub(super) fn drawn_prompts(&self) -> &[DrawnPrompts] {
        self.first.as_ref().map_or(&self.drawn, |first| &first.drawn)
    }

    /// The request of all passes.
    pub(super) fn request(&self) -> &GenerationInput {
        self.first.as_ref().map_or(&self.input, |first| &first.input)
    }

    /// The steps done and all steps: those requested, without those that a start from a picture skips. Schedulers that
    /// call the UNet more than once per step count their calls in proportion. With a second pass, the steps of both, and
    /// the pieces in which the picture is enlarged between them.
    pub fn progress(&self) -> (u32, u32) {
        let (done, steps) = self.pass_progress();
        let before = self.first.as_ref().map_or(0, |first| first.steps);
        let (enlarged, after) = self.next.as_ref().map_or((0, 0), |next| next.progress());
        let steps = before + steps + after;
        // What is broken is not stepped any more, so it is done.
        let is_over = self.is_done() && (self.has_failed() || self.first.is_some());
        let done = if is_over { steps } else { before + done + enlarged };
        (done, steps)
    }

    /// The steps done and all steps of this pass alone.
    fn pass_progress(&self) -> (u32, u32) {
        let (done, calls) = self.place();
        let steps = Self::steps_of(calls, self.scheduler.timesteps().len(), self.input.num_inference_steps);
        (u32::try_from(done * steps as usize / calls.max(1)).unwrap_or(u32::MAX), steps)
    }

    /// The step of the next call, counted from 0 in each pass. Prompts change by it: they are encoded for each pass.
    pub(super) fn step_of_pass(&self) -> u32 {
        self.pass_progress().0
    }

    /// The steps that `calls` of `all` calls are, where all of them are `asked` steps.
    pub(super) fn steps_of(calls: usize, all: usize, asked: u32) -> u32 {
        u32::try_from(calls * asked as usize / all.max(1)).unwrap_or(u32::MAX)
    }

    /// The clean latents `[channels, height, width]` of the first image, according to the last prediction. None before the
    /// first prediction, and where the scheduler cannot tell.
    pub(super) fn predicted_original(&self, prediction: PredictionType) -> Option<Array3<f32>> {
        self.predicted_original_of(0, prediction)
    }

    /// The same of one image.
    fn predicted_original_of(&self, image: usize, prediction: PredictionType) -> Option<Array3<f32>> {
        let call = self.call.checked_sub(1).filter(|&call| call >= self.seen_since)?;
        let (signal, share) = self.scheduler.noising(call).ok()?;
        // Without any signal, only the next prediction tells.
        if signal <= 0.0 {
            return None;
        }
        // The sample at that call in k-diffusion's scale, from the UNet's input.
        let unscale = self.scheduler.input_divisor(call).unwrap_or(1.0) / signal;
        let denoise = Denoise::at(prediction, share / signal);
        let shown = self.model_input.slice(s![image, ..self.latents.dim().1, .., ..]);
        let predicted = self.noise_pred.index_axis(Axis(0), image);
        Some(Zip::from(&shown).and(&predicted).map_collect(|&x, &m| denoise.x0(x * unscale, m)))
    }

    /// Takes what is predicted now as the end, as A1111 does when it is interrupted (`last_latent` in its
    /// `modules/sd_samplers_common.py`). No second pass follows. Where the scheduler cannot tell, the latents stay as they are.
    pub(super) fn cut_short(&mut self, prediction: PredictionType) -> Result<(), SchedulerError> {
        let (step, steps) = self.progress();
        // Between two passes, the first picture is there already.
        if self.is_drawing() {
            for image in 0..self.images() {
                if let Some(clean) = self.predicted_original_of(image, prediction) {
                    self.latents.index_axis_mut(Axis(0), image).assign(&clean);
                }
            }
        }
        self.next = None;
        self.call = self.scheduler.timesteps().len();
        if let Some(original) = &self.original {
            original.restore(&mut self.latents, self.call, &self.scheduler)?;
        }
        self.warn(format!("The pictures were stopped after {step} of {steps} steps."));
        Ok(())
    }

    /// The parts of an image's prompt for the next call, with their weights.
    pub(super) fn positives(&self, image: usize) -> impl Iterator<Item = (&EncodedPrompt, f32)> {
        self.prompts.positives(image, self.step_of_pass())
    }

    /// The negative prompt of an image for the next call, if that needs it: guidance may end before the steps do. The parts
    /// of a prompt are weighed against it to the end.
    pub(super) fn guided_by(&self, image: usize) -> Option<&EncodedPrompt> {
        let step = self.step_of_pass();
        let is_needed = self.is_guided() || self.prompts.positives(image, step).len() > 1;
        self.prompts.negative(image, step).filter(|_| is_needed)
    }

    /// How strongly the next call is guided: 1 where guidance has ended.
    pub(super) fn guidance_scale(&self) -> f32 {
        if self.is_guided() { self.input.guidance_scale } else { 1.0 }
    }

    /// Whether guidance has not ended before the next call.
    fn is_guided(&self) -> bool {
        // A start from a picture leaves out the first calls: the share is of those that are made.
        let (done, calls) = self.place();
        #[expect(clippy::cast_precision_loss, reason = "calls lie far below 2^53")]
        let is_guided = (done as f64) < self.input.guidance_end * calls as f64;
        is_guided
    }

    /// The number of the next call, and of all calls, without those that a start from a picture skips.
    pub(super) fn place(&self) -> (usize, usize) {
        (self.call - self.begin, self.scheduler.timesteps().len() - self.begin)
    }

    pub(super) fn timestep(&self) -> f32 {
        self.scheduler.timesteps()[self.call]
    }

    /// Whether the UNet sees the latents with a rim.
    pub(super) fn has_rim(&self) -> bool {
        self.input.variation.tiling
    }

    /// The UNet's input, `[images, channels, h, w]`; `is_blind` without the picture to change, if there is such an input.
    pub(super) fn unet_input(&self, is_blind: bool) -> &Array4<f32> {
        let rimmed = self.rimmed.as_ref();
        match self.blind_input.as_ref().filter(|_| is_blind) {
            Some(blind) => rimmed.and_then(|(_, blind)| blind.as_ref()).unwrap_or(blind),
            None => rimmed.map_or(&self.model_input, |(seen, _)| seen),
        }
    }

    /// Prepares `model_input` for the next call.
    pub(super) fn scale_model_input(&mut self) -> Result<(), SchedulerError> {
        let channels = self.latents.dim().1;
        self.raised = None;
        if self.scheduler.prepares() {
            let (mut latents, mut noise) = (self.latents.clone(), self.noise.clone());
            self.scheduler.prepare(self.call, &mut latents, &mut noise)?;
            self.raised = Some((latents, noise));
        }
        let latents = self.raised.as_ref().map_or(&self.latents, |(latents, _)| latents);
        let input: ArrayViewMut4<f32> = self.model_input.slice_mut(s![.., ..channels, .., ..]);
        self.scheduler.scale_model_input(latents, self.call, input)?;
        if let Some(blind) = &mut self.blind_input {
            let seen = self.model_input.slice(s![.., ..channels, .., ..]);
            blind.slice_mut(s![.., ..channels, .., ..]).assign(&seen);
        }
        if self.has_rim() {
            self.rimmed = Some((with_rim(&self.model_input), self.blind_input.as_ref().map(with_rim)));
        }
        Ok(())
    }

    /// Moves the latents on by the UNet's answer in `noise_pred`.
    pub(super) fn advance(&mut self) -> Result<(), SchedulerError> {
        if let Some((latents, noise)) = self.raised.take() {
            (self.latents, self.noise) = (latents, noise);
        }
        self.scheduler.step(&self.noise_pred, self.call, &mut self.latents, &mut self.noise)?;
        self.call += 1;
        if let Some(original) = &self.original {
            original.restore(&mut self.latents, self.call, &self.scheduler)?;
        }
        if !is_finite(&self.latents) {
            self.broken_at = Some(self.progress().0.max(1));
        }
        Ok(())
    }
}
