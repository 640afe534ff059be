//! Prompts as text: tokens, the grammars of editing and emphasis, chunks of the text encoder's window, learned words.
//!
//! Knows no files: a tokenizer is made from bytes, and a learned word from vectors.

mod chunks;
mod editing;
mod embedding_names;
mod grammar;
mod learned_words;
mod tokenizer;

pub use chunks::{Chunk, MAX_ENCODED, PromptError, chunks};
pub use editing::{PromptSteps, Stretch, may_change, stretches};
pub use embedding_names::bare_names;
pub use grammar::{MAX_WEIGHT, Piece, parse};
pub use learned_words::{Learned, LearnedWord, LearnedWords};
#[cfg(test)]
pub(in crate::diffusion) use tokenizer::tests::tiny_sd as tiny_sd_tokenizer;
pub use tokenizer::{Tokenizer, TokenizerError, TokenizerFiles, Tokens};
