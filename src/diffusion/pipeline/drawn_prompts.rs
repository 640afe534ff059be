//! The prompts of pictures whose wildcards the seed draws.

use super::DiffusionError;
use crate::diffusion::text::PromptError;
use crate::domain::{DrawnPrompts, GenerationInput, WildcardShelf};

/// The request of one picture.
pub(super) fn in_request(drawn: &DrawnPrompts, input: &GenerationInput) -> GenerationInput {
    let DrawnPrompts { prompt, negative_prompt } = drawn.clone();
    GenerationInput { prompt, negative_prompt, wildcards: false, ..input.clone() }
}

/// The prompts of each picture of a pass. Empty if the request draws no wildcards. A server has checked the request with the
/// same seed, so there this fails only where files have changed since then. `prefix` comes before the names of the pass's
/// fields.
pub(super) fn drawn_prompts(
    input: &GenerationInput,
    seed: u64,
    shelf: Option<&dyn WildcardShelf>,
    prefix: &str,
) -> Result<Vec<DrawnPrompts>, DiffusionError> {
    let drawn = input.drawn_prompts(seed, shelf);
    Ok(drawn.map_err(|(field, sentence)| {
        PromptError::Wildcards(format!("{prefix}{field} cannot be drawn. {sentence}"))
    })?)
}
