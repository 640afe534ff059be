//! Words with vectors of their own (textual inversion). Where a prompt's tokens spell such a word, its vectors replace
//! them, as in A1111 (`find_embedding_at_position` of its `modules/textual_inversion/textual_inversion.py`).
//!
//! Knows tokens and vectors, not the files that they come from.

use std::collections::HashMap;
use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, s};

use super::{Tokenizer, TokenizerError};

/// Ids from here on are rows of the learned vectors, not tokens. No vocabulary is so large.
const FIRST: u32 = 1 << 24;

/// A word and its vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct LearnedWord {
    pub name: String,
    /// The hash of its file, shortened as in A1111.
    pub hash: String,
    /// The rows of its vectors, or a sentence that says why it has none.
    rows: Result<Range<usize>, String>,
}

/// A word as it is read from a file.
#[derive(Debug, Clone)]
pub struct Learned {
    /// Its names in prompts.
    pub names: Vec<String>,
    pub hash: String,
    /// `[vectors, width]`, or a sentence that says why they cannot be used.
    pub vectors: Result<Array2<f32>, String>,
}

/// All words at one moment.
#[derive(Debug, Clone)]
pub struct LearnedWords {
    words: Vec<LearnedWord>,
    /// By first token: the tokens that spell a word, the longest first.
    spellings: HashMap<u32, Vec<(Vec<u32>, usize)>>,
    vectors: Array2<f32>,
}

impl LearnedWords {
    pub fn none() -> Self {
        Self { words: Vec::new(), spellings: HashMap::new(), vectors: Array2::zeros((0, 0)) }
    }

    /// `width` is that of the model's own vectors. Words of another width cannot be used.
    pub fn new(learned: Vec<Learned>, width: usize, tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        let mut all = Self { vectors: Array2::zeros((0, width)), ..Self::none() };
        for learned in learned {
            all.add(learned, tokenizer)?;
        }
        all.sort();
        Ok(all)
    }

    /// These words and others, which win where both have the same spelling.
    pub fn with(&self, others: &[Learned], tokenizer: &Tokenizer) -> Result<Self, TokenizerError> {
        let mut all = self.clone();
        if all.vectors.is_empty() {
            let width = others.iter().find_map(|learned| Some(learned.vectors.as_ref().ok()?.ncols()));
            all.vectors = Array2::zeros((0, width.unwrap_or(0)));
        }
        for learned in others {
            for name in &learned.names {
                let ids = tokenizer.text_ids(name)?;
                if let Some(spellings) = ids.first().and_then(|first| all.spellings.get_mut(first)) {
                    spellings.retain(|(spelling, _)| *spelling != ids);
                }
            }
            all.add(learned.clone(), tokenizer)?;
        }
        all.sort();
        Ok(all)
    }

    fn add(&mut self, learned: Learned, tokenizer: &Tokenizer) -> Result<(), TokenizerError> {
        let Learned { names, hash, vectors } = learned;
        let (start, width) = (self.vectors.nrows(), self.vectors.ncols());
        let rows = match vectors {
            Err(sentence) => Err(sentence),
            Ok(vectors) => match self.vectors.append(Axis(0), vectors.view()) {
                Ok(()) => Ok(start..self.vectors.nrows()),
                Err(_) => Err(format!("its vectors are {} wide, this model's {width}", vectors.ncols())),
            },
        };
        let mut has_spelling = false;
        for name in &names {
            let ids = tokenizer.text_ids(name)?;
            let Some(first) = ids.first() else { continue };
            self.spellings.entry(*first).or_default().push((ids, self.words.len()));
            has_spelling = true;
        }
        if has_spelling && let Some(name) = names.into_iter().next() {
            self.words.push(LearnedWord { name, hash, rows });
        }
        Ok(())
    }

    /// The longest spellings first.
    fn sort(&mut self) {
        for spellings in self.spellings.values_mut() {
            spellings.sort_by_key(|(ids, _)| std::cmp::Reverse(ids.len()));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words that can be used, and how many vectors each has.
    pub fn usable(&self) -> impl Iterator<Item = (String, usize)> {
        self.words.iter().filter_map(|word| Some((word.name.clone(), word.rows.as_ref().ok()?.len())))
    }

    /// The word at the beginning of `ids`, and the number of ids that spell it.
    pub fn at(&self, ids: &[u32]) -> Option<(&LearnedWord, usize)> {
        let spellings = self.spellings.get(ids.first()?)?;
        let (spelling, index) = spellings.iter().find(|(spelling, _)| ids.starts_with(spelling))?;
        Some((self.words.get(*index)?, spelling.len()))
    }

    /// The words whose vectors are among `ids`.
    pub fn among<'a>(&'a self, ids: &'a [u32]) -> impl Iterator<Item = &'a LearnedWord> {
        let is_there =
            |word: &&LearnedWord| word.ids().is_ok_and(|mut own| own.any(|own| ids.contains(&own)));
        self.words.iter().filter(is_there)
    }

    /// Replaces the ids of learned vectors by ids from `vocabulary` on, as the text encoder reads them. Returns those
    /// vectors, `[vectors, width]`, if there are any.
    pub fn replace_vectors(&self, ids: &mut [u32], vocabulary: u32) -> Option<Array2<f32>> {
        let mut rows: Vec<ArrayView2<f32>> = Vec::new();
        for id in ids.iter_mut().filter(|id| **id >= FIRST) {
            let row = (*id - FIRST) as usize;
            *id = vocabulary + u32::try_from(rows.len()).unwrap_or(0);
            rows.push(self.vectors.slice(s![row..=row, ..]));
        }
        if rows.is_empty() { None } else { ndarray::concatenate(Axis(0), &rows).ok() }
    }
}

impl LearnedWord {
    /// The ids of its vectors, or a sentence that says why there are none.
    pub fn ids(&self) -> Result<impl Iterator<Item = u32> + use<>, &str> {
        let row = |row: usize| FIRST + u32::try_from(row).unwrap_or(0);
        self.rows.clone().map(|rows| rows.map(row)).map_err(|_| self.refusal())
    }

    fn refusal(&self) -> &str {
        self.rows.as_ref().err().map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::text::tiny_sd_tokenizer;

    fn learned(name: &str, vectors: usize) -> Learned {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let vectors = Array2::from_shape_fn((vectors, 3), |(row, _)| row as f32);
        Learned { names: vec![name.to_owned()], hash: String::new(), vectors: Ok(vectors) }
    }

    #[test]
    fn the_longest_matching_word_is_used() {
        let tokenizer = tiny_sd_tokenizer();
        let words =
            LearnedWords::new(vec![learned("red fox", 1), learned("red fox style", 2)], 3, &tokenizer)
                .unwrap();
        let at = |text: &str| {
            let ids = tokenizer.text_ids(text).unwrap();
            words.at(&ids).map(|(word, length)| (word.name.clone(), ids.len() - length))
        };
        assert_eq!(at("red fox style"), Some(("red fox style".to_owned(), 0)));
        assert_eq!(at("Red  FOX, style").map(|(name, _)| name), Some("red fox".to_owned()));
        assert_eq!(at("red"), None);
        assert_eq!(at("a red fox"), None);
        assert_eq!(at(""), None);
    }

    #[test]
    fn vectors_are_renumbered_for_each_window() {
        let words =
            LearnedWords::new(vec![learned("one", 2), learned("two", 1)], 3, &tiny_sd_tokenizer()).unwrap();
        let own = |index: usize| words.words[index].ids().unwrap().collect::<Vec<_>>();
        let mut ids = vec![7, own(1)[0], 8, own(0)[1], own(1)[0]];
        assert_eq!(
            words.among(&ids.clone()).map(|word| word.name.as_str()).collect::<Vec<_>>(),
            ["one", "two"]
        );
        let vectors = words.replace_vectors(&mut ids, 100).unwrap();
        assert_eq!(ids, [7, 100, 8, 101, 102]);
        assert_eq!(vectors.column(0).to_vec(), [0.0, 1.0, 0.0]);
        assert_eq!(words.replace_vectors(&mut [1, 2], 100), None);
    }

    #[test]
    fn a_word_that_cannot_be_used_says_why_when_it_is_used() {
        let broken = Learned { vectors: Err("it is broken".to_owned()), ..learned("fox", 0) };
        let words = LearnedWords::new(vec![broken, learned("wide", 2)], 4, &tiny_sd_tokenizer()).unwrap();
        let refusals: Vec<_> = words.words.iter().map(|word| word.ids().err().unwrap_or_default()).collect();
        assert_eq!(refusals, ["it is broken", "its vectors are 3 wide, this model's 4"]);
    }

    #[test]
    fn the_words_of_a_lora_join_those_of_the_folder_and_win_over_them() {
        let tokenizer = tiny_sd_tokenizer();
        let folder =
            LearnedWords::new(vec![learned("fox", 1), learned("red cat", 2)], 3, &tokenizer).unwrap();
        let more = [learned("fox", 3), learned("owl", 2)];
        let vectors = |words: &LearnedWords, text: &str| {
            let ids = tokenizer.text_ids(text).unwrap();
            words.at(&ids).map(|(word, _)| word.ids().unwrap().count())
        };
        let both = folder.with(&more, &tokenizer).unwrap();
        assert_eq!(["fox", "red cat", "owl"].map(|word| vectors(&both, word)), [Some(3), Some(2), Some(2)]);
        assert_eq!(vectors(&folder, "fox"), Some(1), "the folder's own are as they were");
        let alone = LearnedWords::none().with(&more, &tokenizer).unwrap();
        assert_eq!(vectors(&alone, "owl"), Some(2));
    }
}
