//! A streamed answer: server-sent events, previews first, then one event a picture.

use std::time::Duration;

use actix_web::http::header::ContentEncoding;
use actix_web::web::Bytes;
use actix_web::{HttpResponse, web};
use futures_util::stream;

use super::answer::{Sent, error_event, event};
use super::ask::Ask;
use super::error::OpenAiError;
use super::respond::Kind;
use crate::domain::{ImagePlace, JobOutline};
use crate::http::request::{Api, InFlight};
use crate::http::surface::{Drawing, Finish, Moment, SurfaceError};

/// The time between two comments that keep an idle connection open; shorter than any proxy's timeout.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// One client's stream.
struct Connection {
    api: web::Data<Api>,
    kind: Kind,
    ask: Ask,
    drawing: Drawing,
    stage: Stage,
    /// Counts as in flight while the client is connected.
    _in_flight: InFlight,
}

enum Stage {
    /// So many previews were sent.
    Drawing {
        sent: u32,
    },
    /// Its pictures from this index on are still to send.
    Completed {
        job: JobOutline,
        next: usize,
    },
    Over,
}

/// The answer. It begins at once.
pub fn answer(
    api: web::Data<Api>,
    kind: Kind,
    ask: Ask,
    mut drawing: Drawing,
    in_flight: InFlight,
) -> HttpResponse {
    if ask.partials > Some(0) {
        drawing.watch();
    }
    let stage = Stage::Drawing { sent: 0 };
    let connection = Connection { api, kind, ask, drawing, stage, _in_flight: in_flight };
    HttpResponse::Ok()
        .content_type("text/event-stream")
        // Proxies and our own compression would hold events back to fill a buffer.
        .insert_header(("x-accel-buffering", "no"))
        .insert_header(ContentEncoding::Identity)
        .streaming(stream::unfold(connection, next_chunk))
}

async fn next_chunk(mut connection: Connection) -> Option<(Result<Bytes, OpenAiError>, Connection)> {
    let text = match connection.advance().await {
        Ok(text) => text?,
        Err(error) => {
            connection.stage = Stage::Over;
            error_event(&error)
        }
    };
    Some((Ok(Bytes::from(text)), connection))
}

impl Connection {
    /// The next text to send; none at the end.
    async fn advance(&mut self) -> Result<Option<String>, OpenAiError> {
        loop {
            match &mut self.stage {
                Stage::Over => return Ok(None),
                Stage::Drawing { sent } => {
                    match actix_web::rt::time::timeout(HEARTBEAT, self.drawing.next()).await {
                        Err(_) => return Ok(Some(": still here\n\n".to_owned())),
                        Ok(Err(error)) => return Err(error.into()),
                        Ok(Ok(Moment::Preview(preview))) => {
                            let index = *sent;
                            *sent += 1;
                            if Some(*sent) >= self.ask.partials {
                                self.drawing.unwatch();
                            }
                            let finish = Finish { size: None, ..self.ask.finish };
                            let file = finish.apply(preview.to_vec()).await?;
                            return Ok(Some(self.event(&Sent::Partial { index }, &file)));
                        }
                        // Steps were not asked for.
                        Ok(Ok(Moment::Step(_))) => {}
                        Ok(Ok(Moment::Completed(job))) => {
                            if job.images.iter().all(|image| image.place == ImagePlace::Withheld) {
                                return Err(SurfaceError::Withheld.into());
                            }
                            self.stage = Stage::Completed { job, next: 0 };
                        }
                    }
                }
                Stage::Completed { job, next } => {
                    let Some(image) = job.images.get(*next).cloned() else {
                        self.stage = Stage::Over;
                        return Ok(None);
                    };
                    *next += 1;
                    let is_last = job.images[*next..].iter().all(|image| image.place == ImagePlace::Withheld);
                    let warnings = if is_last { std::mem::take(&mut job.warnings) } else { Vec::new() };
                    let file = self.drawing.picture(&image, self.ask.finish).await?;
                    if let Some(file) = file {
                        return Ok(Some(self.event(&Sent::Completed { warnings: &warnings }, &file)));
                    }
                }
            }
        }
    }

    fn event(&self, sent: &Sent<'_>, file: &[u8]) -> String {
        event(self.kind.event_prefix(), sent, file, self.api.queue.now(), &self.ask)
    }
}
