//! One configuration file of a model: a JSON object whose values are asked for by key and type.
//!
//! diffusers shrugs at much of what people's files hold, and so does this: null is a missing value, a list with one number
//! for each level may stand for the number, and Python's `NaN` and `Infinity` are read as null. What makes no sense is an
//! error of one sentence that names the file, the key and the value.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::FileError;

/// What Python writes and JSON does not know. The longest comes first.
const PYTHON_NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
/// The longest value that an error quotes, in characters.
const LONGEST_QUOTE: usize = 60;

#[derive(Debug, Clone)]
pub struct ConfigFile {
    file: String,
    fields: Map<String, Value>,
}

impl ConfigFile {
    /// Parses the text of `file`.
    pub fn parse(file: &str, text: &str) -> Result<Self, FileError> {
        let broken = |reason: String| FileError::Config { file: file.to_owned(), reason };
        match serde_json::from_str(&with_nulls(text)).map_err(|error| broken(error.to_string()))? {
            Value::Object(fields) => Ok(Self { file: file.to_owned(), fields }),
            other => Err(broken(format!("it holds {} where an object should be", quote(&other)))),
        }
    }

    /// The file's name within the model.
    pub fn name(&self) -> &str {
        &self.file
    }

    /// A value that is there and not null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.fields.get(key).filter(|value| !value.is_null())
    }

    /// All keys with their values.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.fields.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The whole file as `T`, which ignores keys that it does not know.
    pub fn as_value<T: DeserializeOwned>(&self) -> Result<T, FileError> {
        serde_json::from_value(Value::Object(self.fields.clone()))
            .map_err(|error| FileError::Config { file: self.file.clone(), reason: error.to_string() })
    }

    /// A whole number, or the first of a list with one for each level.
    pub fn whole(&self, key: &str) -> Result<Option<u64>, FileError> {
        Ok(self.wholes(key)?.and_then(|numbers| numbers.first().copied()))
    }

    /// A whole number up to `most`, and 1 at least.
    pub fn count(&self, key: &str, most: u32) -> Result<Option<u32>, FileError> {
        let Some(number) = self.whole(key)? else { return Ok(None) };
        match u32::try_from(number).ok().filter(|number| (1..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, &format!("between 1 and {most}"))),
        }
    }

    /// A list of whole numbers, or a single one.
    pub fn wholes(&self, key: &str) -> Result<Option<Vec<u64>>, FileError> {
        self.list(key, whole, "a whole number, or a list of whole numbers")
    }

    /// A number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, FileError> {
        let numbers = self.list(key, Value::as_f64, "a number")?;
        Ok(numbers.and_then(|numbers| numbers.first().copied()))
    }

    /// How many entries a list has.
    pub fn length(&self, key: &str) -> Result<Option<usize>, FileError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(entries)) => Ok(Some(entries.len())),
            Some(_) => Err(self.wrong(key, "a list")),
        }
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, FileError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a text")),
        }
    }

    fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&Value) -> Option<T>,
        expected: &str,
    ) -> Result<Option<Vec<T>>, FileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let single = std::slice::from_ref(value);
        let entries = value.as_array().map_or(single, Vec::as_slice);
        let read: Option<Vec<T>> = entries.iter().map(read).collect();
        read.map(Some).ok_or_else(|| self.wrong(key, expected))
    }

    /// The error that a value makes no sense.
    pub fn wrong(&self, key: &str, expected: &str) -> FileError {
        let value = self.get(key).map_or_else(|| "nothing".to_owned(), quote);
        FileError::Config {
            file: self.file.clone(),
            reason: format!("{key} is {value}, but must be {expected}"),
        }
    }
}

/// A whole number, which some programs write as `64.0`.
pub(super) fn whole(value: &Value) -> Option<u64> {
    const MOST: f64 = 9_007_199_254_740_992.0;
    let written = value.as_f64().filter(|number| (0.0..MOST).contains(number) && number.fract() == 0.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and small"
    )]
    value.as_u64().or_else(|| written.map(|number| number as u64))
}

/// A value as a sentence quotes it.
pub(super) fn quote(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The text with null for Python's numbers, wherever they do not stand within a string.
fn with_nulls(text: &str) -> Cow<'_, str> {
    if !PYTHON_NUMBERS.iter().any(|number| text.contains(number)) {
        return Cow::Borrowed(text);
    }
    let (mut made, mut rest, mut in_string) = (String::with_capacity(text.len()), text, false);
    while let Some(next) = rest.chars().next() {
        let found = PYTHON_NUMBERS.iter().find(|number| !in_string && rest.starts_with(**number));
        let length = match (next, found) {
            (_, Some(number)) => {
                made.push_str("null");
                rest = &rest[number.len()..];
                continue;
            }
            // With what it escapes.
            ('\\', None) if in_string => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            (next, None) => {
                in_string ^= next == '"';
                next.len_utf8()
            }
        };
        made.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    Cow::Owned(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> ConfigFile {
        ConfigFile::parse("unet/config.json", text).unwrap()
    }

    #[test]
    fn values_are_read_in_every_form_in_which_people_have_them() {
        let config = file(
            r#"{"a": null, "b": 64, "c": 64.0, "d": [64, 32], "e": NaN, "f": -Infinity, "g": "NaN \"Infinity"}"#,
        );
        for (key, value) in
            [("a", None), ("b", Some(64)), ("c", Some(64)), ("d", Some(64)), ("e", None), ("z", None)]
        {
            assert_eq!(config.whole(key).unwrap(), value, "{key}");
        }
        assert_eq!(config.wholes("d").unwrap(), Some(vec![64, 32]));
        assert_eq!(config.number("f").unwrap(), None);
        assert_eq!(config.text("g").unwrap(), Some("NaN \"Infinity"));
    }

    #[test]
    fn nonsense_is_one_sentence_that_names_the_value() {
        let config = file(r#"{"a": "wide", "b": -3, "c": {"d": 1}, "e": 99999999999}"#);
        for key in ["a", "b", "c"] {
            let sentence = config.whole(key).unwrap_err().to_string();
            assert!(sentence.contains(&format!("unet/config.json of the model: {key} is ")), "{sentence}");
        }
        assert!(config.count("e", 4096).unwrap_err().to_string().contains("between 1 and 4096"));
        assert!(config.text("b").is_err() && config.length("a").is_err() && config.number("a").is_err());
        for text in ["", "[]", "null", "{\"a\": 1,}", "{\"a\": Na"] {
            assert!(ConfigFile::parse("x.json", text).is_err(), "{text}");
        }
        assert!(!ConfigFile::parse("x.json", "[NaN]").unwrap_err().to_string().contains('\n'));
    }
}
