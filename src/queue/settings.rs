//! The queue's settings.

use std::time::Duration;

use crate::domain::{JobKind, Node};
use crate::store::QueueLimit;

/// How long the job of a request that holds it is kept after its end, if a crash keeps the request from deleting it. A slow
/// client has this time to take its pictures.
const HELD: Duration = Duration::from_mins(30);

/// What an operator can set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// How long a `/run` job is kept after its end.
    pub retention: Duration,
    /// The same for `/runsync`.
    pub sync_retention: Duration,
    /// The same for `/runsync?wait=`.
    pub sync_waited_retention: Duration,
    /// How often the process may crash while it works on a job, before the job fails.
    pub max_attempts: u32,
    /// How many jobs of one endpoint may be queued.
    pub queue_limit: u64,
    /// How many bytes the inputs of an endpoint's queued jobs may take.
    pub queue_bytes: u64,
    /// Which of several servers this is. The ids of new jobs say it.
    pub node: Option<Node>,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            retention: Duration::from_mins(30),
            sync_retention: Duration::from_mins(1),
            sync_waited_retention: Duration::from_mins(5),
            max_attempts: 3,
            queue_limit: 10_000,
            queue_bytes: 4 << 30,
            node: None,
        }
    }
}

impl QueueSettings {
    /// How much may be queued at each endpoint.
    pub(super) fn limit(&self) -> QueueLimit {
        QueueLimit { jobs: self.queue_limit, bytes: self.queue_bytes }
    }

    pub(super) fn retention_for(&self, kind: JobKind) -> Duration {
        match kind {
            JobKind::Run => self.retention,
            JobKind::RunSync { waited: false } => self.sync_retention,
            JobKind::RunSync { waited: true } => self.sync_waited_retention,
            JobKind::Held => HELD,
        }
    }
}
