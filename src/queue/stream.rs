//! Watching a job while it runs. `drain` gives each step to one of its callers (`/stream`); a `Follower` gives all steps
//! to one client (`/events`).

use std::time::Duration;

use super::board::{BoardEvent, Listener};
use super::{JobQueue, QueueError};
use crate::domain::{EndpointId, Frame, ImageRef, JobId, JobOutline};
use crate::store::Store;

/// What a job has produced since the last drain.
#[derive(Debug, Clone)]
pub struct Drained {
    pub job: JobOutline,
    pub frame: Option<Frame>,
    /// Its pictures, for the first caller after it is completed.
    pub images: Vec<ImageRef>,
}

/// Follows one job and sees everything, no matter who else watches it.
pub struct Follower {
    queue: JobQueue,
    endpoint: EndpointId,
    id: JobId,
    listener: Listener,
    /// The last state that was reported.
    reported: Option<JobOutline>,
    /// The number of the last step that was reported.
    seen: u64,
    /// The row may have changed since it was last read.
    is_stale: bool,
}

/// What a follower reports.
#[derive(Debug, Clone)]
pub enum News {
    /// Comes first, and whenever the state changed. Nothing comes after a final state.
    State(JobOutline),
    Step(Frame),
    /// The job has expired.
    Gone,
}

impl JobQueue {
    /// What a job has produced since the last call by anyone. Waits up to `hold` if there is nothing. Each job has one
    /// cursor, in memory: after a restart, pictures that were drained before come once more. With a final state comes
    /// everything that is left.
    pub async fn drain(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        hold: Duration,
    ) -> Result<Option<Drained>, QueueError> {
        let board = &self.inner.board;
        let deadline = tokio::time::Instant::now() + hold;
        // Before the query, or an end between the two would be missed.
        let mut listener = board.follow(id);
        loop {
            let Some(job) = self.outline(endpoint, id).await? else { return Ok(None) };
            loop {
                let frame = board.running(id).and_then(|run| run.drain(self.now()));
                if job.status.is_final() {
                    let mut images = job.images.clone();
                    if !images.is_empty() && !board.streams_first(id, job.attempt, job.expires_at) {
                        images.clear();
                    }
                    return Ok(Some(Drained { job, frame: None, images }));
                }
                if frame.is_some() || board.is_closed() {
                    return Ok(Some(Drained { job, frame, images: Vec::new() }));
                }
                match tokio::time::timeout_at(deadline, listener.next_event()).await {
                    Err(_) => return Ok(Some(Drained { job, frame, images: Vec::new() })),
                    Ok(BoardEvent::StateChanged) => break,
                    Ok(BoardEvent::Step) => {}
                }
            }
        }
    }

    /// Starts to follow a job.
    pub fn follow(&self, endpoint: &EndpointId, id: &JobId) -> Follower {
        Follower {
            queue: self.clone(),
            endpoint: endpoint.clone(),
            id: id.clone(),
            listener: self.inner.board.follow(id),
            reported: None,
            seen: 0,
            is_stale: true,
        }
    }

    /// The job without its input.
    pub async fn outline(&self, endpoint: &EndpointId, id: &JobId) -> Result<Option<JobOutline>, QueueError> {
        let (endpoint, id, now) = (endpoint.clone(), id.clone(), self.now());
        self.reading(move |store: &Store| store.outline(&endpoint, &id, now)).await
    }
}

impl Follower {
    /// What happens next; none after the end, or once the queue is closed. If the returned future is dropped while it
    /// waits, nothing is lost.
    pub async fn next(&mut self) -> Result<Option<News>, QueueError> {
        loop {
            if self.reported.as_ref().is_some_and(|job| job.status.is_final()) || self.queue.is_closed() {
                return Ok(None);
            }
            if self.is_stale {
                let found = self.queue.outline(&self.endpoint, &self.id).await?;
                self.is_stale = false;
                let Some(job) = found else { return Ok(Some(News::Gone)) };
                let state = |job: &JobOutline| (job.status, job.attempt);
                if self.reported.as_ref().map(state) != Some(state(&job)) {
                    self.reported = Some(job.clone());
                    return Ok(Some(News::State(job)));
                }
            }
            let run = self.queue.inner.board.running(&self.id);
            if let Some(frame) = run.and_then(|run| run.after(&mut self.seen)) {
                return Ok(Some(News::Step(frame)));
            }
            if self.listener.next_event().await == BoardEvent::StateChanged {
                self.is_stale = true;
            }
        }
    }
}
