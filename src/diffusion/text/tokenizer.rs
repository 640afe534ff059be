//! CLIP's byte-level BPE: from a prompt to the token ids of one text encoder window. Equals transformers'
//! `CLIPTokenizer` (`models/clip/tokenization_clip.py`) with padding to the maximum and truncation.

mod configuration;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::utils::{Lowercase, Sequence as Normalizers};
use tokenizers::normalizers::{NFC, NormalizerWrapper, Replace, replace::ReplacePattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer as Library};

pub use configuration::TokenizerFiles;

/// CLIP's words.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Turns text into token ids. Shared by all threads.
pub struct Tokenizer {
    library: Library,
    bos_id: u32,
    eos_id: u32,
    pad_id: u32,
    window: usize,
    left_out: Vec<String>,
}

/// One window of the text encoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// `Tokenizer::window` ids (77 for SD v1): bos, the text's own, eos, then padding.
    pub ids: Vec<u32>,
    /// The number of the text's own tokens that did not fit and were dropped at the end.
    pub cut: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error("the tokenizer has neither vocab.json with merges.txt nor tokenizer.json")]
    Missing,
    #[error("the tokenizer's {file} cannot be read: {reason}")]
    Unreadable { file: &'static str, reason: String },
    #[error("the tokenizer's merges have '{line}' instead of two strings with a space between")]
    BadMerge { line: String },
    #[error("the tokenizer's merges use '{part}', which its vocabulary lacks")]
    ForeignMerge { part: String },
    #[error("the tokenizer's {role} token '{token}' is not in its vocabulary")]
    ForeignToken { role: &'static str, token: String },
    #[error("the text encoder has no embedding for the tokenizer's {role} token '{token}'")]
    NoEmbedding { role: &'static str, token: String },
    #[error(
        "the tokenizer has {tokens} tokens, but the text encoder has embeddings for {embeddings}: they belong to different models"
    )]
    TooManyTokens { tokens: usize, embeddings: usize },
    #[error("the tokenizer failed: {0}")]
    Library(#[from] tokenizers::Error),
}

impl Tokenizer {
    pub fn new(files: TokenizerFiles<'_>) -> Result<Self, TokenizerError> {
        let contents = files.read()?;
        // Otherwise the library would fail later, at the first unknown byte of a prompt.
        if !contents.vocab.contains_key(&contents.unk) {
            return Err(TokenizerError::ForeignToken { role: "unk", token: contents.unk });
        }
        let bpe = BPE::builder()
            .vocab_and_merges(contents.vocab, contents.merges)
            .continuing_subword_prefix(String::new())
            .end_of_word_suffix("</w>".to_owned())
            .unk_token(contents.unk)
            // The library's cache would keep words of prompts for the life of the process.
            .cache_capacity(0)
            .build()?;
        let whitespace = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
        let normalizers: Vec<NormalizerWrapper> = vec![NFC.into(), whitespace.into(), Lowercase.into()];
        let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
        let bytes = ByteLevel::new(false, true, true);
        let pre_tokenizers: Vec<PreTokenizerWrapper> = vec![words.into(), bytes.into()];

        let mut library = Library::new(bpe);
        library.with_normalizer(Some(Normalizers::new(normalizers)))?;
        library.with_pre_tokenizer(Some(PreTokenizers::new(pre_tokenizers)));
        library.add_special_tokens(contents.added)?;
        let id = |role, token: String| {
            library.token_to_id(&token).ok_or(TokenizerError::ForeignToken { role, token })
        };
        Ok(Self {
            bos_id: id("bos", contents.bos)?,
            eos_id: id("eos", contents.eos)?,
            pad_id: id("pad", contents.pad)?,
            window: contents.window,
            left_out: contents.left_out,
            library,
        })
    }

    pub fn bos_id(&self) -> u32 {
        self.bos_id
    }

    pub fn eos_id(&self) -> u32 {
        self.eos_id
    }

    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// The number of tokens in one window, with bos and eos: the model's `model_max_length`.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Added tokens of the files that the text encoder has no embeddings for: they are read as any text is.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The number of a text's own tokens that fit into one window.
    pub fn room(&self) -> usize {
        self.window - 2
    }

    /// The comma as a word of its own, if the vocabulary has it.
    pub fn comma_id(&self) -> Option<u32> {
        self.library.token_to_id(",</w>")
    }

    /// One window of text.
    pub fn encode(&self, text: &str) -> Result<Tokens, TokenizerError> {
        Ok(self.frame(&self.text_ids(text)?))
    }

    /// All of the text's own tokens, without bos, eos and padding.
    pub fn text_ids(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.library.encode_fast(text, false)?.get_ids().to_vec())
    }

    /// Puts a text's own tokens into one window and drops those that do not fit.
    pub fn frame(&self, text_ids: &[u32]) -> Tokens {
        let kept = text_ids.len().min(self.room());
        let mut ids = Vec::with_capacity(self.window);
        ids.push(self.bos_id);
        ids.extend_from_slice(&text_ids[..kept]);
        ids.push(self.eos_id);
        ids.resize(self.window, self.pad_id);
        Tokens { ids, cut: text_ids.len() - kept }
    }
}

#[cfg(test)]
pub(in crate::diffusion) mod tests;
