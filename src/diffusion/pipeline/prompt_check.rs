//! Checks prompts when a request comes in: whether they fit into the chunks that are allowed.

use std::fmt;
use std::sync::Arc;

use crate::diffusion::files::TextualInversionFolder;
use crate::diffusion::text::{LearnedWords, Tokenizer, chunks};
use crate::domain::PromptCheck;

/// Checks prompts with a model's tokenizer.
pub struct ChunkCheck {
    tokenizer: Arc<Tokenizer>,
    /// Words that become several tokens, where the model takes textual inversions.
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
        // A byte makes at most five tokens (a decomposed and lower-cased one grows by less), and a chunk takes at
        // least 55, so this prompt fits.
        if words.is_none() && prompt.len() <= 256 && !prompt.contains("BREAK") {
            return Ok(());
        }
        let words = words.unwrap_or_else(|| Arc::new(LearnedWords::none()));
        chunks(&self.tokenizer, &words, prompt).map(drop).map_err(|error| error.to_string())
    }
}
