//! Checks prompts when a request comes in: whether they fit into the chunks that are allowed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::prompt_texts::{PromptText, PromptTexts};
use crate::diffusion::files::TextualInversionFolder;
use crate::diffusion::text::{LearnedWords, MAX_ENCODED, PromptError, PromptSteps, Tokenizer, may_change};
use crate::domain::{CheckedPrompt, GenerationInput, PromptCheck, PromptLength, prompt_parts};

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
    fn check(&self, prompts: &[CheckedPrompt<'_>], steps: u32) -> Result<(), Vec<(&'static str, String)>> {
        let words = self.textual_inversions.as_ref().map(|folder| folder.words());
        let words = words.filter(|words| !words.is_empty());
        // A byte makes at most five tokens (a decomposed and lower-cased one grows by less), and a chunk takes at
        // least 55, so these prompts fit.
        let fits = |part: &&str| part.len() <= 256 && !part.contains("BREAK") && !may_change(part);
        if words.is_none() && prompts.iter().flat_map(|prompt| &prompt.parts).all(fits) {
            return Ok(());
        }
        let words = words.unwrap_or_else(|| Arc::new(LearnedWords::none()));
        let mut texts = PromptTexts::new(&self.tokenizer, &words, PromptSteps { steps, before: None });
        let mut sentences = Vec::new();
        // The texts of all pictures, each with the chunks that it has in its picture.
        let mut encoded = BTreeSet::new();
        for picture in prompts.chunk_by(|one, other| one.picture == other.picture) {
            let mut read = BTreeSet::new();
            for prompt in picture {
                let added = prompt.parts.iter().try_for_each(|part| {
                    let timeline = texts.add(part, prompt.field == "prompt")?;
                    read.extend(timeline.0.into_iter().map(|(_, text)| text));
                    Ok::<_, PromptError>(())
                });
                let sentence = added.err().map(|error| (prompt.field, error.to_string()));
                sentences.extend(sentence.filter(|sentence| !sentences.contains(sentence)));
            }
            let longest = read.iter().map(|text| texts.texts[*text].chunks.len()).max().unwrap_or(0);
            encoded.extend(read.into_iter().map(|text| (text, longest)));
        }
        if sentences.is_empty() && encoded.iter().map(|(_, chunks)| chunks).sum::<usize>() > MAX_ENCODED {
            let chunks = encoded.iter().map(|(_, chunks)| *chunks).max().unwrap_or(0);
            sentences.push(("prompt", PromptError::TooMany { texts: encoded.len(), chunks }.to_string()));
        }
        if sentences.is_empty() { Ok(()) } else { Err(sentences) }
    }

    fn learned_words(&self) -> Vec<(String, usize)> {
        let words = self.textual_inversions.as_ref().map(|folder| folder.words());
        words.map(|words| words.usable().collect()).unwrap_or_default()
    }

    fn length(&self, prompt: &str) -> Result<PromptLength, String> {
        let words = self.textual_inversions.as_ref().map(|folder| folder.words());
        let words = words.unwrap_or_else(|| Arc::new(LearnedWords::none()));
        let steps = PromptSteps { steps: GenerationInput::new("").num_inference_steps, before: None };
        let mut texts = PromptTexts::new(&self.tokenizer, &words, steps);
        for part in prompt_parts(prompt) {
            texts.add(part.text, true).map_err(|error| error.to_string())?;
        }
        let tokens = |text: &PromptText| text.chunks.iter().map(|chunk| chunk.ids.len()).sum();
        let tokens = texts.texts.iter().map(tokens).max().unwrap_or(0);
        let chunks = texts.texts.iter().map(|text| text.chunks.len()).max().unwrap_or(0);
        Ok(PromptLength { tokens, chunks, room: self.tokenizer.room() })
    }
}
