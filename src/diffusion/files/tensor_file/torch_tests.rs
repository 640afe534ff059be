use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::*;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/torch");

fn number(value: &Value) -> f32 {
    match value {
        // JSON has no infinity.
        Value::String(text) => text.parse().unwrap(),
        number => {
            #[expect(clippy::cast_possible_truncation, reason = "they are f32")]
            let number = number.as_f64().unwrap() as f32;
            number
        }
    }
}

#[test]
fn files_of_torch_give_the_values_that_torch_reads() {
    let expected = fs::read_to_string(format!("{FOLDER}/expected.json")).unwrap();
    let expected: BTreeMap<String, Value> = serde_json::from_str(&expected).unwrap();
    assert!(expected.len() > 30);
    for (name, expected) in expected {
        let file = TensorFile::open(Path::new(&format!("{FOLDER}/{name}")))
            .unwrap_or_else(|error| panic!("{error}"));
        let tensors = expected["tensors"].as_object().unwrap();
        let mut names = file.tensor_names();
        names.sort();
        assert_eq!(names, tensors.keys().cloned().collect::<Vec<_>>(), "{name}");
        for (tensor, expected) in tensors {
            let shape: Vec<usize> = serde_json::from_value(expected["shape"].clone()).unwrap();
            assert_eq!(file.shape(tensor), Some(shape.as_slice()), "{name}: {tensor}");
            let mut values = file.values(tensor).unwrap();
            // The script writes what is not a number so.
            values.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = 12345.0);
            let expected: Vec<f32> = expected["values"].as_array().unwrap().iter().map(number).collect();
            assert_eq!(values, expected, "{name}: {tensor}");
        }
        let not_read: Vec<String> = serde_json::from_value(expected["not_read"].clone()).unwrap();
        assert_eq!(file.table.not_read, not_read, "{name}");
    }
}
