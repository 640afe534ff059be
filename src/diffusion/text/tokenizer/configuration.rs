//! Reads a model's `tokenizer/` folder: vocabulary, merges, special tokens, window. The input is bytes, since the default
//! model has no folder. The precedence of the files is that of transformers (`tokenization_utils_base.py`,
//! `_from_pretrained`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::AddedToken;
use tokenizers::models::bpe::{Merges, Vocab};

use super::TokenizerError;

/// The window of CLIP's text encoder, where the configuration states none.
const CLIP_WINDOW: usize = 77;
/// transformers writes a huge number for a tokenizer without a limit; no CLIP reads more than this.
const LONGEST_WINDOW: usize = 4096;
const BOS: &str = "<|startoftext|>";
const EOS: &str = "<|endoftext|>";

/// The contents of a `tokenizer/` folder: `vocab` with `merges`, or `tokenizer_json`, which wins.
#[derive(Debug, Clone, Copy, Default)]
pub struct TokenizerFiles<'a> {
    /// `vocab.json`
    pub vocab: Option<&'a [u8]>,
    /// `merges.txt`
    pub merges: Option<&'a [u8]>,
    /// `tokenizer_config.json`
    pub config: Option<&'a [u8]>,
    /// `special_tokens_map.json`
    pub special_tokens_map: Option<&'a [u8]>,
    /// `tokenizer.json`
    pub tokenizer_json: Option<&'a [u8]>,
}

/// The merged contents of the files.
pub(super) struct Contents {
    pub vocab: Vocab,
    pub merges: Merges,
    /// Tokens that are found in the text first, in the order of their ids.
    pub added: Vec<AddedToken>,
    pub bos: String,
    pub eos: String,
    pub unk: String,
    pub pad: String,
    pub window: usize,
}

/// A special token in JSON: its content alone, or with flags.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Written {
    Content(String),
    Flagged(Flagged),
}

#[derive(Deserialize, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "as the files have them")]
struct Flagged {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

/// `special_tokens_map.json`; `tokenizer_config.json` has these fields too.
#[derive(Deserialize, Default)]
struct Named {
    #[serde(rename = "bos_token")]
    bos: Option<Written>,
    #[serde(rename = "eos_token")]
    eos: Option<Written>,
    #[serde(rename = "unk_token")]
    unk: Option<Written>,
    #[serde(rename = "pad_token")]
    pad: Option<Written>,
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(flatten)]
    named: Named,
    model_max_length: Option<f64>,
    added_tokens_decoder: Option<BTreeMap<u32, Flagged>>,
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: ModelJson,
    #[serde(default)]
    added_tokens: Vec<Flagged>,
}

#[derive(Deserialize)]
struct ModelJson {
    vocab: BTreeMap<String, u32>,
    merges: Vec<MergeJson>,
}

/// Older files write `"a b"`, newer ones `["a", "b"]`.
#[derive(Deserialize)]
#[serde(untagged)]
enum MergeJson {
    Line(String),
    Pair(String, String),
}

impl Flagged {
    fn token(self, special: bool) -> AddedToken {
        let special = special || self.special;
        AddedToken {
            content: self.content,
            single_word: self.single_word,
            lstrip: self.lstrip,
            rstrip: self.rstrip,
            normalized: self.normalized.unwrap_or(!special),
            special,
        }
    }
}

impl Written {
    fn token(self, special: bool) -> AddedToken {
        match self {
            Self::Content(content) => AddedToken::from(content, true),
            Self::Flagged(flagged) => flagged.token(special),
        }
    }
}

impl TokenizerFiles<'_> {
    pub(super) fn read(&self) -> Result<Contents, TokenizerError> {
        let config: Config = optional("tokenizer_config.json", self.config)?;
        let (vocab, merges, listed) = self.vocabulary()?;

        // If the configuration lists added tokens, transformers ignores the map.
        let mut map = Named::default();
        let known: Vec<AddedToken> = if let Some(decoder) = config.added_tokens_decoder {
            decoder.into_values().map(|token| token.token(false)).collect()
        } else {
            map = optional("special_tokens_map.json", self.special_tokens_map)?;
            listed.into_iter().map(|token| token.token(false)).collect()
        };
        let choose = |mapped: Option<Written>, configured: Option<Written>, default: &str| {
            let token = match (mapped, configured) {
                (Some(mapped), _) => mapped.token(true),
                (None, Some(configured)) => configured.token(false),
                (None, None) => AddedToken::from(default, true),
            };
            known.iter().find(|known| known.content == token.content).cloned().unwrap_or(token)
        };
        let bos = choose(map.bos, config.named.bos, BOS);
        let eos = choose(map.eos, config.named.eos, EOS);
        let unk = choose(map.unk, config.named.unk, EOS);
        let pad = choose(map.pad, config.named.pad, EOS);

        let window = config.model_max_length.map_or(CLIP_WINDOW, |length| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, then checked"
            )]
            Some(length as usize)
                .filter(|length| (2..=LONGEST_WINDOW).contains(length))
                .unwrap_or(CLIP_WINDOW)
        });
        let [bos_content, eos_content, unk_content, pad_content] =
            [&bos, &eos, &unk, &pad].map(|token| token.content.clone());
        // Where a token occurs twice with different flags, the later one wins, so the order matters.
        let added = known.into_iter().chain([bos, eos, unk, pad]).collect();
        Ok(Contents {
            vocab,
            merges,
            added,
            bos: bos_content,
            eos: eos_content,
            unk: unk_content,
            pad: pad_content,
            window,
        })
    }

    fn vocabulary(&self) -> Result<(Vocab, Merges, Vec<Flagged>), TokenizerError> {
        let (vocab, merges, added) = if let Some(bytes) = self.tokenizer_json {
            let file: TokenizerJson = json("tokenizer.json", bytes)?;
            let merges = file.model.merges.into_iter().map(MergeJson::pair).collect::<Result<_, _>>()?;
            (file.model.vocab, merges, file.added_tokens)
        } else {
            let (Some(vocab), Some(merges)) = (self.vocab, self.merges) else {
                return Err(TokenizerError::Missing);
            };
            (json("vocab.json", vocab)?, read_merges(merges)?, Vec::new())
        };
        let vocab: Vocab = vocab.into_iter().collect();
        // The library would panic on a merge whose result is longer than every known token.
        for (left, right) in &merges {
            let whole = format!("{left}{right}");
            for part in [left, right, &whole] {
                if !vocab.contains_key(part) {
                    return Err(TokenizerError::ForeignMerge { part: shortened(part) });
                }
            }
        }
        Ok((vocab, merges, added))
    }
}

impl MergeJson {
    fn pair(self) -> Result<(String, String), TokenizerError> {
        match self {
            Self::Pair(left, right) => Ok((left, right)),
            Self::Line(line) => {
                pair(&line).ok_or_else(|| TokenizerError::BadMerge { line: shortened(&line) })
            }
        }
    }
}

fn read_merges(bytes: &[u8]) -> Result<Merges, TokenizerError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| TokenizerError::Unreadable { file: "merges.txt", reason: error.to_string() })?;
    text.lines()
        .filter(|line| !line.starts_with("#version"))
        .map(|line| pair(line).ok_or_else(|| TokenizerError::BadMerge { line: shortened(line) }))
        .collect()
}

fn pair(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ').filter(|(_, right)| !right.contains(' '))?;
    Some((left.to_owned(), right.to_owned()))
}

fn optional<T: DeserializeOwned + Default>(
    file: &'static str,
    bytes: Option<&[u8]>,
) -> Result<T, TokenizerError> {
    bytes.map_or_else(|| Ok(T::default()), |bytes| json(file, bytes))
}

fn json<T: DeserializeOwned>(file: &'static str, bytes: &[u8]) -> Result<T, TokenizerError> {
    serde_json::from_slice(bytes)
        .map_err(|error| TokenizerError::Unreadable { file, reason: error.to_string() })
}

/// A token, shortened for an error sentence.
fn shortened(token: &str) -> String {
    token.chars().take(40).collect()
}
