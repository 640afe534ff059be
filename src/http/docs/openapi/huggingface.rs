//! Hugging Face's text-to-image and image-to-image. They are described where they are served.

use serde_json::json;
use utoipa::openapi::path::{OperationBuilder, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{ComponentsBuilder, Content, HttpMethod, Object, Required, Response, ResponseBuilder};

use super::operations::{AZURE, BASIC, BEARER, PLAIN, header_for};
use super::parameters::path;
use super::schema::{integer, number, object, or_null, reference, text};
use crate::http::request::{Api, Surface};

pub(super) fn add_paths(paths: PathsBuilder, api: &Api) -> PathsBuilder {
    if !api.settings.surfaces.contains(Surface::HuggingFace) {
        return paths;
    }
    let model = path("model", text("An endpoint, or the name of its model, perhaps behind `models/`"));
    paths.path("/huggingface", PathItem::new(HttpMethod::Post, drawing("huggingface"))).path(
        "/huggingface/{model}",
        PathItem::new(HttpMethod::Post, drawing("huggingface-model").parameter(model)),
    )
}

pub(super) fn add_schemas(components: ComponentsBuilder, api: &Api) -> ComponentsBuilder {
    if !api.settings.surfaces.contains(Surface::HuggingFace) {
        return components;
    }
    components.schema("Inference", request())
}

fn drawing(id: &str) -> OperationBuilder {
    let file = || Content::new(Some(text("A picture file").content_media_type("application/octet-stream")));
    let picture = ResponseBuilder::new()
        .description("The picture, in the format that `Accept` names first; otherwise PNG")
        .content("image/png", file())
        .content("image/jpeg", file())
        .content("image/webp", file())
        .build();
    let operation = OperationBuilder::new()
        .operation_id(Some(id))
        .summary(Some("Draw as Hugging Face's clients ask"))
        .tag("Hugging Face")
        .description(Some(
            "Text-to-image and image-to-image. It answers the bytes of one picture, and the job is deleted then. A client \
             that closes its connection cancels its job.",
        ))
        .request_body(Some(
            RequestBodyBuilder::new()
                .description(Some("Up to 10 MB of JSON, whatever its type says."))
                .required(Some(Required::True))
                .content("application/json", Content::new(Some(reference("Inference"))))
                .build(),
        ));
    let operation = [BEARER, PLAIN, AZURE, BASIC].into_iter().fold(operation, |operation, scheme| {
        operation.security(SecurityRequirement::new(scheme, [] as [&str; 0]))
    });
    operation
        .response("200", picture)
        .response("400", refusal("400", "A field is not valid, or the safety checker withheld the picture"))
        .response("401", refusal("401", "No valid API key"))
        .response("404", refusal("404", "No such model"))
        .response("405", refusal("405", "Wrong method: `Allow` lists the right ones"))
        .response("408", refusal("408", "The body arrived too slowly"))
        .response("413", refusal("413", "The body is too large"))
        .response("429", refusal("429", "Too many requests in 10 seconds or at once, or the queue is full"))
        .response("500", refusal("500", "The job failed"))
        .response(
            "503",
            refusal(
                "503",
                "The server cannot write to its disk now, receives too much at once, or is stopping",
            ),
        )
}

fn request() -> Object {
    let side = |about: &str| or_null(integer(about).minimum(Some(16)).maximum(Some(4096)));
    let parameters = object("How to draw it. Other keys are ignored.")
        .property("prompt", or_null(text("How to change the picture in `inputs`")))
        .property("negative_prompt", or_null(text("What the picture does not show")))
        .property("width", side("In pixels. What is beyond the model's limit is drawn smaller and enlarged"))
        .property("height", side("In pixels"))
        .property(
            "num_inference_steps",
            or_null(integer("Denoising steps").minimum(Some(1)).maximum(Some(500))),
        )
        .property(
            "guidance_scale",
            or_null(number("How closely to follow the prompt").exclusive_minimum(Some(0)).maximum(Some(20))),
        )
        .property("scheduler", or_null(text("The scheduler, by any of its names")))
        .property("seed", or_null(integer("The seed; −1 is random").minimum(Some(-1))))
        .property(
            "strength",
            or_null(number("How much of the picture may change").minimum(Some(0)).maximum(Some(1))),
        )
        .additional_properties(Some(AdditionalProperties::FreeForm(true)));
    object("What to draw. Other keys are ignored.")
        .property(
            "inputs",
            text("The prompt; or, where `parameters` have a prompt, a picture to change: base64, a data URI or a URL")
                .min_length(Some(1)),
        )
        .property("parameters", or_null(parameters))
        .required("inputs")
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .examples([json!({ "inputs": "a red fox in the snow", "parameters": { "seed": 42 } })])
        .build()
}

fn refusal(code: &str, why: &str) -> Response {
    let mut response = ResponseBuilder::new()
        .description(why)
        .content("application/json", Content::new(Some(reference("Error"))))
        .build();
    response.headers.extend(header_for(code));
    response
}
