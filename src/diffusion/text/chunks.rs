//! Splits a prompt's tokens into chunks for the text encoder's window, as A1111 does (`tokenize_line` of its
//! `modules/sd_hijack_clip.py`): a chunk is full at 75 tokens, `BREAK` ends it early, and where a comma is among its last
//! 20 tokens, the tokens after the comma move to the next chunk.

use super::{LearnedWords, Piece, Tokenizer, TokenizerError, parse};

/// The most chunks of a prompt, since every UNet call attends to all of them.
pub const MAX_CHUNKS: usize = 32;
/// The most chunks of all texts of a request: of its two prompts, their parts, and what they are at each step. They stay in
/// memory until it is drawn.
pub const MAX_ENCODED: usize = 256;
/// A1111's default of `comma_padding_backtrack`.
const COMMA_BACKTRACK: usize = 20;

/// The tokens of one window, without bos, eos and padding.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chunk {
    pub ids: Vec<u32>,
    /// One for each token.
    pub weights: Vec<f32>,
}

/// Why a prompt cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    #[error("It fills more than {MAX_CHUNKS} chunks of {room} tokens; shorten it.")]
    TooLong { room: usize },
    /// The most chunks that prompts may fill, each of their texts as many as the longest.
    #[error(
        "Its parts and changes make {texts} texts, and each counts as many chunks as the longest: {chunks}. At most \
         {MAX_ENCODED} chunks are allowed together; change less of it, or shorten it."
    )]
    TooMany { texts: usize, chunks: usize },
    #[error("{0}")]
    Wildcards(String),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A learned word that cannot be used.
    #[error("{0}")]
    Learned(String),
}

impl Chunk {
    /// Whether every token weighs 1.
    #[expect(clippy::float_cmp, reason = "no weight but 1 itself leaves an embedding as it is")]
    pub fn is_plain(&self) -> bool {
        self.weights.iter().all(|&weight| weight == 1.0)
    }
}

/// A prompt's chunks, at least one. Vectors of learned words count as tokens.
pub fn chunks(tokenizer: &Tokenizer, words: &LearnedWords, prompt: &str) -> Result<Vec<Chunk>, PromptError> {
    let mut chunker = Chunker::new(tokenizer.room(), tokenizer.comma_id());
    for piece in parse(prompt) {
        match piece {
            Piece::Break => chunker.end_chunk()?,
            // Brackets can split a prompt into thousands of these.
            Piece::Text(text, _) if text.trim().is_empty() => {}
            Piece::Text(text, weight) => {
                let ids = tokenizer.text_ids(&text)?;
                let mut rest = ids.as_slice();
                while let Some(&id) = rest.first() {
                    let Some((word, spelling)) = words.at(rest) else {
                        chunker.push(id, weight)?;
                        rest = &rest[1..];
                        continue;
                    };
                    let vectors = word.ids().map_err(|sentence| PromptError::Learned(sentence.to_owned()))?;
                    chunker.push_word(id, vectors, weight)?;
                    rest = &rest[spelling..];
                }
            }
        }
    }
    chunker.finish()
}

struct Chunker {
    room: usize,
    comma_id: Option<u32>,
    done: Vec<Chunk>,
    chunk: Chunk,
    /// The position of the current chunk's last comma.
    last_comma: Option<usize>,
}

impl Chunker {
    fn new(room: usize, comma_id: Option<u32>) -> Self {
        Self { room: room.max(1), comma_id, done: Vec::new(), chunk: Chunk::default(), last_comma: None }
    }

    fn push(&mut self, id: u32, weight: f32) -> Result<(), PromptError> {
        self.make_room(id)?;
        self.chunk.ids.push(id);
        self.chunk.weights.push(weight);
        Ok(())
    }

    /// Adds the vectors of a learned word in place of the tokens that spell it. They stay in one chunk.
    fn push_word(
        &mut self,
        first_token: u32,
        vectors: impl Iterator<Item = u32>,
        weight: f32,
    ) -> Result<(), PromptError> {
        self.make_room(first_token)?;
        let vectors: Vec<u32> = vectors.collect();
        if self.chunk.ids.len() + vectors.len() > self.room {
            self.end_chunk()?;
        }
        self.chunk.weights.resize(self.chunk.ids.len() + vectors.len(), weight);
        self.chunk.ids.extend(vectors);
        Ok(())
    }

    /// Begins a new chunk if this one is full.
    fn make_room(&mut self, id: u32) -> Result<(), PromptError> {
        let here = self.chunk.ids.len();
        if Some(id) == self.comma_id {
            self.last_comma = Some(here);
        } else if here == self.room
            && let Some(comma) = self.last_comma.filter(|comma| here - comma <= COMMA_BACKTRACK)
        {
            let moved = Chunk {
                ids: self.chunk.ids.split_off(comma + 1),
                weights: self.chunk.weights.split_off(comma + 1),
            };
            self.end_chunk()?;
            self.chunk = moved;
        }
        if self.chunk.ids.len() >= self.room {
            self.end_chunk()?;
        }
        Ok(())
    }

    fn end_chunk(&mut self) -> Result<(), PromptError> {
        if self.done.len() == MAX_CHUNKS {
            return Err(PromptError::TooLong { room: self.room });
        }
        self.last_comma = None;
        self.done.push(std::mem::take(&mut self.chunk));
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Chunk>, PromptError> {
        if !self.chunk.ids.is_empty() || self.done.is_empty() {
            self.end_chunk()?;
        }
        Ok(self.done)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMA: u32 = 0;

    /// The chunks' lengths, for text of tokens 1 with commas at some places.
    fn lengths(tokens: usize, commas: &[usize]) -> Vec<usize> {
        let mut chunker = Chunker::new(75, Some(COMMA));
        for at in 0..tokens {
            chunker.push(u32::from(!commas.contains(&at)), 1.0).unwrap();
        }
        chunker.finish().unwrap().iter().map(|chunk| chunk.ids.len()).collect()
    }

    #[test]
    fn a_chunk_is_full_at_75_tokens() {
        assert_eq!(lengths(0, &[]), [0]);
        assert_eq!(lengths(75, &[]), [75]);
        assert_eq!(lengths(76, &[]), [75, 1]);
        assert_eq!(lengths(151, &[]), [75, 75, 1]);
    }

    #[test]
    fn tokens_after_a_late_comma_move_to_the_next_chunk() {
        assert_eq!(lengths(76, &[70]), [71, 5]);
        assert_eq!(lengths(76, &[55]), [56, 20]);
        assert_eq!(lengths(76, &[54]), [75, 1], "a comma too far back");
        assert_eq!(lengths(76, &[74]), [75, 1]);
        assert_eq!(lengths(76, &[75]), [75, 1], "a comma begins the next chunk, as in A1111");
        assert_eq!(lengths(75, &[70]), [75], "nothing need move");
    }

    #[test]
    fn the_vectors_of_a_word_stay_together() {
        let mut chunker = Chunker::new(75, Some(COMMA));
        (0..70).for_each(|_| chunker.push(1, 1.0).unwrap());
        chunker.push_word(2, 100..104, 0.5).unwrap();
        chunker.push_word(2, 100..104, 0.5).unwrap();
        chunker.push(1, 1.0).unwrap();
        let chunks = chunker.finish().unwrap();
        assert_eq!(chunks.iter().map(|chunk| chunk.ids.len()).collect::<Vec<_>>(), [74, 5]);
        assert_eq!((chunks[1].ids[3], chunks[1].weights[3], chunks[1].weights[4]), (103, 0.5, 1.0));
    }

    #[test]
    fn break_ends_a_chunk_even_an_empty_one() {
        let mut chunker = Chunker::new(75, None);
        chunker.end_chunk().unwrap();
        chunker.push(1, 1.0).unwrap();
        chunker.end_chunk().unwrap();
        assert_eq!(chunker.finish().unwrap().len(), 2);
    }

    #[test]
    fn more_chunks_than_allowed_are_refused() {
        let mut chunker = Chunker::new(75, None);
        let refused = (0..=75 * MAX_CHUNKS).find_map(|_| chunker.push(1, 1.0).err());
        assert!(refused.is_none());
        let sentence = chunker.finish().unwrap_err().to_string();
        assert_eq!(sentence, "It fills more than 32 chunks of 75 tokens; shorten it.");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_token_is_lost_doubled_or_put_elsewhere(
            tokens in prop::collection::vec((0u32..9, 0.0f32..2.0), 0..1200),
            room in 1usize..80,
        ) {
            let mut chunker = Chunker::new(room, Some(COMMA));
            let pushed = tokens.iter().try_for_each(|&(id, weight)| chunker.push(id, weight));
            if let Ok(chunks) = pushed.and_then(|()| chunker.finish()) {
                prop_assert!(!chunks.is_empty() && chunks.len() <= MAX_CHUNKS);
                prop_assert!(chunks.iter().all(|chunk| chunk.ids.len() <= room));
                let back: Vec<_> =
                    chunks.into_iter().flat_map(|chunk| chunk.ids.into_iter().zip(chunk.weights)).collect();
                prop_assert_eq!(back, tokens);
            } else {
                prop_assert!(tokens.len() > room.saturating_sub(COMMA_BACKTRACK).max(1) * (MAX_CHUNKS - 1));
            }
        }
    }
}
