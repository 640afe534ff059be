//! A job as a message tells it: without what is too large to wait in the outbox.
//!
//! The outbox keeps a copy of each message until it has arrived. A picture in the input is megabytes of base64, and its
//! client has it already.

use crate::domain::Job;

/// A longer string of the input is left out of a message.
const LONGEST_STRING: usize = 16 * 1024;
/// The longest input that a message repeats, and the longest prompts of a picture.
const LONGEST_INPUT: usize = 64 * 1024;

/// The job with a note instead of each long string of its input, and without the whole input if that is still too long.
pub(super) fn abridged(mut job: Job) -> Job {
    if job.input.len() > LONGEST_INPUT {
        job.input = without_long_strings(&job.input).unwrap_or_default();
    }
    for image in &mut job.images {
        image.prompts.take_if(|drawn| drawn.prompt.len() + drawn.negative_prompt.len() > LONGEST_INPUT);
    }
    job
}

/// Valid JSON text without the spaces between its values, and with a note instead of each long string. None if more than
/// [`LONGEST_INPUT`] is left.
fn without_long_strings(json: &str) -> Option<String> {
    let mut short = String::new();
    let mut rest = json;
    while let Some(start) = rest.find('"') {
        push_packed(&mut short, &rest[..start])?;
        let (string, behind) = rest.split_at(start + string_length(&rest[start..]));
        let string = &string[start..];
        if string.len() > LONGEST_STRING {
            // The quotes do not count.
            push(&mut short, &format!("\"(left out: {} bytes)\"", string.len() - 2))?;
        } else {
            push(&mut short, string)?;
        }
        rest = behind;
    }
    push_packed(&mut short, rest)?;
    Some(short)
}

/// The length of the string at the beginning of this text, with its quotes.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let mut inside = text.bytes().enumerate().skip(1);
    let end = inside.find(|(_, byte)| {
        let is_end = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        is_end
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// Adds what stands between strings, without spaces.
fn push_packed(short: &mut String, between: &str) -> Option<()> {
    between.split_ascii_whitespace().try_for_each(|part| push(short, part))
}

fn push(short: &mut String, part: &str) -> Option<()> {
    short.push_str(part);
    (short.len() <= LONGEST_INPUT).then_some(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn long_strings_become_notes_and_all_else_stays() {
        let picture = "A".repeat(5_000_000);
        let input = json!({
            "prompt": "a \"quoted\\\" fox, \u{e9}", "init_image": picture, "loras": [{"name": "x", "weight": 0.5}],
            "seed": 7, "escaped": "\\\"".repeat(20_000), "\"{[,\\": null,
        });
        let text = format!("  {}\n\n{}", input, " ".repeat(1_000_000));
        let short = without_long_strings(&text).unwrap();
        let mut wanted = input;
        wanted["init_image"] = json!("(left out: 5000000 bytes)");
        wanted["escaped"] = json!("(left out: 80000 bytes)");
        assert_eq!(serde_json::from_str::<Value>(&short).unwrap(), wanted);
        assert!(short.len() < 400, "{short}");
    }

    #[test]
    fn an_input_that_stays_long_is_left_out() {
        let many = format!("[{}]", vec!["\"abc\""; 20_000].join(" , "));
        assert_eq!(without_long_strings(&many), None);
        let digits = format!("[{}]", "1".repeat(LONGEST_INPUT));
        assert_eq!(without_long_strings(&digits), None);
        for broken in ["\"", "\"\\", "\"abc", "{\"a", ""] {
            assert!(without_long_strings(broken).is_some(), "{broken}");
        }
    }
}
