//! Messages to webhooks, from the outbox to whoever delivers them.
//!
//! A message is on its way once in this process, is tried [`TRIES`] times, and goes only when it arrived or
//! is given up: what a dying process had in hand, the next one delivers again, under the same name.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{JobQueue, QueueError, work_signal::WorkSignal};
use crate::domain::{JobId, WebUrl};
use crate::store::Message;

/// How often a message is tried.
pub const TRIES: u32 = 3;
/// How long after a try that failed the next one is due.
pub const BETWEEN_TRIES: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Mail {
    pub signal: WorkSignal,
    /// Messages in somebody's hands, and their receivers.
    under_way: Mutex<HashMap<i64, i64>>,
}

/// A message in the hands of one who delivers it; dropped, it is due again.
pub struct Outgoing {
    queue: JobQueue,
    message: Message,
}

impl JobQueue {
    /// Takes a message that is due, unless `most` to the same receiver are under way. Blocks.
    pub fn next_message(&self, most: usize) -> Result<Option<Outgoing>, QueueError> {
        let mail = &self.inner.mail;
        let generation = mail.signal.generation();
        let mut under_way = mail.under_way();
        let message = self.inner.store.due_message(self.now(), |id, receiver| {
            !under_way.contains_key(&id)
                && under_way.values().filter(|busy| **busy == receiver).count() < most
        })?;
        let Some(message) = message else {
            mail.signal.found_empty(generation);
            return Ok(None);
        };
        under_way.insert(message.id, message.receiver);
        Ok(Some(Outgoing { queue: self.clone(), message }))
    }

    /// Blocks until there may be a message, but for `patience` at most, or [`Self::wake_mail`].
    pub fn wait_for_mail(&self, patience: Duration) -> Result<(), QueueError> {
        if self.is_closed() {
            return Ok(());
        }
        let now = self.now();
        let due = self.inner.store.next_due(now)?;
        self.inner.mail.signal.wait(due.map_or(patience, |due| due.since(now).min(patience)));
        Ok(())
    }

    /// Makes every `wait_for_mail` return.
    pub fn wake_mail(&self) {
        self.inner.mail.signal.raise();
    }
}

impl Outgoing {
    /// The message's name, the same at every try.
    pub fn name(&self) -> String {
        format!("msg_{}_{}", self.message.job, self.message.id)
    }

    pub fn job(&self) -> &JobId {
        &self.message.job
    }

    pub fn url(&self) -> &WebUrl {
        &self.message.url
    }

    pub fn body(&self) -> &str {
        &self.message.body
    }

    /// Which try this is, from 1.
    pub fn number(&self) -> u32 {
        self.message.tries + 1
    }

    /// It arrived. Blocks until it is forgotten; where that fails, it will be delivered once more.
    pub fn arrived(&self) -> Result<(), QueueError> {
        Ok(self.queue.inner.store.forget_message(self.message.id).wait()?)
    }

    /// It did not: it is due again later, or given up after the last try, and says which. Blocks.
    pub fn failed(&self) -> Result<bool, QueueError> {
        let store = &self.queue.inner.store;
        let again = self.number() < TRIES;
        if again {
            store.postpone_message(self.message.id, self.queue.now() + BETWEEN_TRIES).wait()?;
        } else {
            store.forget_message(self.message.id).wait()?;
        }
        Ok(again)
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mail = &self.queue.inner.mail;
        mail.under_way().remove(&self.message.id);
        // Others may have passed by messages to this receiver, or wait for longer than this one's next try.
        mail.signal.raise();
    }
}

impl Mail {
    fn under_way(&self) -> MutexGuard<'_, HashMap<i64, i64>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
