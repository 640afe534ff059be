//! What is known of jobs in memory only: who listens to one, which are running, which are to stop.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::running::Running;
use crate::domain::{JobId, Progress, Timestamp};

#[derive(Default)]
pub(super) struct Board {
    running: Mutex<HashMap<JobId, Arc<Running>>>,
    ears: Mutex<HashMap<JobId, Ears>>,
    /// The ended jobs whose pictures `stream` has given out, by the attempt that drew them; until they expire.
    streamed: Mutex<HashMap<JobId, (u32, Timestamp)>>,
    /// Numbers the steps of all jobs, so that a later run's come after an earlier one's.
    published: AtomicU64,
    closed: AtomicBool,
}

/// Where the listeners of one job hear of it. Two channels, so that those who wait for its end need not
/// wake for its steps.
#[derive(Default)]
struct Ears {
    state: watch::Sender<()>,
    steps: watch::Sender<()>,
}

/// Hears of changes of one job for as long as it lives.
pub(super) struct Listener {
    board: Arc<Board>,
    id: JobId,
    state: watch::Receiver<()>,
    steps: Option<watch::Receiver<()>>,
}

/// What a listener heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The job's row may have changed, or the server is going down.
    State,
    /// It has made a step.
    Step,
}

impl Board {
    /// Starts to listen to a job's state. What changes afterwards is heard, even before `heard` is called.
    pub(super) fn listen(self: &Arc<Self>, id: &JobId) -> Listener {
        self.listener(id, false)
    }

    /// The same, and to its steps.
    pub(super) fn follow(self: &Arc<Self>, id: &JobId) -> Listener {
        self.listener(id, true)
    }

    fn listener(self: &Arc<Self>, id: &JobId, steps: bool) -> Listener {
        let mut ears = locked(&self.ears);
        let ears = ears.entry(id.clone()).or_default();
        Listener {
            board: Arc::clone(self),
            id: id.clone(),
            state: ears.state.subscribe(),
            steps: steps.then(|| ears.steps.subscribe()),
        }
    }

    /// Tells those who listen to a job that it changed.
    pub(super) fn notify(&self, id: &JobId) {
        if let Some(ears) = locked(&self.ears).get(id) {
            ears.state.send_replace(());
        }
    }

    /// Tells everybody to look again: many jobs changed, or the server is going down.
    pub(super) fn notify_all(&self) {
        for ears in locked(&self.ears).values() {
            ears.state.send_replace(());
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// A new run of a job begins; its listeners hear of it.
    pub(super) fn start(&self, id: &JobId) {
        locked(&self.running).insert(id.clone(), Arc::default());
        self.notify(id);
    }

    pub(super) fn running(&self, id: &JobId) -> Option<Arc<Running>> {
        locked(&self.running).get(id).map(Arc::clone)
    }

    /// Takes a run off the board, unless a later one has taken its place.
    pub(super) fn finish(&self, id: &JobId, run: &Arc<Running>) {
        let mut running = locked(&self.running);
        if running.get(id).is_some_and(|current| Arc::ptr_eq(current, run)) {
            running.remove(id);
        }
    }

    pub(super) fn cancel(&self, id: &JobId) {
        if let Some(running) = locked(&self.running).get(id) {
            running.cancel();
        }
    }

    pub(super) fn progress(&self, id: &JobId) -> Option<Progress> {
        self.running(id)?.progress()
    }

    /// Makes a run's step known.
    pub(super) fn publish(
        &self,
        id: &JobId,
        run: &Running,
        progress: Progress,
        preview: Option<Vec<u8>>,
        now: Timestamp,
    ) {
        // Numbered from 1: a reader who has seen nothing has seen 0.
        let number = self.published.fetch_add(1, Ordering::SeqCst) + 1;
        run.publish(number, progress, preview, now);
        if let Some(ears) = locked(&self.ears).get(id) {
            ears.steps.send_replace(());
        }
    }

    /// Whether anybody listens to a job's steps at this moment.
    pub(super) fn is_followed(&self, id: &JobId) -> bool {
        locked(&self.ears).get(id).is_some_and(|ears| ears.steps.receiver_count() > 0)
    }

    /// Notes that the pictures of that attempt are given out, and says whether that is for the first time.
    pub(super) fn streams_first(&self, id: &JobId, attempt: u32, expires_at: Timestamp) -> bool {
        let before = locked(&self.streamed).insert(id.clone(), (attempt, expires_at));
        before.is_none_or(|(earlier, _)| earlier != attempt)
    }

    /// Drops the notes on what has expired.
    pub(super) fn forget_expired(&self, now: Timestamp) {
        locked(&self.streamed).retain(|_, (_, expires_at)| *expires_at > now);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        locked(&self.running).is_empty() && locked(&self.ears).is_empty() && locked(&self.streamed).is_empty()
    }
}

impl Listener {
    /// Returns once something changed since the listening began or this returned last; a state before a step.
    pub(super) async fn heard(&mut self) -> Heard {
        // The senders live as long as a listener does.
        let state = pin!(self.state.changed());
        let Some(steps) = &mut self.steps else {
            let _ = state.await;
            return Heard::State;
        };
        match select(state, pin!(steps.changed())).await {
            Either::Left(_) => Heard::State,
            Either::Right(_) => Heard::Step,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut ears = locked(&self.board.ears);
        // This one is still counted.
        if ears.get(&self.id).is_some_and(|ears| ears.state.receiver_count() <= 1) {
            ears.remove(&self.id);
        }
    }
}

/// A panic elsewhere leaves these values whole, so it need not spread.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
