//! The few values of an original configuration (`v1-inference.yaml`) that a checkpoint's tensors do not tell.
//!
//! The parser gives one event after the other, and no tree is built, so that anchors cannot multiply anything.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser};

/// What stands under `model: params:`.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct OriginalYaml {
    /// What the model predicts: `eps`, `v` or `x0`.
    pub parameterization: Option<String>,
    /// The first and the last beta.
    pub linear_start: Option<f64>,
    pub linear_end: Option<f64>,
    pub timesteps: Option<usize>,
    /// What latents are multiplied by.
    pub scale_factor: Option<f32>,
}

/// Characters of a value that a sentence quotes.
const LONGEST_VALUE: usize = 60;
const PLACE: [&str; 2] = ["model", "params"];

/// A mapping or a list that is open at the moment.
enum Open {
    /// With the key whose value comes next.
    Mapping(Option<String>),
    List,
}

impl OriginalYaml {
    /// Reads a text. Keys that are not asked for are passed over.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::default();
        let mut open: Vec<Open> = Vec::new();
        // Only single values are remembered: these are small, and there are no more of them than the text has.
        let mut anchors: HashMap<usize, String> = HashMap::new();
        for event in Parser::new_from_str(text) {
            let (event, _) = event.map_err(|error| error.to_string())?;
            let value = match event {
                Event::MappingStart(..) => {
                    open.push(Open::Mapping(None));
                    continue;
                }
                Event::SequenceStart(..) => {
                    open.push(Open::List);
                    continue;
                }
                Event::MappingEnd | Event::SequenceEnd => {
                    open.pop();
                    end_value(&mut open);
                    continue;
                }
                Event::Scalar(value, _, anchor, _) => {
                    if anchor > 0 {
                        anchors.insert(anchor, value.to_string());
                    }
                    value.into_owned()
                }
                Event::Alias(anchor) => anchors.get(&anchor).cloned().unwrap_or_default(),
                Event::DocumentEnd => break,
                _ => continue,
            };
            match open.last_mut() {
                Some(Open::Mapping(key)) if key.is_none() => *key = Some(value),
                _ => {
                    found.take(&open, &value)?;
                    end_value(&mut open);
                }
            }
        }
        Ok(found)
    }

    /// Takes a value where it is one that is asked for.
    fn take(&mut self, open: &[Open], value: &str) -> Result<(), String> {
        let mut keys = open.iter().map(|open| match open {
            Open::Mapping(key) => key.as_deref(),
            Open::List => None,
        });
        let is_there = PLACE.iter().all(|place| keys.next().flatten() == Some(*place));
        let (true, Some(Some(key)), None) = (is_there, keys.next(), keys.next()) else { return Ok(()) };
        if matches!(value, "" | "~" | "null") {
            return Ok(());
        }
        let number = || {
            let parsed = value.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
            parsed.ok_or_else(|| {
                format!(
                    "model.params.{key} is {:?}, but must be a positive number",
                    value.chars().take(LONGEST_VALUE).collect::<String>()
                )
            })
        };
        match key {
            "parameterization" => self.parameterization = Some(value.to_owned()),
            "linear_start" => self.linear_start = Some(number()?),
            "linear_end" => self.linear_end = Some(number()?),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, then checked as a schedule"
            )]
            "timesteps" => self.timesteps = Some(number()? as usize),
            #[expect(clippy::cast_possible_truncation, reason = "it scales latents in f32")]
            "scale_factor" => self.scale_factor = Some(number()? as f32),
            _ => {}
        }
        Ok(())
    }
}

/// After a mapping's value comes its next key.
fn end_value(open: &mut [Open]) {
    if let Some(Open::Mapping(key)) = open.last_mut() {
        *key = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    parameterization: \"v\"
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    timesteps: 1000
    scale_factor: 0.18215
    scheduler_config: # 10000 warmup steps
      target: ldm.lr_scheduler.LambdaLinearScheduler
      params:
        warm_up_steps: [ 10000 ]
        parameterization: eps
    unet_config:
      params:
        timesteps: 7
        attention_resolutions: [ 4, 2, 1 ]
";

    #[test]
    fn the_values_of_the_original_code_s_file_are_found_where_they_belong() {
        let found = OriginalYaml::parse(V1).unwrap();
        let expected = OriginalYaml {
            parameterization: Some("v".to_owned()),
            linear_start: Some(0.00085),
            linear_end: Some(0.012),
            timesteps: Some(1000),
            scale_factor: Some(0.18215),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn other_styles_say_the_same() {
        for text in [
            "{model: {params: {parameterization: v}}}",
            "x: &kind v\nmodel:\n  params:\n    parameterization: *kind\n",
            "? model\n: params:\n    other: [1, {a: b}, 2]\n    parameterization: 'v'\n",
            "---\nmodel: {params: {a: , parameterization: \"v\"}}\n...\n---\nmodel: {params: {parameterization: eps}}\n",
        ] {
            assert_eq!(OriginalYaml::parse(text).unwrap().parameterization.as_deref(), Some("v"), "{text}");
        }
        for text in
            ["", "v", "- model", "parameterization: v", "model:\n  params:\n  - parameterization: v\n"]
        {
            assert_eq!(OriginalYaml::parse(text).unwrap(), OriginalYaml::default(), "{text}");
        }
    }

    #[test]
    fn a_broken_or_hostile_file_is_a_sentence_at_once() {
        let bomb = (0..60).fold("a: &a0 x\n".to_owned(), |text, i| {
            let alias = format!("*a{i}, ").repeat(9);
            format!("{text}b{i}: &a{} [{}]\n", i + 1, alias.trim_end_matches(", "))
        });
        let started = std::time::Instant::now();
        assert_eq!(OriginalYaml::parse(&bomb), Ok(OriginalYaml::default()));
        for text in [
            "model: {params: {linear_start: low}}",
            "model: {",
            "a: b: c",
            "model: {params: {timesteps: -1}}",
        ] {
            let sentence = OriginalYaml::parse(text).unwrap_err();
            assert!(!sentence.contains('\n'), "{sentence}");
        }
        for text in [
            "[".repeat(100_000),
            "- ".repeat(50_000),
            "{a: ".repeat(50_000),
            "&a ".repeat(50_000),
            "? ".repeat(50_000),
        ] {
            let _ = OriginalYaml::parse(&text);
        }
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for _ in 0..2000 {
            let mut bytes = V1.as_bytes().to_vec();
            for _ in 0..4 {
                let at = noise() % bytes.len();
                bytes[at] = u8::try_from(noise() % 128).unwrap();
            }
            let _ = OriginalYaml::parse(&String::from_utf8(bytes).unwrap());
        }
    }
}
