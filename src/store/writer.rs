//! The one writer: a thread that owns the write connection and commits writes in groups.
//!
//! A commit that survives a crash needs an fsync. While one is under way, further writes collect in the channel. The next
//! transaction takes all of them and what comes while it works, each in a savepoint of its own, and answers them only after its
//! COMMIT has returned. So there is one fsync for each group and not for each write, and nobody is told of anything that is
//! not on the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::{mem, thread};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::checkpointer::Nudge;
use super::{StoreError, tally};

/// The most writes in one transaction, so that the first of them does not wait for too long.
const GROUP: usize = 512;

/// The sending side of the writer's thread.
pub(super) struct Writer {
    sender: Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    /// Within the group's transaction.
    Grouped(Box<dyn Task>),
    /// Outside any transaction, as a checkpoint requires.
    Alone(Box<dyn Task>),
    Stop,
}

/// Work for the write connection. It is answered once its outcome is certain.
trait Task: Send {
    fn run(&mut self, db: &Connection) -> Result<(), StoreError>;
    /// Once the outcome is certain, and before anybody of the group is answered.
    fn conclude(&mut self, committed: Result<(), &StoreError>);
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// A write that has not been sent yet: `.await` it, `wait` for it on a thread, or `send_off`.
#[must_use = "a write does nothing until it is awaited, waited for or sent off"]
pub struct Write<'a, T> {
    writer: &'a Writer,
    alone: bool,
    work: Work<T>,
    after: Option<After<T>>,
}

type After<T> = Box<dyn FnOnce(&T) + Send>;
type Work<T> = Box<dyn FnOnce(&Connection) -> Result<T, StoreError> + Send>;
type Reply<T> = Box<dyn FnOnce(Result<T, StoreError>) + Send>;

struct Job<T> {
    work: Option<Work<T>>,
    outcome: Option<Result<T, StoreError>>,
    after: Option<After<T>>,
    reply: Reply<T>,
}

impl Writer {
    /// After every commit it shows the numbers on the board and calls `nudge`.
    pub(super) fn start(
        db: Connection,
        nudge: Option<Nudge>,
        board: Arc<tally::Board>,
    ) -> Result<Self, StoreError> {
        let (sender, receiver) = channel();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || run(&db, &receiver, nudge.as_ref(), &board))
            .map_err(|_| StoreError::Internal)?;
        Ok(Self { sender, thread: Mutex::new(Some(thread)) })
    }

    /// A write in the next group's transaction.
    pub(super) fn grouped<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Write<'_, T> {
        Write { writer: self, alone: false, work: Box::new(work), after: None }
    }

    /// A write outside any transaction.
    pub(super) fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Write<'_, T> {
        Write { writer: self, alone: true, work: Box::new(work), after: None }
    }

    /// Finishes the writes that were sent before, and closes the connection. Later writes are refused.
    pub(super) fn stop(&self) {
        let _ = self.sender.send(Message::Stop);
        let thread = self.thread.lock().ok().and_then(|mut thread| thread.take());
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl<T: Send + 'static> Write<'_, T> {
    /// Blocks until it is committed or has failed.
    pub fn wait(self) -> Result<T, StoreError> {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        self.send(Box::new(move |outcome| drop(sender.send(outcome))));
        receiver.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// Calls `after` on the writer's thread once the write is committed, in the order of commits and before it is answered.
    /// Also if nobody waits for the write any more, such as a client that hung up. Several are called in turn.
    pub fn after(mut self, after: impl FnOnce(&T) + Send + 'static) -> Self {
        self.after = Some(match self.after.take() {
            None => Box::new(after),
            Some(first) => Box::new(move |value| {
                first(value);
                after(value);
            }),
        });
        self
    }

    /// Sends it without waiting. Only `after` learns whether it was committed.
    pub fn send_off(self) {
        self.send(Box::new(drop));
    }

    fn send(self, reply: Reply<T>) {
        let task = Box::new(Job { work: Some(self.work), outcome: None, after: self.after, reply });
        let message = if self.alone { Message::Alone(task) } else { Message::Grouped(task) };
        // If the writer has stopped, the task is dropped with its reply, and whoever waits gets `Closed`.
        let _ = self.writer.sender.send(message);
    }
}

impl<'a, T: Send + 'static> IntoFuture for Write<'a, T> {
    type Output = Result<T, StoreError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        let (sender, receiver) = oneshot::channel();
        self.send(Box::new(move |outcome| drop(sender.send(outcome))));
        Box::pin(async move { receiver.await.unwrap_or(Err(StoreError::Closed)) })
    }
}

impl<T: Send> Task for Job<T> {
    fn run(&mut self, db: &Connection) -> Result<(), StoreError> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let outcome = catch_unwind(AssertUnwindSafe(|| work(db))).unwrap_or(Err(StoreError::Internal));
        let succeeded = outcome.as_ref().map(drop).map_err(Clone::clone);
        self.outcome = Some(outcome);
        succeeded
    }

    fn conclude(&mut self, committed: Result<(), &StoreError>) {
        if let (Ok(()), Some(Ok(value)), Some(after)) = (committed, &self.outcome, self.after.take()) {
            after(value);
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let outcome = match (self.outcome, committed) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (None, Ok(())) => Err(StoreError::Internal),
        };
        (self.reply)(outcome);
    }
}

fn run(db: &Connection, receiver: &Receiver<Message>, nudge: Option<&Nudge>, board: &tally::Board) {
    let mut next = receiver.recv().ok();
    while let Some(message) = next.take() {
        match message {
            Message::Stop => break,
            Message::Alone(mut task) => {
                let done = task.run(db);
                task.conclude(done.as_ref().copied());
                task.answer(done);
            }
            Message::Grouped(first) => {
                next = commit(db, first, receiver, board);
                if let Some(nudge) = nudge {
                    nudge.committed();
                }
            }
        }
        if next.is_none() {
            next = receiver.recv().ok();
        }
    }
    let _ = super::retention::checkpoint(db);
}

/// One transaction for `first` and for what arrives until that is done. Each task is answered with its own outcome once that is
/// final. Returns a message that came meanwhile and does not belong to the group.
fn commit(
    db: &Connection,
    first: Box<dyn Task>,
    receiver: &Receiver<Message>,
    board: &tally::Board,
) -> Option<Message> {
    let mut begun = execute(db, "begin immediate");
    let mut done = Vec::new();
    let mut next = Some(Message::Grouped(first));
    while done.len() < GROUP
        && let Some(Message::Grouped(mut task)) = next.take_if(|next| matches!(next, Message::Grouped(_)))
    {
        if begun.is_ok()
            && let Err(error) = isolated(db, task.as_mut())
        {
            // A full or failing disk may roll back the whole transaction.
            if !db.is_autocommit() {
                let _ = execute(db, "rollback");
            }
            answer(mem::take(&mut done), Err(&error));
            task.answer(Err(error));
            begun = execute(db, "begin immediate");
        } else {
            done.push(task);
        }
        next = receiver.try_recv().ok();
    }
    let numbers = begun.is_ok().then(|| tally::read(db));
    let committed = begun.and_then(|()| execute(db, "commit"));
    match (&committed, numbers) {
        (Ok(()), Some(numbers)) => board.show(numbers),
        _ if !db.is_autocommit() => drop(execute(db, "rollback")),
        _ => {}
    }
    answer(done, committed.as_ref().copied());
    next
}

/// Runs one task in a savepoint. An error here means that the transaction itself is lost.
fn isolated(db: &Connection, task: &mut dyn Task) -> Result<(), StoreError> {
    execute(db, "savepoint task")?;
    let outcome = task.run(db);
    if outcome.is_err() {
        if db.is_autocommit() {
            return outcome;
        }
        execute(db, "rollback to task")?;
    }
    execute(db, "release task")
}

/// First what follows from the commit is done for all: whoever is answered finds nothing that is older.
fn answer(mut tasks: Vec<Box<dyn Task>>, committed: Result<(), &StoreError>) {
    for task in &mut tasks {
        task.conclude(committed);
    }
    for task in tasks {
        task.answer(committed.map_err(Clone::clone));
    }
}

fn execute(db: &Connection, statement: &str) -> Result<(), StoreError> {
    db.prepare_cached(statement)?.execute([])?;
    Ok(())
}
