//! Whether the server would take a job now, how long the job would wait, and whether the workers make progress.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::board::locked;
use super::{Inner, JobQueue, QueueError};
use crate::domain::EndpointId;
use crate::store::Store;

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

/// Whether the disk has room for another job. Only looked at now and then, by one at a time: a disk that hangs must not hold
/// up all who ask whether the server is ready.
#[derive(Default)]
pub(super) struct Disk(Mutex<Option<Look>>);

#[derive(Clone, Copy)]
struct Look {
    /// When it began.
    at: Instant,
    has_room: bool,
}

/// How old a look at the disk may be.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl JobQueue {
    /// About how long a job would wait that is submitted now, to whichever of these endpoints it waits longest at. None: one
    /// of them would not take it, nobody is there yet to draw it, or new jobs are to go elsewhere.
    pub async fn expected_wait(&self, endpoints: &[&EndpointId]) -> Result<Option<Duration>, QueueError> {
        if self.is_draining() || !self.disk_has_room().await? {
            return Ok(None);
        }
        let waits: Result<Option<Vec<_>>, _> = endpoints.iter().map(|name| self.wait_at(name)).collect();
        Ok(waits?.map(|waits| waits.into_iter().max().unwrap_or_default()))
    }

    /// The same for one endpoint, if the disk has room. Reads memory only.
    fn wait_at(&self, endpoint: &EndpointId) -> Result<Option<Duration>, QueueError> {
        let Inner { store, settings, board, workers, .. } = &*self.inner;
        let (now, workers) = (self.now(), workers.get(endpoint));
        let numbers = store.numbers(endpoint)?;
        if !workers.states.can_draw() || !numbers.has_room(settings.limit()) {
            return Ok(None);
        }
        let usual = workers.pace.usual();
        let mut free_in = board.times_left(endpoint, usual, now);
        free_in.extend((0..workers.states.counts().idle).map(|_| Duration::ZERO));
        let waited = numbers.oldest_queued.map_or(Duration::ZERO, |since| now.since(since));
        Ok(Some(wait(numbers.jobs.in_queue, free_in, usual, waited)))
    }

    async fn disk_has_room(&self) -> Result<bool, QueueError> {
        {
            let mut disk = locked(&self.inner.disk.0);
            if let Some(latest) = &mut *disk {
                if latest.at.elapsed() < LOOK_AGAIN {
                    return Ok(latest.has_room);
                }
                // Others get the last answer meanwhile.
                latest.at = Instant::now();
            }
        }
        let has_room = match self.reading(Store::has_room).await {
            Ok(()) => true,
            Err(QueueError::Unavailable(_)) => false,
            Err(error) => return Err(error),
        };
        *locked(&self.inner.disk.0) = Some(Look { at: Instant::now(), has_room });
        Ok(has_room)
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

/// How long one more job would wait behind `queued` others. `free_in`: when each place to draw is free. Each job takes
/// `usual`. The oldest job has `waited` so long already, so the next one is not expected sooner.
fn wait(queued: u64, mut free_in: Vec<Duration>, usual: Option<Duration>, waited: Duration) -> Duration {
    // Workers that load their model have no place yet; then one is expected.
    if free_in.is_empty() {
        free_in.push(Duration::ZERO);
    }
    free_in.sort_unstable();
    let places = free_in.len() as u64;
    let first = free_in[usize::try_from(queued % places).unwrap_or_default()];
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let rounds = ((queued / places) as f64).min(1e9);
    (first + usual.unwrap_or_default().mul_f64(rounds)).max(waited)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn a_job_waits_for_those_before_it() {
        let usual = Some(S(10));
        assert_eq!(wait(0, vec![S(0)], usual, S(0)), S(0));
        assert_eq!(wait(0, vec![S(7), S(0)], usual, S(0)), S(0), "another worker is free");
        assert_eq!(wait(0, vec![S(7)], usual, S(0)), S(7));
        assert_eq!(wait(3, vec![S(7)], usual, S(5)), S(37));
        assert_eq!(wait(3, vec![S(9), S(1), S(8), S(2)], usual, S(5)), S(9), "four are drawn together");
        assert_eq!(wait(6, vec![S(9), S(1), S(8), S(2)], usual, S(5)), S(18));
        assert_eq!(wait(3, vec![S(7)], usual, S(90)), S(90));
        assert_eq!(wait(3, vec![S(0)], None, S(7)), S(7), "no job has ended yet");
        assert_eq!(wait(0, vec![], usual, S(0)), S(0));
        assert_eq!(wait(2, vec![], usual, S(0)), S(20), "the model is being loaded");
        assert_eq!(wait(u64::MAX, vec![S(0)], Some(S(1)), S(0)), S(1_000_000_000));
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
