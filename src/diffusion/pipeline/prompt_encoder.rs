//! Encodes prompts for the UNet: each chunk goes through the text encoder and is weighted as in A1111, and the chunks are
//! concatenated along the token axis. A plain prompt of one chunk is exactly the text encoder's output. Prompts that change
//! from step to step are encoded once for each of their texts.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::DiffusionError;
use super::chunk_encoder::{ChunkEncoder, Wanted};
use super::conditioning::{EncodedPrompts, Part, PicturePrompts};
use super::prompt_texts::PromptTexts;
use crate::diffusion::files::TextualInversionFolder;
use crate::diffusion::nets::{EncodedPrompt, TextEncoder};
use crate::diffusion::text::{
    Chunk, Learned, LearnedWord, LearnedWords, MAX_ENCODED, PromptError, PromptSteps, Tokenizer,
};
use crate::domain::{DrawnPrompts, GenerationInput, PromptPart, prompt_parts, without_lora_tags};

pub struct PromptEncoder {
    tokenizer: Arc<Tokenizer>,
    text_encoder: TextEncoder,
    /// The exact number of chunks that the UNet reads. `None` if it reads any number.
    chunks_read: Option<usize>,
    warned: bool,
    /// Whether guidance goes away from a negative prompt, as it does unless the UNet embeds it.
    guides_by_negative: bool,
    /// The source of learned words, if the text encoder takes any.
    textual_inversions: Option<Arc<TextualInversionFolder>>,
}

impl PromptEncoder {
    /// `tokens_read` is the length of the UNet's token axis, if that is fixed.
    pub fn new(tokenizer: Arc<Tokenizer>, text_encoder: TextEncoder, tokens_read: Option<usize>) -> Self {
        let chunks_read = tokens_read.map(|tokens| (tokens / tokenizer.window()).max(1));
        Self {
            tokenizer,
            text_encoder,
            chunks_read,
            warned: false,
            guides_by_negative: true,
            textual_inversions: None,
        }
    }

    /// The tokens of a chunk, with those that frame it.
    pub fn window(&self) -> usize {
        self.tokenizer.window()
    }

    /// Encodes no negative prompts, for a UNet that embeds guidance.
    pub fn without_negatives(&mut self) {
        self.guides_by_negative = false;
    }

    /// Adds words from this folder.
    pub fn learn_from(&mut self, textual_inversions: Arc<TextualInversionFolder>) {
        self.textual_inversions = Some(textual_inversions);
    }

    /// All prompts, the shorter ones padded. `drawn` are those of each picture where wildcards drew them; else all pictures
    /// have the request's. `other` replaces the text encoder where a LoRA has changed it. `bundled` are words that LoRAs
    /// bring along.
    pub fn encode(
        &mut self,
        input: &GenerationInput,
        drawn: &[DrawnPrompts],
        steps: PromptSteps,
        other: Option<&mut TextEncoder>,
        bundled: &[Learned],
    ) -> Result<EncodedPrompts, DiffusionError> {
        let words = self.textual_inversions.as_ref().map(|folder| folder.words());
        let mut words = words.unwrap_or_else(|| Arc::new(LearnedWords::none()));
        if !bundled.is_empty() {
            words = Arc::new(words.with(bundled, &self.tokenizer).map_err(PromptError::from)?);
        }
        let mut texts = PromptTexts::new(&self.tokenizer, &words, steps);
        let is_guided = self.guides_by_negative && input.is_guided();
        let mut add = |prompt: &str, negative_prompt: &str| {
            let prompt = without_lora_tags(prompt);
            let parts = prompt_parts(&prompt)
                .into_iter()
                .map(|PromptPart { text, weight }| Ok(Part { weight, timeline: texts.add(text, true)? }));
            let parts = parts.collect::<Result<Vec<_>, PromptError>>()?;
            // Wildcards may have left one part of several, which then needs no negative prompt to be weighed against.
            let negative = match is_guided && (input.guidance_scale > 1.0 || parts.len() > 1) {
                true => Some(texts.add(&without_lora_tags(negative_prompt), false)?),
                false => None,
            };
            Ok::<_, PromptError>(PicturePrompts { parts, negative })
        };
        let mut pictures = match drawn {
            [] => vec![add(&input.prompt, &input.negative_prompt)?],
            drawn => drawn
                .iter()
                .map(|drawn| add(&drawn.prompt, &drawn.negative_prompt))
                .collect::<Result<_, _>>()?,
        };
        let learned = learned_in(texts.texts.iter().flat_map(|text| &text.chunks), &words);
        let PromptTexts { texts, unknown, .. } = texts;
        // A picture is padded to its own longest text, so that it is the same without the others.
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut cut = None;
        for picture in &mut pictures {
            let numbers = || picture.timelines().flat_map(|timeline| &timeline.0).map(|(_, text)| *text);
            let longest = numbers().map(|text| texts[text].chunks.len()).max().unwrap_or(1);
            let parts = numbers().filter(|text| texts[*text].is_part);
            let longest_part = parts.map(|text| texts[text].chunks.len()).max().unwrap_or(1);
            let count = self.chunks_read.unwrap_or(longest);
            cut = cut.max((longest > count).then_some((count, longest)));
            for (_, text) in picture.timelines_mut().flat_map(|timeline| &mut timeline.0) {
                let repeated_to = if texts[*text].is_part { longest_part } else { 0 };
                let this = Wanted { text: *text, repeated_to, count };
                *text = wanted.iter().position(|other| *other == this).unwrap_or_else(|| {
                    wanted.push(this);
                    wanted.len() - 1
                });
            }
        }
        let chunks = wanted.iter().map(|text| text.count);
        if chunks.clone().sum::<usize>() > MAX_ENCODED {
            let chunks = chunks.max().unwrap_or(0);
            return Err(PromptError::TooMany { texts: wanted.len(), chunks }.into());
        }
        self.warn_of(cut);
        let mut encoder = ChunkEncoder {
            tokenizer: &self.tokenizer,
            text_encoder: other.unwrap_or(&mut self.text_encoder),
            words: &words,
            clip_skip: input.clip_skip,
            empty: None,
        };
        let read = wanted
            .iter()
            .map(|wanted| encoder.encode(&texts[wanted.text].chunks, wanted).map(EncodedPrompt::new))
            .collect::<Result<_, _>>()?;
        Ok(EncodedPrompts { texts: read, pictures, cut, learned, unknown, hash: OnceLock::new() })
    }

    /// Warns once that prompts are cut.
    fn warn_of(&mut self, cut: Option<(usize, usize)>) {
        if let Some((count, _)) = cut.filter(|_| !self.warned) {
            self.warned = true;
            tracing::warn!(
                "this UNet reads exactly {count} chunk(s) of a prompt: the rest of a longer prompt is ignored, and \
                 the picture's text says so"
            );
        }
    }

    pub fn time_in_run(&self) -> Duration {
        self.text_encoder.time_in_run()
    }
}

/// The learned words whose vectors are in the chunks.
fn learned_in<'a>(chunks: impl Iterator<Item = &'a Chunk>, words: &LearnedWords) -> Vec<LearnedWord> {
    let ids: Vec<u32> = match words.is_empty() {
        true => return Vec::new(),
        false => chunks.flat_map(|chunk| chunk.ids.iter().copied()).collect(),
    };
    words.among(&ids).cloned().collect()
}

#[cfg(test)]
mod tests;
