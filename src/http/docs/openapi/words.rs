//! What the document says about each operation.

use crate::http::request::Operation;
use crate::wire::JobEvent;

/// The texts of one operation.
pub(super) struct Words {
    pub summary: &'static str,
    pub about: String,
    /// The name of the answer's schema, and a description of the answer.
    pub answer: (&'static str, &'static str),
}

pub(super) fn words(operation: Operation) -> Words {
    let (summary, about, answer) = match operation {
        Operation::Run => (
            "Submit a job",
            "Queues a job and answers its id at once. The job is already on the disk. An `input` with `size`, `guidance`, \
             `image_format`, `enable_safety_checker`, `image`, `images` or `aspect_ratio` is read in the dialect of \
             RunPod's public endpoints, and its `output` is an object."
                .to_owned(),
            ("Submitted", "The job's id"),
        ),
        Operation::RunSync => (
            "Submit a job and wait for it",
            "Queues a job and answers when it has ended. When `wait` is over, answers the job as it is then. `input` is read \
             as by run."
                .to_owned(),
            ("Job", "The job"),
        ),
        Operation::Status => (
            "Look at a job",
            "The job as it is now, with its pictures if it has completed.".to_owned(),
            ("Job", "The job"),
        ),
        Operation::StatusSync => (
            "Wait for a job",
            "Answers when the job has ended. When `wait` is over, answers the job as it is then.".to_owned(),
            ("Job", "The job"),
        ),
        Operation::Cancel => (
            "Cancel a job",
            "A running job stops at its next step. A job that has already ended keeps its state.".to_owned(),
            ("Cancelled", "The job's state after the request"),
        ),
        Operation::Retry => (
            "Retry a job",
            "Puts a FAILED or TIMED_OUT job back into the queue. Its old output is removed.".to_owned(),
            ("Submitted", "The job, queued again"),
        ),
        Operation::PurgeQueue => (
            "Remove all waiting jobs",
            "Running jobs continue.".to_owned(),
            ("Purged", "How many jobs were removed"),
        ),
        Operation::Health => {
            ("Count jobs and workers", "How busy the endpoint is.".to_owned(), ("Health", "The counts"))
        }
        Operation::Stream => (
            "Poll a job's progress",
            "The output that no reader has seen yet: steps while the job runs, then pictures. If there is none, the \
             answer waits up to 5 seconds. Reading removes the output, for all readers."
                .to_owned(),
            ("Stream", "The new output; it may be empty"),
        ),
        Operation::Events => ("Follow a job in a browser", events(), ("", "Events until the job ends")),
        Operation::EventsUrl => (
            "Get a URL for events",
            "A signed URL at which a browser follows this job without a key. It accepts new listeners for 10 \
             minutes."
                .to_owned(),
            ("EventsUrl", "The URL"),
        ),
        Operation::Requests => (
            "List jobs",
            "The endpoint's jobs, newest first, in pages.".to_owned(),
            ("Requests", "One page"),
        ),
        Operation::Delete => (
            "Delete a job",
            "Deletes a job that has ended, with its pictures, before its time is over.".to_owned(),
            ("Deleted", "The job is deleted"),
        ),
        Operation::Model => (
            "Look at the model",
            "Which fields the model takes, its defaults, and the LoRAs and textual inversions that are there.".to_owned(),
            ("Model", "The model"),
        ),
        Operation::Tokens => (
            "Count a prompt's tokens",
            "How many tokens and chunks the model reads. LoRA tags are not counted.".to_owned(),
            ("Tokens", "The counts"),
        ),
    };
    Words { summary, about, answer }
}

fn events() -> String {
    let [first @ .., last] = JobEvent::ALL.map(|event| format!("`{}`", event.name()));
    format!(
        "Server-Sent Events: {} and, last, {last}. Every listener gets all of them. Send a key, or use a URL from \
         `POST …/url`: a browser's `EventSource` cannot send a key.",
        first.join(", ")
    )
}
