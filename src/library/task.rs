//! Tasks: a pull or a check, one at a time, each on its own thread.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use serde::Serialize;
use uuid::Uuid;

use super::{Kind, LibraryError};
use crate::domain::Node;

/// A task as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Task {
    pub id: String,
    pub work: Work,
    pub kind: Kind,
    /// What it works on. Of a URL, only the host until the file is known: the rest may be secret.
    pub name: String,
    pub status: Status,
    /// The bytes that are here. The number can go back when a download starts over.
    pub bytes: u64,
    /// All bytes, if they are known.
    pub total: Option<u64>,
    /// The last word on how it goes.
    pub note: Option<String>,
    /// What a check has found.
    pub report: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    Pull,
    Check,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    InProgress,
    /// It was asked to end and has not yet.
    Cancelling,
    Completed,
    Failed,
    Cancelled,
}

/// How a task ends.
pub enum Outcome {
    /// With a sentence for whoever asked.
    Done(String),
    /// With what a check has found: whether the model draws, and the report.
    Checked(bool, String),
    Failed(String),
    Cancelled,
}

/// All tasks of which the library knows. Clones share them.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<VecDeque<Task>>>);

/// A running task, in the hands of its thread.
pub struct Handle {
    tasks: Tasks,
    id: String,
}

/// How many tasks are remembered.
const REMEMBERED: usize = 20;

impl Status {
    pub const ALL: [Self; 5] =
        [Self::InProgress, Self::Cancelling, Self::Completed, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Cancelling => "CANCELLING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }

    fn is_running(self) -> bool {
        matches!(self, Self::InProgress | Self::Cancelling)
    }
}

impl Task {
    pub fn new(work: Work, kind: Kind, name: String) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            work,
            kind,
            name,
            status: Status::InProgress,
            bytes: 0,
            total: None,
            note: None,
            report: None,
            error: None,
        }
    }

    /// The same at a server that is one of several: the id carries the server's number.
    #[must_use]
    pub fn at(mut self, node: Option<Node>) -> Self {
        if let Some(node) = node {
            self.id = node.mark(Uuid::new_v4()).to_string();
        }
        self
    }
}

impl Tasks {
    /// Starts a task, unless another one runs.
    pub fn begin(
        &self,
        task: Task,
        work: impl FnOnce(&Handle) -> Outcome + Send + 'static,
    ) -> Result<Task, LibraryError> {
        let handle = Handle { tasks: self.clone(), id: task.id.clone() };
        {
            let mut tasks = self.lock();
            if let Some(running) = tasks.iter().find(|task| task.status.is_running()) {
                return Err(LibraryError::Busy { name: running.name.clone() });
            }
            tasks.push_back(task.clone());
            let surplus = tasks.len().saturating_sub(REMEMBERED);
            tasks.drain(..surplus);
        }
        let thread = thread::Builder::new().name(format!("{:?}", task.work).to_lowercase());
        let failed = Handle { tasks: self.clone(), id: task.id.clone() };
        let run = move || {
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&handle))).unwrap_or_else(|_| {
                tracing::error!("a task of the library panicked");
                Outcome::Failed("Internal server error: the server's log has the details.".to_owned())
            });
            handle.end(outcome);
        };
        if let Err(error) = thread.spawn(run) {
            tracing::error!(%error, "no thread for a task of the library");
            failed.end(Outcome::Failed("The server has no thread for this now.".to_owned()));
        }
        Ok(self.find(&task.id).unwrap_or(task))
    }

    pub fn find(&self, id: &str) -> Option<Task> {
        self.lock().iter().find(|task| task.id == id).cloned()
    }

    pub fn last(&self) -> Option<Task> {
        self.lock().back().cloned()
    }

    pub fn running(&self) -> Option<Task> {
        self.lock().iter().find(|task| task.status.is_running()).cloned()
    }

    pub fn cancel(&self, id: &str) -> Option<Task> {
        let mut tasks = self.lock();
        let task = tasks.iter_mut().find(|task| task.id == id)?;
        if task.status == Status::InProgress {
            task.status = Status::Cancelling;
        }
        Some(task.clone())
    }

    pub fn cancel_all(&self) {
        for task in self.lock().iter_mut().filter(|task| task.status == Status::InProgress) {
            task.status = Status::Cancelling;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    pub fn is_cancelled(&self) -> bool {
        self.tasks.find(&self.id).is_none_or(|task| task.status == Status::Cancelling)
    }

    pub fn update(&self, change: impl FnOnce(&mut Task)) {
        if let Some(task) = self.tasks.lock().iter_mut().find(|task| task.id == self.id) {
            change(task);
        }
    }

    fn end(&self, outcome: Outcome) {
        self.update(|task| match outcome {
            Outcome::Done(sentence) => {
                task.status = Status::Completed;
                task.note = Some(sentence);
            }
            Outcome::Checked(draws, report) => {
                task.status = if draws { Status::Completed } else { Status::Failed };
                task.error = (!draws).then(|| format!("{} does not draw.", task.name));
                task.report = Some(report);
            }
            Outcome::Failed(sentence) => {
                task.status = Status::Failed;
                task.error = Some(sentence);
            }
            Outcome::Cancelled => task.status = Status::Cancelled,
        });
    }
}
