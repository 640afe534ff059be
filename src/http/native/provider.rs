//! The dialect of `RunPod`'s public endpoints, which the vendor's provider for the AI SDK speaks to `run` and `runsync`: other
//! names in `input`, and an object as `output`.
//!
//! An `input` with one of [`MARKS`] is in this dialect. Its fields are loose: unknown ones are ignored, and a size may lie
//! beyond our limit. All other inputs are the contract's.

use serde_json::{Map, Number, Value};

use crate::diffusion::image::PictureFile;
use crate::domain::{GenerationInput, ImageSize, InputRules};
use crate::http::surface::{Canvas, FieldError, Fields, Finish, read_size};

/// Fields of the dialect that the contract does not have.
const MARKS: [&str; 7] =
    ["size", "guidance", "image_format", "enable_safety_checker", "image", "images", "aspect_ratio"];
/// JPEG's quality.
const QUALITY: u8 = 90;
/// The pixels of a picture of which only the shape is asked.
const USUAL_PIXELS: f64 = 512.0 * 512.0;

/// An `input` in our words, and the name of the finish of its pictures.
#[derive(Debug)]
pub struct Translated {
    pub input: Value,
    pub finish: String,
}

/// None for an input of the contract. The error is a sentence about a field.
pub fn translate(input: &Value, rules: &InputRules) -> Option<Result<Translated, FieldError>> {
    let fields = input.as_object()?;
    let is_marked = fields.keys().any(|name| MARKS.contains(&name.as_str()));
    is_marked.then(|| translated(fields, rules))
}

fn translated(sent: &Map<String, Value>, rules: &InputRules) -> Result<Translated, FieldError> {
    let fields = Fields::new(sent.clone());
    // What both dialects have is read as the contract has it.
    let own = |name: &String| GenerationInput::FIELDS.contains(&name.as_str());
    let mut input: Map<String, Value> = sent
        .iter()
        .filter(|(name, _)| own(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if let Some(guidance) = fields.number(&["guidance_scale", "guidance"])? {
        input.insert("guidance_scale".to_owned(), Value::from(guidance));
    }
    if let Some(steps) = fields.integer(&["num_inference_steps"])?.and_then(Number::from_i128) {
        input.insert("num_inference_steps".to_owned(), Value::Number(steps));
    }
    if !input.contains_key("init_image")
        && let Some(image) = picture(&fields)?
    {
        input.insert("init_image".to_owned(), Value::String(image));
    }
    let count = fields.integer(&["num_outputs"])?.and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
    let canvas = Canvas::new(size(&fields)?, count, rules.grid);
    let canvas = canvas.map_err(|sentence| {
        let name = fields.name_of(&["size", "width", "height"]).unwrap_or("size");
        FieldError::new(name, format!("{name} does not meet the constraints. {sentence}"))
    })?;
    input.insert("width".to_owned(), Value::from(canvas.drawn.width));
    input.insert("height".to_owned(), Value::from(canvas.drawn.height));
    let format = fields.word(&["image_format", "output_format"])?;
    let format = format.and_then(|name| PictureFile::parse(&name));
    let finish =
        Finish { size: canvas.enlarge_to(), format: format.unwrap_or(PictureFile::Png), quality: QUALITY };
    Ok(Translated { input: Value::Object(input), finish: finish.to_string() })
}

/// The picture to start from. Of several, the first: there is no model here that takes more.
fn picture(fields: &Fields) -> Result<Option<String>, FieldError> {
    match fields.value(&["images"]) {
        Some(Value::Array(images)) => match images.first() {
            None => fields.text(&["image"]),
            Some(Value::String(image)) => Ok(Some(image.clone())),
            Some(_) => Err(FieldError::new("images", "images should be a list of URLs or data URIs.")),
        },
        _ => fields.text(&["image", "images"]),
    }
}

/// `size` counts before `width` and `height`, and those before `aspect_ratio`.
fn size(fields: &Fields) -> Result<ImageSize, FieldError> {
    let usual = GenerationInput::new("").size;
    if let Some(size) = fields.text(&["size"])? {
        let sentence = "size should be WIDTH*HEIGHT, such as 512*512.";
        return read_size(&size).ok_or_else(|| FieldError::new("size", sentence));
    }
    let side = |name| Ok(fields.integer(&[name])?.map(|side| u32::try_from(side).unwrap_or(0)));
    let (width, height) = (side("width")?, side("height")?);
    if width.is_some() || height.is_some() {
        return Ok(ImageSize { width: width.unwrap_or(usual.width), height: height.unwrap_or(usual.height) });
    }
    let Some(ratio) = fields.text(&["aspect_ratio"])? else { return Ok(usual) };
    let sentence = "aspect_ratio should be WIDTH:HEIGHT, such as 16:9.";
    of_shape(&ratio).ok_or_else(|| FieldError::new("aspect_ratio", sentence))
}

/// A size such as `16:9` of the usual number of pixels.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a side of at most 4096")]
fn of_shape(ratio: &str) -> Option<ImageSize> {
    let (width, height) = ratio.split_once(':')?;
    let ratio = width.trim().parse::<f64>().ok()? / height.trim().parse::<f64>().ok()?;
    let side = |pixels: f64| ((pixels.sqrt() / 64.0).round() as u32 * 64).clamp(64, 4096);
    (ratio.is_finite() && ratio > 0.0)
        .then(|| ImageSize { width: side(USUAL_PIXELS * ratio), height: side(USUAL_PIXELS / ratio) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(input: &Value) -> (Value, String) {
        let rules = InputRules { grid: 8, ..InputRules::default() };
        let Translated { input, finish } = translate(input, &rules).unwrap().unwrap();
        GenerationInput::parse(&input, &rules).unwrap();
        (input, finish)
    }

    #[test]
    fn what_the_provider_sends_is_read() {
        // Seen on the wire of @runpod/ai-sdk-provider 1.4.0.
        let (input, finish) = read(&json!({
            "prompt": "a fox", "negative_prompt": "", "seed": -1, "size": "1328*1328", "output_format": "png",
            "enable_safety_checker": true,
        }));
        assert_eq!(
            input,
            json!({"prompt": "a fox", "negative_prompt": "", "seed": -1, "width": 880, "height": 880})
        );
        assert_eq!(finish, "1328x1328-q90.png");
        let (input, finish) = read(&json!({
            "prompt": "a fox", "width": 512, "height": 512, "num_inference_steps": 4.0, "guidance": 2.5, "image_format": "jpg",
        }));
        assert_eq!((&input["guidance_scale"], &input["num_inference_steps"]), (&json!(2.5), &json!(4)));
        assert_eq!(finish, "drawn-q90.jpeg");
        for pictures in
            [json!({"image": "https://a.example/b.png"}), json!({"images": ["https://a.example/b.png", "x"]})]
        {
            let mut input = json!({"prompt": "a fox", "size": "512*512"});
            input.as_object_mut().unwrap().extend(pictures.as_object().unwrap().clone());
            assert_eq!(read(&input).0["init_image"], json!("https://a.example/b.png"));
        }
        let (input, _) = read(&json!({"prompt": "a fox", "aspect_ratio": "16:9"}));
        assert_eq!((&input["width"], &input["height"]), (&json!(704), &json!(384)));
    }

    #[test]
    fn other_inputs_are_the_contract_s() {
        let rules = InputRules::default();
        for input in [json!({"prompt": "a fox", "width": 512}), json!({"sizes": 1}), json!([]), json!("size")]
        {
            assert!(translate(&input, &rules).is_none(), "{input}");
        }
    }

    #[test]
    fn a_field_that_cannot_be_read_is_named() {
        let refused =
            |input: &Value| translate(input, &InputRules::default()).unwrap().unwrap_err().to_string();
        assert_eq!(refused(&json!({"size": {}})), "size should be text.");
        assert_eq!(refused(&json!({"size": "512"})), "size should be WIDTH*HEIGHT, such as 512*512.");
        assert_eq!(refused(&json!({"images": [7]})), "images should be a list of URLs or data URIs.");
        assert!(
            refused(&json!({"size": "9999*9999"}))
                .starts_with("size does not meet the constraints. It is 9999 × 9999")
        );
        assert!(
            refused(&json!({"guidance": 1, "width": -5})).starts_with("width does not meet the constraints.")
        );
        for ratio in ["0:1", "1:0", "a:b", "-1:1", "1e300:1e-300", "nan:1"] {
            let sentence = refused(&json!({"aspect_ratio": ratio}));
            assert_eq!(sentence, "aspect_ratio should be WIDTH:HEIGHT, such as 16:9.", "{ratio}");
        }
    }
}
