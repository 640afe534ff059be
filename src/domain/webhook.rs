//! The webhook of a job.

use serde_json::Value;

use super::{WebUrl, WebUrlError};

/// The `webhook` and `webhookEvents` of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub url: WebUrl,
    pub events: WebhookEvents,
}

/// The events that it gets besides the end of the job, which it always gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WebhookEvents {
    pub start: bool,
    pub progress: bool,
}

impl Webhook {
    /// Reads both fields. The error is a sentence for the client.
    pub fn parse(url: &Value, events: &Value) -> Result<Option<Self>, String> {
        let url = match url {
            Value::Null => return Ok(None),
            Value::String(url) => url.parse().map_err(|error| match error {
                // The error's own example is a picture.
                WebUrlError::NoUrl => {
                    "webhook should be an absolute URL, such as https://jobs.example/ended.".to_owned()
                }
                error => format!("webhook {error}."),
            })?,
            _ => return Err("webhook should be a URL in a string.".to_owned()),
        };
        Ok(Some(Self { url, events: WebhookEvents::parse(events)? }))
    }
}

impl WebhookEvents {
    fn parse(events: &Value) -> Result<Self, String> {
        let unmet = || {
            "webhookEvents does not meet the constraints. It must be a list of start, progress and completed."
                .to_owned()
        };
        let mut wanted = Self::default();
        if events.is_null() {
            return Ok(wanted);
        }
        for event in events.as_array().ok_or_else(unmet)? {
            match event.as_str().ok_or_else(unmet)? {
                "start" => wanted.start = true,
                "progress" => wanted.progress = true,
                "completed" | "end" => {}
                _ => return Err(unmet()),
            }
        }
        Ok(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_end_is_sent_by_default() {
        let parse = |events: Value| Webhook::parse(&json!("https://a.example/x"), &events).unwrap().unwrap();
        for events in [json!(null), json!([]), json!(["completed"]), json!(["end"])] {
            assert_eq!(parse(events).events, WebhookEvents::default());
        }
        let all = parse(json!(["completed", "start", "progress"]));
        assert_eq!(all.events, WebhookEvents { start: true, progress: true });
        assert_eq!(all.url.as_str(), "https://a.example/x");
        assert_eq!(Webhook::parse(&json!(null), &json!("ignored")), Ok(None));
    }

    #[test]
    fn an_invalid_webhook_is_an_error() {
        let error = |url: Value, events: Value| Webhook::parse(&url, &events).unwrap_err();
        assert_eq!(error(json!("ftp://a/"), json!(null)), "webhook should be an http or https URL.");
        assert_eq!(error(json!(["http://a/"]), json!(null)), "webhook should be a URL in a string.");
        assert_eq!(
            error(json!("jobs.example"), json!(null)),
            "webhook should be an absolute URL, such as https://jobs.example/ended."
        );
        for events in [json!("start"), json!(["begin"]), json!([1]), json!({})] {
            assert!(error(json!("http://a/"), events).starts_with("webhookEvents does not meet"));
        }
    }
}
