//! Sentences in columns of a terminal that is 80 characters wide.

use std::fmt::Write as _;

pub(super) const WIDTH: usize = 80;

/// Writes a sentence from the column `indent` on, where the text must stand already, and goes on below that column.
pub(super) fn wrap(text: &mut String, sentence: &str, indent: usize) {
    wrap_within(text, sentence, indent, WIDTH);
}

/// The same in columns of `width` characters.
pub(super) fn wrap_within(text: &mut String, sentence: &str, indent: usize, width: usize) {
    let mut column = indent;
    for (index, word) in sentence.split_whitespace().enumerate() {
        let length = word.chars().count();
        if index > 0 {
            if column + 1 + length > width {
                let _ = write!(text, "\n{:indent$}", "");
                column = indent;
            } else {
                text.push(' ');
                column += 1;
            }
        }
        text.push_str(word);
        column += length;
    }
    text.push('\n');
}
