//! Prompts of several parts, joined by `AND`: composable diffusion (Liu et al. 2022, arXiv 2206.01714) in A1111's words
//! (`get_multicond_prompt_list` of its `modules/prompt_parser.py`).
//!
//! `a fox AND snow :0.5 AND blur :-0.3` has three parts. The UNet predicts the noise for each of them, and their weights
//! say how much of each prediction's difference from the unconditional one is added.

use std::ops::Range;

/// The most parts of a prompt. Each one is a row of every UNet call.
pub const MAX_PROMPT_PARTS: usize = 8;
/// The limit of a weight in both directions.
pub const MAX_PART_WEIGHT: f32 = 10.0;

/// A part of a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PromptPart<'a> {
    pub text: &'a str,
    pub weight: f32,
}

/// The parts of a prompt, at least one. A prompt without `AND` is one part of weight 1, also where it ends like a weight
/// (`at 10:30`), which A1111 takes for one.
pub fn prompt_parts(prompt: &str) -> Vec<PromptPart<'_>> {
    let mut parts = Vec::new();
    let mut start = 0;
    for and in whole_words(prompt, "AND") {
        parts.push(weighted(&prompt[start..and.start]));
        start = and.end;
    }
    match parts.is_empty() {
        true => parts.push(PromptPart { text: prompt, weight: 1.0 }),
        false => parts.push(weighted(&prompt[start..])),
    }
    parts
}

/// Where `word` stands in the text as a word of its own.
pub fn whole_words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    text.match_indices(word).map(|(at, word)| at..at + word.len()).filter(move |found| {
        !text[..found.start].ends_with(is_word) && !text[found.end..].starts_with(is_word)
    })
}

/// A part with the weight behind its last colon, if a number stands there.
fn weighted(part: &str) -> PromptPart<'_> {
    let whole = part.trim_end_matches(is_space);
    let text = whole.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let unsigned = text.strip_suffix(['+', '-']).unwrap_or(text);
    let before = unsigned.trim_end_matches(is_space).strip_suffix(':');
    match (before, whole[unsigned.len()..].parse::<f32>()) {
        (Some(before), Ok(weight)) => PromptPart {
            text: before.trim_end_matches(is_space),
            weight: weight.clamp(-MAX_PART_WEIGHT, MAX_PART_WEIGHT),
        },
        _ => PromptPart { text: whole, weight: 1.0 },
    }
}

/// Python's `\s`.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `\w`.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(prompt: &str) -> Vec<(&str, f32)> {
        prompt_parts(prompt).into_iter().map(|part| (part.text, part.weight)).collect()
    }

    #[test]
    fn parts_have_the_weights_behind_their_colons() {
        assert_eq!(
            parts("a fox AND snow :1.2 AND  blur:-0.3 AND x : .5\n"),
            [("a fox", 1.0), (" snow", 1.2), ("  blur", -0.3), (" x", 0.5)]
        );
        assert_eq!(
            parts("a:1.2.3 AND b:- AND c: AND (d:1.2)"),
            [("a:1.2.3", 1.0), (" b:-", 1.0), (" c:", 1.0), (" (d:1.2)", 1.0)]
        );
        assert_eq!(
            parts("a:1 AND b:99999 AND c:5. AND :2"),
            [("a", 1.0), (" b", 10.0), (" c", 5.0), ("", 2.0)]
        );
    }

    #[test]
    fn and_is_a_word_of_its_own() {
        for prompt in ["SAND", "ANDes", "a and b", "AND_", "at 10:30", "", "éAND"] {
            assert_eq!(parts(prompt), [(prompt, 1.0)]);
        }
        assert_eq!(parts("a,AND(b"), [("a,", 1.0), ("(b", 1.0)]);
        assert_eq!(parts("ANDAND AND"), [("ANDAND", 1.0), ("", 1.0)]);
    }
}
