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
