//! Names that strangers wrote, fit for a sentence, a log and a terminal.

/// Characters of a name that is quoted.
const LONGEST: usize = 100;

/// The name without control characters, and its beginning where it is long.
pub(super) fn quoted_name(name: &str) -> String {
    let end = name.char_indices().nth(LONGEST).map_or(name.len(), |(end, _)| end);
    let more = if end < name.len() { "…" } else { "" };
    format!("{}{more}", name[..end].escape_debug())
}

/// Up to `most` of the names.
pub(super) fn quoted_few(names: &[String], most: usize) -> String {
    let few: Vec<String> = names.iter().take(most).map(|name| quoted_name(name)).collect();
    few.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_cannot_steer_a_terminal() {
        assert_eq!(quoted_name("a.b_c"), "a.b_c");
        assert_eq!(quoted_name("a\u{1b}[2J\n"), "a\\u{1b}[2J\\n");
        assert_eq!(quoted_name(&"é".repeat(LONGEST)), "é".repeat(LONGEST));
        assert_eq!(quoted_name(&"é".repeat(1 << 20)), "é".repeat(LONGEST) + "…");
        assert_eq!(quoted_few(&["a".to_owned(), "b".to_owned(), "c".to_owned()], 2), "a, b");
    }
}
