//! The flag `--controlnet` as the request's field `controlnet`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::base64_of;
use crate::cli::Failure;

/// `NAME=FILE`, and behind it further fields of the request: `,weight=0.8,preprocess=canny`.
#[derive(Debug, Clone)]
pub(super) struct ControlArg {
    model: String,
    image: PathBuf,
    fields: Vec<(String, Value)>,
}

impl ControlArg {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut items = text.split(',');
        let (model, image) = pair(items.next().unwrap_or_default())?;
        let field = |item: &str| {
            let (name, value) = pair(item)?;
            // Numbers as numbers, and everything else as text.
            let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
            Ok((name.to_owned(), number.map_or_else(|| json!(value), |number| json!(number))))
        };
        let fields = items.map(field).collect::<Result<_, String>>()?;
        Ok(Self { model: model.to_owned(), image: image.into(), fields })
    }

    /// The field with all of them; null if there are none.
    pub fn request(all: &[Self]) -> Result<Value, Failure> {
        let request = |one: &Self| {
            let mut request = json!({"model": one.model, "image": base64_of(&one.image)?});
            for (name, value) in &one.fields {
                request[name] = value.clone();
            }
            Ok(request)
        };
        let all = all.iter().map(request).collect::<Result<Vec<_>, Failure>>()?;
        Ok(if all.is_empty() { Value::Null } else { json!(all) })
    }

    /// How the user gave a field of `controlnet[INDEX]`.
    pub fn typed(all: &[Self], unit: &str, field: &str) -> Option<String> {
        let index: usize = unit.strip_prefix("controlnet[")?.strip_suffix(']')?.parse().ok()?;
        let Self { model, image, .. } = all.get(index)?;
        let flag = format!("--controlnet {model}={}", image.display());
        Some(match field {
            "model" | "image" => flag,
            field => format!("{field} in {flag}"),
        })
    }
}

fn pair(item: &str) -> Result<(&str, &str), String> {
    let pair = item.split_once('=').filter(|(name, value)| !name.is_empty() && !value.is_empty());
    pair.ok_or_else(|| {
        format!("{item:?} has no NAME=VALUE: write NAME=FILE, and then fields such as ,weight=0.8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_a_file_and_fields_are_read() {
        let one = ControlArg::parse("canny=a house.png,weight=0.8,preprocess=canny").unwrap();
        assert_eq!((one.model.as_str(), one.image), ("canny", PathBuf::from("a house.png")));
        assert_eq!(
            one.fields,
            [("weight".to_owned(), json!(0.8)), ("preprocess".to_owned(), json!("canny"))]
        );
        for text in ["", "canny", "=x.png", "canny=", "canny=x.png,weight"] {
            assert!(ControlArg::parse(text).unwrap_err().contains("NAME=FILE"), "{text}");
        }
    }
}
