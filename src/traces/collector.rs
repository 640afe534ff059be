//! The collector, over HTTP.
//!
//! It is called on the thread that sends spans, which may block. A collector that is down is one line in the log, and
//! another one once it is back.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::Agent;
use ureq::tls::TlsConfig;

use crate::fetch::root_certificates;

/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers are a few bytes.
const LONGEST_ANSWER: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Collector {
    url: String,
    agent: Agent,
    is_down: AtomicBool,
}

impl Collector {
    pub fn new(url: &str) -> Result<Self, String> {
        let roots = root_certificates().map_err(|error| error.to_string())?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .max_redirects(0)
            // Spans go to this host only.
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        Ok(Self { url: url.to_owned(), agent: config.into(), is_down: AtomicBool::new(false) })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let answer = self.agent.run(request.map(|body| body.to_vec()))?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(LONGEST_ANSWER).read_to_vec()?;
        Ok(Response::from_parts(head, body.into()))
    }

    fn note(&self, outcome: &Result<Response<Bytes>, ureq::Error>) {
        let reason = match outcome {
            Ok(answer) if answer.status().is_success() => {
                if self.is_down.swap(false, Ordering::Relaxed) {
                    tracing::info!(collector = self.url, "the collector takes traces again");
                }
                return;
            }
            Ok(answer) => format!("it answers with status {}", answer.status().as_u16()),
            Err(error) => error.to_string(),
        };
        if !self.is_down.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                collector = self.url,
                reason,
                "traces cannot be sent; those that its queue has no room for are dropped"
            );
        }
    }
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let outcome = self.send(request);
        self.note(&outcome);
        Box::pin(std::future::ready(outcome.map_err(HttpError::from)))
    }
}
