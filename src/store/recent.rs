//! The jobs that were read lately, in memory: clients ask for the state of a job again and again, and it seldom changes.
//!
//! A write that changes or deletes a job drops it here once it is committed and before anybody is told, so that no answer is
//! older than an acknowledged change, and nothing stays here that was deleted from the disk. A new job drops nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::{EndpointId, ImagePlace, Job, JobId, Timestamp};

/// How much memory the jobs of each generation may take.
const GENERATION_BYTES: usize = 8 << 20;
/// A larger job is read from the disk each time.
const LARGEST: usize = 64 * 1024;
/// What a job takes besides its texts, in the map and on the heap.
const FIXED: usize = 1024;

#[derive(Default)]
pub(super) struct RecentJobs(Mutex<Generations>);

/// What was asked for stays for at least as long as it takes to fill a generation: then the older one makes room.
#[derive(Default)]
struct Generations {
    newer: HashMap<JobId, Arc<Job>>,
    older: HashMap<JobId, Arc<Job>>,
    newer_bytes: usize,
    /// Counts the drops.
    drops: u64,
}

/// A look at the disk that began at this moment. A job that it finds is kept only if nothing was dropped meanwhile.
pub(super) struct Look(u64);

impl RecentJobs {
    /// The endpoint's job, if it is here and has not expired.
    pub fn find(&self, endpoint: &EndpointId, id: &JobId, now: Timestamp) -> Option<Arc<Job>> {
        let mut generations = self.generations();
        let job = generations.find(id)?;
        if job.expires_at <= now {
            generations.drop_job(id);
            return None;
        }
        (job.endpoint == *endpoint).then_some(job)
    }

    /// Must be called before the disk is read.
    pub fn look(&self) -> Look {
        Look(self.generations().drops)
    }

    /// Keeps a job that was read from the disk.
    pub fn keep(&self, Look(drops): &Look, job: &Arc<Job>) {
        let bytes = size(job);
        let mut generations = self.generations();
        if bytes <= LARGEST && generations.drops == *drops {
            generations.insert(Arc::clone(job), bytes);
        }
    }

    /// The job has changed, or is gone.
    pub fn drop_job(&self, id: &JobId) {
        self.generations().drop_job(id);
    }

    /// These jobs have changed, or are gone.
    pub fn drop_if(&self, has_changed: impl Fn(&Job) -> bool) {
        let mut generations = self.generations();
        generations.drops += 1;
        let Generations { newer, older, newer_bytes, .. } = &mut *generations;
        older.retain(|_, job| !has_changed(job));
        newer.retain(|_, job| {
            let stays = !has_changed(job);
            *newer_bytes -= if stays { 0 } else { size(job) };
            stays
        });
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn find(&mut self, id: &JobId) -> Option<Arc<Job>> {
        if let Some(job) = self.newer.get(id) {
            return Some(Arc::clone(job));
        }
        let job = self.older.remove(id)?;
        self.insert(Arc::clone(&job), size(&job));
        Some(job)
    }

    fn insert(&mut self, job: Arc<Job>, bytes: usize) {
        if self.newer_bytes + bytes > GENERATION_BYTES {
            self.older = std::mem::take(&mut self.newer);
            self.newer_bytes = 0;
        }
        self.newer_bytes += bytes;
        // Two requests may have read it at once, and one of them a later state.
        if let Some(replaced) = self.newer.insert(job.id.clone(), job) {
            self.newer_bytes -= size(&replaced);
        }
    }

    fn drop_job(&mut self, id: &JobId) {
        self.drops += 1;
        self.older.remove(id);
        if let Some(job) = self.newer.remove(id) {
            self.newer_bytes -= size(&job);
        }
    }
}

/// About how many bytes a job takes.
fn size(job: &Job) -> usize {
    let pictures = job.images.iter().map(|image| {
        let url = if let ImagePlace::Bucket(url) = &image.place { url.len() } else { 0 };
        let prompts = image.prompts.as_ref();
        url + prompts.map_or(0, |prompts| prompts.prompt.len() + prompts.negative_prompt.len()) + 128
    });
    let warnings = job.warnings.iter().map(|warning| warning.len() + 24);
    FIXED
        + job.input.len()
        + job.error.as_ref().map_or(0, String::len)
        + pictures.sum::<usize>()
        + warnings.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{JobKind, JobStatus, Policy};

    const NOW: Timestamp = Timestamp(1_000);

    fn job(input: usize) -> Arc<Job> {
        Arc::new(Job {
            id: JobId::new(JobKind::Run),
            endpoint: EndpointId::default(),
            status: JobStatus::InQueue,
            attempt: 0,
            input: "x".repeat(input),
            seed: 1,
            policy: Policy::default(),
            created_at: NOW,
            started_at: None,
            finished_at: None,
            expires_at: Timestamp(2_000),
            error: None,
            gpu: None,
            finish: None,
            images: Vec::new(),
            warnings: Vec::new(),
        })
    }

    fn kept(recent: &RecentJobs, input: usize) -> Arc<Job> {
        let job = job(input);
        recent.keep(&recent.look(), &job);
        job
    }

    fn is_here(recent: &RecentJobs, job: &Job) -> bool {
        recent.find(&job.endpoint, &job.id, NOW).is_some()
    }

    #[test]
    fn a_job_is_here_for_its_endpoint_until_it_changes_or_expires() {
        let recent = RecentJobs::default();
        let (first, second) = (kept(&recent, 10), kept(&recent, 10));
        assert!(is_here(&recent, &first) && is_here(&recent, &second));
        assert!(recent.find(&EndpointId::new("other"), &first.id, NOW).is_none());
        recent.drop_job(&first.id);
        assert!(!is_here(&recent, &first) && is_here(&recent, &second));
        assert!(recent.find(&second.endpoint, &second.id, second.expires_at).is_none());
        assert!(!is_here(&recent, &second), "it has left the memory, too");
        assert_eq!(recent.generations().newer_bytes, 0);
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let recent = RecentJobs::default();
        let (look, job) = (recent.look(), job(10));
        recent.drop_job(&job.id);
        recent.keep(&look, &job);
        assert!(!is_here(&recent, &job));
        recent.keep(&recent.look(), &job);
        let look = recent.look();
        recent.drop_if(|_| true);
        assert!(!is_here(&recent, &job));
        recent.keep(&look, &job);
        assert!(!is_here(&recent, &job));
    }

    #[test]
    fn memory_is_bounded_and_what_is_asked_for_stays() {
        let recent = RecentJobs::default();
        let wanted = kept(&recent, 10);
        for _ in 0..500 {
            kept(&recent, 50_000);
            assert!(is_here(&recent, &wanted));
        }
        let (newer, older) = {
            let generations = recent.generations();
            let bytes = |jobs: &HashMap<JobId, Arc<Job>>| jobs.values().map(|job| size(job)).sum::<usize>();
            assert_eq!(generations.newer_bytes, bytes(&generations.newer));
            (bytes(&generations.newer), bytes(&generations.older))
        };
        assert!(newer <= GENERATION_BYTES && older <= GENERATION_BYTES && newer + older > 0);
        recent.drop_if(|job| job.input.len() > 10);
        let left = {
            let generations = recent.generations();
            generations.newer.len() + generations.older.len()
        };
        assert_eq!(left, 1);
        assert!(!is_here(&recent, &kept(&recent, LARGEST)), "it is too large");
    }
}
