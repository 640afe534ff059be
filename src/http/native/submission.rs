//! Reads the body of run and runsync into a job. The input is checked, and kept as the client sent it, unless it
//! is in the provider's dialect.

use actix_web::web::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, error::Category};

use super::provider::{self, Translated};
use crate::domain::{EndpointId, GenerationInput, InputRules, JobKind, NewJob, Policy, S3Config, Webhook};
use crate::http::request::{ApiError, has_few_values, is_quickly_read};
use crate::http::surface::heavy;

/// The fields with a meaning here. Others are ignored, as the hosted service does.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow)]
    policy: Option<&'a RawValue>,
    #[serde(borrow)]
    webhook: Option<&'a RawValue>,
    #[serde(borrow)]
    webhook_events: Option<&'a RawValue>,
    #[serde(borrow)]
    s3_config: Option<&'a RawValue>,
}

/// Parses a request's body, on this thread or on one for blocking work.
pub async fn read(
    body: Bytes,
    endpoint: EndpointId,
    rules: InputRules,
    kind: JobKind,
) -> Result<NewJob, ApiError> {
    if is_quickly_read(&body) {
        return parse(&body, endpoint, &rules, kind);
    }
    heavy(move || parse(&body, endpoint, &rules, kind)).await?
}

fn parse(body: &[u8], endpoint: EndpointId, rules: &InputRules, kind: JobKind) -> Result<NewJob, ApiError> {
    if !has_few_values(body) {
        return Err(ApiError::TooManyValues);
    }
    let body: Body = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let input = body.input.ok_or_else(|| ApiError::BadRequest("input is a required input.".to_owned()))?;
    let value = value_of("input", input)?;
    let translated = provider::translate(&value, rules).transpose();
    let translated = translated.map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let parsed = GenerationInput::parse(translated.as_ref().map_or(&value, |ours| &ours.input), rules)?;
    let policy = match body.policy {
        None => Policy::default(),
        Some(policy) => Policy::parse(&value_of("policy", policy)?).map_err(ApiError::BadRequest)?,
    };
    let s3_config = S3Config::parse(&optional("s3Config", body.s3_config)?).map_err(ApiError::BadRequest)?;
    let webhook =
        Webhook::parse(&optional("webhook", body.webhook)?, &optional("webhookEvents", body.webhook_events)?);
    let webhook = webhook.map_err(ApiError::BadRequest)?;
    let seed = match parsed.seed {
        Some(seed) => seed,
        None => random_seed()?,
    };
    parsed.check_drawn(seed, rules)?;
    let (input, finish) = match translated {
        None => (input.get().to_owned(), None),
        Some(Translated { input, finish }) => (input.to_string(), Some(finish)),
    };
    Ok(NewJob { endpoint, kind, input, seed, policy, s3_config, once: None, webhook, finish, trace: None })
}

/// A field that may be absent.
fn optional(name: &str, raw: Option<&RawValue>) -> Result<Value, ApiError> {
    raw.map_or(Ok(Value::Null), |raw| value_of(name, raw))
}

/// The parsed value of a field. Raw text has only been scanned: bad escapes and too deep nesting show here.
fn value_of(name: &str, raw: &RawValue) -> Result<Value, ApiError> {
    serde_json::from_str(raw.get())
        .map_err(|error| ApiError::BadRequest(format!("The request's {name} is not valid JSON: {error}.")))
}

/// Why a body is not a request. The sentence repeats nothing of the body.
fn malformed(error: &serde_json::Error) -> ApiError {
    let (line, column) = (error.line(), error.column());
    ApiError::BadRequest(match error.classify() {
        // Fields are read as raw text, so these errors are always about the outermost value.
        Category::Data if error.to_string().starts_with("duplicate field") => {
            format!("The request body names a field twice, at line {line} column {column}.")
        }
        Category::Data => {
            r#"The request body should be a JSON object, such as {"input": {"prompt": "a dog"}}."#.to_owned()
        }
        Category::Syntax | Category::Eof | Category::Io => {
            format!("The request body is not valid JSON: {error}.")
        }
    })
}

fn random_seed() -> Result<u64, ApiError> {
    GenerationInput::random_seed().map_err(|error| {
        tracing::error!(%error, "the system gives no random numbers");
        ApiError::Internal
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<NewJob, String> {
        parse(body.as_bytes(), EndpointId::default(), &InputRules::default(), JobKind::Run)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_input_is_kept_as_it_was_sent() {
        let input = r#"{"seed":  7, "prompt":"\u00e9 \u0000", "guidance_scale": 7.50e0}"#;
        let job = read(&format!(r#"{{"later": [1], "input": {input} , "webhook": null}}"#)).unwrap();
        assert_eq!((job.input.as_str(), job.seed), (input, 7));
    }

    #[test]
    fn wildcards_that_cannot_be_drawn_are_refused() {
        let body = |prompt: &str| format!(r#"{{"input": {{"prompt": "{prompt}", "wildcards": true}}}}"#);
        assert!(read(&body(&"{a}".repeat(200))).is_ok());
        assert_eq!(
            read(&body(&"{a}".repeat(201))).unwrap_err(),
            "prompt does not meet the constraints. It draws more than 200 wildcards."
        );
    }

    #[test]
    fn a_random_seed_has_16_bits() {
        for _ in 0..50 {
            assert!(read(r#"{"input": {"prompt": ""}}"#).unwrap().seed < 65_536);
            assert!(read(r#"{"input": {"prompt": "", "seed": -1}}"#).unwrap().seed < 65_536);
        }
    }

    #[test]
    fn a_refusal_names_the_place_and_repeats_nothing_of_the_body() {
        for (body, error) in [
            ("", "The request body is not valid JSON: EOF while parsing a value at line 1 column 0."),
            (
                "{\"input\": {\"prompt\": \"secret\"}",
                "The request body is not valid JSON: EOF while parsing an object at line 1 column 30.",
            ),
            (
                "\"secret\"",
                r#"The request body should be a JSON object, such as {"input": {"prompt": "a dog"}}."#,
            ),
            ("null", r#"The request body should be a JSON object, such as {"input": {"prompt": "a dog"}}."#),
            ("{}", "input is a required input."),
            (r#"{"input": null}"#, "input is a required input."),
            (r#"{"input": "secret"}"#, "input should be an object."),
            (r#"{"input": {}}"#, "prompt is a required input."),
            (
                r#"{"input": {"prompt": ""}, "webhook": "file:///secret"}"#,
                "webhook should be an http or https URL.",
            ),
            (r#"{"input": {"prompt": ""}, "s3Config": {}}"#, "s3Config.accessId is a required input."),
            (r#"{"input": {"prompt": ""}, "policy": 3}"#, "policy should be an object."),
        ] {
            assert_eq!(read(body).unwrap_err(), error, "{body}");
        }
        assert!(read(r#"{"input": {}, "input": {}}"#).unwrap_err().contains("twice"));
        assert!(read(r#"{"input": {"prompt": "\ud800"}}"#).unwrap_err().contains("not valid JSON"));
    }

    #[test]
    fn deep_nesting_is_refused_without_an_overflow() {
        let deeper = "[".repeat(200_000) + &"]".repeat(200_000);
        assert!(read(&deeper).unwrap_err().contains("more JSON values"));
        // As many values as a body may have.
        let deep = "[".repeat(9_000) + &"]".repeat(9_000);
        assert!(read(&deep).is_err());
        assert!(read(&format!(r#"{{"input": {deep}}}"#)).unwrap_err().contains("recursion limit"));
        assert!(read(&format!(r#"{{"input": {{"prompt": ""}}, "other": {deep}}}"#)).is_ok());
        assert!(read(&format!(r#"{{"input": {{"prompt": ""}}, "policy": {deep}}}"#)).is_err());
    }
}
