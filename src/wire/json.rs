//! Writes a JSON object field by field. A field's value may be JSON text, which goes in unchanged.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

/// An object under construction. Unlike `serde_json::value::RawValue`, it takes JSON text from the database without
/// parsing it again.
#[derive(Debug)]
pub struct JsonObject(String);

impl Default for JsonObject {
    fn default() -> Self {
        Self::after(String::new())
    }
}

impl JsonObject {
    /// An object that is written behind this text. `finish` returns both.
    pub fn after(mut text: String) -> Self {
        text.push('{');
        Self(text)
    }

    /// Adds a field. A value that cannot be serialised becomes `null`; we send no such value.
    pub fn field(&mut self, name: &'static str, value: &impl Serialize) -> &mut Self {
        let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        self.raw(name, &text)
    }

    /// Adds a field whose value is already JSON text.
    pub fn raw(&mut self, name: &'static str, json: &str) -> &mut Self {
        self.0.reserve(name.len() + json.len() + 4);
        self.name(name);
        self.0.push_str(json);
        self
    }

    /// Adds bytes in base64, without a `data:` prefix. Nothing in it needs an escape, so that megabytes are written once
    /// and not looked at again.
    pub fn base64(&mut self, name: &'static str, bytes: &[u8]) -> &mut Self {
        self.0.reserve(name.len() + bytes.len().div_ceil(3) * 4 + 6);
        self.name(name);
        self.0.push('"');
        STANDARD.encode_string(bytes, &mut self.0);
        self.0.push('"');
        self
    }

    /// Adds a list whose JSON text `write` puts behind the text so far, so that large items are not copied.
    pub fn list(&mut self, name: &'static str, write: impl FnOnce(String) -> String) -> &mut Self {
        self.name(name);
        self.0.push('[');
        self.0 = write(std::mem::take(&mut self.0));
        self.0.push(']');
        self
    }

    fn name(&mut self, name: &'static str) {
        // No value ends with an opening brace.
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
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

    #[test]
    fn lists_and_bytes_are_written_in_place() {
        let items = |text: String| {
            let text = JsonObject::after(text).base64("a", b"").base64("b", b"fox!").finish();
            JsonObject::after(text + ",").finish()
        };
        let text =
            JsonObject::after("data: ".to_owned()).list("none", |text| text).list("some", items).finish();
        assert_eq!(text, r#"data: {"none":[],"some":[{"a":"","b":"Zm94IQ=="},{}]}"#);
    }
}
