//! Goes on with the jobs whose errands are over.

use super::Worker;
use super::errands::{Errand, INTERRUPTED};
use crate::engine::Model;
use crate::queue::ClaimedJob;

/// What became of an errand since the last look.
enum Collected<T> {
    /// It is over, and the job can go on.
    Done(ClaimedJob, T),
    StillAway(Errand<T>),
    /// Its job has ended.
    Ended,
}

impl<M: Model> Worker<M> {
    /// Lines up the jobs whose input pictures have come, completes those whose pictures are uploaded, and ends those
    /// that may not go on.
    pub(super) fn collect_errands(&mut self) {
        for errand in std::mem::take(&mut self.errands.fetching) {
            match self.collect(errand) {
                Collected::Done(job, input) => self.waiting.push(job, input),
                Collected::StillAway(errand) => self.errands.fetching.push(errand),
                Collected::Ended => {}
            }
        }
        for errand in std::mem::take(&mut self.errands.storing) {
            match self.collect(errand) {
                Collected::Done(job, images) => self.write(job.complete_stored(images)),
                Collected::StillAway(errand) => self.errands.storing.push(errand),
                Collected::Ended => {}
            }
        }
    }

    fn collect<T>(&mut self, errand: Errand<T>) -> Collected<T> {
        let job = &errand.job;
        if let Some(reason) = job.stop_requested() {
            tracing::info!(job = %job.id(), attempt = job.attempt(), ?reason, "stopped on an errand");
            errand.job.abandon();
            return Collected::Ended;
        }
        let outcome = errand.call.outcome();
        match outcome.map(|outcome| outcome.unwrap_or_else(|_| Err(INTERRUPTED.to_owned()))) {
            Some(Ok(done)) => return Collected::Done(errand.job, done),
            Some(Err(error)) => self.write(errand.job.fail(error)),
            None if job.is_overdue() => self.write(errand.job.time_out()),
            None => return Collected::StillAway(errand),
        }
        Collected::Ended
    }
}
