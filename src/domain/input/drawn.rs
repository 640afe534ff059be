//! The prompts of a request's pictures, as its seed draws them from wildcards.

use super::reader::unmet;
use super::{CheckedPrompt, GenerationInput, InputRules, Violations};
use crate::domain::wildcards::WildcardDrawer;
use crate::domain::{DrawnPrompts, WildcardShelf, lora_tags, prompt_parts, without_lora_tags};

impl GenerationInput {
    /// The prompts of each picture. Empty if the request draws no wildcards. The error is the field that cannot be drawn,
    /// and a sentence. Reads files.
    pub fn drawn_prompts(
        &self,
        seed: u64,
        wildcards: Option<&dyn WildcardShelf>,
    ) -> Result<Vec<DrawnPrompts>, (&'static str, String)> {
        if !self.wildcards {
            return Ok(Vec::new());
        }
        let mut drawer = WildcardDrawer::new(wildcards.unwrap_or(&NoWildcards));
        let parts = |prompt: &str| prompt_parts(&without_lora_tags(prompt)).len();
        let most = parts(&self.prompt);
        let draw = |index: u32| {
            let seed = self.variation.seed_of(seed, index);
            let mut draw = |field, prompt: &str, stream| {
                drawer.draw(&without_lora_tags(prompt), (seed, stream)).map_err(|sentence| (field, sentence))
            };
            // All LoRAs of the request are merged, whatever is drawn. They have no effect in a negative prompt.
            let prompt = draw("prompt", &self.prompt, 0)? + &lora_tags(&self.prompt);
            let negative_prompt = draw("negative_prompt", &self.negative_prompt, 1)?;
            // The memory is planned for those in the request.
            if parts(&prompt) > most {
                let sentence = "A wildcard draws an AND into it; write AND into the prompt itself.";
                return Err(("prompt", sentence.to_owned()));
            }
            Ok(DrawnPrompts { prompt, negative_prompt })
        };
        (0..self.num_outputs).map(draw).collect()
    }

    /// Draws the wildcards as the job with this seed will, in both of its passes, and checks what they become. Reads files.
    pub fn check_drawn(&self, seed: u64, rules: &InputRules) -> Result<(), Violations> {
        self.check_drawn_pass("", seed, rules)?;
        match self.second_pass() {
            Some(second) => second.check_drawn_pass("hires.", seed, rules),
            None => Ok(()),
        }
    }

    /// `prefix` comes before the names of the pass's fields.
    fn check_drawn_pass(&self, prefix: &str, seed: u64, rules: &InputRules) -> Result<(), Violations> {
        let refuse = |sentences: Vec<(&'static str, String)>| {
            let in_words = |(field, sentence): &(_, String)| unmet(&format!("{prefix}{field}"), sentence);
            Violations(sentences.iter().map(in_words).collect())
        };
        let drawn = self.drawn_prompts(seed, rules.wildcards.as_deref());
        let drawn = drawn.map_err(|refused| refuse(vec![refused]))?;
        let texts: Vec<_> = drawn
            .iter()
            .map(|drawn| [&drawn.prompt, &drawn.negative_prompt].map(|prompt| without_lora_tags(prompt)))
            .collect();
        let checked: Vec<_> = (0..)
            .zip(&texts)
            .flat_map(|(picture, [prompt, negative_prompt])| {
                [
                    CheckedPrompt::composed("prompt", picture, prompt),
                    CheckedPrompt::plain("negative_prompt", picture, negative_prompt),
                ]
            })
            .collect();
        match rules.prompts.as_deref().filter(|_| !checked.is_empty()) {
            Some(check) => check.check(&checked, self.num_inference_steps).map_err(refuse),
            None => Ok(()),
        }
    }
}

/// A server without a folder of wildcards.
#[derive(Debug)]
struct NoWildcards;

impl WildcardShelf for NoWildcards {
    fn find(&self, name: &str) -> Result<(), String> {
        Err(format!("There is no wildcard {name}."))
    }

    fn lines(&self, _name: &str) -> Result<Option<Vec<String>>, String> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{PromptCheck, PromptLength};

    #[test]
    fn wildcards_are_read_only_where_they_are_asked_for() {
        #[derive(Debug)]
        struct Shelf;

        impl crate::domain::WildcardShelf for Shelf {
            fn find(&self, name: &str) -> Result<(), String> {
                if name == "animal" { Ok(()) } else { Err(format!("There is no wildcard {name}.")) }
            }

            fn lines(&self, _name: &str) -> Result<Option<Vec<String>>, String> {
                Ok(Some(vec!["a fox AND snow".to_owned()]))
            }
        }

        let rules = InputRules { wildcards: Some(Arc::new(Shelf)), ..InputRules::default() };
        let parse = |input: Value| GenerationInput::parse(&input, &rules);
        let plain = parse(json!({"prompt": "{a|__nobody__}"})).unwrap();
        assert_eq!((plain.wildcards, plain.request_for(1, 0).get("wildcards")), (false, None));
        let input = parse(json!({"prompt": "__animal__", "wildcards": true})).unwrap();
        assert_eq!((input.wildcards, &input.request_for(1, 0)["wildcards"]), (true, &json!(true)));
        assert_eq!(
            parse(json!({"prompt": "a", "negative_prompt": "{a|__nobody__}", "wildcards": true}))
                .unwrap_err()
                .0,
            ["negative_prompt does not meet the constraints. There is no wildcard nobody."]
        );
        assert_eq!(
            parse(json!({"prompt": "a", "hires": {"prompt": "{a|__nobody__}"}, "wildcards": true}))
                .unwrap_err()
                .0,
            ["hires.prompt does not meet the constraints. There is no wildcard nobody."]
        );
        assert_eq!(
            input.check_drawn(1, &rules).unwrap_err().0,
            [
                "prompt does not meet the constraints. A wildcard draws an AND into it; write AND into the prompt itself."
            ]
        );
        let within = parse(json!({"prompt": "{__animal__|b AND c}", "wildcards": true})).unwrap();
        assert_eq!(within.check_drawn(1, &rules), Ok(()));
        assert_eq!(
            parse(json!({"prompt": "a", "wildcards": 1})).unwrap_err().0,
            ["wildcards should be bool type, not int."]
        );
    }

    #[test]
    fn what_wildcards_become_is_checked_for_every_picture() {
        #[derive(Debug)]
        struct NoFoxes;

        impl PromptCheck for NoFoxes {
            fn check(
                &self,
                prompts: &[CheckedPrompt<'_>],
                _steps: u32,
            ) -> Result<(), Vec<(&'static str, String)>> {
                let foxes =
                    prompts.iter().filter(|prompt| prompt.parts.iter().any(|part| part.contains("fox")));
                let foxes: Vec<_> = foxes.map(|prompt| (prompt.field, prompt.picture.to_string())).collect();
                if foxes.is_empty() { Ok(()) } else { Err(foxes) }
            }

            fn length(&self, _prompt: &str) -> Result<PromptLength, String> {
                Err("It is not asked.".to_owned())
            }
        }

        let rules = InputRules { prompts: Some(Arc::new(NoFoxes)), ..InputRules::default() };
        let parse = |input: Value| GenerationInput::parse(&input, &rules).unwrap();
        let input = parse(json!({
            "prompt": "a {cat|fox} AND snow", "negative_prompt": "{rain|fox}", "wildcards": true, "num_outputs": 6,
        }));
        let drawn = input.drawn_prompts(5, None).unwrap();
        let mut expected = Vec::new();
        for (picture, drawn) in drawn.iter().enumerate() {
            for (field, prompt) in [("prompt", &drawn.prompt), ("negative_prompt", &drawn.negative_prompt)] {
                if prompt.contains("fox") {
                    expected.push(format!("{field} does not meet the constraints. {picture}"));
                }
            }
        }
        assert!(expected.len() > 2, "{drawn:?}");
        assert_eq!(input.check_drawn(5, &rules).unwrap_err().0, expected);
        let variations = parse(json!({
            "prompt": "{a|b|c|d|e|f|g|h}", "wildcards": true, "num_outputs": 4, "subseed": 1, "subseed_strength": 0.2,
        }));
        let drawn = variations.drawn_prompts(5, None).unwrap();
        assert!(drawn.iter().all(|prompts| *prompts == drawn[0]), "variations of one seed have its words");
        let many = parse(json!({"prompt": "a", "negative_prompt": "{a}".repeat(201), "wildcards": true}));
        assert_eq!(
            many.check_drawn(5, &rules).unwrap_err().0,
            ["negative_prompt does not meet the constraints. It draws more than 200 wildcards."]
        );
        let second = json!({"prompt": "a", "wildcards": true, "hires": {"scale": 1.5, "prompt": "fo{x|x}"}});
        assert_eq!(
            parse(second).check_drawn(5, &rules).unwrap_err().0,
            ["hires.prompt does not meet the constraints. 0"]
        );
        assert_eq!(parse(json!({"prompt": "{fo|fo}x"})).check_drawn(5, &rules), Ok(()), "nothing is drawn");
    }
}
