//! What becomes of jobs whose errands are over, and of those that may not be waited for.

use super::errand::Errand;
use super::{Model, Worker};
use crate::queue::ClaimedJob;

/// What was heard of an errand.
enum Heard<T> {
    Done(ClaimedJob, T),
    StillAway(Errand<T>),
    /// Its job came to an end.
    Ended,
}

impl<M: Model> Worker<M> {
    /// Goes on with the jobs whose errands are over, and ends those that may not go on.
    pub(super) fn receive(&mut self) {
        for errand in std::mem::take(&mut self.fetching) {
            match self.hear(errand) {
                Heard::Done(job, input) => self.begin(job, &input),
                Heard::StillAway(errand) => self.fetching.push(errand),
                Heard::Ended => {}
            }
        }
        for errand in std::mem::take(&mut self.storing) {
            match self.hear(errand) {
                Heard::Done(job, images) => self.write(job.complete_stored(images)),
                Heard::StillAway(errand) => self.storing.push(errand),
                Heard::Ended => {}
            }
        }
    }

    fn hear<T>(&mut self, errand: Errand<T>) -> Heard<T> {
        let job = &errand.job;
        if let Some(reason) = job.stop_requested() {
            tracing::info!(job = %job.id(), attempt = job.attempt(), ?reason, "stopped on an errand");
            errand.job.abandon();
            return Heard::Ended;
        }
        match errand.outcome() {
            Some(Ok(done)) => return Heard::Done(errand.job, done),
            Some(Err(error)) => self.write(errand.job.fail(error)),
            None if job.is_overdue() => self.write(errand.job.time_out()),
            None => return Heard::StillAway(errand),
        }
        Heard::Ended
    }

    pub(super) fn release_fetching(&mut self) {
        for errand in std::mem::take(&mut self.fetching) {
            self.write(errand.job.release());
        }
    }
}
