//! `GET /sdapi/v1/progress`, and A1111's progress of one task: `POST /internal/progress`, `GET /internal/pending-tasks`.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::error::A1111Error;
use super::task::Task;
use super::{A1111, State, info};
use crate::domain::Frame;
use crate::http::request::{Api, body as request_body};
use crate::http::surface::{Visitor, body, upload};
use crate::queue::JobQueue;

/// Clients send an id and two numbers.
const MAX_BODY: usize = 64 * 1024;

pub async fn progress(
    api: web::Data<Api>,
    state: web::Data<State>,
    _visitor: Visitor<A1111>,
    request: HttpRequest,
) -> HttpResponse {
    let wants_picture = !skips_picture(request.query_string());
    // What waits reads as idle: clients begin only when nothing runs.
    let shown = state.tasks.shown(&api.queue);
    let count =
        shown.as_ref().filter(|(_, runs)| *runs).map(|(task, _)| Count::of(task, &api.queue, wants_picture));
    let count = count.unwrap_or_default();
    let task = shown.map(|(task, _)| task);
    let now = task.as_ref().map(|task| task.now()).unwrap_or_default();
    let job = task.as_ref().map_or(String::new(), |task| name(task, now.done));
    let stamp = state.tasks.latest().map_or("0".to_owned(), info::timestamp);
    HttpResponse::Ok().json(json!({
        "progress": count.progress(),
        "eta_relative": task.map_or(0.0, |task| count.eta(api.queue.now().since(task.begun_at))),
        "state": {
            "skipped": now.is_skipped && !now.is_interrupted,
            "interrupted": now.is_interrupted,
            "stopping_generation": false,
            "job": job,
            "job_count": count.jobs,
            "job_timestamp": stamp,
            "job_no": count.job,
            "sampling_step": count.step,
            "sampling_steps": count.steps,
        },
        "current_image": count.preview,
        "textinfo": null,
    }))
}

fn skips_picture(query: &str) -> bool {
    let fields = web::Query::<Vec<(String, String)>>::from_query(query);
    let is_true = |value: &str| matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on");
    fields
        .is_ok_and(|fields| fields.iter().any(|(name, value)| name == "skip_current_image" && is_true(value)))
}

/// A1111's name of what it works on.
fn name(task: &Task, done: u32) -> String {
    match task.batches {
        1 => format!("scripts_{}", task.kind),
        batches => format!("Batch {} out of {batches}", (done + 1).min(batches)),
    }
}

/// How far a task is, in A1111's terms: a job is one pass of one batch.
#[derive(Debug, Default, PartialEq)]
struct Count {
    jobs: u32,
    job: u32,
    step: u32,
    steps: u32,
    /// The latest preview in base64.
    preview: Option<String>,
}

impl Count {
    fn of(task: &Task, queue: &JobQueue, wants_picture: bool) -> Self {
        let now = task.now();
        let job = now.job.as_ref().map(|(_, id)| id);
        let frame = job.and_then(|id| match wants_picture {
            true => queue.latest(id),
            false => queue.progress(id).map(|progress| Frame { progress, preview: None }),
        });
        let (step, steps) =
            frame.as_ref().map_or((0, 0), |frame| (frame.progress.step, frame.progress.steps));
        let preview = frame.and_then(|frame| frame.preview).map(|png| upload::base64(&png));
        let passes = if task.first_pass.is_some() { 2 } else { 1 };
        let (pass, step, steps) = match task.first_pass {
            Some(first) if step < first => (0, step, first.min(steps)),
            Some(first) => (1, step - first, steps.saturating_sub(first)),
            None => (0, step, steps),
        };
        Self { jobs: task.batches * passes, job: now.done * passes + pass, step, steps, preview }
    }

    fn progress(&self) -> f64 {
        if self.jobs == 0 {
            return 0.0;
        }
        let jobs = f64::from(self.jobs);
        let share = if self.steps > 0 { f64::from(self.step) / f64::from(self.steps) } else { 0.0 };
        (0.01 + f64::from(self.job) / jobs + share / jobs).min(1.0)
    }

    /// Seconds that are left, at the pace so far.
    fn eta(&self, elapsed: Duration) -> f64 {
        let progress = self.progress();
        if progress > 0.0 { (elapsed.as_secs_f64() / progress - elapsed.as_secs_f64()).max(0.0) } else { 0.0 }
    }
}

pub async fn of_task(
    api: web::Data<Api>,
    state: web::Data<State>,
    _visitor: Visitor<A1111>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, A1111Error> {
    let fields = body::json(&request_body::read(&request, payload, MAX_BODY).await?.bytes)?;
    let id = fields.text(&["id_task"])?.unwrap_or_default();
    let wants_picture = fields.flag(&["live_preview"])?.unwrap_or(true);
    let Some(task) = state.tasks.find(&id) else {
        return Ok(HttpResponse::Ok().json(answer(false, state.tasks.has_ended(&id), None)));
    };
    if !task.is_running(&api.queue) {
        return Ok(HttpResponse::Ok().json(answer(true, false, Some("In queue..."))));
    }
    let count = Count::of(&task, &api.queue, wants_picture);
    let eta = count.eta(api.queue.now().since(task.begun_at));
    let mut body = answer(false, false, None);
    body["progress"] = json!(count.progress());
    body["active"] = json!(true);
    body["eta"] = json!(eta);
    if let Some(preview) = count.preview {
        body["live_preview"] = json!(format!("data:image/png;base64,{preview}"));
        body["id_live_preview"] = json!(i64::from(count.step));
    }
    Ok(HttpResponse::Ok().json(body))
}

fn answer(queued: bool, completed: bool, text: Option<&str>) -> Value {
    json!({
        "active": false,
        "queued": queued,
        "completed": completed,
        "progress": null,
        "eta": null,
        "live_preview": null,
        "id_live_preview": -1,
        "textinfo": text,
    })
}

pub async fn pending(api: web::Data<Api>, state: web::Data<State>, _visitor: Visitor<A1111>) -> HttpResponse {
    let waits = |id: &String| state.tasks.find(id).is_some_and(|task| !task.is_running(&api.queue));
    let tasks: Vec<String> = state.tasks.ids().into_iter().filter(waits).collect();
    HttpResponse::Ok().json(json!({ "size": tasks.len(), "tasks": tasks }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_counted_as_a1111_counts_it() {
        let count = |jobs, job, step, steps| Count { jobs, job, step, steps, preview: None };
        for (count, progress) in [
            (Count::default(), 0.0),
            (count(1, 0, 0, 20), 0.01),
            (count(1, 0, 10, 20), 0.51),
            (count(2, 1, 5, 20), 0.01 + 0.5 + 0.125),
            (count(2, 1, 20, 20), 1.0),
        ] {
            assert!((count.progress() - progress).abs() < 1e-12, "{count:?}");
        }
        let eta = count(1, 0, 10, 20).eta(Duration::from_secs(51));
        assert!((eta - 49.0).abs() < 1e-9, "{eta}");
        assert!(Count::default().eta(Duration::from_secs(5)).abs() < 1e-9);
    }

    #[test]
    fn a_query_may_ask_for_no_picture() {
        for query in ["skip_current_image=true", "a=b&skip_current_image=1"] {
            assert!(skips_picture(query), "{query}");
        }
        for query in ["", "skip_current_image=false", "skip_current_image", "%"] {
            assert!(!skips_picture(query), "{query}");
        }
    }
}
