//! What a model can be asked for, known before it is loaded.

use std::fmt::Debug;
use std::sync::Arc;

use crate::domain::{LoraShelf, SchedulerKind};

/// What a model can be asked for, and what it does where a request is silent.
#[derive(Debug, Clone)]
pub struct InputRules {
    /// Width and height are multiples of this many pixels.
    pub grid: u32,
    /// Draws where the request names no scheduler.
    pub scheduler: SchedulerKind,
    /// Whether it does so with Karras sigmas.
    pub karras: bool,
    /// The largest `clip_skip`: 1 where the text encoder gives its last layer alone.
    pub max_clip_skip: u32,
    /// Whether it can start from a picture, for which it needs its VAE's encoder.
    pub takes_images: bool,
    /// The LoRAs that there are for it; none where it can take none.
    pub loras: Option<Arc<dyn LoraShelf>>,
    /// Its own word on prompts, if it has one.
    pub prompts: Option<Arc<dyn PromptCheck>>,
}

/// What only a model's tokenizer can tell of a prompt.
pub trait PromptCheck: Debug + Send + Sync {
    /// Fails with a sentence that says why the prompt, whose LoRA tags are gone, cannot be drawn.
    fn check(&self, prompt: &str) -> Result<(), String>;
}

impl Default for InputRules {
    /// Stable Diffusion v1's, as the hosted worker had it.
    fn default() -> Self {
        Self {
            grid: 64,
            scheduler: SchedulerKind::KLms,
            karras: false,
            max_clip_skip: 1,
            takes_images: true,
            loras: None,
            prompts: None,
        }
    }
}
