//! Writes a JSON object field by field. A field's value may be JSON text, which goes in unchanged.

use serde::Serialize;

/// An object under construction. Unlike `serde_json::value::RawValue`, it takes JSON text from the database without
/// parsing it again.
#[derive(Debug)]
pub struct JsonObject(String);

impl Default for JsonObject {
    fn default() -> Self {
        Self("{".to_owned())
    }
}

impl JsonObject {
    /// Adds a field. A value that cannot be serialised becomes `null`; we send no such value.
    pub fn field(&mut self, name: &'static str, value: &impl Serialize) -> &mut Self {
        let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        self.raw(name, &text)
    }

    /// Adds a field whose value is already JSON text.
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
    fn json_text_is_written_unchanged() {
        let text =
            JsonObject::default().field("id", &"a\"b").raw("input", "{ \"b\": 1.50, \"a\":1e3 }").finish();
        assert_eq!(text, r#"{"id":"a\"b","input":{ "b": 1.50, "a":1e3 }}"#);
        assert_eq!(JsonObject::default().finish(), "{}");
    }
}
