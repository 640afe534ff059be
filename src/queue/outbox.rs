//! The outbox: messages to webhooks, from the database to those who deliver them.
//!
//! A message is delivered by one thread at a time and tried [`TRIES`] times. It is deleted when it has arrived, is given up,
//! or its job is deleted. If the process dies during a delivery, the next process delivers the message again, under the same
//! name.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::receivers::Receivers;
use super::{JobQueue, QueueError, work_signal::WorkSignal};
use crate::domain::{JobId, TraceParent, WebUrl};
use crate::store::Message;

/// How often a message is tried.
pub const TRIES: u32 = 3;
/// How long after a failed try the next one is due.
pub const BETWEEN_TRIES: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Outbox {
    pub signal: WorkSignal,
    /// The messages that are being delivered, with their receivers.
    under_way: Mutex<HashMap<i64, i64>>,
    receivers: Mutex<Receivers>,
}

/// A message that is being delivered. Dropping it makes it due again, unless it was settled.
pub struct OutboxMessage {
    queue: JobQueue,
    message: Message,
}

impl JobQueue {
    /// Takes the next message that is due, but at most `most` at once to the same receiver, and fewer to one that does not
    /// answer. Blocks.
    pub fn next_message(&self, most: usize) -> Result<Option<OutboxMessage>, QueueError> {
        let outbox = &self.inner.outbox;
        let generation = outbox.signal.generation();
        let mut under_way = outbox.under_way();
        let now = self.now();
        let receivers = outbox.receivers();
        let message = self.inner.store.due_message(now, |id, receiver| {
            !under_way.contains_key(&id)
                && under_way.values().filter(|busy| **busy == receiver).count()
                    < receivers.places(receiver, most, now)
        })?;
        drop(receivers);
        let Some(message) = message else {
            outbox.signal.found_empty(generation);
            return Ok(None);
        };
        under_way.insert(message.id, message.receiver);
        Ok(Some(OutboxMessage { queue: self.clone(), message }))
    }

    /// Blocks until a message may be due, `patience` is over or [`Self::wake_outbox`] is called.
    pub fn wait_for_message(&self, patience: Duration) -> Result<(), QueueError> {
        if self.is_closed() {
            return Ok(());
        }
        let now = self.now();
        let due = self.inner.store.next_due(now)?.map(|due| due.since(now));
        let rested = self.inner.outbox.receivers().next_rested(now);
        let next = due.into_iter().chain(rested).fold(patience, Duration::min);
        self.inner.outbox.signal.wait(next);
        Ok(())
    }

    /// Makes every `wait_for_message` return.
    pub fn wake_outbox(&self) {
        self.inner.outbox.signal.raise();
    }
}

impl OutboxMessage {
    /// The name of the message, the same at every try.
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

    /// What caused the job, if somebody traces that.
    pub fn trace(&self) -> Option<TraceParent> {
        self.message.trace
    }

    /// Which try this is, from 1.
    pub fn number(&self) -> u32 {
        self.message.tries + 1
    }

    /// Deletes the message: it has arrived. Blocks. If that fails, it will be delivered once more.
    pub fn arrived(&self) -> Result<(), QueueError> {
        self.queue.inner.outbox.receivers().answered(self.message.receiver);
        Ok(self.queue.inner.store.forget_message(self.message.id).wait()?)
    }

    /// The try has failed. True: the message is due again later. False: that was the last try, or its job is gone, and it
    /// is deleted. Blocks.
    pub fn failed(&self) -> Result<bool, QueueError> {
        let store = &self.queue.inner.store;
        self.queue.inner.outbox.receivers().failed(self.message.receiver, self.queue.now());
        if self.number() < TRIES {
            return Ok(store.postpone_message(self.message.id, self.queue.now() + BETWEEN_TRIES).wait()?);
        }
        store.forget_message(self.message.id).wait()?;
        Ok(false)
    }
}

impl Drop for OutboxMessage {
    fn drop(&mut self) {
        let outbox = &self.queue.inner.outbox;
        outbox.under_way().remove(&self.message.id);
        // Others may have skipped messages to this receiver, or plan to sleep past this message's next try.
        outbox.signal.raise();
    }
}

impl Outbox {
    fn receivers(&self) -> MutexGuard<'_, Receivers> {
        self.receivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<i64, i64>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
