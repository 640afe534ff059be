//! What a tool answers: text and pictures for the language model, and the same as fields for programs.

use std::fmt::Write as _;

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

use super::McpError;
use crate::diffusion::image::PictureFile;
use crate::domain::{ImagePlace, ImageSize, JobId, JobOutline, JobStatus, Progress};
use crate::http::surface::{Canvas, Drawing, Finish, SurfaceError, upload};

/// Good enough that nobody sees it, and a tenth of a PNG: chat programs refuse large results (some more than 1 MB).
pub const JPEG_QUALITY: u8 = 90;

/// A job as a client knows it: its id, and how its pictures are answered, such as `sync-…/1024x1024-q90.png`.
pub struct JobName {
    pub id: JobId,
    pub finish: Finish,
}

impl JobName {
    const USUAL: Finish = Finish { size: None, format: PictureFile::Jpeg, quality: JPEG_QUALITY };

    /// Reads what a client sent. A plain id, such as that of a job from another API, has the usual form.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((id, finish)) = text.split_once('/') else {
            return Some(Self { id: JobId::parse(text)?, finish: Self::USUAL });
        };
        let finish = Finish::parse(finish)?;
        let fits = |size: ImageSize| Canvas::new(size, 1, 1).is_ok();
        finish.size.is_none_or(fits).then_some(Self { id: JobId::parse(id)?, finish })
    }

    fn text(&self) -> String {
        match self.finish == Self::USUAL {
            true => self.id.to_string(),
            false => format!("{}/{}", self.id, self.finish),
        }
    }
}

/// The pictures of a completed job. Of those that its client had put into a bucket, the answer has the URLs.
pub async fn pictures(
    drawing: &Drawing,
    job: JobOutline,
    finish: Finish,
) -> Result<CallToolResult, McpError> {
    let (mut described, mut contents, mut withheld) = (Vec::new(), Vec::new(), 0_u32);
    let mime_type = finish.format.content_type();
    for image in &job.images {
        if let ImagePlace::Bucket(url) = &image.place {
            described.push(json!({ "seed": image.seed, "url": url }));
            continue;
        }
        let Some(file) = drawing.picture(image, finish).await? else {
            withheld += 1;
            continue;
        };
        let size = upload::size(&file).unwrap_or(ImageSize { width: 0, height: 0 });
        described.push(json!({
            "seed": image.seed, "width": size.width, "height": size.height, "mime_type": mime_type,
        }));
        contents.push(ContentBlock::image(upload::base64(&file), mime_type));
    }
    if described.is_empty() {
        return Err(SurfaceError::Withheld.into());
    }
    let mut text = format!("Here {}: {}.", counted(described.len()), each(&described));
    if withheld > 0 {
        let _ = write!(text, " The safety checker withheld {withheld} more.");
    }
    for warning in &job.warnings {
        text += " ";
        text += warning;
    }
    let name = JobName { id: job.id, finish };
    let mut fields =
        json!({ "job_id": name.text(), "status": job.status, "images": described, "withheld": withheld });
    if !job.warnings.is_empty() {
        fields["warnings"] = json!(job.warnings);
    }
    contents.insert(0, ContentBlock::text(text));
    Ok(result(contents, fields))
}

fn counted(pictures: usize) -> String {
    if pictures == 1 { "is the picture".to_owned() } else { format!("are {pictures} pictures") }
}

fn each(described: &[Value]) -> String {
    let one = |picture: &Value| {
        let place = match picture["url"].as_str() {
            Some(url) => format!("in the job's bucket at {url}"),
            None => format!("{} × {}", picture["width"], picture["height"]),
        };
        format!("{place}, seed {}", picture["seed"])
    };
    described.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// A job that takes longer than a call may.
pub fn still_drawing(name: &JobName, progress: Option<Progress>) -> CallToolResult {
    let id = name.text();
    let (status, how_far) = match progress {
        None => (JobStatus::InQueue, "It waits for its turn.".to_owned()),
        Some(Progress { step, steps, .. }) => {
            (JobStatus::InProgress, format!("Step {step} of {steps} is done."))
        }
    };
    let mut fields = json!({ "job_id": id, "status": status });
    if let Some(Progress { step, steps, .. }) = progress {
        fields["step"] = json!(step);
        fields["steps"] = json!(steps);
    }
    let text = format!(
        "The pictures are not finished. {how_far} Call get_job with the job_id {id} to wait for them."
    );
    result(vec![ContentBlock::text(text)], fields)
}

/// What became of a job that was to be cancelled.
pub fn cancelled(name: &JobName, status: JobStatus) -> CallToolResult {
    let text = match status {
        JobStatus::Cancelled => "The job is cancelled.".to_owned(),
        status => format!("The job had ended before: its status is {status}."),
    };
    result(vec![ContentBlock::text(text)], json!({ "job_id": name.text(), "status": status }))
}

fn result(content: Vec<ContentBlock>, fields: Value) -> CallToolResult {
    let mut result = CallToolResult::success(content);
    result.structured_content = Some(fields);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sync-0199f6d2-8a3c-7c11-9d8e-2f6b1a4c5d6e";

    #[test]
    fn a_job_is_found_again_by_its_name_and_no_name_asks_for_too_much() {
        for (name, finish) in [("", "drawn-q90.jpeg"), ("/1024x1024-q90.png", "1024x1024-q90.png")] {
            let text = format!("{ID}{name}");
            let parsed = JobName::parse(&text).unwrap();
            assert_eq!((parsed.text(), parsed.finish.to_string()), (text, finish.to_owned()));
        }
        for name in [
            "",
            "a",
            "../x",
            "/99999x99999-q90.png",
            "/0x0-q90.png",
            "/drawn-q90.gif",
            "/",
            "/drawn-q90.png/",
        ] {
            assert!(
                JobName::parse(name).is_none()
                    && (name.is_empty() || JobName::parse(&format!("{ID}{name}")).is_none()),
                "{name}"
            );
        }
    }
}
