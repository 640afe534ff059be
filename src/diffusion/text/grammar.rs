//! Emphasis in prompts, in A1111's grammar: a prompt in, its pieces with their weights out. What the weights
//! do to an embedding is not decided here. Follows `parse_prompt_attention` of A1111's
//! `modules/prompt_parser.py`: where that takes unbalanced or odd input, so does this, and to the same end.
//!
//! - `(word)` weighs 1.1, `[word]` 1/1.1, `(word:1.3)` 1.3; nested weights multiply.
//! - `\(`, `\)`, `\[`, `\]`, `\\` stand for the character; another backslash vanishes.
//! - `BREAK` as a word of its own ends a window of the text encoder.
//! - A bracket that is never closed counts to the end; a closing one too many is text.

const ROUND: f64 = 1.1;
const SQUARE: f64 = 1.0 / 1.1;
/// A piece weighs at most this much and at least nothing. Beyond, a picture is noise; a negative or endless
/// weight is none that anyone means.
pub const MAX_WEIGHT: f32 = 10.0;
/// Keeps products finite however deep brackets nest.
const MAX_PRODUCT: f64 = 1e12;

/// A part of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Text, which may be empty, and its weight, in 0…`MAX_WEIGHT`.
    Text(String, f32),
    /// `BREAK`: what follows starts a new window.
    Break,
}

/// The pieces of a prompt, neighbours of one weight joined: a plain prompt is one piece of weight 1.
pub fn parse(prompt: &str) -> Vec<Piece> {
    let mut reader = Reader::default();
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        rest = reader.take(first, rest);
    }
    reader.finish()
}

/// A pair of brackets by the numbers of the pieces between them.
struct Span {
    start: usize,
    /// The number of the first piece after it; endless while it is open.
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
                    around.push((span.end, (outer * span.weight).min(MAX_PRODUCT)));
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
    /// Takes one token off `rest`, which begins with `first`; what is left after it.
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

    /// Adds text, parted at each BREAK, which takes the white space around it along.
    fn text(&mut self, text: &str) {
        let mut start = 0;
        for (at, word) in text.match_indices("BREAK") {
            let end = at + word.len();
            if text[..at].ends_with(is_word) || text[end..].starts_with(is_word) {
                continue;
            }
            self.part(&text[start..at], start > 0, true);
            self.pieces.push(None);
            start = end;
        }
        self.part(&text[start..], start > 0, false);
    }

    fn part(&mut self, mut part: &str, after_break: bool, before_break: bool) {
        if after_break {
            part = part.trim_start_matches(is_space);
        }
        if before_break {
            part = part.trim_end_matches(is_space);
        }
        self.pieces.push(Some(part.to_owned()));
    }

    fn finish(self) -> Vec<Piece> {
        let count = self.pieces.len();
        let weights = self.round.weights(count).zip(self.square.weights(count));
        let mut joined: Vec<Piece> = Vec::new();
        for (piece, (round, square)) in self.pieces.into_iter().zip(weights) {
            #[allow(clippy::cast_possible_truncation)] // clamped
            let weight = (round * square).clamp(0.0, f64::from(MAX_WEIGHT)) as f32;
            match (piece, joined.last_mut()) {
                (None, _) => joined.push(Piece::Break),
                #[allow(clippy::float_cmp)] // one weight is one product
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

/// The weight in what follows a colon, as far as its closing bracket, and what is left after that: `1.3)`, `-.5 )`.
fn weight(text: &str) -> Option<(f64, &str)> {
    let number = text.trim_start_matches(is_space);
    let digits = number.strip_prefix(['+', '-']).unwrap_or(number);
    let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let left = digits[end..].trim_start_matches(is_space).strip_prefix(')')?;
    // A1111 fails on 1.2.3; here it is text.
    let weight: f64 = number[..number.len() - digits.len() + end].parse().ok()?;
    Some((weight.clamp(0.0, f64::from(MAX_WEIGHT)), left))
}

/// Python's `\s`.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `\w`.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests;
