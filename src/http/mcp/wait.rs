//! Waits for a job, as long as the clients of this protocol wait for a tool.

use std::time::Duration;

use super::tool_server::ProgressListener;
use crate::domain::{JobOutline, Progress};
use crate::http::request::Api;
use crate::http::surface::{Drawing, FieldError, Fields, Moment, NotDrawn};

/// How many seconds a call waits. Most chat programs give a tool one minute. A job that takes longer is looked for with
/// another call.
pub const WAIT_S: u32 = 50;
/// The most that a call can ask for.
pub const MAX_WAIT_S: u32 = 600;

/// Reads how long a call waits.
pub fn patience(fields: &Fields) -> Result<Duration, FieldError> {
    let name = "wait_seconds";
    let seconds = fields.integer(&[name])?.unwrap_or(WAIT_S.into());
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= MAX_WAIT_S.into());
    let bounds = || FieldError::new(name, format!("{name} must be from 0 to {MAX_WAIT_S}."));
    seconds.map(Duration::from_secs).ok_or_else(bounds)
}

/// What came of the wait.
pub enum Waited {
    Completed(JobOutline),
    /// It goes on. It tells how far it is, once it has begun.
    StillDrawing(Option<Progress>),
}

/// Waits, and lets the client hear of each step if it wants that.
pub async fn wait(
    api: &Api,
    drawing: &mut Drawing,
    patience: Duration,
    listener: &ProgressListener,
) -> Result<Waited, NotDrawn> {
    // Who is told of steps is shown previews too, and those cost time.
    if listener.is_there() {
        drawing.watch_steps();
    }
    let end = tokio::time::Instant::now() + patience;
    loop {
        match tokio::time::timeout_at(end, drawing.next()).await {
            Err(_) => return Ok(Waited::StillDrawing(api.queue.progress(drawing.id()))),
            Ok(moment) => match moment? {
                Moment::Completed(job) => return Ok(Waited::Completed(job)),
                Moment::Step(progress) => listener.hear(progress).await,
                Moment::Preview(_) => {}
            },
        }
    }
}
