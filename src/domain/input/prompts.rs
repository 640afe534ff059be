//! The prompts of a request.

use super::reader::Reader;
use super::{InputRules, MAX_PROMPT_BYTES};
use crate::domain::composition::{MAX_PROMPT_PARTS, prompt_parts};
use crate::domain::wildcards::check_wildcards;
use crate::domain::without_lora_tags;

/// One prompt as its check sees it, without LoRA tags.
#[derive(Debug)]
pub struct CheckedPrompt<'a> {
    /// The field that it comes from.
    pub field: &'static str,
    /// The number of its picture, where wildcards draw other prompts for each. 0 where all pictures have the same.
    pub picture: u32,
    /// What `AND` joins.
    pub parts: Vec<&'a str>,
}

impl<'a> CheckedPrompt<'a> {
    /// A prompt in which `AND` joins parts.
    pub(super) fn composed(field: &'static str, picture: u32, text: &'a str) -> Self {
        Self { field, picture, parts: prompt_parts(text).into_iter().map(|part| part.text).collect() }
    }

    /// A prompt in which AND is a plain word.
    pub(super) fn plain(field: &'static str, picture: u32, text: &'a str) -> Self {
        Self { field, picture, parts: vec![text] }
    }
}

/// A request's prompts.
pub(super) struct Prompts {
    pub prompt: String,
    pub negative_prompt: String,
    /// Whether `{a|b}` and `__name__` are drawn.
    pub wildcards: bool,
}

impl Prompts {
    /// `steps` are those of the request, or the default: prompts may change from step to step. A second pass and a job
    /// that draws nothing need none. A second pass draws its wildcards if the first does.
    pub fn read(
        reader: &mut Reader,
        rules: &InputRules,
        steps: u32,
        (is_required, wildcards): (bool, bool),
    ) -> Self {
        let fields = ["prompt", "negative_prompt"];
        let prompt = match is_required {
            true => reader.required_string(fields[0]),
            false => reader.string(fields[0]),
        };
        let [prompt, negative_prompt] = [prompt, reader.string(fields[1])].map(Option::unwrap_or_default);
        let wildcards = reader.flag("wildcards").unwrap_or(wildcards);
        let texts = [prompt, negative_prompt].map(without_lora_tags);
        let mut checked = Vec::new();
        for (field, text) in fields.into_iter().zip(&texts) {
            if text.len() > MAX_PROMPT_BYTES {
                let length = text.len();
                reader
                    .unmet(field, &format!("It has {length} bytes; at most {MAX_PROMPT_BYTES} are allowed."));
                continue;
            }
            if wildcards {
                // What they become is checked when the seed is known: `check_drawn`.
                if let Some(Err(sentence)) =
                    rules.wildcards.as_deref().map(|shelf| check_wildcards(text, shelf))
                {
                    reader.unmet(field, &sentence);
                }
                continue;
            }
            checked.push(match field {
                "prompt" => CheckedPrompt::composed(field, 0, text),
                _ => CheckedPrompt::plain(field, 0, text),
            });
        }
        composition(reader, rules, &texts[0]);
        if let Some(Err(sentences)) = rules.prompts.as_ref().map(|rules| rules.check(&checked, steps)) {
            for (field, sentence) in &sentences {
                reader.unmet(field, sentence);
            }
        }
        Self { prompt: prompt.to_owned(), negative_prompt: negative_prompt.to_owned(), wildcards }
    }
}

/// What `AND` needs.
fn composition(reader: &mut Reader, rules: &InputRules, prompt: &str) {
    let count = prompt_parts(prompt).len();
    if count > MAX_PROMPT_PARTS {
        reader.unmet(
            "prompt",
            &format!("AND joins {count} parts in it; at most {MAX_PROMPT_PARTS} are allowed."),
        );
    }
    let why = match count {
        0 | 1 => return,
        _ if rules.edits_images => "InstructPix2Pix guides by the picture as well",
        _ if rules.embeds_guidance => "its UNet takes the guidance scale itself",
        _ => return,
    };
    reader.unmet("prompt", &format!("AND in it is not supported by this model, because {why}."));
}
