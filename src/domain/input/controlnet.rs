//! The ControlNets of a request: the field `controlnet`, which is one object or a list of them.

use serde_json::{Map, Value, json};

use super::reader::Reader;
use super::{InputRules, shortest};
use crate::domain::controlnet::{
    ControlMode, ControlNetShelf, ControlResize, ControlUnit, MAX_CONTROL_WEIGHT, MAX_CONTROLNETS,
};
use crate::domain::{ImageSource, Preprocessor};

/// The fields of one ControlNet.
pub const CONTROLNET_FIELDS: [&str; 10] = [
    "model",
    "image",
    "weight",
    "start",
    "end",
    "preprocess",
    "threshold_a",
    "threshold_b",
    "control_mode",
    "resize_mode",
];
const THRESHOLDS: [&str; 2] = ["threshold_a", "threshold_b"];

/// Reads all of them. An empty list means none.
pub(super) fn read(reader: &mut Reader, rules: &InputRules) -> Vec<ControlUnit> {
    let units = match reader.value("controlnet") {
        None => return Vec::new(),
        Some(Value::Object(unit)) => vec![("controlnet".to_owned(), Some(unit))],
        Some(Value::Array(units)) if units.len() > MAX_CONTROLNETS => {
            let count = units.len();
            reader.unmet(
                "controlnet",
                &format!("It has {count} items; at most {MAX_CONTROLNETS} are allowed."),
            );
            return Vec::new();
        }
        Some(Value::Array(units)) => {
            let name = |index| format!("controlnet[{index}]");
            units.iter().enumerate().map(|(index, unit)| (name(index), unit.as_object())).collect()
        }
        Some(_) => {
            reader.violation("controlnet should be an object, or a list of objects.".to_owned());
            return Vec::new();
        }
    };
    let Some(shelf) = rules.controlnets.as_deref() else {
        if !units.is_empty() {
            reader.violation(format!(
                "controlnet is not supported by this model, because {}.",
                why_none(rules)
            ));
        }
        return Vec::new();
    };
    let mut read = Vec::new();
    for (name, fields) in units {
        let Some(fields) = fields else {
            reader.violation(format!("{name} should be an object."));
            continue;
        };
        match unit(fields, shelf) {
            Ok(unit) => read.push(unit),
            Err(violations) => {
                for violation in violations {
                    reader.violation(format!("{name}.{violation}"));
                }
            }
        }
    }
    read
}

/// Why a model takes none: the end of "because …".
fn why_none(rules: &InputRules) -> &'static str {
    if rules.edits_images {
        "it is an InstructPix2Pix model, for which there are no ControlNets"
    } else if rules.embeds_guidance {
        "its UNet takes the guidance scale itself; use the model that it was distilled from, with an LCM LoRA"
    } else {
        "its weights are inside its ONNX graphs; use a model with .safetensors files"
    }
}

/// One of them, or all its violations.
fn unit(fields: &Map<String, Value>, shelf: &dyn ControlNetShelf) -> Result<ControlUnit, Vec<String>> {
    let mut reader = Reader::new(fields);
    for name in fields.keys().filter(|name| !CONTROLNET_FIELDS.contains(&name.as_str())) {
        let name: String = name.chars().take(64).collect();
        reader.violation(format!("{name} is not a valid input option."));
    }
    for name in ["model", "image"] {
        if !reader.is_present(name) {
            reader.violation(format!("{name} is a required input."));
        }
    }
    let model = reader.string("model").map(|name| shelf.find(name));
    let model = model.and_then(|found| found.map_err(|sentence| reader.unmet("model", &sentence)).ok());
    let image = reader.string("image").map(ImageSource::parse);
    let image = image.and_then(|read| read.map_err(|sentence| reader.unmet("image", &sentence)).ok());
    let weight = reader.number("weight", "from 0 to 2", |w| (0.0..=MAX_CONTROL_WEIGHT).contains(&w));
    let (start, end) = (reader.share("start").unwrap_or(0.0), reader.share("end").unwrap_or(1.0));
    if start >= end {
        // The field that was sent.
        match reader.is_present("start") {
            true => reader.unmet("start", &format!("It is {start}; it must be below end, which is {end}.")),
            false => reader.unmet("end", &format!("It is {end}; it must be above start, which is {start}.")),
        }
    }
    let preprocess = reader.string("preprocess").map(Preprocessor::parse);
    let preprocess =
        preprocess.and_then(|read| read.map_err(|sentence| reader.unmet("preprocess", &sentence)).ok());
    let preprocess = preprocess.unwrap_or(Preprocessor::None);
    let thresholds = thresholds(&mut reader, preprocess);
    let mode = reader.choice("control_mode", &ControlMode::ALL.map(|mode| (mode.as_str(), mode)));
    let resize = reader.choice("resize_mode", &ControlResize::ALL.map(|mode| (mode.as_str(), mode)));
    reader.finish().map_err(|violations| violations.0)?;
    match (model, image) {
        (Some(model), Some(image)) => Ok(ControlUnit {
            model,
            image,
            weight: weight.unwrap_or(1.0),
            start,
            end,
            preprocess,
            thresholds,
            mode: mode.unwrap_or(ControlMode::Balanced),
            resize: resize.unwrap_or(ControlResize::Crop),
        }),
        _ => Err(Vec::new()),
    }
}

/// The preprocessor's numbers.
fn thresholds(reader: &mut Reader, preprocess: Preprocessor) -> [f32; 2] {
    let mut read = [0.0; 2];
    for ((name, value), taken) in THRESHOLDS.into_iter().zip(&mut read).zip(preprocess.thresholds()) {
        let Some(taken) = taken else {
            if reader.is_present(name) {
                let preprocess = preprocess.as_str();
                reader.unmet(name, &format!("The preprocessor {preprocess} does not take it."));
            }
            continue;
        };
        let bounds = format!("from {} to {} ({})", taken.min, taken.max, taken.meaning);
        let given = reader.number(name, &bounds, |number| (taken.min..=taken.max).contains(&number));
        *value = given.unwrap_or(taken.default);
    }
    if preprocess == Preprocessor::Canny && read[0] > read[1] {
        reader.unmet(
            "threshold_a",
            &format!("It is {}; it must be at most threshold_b, which is {}.", read[0], read[1]),
        );
    }
    read
}

/// The field without the pictures: the `input` in a PNG names no picture.
pub(super) fn request_for(units: &[ControlUnit]) -> Value {
    let request = |unit: &ControlUnit| {
        let mut request = json!({
            "model": unit.model,
            "weight": shortest(unit.weight),
            "start": unit.start,
            "end": unit.end,
            "preprocess": unit.preprocess.as_str(),
            "control_mode": unit.mode.as_str(),
            "resize_mode": unit.resize.as_str(),
        });
        let numbers = THRESHOLDS.into_iter().zip(unit.thresholds).zip(unit.preprocess.thresholds());
        for ((name, value), _) in numbers.filter(|(_, taken)| taken.is_some()) {
            request[name] = json!(shortest(value));
        }
        request
    };
    units.iter().map(request).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use base64::Engine as _;
    use serde_json::json;

    use super::*;
    use crate::domain::{GenerationInput, Violations};

    #[derive(Debug)]
    struct Shelf;

    impl ControlNetShelf for Shelf {
        fn find(&self, name: &str) -> Result<String, String> {
            if name == "canny" {
                Ok("sd15/canny".to_owned())
            } else {
                Err(format!("There is no ControlNet {name}."))
            }
        }

        fn names(&self) -> Vec<String> {
            vec!["sd15/canny".to_owned()]
        }
    }

    fn picture() -> String {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(2, 2).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        base64::engine::general_purpose::STANDARD.encode(bytes.into_inner())
    }

    fn parse(controlnet: &Value) -> Result<GenerationInput, Violations> {
        let rules = InputRules { controlnets: Some(Arc::new(Shelf)), ..InputRules::default() };
        GenerationInput::parse(&json!({"prompt": "a fox", "controlnet": controlnet}), &rules)
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "numbers as they were sent")]
    fn one_object_and_a_list_are_read_with_the_defaults() {
        let one = json!({"model": "canny", "image": picture()});
        let read = parse(&one).unwrap().controlnets;
        let unit = &read[0];
        assert_eq!((unit.model.as_str(), unit.preprocess), ("sd15/canny", Preprocessor::None));
        assert_eq!((unit.weight, unit.start, unit.end), (1.0, 0.0, 1.0));
        assert_eq!((unit.mode, unit.resize), (ControlMode::Balanced, ControlResize::Crop));
        assert_eq!(parse(&json!([one])).unwrap().controlnets, read);
        assert_eq!(parse(&json!([one, one])).unwrap().controlnets.len(), 2);
        assert!(parse(&json!([])).unwrap().controlnets.is_empty());
        let canny = json!({"model": "canny", "image": picture(), "preprocess": "canny", "threshold_b": 150});
        assert_eq!(parse(&canny).unwrap().controlnets[0].thresholds, [100.0, 150.0]);
    }

    #[test]
    fn the_request_in_a_picture_has_all_but_the_picture() {
        let unit =
            json!({"model": "canny", "image": picture(), "weight": 0.7, "preprocess": "blur", "end": 0.5});
        let request = parse(&unit).unwrap().request_for(1, 0);
        assert_eq!(
            request["controlnet"],
            json!([{"model": "sd15/canny", "weight": 0.7, "start": 0.0, "end": 0.5, "preprocess": "blur", "threshold_a": 9.0,
                "control_mode": "balanced", "resize_mode": "crop"}])
        );
        let without = GenerationInput::parse(&json!({"prompt": "a fox"}), &InputRules::default()).unwrap();
        assert!(without.request_for(1, 0).get("controlnet").is_none());
    }

    #[test]
    fn each_fault_has_its_sentence() {
        let (image, unit) = (picture(), |changes: Value| {
            let mut unit = json!({"model": "canny", "image": picture()});
            for (name, value) in changes.as_object().unwrap() {
                unit[name] = value.clone();
            }
            unit
        });
        for (controlnet, sentence) in [
            (json!("canny"), "controlnet should be an object, or a list of objects."),
            (json!([3]), "controlnet[0] should be an object."),
            (json!({"model": "canny"}), "controlnet.image is a required input."),
            (json!([{"image": image}]), "controlnet[0].model is a required input."),
            (
                unit(json!({"model": "pose"})),
                "controlnet.model does not meet the constraints. There is no ControlNet pose.",
            ),
            (
                unit(json!({"image": "file:///x"})),
                "controlnet.image does not meet the constraints. It is neither",
            ),
            (
                unit(json!({"weight": 3})),
                "controlnet.weight does not meet the constraints. It is 3; it must be from 0 to 2.",
            ),
            (
                unit(json!({"start": 0.5, "end": 0.5})),
                "controlnet.start does not meet the constraints. It is 0.5; it must be below",
            ),
            (
                unit(json!({"end": 0})),
                "controlnet.end does not meet the constraints. It is 0; it must be above start, which is 0.",
            ),
            (unit(json!({"preprocess": "openpose"})), "which needs a network"),
            (unit(json!({"threshold_a": 1})), "The preprocessor none does not take it."),
            (
                unit(json!({"preprocess": "canny", "threshold_a": 250})),
                "it must be at most threshold_b, which is 200.",
            ),
            (unit(json!({"control_mode": "both"})), "it must be one of balanced, prompt, control."),
            (unit(json!({"module": "canny"})), "controlnet.module is not a valid input option."),
            (json!([1, 2, 3, 4, 5]), "It has 5 items; at most 4 are allowed."),
        ] {
            let found = parse(&controlnet).unwrap_err().to_string();
            assert!(found.contains(sentence), "{found}");
        }
    }

    #[test]
    fn a_model_that_takes_none_says_why() {
        let input = json!({"prompt": "a fox", "controlnet": {"model": "canny", "image": picture()}});
        let refused = |rules: InputRules| GenerationInput::parse(&input, &rules).unwrap_err().to_string();
        assert!(refused(InputRules::default()).contains("its weights are inside its ONNX graphs"));
        let embeds = InputRules { embeds_guidance: true, ..InputRules::default() };
        assert!(refused(embeds).contains("takes the guidance scale itself"));
    }
}
