//! Scripts and extensions: `script_name` and `alwayson_scripts`. None is here but ControlNet.

use serde_json::{Map, Value};

use super::choices::shown;
use super::control_net;
use super::error::A1111Error;
use crate::http::surface::{Fields, Translation};

/// The names that extensions have in `alwayson_scripts`, in lower case.
const ADETAILER: &str = "adetailer";
const CONTROLNET: [&str; 2] = ["controlnet", "sd_forge_controlnet"];

/// Refuses what would draw another picture. `translate` gets the units of ControlNet.
pub fn translate(
    fields: &Fields,
    to: &mut Translation,
    warnings: &mut Vec<String>,
) -> Result<(), A1111Error> {
    // Arguments alone do nothing.
    if let Some(name) =
        fields.text(&["script_name"])?.filter(|name| !name.trim().eq_ignore_ascii_case("none"))
    {
        return Err(not_found(&name));
    }
    let Some(scripts) = fields.value(&["alwayson_scripts"]).and_then(Value::as_object) else { return Ok(()) };
    for (name, script) in scripts {
        let args = script.get("args").unwrap_or(script);
        if is_off(args) {
            continue;
        }
        match name.trim().to_lowercase().as_str() {
            ADETAILER => {
                warnings.push("ADetailer is not here: no face was drawn again.".to_owned());
            }
            name if CONTROLNET.contains(&name) => control_net::translate(args, to, warnings)?,
            _ => return Err(not_found(name)),
        }
    }
    Ok(())
}

/// Clients send the blocks of extensions that are switched off: without arguments, or the first of them false.
fn is_off(args: &Value) -> bool {
    match args {
        Value::Null | Value::Bool(false) => true,
        Value::Array(args) => {
            args.first().is_none_or(|first| matches!(first, Value::Null | Value::Bool(false)))
        }
        Value::Object(args) => {
            let flag = |name| args.get(name) == Some(&Value::Bool(false));
            args.is_empty() || flag("enabled") || flag("enable") || is_plain_false(args)
        }
        _ => false,
    }
}

/// Arguments by number, as some clients write a list.
fn is_plain_false(args: &Map<String, Value>) -> bool {
    args.get("0") == Some(&Value::Bool(false))
}

/// A1111's words.
fn not_found(name: &str) -> A1111Error {
    A1111Error::Unsupported(format!("Script '{}' not found", shown(name)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(fields: &Value) -> Result<Vec<String>, String> {
        let mut warnings = Vec::new();
        let fields = Fields::new(fields.as_object().unwrap().clone());
        translate(&fields, &mut Translation::default(), &mut warnings).map_err(|error| error.to_string())?;
        Ok(warnings)
    }

    #[test]
    fn what_is_switched_off_does_nothing() {
        for fields in [
            json!({"script_name": null, "script_args": [1, 2]}),
            json!({"script_name": "", "script_args": []}),
            json!({"script_name": "None"}),
            json!({"alwayson_scripts": {}}),
            json!({"alwayson_scripts": null}),
            json!({"alwayson_scripts": []}),
            json!({"alwayson_scripts": {"ADetailer": {"args": [false]}, "animatediff": {"args": [false]}}}),
            json!({"alwayson_scripts": {"ControlNet": {"args": []}, "other": {}, "third": null}}),
            json!({"alwayson_scripts": {"animatediff": {"args": {"enable": false}}}}),
        ] {
            assert_eq!(read(&fields), Ok(vec![]), "{fields}");
        }
    }

    #[test]
    fn faces_are_a_warning_and_everything_else_is_refused() {
        let adetailer =
            json!({"alwayson_scripts": {"aDetailer": {"args": [true, true, {"ad_model": "face"}]}}});
        assert_eq!(read(&adetailer).unwrap(), ["ADetailer is not here: no face was drawn again."]);
        let refused = json!({"alwayson_scripts": {"Regional Prompter": {"args": [true]}}});
        assert_eq!(read(&refused).unwrap_err(), "Script 'Regional Prompter' not found");
        assert_eq!(read(&json!({"script_name": "x/y plot"})).unwrap_err(), "Script 'x/y plot' not found");
    }
}
