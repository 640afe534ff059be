//! The prompts of pictures whose wildcards the seed draws.

use super::DiffusionError;
use crate::diffusion::text::PromptError;
use crate::domain::{DrawnPrompts, GenerationInput, WildcardShelf};

/// The request of one picture.
pub(super) fn in_request(drawn: &DrawnPrompts, input: &GenerationInput) -> GenerationInput {
    let DrawnPrompts { prompt, negative_prompt } = drawn.clone();
    GenerationInput { prompt, negative_prompt, wildcards: false, ..input.clone() }
}

/// The prompts of each picture of a request. Empty if the request draws no wildcards. The request was checked with the same
/// seed, so this fails only where files have changed since then.
pub(super) fn drawn_prompts(
    input: &GenerationInput,
    seed: u64,
    shelf: Option<&dyn WildcardShelf>,
) -> Result<Vec<DrawnPrompts>, DiffusionError> {
    let drawn = input.drawn_prompts(seed, shelf);
    Ok(drawn.map_err(|(field, sentence)| {
        PromptError::Wildcards(format!("{field} cannot be drawn. {sentence}"))
    })?)
}
