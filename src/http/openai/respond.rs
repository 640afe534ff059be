//! What generations and edits do once their request is read: draw, and answer.

use actix_web::{HttpRequest, HttpResponse, web};

use super::ask::Ask;
use super::error::OpenAiError;
use super::{OpenAi, answer, stream};
use crate::domain::NewJob;
use crate::http::request::Api;
use crate::http::request::body::Held;
use crate::http::surface::{Dialect, Drawing, Visitor};

/// Which of the two it is. Only the names of events differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Generation,
    Edit,
}

impl Kind {
    pub fn event_prefix(self) -> &'static str {
        match self {
            Self::Generation => "image_generation",
            Self::Edit => "image_edit",
        }
    }
}

pub async fn respond(
    api: web::Data<Api>,
    visitor: Visitor<OpenAi>,
    request: &HttpRequest,
    kind: Kind,
    (ask, job): (Ask, NewJob),
    held: Held,
) -> Result<HttpResponse, OpenAiError> {
    let mut drawing = Drawing::submit(api.clone(), job, OpenAi::SURFACE).await?;
    drop(held);
    if ask.partials.is_some() {
        return Ok(stream::answer(api, kind, ask, drawing, visitor.in_flight));
    }
    if ask.form.url {
        drawing.keep();
    }
    let job = drawing.end().await?;
    answer::whole(&api, &api.base_url(request), &drawing, job, ask).await
}
