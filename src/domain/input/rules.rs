//! The limits and defaults of a model for requests. They are known before the model is loaded.

use std::fmt::Debug;
use std::sync::Arc;

use super::{CheckedPrompt, MAX_CACHE_INTERVAL};
use crate::domain::{
    ControlNetShelf, LoraShelf, Precision, SchedulerKind, Spacing, TinyVaeShelf, UpscalerShelf, WildcardShelf,
};

/// The limits of a model, and its defaults.
#[derive(Debug, Clone)]
pub struct InputRules {
    /// Width and height must be multiples of this many pixels.
    pub grid: u32,
    /// The default scheduler.
    pub scheduler: SchedulerKind,
    /// How the steps of the default scheduler are spaced.
    pub spacing: Option<Spacing>,
    /// The default of `guidance_rescale`.
    pub guidance_rescale: f64,
    /// The default of `guidance_end`.
    pub guidance_end: f64,
    /// The largest `clip_skip`. It is 1 if the text encoder gives only its last layer.
    pub max_clip_skip: u32,
    /// Whether it can start from a picture, which needs the encoder of the VAE.
    pub takes_images: bool,
    /// Whether it changes a picture as the prompt says (InstructPix2Pix). Then it needs a picture, and takes no mask.
    pub edits_images: bool,
    /// Whether it takes the guidance scale itself, so that nothing is drawn to be guided away from.
    pub embeds_guidance: bool,
    /// The precisions that it can draw in. In int8 it can if its UNet's weights are not inside its own graph.
    pub precisions: &'static [Precision],
    /// The largest `cache_interval`. 1 if calls of its UNet cannot reuse the deep features of earlier ones.
    pub max_cache_interval: u32,
    /// The LoRAs for the model. None if it does not support LoRAs.
    pub loras: Option<Arc<dyn LoraShelf>>,
    /// The ControlNets for the model. None if it does not support ControlNets.
    pub controlnets: Option<Arc<dyn ControlNetShelf>>,
    /// The operator's wildcards. Without them, only those in braces are drawn.
    pub wildcards: Option<Arc<dyn WildcardShelf>>,
    /// The upscaler models on the server. None if it has no folder for them.
    pub upscalers: Option<Arc<dyn UpscalerShelf>>,
    /// Knows whether the model has a tiny VAE. None if it cannot have one.
    pub tiny_vae: Option<Arc<dyn TinyVaeShelf>>,
    /// The model's own check of prompts.
    pub prompts: Option<Arc<dyn PromptCheck>>,
}

/// A check of prompts that needs the model's tokenizer.
pub trait PromptCheck: Debug + Send + Sync {
    /// Fails with the fields of the prompts that cannot be drawn in so many steps, and a sentence each that says why.
    fn check(&self, prompts: &[CheckedPrompt<'_>], steps: u32) -> Result<(), Vec<(&'static str, String)>>;
    /// How long this prompt is: its longest part, where it is longest if it changes from step to step. The LoRA tags are
    /// already removed. Fails with a sentence that says why it cannot be drawn.
    fn length(&self, prompt: &str) -> Result<PromptLength, String>;
    /// The words that textual inversions have taught the model, and how many vectors each has.
    fn learned_words(&self) -> Vec<(String, usize)> {
        Vec::new()
    }
}

/// How much of a model's text encoder a prompt fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptLength {
    pub tokens: usize,
    /// At least one.
    pub chunks: usize,
    /// The tokens of one chunk.
    pub room: usize,
}

impl InputRules {
    /// Whether the field of this name has an effect with the model.
    pub fn takes(&self, field: &str) -> bool {
        match field {
            "init_image" | "resize_mode" | "upscale" => self.takes_images,
            "mask" | "mask_invert" | "mask_blur" | "prompt_strength" | "inpaint_area" | "inpaint_padding"
            | "inpaint_fill" | "outpaint" => self.takes_images && !self.edits_images,
            "image_guidance_scale" => self.edits_images,
            "hires" => !self.edits_images,
            "negative_prompt" | "guidance_rescale" | "guidance_end" => !self.embeds_guidance,
            "lora" | "lora_scale" => self.loras.is_some(),
            "cache_interval" => self.max_cache_interval > 1,
            "controlnet" => self.controlnets.is_some(),
            "vae" => self.tiny_vae.as_ref().is_some_and(|shelf| shelf.check().is_ok()),
            "clip_skip" => self.max_clip_skip > 1,
            "precision" => self.precisions.len() > 1,
            _ => true,
        }
    }
}

impl Default for InputRules {
    /// The rules of Stable Diffusion v1 at the hosted service.
    fn default() -> Self {
        Self {
            grid: 64,
            scheduler: SchedulerKind::KLms,
            spacing: None,
            guidance_rescale: 0.0,
            guidance_end: 1.0,
            max_clip_skip: 1,
            takes_images: true,
            edits_images: false,
            embeds_guidance: false,
            precisions: &[Precision::Full],
            max_cache_interval: MAX_CACHE_INTERVAL,
            loras: None,
            controlnets: None,
            wildcards: None,
            upscalers: None,
            tiny_vae: None,
            prompts: None,
        }
    }
}
