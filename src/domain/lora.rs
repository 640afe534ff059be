//! The LoRAs of a request: from its field `lora`, and from A1111's tags in the prompt.
//!
//! A tag is `<lora:name>`, `<lora:name:scale>` or `<lora:name:text encoder's scale:UNet's scale>`, as A1111 reads them
//! (`modules/extra_networks.py`, `extensions-builtin/Lora/extra_networks_lora.py`), the scales also as `te=` and `unet=`.
//! Behind them may be block weights ([`BlockWeights`]), also as `lbw=`. A [`LoraShelf`] knows which LoRAs exist.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Range;

use super::lora_blocks::BlockWeights;

/// The most LoRAs in one request. Each one is a file to read.
pub const MAX_LORAS: usize = 8;
/// The limit of a scale in a tag, in both directions. LoRAs are trained for 0 to 1; far beyond, pictures are noise.
pub const MAX_LORA_SCALE: f32 = 10.0;
/// The longest name, in bytes.
const LONGEST_NAME: usize = 256;
/// A1111 accepts `<lyco:` too, which comes from an extension that it has absorbed.
const OPENINGS: [&str; 2] = ["<lora:", "<lyco:"];

/// A LoRA with its scales.
#[derive(Debug, Clone, PartialEq)]
pub struct Lora {
    /// Its name on the shelf.
    pub name: String,
    pub unet: f32,
    pub text_encoder: f32,
    /// Factors of the scales for each block.
    pub blocks: Option<BlockWeights>,
    pub origin: LoraOrigin,
}

/// Where the request names the LoRA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraOrigin {
    Field,
    Prompt,
}

/// The LoRAs that exist for a model.
pub trait LoraShelf: Debug + Send + Sync {
    /// The name on the shelf of the LoRA that `name` means. The error is a sentence that says why there is none.
    fn find(&self, name: &str) -> Result<String, String>;
    /// All names on the shelf, sorted.
    fn names(&self) -> Vec<String>;
}

/// The prompt without its LoRA tags, as the text encoder reads it.
pub fn without_lora_tags(prompt: &str) -> Cow<'_, str> {
    let mut tags = tags(prompt).peekable();
    if tags.peek().is_none() {
        return Cow::Borrowed(prompt);
    }
    let (mut words, mut start) = (String::with_capacity(prompt.len()), 0);
    for tag in tags {
        words.push_str(&prompt[start..tag.start]);
        start = tag.end;
    }
    words.push_str(&prompt[start..]);
    Cow::Owned(words)
}

/// The LoRA tags of the prompt alone.
pub fn lora_tags(prompt: &str) -> String {
    tags(prompt).map(|tag| &prompt[tag]).collect()
}

/// The LoRAs of the tags in the prompt, in order. It stops one beyond the limit. The error is a sentence about the first
/// invalid tag.
pub(super) fn loras_in(prompt: &str, shelf: &dyn LoraShelf) -> Result<Vec<Lora>, String> {
    tags(prompt).take(MAX_LORAS + 1).map(|tag| read(&prompt[tag], shelf)).collect()
}

/// Whether the prompt has any tag.
pub(super) fn has_lora_tags(prompt: &str) -> bool {
    tags(prompt).next().is_some()
}

/// The positions of the tags. A tag ends at the next `>` and is not empty.
fn tags(prompt: &str) -> impl Iterator<Item = Range<usize>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let start = from + prompt[from..].find('<')?;
            let opening = OPENINGS.iter().find(|opening| prompt[start..].starts_with(**opening));
            let Some(opening) = opening else {
                from = start + 1;
                continue;
            };
            let inside = start + opening.len();
            // Without a further `>`, there is no further tag.
            let length = prompt[inside..].find('>')?;
            from = inside + length + 1;
            if length > 0 {
                return Some(start..from);
            }
        }
    })
}

fn read(tag: &str, shelf: &dyn LoraShelf) -> Result<Lora, String> {
    let shown: String = tag.chars().take(80).collect();
    let inside = tag[OPENINGS[0].len()..].trim_end_matches('>');
    let mut items = inside.split(':');
    let name = find(items.next().unwrap_or_default(), shelf)?;
    let (mut positional, mut text_encoder, mut unet, mut blocks) = (0, None, None, None);
    let scale = |text: &str| {
        scale(text).ok_or_else(|| {
            format!("A scale in {shown} is not a number from -{MAX_LORA_SCALE} to {MAX_LORA_SCALE}.")
        })
    };
    let block_weights = |text: &str| BlockWeights::parse(text).map_err(|reason| format!("{shown} {reason}"));
    for item in items {
        match item.split_once('=').map(|(key, value)| (key.trim(), value)) {
            Some(("te", value)) => text_encoder = Some(scale(value)?),
            Some(("unet", value)) => unet = Some(scale(value)?),
            Some(("lbw" | "w", value)) => blocks = Some(block_weights(value)?),
            Some((key @ ("start" | "stop" | "step"), _)) => {
                return Err(format!(
                    "{shown} has {key}=, which would change the LoRA's scale between steps; stablehand merges it once, so \
                     leave {key}= out."
                ));
            }
            Some((key @ ("lbwe" | "x"), _)) => {
                return Err(format!("{shown} has {key}=, which is not supported; use lbw= with numbers."));
            }
            Some(_) => {
                return Err(format!("{shown} has an unknown argument; use te=, unet= or lbw=."));
            }
            // As the extension's users write it: behind the scale.
            None if positional > 0 && is_blocks(item) && blocks.is_none() => {
                blocks = Some(block_weights(item)?);
            }
            None => {
                let place = [&mut text_encoder, &mut unet].into_iter().nth(positional);
                let place =
                    place.ok_or_else(|| format!("{shown} has more arguments than a name and two scales."))?;
                // A named scale wins over a positional one, before or after it.
                *place = Some(place.unwrap_or(scale(item)?));
                positional += 1;
            }
        }
    }
    let text_encoder = text_encoder.unwrap_or(1.0);
    let unet = unet.unwrap_or(text_encoder);
    Ok(Lora { name, unet, text_encoder, blocks, origin: LoraOrigin::Prompt })
}

/// Whether an argument without a name is a list of block weights or a preset, and not a scale.
fn is_blocks(item: &str) -> bool {
    item.contains(',') || BlockWeights::parse(item).is_ok()
}

/// The name of the LoRA on the shelf.
pub(super) fn find(name: &str, shelf: &dyn LoraShelf) -> Result<String, String> {
    let name = name.trim();
    if name.is_empty() {
        return Err("It names no LoRA.".to_owned());
    }
    if name.len() > LONGEST_NAME {
        return Err(format!(
            "The name of a LoRA has {} bytes; at most {LONGEST_NAME} are allowed.",
            name.len()
        ));
    }
    shelf.find(name)
}

fn scale(text: &str) -> Option<f32> {
    text.trim().parse().ok().filter(|scale: &f32| scale.abs() <= MAX_LORA_SCALE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A shelf with every LoRA whose name does not begin with "no".
    #[derive(Debug)]
    struct All;

    impl LoraShelf for All {
        fn find(&self, name: &str) -> Result<String, String> {
            if name.starts_with("no") { Err(format!("There is no {name}.")) } else { Ok(name.to_owned()) }
        }

        fn names(&self) -> Vec<String> {
            Vec::new()
        }
    }

    fn scales(prompt: &str) -> Result<Vec<(String, f32, f32)>, String> {
        let loras = loras_in(prompt, &All)?;
        Ok(loras.into_iter().map(|lora| (lora.name, lora.text_encoder, lora.unet)).collect())
    }

    fn one(prompt: &str) -> (f32, f32) {
        let mut scales = scales(prompt).unwrap();
        assert_eq!(scales.len(), 1, "{prompt}");
        let (_, text_encoder, unet) = scales.remove(0);
        (text_encoder, unet)
    }

    #[test]
    fn scales_mean_the_same_as_in_a1111() {
        for (tag, scales) in [
            ("<lora:fox>", (1.0, 1.0)),
            ("<lora:fox:0.8>", (0.8, 0.8)),
            ("<lora:fox:0.8:0.5>", (0.8, 0.5)),
            ("<lora:fox:0:1>", (0.0, 1.0)),
            ("<lora:fox:-1>", (-1.0, -1.0)),
            ("<lora:fox: 1.5 >", (1.5, 1.5)),
            ("<lora:fox:te=0.5>", (0.5, 0.5)),
            ("<lora:fox:unet=0.5>", (1.0, 0.5)),
            ("<lora:fox:0.3:unet=0.5>", (0.3, 0.5)),
            ("<lora:fox:te=0.5:0.3>", (0.5, 0.5)),
            ("<lyco:fox:0.3>", (0.3, 0.3)),
        ] {
            assert_eq!(one(tag), scales, "{tag}");
        }
    }

    #[test]
    fn block_weights_follow_the_scales_by_name_or_by_position() {
        let none = "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0";
        for (tag, blocks) in [
            ("<lora:fox:0.5:lbw=INS>".to_owned(), Some("INS")),
            ("<lora:fox:0.5:0.5:lbw=IN02>".to_owned(), Some("IN02")),
            ("<lora:fox:0.5:OUTALL>".to_owned(), Some("OUTALL")),
            (format!("<lora:fox:0.5:{none}>"), Some("NONE")),
            (format!("<lora:fox:te=0.5:0.5:0.5:w={none}>"), Some("NONE")),
            ("<lora:fox:0.5>".to_owned(), None),
        ] {
            let lora = loras_in(&tag, &All).unwrap().remove(0);
            let blocks = blocks.map(|blocks| BlockWeights::parse(blocks).unwrap());
            assert_eq!((lora.text_encoder, lora.unet, lora.blocks), (0.5, 0.5, blocks), "{tag}");
        }
    }

    #[test]
    fn tags_are_removed_from_the_prompt_and_keep_their_order() {
        let prompt = "<lora:a:0.5>a fox, <lora:my b.2>in (snow<lora:c>:1.2)";
        assert_eq!(without_lora_tags(prompt), "a fox, in (snow:1.2)");
        let names: Vec<_> = scales(prompt).unwrap().into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a", "my b.2", "c"]);
        for words in ["", "a < b > c", "<lora:>", "<lora>", "<lora:never closed", "<hypernet:x:1>", "é<é"] {
            assert_eq!((without_lora_tags(words), has_lora_tags(words)), (words.into(), false));
        }
    }

    #[test]
    fn an_invalid_tag_is_an_error() {
        for (tag, sentence) in [
            ("<lora:none:1>", "There is no none."),
            ("<lora: :1>", "It names no LoRA."),
            ("<lora:a:b>", "A scale in <lora:a:b> is not a number from -10 to 10."),
            ("<lora:a:nan>", "A scale in <lora:a:nan> is not a number from -10 to 10."),
            ("<lora:a:11>", "A scale in <lora:a:11> is not a number from -10 to 10."),
            ("<lora:a:1:1:8>", "<lora:a:1:1:8> has more arguments than a name and two scales."),
            ("<lora:a:dyn=8>", "<lora:a:dyn=8> has an unknown argument; use te=, unet= or lbw=."),
            (
                "<lora:a:1:stop=8>",
                "<lora:a:1:stop=8> has stop=, which would change the LoRA's scale between steps; stablehand merges it \
                 once, so leave stop= out.",
            ),
            (
                "<lora:a:1:lbw=1,2>",
                "<lora:a:1:lbw=1,2> has 2 block weights; Stable Diffusion v1 takes 17 or 26 of them.",
            ),
            (
                "<lora:a:1:lbwe=X>",
                "<lora:a:1:lbwe=X> has lbwe=, which is not supported; use lbw= with numbers.",
            ),
        ] {
            assert_eq!(scales(tag).unwrap_err(), sentence);
        }
        assert!(scales(&format!("<lora:{}>", "a".repeat(300))).unwrap_err().contains("at most 256"));
    }

    proptest! {
        #[test]
        fn any_text_splits_into_words_and_tags(prompt in "(<|>|lora|<lora:|:|=|te|1|-|a|é| ){0,40}") {
            let words = without_lora_tags(&prompt);
            prop_assert!(words.len() <= prompt.len());
            prop_assert_eq!(has_lora_tags(&prompt), words.len() < prompt.len());
            let _ = loras_in(&prompt, &All);
        }
    }

    #[test]
    fn hostile_prompts_take_linear_time() {
        for part in ["<lora:", "<", "<lora:a>", "<lora:>", ">"] {
            let prompt = part.repeat(100_000);
            let start = std::time::Instant::now();
            without_lora_tags(&prompt);
            assert!(start.elapsed().as_secs() < 5, "{part}");
        }
    }
}
