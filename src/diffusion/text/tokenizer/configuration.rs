//! Reads a model's `tokenizer/` folder: vocabulary, merges, special tokens, window. The input is bytes, since the default
//! model has no folder. The precedence of the files is that of transformers (`tokenization_utils_base.py`,
//! `_from_pretrained`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
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
    /// `added_tokens.json`, which older programs wrote
    pub added_tokens: Option<&'a [u8]>,
    /// How many tokens the text encoder has embeddings for, if that is known.
    pub embeddings: Option<usize>,
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
    /// Added tokens that the text encoder has no embeddings for. They are left out.
    pub left_out: Vec<String>,
}

/// A special token in JSON: its content alone, or with flags.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Written {
    Content(String),
    Flagged(Flagged),
}

/// A flag that is missing or null is false, but for `normalized`.
#[derive(Deserialize, Clone)]
struct Flagged {
    content: String,
    lstrip: Option<bool>,
    rstrip: Option<bool>,
    single_word: Option<bool>,
    normalized: Option<bool>,
    special: Option<bool>,
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
    /// Newer files say `extra_special_tokens`. Some have no list there, which means nothing to CLIP.
    #[serde(rename = "additional_special_tokens", alias = "extra_special_tokens")]
    others: Option<Value>,
}

impl Named {
    fn others(&self) -> Vec<AddedToken> {
        let listed = self.others.as_ref().and_then(Value::as_array).into_iter().flatten();
        listed.filter_map(|token| Some(Written::deserialize(token).ok()?.token(true))).collect()
    }
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(flatten)]
    named: Named,
    model_max_length: Option<Value>,
    added_tokens_decoder: Option<BTreeMap<u32, Flagged>>,
}

#[derive(Deserialize)]
struct TokenizerJson {
    model: ModelJson,
    added_tokens: Option<Vec<Flagged>>,
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
        let special = special || self.special == Some(true);
        AddedToken {
            content: self.content,
            single_word: self.single_word == Some(true),
            lstrip: self.lstrip == Some(true),
            rstrip: self.rstrip == Some(true),
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
            let mut known = self.added_by_older_programs(&[&map, &config.named])?;
            known.extend(listed.into_iter().map(|token| token.token(false)));
            known
        };
        let others: Vec<AddedToken> = map
            .others()
            .into_iter()
            .chain(config.named.others())
            .filter(|other| !known.iter().any(|known| known.content == other.content))
            .collect();
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

        let length = config.model_max_length.as_ref().and_then(Value::as_f64);
        let window = length.map_or(CLIP_WINDOW, |length| {
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
        let mut added: Vec<_> = known.into_iter().chain([bos, eos, unk, pad]).chain(others).collect();
        let left_out = self.without_embeddings(&vocab, &added)?;
        if let Some((role, token)) = [("bos", &bos_content), ("eos", &eos_content), ("pad", &pad_content)]
            .into_iter()
            .find(|(_, token)| left_out.contains(*token))
        {
            return Err(TokenizerError::NoEmbedding { role, token: token.clone() });
        }
        added.retain(|token| !left_out.contains(&token.content));
        Ok(Contents {
            vocab,
            merges,
            added,
            bos: bos_content,
            eos: eos_content,
            unk: unk_content,
            pad: pad_content,
            window,
            left_out,
        })
    }

    /// The tokens of `added_tokens.json`, in the order of their ids. Those that a role names are special.
    fn added_by_older_programs(&self, named: &[&Named]) -> Result<Vec<AddedToken>, TokenizerError> {
        let listed: BTreeMap<String, Option<f64>> = optional("added_tokens.json", self.added_tokens)?;
        let mut listed: Vec<_> =
            listed.into_iter().filter_map(|(content, id)| Some((id?, content))).collect();
        listed.sort_by(|a, b| a.0.total_cmp(&b.0));
        let roles = named.iter().flat_map(|named| [&named.bos, &named.eos, &named.unk, &named.pad]);
        let special: Vec<String> = roles.flatten().cloned().map(|token| token.token(true).content).collect();
        let token = |content: String| {
            let special = special.contains(&content);
            AddedToken { content, special, normalized: !special, ..AddedToken::default() }
        };
        Ok(listed.into_iter().map(|(_, content)| token(content)).collect())
    }

    /// The added tokens whose ids are beyond the text encoder's embeddings. The library numbers those that are not in the
    /// vocabulary one after the other, behind it.
    fn without_embeddings(&self, vocab: &Vocab, added: &[AddedToken]) -> Result<Vec<String>, TokenizerError> {
        let Some(embeddings) = self.embeddings else { return Ok(Vec::new()) };
        if vocab.values().any(|id| *id as usize >= embeddings) {
            return Err(TokenizerError::TooManyTokens { tokens: vocab.len(), embeddings });
        }
        let mut new: Vec<&str> = Vec::new();
        for token in added {
            if !vocab.contains_key(&token.content) && !new.contains(&token.content.as_str()) {
                new.push(&token.content);
            }
        }
        let room = embeddings.saturating_sub(vocab.len()).min(new.len());
        Ok(new.split_off(room).into_iter().map(str::to_owned).collect())
    }

    fn vocabulary(&self) -> Result<(Vocab, Merges, Vec<Flagged>), TokenizerError> {
        let (vocab, merges, added) = if let Some(bytes) = self.tokenizer_json {
            let file: TokenizerJson = json("tokenizer.json", bytes)?;
            let merges = file.model.merges.into_iter().map(MergeJson::pair).collect::<Result<_, _>>()?;
            (file.model.vocab, merges, file.added_tokens.unwrap_or_default())
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
