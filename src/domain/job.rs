//! A job: its name, its states and what becomes of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{Idempotency, Policy, S3Config, Timestamp, Webhook};

/// A job's public name: a UUID, behind `sync-` where it came through runsync.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct JobId(String);

impl JobId {
    /// A new name, never given before. Version 7, so that rows made together lie together.
    pub fn new(kind: JobKind) -> Self {
        let uuid = Uuid::now_v7();
        Self(match kind {
            JobKind::Run => uuid.to_string(),
            JobKind::RunSync { .. } => format!("sync-{uuid}"),
        })
    }

    /// What a client wrote in a path, if it can be a job's name at all.
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = text.strip_prefix("sync-").unwrap_or(text);
        let canonical = uuid.len() == 36 && Uuid::try_parse(uuid).is_ok();
        canonical.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `{endpoint}` of a path, such as `stable-diffusion-v1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct EndpointId(String);

impl EndpointId {
    pub const DEFAULT: &str = "stable-diffusion-v1";

    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EndpointId {
    fn default() -> Self {
        Self::new(Self::DEFAULT)
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a job came in; its results live accordingly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    Run,
    /// `waited`: the client said how long it waits (`?wait=`), and its results live longer.
    RunSync {
        waited: bool,
    },
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStatus {
    InQueue,
    InProgress,
    Completed,
    Failed,
    Cancelled,
    TimedOut,
}

impl JobStatus {
    pub const ALL: [JobStatus; 6] =
        [Self::InQueue, Self::InProgress, Self::Completed, Self::Failed, Self::Cancelled, Self::TimedOut];

    /// The wire's and the database's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InQueue => "IN_QUEUE",
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::TimedOut => "TIMED_OUT",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }

    pub fn is_final(self) -> bool {
        !matches!(self, Self::InQueue | Self::InProgress)
    }

    /// The transition table: claim, release, the four ends, and retry.
    pub fn can_become(self, next: JobStatus) -> bool {
        match self {
            Self::InQueue => matches!(next, Self::InProgress | Self::Cancelled),
            Self::InProgress => next != Self::InProgress,
            Self::Failed | Self::TimedOut => next == Self::InQueue,
            Self::Completed | Self::Cancelled => false,
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for JobStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a client submits.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub endpoint: EndpointId,
    pub kind: JobKind,
    /// The request's `input`, as JSON text exactly as sent.
    pub input: String,
    /// The seed of image 0, the client's or drawn once for it, so that a second attempt draws the
    /// same pictures.
    pub seed: u64,
    pub policy: Policy,
    /// Where the pictures go, if not here.
    pub s3_config: Option<S3Config>,
    /// Where the client may repeat the request.
    pub once: Option<Idempotency>,
    pub webhook: Option<Webhook>,
}

/// A job as it stands in the database.
#[derive(Debug, Clone)]
pub struct Job {
    pub id: JobId,
    pub endpoint: EndpointId,
    pub status: JobStatus,
    /// How often it was claimed.
    pub attempt: u32,
    pub input: String,
    pub seed: u64,
    pub policy: Policy,
    pub created_at: Timestamp,
    /// Of the current attempt, or of the last one once it ended.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// When row, input and images are forgotten.
    pub expires_at: Timestamp,
    /// Why it failed, in one sentence for the client.
    pub error: Option<String>,
    /// The device that worked on it: its memory in GiB, or `cpu`.
    pub gpu: Option<String>,
    /// Its pictures, in order; empty unless completed.
    pub images: Vec<ImageRef>,
}

/// A job without what it was asked for: all that those need who only watch it.
#[derive(Debug, Clone)]
pub struct JobOutline {
    pub id: JobId,
    pub endpoint: EndpointId,
    pub status: JobStatus,
    pub attempt: u32,
    pub expires_at: Timestamp,
    pub error: Option<String>,
    /// Its pictures, in order; empty unless completed.
    pub images: Vec<ImageRef>,
}

/// One finished picture without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    pub index: u32,
    pub seed: u64,
    pub place: ImagePlace,
}

/// Where a finished picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePlace {
    Here,
    /// In the client's bucket, where this URL opens it.
    Bucket(String),
    /// Nowhere: the safety checker flagged it.
    Withheld,
}

/// One finished picture on its way into the database.
#[derive(Debug, Clone)]
pub struct NewImage {
    pub seed: u64,
    /// The whole PNG file; none where the safety checker flagged the picture.
    pub png: Option<Vec<u8>>,
}

/// One finished picture that lies in the client's bucket.
#[derive(Debug, Clone)]
pub struct StoredImage {
    pub seed: u64,
    /// Opens it to whoever has this; none where the safety checker flagged the picture.
    pub url: Option<String>,
}

/// How far a running job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub step: u32,
    pub steps: u32,
    /// What is left at the pace so far; nothing before the first step.
    pub eta: Option<Duration>,
}

/// A moment of a running job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub progress: Progress,
    /// How its first picture looks so far: a small PNG file, where there is a new one.
    pub preview: Option<Arc<[u8]>>,
}

/// An endpoint's jobs by state, as `/health` shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounts {
    pub completed: u64,
    pub failed: u64,
    pub in_progress: u64,
    pub in_queue: u64,
    pub retried: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_says_how_it_came() {
        for kind in [JobKind::Run, JobKind::RunSync { waited: true }] {
            let id = JobId::new(kind);
            assert_eq!(JobId::parse(id.as_str()), Some(id.clone()));
            assert_eq!(id.as_str().starts_with("sync-"), kind != JobKind::Run);
        }
    }

    #[test]
    fn what_is_no_uuid_is_no_id() {
        for text in ["", "sync-", "1", "../../etc/passwd", "{c80ffee4-f315-4e25-a146-0f3d98cf024b}"] {
            assert_eq!(JobId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn final_states_are_left_only_by_retry() {
        for from in JobStatus::ALL.into_iter().filter(|status| status.is_final()) {
            for to in JobStatus::ALL {
                let retry =
                    matches!(from, JobStatus::Failed | JobStatus::TimedOut) && to == JobStatus::InQueue;
                assert_eq!(from.can_become(to), retry, "{from} -> {to}");
            }
        }
    }
}
