//! A1111's ControlNet extension: its units in `alwayson_scripts`, and `/controlnet/…`.

use std::collections::BTreeSet;

use actix_web::{HttpResponse, web};
use serde_json::{Map, Value, json};

use super::A1111;
use super::error::A1111Error;
use crate::domain::Preprocessor;
use crate::http::request::Api;
use crate::http::surface::{FieldError, Fields, Translation, Visitor};

/// The version of the extension's API whose fields are read.
const VERSION: u32 = 3;
/// In the order of the extension's numbers, with its names and ours.
const MODES: [(&str, &str); 3] = [
    ("balanced", "balanced"),
    ("my prompt is more important", "prompt"),
    ("controlnet is more important", "control"),
];
/// Older versions have other names.
const RESIZE_MODES: [(&str, &str); 3] =
    [("just resize", "stretch"), ("crop and resize", "crop"), ("resize and fill", "fill")];
const OLD_RESIZE_MODES: [(&str, &str); 2] =
    [("scale to fit (inner fit)", "crop"), ("envelope (outer fit)", "fill")];
const NAME: &str = "alwayson_scripts";

pub async fn version(_visitor: Visitor<A1111>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "version": VERSION }))
}

pub async fn models(api: web::Data<Api>, _visitor: Visitor<A1111>) -> HttpResponse {
    let shelves: Vec<_> =
        api.endpoints.iter().filter_map(|endpoint| endpoint.rules.controlnets.clone()).collect();
    // It reads a folder.
    let names =
        web::block(move || shelves.iter().flat_map(|shelf| shelf.names()).collect::<BTreeSet<_>>()).await;
    HttpResponse::Ok().json(json!({ "model_list": names.unwrap_or_default() }))
}

pub async fn modules(_visitor: Visitor<A1111>) -> HttpResponse {
    let modules: Vec<&str> = Preprocessor::ALL.into_iter().map(Preprocessor::a1111_name).collect();
    let detail: Map<String, Value> = Preprocessor::ALL.into_iter().map(detail).collect();
    HttpResponse::Ok().json(json!({ "module_list": modules, "module_detail": detail }))
}

/// What the extension says of a preprocessor: its sliders.
fn detail(preprocessor: Preprocessor) -> (String, Value) {
    let sliders: Vec<Value> = preprocessor
        .thresholds()
        .into_iter()
        .flatten()
        .map(|threshold| {
            json!({ "name": threshold.meaning, "min": threshold.min, "max": threshold.max, "value": threshold.default })
        })
        .collect();
    (preprocessor.a1111_name().to_owned(), json!({ "model_free": false, "sliders": sliders }))
}

/// Writes the units that are switched on. One without a picture of its own takes the one that img2img starts from.
pub fn translate(args: &Value, to: &mut Translation, warnings: &mut Vec<String>) -> Result<(), A1111Error> {
    let units: Vec<&Map<String, Value>> = match args {
        Value::Array(args) => args.iter().filter_map(Value::as_object).collect(),
        Value::Object(unit) => vec![unit],
        _ => Vec::new(),
    };
    let mut read = Vec::new();
    for unit in units {
        if let Some(unit) = self::unit(&Fields::new(without_pictures(unit)), unit, to, warnings)? {
            read.push(unit);
        }
    }
    if !read.is_empty() {
        to.set_from("controlnet", NAME, read);
    }
    Ok(())
}

/// The small fields of a unit.
fn without_pictures(unit: &Map<String, Value>) -> Map<String, Value> {
    let is_small = |value: &Value| match value {
        Value::String(text) => text.len() <= 1024,
        Value::Number(_) | Value::Bool(_) => true,
        _ => false,
    };
    unit.iter()
        .filter(|(_, value)| is_small(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A unit in our words. None if it does nothing.
fn unit(
    fields: &Fields,
    sent: &Map<String, Value>,
    to: &Translation,
    warnings: &mut Vec<String>,
) -> Result<Option<Value>, FieldError> {
    let model = fields.text(&["model"])?.filter(|model| !model.trim().eq_ignore_ascii_case("none"));
    let Some(model) = model.filter(|_| fields.flag(&["enabled"]).ok().flatten() != Some(false)) else {
        return Ok(None);
    };
    let Some(image) = picture(sent).or_else(|| to.get("init_image").cloned()) else {
        warnings.push("A unit of ControlNet has no picture and was ignored.".to_owned());
        return Ok(None);
    };
    let number = |names: &[&str], default: f64| Ok::<_, FieldError>(fields.number(names)?.unwrap_or(default));
    let mut unit = json!({
        "model": without_hash(&model),
        "image": image,
        "weight": number(&["weight"], 1.0)?,
        "start": number(&["guidance_start"], 0.0)?.clamp(0.0, 1.0),
        "end": number(&["guidance_end"], 1.0)?.clamp(0.0, 1.0),
        "control_mode": choice(fields, "control_mode", &MODES, 0)?,
        "resize_mode": choice(fields, "resize_mode", &[&RESIZE_MODES[..], &OLD_RESIZE_MODES].concat(), 1)?,
    });
    let module = fields.text(&["module"])?.unwrap_or_else(|| "none".to_owned()).trim().to_lowercase();
    // The extension's clients send both numbers whatever the preprocessor takes; −1 is its default.
    let taken =
        Preprocessor::parse(&module).map_or(0, |known| known.thresholds().into_iter().flatten().count());
    for name in ["threshold_a", "threshold_b"].into_iter().take(taken) {
        if let Some(value) = fields.number(&[name])?.filter(|value| *value >= 0.0) {
            unit[name] = json!(value);
        }
    }
    if let Some(resolution) = other_resolution(fields, &module, to)? {
        warnings.push(format!(
            "processor_res is {resolution} and was ignored: the picture of a unit of ControlNet is prepared at the size that \
             is drawn, as with pixel_perfect."
        ));
    }
    unit["preprocess"] = json!(module);
    Ok(Some(unit))
}

/// The resolution at which the extension would prepare the picture, if it is another than ours: the shorter side that is
/// drawn.
fn other_resolution(fields: &Fields, module: &str, to: &Translation) -> Result<Option<i128>, FieldError> {
    let Some(resolution) = fields.integer(&["processor_res"])?.filter(|resolution| *resolution > 0) else {
        return Ok(None);
    };
    let is_prepared = Preprocessor::parse(module).is_ok_and(|known| known != Preprocessor::None);
    let is_ours = fields.flag(&["pixel_perfect"])? == Some(true);
    let drawn = ["width", "height"].into_iter().filter_map(|side| to.get(side)?.as_u64()).min();
    Ok((is_prepared && !is_ours && drawn.map(i128::from) != Some(resolution)).then_some(resolution))
}

/// The picture: text, or an object with the picture and a mask.
fn picture(unit: &Map<String, Value>) -> Option<Value> {
    ["image", "input_image"].into_iter().find_map(|name| {
        let value = unit.get(name)?;
        let text = value.as_str().or_else(|| value.get("image")?.as_str())?;
        (!text.trim().is_empty()).then(|| json!(text))
    })
}

/// A model without the hash that the extension's list has behind it.
fn without_hash(model: &str) -> &str {
    match model.trim().rsplit_once(" [") {
        Some((name, hash)) if hash.ends_with(']') => name,
        _ => model.trim(),
    }
}

/// One of the extension's choices, by its number or its name.
fn choice(
    fields: &Fields,
    name: &str,
    words: &[(&str, &'static str)],
    default: usize,
) -> Result<&'static str, FieldError> {
    let Some(word) = fields.word(&[name])? else { return Ok(words[default].1) };
    let number = word.parse().ok().and_then(|number: usize| words.get(number));
    let found = words.iter().find(|(theirs, ours)| *theirs == word || *ours == word).or(number);
    found.map(|(_, ours)| *ours).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(theirs, _)| *theirs).collect();
        FieldError::new(
            NAME,
            format!("{name} of a unit of ControlNet should be one of {}.", known.join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(args: &Value, warnings: &mut Vec<String>) -> Result<Value, String> {
        let mut to = Translation::default();
        to.set("init_image", "own");
        translate(args, &mut to, warnings).map_err(|error| error.to_string())?;
        Ok(to.get("controlnet").cloned().unwrap_or_default())
    }

    #[test]
    fn a_unit_is_translated_with_its_names_and_numbers() {
        let mut warnings = Vec::new();
        let named = json!({
            "enabled": true, "image": {"image": "AAAA", "mask": "BBBB"}, "module": "Canny",
            "model": "control_v11p_sd15_canny [d14c016b]", "weight": 0.8, "resize_mode": "Just Resize",
            "control_mode": "ControlNet is more important", "guidance_start": 0.1, "guidance_end": "0.9",
            "processor_res": 512, "threshold_a": 100, "threshold_b": 200, "pixel_perfect": true,
        });
        let numbered = json!({
            "input_image": "CCCC", "module": "none", "model": "openpose", "resize_mode": 2, "control_mode": 1,
            "threshold_a": 64, "threshold_b": 64,
        });
        let blurred = json!({"module": "blur_gaussian", "model": "tile", "threshold_a": -1});
        let expected = json!([
            {
                "model": "control_v11p_sd15_canny", "image": "AAAA", "weight": 0.8, "start": 0.1, "end": 0.9,
                "control_mode": "control", "resize_mode": "stretch", "preprocess": "canny", "threshold_a": 100.0,
                "threshold_b": 200.0,
            },
            {
                "model": "openpose", "image": "CCCC", "weight": 1.0, "start": 0.0, "end": 1.0, "control_mode": "prompt",
                "resize_mode": "fill", "preprocess": "none",
            },
            {
                "model": "tile", "image": "own", "weight": 1.0, "start": 0.0, "end": 1.0, "control_mode": "balanced",
                "resize_mode": "crop", "preprocess": "blur_gaussian",
            },
        ]);
        assert_eq!(units(&json!([named, numbered, blurred]), &mut warnings), Ok(expected));
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_resolution_that_has_no_effect_is_said() {
        let warned = |more: Value| {
            let mut unit = json!({"model": "a", "image": "AAAA", "module": "canny", "processor_res": 640});
            unit.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let (mut to, mut warnings) = (Translation::default(), Vec::new());
            to.set("width", 512);
            to.set("height", 768);
            translate(&json!([unit]), &mut to, &mut warnings).unwrap();
            warnings.concat()
        };
        assert!(warned(json!({})).starts_with("processor_res is 640 and was ignored"));
        for same in [
            json!({"processor_res": 512}),
            json!({"processor_res": "-1"}),
            json!({"processor_res": null}),
            json!({"pixel_perfect": true}),
            json!({"module": "none"}),
        ] {
            assert_eq!(warned(same.clone()), "", "{same}");
        }
    }

    #[test]
    fn a_unit_that_does_nothing_is_left_out() {
        let mut warnings = Vec::new();
        let args = json!([
            {"enabled": false, "model": "canny", "image": "AAAA"}, {"model": "None", "image": "AAAA"}, {}, "args", null,
        ]);
        assert_eq!(units(&args, &mut warnings), Ok(Value::Null));
        let mut to = Translation::default();
        translate(&json!([{"model": "canny"}]), &mut to, &mut warnings).unwrap();
        assert!(to.get("controlnet").is_none());
        assert_eq!(warnings, ["A unit of ControlNet has no picture and was ignored."]);
        let refused =
            units(&json!([{"model": "canny", "image": "A", "control_mode": "both"}]), &mut warnings);
        assert!(
            refused
                .unwrap_err()
                .starts_with("control_mode of a unit of ControlNet should be one of balanced")
        );
    }
}
