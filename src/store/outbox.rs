//! Messages on their way to webhooks.
//!
//! [`Describe`], which is given when the store is opened, writes a message's body in the same transaction as the change
//! that it reports. From then on nothing that becomes of the job changes it, but the message is deleted with its job.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OptionalExtension, named_params};
use sha2::{Digest, Sha256};

use super::{Store, StoreError, Write, content, disk_space, rows, traces};
use crate::domain::{Job, JobId, Progress, Timestamp, TraceParent, WebUrl, Webhook, WebhookEvents};

/// Writes the body of a message about a job as it is at that moment.
pub type Describe = Arc<dyn Fn(Job, Option<Progress>, Timestamp) -> String + Send + Sync>;

/// A message that is due.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: i64,
    pub job: JobId,
    pub url: WebUrl,
    pub body: String,
    /// How many tries have failed.
    pub tries: u32,
    /// The same number for all messages to the same host.
    pub receiver: i64,
    /// What caused the job, if somebody traces that.
    pub trace: Option<TraceParent>,
}

/// What a message reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Start,
    Progress(Progress),
    End,
}

impl Event {
    fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Progress(_) => "progress",
            Self::End => "end",
        }
    }
}

impl Store {
    /// The first message that is due and for which `free`, called with its id and receiver, is true.
    pub fn due_message(
        &self,
        now: Timestamp,
        mut free: impl FnMut(i64, i64) -> bool,
    ) -> Result<Option<Message>, StoreError> {
        self.read(|db| {
            let mut statement = db
                .prepare_cached("select id, receiver from outbox where due_at <= :now order by due_at, id")?;
            let mut rows = statement.query(named_params! {":now": now.0})?;
            while let Some(row) = rows.next()? {
                let id = row.get(0)?;
                if free(id, row.get(1)?) {
                    return message(db, id);
                }
            }
            Ok(None)
        })
    }

    /// When the next message that is not due yet will be due.
    pub fn next_due(&self, now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.read(|db| {
            let due: Option<i64> = db
                .prepare_cached("select min(due_at) from outbox where due_at > :now")?
                .query_row(named_params! {":now": now.0}, |row| row.get(0))?;
            Ok(due.map(Timestamp))
        })
    }

    /// Deletes a message that has arrived or is given up.
    pub fn forget_message(&self, id: i64) -> Write<'_, ()> {
        let traces = Arc::clone(&self.traces);
        self.writer.grouped(move |db| {
            db.prepare_cached("delete from outbox where id = :id")?.execute(named_params! {":id": id})?;
            traces.store(true, Ordering::SeqCst);
            Ok(())
        })
    }

    /// Keeps a message for another try. False: it was deleted with its job.
    pub fn postpone_message(&self, id: i64, until: Timestamp) -> Write<'_, bool> {
        self.writer.grouped(move |db| {
            let kept = db
                .prepare_cached("update outbox set tries = tries + 1, due_at = :until where id = :id")?
                .execute(named_params! {":id": id, ":until": until.0})?;
            Ok(kept > 0)
        })
    }

    /// Writes a message about how far a job is, if it is still in progress under this attempt.
    pub fn announce_progress(
        &self,
        id: &JobId,
        attempt: u32,
        progress: Progress,
        now: Timestamp,
    ) -> Write<'_, ()> {
        let (id, describe) = (id.clone(), Arc::clone(&self.describe));
        self.writer.grouped(move |db| {
            let seq: Option<i64> = db
                .prepare_cached(
                    "select seq from jobs where id = :id and attempt = :attempt and status = 'IN_PROGRESS'",
                )?
                .query_row(named_params! {":id": id.as_str(), ":attempt": attempt}, |row| row.get(0))
                .optional()?;
            seq.map_or(Ok(()), |seq| announce(db, seq, Event::Progress(progress), now, &describe))
        })
    }
}

/// Notes the webhook of a new job.
pub(super) fn subscribe(db: &Connection, seq: i64, webhook: &Webhook) -> Result<(), StoreError> {
    let url = content::insert(db, webhook.url.as_str().as_bytes())?;
    let WebhookEvents { start, progress } = webhook.events;
    db.prepare_cached(
        "insert into webhooks (job, url, on_start, on_progress) values (:job, :url, :start, :progress)",
    )?
    .execute(named_params! {":job": seq, ":url": url, ":start": start, ":progress": progress})?;
    Ok(())
}

/// Which events a job's webhook is told besides the end; none if it has no webhook.
pub(super) fn subscription(db: &Connection, seq: i64) -> Result<Option<WebhookEvents>, StoreError> {
    let events = db
        .prepare_cached("select on_start, on_progress from webhooks where job = :job")?
        .query_row(named_params! {":job": seq}, |row| {
            Ok(WebhookEvents { start: row.get(0)?, progress: row.get(1)? })
        })
        .optional()?;
    Ok(events)
}

/// Puts a message about a job, as it stands now, into the outbox, if it has a webhook.
pub(super) fn announce(
    db: &Connection,
    seq: i64,
    event: Event,
    now: Timestamp,
    describe: &Describe,
) -> Result<(), StoreError> {
    let url: Option<i64> = db
        .prepare_cached("select url from webhooks where job = :job")?
        .query_row(named_params! {":job": seq}, |row| row.get(0))
        .optional()?;
    let Some(url) = url else { return Ok(()) };
    let mut job = rows::at(db, seq)?;
    if disk_space::is_short(db) {
        // Messages that cannot be delivered must not use up what the ends of other jobs need.
        job.input.clear();
    }
    let id = job.id.clone();
    let url = content::text(db, url)?;
    let receiver = receiver(&url)?;
    let progress = if let Event::Progress(progress) = event { Some(progress) } else { None };
    let body = content::insert(db, describe(job, progress, now).as_bytes())?;
    let url = content::insert(db, url.as_bytes())?;
    // The new message replaces an older one about progress. If that is being delivered right now, it is not tried again.
    db.prepare_cached("delete from outbox where job = :job and event = 'progress'")?
        .execute(named_params! {":job": id.as_str()})?;
    db.prepare_cached(
        "insert into outbox (job, event, receiver, url, body, due_at)
         values (:job, :event, :receiver, :url, :body, :now)",
    )?
    .execute(named_params! {
        ":job": id.as_str(), ":event": event.as_str(), ":receiver": receiver, ":url": url, ":body": body,
        ":now": now.0,
    })?;
    Ok(())
}

fn message(db: &Connection, id: i64) -> Result<Option<Message>, StoreError> {
    let (job, receiver, url, body, tries) = db
        .prepare_cached("select job, receiver, url, body, tries from outbox where id = :id")?
        .query_row(named_params! {":id": id}, |row| {
            Ok((
                rows::id(row, "job")?,
                row.get("receiver")?,
                row.get("url")?,
                row.get("body")?,
                row.get("tries")?,
            ))
        })?;
    let url = content::text(db, url)?.parse().map_err(|_| StoreError::Damaged)?;
    let trace = traces::of_job(db, &job)?;
    Ok(Some(Message { id, job, url, body: content::text(db, body)?, tries, receiver, trace }))
}

/// A number for a URL's host and port that does not reveal them.
fn receiver(url: &str) -> Result<i64, StoreError> {
    let url: WebUrl = url.parse().map_err(|_| StoreError::Damaged)?;
    let url = url.as_url();
    let mut hash = Sha256::new();
    hash.update(url.host_str().unwrap_or_default());
    hash.update(url.port_or_known_default().unwrap_or_default().to_be_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    let (first, _) = hash.split_first_chunk().unwrap_or((&[0; 8], &[]));
    Ok(i64::from_be_bytes(*first))
}
