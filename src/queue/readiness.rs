//! Whether the server would take a job now, how long the job would wait, and whether the workers make progress.

use std::sync::Mutex;
use std::time::Duration;

use super::board::locked;
use super::{JobQueue, QueueError};
use crate::domain::{EndpointId, JobCounts};

/// How much of the usual time the latest job makes up.
const NEWEST_SHARE: f64 = 0.2;

/// How long an endpoint's jobs take from their claim to their end, of late. Nothing is known before the first has ended.
#[derive(Default)]
pub(super) struct Pace(Mutex<Option<Duration>>);

impl Pace {
    pub(super) fn note(&self, took: Duration) {
        let mut usual = locked(&self.0);
        *usual = Some(match *usual {
            None => took,
            Some(before) => before.mul_f64(1.0 - NEWEST_SHARE) + took.mul_f64(NEWEST_SHARE),
        });
    }

    fn usual(&self) -> Option<Duration> {
        *locked(&self.0)
    }
}

impl JobQueue {
    /// About how long a job would wait that is submitted now, to whichever of these endpoints it waits longest at. None: one
    /// of them would not take it, nobody is there yet to draw it, or new jobs are to go elsewhere.
    pub async fn expected_wait(&self, endpoints: &[&EndpointId]) -> Result<Option<Duration>, QueueError> {
        if self.is_draining() {
            return Ok(None);
        }
        let now = self.now();
        let load = match self.reading(move |store| store.has_room().and_then(|()| store.load(now))).await {
            Ok(load) => load,
            Err(QueueError::Unavailable(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut longest = Duration::ZERO;
        for endpoint in endpoints {
            let workers = self.inner.workers.get(endpoint);
            let jobs = self.counts(endpoint).await?;
            if !workers.states.have_been_ready() || jobs.in_queue >= self.inner.settings.queue_limit {
                return Ok(None);
            }
            let is_free = workers.states.counts().idle > 0;
            let oldest = load.oldest_queued.iter().find(|(name, _)| name == endpoint.as_str());
            let waited = oldest.map_or(Duration::ZERO, |(_, waited)| *waited);
            longest = longest.max(wait(&jobs, is_free, workers.pace.usual(), waited));
        }
        Ok(Some(longest))
    }

    /// Whether each of these endpoints has a worker that has been able to work.
    pub fn have_been_ready(&self, endpoints: &[EndpointId]) -> bool {
        endpoints.iter().all(|endpoint| self.inner.workers.get(endpoint).states.have_been_ready())
    }

    /// Whether no worker has been at one turn with its jobs for so long that it must be stuck.
    pub fn makes_progress(&self) -> bool {
        self.inner.workers.make_progress()
    }
}

/// How long one more job would wait. As many jobs as are in progress are drawn side by side; each takes `usual`. The oldest
/// job has `waited` so long already, so the next one is not expected sooner.
fn wait(jobs: &JobCounts, is_free: bool, usual: Option<Duration>, waited: Duration) -> Duration {
    if jobs.in_queue == 0 && (is_free || jobs.in_progress == 0) {
        return Duration::ZERO;
    }
    let side_by_side = jobs.in_progress.max(1);
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let rounds = (jobs.in_queue + 1) as f64 / side_by_side as f64;
    usual.map_or(waited, |usual| usual.mul_f64(rounds.min(1e9)).max(waited))
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn jobs(in_queue: u64, in_progress: u64) -> JobCounts {
        JobCounts { in_progress, in_queue, ..JobCounts::default() }
    }

    #[test]
    fn a_job_waits_for_those_before_it() {
        assert_eq!(wait(&jobs(0, 0), true, Some(S(10)), S(0)), S(0));
        assert_eq!(wait(&jobs(0, 1), true, Some(S(10)), S(0)), S(0), "another worker is free");
        assert_eq!(wait(&jobs(0, 1), false, Some(S(10)), S(0)), S(10));
        assert_eq!(wait(&jobs(3, 1), false, Some(S(10)), S(5)), S(40));
        assert_eq!(wait(&jobs(3, 4), false, Some(S(10)), S(5)), S(10), "four are drawn together");
        assert_eq!(wait(&jobs(3, 1), false, Some(S(10)), S(90)), S(90));
        assert_eq!(wait(&jobs(3, 1), false, None, S(7)), S(7), "no job has ended yet");
        assert_eq!(wait(&jobs(u64::MAX - 1, 0), false, Some(S(1)), S(0)), S(1_000_000_000));
    }

    #[test]
    fn the_pace_follows_the_latest_jobs() {
        let pace = Pace::default();
        assert_eq!(pace.usual(), None);
        pace.note(S(10));
        assert_eq!(pace.usual(), Some(S(10)));
        pace.note(S(20));
        assert_eq!(pace.usual(), Some(S(12)));
    }
}
