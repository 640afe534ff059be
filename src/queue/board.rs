//! What is known of jobs in memory only: who listens to a job, which jobs are running, which are to stop.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::sync::watch;

use super::running::Running;
use crate::domain::{EndpointId, JobId, Progress, Timestamp};

#[derive(Default)]
pub(super) struct Board {
    running: Mutex<HashMap<JobId, Arc<Running>>>,
    listeners: Mutex<HashMap<JobId, Listeners>>,
    /// The ended jobs whose pictures `stream` has given out, with the attempt that drew them, until they expire.
    streamed: Mutex<HashMap<JobId, (u32, Timestamp)>>,
    /// Numbers the steps of all jobs, so that those of a later attempt come after those of an earlier one.
    published: AtomicU64,
    closed: AtomicBool,
}

/// The channels to one job's listeners. There are two, so that those who wait for its end are not woken by its
/// steps.
#[derive(Default)]
struct Listeners {
    state: watch::Sender<()>,
    steps: watch::Sender<()>,
}

/// Receives the events of one job. Dropping it ends that.
pub(super) struct Listener {
    board: Arc<Board>,
    id: JobId,
    state: watch::Receiver<()>,
    steps: Option<watch::Receiver<()>>,
}

/// What a listener is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BoardEvent {
    /// The job's row may have changed, or the server is shutting down.
    StateChanged,
    /// The job has made a step.
    Step,
}

impl Board {
    /// Starts to listen to a job's state. No change from now on is missed, even before `next_event` is called.
    pub(super) fn listen(self: &Arc<Self>, id: &JobId) -> Listener {
        self.listener(id, false)
    }

    /// The same, and to its steps.
    pub(super) fn follow(self: &Arc<Self>, id: &JobId) -> Listener {
        self.listener(id, true)
    }

    fn listener(self: &Arc<Self>, id: &JobId, steps: bool) -> Listener {
        let mut all = locked(&self.listeners);
        let channels = all.entry(id.clone()).or_default();
        Listener {
            board: Arc::clone(self),
            id: id.clone(),
            state: channels.state.subscribe(),
            steps: steps.then(|| channels.steps.subscribe()),
        }
    }

    /// Tells the listeners of a job that it changed.
    pub(super) fn notify(&self, id: &JobId) {
        if let Some(listeners) = locked(&self.listeners).get(id) {
            listeners.state.send_replace(());
        }
    }

    /// Tells all listeners to look again: many jobs changed, or the server is shutting down.
    pub(super) fn notify_all(&self) {
        for listeners in locked(&self.listeners).values() {
            listeners.state.send_replace(());
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// A new attempt at a job begins. Its listeners are told.
    pub(super) fn start(&self, id: &JobId, run: Running) {
        locked(&self.running).insert(id.clone(), Arc::new(run));
        self.notify(id);
    }

    /// How long each of an endpoint's running jobs still takes, if such jobs take `usual`.
    pub(super) fn times_left(
        &self,
        endpoint: &EndpointId,
        usual: Option<Duration>,
        now: Timestamp,
    ) -> Vec<Duration> {
        let running = locked(&self.running);
        let own = running.values().filter(|run| run.endpoint() == endpoint);
        own.map(|run| run.time_left(usual, now)).collect()
    }

    pub(super) fn running(&self, id: &JobId) -> Option<Arc<Running>> {
        locked(&self.running).get(id).map(Arc::clone)
    }

    /// Takes an attempt off the board, unless a later one has taken its place.
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

    /// Publishes a step.
    pub(super) fn publish(
        &self,
        id: &JobId,
        run: &Running,
        progress: Progress,
        preview: Option<Vec<u8>>,
        now: Timestamp,
    ) {
        // Numbered from 1: 0 stands for a reader who has seen nothing.
        let number = self.published.fetch_add(1, Ordering::SeqCst) + 1;
        run.publish(number, progress, preview, now);
        if let Some(listeners) = locked(&self.listeners).get(id) {
            listeners.steps.send_replace(());
        }
    }

    /// Whether anyone listens to a job's steps at this moment.
    pub(super) fn is_followed(&self, id: &JobId) -> bool {
        locked(&self.listeners).get(id).is_some_and(|listeners| listeners.steps.receiver_count() > 0)
    }

    /// Notes that the pictures of this attempt are given out, and says whether it is the first time.
    pub(super) fn streams_first(&self, id: &JobId, attempt: u32, expires_at: Timestamp) -> bool {
        let before = locked(&self.streamed).insert(id.clone(), (attempt, expires_at));
        before.is_none_or(|(earlier, _)| earlier != attempt)
    }

    /// Drops what was noted about expired jobs.
    pub(super) fn forget_expired(&self, now: Timestamp) {
        locked(&self.streamed).retain(|_, (_, expires_at)| *expires_at > now);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        locked(&self.running).is_empty()
            && locked(&self.listeners).is_empty()
            && locked(&self.streamed).is_empty()
    }
}

impl Listener {
    /// The next event since the listening began, or since the last call. A state comes before a step.
    pub(super) async fn next_event(&mut self) -> BoardEvent {
        // The senders live as long as a listener does, so `changed` does not fail.
        let state = pin!(self.state.changed());
        let Some(steps) = &mut self.steps else {
            let _ = state.await;
            return BoardEvent::StateChanged;
        };
        match select(state, pin!(steps.changed())).await {
            Either::Left(_) => BoardEvent::StateChanged,
            Either::Right(_) => BoardEvent::Step,
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut all = locked(&self.board.listeners);
        // This listener is still counted.
        if all.get(&self.id).is_some_and(|listeners| listeners.state.receiver_count() <= 1) {
            all.remove(&self.id);
        }
    }
}

/// Locks a value that a panic elsewhere cannot leave half-changed, so a poisoned lock does no harm.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
