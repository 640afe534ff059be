//! Delivers the messages of the queue's outbox to their webhooks.
//!
//! It signs and posts; which message is due, how often it is tried and what it says is settled elsewhere.
//! How a request is made is passed in, so that this knows no network and a test needs none. Only 200 is
//! success, as with the hosted service.

mod secret;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

pub use secret::WebhookSecret;

use crate::domain::WebUrl;
use crate::queue::{Describe, JobQueue, Outgoing, QueueError, Stop};
use crate::wire::{JobUrls, UrlSigner, status_body};

/// How long a receiver may take.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// At most this long without a look at the outbox, should a wake-up be missed after all.
const IDLE: Duration = Duration::from_mins(1);
/// After the database failed.
const PAUSE: Duration = Duration::from_secs(5);

/// A POST of JSON with these headers, within [`DEADLINE`]: the answer's status, or why there is none.
pub type Post = Arc<dyn Fn(&WebUrl, &[(&str, &str)], &str) -> Result<u16, String> + Send + Sync>;

/// One that delivers, on as many threads as it has clones.
#[derive(Clone)]
pub struct Webhooks {
    queue: JobQueue,
    secret: WebhookSecret,
    post: Post,
    /// How many messages to one receiver may be under way.
    to_one: usize,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Arrived,
    /// It is tried again later.
    Failed,
    /// That was the last try.
    GivenUp,
}

/// What a webhook is told: the status body, its image URLs under `base`.
pub fn describe(signer: UrlSigner, base: String) -> Describe {
    Arc::new(move |job, progress, now| {
        status_body(job, progress, now, &JobUrls { base: &base, signer: &signer })
    })
}

impl Webhooks {
    /// `at_once`: how many messages are under way at most. One receiver has half of them at most, so that
    /// one that does not answer keeps nobody else waiting.
    pub fn new(queue: JobQueue, secret: WebhookSecret, post: Post, at_once: usize) -> Self {
        Self { queue, secret, post, to_one: at_once.div_ceil(2) }
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
                Ok(None) => self.queue.wait_for_mail(IDLE),
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

    /// Delivers one message, if one is due and may be, and says what became of it.
    pub fn deliver_once(&self, stop: &Stop) -> Result<Option<Delivery>, QueueError> {
        let Some(message) = self.queue.next_message(self.to_one)? else { return Ok(None) };
        let answer = self.post(&message);
        let settled = match &answer {
            Ok(200) => message.arrived().map(|()| Delivery::Arrived),
            _ => message.failed().map(|again| if again { Delivery::Failed } else { Delivery::GivenUp }),
        };
        match settled {
            Ok(delivery) => {
                tell(&message, &answer, delivery);
                self.queue.metrics().webhook(match delivery {
                    Delivery::Arrived => "arrived",
                    Delivery::Failed => "failed",
                    Delivery::GivenUp => "given_up",
                });
                Ok(Some(delivery))
            }
            Err(error) => {
                tracing::warn!(job = %message.job(), %error, "a webhook's delivery cannot be noted yet");
                // Still in hand, or the next thread would post it again at once.
                stop.rest(PAUSE);
                Ok(None)
            }
        }
    }

    fn post(&self, message: &Outgoing) -> Result<u16, String> {
        let name = message.name();
        let timestamp = self.queue.clock().time_of_day().unix_seconds();
        let signature = self.secret.sign(&name, timestamp, message.body());
        let headers = [
            ("webhook-id", name.as_str()),
            ("webhook-timestamp", &timestamp.to_string()),
            ("webhook-signature", &signature),
        ];
        (self.post)(message.url(), &headers, message.body())
    }
}

/// One line a try: never the URL, which may carry a key.
fn tell(message: &Outgoing, answer: &Result<u16, String>, delivery: Delivery) {
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
