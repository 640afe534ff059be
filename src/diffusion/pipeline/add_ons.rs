//! What an operator lays beside a model: folders of LoRAs, ControlNets, textual inversions, wildcards, upscalers and tiny VAEs.
//!
//! Only models whose weights go into graphs of ours take the first three; an ONNX export has its weights in its graphs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::diffusion::files::{ControlNetFolder, LoraFolder, TextualInversionFolder};
use crate::diffusion::text::Tokenizer;

/// Where they are, and what they may cost.
#[derive(Debug, Clone)]
pub struct AddOnFolders {
    pub loras: PathBuf,
    pub controlnets: PathBuf,
    pub embeddings: PathBuf,
    /// The text files that prompts draw words from.
    pub wildcards: PathBuf,
    pub upscalers: PathBuf,
    pub tiny_vaes: PathBuf,
    /// The most bytes that one pipeline keeps in parts of the model with LoRAs merged in.
    pub lora_memory: u64,
    /// How old the knowledge of what lies in the folders may be.
    pub look_every: Duration,
}

/// The add-ons of one model, which all its pipelines share.
#[derive(Debug, Clone)]
pub struct AddOns {
    pub loras: Arc<LoraFolder>,
    pub controlnets: Arc<ControlNetFolder>,
    pub textual_inversions: Arc<TextualInversionFolder>,
    pub lora_memory: u64,
}

impl AddOns {
    /// `embedding_width` is that of the text encoder's own embeddings.
    pub fn new(folders: AddOnFolders, tokenizer: Arc<Tokenizer>, embedding_width: usize) -> Self {
        let AddOnFolders { loras, controlnets, embeddings, lora_memory, look_every, .. } = folders;
        Self {
            loras: Arc::new(LoraFolder::new(loras, look_every)),
            controlnets: Arc::new(ControlNetFolder::new(controlnets, look_every)),
            textual_inversions: Arc::new(TextualInversionFolder::new(
                embeddings,
                look_every,
                tokenizer,
                embedding_width,
            )),
            lora_memory,
        }
    }
}
