//! A1111's grammar of emphasis: splits a prompt into pieces with weights. How a weight changes an embedding is decided
//! in `prompt_encoder`. Follows `parse_prompt_attention` of A1111's `modules/prompt_parser.py`, also for unbalanced and odd input.
//!
//! - `(word)` weighs 1.1, `[word]` 1/1.1, `(word:1.3)` 1.3, `(word:-0.5)` -0.5; nested weights multiply.
//! - `\(`, `\)`, `\[`, `\]`, `\\` mean the character; any other backslash is dropped.
//! - `BREAK` as a word of its own ends a window of the text encoder.
//! - A bracket that is never closed extends to the end; an extra closing bracket is text.

use crate::domain::{is_space, whole_words};

const ROUND: f64 = 1.1;
const SQUARE: f64 = 1.0 / 1.1;
/// The limit of a piece's weight in both directions. Beyond it pictures are noise.
pub const MAX_WEIGHT: f32 = 10.0;
/// Keeps products finite however deep brackets nest.
const MAX_PRODUCT: f64 = 1e12;

/// A piece of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Text, which may be empty, and its weight, in ±`MAX_WEIGHT`.
    Text(String, f32),
    /// `BREAK`: what follows starts a new window.
    Break,
}

/// The pieces of a prompt. Neighbours with equal weights are joined, so a plain prompt is one piece of weight 1.
pub fn parse(prompt: &str) -> Vec<Piece> {
    let mut reader = Reader::default();
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        rest = reader.take(first, rest);
    }
    reader.finish()
}

/// A pair of brackets, by the numbers of the pieces between them.
struct Span {
    start: usize,
    /// The number of the first piece after it; `usize::MAX` while it is open.
    end: usize,
    weight: f64,
}

/// One kind of bracket. The spans of one kind nest; those of two kinds may cross.
#[derive(Default)]
struct Brackets {
    /// In the order in which they open.
    spans: Vec<Span>,
    /// Which of them are open.
    open: Vec<usize>,
}

impl Brackets {
    fn open(&mut self, start: usize, weight: f64) {
        self.open.push(self.spans.len());
        self.spans.push(Span { start, end: usize::MAX, weight });
    }

    /// Whether one was open.
    fn close(&mut self, end: usize, weight: Option<f64>) -> bool {
        let Some(span) = self.open.pop().and_then(|index| self.spans.get_mut(index)) else {
            return false;
        };
        span.end = end;
        span.weight = weight.unwrap_or(span.weight);
        true
    }

    /// For each of `count` pieces, the product of the weights around it.
    fn weights(&self, count: usize) -> impl Iterator<Item = f64> {
        let mut spans = self.spans.iter().peekable();
        let mut around: Vec<(usize, f64)> = Vec::new();
        (0..count).map(move |piece| {
            while around.pop_if(|(end, _)| *end <= piece).is_some() {}
            while let Some(span) = spans.next_if(|span| span.start <= piece) {
                if span.end > piece {
                    let outer = around.last().map_or(1.0, |&(_, product)| product);
                    around.push((span.end, (outer * span.weight).clamp(-MAX_PRODUCT, MAX_PRODUCT)));
                }
            }
            around.last().map_or(1.0, |&(_, product)| product)
        })
    }
}

#[derive(Default)]
struct Reader {
    /// Text, or `None` for BREAK.
    pieces: Vec<Option<String>>,
    round: Brackets,
    square: Brackets,
}

impl Reader {
    /// Reads one token from `rest`, which begins with `first`, and returns the remainder.
    fn take<'a>(&mut self, first: char, rest: &'a str) -> &'a str {
        let after = &rest[first.len_utf8()..];
        let here = self.pieces.len();
        match first {
            '\\' => {
                let escaped = after.chars().next().filter(|c| "()[]\\".contains(*c));
                self.pieces.push(Some(escaped.map_or_else(String::new, String::from)));
                return &after[escaped.map_or(0, char::len_utf8)..];
            }
            '(' => self.round.open(here, ROUND),
            '[' => self.square.open(here, SQUARE),
            ')' if self.round.close(here, None) => {}
            ']' if self.square.close(here, None) => {}
            ':' => {
                let Some((weight, left)) = weight(after) else {
                    self.text(":");
                    return after;
                };
                if !self.round.close(here, Some(weight)) {
                    self.text(&rest[..rest.len() - left.len()]);
                }
                return left;
            }
            ')' | ']' => self.text(&rest[..1]),
            _ => {
                let end = rest.find(['\\', '(', ')', '[', ']', ':']).unwrap_or(rest.len());
                self.text(&rest[..end]);
                return &rest[end..];
            }
        }
        after
    }

    /// Adds text, split at each BREAK. The white space around a BREAK is dropped.
    fn text(&mut self, text: &str) {
        let mut start = 0;
        for found in whole_words(text, "BREAK") {
            self.segment(&text[start..found.start], start > 0, true);
            self.pieces.push(None);
            start = found.end;
        }
        self.segment(&text[start..], start > 0, false);
    }

    fn segment(&mut self, mut text: &str, after_break: bool, before_break: bool) {
        if after_break {
            text = text.trim_start_matches(is_space);
        }
        if before_break {
            text = text.trim_end_matches(is_space);
        }
        self.pieces.push(Some(text.to_owned()));
    }

    fn finish(self) -> Vec<Piece> {
        let count = self.pieces.len();
        let weights = self.round.weights(count).zip(self.square.weights(count));
        let mut joined: Vec<Piece> = Vec::new();
        for (piece, (round, square)) in self.pieces.into_iter().zip(weights) {
            #[expect(clippy::cast_possible_truncation, reason = "clamped")]
            let weight = (round * square).clamp(-f64::from(MAX_WEIGHT), f64::from(MAX_WEIGHT)) as f32;
            match (piece, joined.last_mut()) {
                (None, _) => joined.push(Piece::Break),
                #[expect(clippy::float_cmp, reason = "one weight is one product")]
                (Some(text), Some(Piece::Text(before, same))) if *same == weight => before.push_str(&text),
                (Some(text), _) => joined.push(Piece::Text(text, weight)),
            }
        }
        if joined.is_empty() {
            joined.push(Piece::Text(String::new(), 1.0));
        }
        joined
    }
}

/// Reads the weight and the closing bracket after a colon, such as `1.3)` or `-.5 )`. Returns the weight and the
/// remainder.
fn weight(text: &str) -> Option<(f64, &str)> {
    let number = text.trim_start_matches(is_space);
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let left = digits[end..].trim_start_matches(is_space).strip_prefix(')')?;
    // A1111 fails on 1.2.3; here it is text.
    let weight: f64 = number[..number.len() - digits.len() + end].parse().ok()?;
    Some((weight.clamp(-f64::from(MAX_WEIGHT), f64::from(MAX_WEIGHT)), left))
}

#[cfg(test)]
mod tests;
