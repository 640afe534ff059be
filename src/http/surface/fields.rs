//! The fields of a request whose types are loose.
//!
//! Clients send numbers as text, booleans as text or numbers, whole numbers as floats, and `null` anywhere. Text that is a
//! number or a boolean is one, a whole float is an integer, and `null` and empty text are absent. Unknown fields are never
//! looked at, logged or echoed: some clients send their user's credentials in them.

use serde_json::{Map, Value};

/// A field that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct FieldError {
    /// The name by which the client sent it.
    pub field: String,
    pub sentence: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { field: field.into(), sentence: sentence.into() }
    }
}

/// A request's fields. Every reader takes the names that a field has among clients; the first that is present counts.
#[derive(Debug, Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    pub fn new(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// The name by which the client sent a field.
    pub fn name_of<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().copied().find(|name| self.0.get(*name).is_some_and(is_present))
    }

    /// A field of any type.
    pub fn value(&self, names: &[&str]) -> Option<&Value> {
        names.iter().filter_map(|name| self.0.get(*name)).find(|value| is_present(value))
    }

    /// Gives a field a value if the client sent none.
    pub fn fill(&mut self, name: &str, value: Value) {
        if self.name_of(&[name]).is_none() {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// A field as text. Numbers and booleans are text too.
    pub fn text(&self, names: &[&str]) -> Result<Option<String>, FieldError> {
        self.read(names, "text", |value| match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
            _ => None,
        })
    }

    /// A field as a word in lower case.
    pub fn word(&self, names: &[&str]) -> Result<Option<String>, FieldError> {
        Ok(self.text(names)?.map(|text| text.trim().to_lowercase()))
    }

    /// A field as an integer of any size up to 64 bits, with or without a sign.
    pub fn integer(&self, names: &[&str]) -> Result<Option<i128>, FieldError> {
        self.read(names, "a whole number", |value| match value {
            Value::String(text) => text.trim().parse().ok().or_else(|| whole(text.trim().parse().ok()?)),
            Value::Number(number) => {
                let exact = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
                exact.or_else(|| whole(number.as_f64()?))
            }
            _ => None,
        })
    }

    /// A field as a finite number.
    pub fn number(&self, names: &[&str]) -> Result<Option<f64>, FieldError> {
        self.read(names, "a number", |value| {
            let number = match value {
                Value::String(text) => text.trim().parse().ok(),
                other => other.as_f64(),
            };
            number.filter(|number: &f64| number.is_finite())
        })
    }

    /// A field as a boolean: also `0`, `1` and the usual words.
    pub fn flag(&self, names: &[&str]) -> Result<Option<bool>, FieldError> {
        self.read(names, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) => match text.trim().to_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            Value::Number(number) => match number.as_f64() {
                Some(1.0) => Some(true),
                Some(0.0) => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    fn read<T>(
        &self,
        names: &[&str],
        wanted: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, FieldError> {
        let Some((name, value)) = self.name_of(names).and_then(|name| Some((name, self.0.get(name)?))) else {
            return Ok(None);
        };
        match read(value) {
            Some(found) => Ok(Some(found)),
            None => Err(FieldError::new(name, format!("{name} should be {wanted}."))),
        }
    }
}

fn is_present(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        _ => true,
    }
}

/// A float without a fraction, if it is not too large to be exact as an integer of 64 bits.
#[expect(clippy::cast_possible_truncation, reason = "within 2^64")]
fn whole(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() <= 18_446_744_073_709_551_616.0).then_some(number as i128)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(fields) => Fields::new(fields),
            _ => Fields::default(),
        }
    }

    #[test]
    fn text_that_is_a_number_or_a_boolean_is_one() {
        let fields = fields(json!({
            "a": "1.0", "b": " 12 ", "c": "false", "d": 12.0, "e": "18446744073709551615", "f": -1, "g": 1,
            "h": "7.5", "i": 7, "j": u64::MAX,
        }));
        assert_eq!(fields.integer(&["a"]), Ok(Some(1)));
        assert_eq!(fields.integer(&["b"]), Ok(Some(12)));
        assert_eq!(fields.flag(&["c"]), Ok(Some(false)));
        assert_eq!(fields.integer(&["d"]), Ok(Some(12)));
        assert_eq!(fields.integer(&["e"]), Ok(Some(u64::MAX.into())));
        assert_eq!(fields.integer(&["f"]), Ok(Some(-1)));
        assert_eq!(fields.flag(&["g"]), Ok(Some(true)));
        assert_eq!(fields.number(&["h"]), Ok(Some(7.5)));
        assert_eq!(fields.text(&["i"]), Ok(Some("7".to_owned())));
        assert_eq!(fields.integer(&["j"]), Ok(Some(u64::MAX.into())));
    }

    #[test]
    fn null_and_empty_text_are_absent_and_the_first_present_name_counts() {
        let fields = fields(json!({"a": null, "b": "", "c": 3, "d": 4}));
        assert_eq!((fields.integer(&["a"]), fields.text(&["b"])), (Ok(None), Ok(None)));
        assert_eq!(fields.integer(&["none", "a", "c", "d"]), Ok(Some(3)));
        assert_eq!(fields.name_of(&["a", "b", "d", "c"]), Some("d"));
    }

    #[test]
    fn a_value_of_another_kind_is_named() {
        let fields =
            fields(json!({"n": 12.5, "t": [], "f": "perhaps", "x": "1e999", "y": "nan", "z": "1e30"}));
        let refused = |field: &str, sentence: &str| FieldError::new(field, sentence);
        assert_eq!(fields.integer(&["m", "n"]), Err(refused("n", "n should be a whole number.")));
        assert_eq!(fields.text(&["t"]), Err(refused("t", "t should be text.")));
        assert_eq!(fields.flag(&["f"]), Err(refused("f", "f should be true or false.")));
        assert_eq!(fields.number(&["x"]), Err(refused("x", "x should be a number.")));
        assert!(fields.number(&["y"]).is_err() && fields.integer(&["z"]).is_err());
    }
}
