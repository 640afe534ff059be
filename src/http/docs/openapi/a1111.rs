//! A1111's API: its operations and bodies. It is described where it is served.
//!
//! The types are those that clients should send. The server is looser: text that is a number is one, and `null` is absent.

use serde_json::json;
use utoipa::openapi::path::{OperationBuilder, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, Object, ObjectBuilder, Ref, Response, ResponseBuilder,
};

use super::operations::{AZURE, BASIC, BEARER, PLAIN, header_for};
use super::parameters::query;
use super::schema::{flag, integer, list, number, object, or_null, reference, text};
use crate::http::request::{Api, Surface};

const TAG: &str = "A1111 web UI";
const ERROR: &str = "A1111Error";

/// An operation: its method and path, its id, what it does, the schema of its body and that of its answer.
struct Row(HttpMethod, &'static str, &'static str, &'static str, Option<&'static str>, &'static str);

use HttpMethod::{Get, Post};

const DRAWN: &str = "A1111Pictures";
const LIST: &str = "A1111List";
const ANY: &str = "A1111Object";
const NOTHING: &str = "A1111Nothing";

const ROWS: [Row; 40] = [
    Row(Post, "/sdapi/v1/txt2img", "txt2img", "Draw from a prompt", Some("A1111Txt2Img"), DRAWN),
    Row(Post, "/sdapi/v1/img2img", "img2img", "Draw from a picture", Some("A1111Img2Img"), DRAWN),
    Row(
        Post,
        "/sdapi/v1/extra-single-image",
        "extra-single",
        "Enlarge a picture",
        Some("A1111Extra"),
        "A1111Picture",
    ),
    Row(
        Post,
        "/sdapi/v1/extra-batch-images",
        "extra-batch",
        "Enlarge pictures",
        Some("A1111Extras"),
        "A1111Enlarged",
    ),
    Row(Post, "/sdapi/v1/png-info", "png-info", "Read a picture's text", Some("A1111PngInfo"), "A1111Info"),
    Row(Get, "/sdapi/v1/progress", "progress", "How far the request is that is drawn", None, "A1111Progress"),
    Row(Post, "/internal/progress", "task", "How far one request is", Some(ANY), ANY),
    Row(Get, "/internal/pending-tasks", "pending", "Which requests wait", None, ANY),
    Row(Post, "/sdapi/v1/interrupt", "interrupt", "Stop the request that is drawn", Some(ANY), ANY),
    Row(Post, "/sdapi/v1/skip", "skip", "Stop its current batch", Some(ANY), NOTHING),
    Row(Get, "/sdapi/v1/options", "options", "The settings with a meaning here", None, ANY),
    Row(Post, "/sdapi/v1/options", "set-options", "Change them for all clients", Some(ANY), NOTHING),
    Row(Get, "/sdapi/v1/cmd-flags", "cmd-flags", "That the API is there", None, ANY),
    Row(Get, "/sdapi/v1/memory", "memory", "The memory of the machine and its card", None, ANY),
    Row(Post, "/sdapi/v1/unload-checkpoint", "unload", "Give the models' memory back", Some(ANY), ANY),
    Row(
        Post,
        "/sdapi/v1/reload-checkpoint",
        "reload",
        "Nothing: the next picture loads its model",
        Some(ANY),
        ANY,
    ),
    Row(Get, "/sdapi/v1/sd-models", "sd-models", "The endpoints as checkpoints", None, LIST),
    Row(Get, "/sdapi/v1/samplers", "samplers", "The samplers", None, LIST),
    Row(Get, "/sdapi/v1/schedulers", "schedulers", "How their steps can be spaced", None, LIST),
    Row(Get, "/sdapi/v1/upscalers", "upscalers", "What enlarges pictures", None, LIST),
    Row(Get, "/sdapi/v1/latent-upscale-modes", "latent-modes", "What enlarges latents", None, LIST),
    Row(Get, "/sdapi/v1/loras", "loras", "The LoRAs", None, LIST),
    Row(Get, "/sdapi/v1/embeddings", "embeddings", "The textual inversions", None, ANY),
    Row(Get, "/sdapi/v1/scripts", "scripts", "No script", None, ANY),
    Row(Get, "/sdapi/v1/sd-vae", "sd-vae", "An empty list", None, LIST),
    Row(Get, "/sdapi/v1/prompt-styles", "prompt-styles", "An empty list", None, LIST),
    Row(Get, "/sdapi/v1/face-restorers", "face-restorers", "An empty list", None, LIST),
    Row(Get, "/sdapi/v1/hypernetworks", "hypernetworks", "An empty list", None, LIST),
    Row(Get, "/sdapi/v1/realesrgan-models", "realesrgan-models", "An empty list", None, LIST),
    Row(Get, "/sdapi/v1/script-info", "script-info", "An empty list", None, LIST),
    Row(Get, "/sdapi/v1/extensions", "extensions", "An empty list", None, LIST),
    Row(
        Post,
        "/sdapi/v1/refresh-checkpoints",
        "refresh-checkpoints",
        "Nothing: folders are looked at anyway",
        Some(ANY),
        NOTHING,
    ),
    Row(
        Post,
        "/sdapi/v1/refresh-vae",
        "refresh-vae",
        "Nothing: folders are looked at anyway",
        Some(ANY),
        NOTHING,
    ),
    Row(
        Post,
        "/sdapi/v1/refresh-loras",
        "refresh-loras",
        "Nothing: folders are looked at anyway",
        Some(ANY),
        NOTHING,
    ),
    Row(
        Post,
        "/sdapi/v1/refresh-embeddings",
        "refresh-embeddings",
        "Nothing: folders are looked at anyway",
        Some(ANY),
        NOTHING,
    ),
    Row(Get, "/controlnet/version", "controlnet-version", "The version of the extension's API", None, ANY),
    Row(Get, "/controlnet/model_list", "controlnet-models", "The ControlNets", None, ANY),
    Row(Get, "/controlnet/module_list", "controlnet-modules", "The preprocessors", None, ANY),
    Row(Get, "/internal/ping", "ping", "Whether the server is there. It needs no key", None, ANY),
    Row(Post, "/internal/ping", "ping-post", "The same", Some(ANY), ANY),
];

pub(super) fn add_paths(mut paths: PathsBuilder, api: &Api) -> PathsBuilder {
    if !api.settings.surfaces.contains(Surface::A1111) {
        return paths;
    }
    // Two rows with one path are one item of the document: the builder joins them.
    for row in &ROWS {
        paths = paths.path(row.1, PathItem::new(row.0.clone(), operation(row)));
    }
    paths
}

pub(super) fn add_schemas(components: ComponentsBuilder, api: &Api) -> ComponentsBuilder {
    if !api.settings.surfaces.contains(Surface::A1111) {
        return components;
    }
    components
        .schema("A1111Txt2Img", txt2img())
        .schema("A1111Img2Img", img2img())
        .schema("A1111Extra", extra().property("image", picture()).required("image").build())
        .schema("A1111Extras", extras())
        .schema("A1111PngInfo", free("A picture").property("image", picture()).required("image").build())
        .schema(DRAWN, drawn())
        .schema("A1111Picture", enlarged("image", picture().build()))
        .schema("A1111Enlarged", enlarged("images", list("The pictures", picture().build())))
        .schema("A1111Info", info())
        .schema("A1111Progress", progress())
        .schema(LIST, list("One object for each", object("Its fields are A1111's")))
        .schema(ANY, free("Its fields are A1111's").build())
        .schema(
            NOTHING,
            ObjectBuilder::new().schema_type(utoipa::openapi::schema::Type::Null).description(Some("`null`")),
        )
        .schema(
            ERROR,
            free("Why the request was refused, in A1111's form: one sentence is in `detail`").build(),
        )
}

fn operation(Row(_, path, id, summary, body, answer): &Row) -> OperationBuilder {
    let mut operation = OperationBuilder::new()
        .operation_id(Some(format!("a1111-{id}")))
        .summary(Some(*summary))
        .description(Some(about(id)))
        .tag(TAG)
        .response("200", json_body("The answer", answer));
    if *path == "/internal/ping" {
        return operation;
    }
    for scheme in [BEARER, PLAIN, AZURE, BASIC] {
        operation = operation.security(SecurityRequirement::new(scheme, [] as [&str; 0]));
    }
    if *id == "progress" {
        operation = operation.parameter(query("skip_current_image", flag("Leaves the preview out")));
    }
    if let Some(body) = body {
        let content = Content::new(Some(reference(body)));
        let body = RequestBodyBuilder::new()
            .description(Some("JSON, whatever its type says."))
            .content("application/json", content);
        operation = operation.request_body(Some(body.build()));
    }
    for (code, why) in REFUSALS {
        operation = operation.response(*code, refusal(code, why));
    }
    operation
}

const REFUSALS: &[(&str, &str)] = &[
    ("400", "The body is no JSON object"),
    ("401", "No valid API key"),
    ("404", "No picture to start from"),
    ("405", "Wrong method: `Allow` lists the right ones"),
    ("408", "The body arrived too slowly"),
    ("413", "The body is too large"),
    ("422", "A field is not valid, or without what it asks for another picture would come out"),
    ("429", "Too many requests in 10 seconds or at once, or the queue is full"),
    ("500", "The job failed"),
    ("503", "The server cannot write to its disk now, receives too much at once, or is stopping"),
];

fn about(id: &str) -> &'static str {
    match id {
        "txt2img" | "img2img" => {
            "Answers when the pictures are there. The jobs are deleted then. A client that closes its connection cancels \
             them. What was ignored is said in `warnings`."
        }
        "interrupt" | "skip" => {
            "The request is still answered, with the pictures as far as they are drawn. Jobs of other APIs go on."
        }
        "progress" => "Reads as idle while nothing runs. Only requests of this API are shown.",
        _ => "As A1111's clients ask.",
    }
}

fn free(about: &str) -> ObjectBuilder {
    object(about).additional_properties(Some(AdditionalProperties::FreeForm(true)))
}

fn picture() -> ObjectBuilder {
    text("A picture in base64, also as a data URI")
}

fn request(about: &str) -> ObjectBuilder {
    free(about)
        .property("prompt", or_null(text("What the picture shows; empty draws too").default(Some(json!("")))))
        .property("negative_prompt", or_null(text("What the picture does not show").default(Some(json!("")))))
        .property(
            "seed",
            or_null(
                integer("The seed of the first picture; −1 is random")
                    .minimum(Some(-1))
                    .default(Some(json!(-1))),
            ),
        )
        .property("subseed", or_null(integer("The seed that is blended in").minimum(Some(-1))))
        .property("subseed_strength", or_null(number("How much of it").minimum(Some(0)).maximum(Some(1))))
        .property("sampler_name", or_null(text("By A1111's name, such as `DPM++ 2M`; also `sampler_index`")))
        .property("scheduler", or_null(text("How its steps are spaced, such as `Karras`")))
        .property(
            "steps",
            or_null(integer("Denoising steps").minimum(Some(1)).maximum(Some(500)).default(Some(json!(50)))),
        )
        .property(
            "cfg_scale",
            or_null(number("How closely to follow the prompt; at most 20 counts").default(Some(json!(7.0)))),
        )
        .property(
            "width",
            or_null(integer("In pixels").minimum(Some(16)).maximum(Some(4096)).default(Some(json!(512)))),
        )
        .property(
            "height",
            or_null(integer("In pixels").minimum(Some(16)).maximum(Some(4096)).default(Some(json!(512)))),
        )
        .property("batch_size", or_null(integer("Pictures in a batch").minimum(Some(1)).maximum(Some(800))))
        .property(
            "n_iter",
            or_null(integer("Batches, one after another").minimum(Some(1)).maximum(Some(800))),
        )
        .property(
            "denoising_strength",
            or_null(number("How much may change").minimum(Some(0)).maximum(Some(1))),
        )
        .property(
            "override_settings",
            or_null(free("Settings for this request, such as `sd_model_checkpoint`")),
        )
        .property("alwayson_scripts", or_null(free("Extensions: `ControlNet` with its units")))
        .property("send_images", or_null(flag("Whether the pictures are in the answer")))
}

fn txt2img() -> Object {
    request("What to draw. Other keys are ignored.")
        .property("enable_hr", or_null(flag("Draws a second time, larger")))
        .property("hr_scale", or_null(number("How much larger").minimum(Some(1)).default(Some(json!(2.0)))))
        .property("hr_upscaler", or_null(text("What enlarges, such as `Latent`")))
        .examples([json!({ "prompt": "a red fox in the snow", "steps": 20 })])
        .build()
}

fn img2img() -> Object {
    request("What to draw from a picture. Other keys are ignored.")
        .property("init_images", list("Of several, the first counts", picture().build()))
        .property("mask", or_null(text("White is repainted; of one with transparency, what is opaque")))
        .property("mask_blur", or_null(integer("In pixels").minimum(Some(0)).default(Some(json!(4)))))
        .property(
            "inpainting_mask_invert",
            or_null(integer("1 repaints what the mask does not show").minimum(Some(0)).maximum(Some(1))),
        )
        .property(
            "inpainting_fill",
            or_null(
                integer("0 surroundings, 1 original, 2 noise, 3 nothing").minimum(Some(0)).maximum(Some(3)),
            ),
        )
        .property(
            "inpaint_full_res",
            or_null(flag("Draws only the mask's surroundings, at the full size").default(Some(json!(true)))),
        )
        .property("inpaint_full_res_padding", or_null(integer("In pixels").minimum(Some(0))))
        .property(
            "resize_mode",
            or_null(
                integer("0 stretch, 1 crop, 2 fill, 3 stretch the latents").minimum(Some(0)).maximum(Some(3)),
            ),
        )
        .required("init_images")
        .build()
}

fn extra() -> ObjectBuilder {
    free("How to enlarge. Other keys are ignored.")
        .property(
            "upscaler_1",
            or_null(text("`Lanczos`, `Nearest` or an upscaler model; `None` changes nothing")),
        )
        .property(
            "resize_mode",
            or_null(integer("0 by a factor, 1 to a size").minimum(Some(0)).maximum(Some(1))),
        )
        .property(
            "upscaling_resize",
            or_null(number("The factor").minimum(Some(1)).maximum(Some(8)).default(Some(json!(2)))),
        )
        .property("upscaling_resize_w", or_null(integer("In pixels").minimum(Some(8)).maximum(Some(4096))))
        .property("upscaling_resize_h", or_null(integer("In pixels").minimum(Some(8)).maximum(Some(4096))))
        .property("upscaling_crop", or_null(flag("Cuts what lies beyond the size")))
}

fn extras() -> Object {
    let item = free("A picture").property("data", picture()).required("data").build();
    extra().property("imageList", list("At most 64", item)).required("imageList").build()
}

fn drawn() -> Object {
    object("The pictures")
        .property("images", list("In base64, without a prefix", picture().build()))
        .property("parameters", Ref::from_schema_name(ANY))
        .property("info", text("JSON as text: prompts, seeds, sampler, model and each picture's text"))
        .property(
            "warnings",
            list("What was ignored, a sentence each. Absent if there is nothing", text("A sentence").build()),
        )
        .required("images")
        .required("info")
        .build()
}

fn enlarged(name: &str, pictures: impl Into<utoipa::openapi::RefOr<utoipa::openapi::Schema>>) -> Object {
    object("What came out")
        .property(name, pictures)
        .property("html_info", text("Always empty"))
        .required(name)
        .build()
}

fn info() -> Object {
    object("The texts in a picture")
        .property("info", text("A1111's text; empty if there is none"))
        .property("items", Ref::from_schema_name(ANY))
        .property("parameters", Ref::from_schema_name(ANY))
        .required("info")
        .build()
}

fn progress() -> Object {
    object("How far it is")
        .property("progress", number("From 0 to 1; 0 is idle").minimum(Some(0)).maximum(Some(1)))
        .property("eta_relative", number("Seconds that are left"))
        .property("state", Ref::from_schema_name(ANY))
        .property("current_image", or_null(text("The latest preview in base64")))
        .property("textinfo", or_null(text("Always null")))
        .required("progress")
        .required("state")
        .build()
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
