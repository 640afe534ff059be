//! Watching a job while it runs: drained by whoever reads (`stream`), or followed by one listener (`events`).

use std::time::Duration;

use super::board::{Heard, Listener};
use super::{JobQueue, QueueError};
use crate::domain::{EndpointId, Frame, ImageRef, JobId, JobOutline};
use crate::store::Store;

/// What a job has brought since it was drained last.
#[derive(Debug, Clone)]
pub struct Drained {
    pub job: JobOutline,
    pub frame: Option<Frame>,
    /// Its pictures, to the first who asks once it is completed.
    pub images: Vec<ImageRef>,
}

/// Follows one job, seeing all of it, whoever else does.
pub struct Follower {
    queue: JobQueue,
    endpoint: EndpointId,
    id: JobId,
    listener: Listener,
    /// The last state told.
    told: Option<JobOutline>,
    /// The last step told.
    seen: u64,
    /// The row may have changed since it was read.
    is_stale: bool,
}

/// What a follower is told.
#[derive(Debug, Clone)]
pub enum News {
    /// At first, and whenever its state changed. A final state is the last that is told.
    State(JobOutline),
    Step(Frame),
    /// It has been forgotten.
    Gone,
}

impl JobQueue {
    /// What a job has brought since this was called last, by whomever; waits up to `hold` for something. There
    /// is one cursor a job, in memory: after a restart, pictures that were drained before come once more. With
    /// a final state comes all that is left.
    pub async fn drain(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        hold: Duration,
    ) -> Result<Option<Drained>, QueueError> {
        let board = &self.inner.board;
        let deadline = tokio::time::Instant::now() + hold;
        // Before the query, or an end between the two would go unheard.
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
                match tokio::time::timeout_at(deadline, listener.heard()).await {
                    Err(_) => return Ok(Some(Drained { job, frame, images: Vec::new() })),
                    Ok(Heard::State) => break,
                    Ok(Heard::Step) => {}
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
            told: None,
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
    /// What happens next; none after the end, or once the queue is closed. Dropped while it waits, it loses
    /// nothing: the next call goes on.
    pub async fn next(&mut self) -> Result<Option<News>, QueueError> {
        loop {
            if self.told.as_ref().is_some_and(|job| job.status.is_final()) || self.queue.is_closed() {
                return Ok(None);
            }
            if self.is_stale {
                let found = self.queue.outline(&self.endpoint, &self.id).await?;
                self.is_stale = false;
                let Some(job) = found else { return Ok(Some(News::Gone)) };
                let stands = |job: &JobOutline| (job.status, job.attempt);
                if self.told.as_ref().map(stands) != Some(stands(&job)) {
                    self.told = Some(job.clone());
                    return Ok(Some(News::State(job)));
                }
            }
            let run = self.queue.inner.board.running(&self.id);
            if let Some(frame) = run.and_then(|run| run.after(&mut self.seen)) {
                return Ok(Some(News::Step(frame)));
            }
            if self.listener.heard().await == Heard::State {
                self.is_stale = true;
            }
        }
    }
}
