//! A client's own bucket for its pictures.

use std::fmt;

use serde_json::{Value, json};

use super::WebUrl;

/// The `s3Config` of a request. Its keys are secrets: `Debug` does not show them, and [`Self::to_json`] is only for the
/// database.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Config {
    pub access_id: String,
    pub access_secret: String,
    pub bucket_name: String,
    /// The host may begin with the name of the bucket. The URL may have a path.
    pub endpoint_url: WebUrl,
    /// An extension of ours, for endpoints whose host name does not contain the region.
    pub region: Option<String>,
}

const ACCESS_ID: &str = "accessId";
const ACCESS_SECRET: &str = "accessSecret";
const BUCKET_NAME: &str = "bucketName";
const ENDPOINT_URL: &str = "endpointUrl";
const REGION: &str = "region";

const MAX_KEY: usize = 512;
/// The longest bucket name that AWS has ever allowed.
const MAX_BUCKET_NAME: usize = 255;
const MAX_REGION: usize = 64;

impl S3Config {
    /// Reads the `s3Config` of a request. Null means none. Unknown keys are ignored. The error is a sentence for the client.
    pub fn parse(value: &Value) -> Result<Option<Self>, String> {
        if value.is_null() {
            return Ok(None);
        }
        if !value.is_object() {
            return Err("s3Config should be an object.".to_owned());
        }
        let key = |name| required(value, name, MAX_KEY, char::is_ascii_graphic);
        Ok(Some(Self {
            access_id: key(ACCESS_ID)?,
            access_secret: key(ACCESS_SECRET)?,
            bucket_name: bucket_name(value)?,
            endpoint_url: required(value, ENDPOINT_URL, usize::MAX, |_| true)?
                .parse()
                .map_err(|error| format!("s3Config.{ENDPOINT_URL} {error}."))?,
            region: text(value, REGION, MAX_REGION, |c| c.is_ascii_alphanumeric() || *c == '-')?,
        }))
    }

    /// JSON that [`Self::parse`] reads back.
    pub fn to_json(&self) -> String {
        json!({
            ACCESS_ID: self.access_id,
            ACCESS_SECRET: self.access_secret,
            BUCKET_NAME: self.bucket_name,
            ENDPOINT_URL: self.endpoint_url.as_str(),
            REGION: self.region,
        })
        .to_string()
    }
}

/// Letters, digits, `-`, `_` and `.`: more than AWS allows today, but nothing with a special meaning in a URL.
fn bucket_name(config: &Value) -> Result<String, String> {
    let letter = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = required(config, BUCKET_NAME, MAX_BUCKET_NAME, letter)?;
    if name.starts_with('.') || name.ends_with('.') || name.contains("..") {
        return Err(format!("s3Config.{BUCKET_NAME} should be the name of a bucket, such as my-pictures."));
    }
    Ok(name)
}

fn required(config: &Value, name: &str, max: usize, valid: impl Fn(&char) -> bool) -> Result<String, String> {
    text(config, name, max, valid)?.ok_or_else(|| format!("s3Config.{name} is a required input."))
}

fn text(
    config: &Value,
    name: &str,
    max: usize,
    valid: impl Fn(&char) -> bool,
) -> Result<Option<String>, String> {
    let text = match config.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => return Err(format!("s3Config.{name} should be a string.")),
    };
    if text.len() > max {
        return Err(format!("s3Config.{name} should have at most {max} characters."));
    }
    if !text.chars().all(|c| valid(&c)) {
        return Err(format!("s3Config.{name} contains an invalid character."));
    }
    Ok(Some(text.clone()).filter(|text| !text.is_empty()))
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Config({} at {})", self.bucket_name, self.endpoint_url.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent() -> Value {
        json!({
            "accessId": "AKIAIOSFODNN7EXAMPLE", "accessSecret": "wJalrXUtnFEMI/K7MDENG",
            "bucketName": "my-pictures", "endpointUrl": "https://s3.eu-west-1.amazonaws.com",
        })
    }

    fn with(name: &str, value: Value) -> Result<Option<S3Config>, String> {
        let mut config = sent();
        config[name] = value;
        S3Config::parse(&config)
    }

    #[test]
    fn the_hosted_service_s_form_is_read_and_kept() {
        let config = with("more", json!(1)).unwrap().unwrap();
        assert_eq!(config.access_secret, "wJalrXUtnFEMI/K7MDENG");
        assert_eq!(config.endpoint_url.host(), "s3.eu-west-1.amazonaws.com");
        let kept = serde_json::from_str(&config.to_json()).unwrap();
        assert_eq!(S3Config::parse(&kept), Ok(Some(config)));
        assert_eq!(S3Config::parse(&Value::Null), Ok(None));
    }

    #[test]
    fn an_error_names_the_field_but_not_its_value() {
        for (name, value, error) in [
            ("accessId", json!(null), "s3Config.accessId is a required input."),
            ("accessSecret", json!(""), "s3Config.accessSecret is a required input."),
            ("accessSecret", json!(7), "s3Config.accessSecret should be a string."),
            ("accessId", json!("a\nb"), "s3Config.accessId contains an invalid character."),
            ("bucketName", json!("a/b"), "s3Config.bucketName contains an invalid character."),
            (
                "bucketName",
                json!(".."),
                "s3Config.bucketName should be the name of a bucket, such as my-pictures.",
            ),
            ("endpointUrl", json!("ftp://a"), "s3Config.endpointUrl should be an http or https URL."),
            ("region", json!("a.b"), "s3Config.region contains an invalid character."),
        ] {
            assert_eq!(with(name, value).unwrap_err(), error);
        }
        assert_eq!(S3Config::parse(&json!([])).unwrap_err(), "s3Config should be an object.");
        assert!(with("accessId", json!("a".repeat(513))).unwrap_err().contains("at most 512"));
    }

    #[test]
    fn the_debug_text_shows_no_secret() {
        let shown = format!("{:?}", S3Config::parse(&sent()).unwrap().unwrap());
        assert_eq!(shown, "S3Config(my-pictures at s3.eu-west-1.amazonaws.com)");
    }
}
