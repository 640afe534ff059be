//! Reads a request: `inputs` is the prompt, or a picture to change where `parameters` have a prompt.

use serde_json::Value;

use super::{HuggingFace, HuggingFaceError};
use crate::diffusion::image::PictureFile;
use crate::domain::{GenerationInput, ImageSize, ImageSource, JobKind, NewJob};
use crate::http::request::{Endpoints, ServedEndpoint};
use crate::http::surface::{Canvas, FieldError, Fields, Finish, SurfaceError, Translation, upload};

/// JPEG's quality.
const QUALITY: u8 = 90;
/// What the path of the hosted API has before a model's name.
const MODELS: &str = "models/";

/// A job, and how its picture is answered.
pub struct Ask {
    pub job: NewJob,
    pub finish: Finish,
}

impl Ask {
    /// `model` is the rest of the path. `accept` is the header of that name.
    pub fn read(
        sent: &Fields,
        endpoints: &Endpoints,
        model: Option<&str>,
        accept: &str,
    ) -> Result<Self, HuggingFaceError> {
        let endpoint = endpoint(endpoints, model)?;
        let parameters = match sent.value(&["parameters"]) {
            None => Fields::default(),
            Some(Value::Object(parameters)) => Fields::new(parameters.clone()),
            Some(_) => return Err(FieldError::new("parameters", "parameters should be an object.").into()),
        };
        let mut to = Translation::default();
        if parameters.name_of(&["prompt"]).is_some() {
            to.text("prompt", &parameters, &["prompt"])?;
            to.text("init_image", sent, &["inputs"])?;
        } else {
            to.text("prompt", sent, &["inputs"])?;
        }
        to.text("negative_prompt", &parameters, &["negative_prompt"])?;
        to.integer("num_inference_steps", &parameters, &["num_inference_steps"])?;
        to.number("guidance_scale", &parameters, &["guidance_scale"])?;
        to.text("scheduler", &parameters, &["scheduler"])?;
        to.number("prompt_strength", &parameters, &["strength"])?;
        to.seed(&parameters, &["seed"])?;
        let picture = sent.text(&["inputs"])?.filter(|_| parameters.name_of(&["prompt"]).is_some());
        let canvas = canvas(&parameters, picture.as_deref(), endpoint.rules.grid)?;
        to.set_from("width", "width", canvas.drawn.width);
        to.set_from("height", "height", canvas.drawn.height);
        let job = to.into_job::<HuggingFace>(endpoint, JobKind::Held)?;
        Ok(Self {
            job,
            finish: Finish { size: canvas.enlarge_to(), format: format(accept), quality: QUALITY },
        })
    }
}

/// The endpoint that the path names; without a name, the default one.
fn endpoint<'a>(
    endpoints: &'a Endpoints,
    model: Option<&str>,
) -> Result<&'a ServedEndpoint, HuggingFaceError> {
    let name = model.map(|model| model.strip_prefix(MODELS).unwrap_or(model)).filter(|name| !name.is_empty());
    let found = match name {
        None => endpoints.default_one(),
        Some(name) => endpoints.named(name),
    };
    Ok(found.ok_or_else(|| SurfaceError::no_model(name.unwrap_or_default(), endpoints))?)
}

/// The size: `width` and `height`, also those of `target_size`; otherwise that of the picture to change.
fn canvas(parameters: &Fields, picture: Option<&str>, grid: u32) -> Result<Canvas, FieldError> {
    let usual = GenerationInput::new("").size;
    let target = match parameters.value(&["target_size"]) {
        Some(Value::Object(target)) => Fields::new(target.clone()),
        _ => Fields::default(),
    };
    let side = |name: &'static str| {
        let side = parameters.integer(&[name])?.or(target.integer(&[name])?);
        Ok(side.map(|side| u32::try_from(side).unwrap_or(0)))
    };
    let (width, height) = (side("width")?, side("height")?);
    if (width, height) == (None, None)
        && let Some(Ok(ImageSource::Bytes(bytes))) = picture.map(ImageSource::parse)
        && let Some(size) = upload::size(&bytes)
    {
        return Ok(Canvas::like(size, grid));
    }
    let asked = ImageSize { width: width.unwrap_or(usual.width), height: height.unwrap_or(usual.height) };
    Canvas::new(asked, 1, grid).map_err(|sentence| {
        FieldError::new("width", format!("width does not meet the constraints. {sentence}"))
    })
}

/// The format that the client prefers. PNG keeps the parameters as A1111 writes them.
fn format(accept: &str) -> PictureFile {
    let mut wanted = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let format = wanted.find_map(|kind| PictureFile::parse(kind.strip_prefix("image/")?));
    format.unwrap_or(PictureFile::Png)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{EndpointId, InputRules};

    fn read(sent: &Value, model: Option<&str>) -> Result<(Value, Finish), String> {
        let rules = InputRules { grid: 8, ..InputRules::default() };
        let served = |id: &str| ServedEndpoint {
            id: EndpointId::new(id),
            rules: rules.clone(),
            model: format!("{id}-v1"),
        };
        let endpoints = Endpoints::new(vec![served("first"), served("other")]);
        let fields = Fields::new(sent.as_object().unwrap().clone());
        let ask =
            Ask::read(&fields, &endpoints, model, "image/webp, */*").map_err(|error| error.to_string())?;
        Ok((serde_json::from_str(&ask.job.input).unwrap(), ask.finish))
    }

    #[test]
    fn the_parameters_of_text_to_image_are_ours() {
        let (input, finish) = read(
            &json!({"inputs": "a fox", "parameters": {
                "negative_prompt": "rain", "width": 1024, "height": 1024, "num_inference_steps": 4, "guidance_scale": 3.5,
                "scheduler": "Euler a", "seed": 7,
            }, "options": {"wait_for_model": true}}),
            None,
        )
        .unwrap();
        assert_eq!(
            input,
            json!({
                "prompt": "a fox", "negative_prompt": "rain", "width": 880, "height": 880, "num_inference_steps": 4,
                "guidance_scale": 3.5, "scheduler": "Euler a", "seed": 7,
            })
        );
        assert_eq!(finish.to_string(), "1024x1024-q90.webp");
        assert_eq!(
            read(&json!({"inputs": "a"}), None).unwrap().0,
            json!({"prompt": "a", "width": 512, "height": 512})
        );
    }

    #[test]
    fn a_picture_is_changed_where_the_parameters_have_a_prompt() {
        let sent = json!({"inputs": "https://a.example/b.png", "parameters": {
            "prompt": "a fox", "strength": 0.5, "target_size": {"width": 64, "height": 128},
        }});
        assert_eq!(
            read(&sent, None).unwrap().0,
            json!({
                "prompt": "a fox", "init_image": "https://a.example/b.png", "prompt_strength": 0.5, "width": 64, "height": 128,
            })
        );
    }

    #[test]
    fn the_path_names_an_endpoint_or_its_model() {
        let sent = json!({"inputs": "a fox"});
        for model in [None, Some("other"), Some("models/other"), Some("models/Other-v1")] {
            assert!(read(&sent, model).is_ok(), "{model:?}");
        }
        let error = read(&sent, Some("models/black-forest-labs/FLUX.1-dev")).unwrap_err();
        assert_eq!(
            error,
            "The model black-forest-labs/FLUX.1-dev is not here: this server has first, other."
        );
    }

    #[test]
    fn refusals_name_the_client_s_fields() {
        for (sent, sentence) in [
            (json!({}), "prompt is a required input."),
            (json!({"inputs": ["a"]}), "inputs should be text."),
            (json!({"inputs": "a", "parameters": []}), "parameters should be an object."),
            (
                json!({"inputs": "a", "parameters": {"width": 9999}}),
                "width does not meet the constraints. It is 9999 × 512",
            ),
            (
                json!({"inputs": "a", "parameters": {"num_inference_steps": 0}}),
                "num_inference_steps does not meet",
            ),
            (json!({"inputs": "a", "parameters": {"strength": 2}}), "strength does not meet"),
        ] {
            let error = read(&sent, None).unwrap_err();
            assert!(error.starts_with(sentence), "{error}");
        }
    }
}
