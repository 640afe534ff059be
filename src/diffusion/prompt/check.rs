//! A model's word on prompts before they are drawn: whether they fit the chunks that there may be.

use std::fmt;
use std::sync::Arc;

use super::chunks;
use crate::diffusion::models::Tokenizer;
use crate::domain::PromptCheck;

/// A tokenizer, asked ahead of time.
pub struct ChunkCheck(pub Arc<Tokenizer>);

impl fmt::Debug for ChunkCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkCheck")
    }
}

impl PromptCheck for ChunkCheck {
    fn check(&self, prompt: &str) -> Result<(), String> {
        // A byte makes five tokens at most (one decomposed and lowered grows by less), and a chunk takes 55.
        if prompt.len() <= 256 && !prompt.contains("BREAK") {
            return Ok(());
        }
        chunks(&self.0, prompt).map(drop).map_err(|error| error.to_string())
    }
}
