//! The bodies of all answers, by name.

use serde_json::json;
use utoipa::openapi::schema::{AdditionalProperties, OneOfBuilder};
use utoipa::openapi::{ComponentsBuilder, Object, Schema};

use super::schema::{choice, flag, integer, list, number, object, or_null, reference, text};
use crate::domain::{JobStatus, MAX_PROMPT_BYTES};

const CLOSED: Option<AdditionalProperties<utoipa::openapi::Schema>> =
    Some(AdditionalProperties::FreeForm(false));
const ID: &str = "The job's id";

pub(super) fn add(components: ComponentsBuilder) -> ComponentsBuilder {
    components
        .schema("Error", error())
        .schema("JobStatus", choice("The state of a job", JobStatus::ALL.map(JobStatus::as_str)).build())
        .schema("Job", job())
        .schema("Picture", picture())
        .schema("Progress", progress())
        .schema("Submitted", acknowledged("A job that is queued"))
        .schema(
            "Cancelled",
            acknowledged("The job's state after the request; a job that had already ended keeps its state"),
        )
        .schema("Purged", purged())
        .schema("Deleted", deleted())
        .schema("Model", model())
        .schema("ModelScheduler", model_scheduler())
        .schema("Prompt", prompt())
        .schema("Tokens", tokens())
        .schema("Health", health())
        .schema("Stream", stream())
        .schema("EventsUrl", events_url())
        .schema("Requests", requests())
}

fn error() -> Object {
    object("Why the request was refused")
        .property("error", text("One sentence"))
        .required("error")
        .additional_properties(CLOSED)
        .examples([json!({"error": "prompt is a required input."})])
        .build()
}

fn acknowledged(about: &str) -> Object {
    object(about)
        .property("id", text(ID))
        .property("status", reference("JobStatus"))
        .required("id")
        .required("status")
        .additional_properties(CLOSED)
        .examples([json!({"id": "0192f0c1-2b4e-7c3a-9d5e-6f7a8b9c0d1e", "status": "IN_QUEUE"})])
        .build()
}

/// A list, or an object for the AI SDK's provider.
fn output() -> Schema {
    let url = "The URL of the first picture; absent if all were withheld";
    let object = object("The same for an input in the dialect of RunPod's public endpoints")
        .property("image_url", text(url))
        .property("result", text(url))
        .property("cost", integer("Always 0"))
        .property("images", list("All pictures", reference("Picture")))
        .required("cost")
        .required("images")
        .additional_properties(CLOSED);
    OneOfBuilder::new()
        .item(list("The pictures of a COMPLETED job", reference("Picture")))
        .item(object)
        .description(Some("The pictures of a COMPLETED job"))
        .build()
        .into()
}

fn job() -> Object {
    object("A job as it is now")
        .property("id", text(ID))
        .property("status", reference("JobStatus"))
        .property("input", object("The input as the client sent it. In a list, a job whose input is larger than 16 KiB has none"))
        .property("delayTime", integer("Milliseconds in the queue; so far, while the job waits").minimum(Some(0)))
        .property("executionTime", integer("Milliseconds of work, when the job has ended").minimum(Some(0)))
        .property("gpu", text("The memory of the device that draws the job, in GiB, or `cpu`"))
        .property("output", output())
        .property("error", text("Why the job FAILED or TIMED_OUT"))
        .property(
            "warnings",
            list("What to know about the pictures of a COMPLETED job, such as a field that had no effect; absent if there is nothing", text("A sentence").build()),
        )
        .property("progress", reference("Progress"))
        .required("id")
        .required("status")
        .required("delayTime")
        .additional_properties(CLOSED)
        .examples([json!({
            "delayTime": 2188, "executionTime": 1297, "gpu": "24",
            "id": "0192f0c1-2b4e-7c3a-9d5e-6f7a8b9c0d1e", "input": {"prompt": "a red fox in the snow"},
            "output": [{"image": "http://127.0.0.1:8000/v2/stable-diffusion-v1/images/…/0.png?…", "seed": 42}],
            "status": "COMPLETED",
        })])
        .build()
}

fn picture() -> Object {
    object("One picture")
        .property(
            "image",
            or_null(text(
                "Its URL: needs no key, works until the job is deleted; null if the picture is withheld",
            )),
        )
        .property("prompt", text("What wildcards became in the prompt; only with `wildcards`"))
        .property("negative_prompt", text("The same for the negative prompt"))
        .property("nsfw", flag("True if the safety checker flagged the picture, which is then withheld"))
        .property(
            "seed",
            integer("The seed that draws this picture again, alone")
                .minimum(Some(0))
                .maximum(usize::try_from(u64::MAX).ok()),
        )
        .required("image")
        .required("seed")
        .additional_properties(CLOSED)
        .build()
}

fn progress() -> Object {
    object("The progress of a job IN_PROGRESS")
        .property("step", integer("Steps done").minimum(Some(0)))
        .property("steps", integer("Steps in all").minimum(Some(1)))
        .property("eta", or_null(number("Estimated milliseconds left").minimum(Some(0))))
        .required("step")
        .required("steps")
        .required("eta")
        .additional_properties(CLOSED)
        .build()
}

fn purged() -> Object {
    object("What was removed")
        .property("removed", integer("How many waiting jobs were removed").minimum(Some(0)))
        .property("status", choice("Always the same", ["completed"]))
        .required("removed")
        .required("status")
        .additional_properties(CLOSED)
        .examples([json!({"removed": 2, "status": "completed"})])
        .build()
}

fn deleted() -> Object {
    object("A job that is deleted")
        .property("id", text(ID))
        .property("status", choice("Always the same", ["deleted"]))
        .required("id")
        .required("status")
        .additional_properties(CLOSED)
        .build()
}

fn model() -> Object {
    let names = |about: &str, item: &str| list(about, text(item).build());
    object("What the model of an endpoint takes")
        .property("name", text("Its name"))
        .property("fields", names("The fields of `input` that have an effect", "A field"))
        .property(
            "required",
            names(
                "The fields that it cannot draw without; an InstructPix2Pix model needs `init_image`",
                "A field",
            ),
        )
        .property("defaults", object("Its own defaults, by field"))
        .property("schedulers", list("The schedulers", reference("ModelScheduler")))
        .property("grid", integer("Width and height are multiples of this").minimum(Some(1)))
        .property("max_clip_skip", integer("The largest `clip_skip`").minimum(Some(1)))
        .property("loras", names("The LoRAs on the server, sorted; empty if the model takes none", "A name"))
        .property("embeddings", names("The words of textual inversions, sorted", "A word"))
        .property(
            "controlnets",
            names("The ControlNets on the server, sorted; empty if the model takes none", "A name"),
        )
        .property("preprocessors", names("What prepares pictures for ControlNets", "A name"))
        .required("preprocessors")
        .property(
            "built_in_upscalers",
            names(
                "What enlarges without a model on the server; names with `latent` are for `hires` alone",
                "A name",
            ),
        )
        .required("built_in_upscalers")
        .property("upscalers", names("The upscaler models on the server, sorted", "A name"))
        .required("controlnets")
        .required("upscalers")
        .required("name")
        .required("fields")
        .required("required")
        .required("defaults")
        .required("schedulers")
        .required("grid")
        .required("max_clip_skip")
        .required("loras")
        .required("embeddings")
        .additional_properties(CLOSED)
        .build()
}

fn model_scheduler() -> Object {
    object("A scheduler")
        .property("name", text("Its name in `scheduler`"))
        .property("title", text("A1111's name for it"))
        .property("from_image", flag("Whether it can start from a picture"))
        .property("spacings", list("The values of `spacing` that it takes", text("A spacing").build()))
        .property(
            "options",
            list(
                "The fields of `input` that only some schedulers have, and this one has",
                text("A field").build(),
            ),
        )
        .required("name")
        .required("title")
        .required("from_image")
        .required("spacings")
        .required("options")
        .additional_properties(CLOSED)
        .build()
}

fn prompt() -> Object {
    object("A prompt to count")
        .property("prompt", text("The prompt").max_length(Some(MAX_PROMPT_BYTES)))
        .required("prompt")
        .additional_properties(CLOSED)
        .examples([json!({"prompt": "a red fox in the snow"})])
        .build()
}

fn tokens() -> Object {
    object("The length of a prompt")
        .property("tokens", integer("Tokens, with the vectors of textual inversions").minimum(Some(0)))
        .property("chunks", integer("Chunks that they fill").minimum(Some(1)))
        .property("room", integer("The tokens of one chunk").minimum(Some(1)))
        .required("tokens")
        .required("chunks")
        .required("room")
        .additional_properties(CLOSED)
        .build()
}

fn health() -> Object {
    let counts = |about: &str, names: [&'static str; 5]| {
        let counts = names.into_iter().fold(object(about), |counts, name| {
            counts.property(name, integer("How many").minimum(Some(0))).required(name)
        });
        counts.additional_properties(CLOSED).build()
    };
    object("The number of jobs and workers in each state")
        .property(
            "jobs",
            counts(
                "The endpoint's jobs that are still kept; `retried` counts all retries ever",
                ["completed", "failed", "inProgress", "inQueue", "retried"],
            ),
        )
        .property(
            "workers",
            counts("The endpoint's workers", ["idle", "initializing", "ready", "running", "throttled"]),
        )
        .required("jobs")
        .required("workers")
        .additional_properties(CLOSED)
        .build()
}

fn stream() -> Object {
    let step = object("A step, or one of the finished pictures")
        .property("step", integer("Steps done").minimum(Some(0)))
        .property("steps", integer("Steps in all").minimum(Some(1)))
        .property("eta_ms", or_null(number("Estimated milliseconds left").minimum(Some(0))))
        .property("preview", text("The picture so far, as a data URI"))
        .property("image", or_null(text("The URL of a finished picture; null if the picture is withheld")))
        .property("prompt", text("What wildcards became in the prompt; only with `wildcards`"))
        .property("negative_prompt", text("The same for the negative prompt"))
        .property("nsfw", flag("True if the safety checker flagged the picture, which is then withheld"))
        .property("seed", integer("The seed that draws the picture again, alone").minimum(Some(0)))
        .additional_properties(CLOSED);
    let chunk = object("One piece of output")
        .property("output", step)
        .required("output")
        .additional_properties(CLOSED);
    object("The output of a job that no reader has seen yet")
        .property("status", reference("JobStatus"))
        .property("stream", list("Empty if there is none", chunk.build()))
        .required("status")
        .required("stream")
        .additional_properties(CLOSED)
        .build()
}

fn events_url() -> Object {
    object("A URL at which a browser follows the job")
        .property("url", text("An absolute URL that needs no key"))
        .property("expires", integer("When it stops accepting listeners, in seconds since 1970"))
        .required("url")
        .required("expires")
        .additional_properties(CLOSED)
        .build()
}

fn requests() -> Object {
    object("A page of jobs")
        .property("requests", list("Newest first", reference("Job")))
        .property("cursor", or_null(text("Send it as `cursor` for the next page; null on the last page")))
        .required("requests")
        .required("cursor")
        .additional_properties(CLOSED)
        .build()
}
