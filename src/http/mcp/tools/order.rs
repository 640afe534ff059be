//! What a call asks for, read into the `input` of a job.

use serde_json::Map;

use super::super::answer::JPEG_QUALITY;
use super::super::{Mcp, McpError};
use super::schema::{FORMAT, OWN_SIZE};
use crate::diffusion::image::PictureFile;
use crate::domain::{ImageSize, ImageSource, JobKind, MAX_OUTPUTS, NewJob};
use crate::http::request::{Endpoints, ServedEndpoint};
use crate::http::surface::{Canvas, FieldError, Fields, Finish, SurfaceError, Translation, upload};

/// A job, and how its pictures are answered.
pub struct Order {
    pub job: NewJob,
    pub finish: Finish,
}

/// New pictures from a prompt.
pub fn generate(fields: &Fields, endpoints: &Endpoints) -> Result<Order, McpError> {
    let endpoint = endpoint(fields, endpoints)?;
    let canvas = canvas(fields, endpoint, OWN_SIZE)?;
    order(fields, endpoint, canvas, Translation::default())
}

/// A picture that changes another one. Blocks while that is decoded.
pub fn edit(fields: &Fields, endpoints: &Endpoints) -> Result<Order, McpError> {
    let endpoint = endpoint(fields, endpoints)?;
    let mut translation = Translation::default();
    let image =
        fields.text(&["image"])?.ok_or_else(|| FieldError::new("image", "image is a required input."))?;
    let size = match source("image", &image)? {
        ImageSource::Bytes(bytes) => upload::size(&bytes),
        // It is fetched after the job has begun, when its size is settled.
        ImageSource::Url(_) => None,
    };
    let canvas = match size {
        Some(size) if fields.name_of(&["width", "height"]).is_none() => {
            Canvas::like(size, endpoint.rules.grid)
        }
        Some(size) => canvas(fields, endpoint, size)?,
        None if has(fields, "width") && has(fields, "height") => canvas(fields, endpoint, OWN_SIZE)?,
        None => {
            let sentence = "width and height are required with the URL of an image.";
            return Err(FieldError::new("width", sentence).into());
        }
    };
    translation.set_from("init_image", "image", image);
    if let Some(mask) = fields.text(&["mask"])? {
        source("mask", &mask)?;
        translation.set_from("mask", "mask", mask);
    }
    translation.number("prompt_strength", fields, &["strength"])?;
    order(fields, endpoint, canvas, translation)
}

/// A picture that is only enlarged. Blocks while that is decoded.
pub fn upscale(fields: &Fields, endpoints: &Endpoints) -> Result<Order, McpError> {
    let endpoint = endpoint(fields, endpoints)?;
    let image =
        fields.text(&["image"])?.ok_or_else(|| FieldError::new("image", "image is a required input."))?;
    source("image", &image)?;
    let mut upscale = Map::new();
    if let Some(scale) = fields.number(&["scale"])? {
        upscale.insert("scale".to_owned(), scale.into());
    }
    for name in ["width", "height"] {
        if let Some(side) = fields.integer(&[name])? {
            // 0 is refused, as any other number of pixels that there cannot be.
            upscale.insert(name.to_owned(), u32::try_from(side).unwrap_or(0).into());
        }
    }
    if let Some(upscaler) = fields.text(&["upscaler"])? {
        upscale.insert("model".to_owned(), upscaler.into());
    }
    let mut to = Translation::default();
    to.set_from("init_image", "image", image);
    to.set("upscale", upscale);
    for (name, argument) in [
        ("upscale.scale", "scale"),
        ("upscale.width", "width"),
        ("upscale.height", "height"),
        ("upscale.model", "upscaler"),
    ] {
        to.sent_as(name, argument);
    }
    let finish = Finish { size: None, format: format(fields)?, quality: JPEG_QUALITY };
    Ok(Order { job: to.into_job::<Mcp>(endpoint, JobKind::Held)?, finish })
}

fn has(fields: &Fields, name: &str) -> bool {
    fields.name_of(&[name]).is_some()
}

fn order(
    fields: &Fields,
    endpoint: &ServedEndpoint,
    canvas: Canvas,
    mut to: Translation,
) -> Result<Order, McpError> {
    to.text("prompt", fields, &["prompt"])?;
    to.text("negative_prompt", fields, &["negative_prompt"])?;
    to.integer("num_outputs", fields, &["count"])?;
    to.integer("num_inference_steps", fields, &["steps"])?;
    to.number("guidance_scale", fields, &["guidance"])?;
    to.text("scheduler", fields, &["scheduler"])?;
    to.seed(fields, &["seed"])?;
    to.set_from("width", "width", canvas.drawn.width);
    to.set_from("height", "height", canvas.drawn.height);
    let finish = Finish { size: canvas.enlarge_to(), format: format(fields)?, quality: JPEG_QUALITY };
    Ok(Order { job: to.into_job::<Mcp>(endpoint, JobKind::Held)?, finish })
}

/// The endpoint that the argument `model` means; the default one without it.
fn endpoint<'a>(fields: &Fields, endpoints: &'a Endpoints) -> Result<&'a ServedEndpoint, McpError> {
    let name = fields.text(&["model"])?.unwrap_or_default();
    let found = match name.trim() {
        "" => endpoints.default_one(),
        name => endpoints.named(name),
    };
    Ok(found.ok_or_else(|| SurfaceError::no_model(&name, endpoints))?)
}

fn canvas(fields: &Fields, endpoint: &ServedEndpoint, default: ImageSize) -> Result<Canvas, FieldError> {
    let side = |name: &str, default: u32| match fields.integer(&[name])? {
        None => Ok(default),
        Some(side) => u32::try_from(side)
            .map_err(|_| FieldError::new(name, format!("{name} is not a number of pixels."))),
    };
    let asked = ImageSize { width: side("width", default.width)?, height: side("height", default.height)? };
    // A count that is out of bounds is refused with the other fields.
    let count = fields.integer(&["count"])?.unwrap_or(1).clamp(1, MAX_OUTPUTS.into());
    let count = u32::try_from(count).unwrap_or(MAX_OUTPUTS);
    Canvas::new(asked, count, endpoint.rules.grid).map_err(|sentence| {
        FieldError::new("width", format!("width does not meet the constraints. {sentence}"))
    })
}

fn format(fields: &Fields) -> Result<PictureFile, FieldError> {
    let Some(name) = fields.word(&["format"])? else { return Ok(FORMAT) };
    PictureFile::parse(&name).ok_or_else(|| {
        let known = PictureFile::ALL.map(PictureFile::as_str).join(", ");
        FieldError::new("format", format!("format should be one of {known}."))
    })
}

/// A picture in an argument.
fn source(name: &str, text: &str) -> Result<ImageSource, FieldError> {
    ImageSource::parse(text).map_err(|sentence| {
        // Base64 has no dots.
        let is_path = text.len() < 4096 && text.contains('.') && !text.starts_with("data:");
        let sentence = match is_path {
            true => "It looks like the path of a file, which only `stablehand mcp` can read: send the picture as base64.",
            false => &sentence,
        };
        FieldError::new(name, format!("{name} does not meet the constraints. {sentence}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{EndpointId, InputRules};

    fn endpoints() -> Endpoints {
        let served = |id: &str, model: &str| {
            let rules = InputRules { grid: 8, ..InputRules::default() };
            ServedEndpoint { id: EndpointId::new(id), rules, model: model.to_owned() }
        };
        Endpoints::new(vec![served("first", "sd15"), served("anything", "anything-v3")])
    }

    fn fields(arguments: &Value) -> Fields {
        Fields::new(arguments.as_object().unwrap().clone())
    }

    fn input(order: &Order) -> Value {
        serde_json::from_str(&order.job.input).unwrap()
    }

    #[test]
    fn arguments_become_our_fields() {
        let arguments = json!({"prompt": "a fox", "negative_prompt": "b", "count": "2", "steps": 4, "guidance": 5.5,
            "scheduler": "K_EULER", "seed": -1, "width": 1024, "height": 1024, "model": "Anything-V3", "format": "png"});
        let order = generate(&fields(&arguments), &endpoints()).ok().unwrap();
        let expected = json!({"prompt": "a fox", "negative_prompt": "b", "num_outputs": 2, "num_inference_steps": 4,
            "guidance_scale": 5.5, "scheduler": "K_EULER", "width": 880, "height": 880});
        assert_eq!((input(&order), order.job.endpoint.as_str()), (expected, "anything"));
        assert_eq!(order.finish.to_string(), "1024x1024-q90.png");
    }

    #[test]
    fn a_picture_is_only_enlarged() {
        let image = "https://pictures.example/fox.png";
        let enlarged = |arguments: Value| {
            input(&upscale(&fields(&arguments), &endpoints()).ok().unwrap())["upscale"].clone()
        };
        assert_eq!(enlarged(json!({"image": image})), json!({}));
        let arguments = json!({"image": image, "scale": "2", "upscaler": "nearest"});
        assert_eq!(enlarged(arguments), json!({"scale": 2.0, "model": "nearest"}));
        assert_eq!(enlarged(json!({"image": image, "width": "640"})), json!({"width": 640}));
    }

    #[test]
    fn the_shortest_call_draws_a_jpeg_of_the_usual_size() {
        let order = generate(&fields(&json!({"prompt": "a fox"})), &endpoints()).ok().unwrap();
        assert_eq!(input(&order), json!({"prompt": "a fox", "width": 512, "height": 512}));
        assert_eq!(order.finish.to_string(), "drawn-q90.jpeg");
    }

    #[test]
    fn a_refusal_names_the_argument_as_it_was_sent() {
        for (arguments, words) in [
            (json!({}), "prompt is a required input."),
            (json!({"prompt": "a", "steps": 501}), "steps does not meet"),
            (json!({"prompt": "a", "count": 11}), "count does not meet"),
            (json!({"prompt": "a", "guidance": "much"}), "guidance should be a number."),
            (json!({"prompt": "a", "width": 9000}), "width does not meet"),
            (json!({"prompt": "a", "height": -1}), "height is not a number of pixels."),
            (json!({"prompt": "a", "format": "gif"}), "format should be one of png, jpeg, webp."),
            (
                json!({"prompt": "a", "model": "flux"}),
                "The model flux is not here: this server has anything, first.",
            ),
        ] {
            let error = generate(&fields(&arguments), &endpoints()).err().unwrap().to_string();
            assert!(error.starts_with(words), "{arguments}: {error}");
        }
        let image = "https://pictures.example/fox.png";
        for (arguments, words) in [
            (json!({"scale": "1"}), ""),
            (json!({"image": image, "scale": 9}), "scale does not meet the constraints. It is 9"),
            (json!({"image": image, "width": "-4"}), "width does not meet the constraints. It is 0;"),
            (json!({"image": image, "scale": 2, "width": 99}), "scale does not meet the constraints."),
            (json!({"image": image, "upscaler": "SwinIR"}), "upscaler does not meet the constraints."),
            (json!({"image": image, "upscaler": "latent"}), "upscaler does not meet the constraints."),
        ] {
            let error = upscale(&fields(&arguments), &endpoints()).err().unwrap().to_string();
            assert!(error.starts_with(words) && !error.contains("upscale."), "{arguments}: {error}");
        }
        for (image, words) in [
            (json!(null), "image is a required input."),
            (
                json!("/home/me/fox.png"),
                "image does not meet the constraints. It looks like the path of a file",
            ),
            (json!("!!"), "image does not meet the constraints."),
            (
                json!("https://pictures.example/fox.png"),
                "width and height are required with the URL of an image.",
            ),
        ] {
            let arguments = json!({"prompt": "a", "image": image});
            let error = edit(&fields(&arguments), &endpoints()).err().unwrap().to_string();
            assert!(error.starts_with(words), "{image}: {error}");
        }
    }
}
