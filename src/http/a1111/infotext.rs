//! Reads A1111's infotext back: the text in a picture that says how it was made
//! (`parse_generation_parameters` in its `modules/infotext_utils.py`).

use serde_json::{Map, Value};

use crate::http::surface::Fields;

const NEGATIVE: &str = "Negative prompt:";
/// The fewest items of a last line that is no part of the prompt.
const FEWEST: usize = 3;
/// What pictures do not say if it was usual.
const USUAL: [(&str, &str); 3] = [("Clip skip", "1"), ("RNG", "GPU"), ("Schedule type", "Automatic")];
/// The items that are fields of a request.
const FIELDS: [(&str, &str); 12] = [
    ("Prompt", "prompt"),
    ("Negative prompt", "negative_prompt"),
    ("Steps", "steps"),
    ("Sampler", "sampler_name"),
    ("Schedule type", "scheduler"),
    ("CFG scale", "cfg_scale"),
    ("Seed", "seed"),
    ("Size-1", "width"),
    ("Size-2", "height"),
    ("Denoising strength", "denoising_strength"),
    ("Variation seed", "subseed"),
    ("Variation seed strength", "subseed_strength"),
];

/// The items of a text, by their names in it. `Size: 640x480` becomes `Size-1` and `Size-2`. All values are text.
pub fn parse(text: &str) -> Map<String, Value> {
    let text = text.trim();
    let (mut prompts, last) = text.rsplit_once('\n').unwrap_or(("", text));
    let mut items = items(last);
    if items.len() < FEWEST {
        (prompts, items) = (text, Vec::new());
    }
    let (prompt, negative) = match prompts.split_once(NEGATIVE) {
        Some((prompt, negative)) if prompt.is_empty() || prompt.ends_with('\n') => (prompt, negative),
        _ => (prompts, ""),
    };
    let mut parsed = Map::new();
    let mut put = |name: &str, value: &str| parsed.insert(name.to_owned(), Value::from(value));
    put("Prompt", prompt.trim());
    put("Negative prompt", negative.trim());
    for (name, value) in &items {
        match size(value) {
            Some((width, height)) => {
                put(&format!("{name}-1"), width);
                put(&format!("{name}-2"), height);
            }
            None => {
                put(name, value);
            }
        }
    }
    for (name, value) in USUAL {
        parsed.entry(name).or_insert_with(|| value.into());
    }
    parsed
}

/// Gives a request the fields of a picture's text that it does not have itself.
pub fn fill(fields: &mut Fields, text: &str) {
    let parsed = parse(text);
    for (item, field) in FIELDS {
        if let Some(value) = parsed.get(item) {
            fields.fill(field, value.clone());
        }
    }
    if let Some(layers) = parsed.get("Clip skip") {
        fields.fill("clip_skip", layers.clone());
    }
}

/// `Steps: 20, Model: "a, b"` as names and values. A value in quotation marks is JSON text.
fn items(line: &str) -> Vec<(String, String)> {
    let mut items = Vec::new();
    let mut rest = line.trim();
    while let Some((name, after)) = rest.split_once(':') {
        let name = name.trim();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || " _/-.".contains(c));
        if !is_name {
            return Vec::new();
        }
        let after = after.trim_start();
        let (value, end) = quoted(after).unwrap_or_else(|| {
            let length = after.find(',').unwrap_or(after.len());
            (after[..length].trim().to_owned(), length)
        });
        items.push((name.to_owned(), value));
        let Some(next) = after.get(end..).and_then(|rest| rest.trim_start().strip_prefix(',')) else { break };
        rest = next.trim_start();
    }
    items
}

/// A JSON string at the beginning, and its length.
fn quoted(text: &str) -> Option<(String, usize)> {
    if !text.starts_with('"') {
        return None;
    }
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let value = values.next()?.ok()?;
    Some((value, values.byte_offset()))
}

fn size(value: &str) -> Option<(&str, &str)> {
    let (width, height) = value.split_once('x')?;
    let is_number =
        |text: &str| !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(width) && is_number(height)).then_some((width, height))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_read_as_a1111_reads_it() {
        let text = "a red fox, (snow:1.2)\nat night\nNegative prompt: blurry,\nbad\nSteps: 20, Sampler: DPM++ 2M, \
                    Schedule type: Karras, CFG scale: 7, Seed: 5, Size: 640x480, Model: sd15, Clip skip: 2, \
                    Lora hashes: \"ink: 0a1b, fur: 2c3d\", Version: stablehand 0.1.0";
        let parsed = parse(text);
        for (name, value) in [
            ("Prompt", "a red fox, (snow:1.2)\nat night"),
            ("Negative prompt", "blurry,\nbad"),
            ("Steps", "20"),
            ("Sampler", "DPM++ 2M"),
            ("Schedule type", "Karras"),
            ("Size-1", "640"),
            ("Size-2", "480"),
            ("Lora hashes", "ink: 0a1b, fur: 2c3d"),
            ("Version", "stablehand 0.1.0"),
            ("RNG", "GPU"),
        ] {
            assert_eq!(parsed[name], value, "{name}");
        }
        assert!(!parsed.contains_key("Size"));
    }

    #[test]
    fn a_text_without_items_is_a_prompt() {
        for text in ["", "a fox", "a fox: red\nin: snow", "Steps: 20", "a\n\"b: c, d: e, f: g"] {
            assert_eq!(parse(text)["Prompt"], text, "{text}");
        }
        assert_eq!(parse("Negative prompt: blurry")["Negative prompt"], "blurry");
    }

    #[test]
    fn a_request_has_the_fields_of_a_text_that_it_lacks() {
        let mut fields = Fields::new(json!({"steps": 5, "prompt": ""}).as_object().unwrap().clone());
        fill(&mut fields, "a fox\nSteps: 20, Sampler: LMS, CFG scale: 4.5, Seed: 9, Size: 256x128");
        assert_eq!(fields.integer(&["steps"]), Ok(Some(5)));
        assert_eq!(fields.text(&["prompt"]), Ok(Some("a fox".to_owned())));
        assert_eq!((fields.integer(&["seed"]), fields.integer(&["width"])), (Ok(Some(9)), Ok(Some(256))));
        assert_eq!(fields.number(&["cfg_scale"]), Ok(Some(4.5)));
    }
}
