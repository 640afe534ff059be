//! Typed values out of a JSON object. A value of another type is an error that names its key.

use serde_json::Value;

use crate::diffusion::schedulers::SchedulerError;

/// A type that a key of the file may have.
pub(super) trait FromJson: Sized {
    /// The type as an error sentence names it.
    const EXPECTED: &'static str;

    fn from_json(value: &Value) -> Option<Self>;
}

impl FromJson for usize {
    const EXPECTED: &'static str = "a whole number";

    fn from_json(value: &Value) -> Option<Self> {
        // Some programs write 1000.0.
        let written = || value.as_f64().filter(|n| (0.0..1e9).contains(n) && n.fract() == 0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be whole and small"
        )]
        value.as_u64().and_then(|n| usize::try_from(n).ok()).or_else(|| written().map(|n| n as usize))
    }
}

impl FromJson for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

impl FromJson for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl FromJson for String {
    const EXPECTED: &'static str = "a string";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl FromJson for Vec<f32> {
    const EXPECTED: &'static str = "a list of numbers";

    #[expect(clippy::cast_possible_truncation, reason = "the reference makes an f32 tensor of them, too")]
    fn from_json(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(|item| item.as_f64().map(|number| number as f32)).collect()
    }
}

impl FromJson for Vec<usize> {
    const EXPECTED: &'static str = "a list of whole numbers";

    fn from_json(value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(usize::from_json).collect()
    }
}

/// The value of `key` in `object`; `None` where it is missing or null.
pub(super) fn read<T: FromJson>(object: &Value, key: &'static str) -> Result<Option<T>, SchedulerError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match T::from_json(value) {
            Some(value) => Ok(Some(value)),
            None => Err(SchedulerError::value(key, shorten(value), T::EXPECTED)),
        },
    }
}

/// The value as an error quotes it: at most 60 characters.
pub(super) fn shorten(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
