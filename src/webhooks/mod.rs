//! Delivers the messages of the queue's outbox to their webhooks.
//!
//! This room signs and posts. Which message is due and how often it is tried is the queue's business. How a request is
//! made is passed in, so that tests need no network. Only a 200 is a success, as with the hosted service.

mod abridged;
mod secret;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

pub use secret::WebhookSecret;

use tracing::field::Empty;

use abridged::abridged;

use crate::domain::{TraceParent, WebUrl};
use crate::metrics::Metrics;
use crate::queue::{Describe, JobQueue, OutboxMessage, QueueError, Stop};
use crate::traces;
use crate::wire::{JobUrls, UrlSigner, status_body};

/// How long a receiver may take to answer.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long a thread waits before it looks into the outbox anyway, in case a wake-up was missed.
const IDLE: Duration = Duration::from_mins(1);
/// The pause after the database failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Posts JSON with these headers within [`DEADLINE`], and returns the answer's status or why there is none.
pub type Post = Arc<dyn Fn(&WebUrl, &[(&str, &str)], &str) -> Result<u16, String> + Send + Sync>;

/// Delivers messages. Each clone may run on a thread of its own.
#[derive(Clone)]
pub struct Webhooks {
    queue: JobQueue,
    secret: WebhookSecret,
    post: Post,
    /// How many messages to one receiver may be under way.
    to_one: usize,
    metrics: Metrics,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Arrived,
    /// It will be tried again.
    Failed,
    /// The last try has failed.
    GivenUp,
}

/// Writes the body of a message: the status body, with image URLs under `base`, and without what is too large.
pub fn describe(signer: UrlSigner, base: String) -> Describe {
    Arc::new(move |job, progress, now| {
        status_body(&abridged(job), progress, now, &JobUrls { base: &base, signer: &signer })
    })
}

impl Webhooks {
    /// `at_once`: how many messages may be under way. Half of them at most go to the same receiver, so that one slow
    /// receiver does not delay the others.
    pub fn new(queue: JobQueue, secret: WebhookSecret, post: Post, at_once: usize, metrics: Metrics) -> Self {
        Self { queue, secret, post, to_one: at_once.div_ceil(2), metrics }
    }

    /// Starts the threads, which deliver until `stop`.
    pub fn spawn(&self, at_once: usize, stop: &Stop) -> io::Result<Vec<thread::JoinHandle<()>>> {
        (0..at_once)
            .map(|_| {
                let (webhooks, stop) = (self.clone(), stop.clone());
                thread::Builder::new().name("webhooks".to_owned()).spawn(move || webhooks.run(&stop))
            })
            .collect()
    }

    fn run(&self, stop: &Stop) {
        while !stop.is_stopping() {
            let outcome = match self.deliver_once(stop) {
                Ok(Some(_)) => Ok(()),
                Ok(None) => self.queue.wait_for_message(IDLE),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome
                && !self.queue.is_closed()
            {
                tracing::warn!(%error, "the outbox cannot be read; trying again");
                stop.rest(PAUSE);
            }
        }
    }

    /// Delivers one message, if one is due, and says what became of it.
    pub fn deliver_once(&self, stop: &Stop) -> Result<Option<Delivery>, QueueError> {
        let Some(message) = self.queue.next_message(self.to_one)? else { return Ok(None) };
        let span = tracing::info_span!(
            target: traces::TARGET,
            parent: None,
            "webhook",
            otel.kind = "client",
            job.id = %message.job(),
            webhook.attempt = traces::number(message.number()),
            http.response.status_code = Empty,
        );
        traces::follow(&span, message.trace());
        let answer = self.post(&message, traces::name_of(&span).or(message.trace()));
        if let Ok(status) = answer {
            span.record("http.response.status_code", traces::number(status));
        }
        if !matches!(answer, Ok(200)) {
            traces::mark_failed(&span);
        }
        drop(span);
        let settled = match &answer {
            Ok(200) => message.arrived().map(|()| Delivery::Arrived),
            _ => message.failed().map(|again| if again { Delivery::Failed } else { Delivery::GivenUp }),
        };
        match settled {
            Ok(delivery) => {
                log(&message, &answer, delivery);
                self.metrics.webhook(match delivery {
                    Delivery::Arrived => "arrived",
                    Delivery::Failed => "failed",
                    Delivery::GivenUp => "given_up",
                });
                Ok(Some(delivery))
            }
            Err(error) => {
                tracing::warn!(job = %message.job(), %error, "a webhook's delivery cannot be noted yet");
                // The message is still held here, or the next thread would post it again at once.
                stop.rest(PAUSE);
                Ok(None)
            }
        }
    }

    fn post(&self, message: &OutboxMessage, trace: Option<TraceParent>) -> Result<u16, String> {
        let name = message.name();
        let timestamp = self.queue.clock().time_of_day().unix_seconds();
        let signature = self.secret.sign(&name, timestamp, message.body());
        let (timestamp, trace) = (timestamp.to_string(), trace.map(|trace| trace.to_string()));
        let mut headers = vec![
            ("webhook-id", name.as_str()),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signature),
        ];
        headers.extend(trace.as_deref().map(|trace| ("traceparent", trace)));
        (self.post)(message.url(), &headers, message.body())
    }
}

/// Logs one line for each try. Never the URL, which may contain a key.
fn log(message: &OutboxMessage, answer: &Result<u16, String>, delivery: Delivery) {
    let (job, attempt) = (message.job(), message.number());
    let reason = match answer {
        Ok(status) => format!("HTTP {status}"),
        Err(reason) => reason.clone(),
    };
    match delivery {
        Delivery::Arrived => tracing::info!(%job, attempt, "webhook delivered"),
        Delivery::Failed => tracing::info!(%job, attempt, reason, "webhook failed; trying again"),
        Delivery::GivenUp => tracing::warn!(%job, attempt, reason, "webhook given up"),
    }
}
