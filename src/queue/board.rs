//! What is known of jobs in memory only: who waits for one, how far one is, which are to stop.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::{JobId, Progress};

#[derive(Default)]
pub(super) struct Board {
    running: Mutex<HashMap<JobId, Arc<Running>>>,
    waiters: Mutex<HashMap<JobId, watch::Sender<()>>>,
    closed: AtomicBool,
}

/// A job in the hands of a worker.
#[derive(Debug, Default)]
pub(super) struct Running {
    progress: Mutex<Option<Progress>>,
    cancelled: AtomicBool,
}

/// Hears of changes of one job for as long as it lives.
pub(super) struct Listener<'a> {
    board: &'a Board,
    id: JobId,
    receiver: watch::Receiver<()>,
}

impl Board {
    /// Starts to listen. What changes afterwards is heard, even before `changed` is called.
    pub(super) fn listen(&self, id: &JobId) -> Listener<'_> {
        let mut waiters = locked(&self.waiters);
        let sender = waiters.entry(id.clone()).or_insert_with(|| watch::channel(()).0);
        Listener { board: self, id: id.clone(), receiver: sender.subscribe() }
    }

    /// Tells those who wait for a job that it changed.
    pub(super) fn notify(&self, id: &JobId) {
        if let Some(sender) = locked(&self.waiters).get(id) {
            sender.send_replace(());
        }
    }

    /// Tells everybody to look again: many jobs changed, or the server is going down.
    pub(super) fn notify_all(&self) {
        for sender in locked(&self.waiters).values() {
            sender.send_replace(());
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// A new run of a job begins; its waiters hear of it.
    pub(super) fn start(&self, id: &JobId) {
        locked(&self.running).insert(id.clone(), Arc::default());
        self.notify(id);
    }

    pub(super) fn running(&self, id: &JobId) -> Arc<Running> {
        locked(&self.running).get(id).map(Arc::clone).unwrap_or_default()
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
        locked(&self.running).get(id).and_then(|running| *locked(&running.progress))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        locked(&self.running).is_empty() && locked(&self.waiters).is_empty()
    }
}

impl Running {
    pub(super) fn publish(&self, progress: Progress) {
        *locked(&self.progress) = Some(progress);
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

impl Listener<'_> {
    /// Returns once something changed since `listen` or the last `changed`.
    pub(super) async fn changed(&mut self) {
        // The sender lives as long as a listener does.
        let _ = self.receiver.changed().await;
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut waiters = locked(&self.board.waiters);
        // This one is still counted.
        if waiters.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiters.remove(&self.id);
        }
    }
}

/// A panic elsewhere leaves these maps whole, so it need not spread.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
