//! A model's word on prompts before they are drawn: whether they fit the chunks that there may be.

use std::fmt;
use std::sync::Arc;

use crate::diffusion::files::TextualInversionFolder;
use crate::diffusion::text::{LearnedWords, Tokenizer, chunks};
use crate::domain::PromptCheck;

/// A tokenizer, asked ahead of time.
pub struct ChunkCheck {
    tokenizer: Arc<Tokenizer>,
    /// Words that stand for more than one token, where the model takes such.
    textual_inversions: Option<Arc<TextualInversionFolder>>,
}

impl ChunkCheck {
    pub fn new(tokenizer: Arc<Tokenizer>, textual_inversions: Option<Arc<TextualInversionFolder>>) -> Self {
        Self { tokenizer, textual_inversions }
    }
}

impl fmt::Debug for ChunkCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkCheck")
    }
}

impl PromptCheck for ChunkCheck {
    fn check(&self, prompt: &str) -> Result<(), String> {
        let words = self.textual_inversions.as_ref().map(|folder| folder.words());
        let words = words.filter(|words| !words.is_empty());
        // A byte makes five tokens at most (one decomposed and lowered grows by less), and a chunk takes 55.
        if words.is_none() && prompt.len() <= 256 && !prompt.contains("BREAK") {
            return Ok(());
        }
        let words = words.unwrap_or_else(|| Arc::new(LearnedWords::none()));
        chunks(&self.tokenizer, &words, prompt).map(drop).map_err(|error| error.to_string())
    }
}
