//! Usage errors as one sentence each.

use clap::error::{ContextKind, ContextValue};

/// The standard library's words for numbers that cannot be read, and ours. All whole numbers here are unsigned.
const NUMBERS: [(&str, &str); 5] = [
    ("invalid digit found in string", "it must be a whole number, 0 or more"),
    ("cannot parse integer from empty string", "it must be a whole number, 0 or more"),
    ("number too large to fit in target type", "it is too large"),
    ("invalid float literal", "it must be a number"),
    ("cannot parse float from empty string", "it must be a number"),
];

/// The sentence of a usage error, without the usage text after it. It ends with what was meant, if clap knows.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.trim_start_matches("error:").split_whitespace().collect();
    let mut sentence = words.join(" ");
    for (librarys, ours) in NUMBERS {
        sentence = sentence.replace(librarys, ours);
    }
    let kinds = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let meant = kinds.into_iter().filter_map(|kind| error.get(kind)).find_map(|meant| match meant {
        ContextValue::String(meant) => Some(meant.as_str()),
        // The most similar comes last.
        ContextValue::Strings(meant) => meant.last().map(String::as_str),
        _ => None,
    });
    meant.map_or_else(|| sentence.clone(), |meant| format!("{sentence}: did you mean '{meant}'?"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, with_default_command};

    fn args(line: &str) -> Vec<OsString> {
        with_default_command(line.split(' ').map(OsString::from))
    }

    #[test]
    fn a_mistyped_word_gets_the_right_one() {
        for (line, meant) in [
            ("stablehand genrate", "generate"),
            ("stablehand models chek", "check"),
            ("stablehand runtime instal", "install"),
            ("stablehand --retension 1m", "--retention"),
            ("stablehand --log-format jsn", "json"),
        ] {
            let error = Cli::try_parse_from(args(line)).err().unwrap();
            let sentence = one_line(&error);
            assert!(sentence.ends_with(&format!(": did you mean '{meant}'?")), "{sentence}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_is_answered_with_one_that_can() {
        for (line, sentence) in [
            (
                "stablehand health --max-wait banana",
                "invalid value 'banana' for '--max-wait <TIME>': it should be a time such as 30m, 90s or 1h 30m",
            ),
            (
                "stablehand jobs list --limit 0",
                "invalid value '0' for '--limit <N>': it must be a whole number, 1 or more",
            ),
            (
                "stablehand jobs list --status done",
                "invalid value 'done' for '--status <STATUS>': it must be one of IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, \
                 CANCELLED, TIMED_OUT",
            ),
        ] {
            assert_eq!(one_line(&Cli::try_parse_from(args(line)).err().unwrap()), sentence);
        }
        for status in ["IN_QUEUE", "in_queue", "In-Queue"] {
            assert!(
                Cli::try_parse_from(["stablehand", "jobs", "list", "--status", status]).is_ok(),
                "{status}"
            );
        }
    }

    #[test]
    fn usage_errors_are_one_line() {
        for line in ["stablehand nonsense", "stablehand --nonsense", "stablehand --retention soon"] {
            let error = Cli::try_parse_from(args(line)).err().unwrap();
            let sentence = one_line(&error);
            assert!(!sentence.is_empty() && !sentence.contains('\n'), "{sentence}");
        }
    }
}
