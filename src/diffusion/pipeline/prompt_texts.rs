//! What a request's prompts say at each step, split into chunks: the distinct texts, and when each is read. Knows no text
//! encoder, so that requests can be checked without one.

use std::collections::HashMap;

use super::conditioning::Timeline;
use crate::diffusion::text::{
    Chunk, LearnedWords, MAX_ENCODED, PromptError, PromptSteps, Stretch, Tokenizer, bare_names, chunks,
    may_change, stretches,
};

/// The most names behind `embedding:` that are reported.
const MOST_UNKNOWN: usize = 10;

/// A distinct text.
#[derive(Debug, PartialEq)]
pub(super) struct PromptText {
    /// Those of a prompt that changes are as many at every step: the shorter texts end with empty ones.
    pub chunks: Vec<Chunk>,
    /// Whether it is a part of a prompt. Where another part is longer, A1111 repeats the last vector of this one
    /// (`stack_conds` of its `modules/prompt_parser.py`).
    pub is_part: bool,
}

/// Collects the texts of a request.
pub(super) struct PromptTexts<'a> {
    pub tokenizer: &'a Tokenizer,
    pub words: &'a LearnedWords,
    pub steps: PromptSteps,
    pub texts: Vec<PromptText>,
    /// The names behind `embedding:` that no learned word has.
    pub unknown: Vec<String>,
}

impl<'a> PromptTexts<'a> {
    pub fn new(tokenizer: &'a Tokenizer, words: &'a LearnedWords, steps: PromptSteps) -> Self {
        Self { tokenizer, words, steps, texts: Vec::new(), unknown: Vec::new() }
    }

    /// Adds a part of a prompt, or a negative prompt.
    pub fn add(&mut self, prompt: &str, is_part: bool) -> Result<Timeline, PromptError> {
        let (prompt, unknown) = bare_names(prompt, self.words, self.tokenizer)?;
        for name in unknown {
            // A prompt may have thousands of names, and each one becomes a warning.
            if self.unknown.len() < MOST_UNKNOWN && !self.unknown.contains(&name) {
                self.unknown.push(name);
            }
        }
        let (own, mut timeline) = match may_change(&prompt) {
            false => (vec![chunks(self.tokenizer, self.words, &prompt)?], vec![(self.steps.steps, 0)]),
            true => self.changing(&prompt)?,
        };
        let longest = own.iter().map(Vec::len).max().unwrap_or(0);
        let numbers: Vec<usize> = own
            .into_iter()
            .map(|mut chunks| {
                chunks.resize_with(longest, Chunk::default);
                self.number(PromptText { chunks, is_part })
            })
            .collect();
        for (_, text) in &mut timeline {
            *text = numbers[*text];
        }
        match self.texts.len() > MAX_ENCODED {
            true => Err(PromptError::TooMany { texts: self.texts.len(), chunks: longest }),
            false => Ok(Timeline(timeline)),
        }
    }

    /// The distinct texts of a prompt that may change, and the one of each stretch of steps. It stops at the first text
    /// that is too much: to split hundreds of long texts takes seconds.
    #[expect(clippy::type_complexity, reason = "texts and a timeline of their numbers")]
    fn changing(&self, prompt: &str) -> Result<(Vec<Vec<Chunk>>, Vec<(u32, usize)>), PromptError> {
        let mut own: Vec<Vec<Chunk>> = Vec::new();
        let mut longest = 1;
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut timeline: Vec<(u32, usize)> = Vec::new();
        for Stretch { last, text } in stretches(prompt, self.steps) {
            let number = if let Some(number) = numbers.get(&text) {
                *number
            } else {
                let chunks = chunks(self.tokenizer, self.words, &text)?;
                longest = longest.max(chunks.len());
                let number = own.iter().position(|other| *other == chunks).unwrap_or(own.len());
                if number == own.len() {
                    own.push(chunks);
                }
                numbers.insert(text, number);
                if own.len() * longest > MAX_ENCODED || numbers.len() > MAX_ENCODED {
                    return Err(PromptError::TooMany { texts: numbers.len(), chunks: longest });
                }
                number
            };
            match timeline.last_mut().filter(|(_, before)| *before == number) {
                Some(same) => same.0 = last,
                None => timeline.push((last, number)),
            }
        }
        Ok((own, timeline))
    }

    fn number(&mut self, text: PromptText) -> usize {
        self.texts.iter().position(|other| *other == text).unwrap_or_else(|| {
            self.texts.push(text);
            self.texts.len() - 1
        })
    }
}
