//! One attempt at a job: how far it is, which steps `stream` has given out, and whether it is to stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::board::locked;
use crate::domain::{EndpointId, Frame, Progress, Timestamp};

/// The shortest time between two previews.
const PREVIEW_EVERY: Duration = Duration::from_secs(1);
/// How long after a read of `stream` its reader is expected back, and so still wants previews.
const READER_STAYS: Duration = Duration::from_secs(5);

/// One attempt. Readers see its latest step only: a slow reader misses steps and delays nobody.
#[derive(Debug)]
pub(super) struct Running {
    endpoint: EndpointId,
    started_at: Timestamp,
    shown: Mutex<Shown>,
    cancelled: AtomicBool,
    cut_short: AtomicBool,
}

#[derive(Debug, Default)]
struct Shown {
    progress: Option<Progress>,
    published_at: Option<Timestamp>,
    /// The latest step's number.
    number: u64,
    /// The latest preview, with the number of its step.
    preview: Option<(u64, Arc<[u8]>)>,
    previewed_at: Option<Timestamp>,
    /// How far `stream` was read: one cursor that all its readers share.
    drained: u64,
    read_at: Option<Timestamp>,
}

impl Running {
    pub(super) fn new(endpoint: EndpointId, started_at: Timestamp) -> Self {
        let (shown, cancelled, cut_short) = Default::default();
        Self { endpoint, started_at, shown, cancelled, cut_short }
    }

    pub(super) fn endpoint(&self) -> &EndpointId {
        &self.endpoint
    }

    /// How long it still takes at the speed so far; before that is known, if its endpoint's jobs take `usual`.
    pub(super) fn time_left(&self, usual: Option<Duration>, now: Timestamp) -> Duration {
        let shown = locked(&self.shown);
        let published = shown.progress.and_then(|progress| progress.eta).zip(shown.published_at);
        let (takes, from) = published.unwrap_or((usual.unwrap_or_default(), self.started_at));
        takes.saturating_sub(now.since(from))
    }

    pub(super) fn publish(&self, number: u64, progress: Progress, preview: Option<Vec<u8>>, now: Timestamp) {
        let mut shown = locked(&self.shown);
        shown.progress = Some(progress);
        shown.published_at = Some(now);
        shown.number = number;
        if let Some(preview) = preview {
            shown.preview = Some((number, preview.into()));
            shown.previewed_at = Some(now);
        }
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        locked(&self.shown).progress
    }

    /// What came after the step numbered `seen`, which is moved on.
    pub(super) fn after(&self, seen: &mut u64) -> Option<Frame> {
        locked(&self.shown).after(seen)
    }

    /// What came since the last drain.
    pub(super) fn drain(&self, now: Timestamp) -> Option<Frame> {
        let mut shown = locked(&self.shown);
        shown.read_at = Some(now);
        let mut drained = shown.drained;
        let frame = shown.after(&mut drained);
        shown.drained = drained;
        frame
    }

    /// The latest step and the latest preview, whoever has seen them. Its reader is expected back.
    pub(super) fn latest(&self, now: Timestamp) -> Option<Frame> {
        let mut shown = locked(&self.shown);
        shown.read_at = Some(now);
        let preview = shown.preview.as_ref().map(|(_, png)| Arc::clone(png));
        shown.progress.map(|progress| Frame { progress, preview })
    }

    /// Whether a preview is worth drawing. `followed`: somebody listens at this moment.
    pub(super) fn wants_preview(&self, followed: bool, now: Timestamp) -> bool {
        let shown = locked(&self.shown);
        let within = |since: Option<Timestamp>, time: Duration| {
            // A clock that was set back must not stop the previews.
            since.is_some_and(|since| (since..since + time).contains(&now))
        };
        (followed || within(shown.read_at, READER_STAYS)) && !within(shown.previewed_at, PREVIEW_EVERY)
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    pub(super) fn cut_short(&self) {
        self.cut_short.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_cut_short(&self) -> bool {
        self.cut_short.load(Ordering::SeqCst)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }
}

impl Shown {
    fn after(&self, seen: &mut u64) -> Option<Frame> {
        let progress = self.progress.filter(|_| self.number > *seen)?;
        let preview = self.preview.as_ref().filter(|(number, _)| number > seen);
        let frame = Frame { progress, preview: preview.map(|(_, png)| Arc::clone(png)) };
        *seen = self.number;
        Some(frame)
    }
}
