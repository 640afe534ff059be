//! A job: its id, its states and its results.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{DrawnPrompts, Idempotency, Node, Policy, S3Config, Timestamp, TraceParent, Webhook};

/// The id of a job: a UUID, with the prefix `sync-` for a job from runsync.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct JobId(String);

impl JobId {
    /// A new id. UUIDs of version 7 keep rows of the same time close together in the database.
    pub fn new(kind: JobKind) -> Self {
        Self::at(kind, None)
    }

    /// The same at a server that is one of several: the id carries the server's number.
    pub fn at(kind: JobKind, node: Option<Node>) -> Self {
        let uuid = node.map_or_else(Uuid::now_v7, Node::uuid_v7);
        Self(match kind {
            JobKind::Run => uuid.to_string(),
            JobKind::RunSync { .. } | JobKind::Held => format!("sync-{uuid}"),
        })
    }

    /// Reads an id from a URL path, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        let uuid = text.strip_prefix("sync-").unwrap_or(text);
        let canonical = uuid.len() == 36 && Uuid::try_parse(uuid).is_ok();
        canonical.then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Random bits that all attempts at the job know.
    pub fn random(&self) -> u16 {
        let uuid = self.0.strip_prefix("sync-").unwrap_or(&self.0);
        let [.., high, low] = Uuid::try_parse(uuid).unwrap_or_default().into_bytes();
        u16::from_be_bytes([high, low])
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `{endpoint}` in a URL path, such as `stable-diffusion-v1`.
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

/// How a job was submitted. The retention of its results depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    Run,
    /// `waited` says that the client set `?wait=`. Its results are kept longer.
    RunSync {
        waited: bool,
    },
    /// By a request that waits for its end, takes its pictures and then forgets it.
    Held,
}

/// The state of a job.
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

    /// The word for it in the API and the database.
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

/// A job that a client submits.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub endpoint: EndpointId,
    pub kind: JobKind,
    /// The `input` of the request: the JSON text exactly as sent, or in our words where a client has others.
    pub input: String,
    /// The seed of image 0, from the client or random. It is fixed here, so that a second attempt draws the same pictures.
    pub seed: u64,
    pub policy: Policy,
    /// The client's bucket for the pictures, if it names one.
    pub s3_config: Option<S3Config>,
    /// Set if the client may repeat the request.
    pub once: Option<Idempotency>,
    pub webhook: Option<Webhook>,
    /// Set if the client reads an object as `output`: the name of the finish of its pictures.
    pub finish: Option<String>,
    /// What caused it, if somebody traces that.
    pub trace: Option<TraceParent>,
}

impl NewJob {
    /// A `/run` job that asks for nothing special.
    pub fn run(endpoint: EndpointId, input: impl Into<String>, seed: u64) -> Self {
        Self {
            endpoint,
            kind: JobKind::Run,
            input: input.into(),
            seed,
            policy: Policy::default(),
            s3_config: None,
            once: None,
            webhook: None,
            finish: None,
            trace: None,
        }
    }
}

/// A job in the database.
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
    /// The start of the current or last attempt.
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// When row, input and images are deleted.
    pub expires_at: Timestamp,
    /// Why it failed, in one sentence for the client.
    pub error: Option<String>,
    /// The device that ran it: the card's memory in GiB, or `cpu`.
    pub gpu: Option<String>,
    /// Set if its client reads an object as `output`: the name of the finish of its pictures.
    pub finish: Option<String>,
    /// Its pictures, in order; empty unless completed.
    pub images: Vec<ImageRef>,
    /// What its client should know about how it was drawn, a sentence each; empty unless completed.
    pub warnings: Vec<String>,
}

/// A job without its input, for clients that only watch it.
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
    /// What its client should know about how it was drawn, a sentence each; empty unless completed.
    pub warnings: Vec<String>,
}

/// A finished picture, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    pub index: u32,
    pub seed: u64,
    pub place: ImagePlace,
    /// Its prompts, if wildcards drew them.
    pub prompts: Option<DrawnPrompts>,
}

/// Where a finished picture is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePlace {
    Here,
    /// In the client's bucket, at this URL.
    Bucket(String),
    /// Nowhere: the safety checker flagged it.
    Withheld,
}

/// A finished picture that will be stored in the database.
#[derive(Debug, Clone)]
pub struct NewImage {
    pub seed: u64,
    /// The whole PNG file. None if the safety checker flagged the picture.
    pub png: Option<Vec<u8>>,
    /// Its prompts, if wildcards drew them.
    pub prompts: Option<DrawnPrompts>,
}

/// A finished picture in the client's bucket.
#[derive(Debug, Clone)]
pub struct StoredImage {
    pub seed: u64,
    /// The signed URL of the picture. None if the safety checker flagged it.
    pub url: Option<String>,
    /// Its prompts, if wildcards drew them.
    pub prompts: Option<DrawnPrompts>,
}

/// The progress of a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub step: u32,
    pub steps: u32,
    /// The remaining time at the speed so far. None before the first step.
    pub eta: Option<Duration>,
}

/// The progress of a running job, perhaps with a preview.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub progress: Progress,
    /// A new preview of the first picture, as a small PNG file.
    pub preview: Option<Arc<[u8]>>,
}

/// The number of an endpoint's jobs in each state, as `/health` shows them.
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
    fn an_id_reads_back_and_shows_its_kind() {
        for kind in [JobKind::Run, JobKind::RunSync { waited: true }] {
            let id = JobId::new(kind);
            assert_eq!(JobId::parse(id.as_str()), Some(id.clone()));
            assert_eq!(id.as_str().starts_with("sync-"), kind != JobKind::Run);
            let id = JobId::at(kind, Some("258".parse().unwrap()));
            assert_eq!(JobId::parse(id.as_str()), Some(id.clone()));
            assert!(id.as_str().rsplit('-').next().unwrap().starts_with("0102"), "{id}");
        }
    }

    #[test]
    fn only_a_uuid_is_an_id() {
        for text in ["", "sync-", "1", "../../etc/passwd", "{c80ffee4-f315-4e25-a146-0f3d98cf024b}"] {
            assert_eq!(JobId::parse(text), None, "{text}");
        }
    }
}
