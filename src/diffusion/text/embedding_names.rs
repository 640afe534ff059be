//! `embedding:name`: `ComfyUI`'s way to name a learned word in a prompt. A1111 and we use the bare word.

use std::borrow::Cow;

use super::{LearnedWords, Tokenizer, TokenizerError};

const PREFIX: &str = "embedding:";
const EXTENSIONS: [&str; 3] = [".safetensors", ".pt", ".bin"];

/// The prompt with bare words in place of `embedding:name`, and the names that no word has. Those stay in the prompt, as
/// plain words.
pub fn bare_names<'a>(
    prompt: &'a str,
    words: &LearnedWords,
    tokenizer: &Tokenizer,
) -> Result<(Cow<'a, str>, Vec<String>), TokenizerError> {
    let (mut bare, mut unknown, mut start) = (String::new(), Vec::new(), 0);
    for (at, _) in prompt.match_indices(PREFIX) {
        if prompt[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &prompt[at + PREFIX.len()..];
        let name = &rest[..rest.find(ends_name).unwrap_or(rest.len())];
        let stem = EXTENSIONS.iter().find_map(|extension| name.strip_suffix(extension)).unwrap_or(name);
        if words.at(&tokenizer.text_ids(stem)?).is_none() {
            unknown.push(stem.chars().take(64).collect());
        }
        bare.push_str(&prompt[start..at]);
        bare.push_str(stem);
        start = at + PREFIX.len() + name.len();
    }
    if start == 0 {
        return Ok((Cow::Borrowed(prompt), unknown));
    }
    bare.push_str(&prompt[start..]);
    Ok((Cow::Owned(bare), unknown))
}

/// Whether the character belongs to no name.
fn ends_name(c: char) -> bool {
    c.is_whitespace() || ",()[]{}<>|:".contains(c)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::diffusion::text::{Learned, tiny_sd_tokenizer};

    #[test]
    fn names_become_the_bare_words() {
        let tokenizer = tiny_sd_tokenizer();
        let fox = Learned {
            names: vec!["fox-v2".to_owned()],
            hash: String::new(),
            vectors: Ok(Array2::zeros((1, 3))),
        };
        let words = LearnedWords::new(vec![fox], 3, &tokenizer).unwrap();
        for (prompt, bare, unknown) in [
            ("a fox", "a fox", &[][..]),
            ("embedding:fox-v2, (embedding:fox-v2.pt:1.2)", "fox-v2, (fox-v2:1.2)", &[]),
            ("[embedding:fox-v2|a embedding:nobody]", "[fox-v2|a nobody]", &["nobody"]),
            ("my_embedding:fox-v2", "my_embedding:fox-v2", &[]),
            ("embedding:", "", &[""]),
        ] {
            let (found, names) = bare_names(prompt, &words, &tokenizer).unwrap();
            assert_eq!(
                (found.as_ref(), names.as_slice()),
                (bare, unknown.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().as_slice())
            );
        }
    }
}
