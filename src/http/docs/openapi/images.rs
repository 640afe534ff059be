//! OpenAI's Images API: its operations and bodies. It is described where it is served.
//!
//! The types are those that clients should send. The server is looser: text that is a number is one.

use serde_json::json;
use utoipa::openapi::path::{OperationBuilder, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, Object, ObjectBuilder, Required, Response, ResponseBuilder,
};

use super::operations::{AZURE, BASIC, BEARER, PLAIN, header_for};
use super::parameters::path;
use super::schema::{choice, flag, integer, list, number, object, or_null, reference, text};
use crate::domain::MAX_OUTPUTS;
use crate::http::request::{Api, Surface};

const TAG: &str = "OpenAI Images";
const ERROR: &str = "OpenAiError";

pub(super) fn add_paths(paths: PathsBuilder, api: &Api) -> PathsBuilder {
    if !api.settings.surfaces.contains(Surface::OpenAi) {
        return paths;
    }
    paths
        .path("/images/generations", PathItem::new(HttpMethod::Post, generations()))
        .path("/images/edits", PathItem::new(HttpMethod::Post, edits()))
        .path("/models", PathItem::new(HttpMethod::Get, models()))
        .path("/models/{id}", PathItem::new(HttpMethod::Get, model()))
}

pub(super) fn add_schemas(components: ComponentsBuilder, api: &Api) -> ComponentsBuilder {
    if !api.settings.surfaces.contains(Surface::OpenAi) {
        return components;
    }
    components
        .schema("ImageRequest", request(object(REQUEST)).examples([example()]).build())
        .schema("ImageEdit", edit())
        .schema("Images", answer())
        .schema("OpenAiModel", served_model())
        .schema("OpenAiModels", served_models())
        .schema(ERROR, error())
}

const REQUEST: &str = "What to draw. Other keys are ignored. Our own fields work too, by the names that several programs \
have for them.";

fn example() -> serde_json::Value {
    json!({ "prompt": "a red fox in the snow", "size": "512x512", "response_format": "b64_json" })
}

fn generations() -> OperationBuilder {
    drawing("generations", "Draw as OpenAI's clients ask")
        .description(Some(
            "OpenAI's `images/generations`. It answers when the pictures are there. The job is deleted then, unless its \
             pictures were answered as URLs. A client that closes its connection cancels its job.",
        ))
        .request_body(Some(
            RequestBodyBuilder::new()
                .description(Some("Up to 10 MB of JSON, whatever its type says."))
                .required(Some(Required::True))
                .content("application/json", Content::new(Some(reference("ImageRequest"))))
                .build(),
        ))
}

fn edits() -> OperationBuilder {
    drawing("edits", "Change a picture as OpenAI's clients ask")
        .description(Some(
            "OpenAI's `images/edits`. The transparent part of the mask is repainted; of a mask without transparency the \
             white part. Without a mask, the transparent part of the picture is repainted; without that, all of it changes. \
             An InstructPix2Pix model changes all of it and takes no mask.",
        ))
        .request_body(Some(
            RequestBodyBuilder::new()
                .description(Some(
                    "Up to 20 MB. JSON works as well, with the picture's URL or data URI in `images`. A URL needs a `size`.",
                ))
                .required(Some(Required::True))
                .content("multipart/form-data", Content::new(Some(reference("ImageEdit"))))
                .build(),
        ))
}

fn drawing(id: &str, summary: &str) -> OperationBuilder {
    let images = ResponseBuilder::new()
        .description("The pictures; with `stream`, server-sent events with previews and then the pictures")
        .content("application/json", Content::new(Some(reference("Images"))))
        .content("text/event-stream", Content::new(Some(text("Events").build())))
        .build();
    operation(id, summary)
        .response("200", images)
        .response("400", refusal("400", "A field is not valid, or the safety checker withheld all pictures"))
        .response("401", refusal("401", "No valid API key"))
        .response("404", refusal("404", "No such model"))
        .response("405", refusal("405", "Wrong method: `Allow` lists the right ones"))
        .response("408", refusal("408", "The body arrived too slowly"))
        .response("413", refusal("413", "The body is too large"))
        .response("429", refusal("429", "Too many requests in 10 seconds or at once, or the queue is full"))
        .response(
            "500",
            refusal("500", "The job failed. `x-should-retry: false` says that another try would fail too"),
        )
        .response(
            "503",
            refusal(
                "503",
                "The server cannot write to its disk now, receives too much at once, or is stopping",
            ),
        )
}

fn models() -> OperationBuilder {
    looking("models", "List the models").response("200", json_body("The endpoints", "OpenAiModels"))
}

fn model() -> OperationBuilder {
    looking("model", "Look at a model")
        .parameter(path("id", text("The model's id")))
        .response("200", json_body("The endpoint", "OpenAiModel"))
        .response("404", refusal("404", "No such model"))
}

fn looking(id: &str, summary: &str) -> OperationBuilder {
    operation(id, summary)
        .description(Some("As OpenAI's clients ask. Each endpoint of this server is a model."))
        .response("401", refusal("401", "No valid API key"))
        .response("405", refusal("405", "Wrong method: `Allow` lists the right ones"))
        .response("429", refusal("429", "Too many requests in 10 seconds or at once"))
        .response("500", refusal("500", "Internal server error"))
}

fn operation(id: &str, summary: &str) -> OperationBuilder {
    let operation =
        OperationBuilder::new().operation_id(Some(format!("openai-{id}"))).summary(Some(summary)).tag(TAG);
    [BEARER, PLAIN, AZURE, BASIC].into_iter().fold(operation, |operation, scheme| {
        operation.security(SecurityRequirement::new(scheme, [] as [&str; 0]))
    })
}

/// The fields that generations and edits share.
fn request(body: ObjectBuilder) -> ObjectBuilder {
    let word = |about: &str, words: &[&'static str]| or_null(choice(about, words.iter().copied()));
    body.property("prompt", text("What the picture shows").min_length(Some(1)).max_length(Some(32_000)))
        .property(
            "model",
            or_null(text("An endpoint of this server, or its model. OpenAI's names mean the default endpoint")),
        )
        .property(
            "n",
            or_null(integer("Pictures to draw").minimum(Some(1)).maximum(Some(MAX_OUTPUTS)).default(Some(json!(1)))),
        )
        .property(
            "size",
            or_null(text(
                "`WIDTHxHEIGHT` in pixels, each from 16 to 4096, or `auto`. What is beyond the model's limit is drawn \
                 smaller and enlarged",
            )),
        )
        .property(
            "response_format",
            word(
                "How pictures come. If absent, the model's name decides: base64 for `gpt-image-…`, URLs for `dall-e-…`, \
                 otherwise both",
                &["b64_json", "url"],
            ),
        )
        .property(
            "quality",
            word(
                "low means 15 steps, medium 25, high and above 50",
                &["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"],
            ),
        )
        .property("output_format", word("The format of the pictures", &["png", "jpeg", "webp"]))
        .property(
            "output_compression",
            or_null(integer("The quality of JPEG; WebP and PNG lose nothing").minimum(Some(0)).maximum(Some(100))),
        )
        .property("stream", or_null(flag("Answers with server-sent events")))
        .property(
            "partial_images",
            or_null(integer("The most previews in a stream").minimum(Some(0)).maximum(Some(3))),
        )
        .property("negative_prompt", or_null(text("What the picture does not show")))
        .property("seed", or_null(integer("The seed of the first picture; −1 is random").minimum(Some(-1))))
        .property(
            "steps",
            or_null(integer("Denoising steps; also `num_inference_steps`").minimum(Some(1)).maximum(Some(500))),
        )
        .property(
            "cfg_scale",
            or_null(
                number("How closely to follow the prompt; also `guidance_scale`")
                    .exclusive_minimum(Some(0))
                    .maximum(Some(20)),
            ),
        )
        .property("sampler", or_null(text("The scheduler, by any of its names; also `scheduler`")))
        .required("prompt")
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
}

fn edit() -> Object {
    let file = |about: &str| text(about).content_media_type("application/octet-stream");
    request(object(
        "A picture and how to change it. Other parts are ignored. Parts of text have the fields of `ImageRequest`.",
    ))
    .property("image", file("A picture file. `image[]` works as well; of several, the first counts"))
    .property("mask", file("What to repaint: the transparent part, or the white part of a file without one"))
    .property(
        "strength",
        or_null(
            number("How much of the picture may change; InstructPix2Pix models have `image_guidance_scale` instead")
                .minimum(Some(0))
                .maximum(Some(1))
                .default(Some(json!(0.75))),
        ),
    )
    .property("mask_invert", or_null(flag("Repaints what the mask does not show")))
    .property(
        "image_guidance_scale",
        or_null(
            number("How closely an InstructPix2Pix model keeps to the picture")
                .exclusive_minimum(Some(0))
                .maximum(Some(20))
                .default(Some(json!(1.5))),
        ),
    )
    .required("image")
    .build()
}

fn answer() -> Object {
    let picture = object("One picture")
        .property("b64_json", text("The file in base64"))
        .property("url", text("Its URL: needs no key, works for as long as a job of run is kept"))
        .build();
    let count = |about: &str| integer(about).minimum(Some(0));
    let details = object("Always 0").property("text_tokens", count("0")).property("image_tokens", count("0"));
    let usage = object("Always 0: nothing is counted in tokens")
        .property("input_tokens", count("0"))
        .property("output_tokens", count("0"))
        .property("total_tokens", count("0"))
        .property("input_tokens_details", details);
    object("The pictures")
        .property("created", integer("Seconds since 1970"))
        .property("data", list("Without those that the safety checker withheld", picture))
        .property("size", text("`WIDTHxHEIGHT`"))
        .property("quality", choice("The quality", ["low", "medium", "high"]))
        .property("background", choice("Always the same", ["opaque"]))
        .property("output_format", choice("The format", ["png", "jpeg", "webp"]))
        .property("usage", usage)
        .property(
            "warnings",
            list(
                "What to know about the pictures, a sentence each. Absent if there is nothing",
                text("A sentence").build(),
            ),
        )
        .required("created")
        .required("data")
        .build()
}

fn served_model() -> Object {
    object("An endpoint")
        .property("id", text("Its id"))
        .property("object", choice("Always the same", ["model"]))
        .property("created", integer("When the server started, in seconds since 1970"))
        .property("owned_by", text("Always the same"))
        .required("id")
        .required("object")
        .build()
}

fn served_models() -> Object {
    object("The endpoints")
        .property("object", choice("Always the same", ["list"]))
        .property("data", list("In the order of the configuration", reference("OpenAiModel")))
        .required("object")
        .required("data")
        .build()
}

fn error() -> Object {
    let error = object("The error")
        .property("message", text("One sentence"))
        .property("type", choice("The kind", ["invalid_request_error", "rate_limit_error", "server_error"]))
        .property("param", or_null(text("The field")))
        .property("code", or_null(text("The reason, for programs")))
        .required("message")
        .required("type");
    object("Why the request was refused, in OpenAI's form").property("error", error).required("error").build()
}

fn json_body(about: &str, schema: &str) -> Response {
    ResponseBuilder::new()
        .description(about)
        .content("application/json", Content::new(Some(reference(schema))))
        .build()
}

fn refusal(code: &str, why: &str) -> Response {
    let mut response = json_body(why, ERROR);
    response.headers.extend(header_for(code));
    response
}
