//! `cache_interval`: how often the whole UNet is called. The calls between take its deep features from the last whole call.

use super::InputRules;
use super::reader::{Reader, small};

/// The longest interval that the paper measured (DeepCache, Ma et al. 2023, arXiv 2312.00858).
pub const MAX_CACHE_INTERVAL: u32 = 20;

/// 1 calls the whole UNet each time. Where nothing can be reused, it is 1, and what was asked for is a warning: the picture is
/// the one that the request describes.
pub(super) fn read(
    reader: &mut Reader,
    rules: &InputRules,
    is_controlled: bool,
    warnings: &mut Vec<String>,
) -> u32 {
    let interval = reader.integer("cache_interval", 1, u64::from(MAX_CACHE_INTERVAL)).map_or(1, small);
    let why_not = match (rules.max_cache_interval > 1, is_controlled) {
        _ if interval == 1 => return 1,
        (true, false) => return interval,
        (false, _) => "with this model, because its UNet does not give its deep features",
        (true, true) => "with controlnet, which changes the deep features at every step",
    };
    warnings.push(format!("cache_interval has no effect {why_not}."));
    1
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::GenerationInput;

    fn parse(value: &Value, rules: &InputRules) -> Result<GenerationInput, Vec<String>> {
        let request = json!({"prompt": "a fox", "cache_interval": value});
        GenerationInput::parse(&request, rules).map_err(|violations| violations.0)
    }

    #[test]
    fn the_interval_is_read_and_written_again() {
        let rules = InputRules::default();
        let input = parse(&json!(3), &rules).unwrap();
        assert_eq!((input.cache_interval, input.warnings.len()), (3, 0));
        let again = GenerationInput::parse(&input.request_for(7, 0), &rules).unwrap();
        assert_eq!(again.cache_interval, 3);
        for off in [json!(1), Value::Null] {
            let input = parse(&off, &rules).unwrap();
            assert_eq!((input.cache_interval, input.request_for(7, 0).get("cache_interval")), (1, None));
        }
    }

    #[test]
    fn intervals_out_of_range_are_refused_in_a_sentence() {
        for wrong in [0, 21] {
            assert_eq!(
                parse(&json!(wrong), &InputRules::default()).unwrap_err(),
                [format!(
                    "cache_interval does not meet the constraints. It is {wrong}; it must be a whole number from 1 to 20."
                )]
            );
        }
        assert_eq!(
            parse(&json!("3"), &InputRules::default()).unwrap_err(),
            ["cache_interval should be int type, not str."]
        );
    }

    #[test]
    fn a_model_without_deep_features_draws_every_step_and_says_so() {
        let rules = InputRules { max_cache_interval: 1, ..InputRules::default() };
        let input = parse(&json!(3), &rules).unwrap();
        assert_eq!(input.cache_interval, 1);
        assert_eq!(
            input.warnings,
            [
                "cache_interval has no effect with this model, because its UNet does not give its deep features."
            ]
        );
        assert!(parse(&json!(1), &rules).unwrap().warnings.is_empty());
    }
}
