//! `upscale`: a job that enlarges a picture and draws nothing.

use super::enlarged::Enlarged;
use super::reader::Reader;
use super::{InputRules, MAX_OUTPUTS, Upscaler};

/// A picture is enlarged by an upscaler.
#[derive(Debug, Clone, PartialEq)]
pub struct Upscale {
    pub upscaler: Upscaler,
    pub enlarged: Enlarged,
}

/// A picture that is only enlarged is not drawn on a grid.
pub const UPSCALE_GRID: u32 = 1;
const SCALE: f64 = 4.0;
/// The fields that a job may have beside `upscale`.
const BESIDE: [&str; 4] = ["upscale", "init_image", "num_outputs", "seed"];

impl Upscale {
    /// Reads the object `upscale`, whose fields are `model`, and `scale` or `width` and `height`.
    pub(super) fn read(reader: &mut Reader, rules: &InputRules, known: &[&str]) -> Option<Self> {
        let upscale = reader.within("upscale", |reader| {
            reader.refuse_unknown(&["model", "scale", "width", "height"]);
            let upscaler = reader.string("model").and_then(|name| {
                let found = Upscaler::parse_for_pixels(name, rules.upscalers.as_deref());
                found.map_err(|sentence| reader.unmet("model", &sentence)).ok()
            });
            let enlarged = Enlarged::read(reader, SCALE);
            Self { upscaler: upscaler.unwrap_or(Upscaler::LANCZOS), enlarged }
        })?;
        if let Some(outputs) =
            reader.peek("num_outputs").filter(|outputs| (2..=u64::from(MAX_OUTPUTS)).contains(outputs))
        {
            reader.unmet(
                "num_outputs",
                &format!("It is {outputs}; with upscale it must be 1: there is one picture."),
            );
        }
        if !reader.is_present("init_image") {
            reader.unmet("upscale", "It needs an init_image.");
        }
        for name in known.iter().filter(|name| !BESIDE.contains(name)) {
            if !reader.is_present(name) {
                continue;
            }
            reader.unmet("upscale", &format!("It cannot be combined with {name}: it draws nothing."));
        }
        Some(upscale)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::GenerationInput;
    use super::*;

    fn parse(input: &Value) -> Result<GenerationInput, String> {
        GenerationInput::parse(input, &InputRules::default()).map_err(|violations| violations.to_string())
    }

    #[test]
    fn a_picture_is_upscaled_without_a_prompt() {
        let picture = "https://example.org/fox.png";
        let input = parse(&json!({ "upscale": { "scale": 2 }, "init_image": picture })).unwrap();
        let expected = Upscale { upscaler: Upscaler::LANCZOS, enlarged: Enlarged::Scale(2.0) };
        assert_eq!(input.upscale, Some(expected));
    }

    #[test]
    fn upscaling_draws_nothing() {
        const NO: &str = "does not meet the constraints.";
        let picture = "https://example.org/fox.png";
        for (input, sentence) in [
            (json!({ "upscale": {} }), format!("upscale {NO} It needs an init_image.")),
            (
                json!({ "upscale": {}, "init_image": picture, "prompt": "a fox" }),
                format!("upscale {NO} It cannot be combined with prompt: it draws nothing."),
            ),
            (
                json!({ "upscale": {}, "init_image": picture, "num_outputs": 2 }),
                format!("num_outputs {NO} It is 2; with upscale it must be 1: there is one picture."),
            ),
            (
                json!({ "upscale": { "model": "latent" }, "init_image": picture }),
                format!(
                    "upscale.model {NO} It works on latents, and an upscaled picture has none; use another one."
                ),
            ),
            (
                json!({ "upscale": { "model": "SwinIR" }, "init_image": picture }),
                format!("upscale.model {NO} There is no upscaler SwinIR; use one of none, lanczos, nearest."),
            ),
        ] {
            assert_eq!(parse(&input).unwrap_err(), sentence);
        }
    }
}
