//! A JSON object written front to back, into which ready-made JSON text can be put untouched.

use serde::Serialize;

/// An object under construction. Unlike `serde_json::value::RawValue`, it takes the text of a
/// value that the database already holds without reading it again.
#[derive(Debug)]
pub struct JsonObject(String);

impl Default for JsonObject {
    fn default() -> Self {
        Self("{".to_owned())
    }
}

impl JsonObject {
    /// Adds a field. What cannot be serialised (nothing that we send) becomes `null`.
    pub fn field(&mut self, name: &'static str, value: &impl Serialize) -> &mut Self {
        let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        self.raw(name, &text)
    }

    /// Adds a field whose value is JSON text already.
    pub fn raw(&mut self, name: &'static str, json: &str) -> &mut Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.reserve(name.len() + json.len() + 4);
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
        self.0.push_str(json);
        self
    }

    pub fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.0);
        text.push('}');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_text_goes_through_untouched() {
        let text =
            JsonObject::default().field("id", &"a\"b").raw("input", "{ \"b\": 1.50, \"a\":1e3 }").finish();
        assert_eq!(text, r#"{"id":"a\"b","input":{ "b": 1.50, "a":1e3 }}"#);
        assert_eq!(JsonObject::default().finish(), "{}");
    }
}
