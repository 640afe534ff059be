//! A bound on what a JSON text becomes in memory: an empty object takes three bytes of text and fifty of memory.

/// The most values in one body. Requests have some dozens.
const MOST_VALUES: usize = 10_000;

/// Reading a body larger than this would delay other requests.
const LARGE: usize = 16 * 1024;

/// Whether a request's body may be read on a thread that serves other requests. A large one takes long, and wildcards are
/// files. Their field may have escapes in its name.
pub fn is_quickly_read(body: &[u8]) -> bool {
    let has = |text: &[u8]| body.windows(text.len()).any(|window| window == text);
    body.len() <= LARGE && !has(b"wildcards") && !has(b"\\u")
}

/// Whether a JSON text has few enough values to be parsed. It need not be valid.
pub fn has_few_values(text: &[u8]) -> bool {
    let mut rest = text;
    let mut values = 0;
    // Each value but the first stands behind one of these.
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b',' | b'[' | b'{')) {
        if rest[at] == b'"' {
            rest = behind_string(&rest[at + 1..]);
            continue;
        }
        values += 1;
        if values > MOST_VALUES {
            return false;
        }
        rest = &rest[at + 1..];
    }
    true
}

/// What follows the end of a string, given what follows its beginning.
fn behind_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        let is_end = rest[at] == b'"';
        rest = rest.get(at + if is_end { 1 } else { 2 }..).unwrap_or_default();
        if is_end {
            return rest;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_and_what_strings_contain_is_not() {
        let array = |element: &str, count: usize| format!("[{}]", vec![element; count].join(","));
        for element in ["0", "[]", "{}", "{\"\":0}", "\"a\""] {
            assert!(has_few_values(array(element, 1_000).as_bytes()), "{element}");
            assert!(!has_few_values(array(element, 10_001).as_bytes()), "{element}");
        }
        let text = r#"{"a\\": "[[,{\"\\", "b": "{,"}"#;
        assert!(has_few_values(text.as_bytes()));
        let long = format!(r#"{{"image": "{}", "text": "a\",,\\"}}"#, ",[{".repeat(100_000));
        assert!(has_few_values(long.as_bytes()));
        for broken in ["", "\"", "\"\\", "\"a\\\"", "}{"] {
            assert!(has_few_values(broken.as_bytes()));
        }
    }

    #[test]
    fn large_bodies_and_wildcards_are_not_read_quickly() {
        assert!(is_quickly_read(br#"{"input": {"prompt": "a fox"}}"#));
        assert!(!is_quickly_read(br#"{"wildcards": true}"#));
        assert!(!is_quickly_read(br#"{"\u0077ildcards": true}"#));
        assert!(!is_quickly_read(&vec![b' '; 20_000]));
    }
}
