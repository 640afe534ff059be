//! A picture being drawn for a request that waits for it: an ordinary job of the queue.
//!
//! The connection is the client's only hold on its job. So a job is cancelled when its [`Drawing`] is dropped before the
//! end, as happens when the client closes the connection. After the end it is forgotten, unless URLs of its pictures were
//! given out.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use futures_util::future::{Either, select};

use super::Finish;
use crate::domain::{EndpointId, ImagePlace, ImageRef, JobId, JobOutline, JobStatus, NewJob, Progress};
use crate::http::request::{Api, ApiError, Surface, request_trace};
use crate::queue::{Follower, News};

/// Longer than any job lives.
const WITHOUT_END: Duration = Duration::from_hours(8 * 24);

/// The job of one request.
pub struct Drawing {
    api: web::Data<Api>,
    endpoint: EndpointId,
    id: JobId,
    /// Set if previews or steps are wanted.
    follower: Option<Follower>,
    /// Whether steps are wanted, and not previews.
    tells_steps: bool,
    has_ended: bool,
    afterwards: Afterwards,
}

/// What becomes of the job when nobody waits for it here any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Afterwards {
    /// It is cancelled and deleted.
    Forgotten,
    /// The same, but once it is completed it stays for as long as its kind is kept.
    KeptIfCompleted,
    /// It goes on, and stays after its end.
    Stays,
}

/// What happens to a drawing.
pub enum Moment {
    /// A step was done.
    Step(Progress),
    /// A new preview: a small PNG file.
    Preview(Arc<[u8]>),
    Completed(JobOutline),
}

/// Why there are no pictures.
#[derive(Debug, thiserror::Error)]
pub enum NotDrawn {
    /// The job failed or took too long. The sentence is the job's.
    #[error("{0}")]
    Failed(String),
    #[error("The job was cancelled on the server.")]
    Cancelled,
    #[error("The job was deleted on the server before it was drawn.")]
    Gone,
    #[error("The pictures were drawn, but they were deleted on the server before they were sent.")]
    Expired,
    /// It may be drawn at another try.
    #[error(transparent)]
    Refused(#[from] ApiError),
}

impl Drawing {
    /// Queues the job.
    pub async fn submit(api: web::Data<Api>, job: NewJob, surface: Surface) -> Result<Self, ApiError> {
        // A task of its own: if the client goes now, the task still ends, and dropping its result cancels the job.
        let job = NewJob { trace: request_trace(), ..job };
        let task = tokio::spawn(async move {
            let endpoint = job.endpoint.clone();
            let id = api.submit(job, surface.name()).await?.id;
            let mut drawing = Self::attach(api, endpoint, id);
            drawing.afterwards = Afterwards::Forgotten;
            Ok(drawing)
        });
        task.await.map_err(|_| ApiError::Internal)?
    }

    pub fn endpoint(&self) -> &EndpointId {
        &self.endpoint
    }

    pub fn id(&self) -> &JobId {
        &self.id
    }

    /// A job that goes on, and stays after its end, whether somebody waits here or not.
    pub fn attach(api: web::Data<Api>, endpoint: EndpointId, id: JobId) -> Self {
        let afterwards = Afterwards::Stays;
        Self { api, endpoint, id, follower: None, tells_steps: false, has_ended: false, afterwards }
    }

    /// Lets the job go on, although nobody waits for it here any more.
    pub fn leave(mut self) {
        self.afterwards = Afterwards::Stays;
    }

    /// Keeps the job after its end, because its pictures are answered as URLs.
    pub fn keep(&mut self) {
        self.afterwards = Afterwards::KeptIfCompleted;
    }

    /// Asks for previews.
    pub fn watch(&mut self) {
        self.follower = Some(self.api.queue.follow(&self.endpoint, &self.id));
    }

    /// Asks for steps instead of previews.
    pub fn watch_steps(&mut self) {
        self.tells_steps = true;
        self.watch();
    }

    /// Asks for no more previews.
    pub fn unwatch(&mut self) {
        self.follower = None;
    }

    /// Waits for the end.
    pub async fn end(&mut self) -> Result<JobOutline, NotDrawn> {
        loop {
            if let Moment::Completed(job) = self.next().await? {
                return Ok(job);
            }
        }
    }

    /// What happens next. If the returned future is dropped while it waits, nothing is lost.
    pub async fn next(&mut self) -> Result<Moment, NotDrawn> {
        let mut stopping = self.api.stopping.clone();
        let stopped = std::pin::pin!(stopping.wait_for(|stopping| *stopping));
        let next = std::pin::pin!(next(
            &self.api,
            &self.endpoint,
            &self.id,
            self.follower.as_mut(),
            self.tells_steps
        ));
        let moment = match select(next, stopped).await {
            Either::Left((moment, _)) => moment?,
            Either::Right(_) => None,
        };
        match moment {
            Some(Happened::Step(progress)) => Ok(Moment::Step(progress)),
            Some(Happened::Preview(preview)) => Ok(Moment::Preview(preview)),
            Some(Happened::Ended(job)) => {
                self.has_ended = true;
                if job.status != JobStatus::Completed && self.afterwards == Afterwards::KeptIfCompleted {
                    self.afterwards = Afterwards::Forgotten;
                }
                completed(job).map(Moment::Completed)
            }
            Some(Happened::Gone) => {
                self.has_ended = true;
                Err(NotDrawn::Gone)
            }
            None => {
                // Nobody would come for the pictures after a restart.
                if self.afterwards != Afterwards::Stays {
                    self.api.queue.cancel(&self.endpoint, &self.id).await.map_err(ApiError::from)?;
                }
                Err(ApiError::Unavailable("The server is stopping; try again later.".to_owned()).into())
            }
        }
    }

    /// The file of one picture of a completed job. None if the safety checker withheld it.
    pub async fn picture(&self, image: &ImageRef, finish: Finish) -> Result<Option<Vec<u8>>, NotDrawn> {
        if image.place != ImagePlace::Here {
            return Ok(None);
        }
        let png =
            self.api.queue.image(&self.endpoint, &self.id, image.index).await.map_err(ApiError::from)?;
        Ok(Some(finish.apply(png.ok_or(NotDrawn::Expired)?).await?))
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        match self.afterwards {
            Afterwards::Stays => return,
            Afterwards::KeptIfCompleted if self.has_ended => return,
            Afterwards::KeptIfCompleted | Afterwards::Forgotten => {}
        }
        let (api, endpoint, id) = (self.api.clone(), self.endpoint.clone(), self.id.clone());
        let has_ended = self.has_ended;
        // Without a runtime the process ends; the sweeper deletes the job after the next start.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let cancelled = if has_ended { Ok(None) } else { api.queue.cancel(&endpoint, &id).await };
            if let Err(error) = cancelled.and(api.queue.forget(&endpoint, &id).await) {
                tracing::warn!(%error, "a job that nobody waits for could not be deleted; the sweeper will");
            }
        });
    }
}

enum Happened {
    Step(Progress),
    Preview(Arc<[u8]>),
    Ended(JobOutline),
    Gone,
}

/// None if the queue was closed.
async fn next(
    api: &Api,
    endpoint: &EndpointId,
    id: &JobId,
    follower: Option<&mut Follower>,
    tells_steps: bool,
) -> Result<Option<Happened>, ApiError> {
    let Some(follower) = follower else {
        let job = api.queue.wait_for_outline(endpoint, id, WITHOUT_END).await?;
        return Ok(match job {
            None => Some(Happened::Gone),
            Some(job) => job.status.is_final().then_some(Happened::Ended(job)),
        });
    };
    loop {
        match follower.next().await? {
            None => return Ok(None),
            Some(News::Gone) => return Ok(Some(Happened::Gone)),
            Some(News::State(job)) if job.status.is_final() => return Ok(Some(Happened::Ended(job))),
            Some(News::Step(frame)) if tells_steps => return Ok(Some(Happened::Step(frame.progress))),
            Some(News::Step(frame)) => {
                if let Some(preview) = frame.preview {
                    return Ok(Some(Happened::Preview(preview)));
                }
            }
            Some(News::State(_)) => {}
        }
    }
}

fn completed(job: JobOutline) -> Result<JobOutline, NotDrawn> {
    match job.status {
        JobStatus::Completed => Ok(job),
        JobStatus::Cancelled => Err(NotDrawn::Cancelled),
        _ => Err(NotDrawn::Failed(job.error.unwrap_or_else(|| "The job failed.".to_owned()))),
    }
}
