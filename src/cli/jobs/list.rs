//! `stablehand jobs list`: one line for each job, or JSON.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::PlaceArgs;
use crate::cli::Failure;
use crate::cli::print::print;
use crate::cli::remote::{granted, printable};
use crate::domain::JobStatus;

/// The most jobs that one answer of the server has.
const PAGE: usize = 100;
/// How many characters of a prompt a line shows.
const PROMPT: usize = 60;

#[derive(Debug, Args)]
#[expect(clippy::doc_markdown, reason = "the help text is for a terminal")]
pub(super) struct ListArgs {
    /// Only jobs in this state, such as IN_QUEUE
    #[arg(long, value_parser = status)]
    status: Option<JobStatus>,
    /// Most jobs to list
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = limit)]
    limit: usize,
    /// Print a JSON list of the jobs as the API shows them
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

/// A state, however its name is written.
fn status(text: &str) -> Result<JobStatus, String> {
    let word = text.to_ascii_uppercase().replace(['-', ' '], "_");
    let all = || JobStatus::ALL.map(JobStatus::as_str).join(", ");
    JobStatus::parse(&word).ok_or_else(|| format!("it must be one of {}", all()))
}

fn limit(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|limit| *limit > 0)
        .ok_or_else(|| "it must be a whole number, 1 or more".to_owned())
}

pub(super) fn list(args: &ListArgs) -> Result<(), Failure> {
    let jobs = fetch(args)?;
    if args.json {
        return print(&format!("{:#}\n", Value::Array(jobs)));
    }
    let mut text = String::new();
    for job in &jobs {
        let _ = writeln!(text, "{}", line(job));
    }
    if jobs.is_empty() {
        text.push_str("no jobs\n");
    }
    print(&text)
}

/// The jobs, page by page.
fn fetch(args: &ListArgs) -> Result<Vec<Value>, Failure> {
    let server = args.place.server()?;
    let mut jobs = Vec::new();
    let mut cursor = None;
    while jobs.len() < args.limit {
        let mut path = args.place.path(&format!("requests?limit={}", (args.limit - jobs.len()).min(PAGE)));
        if let Some(status) = args.status {
            let _ = write!(path, "&status={status}");
        }
        if let Some(cursor) = cursor {
            let _ = write!(path, "&cursor={cursor}");
        }
        let mut page = granted(server.get(&path)?)?;
        if let Value::Array(found) = page["requests"].take() {
            jobs.extend(found);
        }
        cursor = page["cursor"].as_str().and_then(|cursor| cursor.parse::<u64>().ok());
        if cursor.is_none() {
            break;
        }
    }
    Ok(jobs)
}

/// Id, state, times and the beginning of the prompt.
fn line(job: &Value) -> String {
    let time = |field: &str| job[field].as_u64().map(Duration::from_millis);
    let [waited, took] = ["delayTime", "executionTime"].map(|field| {
        time(field).map_or_else(|| "-".to_owned(), |time| format!("{:.1}s", time.as_secs_f64()))
    });
    let prompt: String = job["input"]["prompt"].as_str().unwrap_or_default().chars().take(PROMPT).collect();
    let [id, status] = ["id", "status"].map(|field| job[field].as_str().unwrap_or("-"));
    let text = format!("{id}  {status:<11}  waited {waited:>7}  took {took:>7}  {prompt}");
    printable(text.trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_shows_a_job_and_nothing_that_a_terminal_obeys() {
        let job = json!({"id": "abc", "status": "COMPLETED", "delayTime": 1250, "executionTime": 61_000,
            "input": {"prompt": "a fox\n\u{1b}[31min the snow"}});
        assert_eq!(line(&job), "abc  COMPLETED    waited    1.2s  took   61.0s  a fox  [31min the snow");
        let queued = json!({"id": "abc", "status": "IN_QUEUE", "delayTime": 10});
        assert_eq!(line(&queued), "abc  IN_QUEUE     waited    0.0s  took       -");
    }
}
