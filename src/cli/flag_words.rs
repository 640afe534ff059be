//! What the checks of a request say, in the words of a command line.
//!
//! `generate` and `upscale` make a request of their flags, so that one set of rules holds for both ways to draw. Its
//! sentences name the request's fields, and keep the words of the hosted worker. The user typed flags.

use crate::domain::{GenerationInput, Violations};

/// The fields whose flags have other names.
const OTHER_NAMES: [(&str, &str); 4] = [
    ("num_inference_steps", "--steps"),
    ("image_guidance_scale", "--image-guidance"),
    ("hires", "the second pass (--hires-…)"),
    ("hires.prompt", "--hires-prompt"),
];

/// The worker's words, and those of a command line.
const WORDS: [(&str, &str); 7] = [
    (" is a required input", " is required"),
    (" is not a valid input option.", " is unknown."),
    (" should be str type", " must be a word"),
    (" should be int type", " must be a whole number"),
    (" should be float type", " must be a number"),
    (" an --", " --"),
    (" send ", " give "),
];

/// The violations of a request, about what the user typed. `typed` names a field for which it is no flag of the same name.
pub(super) fn in_flags(violations: &Violations, typed: impl Fn(&str) -> Option<String>) -> String {
    let sentences = violations.0.iter().map(|sentence| {
        let sentence = sentence.strip_prefix("Unexpected input. ").unwrap_or(sentence);
        let (field, rest) = sentence.split_once(' ').unwrap_or((sentence, ""));
        // Fields of an object in the request are named like `hires.scale` and `controlnet[0].model`.
        if !is_field(field.split(['.', '[']).next().unwrap_or_default()) {
            return with_flags(sentence);
        }
        let subject = typed(field).unwrap_or_else(|| flag(field));
        match rest.strip_prefix("does not meet the constraints. ") {
            None => format!("{subject}{}", with_flags(&format!(" {rest}"))),
            Some(constraint) => match constraint.strip_prefix("It ") {
                Some(predicate) => format!("{subject}{}", with_flags(&format!(" {predicate}"))),
                None => format!("{subject}:{}", with_flags(&format!(" {constraint}"))),
            },
        }
    });
    sentences.collect::<Vec<_>>().join(" ")
}

/// A sentence with flags in the place of the fields that it names. Names that are also plain words, such as `prompt` and
/// `mask`, stay as they are, unless the sentence begins with one.
pub(super) fn with_flags(sentence: &str) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.[]".contains(c);
    let mut text = String::with_capacity(sentence.len());
    let mut rest = sentence;
    while let Some(at) = rest.find(is_name) {
        let (before, from) = rest.split_at(at);
        let name = &from[..from.find(|c| !is_name(c)).unwrap_or(from.len())];
        let name = name.trim_end_matches('.');
        text.push_str(before);
        let is_no_plain_word = name.contains('_') || ["outpaint", "hires", "hires.prompt"].contains(&name);
        match is_field(name) && (text.is_empty() || is_no_plain_word) {
            true => text.push_str(&flag(name)),
            false => text.push_str(name),
        }
        // A point alone is no name.
        let taken = name.len().max(1);
        text.push_str(&from[name.len()..taken]);
        rest = &from[taken..];
    }
    text.push_str(rest);
    for (theirs, ours) in WORDS {
        text = text.replace(theirs, ours);
    }
    text
}

fn is_field(name: &str) -> bool {
    GenerationInput::FIELDS.contains(&name) || OTHER_NAMES.iter().any(|(field, _)| *field == name)
}

fn flag(field: &str) -> String {
    match OTHER_NAMES.into_iter().find(|(name, _)| *name == field) {
        Some((_, flag)) => flag.to_owned(),
        None => format!("--{}", field.replace(['_', '.'], "-")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::InputRules;

    #[test]
    fn violations_name_flags() {
        let request = json!({
            "prompt": "a ".repeat(40_000), "width": 65, "num_inference_steps": 0, "scheduler": "DDIMM", "seed": -2,
            "mask": "https://example.org/mask.png", "outpaint": {"left": 9999}, "karras": true, "spacing": "beta",
            "hires": {"upscaler": "lanczos"}, "tiling": true,
        });
        let violations = GenerationInput::parse(&request, &InputRules::default()).unwrap_err();
        let typed = |field: &str| (field == "prompt").then(|| "the prompt".to_owned());
        let words = in_flags(&violations, typed);
        for sentence in [
            "the prompt has 80000 bytes; at most 65536 are allowed.",
            "--width is 65; it must be a multiple of 64.",
            "--steps is 0; it must be a whole number from 1 to 500.",
            "--seed is -2; it must be",
            "--mask needs --init-image.",
            "--tiling cannot be combined with the second pass (--hires-…), whose",
            "--outpaint-left is 9999;",
            "give only spacing.",
        ] {
            assert!(words.contains(sentence), "{sentence} is not in: {words}");
        }
        for word in ["does not meet", "It ", "init_image", "num_inference_steps", "send"] {
            assert!(!words.contains(word), "{word} is in: {words}");
        }
    }

    #[test]
    fn the_words_of_python_are_not_said() {
        let fields = json!({"prompt": "", "eta": "x", "noise": 1, "clip_skip": 1.5, "size": 3});
        let violations = GenerationInput::parse(&fields, &InputRules::default()).unwrap_err();
        assert_eq!(
            in_flags(&violations, |_| None),
            "size is unknown. --clip-skip must be a whole number, not float. --eta must be a number, not str. \
             --noise must be a word, not int."
        );
    }

    #[test]
    fn plain_words_stay_unless_they_begin_a_sentence() {
        for (sentence, words) in [
            (
                "subseed has no effect without subseed_strength.",
                "--subseed has no effect without --subseed-strength.",
            ),
            ("mask_blur has no effect without a mask.", "--mask-blur has no effect without a mask."),
            (
                "LoRAs in hires.prompt have no effect: both passes use the LoRAs of the prompt.",
                "LoRAs in --hires-prompt have no effect: both passes use the LoRAs of the prompt.",
            ),
            (
                "use a lower guidance_scale or lora_scale, …",
                "use a lower --guidance-scale or --lora-scale, …",
            ),
            ("lora.safetensors is no LoRA . .. (mask)", "lora.safetensors is no LoRA . .. (mask)"),
            ("", ""),
        ] {
            assert_eq!(with_flags(sentence), words);
        }
    }
}
