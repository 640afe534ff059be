//! `POST /sdapi/v1/txt2img` and `/img2img`: the jobs of a request are drawn one after another, and answered together.

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web};

use super::answer::{self, Drawn, Picture};
use super::ask::{Ask, Kind};
use super::batches::Batch;
use super::error::A1111Error;
use super::task::{OpenTask, Task};
use super::{A1111, State};
use crate::domain::{JobOutline, NewJob};
use crate::http::request::Api;
use crate::http::request::body::{self as request_body, Body, Held};
use crate::http::surface::{Dialect, Drawing, Finish, NotDrawn, Visitor, body, heavy};

pub async fn txt2img(
    api: web::Data<Api>,
    state: web::Data<State>,
    _visitor: Visitor<A1111>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, A1111Error> {
    draw(Kind::Text, api, &state, &request, payload).await
}

pub async fn img2img(
    api: web::Data<Api>,
    state: web::Data<State>,
    _visitor: Visitor<A1111>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, A1111Error> {
    draw(Kind::Image, api, &state, &request, payload).await
}

async fn draw(
    kind: Kind,
    api: web::Data<Api>,
    state: &State,
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, A1111Error> {
    let Body { bytes: sent, held } =
        request_body::read(request, payload, request_body::RUNSYNC_LIMIT).await?;
    let (served, chosen) = (api.clone(), state.choices.get());
    let read = move |sent| Ask::read(&sent, kind, &chosen, &served.endpoints).map(Arc::new);
    let ask: Arc<Ask> = body::on_body(sent, read).await?;

    let jobs = ask.batches.jobs();
    let id = ask.task.clone().unwrap_or_else(|| format!("task({})", uuid::Uuid::new_v4().simple()));
    let count = u32::try_from(jobs.len()).unwrap_or(u32::MAX);
    let first_pass = ask.hires.as_ref().map(|hires| hires.first_pass);
    let begun_at = api.queue.now();
    let task = state.tasks.open(Task::new(id, kind.name(), begun_at, (count, first_pass)));
    let mut drawn = Drawn::new(begun_at, ask.warnings.clone());
    let (mut left, mut held) = (jobs.len(), Some(held));
    for batch in jobs {
        if task.is_interrupted() {
            break;
        }
        left -= 1;
        // The last job takes the pictures with it.
        let held = if left == 0 { held.take() } else { None };
        draw_batch(&api, &task, &ask, batch, held, &mut drawn).await?;
    }
    drop(task);
    answer::whole(ask, drawn).await
}

async fn draw_batch(
    api: &web::Data<Api>,
    task: &OpenTask<'_>,
    ask: &Arc<Ask>,
    batch: Batch,
    held: Option<Held>,
    drawn: &mut Drawn,
) -> Result<(), A1111Error> {
    task.begin_batch();
    let job = job(ask, batch).await?;
    let mut drawing = Drawing::submit(api.clone(), job, A1111::SURFACE).await?;
    if held.is_some() {
        ask.forget_pictures();
        drop(held);
    }
    task.submitted(&api.queue, drawing.endpoint(), drawing.id()).await;
    match drawing.end().await {
        Ok(job) => take(&drawing, job, ask, batch, drawn).await?,
        // Somebody skipped it before it began: it has no pictures.
        Err(NotDrawn::Cancelled) if task.is_skipped() => {}
        Err(error) => return Err(error.into()),
    }
    task.end_batch();
    Ok(())
}

async fn job(ask: &Arc<Ask>, batch: Batch) -> Result<NewJob, A1111Error> {
    if !ask.is_heavy() {
        return ask.job(batch);
    }
    let ask = Arc::clone(ask);
    heavy(move || ask.job(batch)).await?
}

/// Takes the pictures of a job. Those that the safety checker withheld are left out.
async fn take(
    drawing: &Drawing,
    job: JobOutline,
    ask: &Ask,
    batch: Batch,
    drawn: &mut Drawn,
) -> Result<(), A1111Error> {
    for image in &job.images {
        let Some(png) = drawing.picture(image, Finish::default()).await? else { continue };
        let (seed, subseed) = ask.seeds.of(batch.first + image.index);
        let infotext = ask.finish.infotext(&png).unwrap_or_default();
        let file = ask.finish.apply(png).await?;
        drawn.pictures.push(Picture { file, infotext, seed, subseed });
    }
    drawn.warn(job.warnings);
    Ok(())
}
