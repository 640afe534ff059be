//! The contract's status body, made from a job.

use std::time::Duration;

use serde::Serialize;

use super::{JobUrls, JsonObject};
use crate::domain::{DrawnPrompts, ImagePlace, ImageRef, Job, JobStatus, Progress, Timestamp};

/// A job as `status`, `runsync`, lists and webhooks show it. The input is the client's own text; lists leave out long
/// ones.
pub fn status_body(job: &Job, progress: Option<Progress>, now: Timestamp, urls: &JobUrls<'_>) -> String {
    let queued = job.status == JobStatus::InQueue;
    let started_at = job.started_at.filter(|_| !queued);
    let picked_up_at = started_at.or(job.finished_at.filter(|_| !queued)).unwrap_or(now);

    let mut body = JsonObject::default();
    body.field("delayTime", &ms(picked_up_at.since(job.created_at)));
    if job.status.is_final() {
        if let Some(error) = error_text(job) {
            body.field("error", &error);
        }
        if let (Some(started), Some(finished)) = (started_at, job.finished_at) {
            body.field("executionTime", &ms(finished.since(started)));
        }
    }
    if let Some(gpu) = job.gpu.as_ref().filter(|_| !queued) {
        body.field("gpu", gpu);
    }
    body.field("id", &job.id);
    // Empty if it is too long for a list.
    if !job.input.is_empty() {
        body.raw("input", &job.input);
    }
    if job.status == JobStatus::Completed {
        let pictures = job.images.iter();
        match &job.finish {
            None => body.field(
                "output",
                &pictures.map(|image| Picture::new(image, urls.image(job, image))).collect::<Vec<_>>(),
            ),
            Some(finish) => body.field(
                "output",
                &OutputObject::new(
                    pictures
                        .map(|image| Picture::new(image, urls.finished_for(job, image, finish)))
                        .collect(),
                ),
            ),
        };
    }
    if let Some(progress) = progress.filter(|_| job.status == JobStatus::InProgress) {
        body.field(
            "progress",
            &ProgressBody { step: progress.step, steps: progress.steps, eta: progress.eta.map(ms) },
        );
    }
    body.field("status", &job.status);
    if !job.warnings.is_empty() {
        body.field("warnings", &job.warnings);
    }
    body.finish()
}

/// A finished picture in `output`. A picture that the safety checker flagged has no image and says why.
#[derive(Serialize)]
pub(super) struct Picture {
    image: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    nsfw: bool,
    #[serde(flatten)]
    prompts: Option<DrawnPrompts>,
    seed: u64,
}

impl Picture {
    pub fn new(image: &ImageRef, url: Option<String>) -> Self {
        Self {
            image: url,
            nsfw: image.place == ImagePlace::Withheld,
            prompts: image.prompts.clone(),
            seed: image.seed,
        }
    }
}

/// `output` in the dialect of `RunPod`'s public endpoints. The first picture stands for all; where it was withheld, the next.
#[derive(Serialize)]
struct OutputObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    cost: u32,
    images: Vec<Picture>,
}

impl OutputObject {
    fn new(images: Vec<Picture>) -> Self {
        let first = images.iter().find_map(|picture| picture.image.clone());
        Self { image_url: first.clone(), result: first, cost: 0, images }
    }
}

#[derive(Serialize)]
struct ProgressBody {
    step: u32,
    steps: u32,
    /// The estimated milliseconds left; null before the first step.
    eta: Option<u64>,
}

/// The Go client decodes `error` as a string, so a failed job always has one.
fn error_text(job: &Job) -> Option<String> {
    match job.status {
        JobStatus::Failed => Some(job.error.clone().unwrap_or_else(|| "The job failed.".to_owned())),
        JobStatus::TimedOut => Some(job.error.clone().unwrap_or_else(|| {
            format!(
                "The job took longer than its executionTimeout of {} ms.",
                ms(job.policy.execution_timeout)
            )
        })),
        _ => None,
    }
}

pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndpointId, JobId, Policy};
    use crate::wire::UrlSigner;

    fn job(status: JobStatus) -> Job {
        Job {
            id: JobId::parse("c80ffee4-f315-4e25-a146-0f3d98cf024b").unwrap(),
            endpoint: EndpointId::default(),
            status,
            attempt: 1,
            input: r#"{"prompt": "a dog",  "guidance_scale": 7.50}"#.to_owned(),
            seed: 1,
            policy: Policy::default(),
            created_at: Timestamp(1_000),
            started_at: Some(Timestamp(3_188)),
            finished_at: Some(Timestamp(4_485)),
            expires_at: Timestamp(2_000_000),
            error: None,
            gpu: Some("24".to_owned()),
            finish: None,
            images: vec![ImageRef { index: 0, seed: 1, place: ImagePlace::Here, prompts: None }],
            warnings: Vec::new(),
        }
    }

    fn body(job: &Job, progress: Option<Progress>) -> String {
        let signer = UrlSigner::new([7; 32]);
        status_body(job, progress, Timestamp(5_000), &JobUrls { base: "http://h", signer: &signer })
    }

    #[test]
    fn a_completed_job_looks_as_in_the_contract() {
        let text = body(&job(JobStatus::Completed), None);
        let url_at = text.find("http://h").unwrap();
        assert_eq!(
            text[..url_at],
            *r#"{"delayTime":2188,"executionTime":1297,"gpu":"24","id":"c80ffee4-f315-4e25-a146-0f3d98cf024b","input":{"prompt": "a dog",  "guidance_scale": 7.50},"output":[{"image":""#
        );
        assert!(text.ends_with(r#"","seed":1}],"status":"COMPLETED"}"#), "{text}");
    }

    #[test]
    fn a_client_of_the_public_endpoints_gets_an_object() {
        let job = Job { finish: Some("1328x1328-q90.png".to_owned()), ..job(JobStatus::Completed) };
        let body: serde_json::Value = serde_json::from_str(&body(&job, None)).unwrap();
        let output = &body["output"];
        let url = output["image_url"].as_str().unwrap();
        assert!(url.contains("/0/1328x1328-q90.png?expires="), "{url}");
        assert_eq!(
            *output,
            serde_json::json!({"image_url": url, "result": url, "cost": 0, "images": [{"image": url, "seed": 1}]})
        );
    }

    #[test]
    fn a_withheld_picture_has_no_image_and_says_why() {
        let mut job = job(JobStatus::Completed);
        job.images[0].place = ImagePlace::Withheld;
        let text = body(&job, None);
        assert!(text.contains(r#""output":[{"image":null,"nsfw":true,"seed":1}]"#), "{text}");
    }

    #[test]
    fn warnings_come_last_and_only_if_there_are_any() {
        let mut job = job(JobStatus::Completed);
        assert!(!body(&job, None).contains("warnings"));
        job.warnings = vec!["Nothing was checked.".to_owned(), "\"x\" has no effect.".to_owned()];
        let text = body(&job, None);
        let end = r#""status":"COMPLETED","warnings":["Nothing was checked.","\"x\" has no effect."]}"#;
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_picture_says_what_its_wildcards_became() {
        let mut job = job(JobStatus::Completed);
        job.images[0].prompts =
            Some(DrawnPrompts { prompt: "a fox".to_owned(), negative_prompt: "rain".to_owned() });
        let text = body(&job, None);
        assert!(text.contains(r#"","prompt":"a fox","negative_prompt":"rain","seed":1}]"#), "{text}");
    }

    #[test]
    fn a_waiting_job_shows_its_wait_and_nothing_of_an_earlier_attempt() {
        let text = body(&job(JobStatus::InQueue), None);
        assert!(text.starts_with(r#"{"delayTime":4000,"id":"#), "{text}");
        assert!(!text.contains("output") && !text.contains("gpu"));
    }

    #[test]
    fn a_running_job_shows_its_progress_only() {
        let progress = Progress { step: 12, steps: 50, eta: Some(Duration::from_millis(900)) };
        let text = body(&job(JobStatus::InProgress), Some(progress));
        assert!(
            text.ends_with(r#","progress":{"step":12,"steps":50,"eta":900},"status":"IN_PROGRESS"}"#),
            "{text}"
        );
        assert!(!text.contains("executionTime"));
    }

    #[test]
    fn every_failure_has_a_sentence() {
        let mut failed = job(JobStatus::Failed);
        assert!(body(&failed, None).contains(r#""error":"The job failed.""#));
        failed.error = Some("No memory.".to_owned());
        assert!(body(&failed, None).contains(r#""error":"No memory.""#));
        let timed_out = body(&job(JobStatus::TimedOut), None);
        assert!(timed_out.contains("executionTimeout of 600000 ms."), "{timed_out}");
        assert!(!timed_out.contains("output"));
    }
}
