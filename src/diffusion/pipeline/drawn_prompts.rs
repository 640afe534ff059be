//! The prompts of pictures whose wildcards the seed draws.

use super::DiffusionError;
use crate::diffusion::text::PromptError;
use crate::domain::{
    DrawnPrompts, GenerationInput, WildcardShelf, draw_wildcards, lora_tags, prompt_parts, without_lora_tags,
};

/// The request of one picture.
pub(super) fn in_request(drawn: &DrawnPrompts, input: &GenerationInput) -> GenerationInput {
    let DrawnPrompts { prompt, negative_prompt } = drawn.clone();
    GenerationInput { prompt, negative_prompt, wildcards: false, ..input.clone() }
}

/// The prompts of each picture of a request. Empty if the request draws no wildcards.
pub(super) fn drawn_prompts(
    input: &GenerationInput,
    seed: u64,
    shelf: Option<&dyn WildcardShelf>,
) -> Result<Vec<DrawnPrompts>, DiffusionError> {
    if !input.wildcards {
        return Ok(Vec::new());
    }
    let shelf = shelf.unwrap_or(&NoWildcards);
    let parts = |prompt: &str| prompt_parts(&without_lora_tags(prompt)).len();
    let most = parts(&input.prompt);
    let draw = |index: u32| {
        let seed = GenerationInput::seed_of(seed, index);
        let draw = |prompt: &str, stream| draw_wildcards(prompt, (seed, stream), shelf);
        // All LoRAs of the request are merged, whatever is drawn. They have no effect in a negative prompt.
        let prompt = draw(&without_lora_tags(&input.prompt), 0)? + &lora_tags(&input.prompt);
        let negative_prompt = draw(&without_lora_tags(&input.negative_prompt), 1)?;
        // The memory was planned for those in the request.
        if parts(&prompt) > most {
            return Err("A wildcard's file has AND in it; write AND into the prompt itself.".to_owned());
        }
        Ok(DrawnPrompts { prompt, negative_prompt })
    };
    let drawn: Result<Vec<_>, String> = (0..input.num_outputs).map(draw).collect();
    Ok(drawn.map_err(PromptError::Wildcards)?)
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
