//! What the tools take and answer, in JSON Schema. Limits and defaults come from the fields of `input`.

use serde_json::{Map, Value, json};

use super::super::answer::JPEG_QUALITY;
use super::super::wait::{MAX_WAIT_S, WAIT_S};
use crate::diffusion::image::PictureFile;
use crate::domain::{ImageSize, InputRules, JobStatus, SchedulerKind};
use crate::http::docs::input_fields;
use crate::http::request::Endpoints;
use crate::http::surface::{MAX_SIDE, SHORTEST};

/// The size of pictures when a call asks for none: that of the field of `input`.
pub const OWN_SIZE: ImageSize = ImageSize { width: 512, height: 512 };
pub const FORMAT: PictureFile = PictureFile::Jpeg;

/// The arguments that are fields of `input` under a shorter name.
const FIELDS: [(&str, &str); 7] = [
    ("prompt", "prompt"),
    ("negative_prompt", "negative_prompt"),
    ("count", "num_outputs"),
    ("steps", "num_inference_steps"),
    ("guidance", "guidance_scale"),
    ("scheduler", "scheduler"),
    ("seed", "seed"),
];
const IMAGE_FIELDS: [(&str, &str); 3] =
    [("image", "init_image"), ("mask", "mask"), ("strength", "prompt_strength")];

pub fn generate(endpoints: &Endpoints) -> Map<String, Value> {
    let about = |side: &str| {
        format!("The {side} of the picture in pixels. Sizes beyond the model's limit are enlarged")
    };
    let mut properties = fields(endpoints, &FIELDS);
    for (side, default) in [("width", OWN_SIZE.width), ("height", OWN_SIZE.height)] {
        properties.insert(side.to_owned(), pixels(&about(side), Some(default)));
    }
    finish(endpoints, properties, &["prompt"])
}

pub fn edit(endpoints: &Endpoints) -> Map<String, Value> {
    let about = |side: &str| {
        format!("The {side} of the new picture in pixels; that of image if absent, unless image is a URL")
    };
    let mut properties = fields(endpoints, &IMAGE_FIELDS);
    properties.extend(fields(endpoints, &FIELDS));
    for side in ["width", "height"] {
        properties.insert(side.to_owned(), pixels(&about(side), None));
    }
    finish(endpoints, properties, &["prompt", "image"])
}

pub fn upscale(endpoints: &Endpoints) -> Map<String, Value> {
    let mut properties = fields(endpoints, &[("image", "init_image"), ("upscale", "upscale")]);
    if let Some(Value::Object(image)) = properties.get_mut("image") {
        image.insert(
            "description".to_owned(),
            json!("The picture to enlarge; an http(s) URL, a data URI or plain base64"),
        );
    }
    let object =
        properties.remove("upscale").and_then(|mut object| object.get_mut("properties").map(Value::take));
    let Some(Value::Object(own)) = object else { return finish(endpoints, properties, &["image"]) };
    // `model` is the model to draw with, in all tools.
    let named = |(name, schema)| (if name == "model" { "upscaler".to_owned() } else { name }, plain(schema));
    properties.extend(own.into_iter().map(named));
    finish(endpoints, properties, &["image"])
}

/// `waits`: whether the tool waits for the job.
pub fn job(waits: bool) -> Map<String, Value> {
    let id = json!({ "type": "string", "description": "The job_id of an earlier result" });
    let mut properties = Map::from_iter([("job_id".to_owned(), id)]);
    if waits {
        properties.insert("wait_seconds".to_owned(), wait());
    }
    object(properties, &["job_id"])
}

fn wait() -> Value {
    json!({
        "type": "integer", "minimum": 0, "maximum": MAX_WAIT_S, "default": WAIT_S,
        "description": "How long to wait for the pictures. If they are not finished then, the result has a job_id for get_job",
    })
}

pub fn nothing() -> Map<String, Value> {
    object(Map::new(), &[])
}

/// What the tools that draw or look at a job answer, beside the pictures.
pub fn pictures() -> Map<String, Value> {
    let picture = json!({
        "type": "object",
        "properties": {
            "seed": { "type": "integer", "description": "Draws this picture again, with the same arguments" },
            "width": { "type": "integer" },
            "height": { "type": "integer" },
            "mime_type": { "type": "string" },
            "url": { "type": "string", "description": "Where the picture is, if its job has put it into a bucket" },
        },
        "required": ["seed"],
    });
    let properties = json!({
        "job_id": { "type": "string", "description": "For get_job and cancel_job, while the job is not finished" },
        "status": { "type": "string", "enum": JobStatus::ALL.map(JobStatus::as_str) },
        "step": { "type": "integer", "description": "The steps that are done" },
        "steps": { "type": "integer", "description": "The steps that the job has" },
        "images": { "type": "array", "items": picture, "description": "The pictures of this result, in their order" },
        "withheld": { "type": "integer", "description": "Pictures that the safety checker withheld" },
        "warnings": { "type": "array", "items": { "type": "string" } },
    });
    output(properties, &["job_id", "status"])
}

pub fn models() -> Map<String, Value> {
    let names = json!({ "type": "array", "items": { "type": "string" } });
    let model = json!({
        "type": "object",
        "properties": {
            "id": { "type": "string", "description": "The argument model of the other tools" },
            "name": { "type": "string" },
            "is_default": { "type": "boolean" },
            "edits_images": { "type": "boolean", "description": "Whether edit_image works with it" },
            "scheduler": { "type": "string", "description": "Its default scheduler" },
            "loras": names,
        },
        "required": ["id", "name", "is_default", "edits_images", "scheduler", "loras"],
    });
    let properties = json!({ "models": { "type": "array", "items": model }, "schedulers": names });
    output(properties, &["models", "schedulers"])
}

/// Adds what both tools that draw take.
fn finish(
    endpoints: &Endpoints,
    mut properties: Map<String, Value>,
    required: &[&str],
) -> Map<String, Value> {
    let ids = endpoints.names();
    let default = endpoints.default_one().map(|endpoint| endpoint.id.as_str());
    let model = json!({
        "type": "string", "enum": ids, "default": default,
        "description": "The model to draw with; list_models tells more",
    });
    let format = json!({
        "type": "string", "enum": PictureFile::ALL.map(PictureFile::as_str), "default": FORMAT.as_str(),
        "description": format!("The file format: jpeg (quality {JPEG_QUALITY}) is small, png and webp lose nothing"),
    });
    properties.extend([
        ("model".to_owned(), model),
        ("format".to_owned(), format),
        ("wait_seconds".to_owned(), wait()),
    ]);
    object(properties, required)
}

/// Fields of `input` by the names that the arguments have.
fn fields(endpoints: &Endpoints, names: &[(&str, &str)]) -> Map<String, Value> {
    let rules = endpoints.default_one().map(|endpoint| endpoint.rules.clone()).unwrap_or_default();
    let known = known(&rules);
    let field = |(name, field): &(&str, &str)| Some(((*name).to_owned(), known.get(*field)?.clone()));
    names.iter().filter_map(field).collect()
}

fn known(rules: &InputRules) -> Map<String, Value> {
    let plain = |(name, schema)| Some((String::from(name), plain(serde_json::to_value(schema).ok()?)));
    let mut known: Map<String, Value> = input_fields(rules).into_iter().filter_map(plain).collect();
    // A language model reads every word: one name for each scheduler is enough.
    if let Some(scheduler) = known.get_mut("scheduler") {
        scheduler["enum"] = json!(SchedulerKind::ALL.map(SchedulerKind::as_str));
    }
    // Many clients read numbers into 53 or 63 bits, and then this limit is none of the seed's.
    if let Some(Value::Object(seed)) = known.get_mut("seed") {
        seed.remove("maximum");
    }
    known
}

/// The schema of a field without `null`: language models leave arguments out, and some providers take only one type.
fn plain(mut schema: Value) -> Value {
    if let Some(first) = schema["type"].as_array().and_then(|types| types.first()).cloned() {
        schema["type"] = first;
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    schema
}

fn pixels(about: &str, default: Option<u32>) -> Value {
    let mut side =
        json!({ "type": "integer", "minimum": SHORTEST, "maximum": MAX_SIDE, "description": about });
    if let Some(default) = default {
        side["default"] = json!(default);
    }
    side
}

/// An object that has these properties and no others.
fn object(properties: Map<String, Value>, required: &[&str]) -> Map<String, Value> {
    let mut schema = output(Value::Object(properties), required);
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema
}

fn output(properties: Value, required: &[&str]) -> Map<String, Value> {
    Map::from_iter([
        ("type".to_owned(), json!("object")),
        ("properties".to_owned(), properties),
        ("required".to_owned(), json!(required)),
    ])
}
