//! The encoded prompts of a request: which text the UNet reads at which step, for each picture.

use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::diffusion::nets::EncodedPrompt;
use crate::diffusion::text::LearnedWord;

/// A request's prompts, encoded. Each distinct text is encoded once.
pub struct EncodedPrompts {
    /// Those of one picture have the same number of tokens, a multiple of the window.
    pub(super) texts: Vec<EncodedPrompt>,
    /// Of each picture; a single one for all where they are the same.
    pub(super) pictures: Vec<PicturePrompts>,
    /// Where the UNet reads fewer chunks than the longest prompt has: the chunks that were read, and all of them.
    pub cut: Option<(usize, usize)>,
    /// The learned words in any prompt.
    pub learned: Vec<LearnedWord>,
    /// The names behind `embedding:` that no learned word has.
    pub unknown: Vec<String>,
    /// Of the texts, once somebody has asked for it.
    pub(super) hash: OnceLock<[u8; 32]>,
}

/// The prompts of one picture.
pub(super) struct PicturePrompts {
    /// What `AND` joins. At least one.
    pub parts: Vec<Part>,
    /// None without guidance.
    pub negative: Option<Timeline>,
}

impl PicturePrompts {
    /// Of the parts, and of the negative prompt.
    pub fn timelines(&self) -> impl Iterator<Item = &Timeline> {
        self.parts.iter().map(|part| &part.timeline).chain(&self.negative)
    }

    pub fn timelines_mut(&mut self) -> impl Iterator<Item = &mut Timeline> {
        self.parts.iter_mut().map(|part| &mut part.timeline).chain(&mut self.negative)
    }
}

/// A part of a prompt, and its weight.
pub(super) struct Part {
    pub weight: f32,
    pub timeline: Timeline,
}

/// The number of a text for each stretch of steps: the last step of each, counted from 1, and its text.
pub(super) struct Timeline(pub Vec<(u32, usize)>);

impl Timeline {
    /// `step` is counted from 0. Steps beyond the last stretch belong to it.
    fn at(&self, step: u32) -> usize {
        let now = self.0.iter().find(|(last, _)| step < *last).or(self.0.last());
        now.map_or(0, |(_, text)| *text)
    }
}

impl EncodedPrompts {
    /// A hash of all texts as they are encoded: the text encoder, its LoRAs and learned words are in it. It is taken once;
    /// the texts do not change.
    pub fn hash(&self) -> &[u8; 32] {
        self.hash.get_or_init(|| {
            let mut hash = Sha256::new();
            for text in &self.texts {
                let values = text.values();
                hash.update((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| hash.update(value.to_le_bytes()));
            }
            hash.finalize().into()
        })
    }

    /// Of every text of a picture.
    pub fn tokens(&self, picture: usize) -> usize {
        self.positives(picture, 0).next().map_or(0, |(text, _)| text.values().dim().1)
    }

    /// The parts that a picture's prompt has at a step, counted from 0, with their weights.
    pub fn positives(
        &self,
        picture: usize,
        step: u32,
    ) -> impl ExactSizeIterator<Item = (&EncodedPrompt, f32)> {
        let parts = self.of(picture).map_or(&[][..], |prompts| &prompts.parts);
        parts.iter().map(move |part| (&self.texts[part.timeline.at(step)], part.weight))
    }

    /// The negative prompt of a picture at a step, counted from 0. None without guidance.
    pub fn negative(&self, picture: usize, step: u32) -> Option<&EncodedPrompt> {
        let timeline = self.of(picture)?.negative.as_ref()?;
        Some(&self.texts[timeline.at(step)])
    }

    fn of(&self, picture: usize) -> Option<&PicturePrompts> {
        self.pictures.get(picture).or(self.pictures.first())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_changes_after_the_last_step_of_a_stretch() {
        let timeline = Timeline(vec![(2, 7), (3, 8), (5, 9)]);
        assert_eq!((0..7).map(|step| timeline.at(step)).collect::<Vec<_>>(), [7, 7, 8, 9, 9, 9, 9]);
    }
}
