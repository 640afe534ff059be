//! Encodes prompts for the UNet: each chunk goes through the text encoder and is weighted as in A1111, and the chunks are
//! concatenated along the token axis. A plain prompt of one chunk is exactly the text encoder's output. Prompts that change
//! from step to step are encoded once for each of their texts.

use std::sync::Arc;
use std::time::Duration;

use ndarray::{Array1, Array3, Axis, concatenate, s};

use super::DiffusionError;
use super::conditioning::{EncodedPrompts, Part, PicturePrompts};
use super::prompt_texts::PromptTexts;
use crate::diffusion::files::TextualInversionFolder;
use crate::diffusion::nets::{EncodedPrompt, ModelError, TextEncoder};
use crate::diffusion::text::{
    Chunk, Learned, LearnedWord, LearnedWords, MAX_ENCODED, PromptError, PromptSteps, Tokenizer,
};
use crate::domain::{DrawnPrompts, GenerationInput, ModelPart, PromptPart, prompt_parts, without_lora_tags};

pub struct PromptEncoder {
    tokenizer: Arc<Tokenizer>,
    text_encoder: TextEncoder,
    /// The exact number of chunks that the UNet reads. `None` if it reads any number.
    chunks_read: Option<usize>,
    warned: bool,
    /// Whether guidance goes away from a negative prompt, as it does unless the UNet embeds it.
    guides_by_negative: bool,
    /// The source of learned words, if the text encoder takes any.
    textual_inversions: Option<Arc<TextualInversionFolder>>,
}

impl PromptEncoder {
    /// `tokens_read` is the length of the UNet's token axis, if that is fixed.
    pub fn new(tokenizer: Arc<Tokenizer>, text_encoder: TextEncoder, tokens_read: Option<usize>) -> Self {
        let chunks_read = tokens_read.map(|tokens| (tokens / tokenizer.window()).max(1));
        Self {
            tokenizer,
            text_encoder,
            chunks_read,
            warned: false,
            guides_by_negative: true,
            textual_inversions: None,
        }
    }

    /// Encodes no negative prompts, for a UNet that embeds guidance.
    pub fn without_negatives(&mut self) {
        self.guides_by_negative = false;
    }

    /// Adds words from this folder.
    pub fn learn_from(&mut self, textual_inversions: Arc<TextualInversionFolder>) {
        self.textual_inversions = Some(textual_inversions);
    }

    /// All prompts, the shorter ones padded. `drawn` are those of each picture where wildcards drew them; else all pictures
    /// have the request's. `other` replaces the text encoder where a LoRA has changed it. `bundled` are words that LoRAs
    /// bring along.
    pub fn encode(
        &mut self,
        input: &GenerationInput,
        drawn: &[DrawnPrompts],
        steps: PromptSteps,
        other: Option<&mut TextEncoder>,
        bundled: &[Learned],
    ) -> Result<EncodedPrompts, DiffusionError> {
        let words = self.textual_inversions.as_ref().map(|folder| folder.words());
        let mut words = words.unwrap_or_else(|| Arc::new(LearnedWords::none()));
        if !bundled.is_empty() {
            words = Arc::new(words.with(bundled, &self.tokenizer).map_err(PromptError::from)?);
        }
        let mut texts = PromptTexts::new(&self.tokenizer, &words, steps);
        let is_guided = self.guides_by_negative && input.is_guided();
        let mut add = |prompt: &str, negative_prompt: &str| {
            let prompt = without_lora_tags(prompt);
            let parts = prompt_parts(&prompt)
                .into_iter()
                .map(|PromptPart { text, weight }| Ok(Part { weight, timeline: texts.add(text, true)? }));
            let parts = parts.collect::<Result<Vec<_>, PromptError>>()?;
            // Wildcards may have left one part of several, which then needs no negative prompt to be weighed against.
            let negative = match is_guided && (input.guidance_scale > 1.0 || parts.len() > 1) {
                true => Some(texts.add(&without_lora_tags(negative_prompt), false)?),
                false => None,
            };
            Ok::<_, PromptError>(PicturePrompts { parts, negative })
        };
        let mut pictures = match drawn {
            [] => vec![add(&input.prompt, &input.negative_prompt)?],
            drawn => drawn
                .iter()
                .map(|drawn| add(&drawn.prompt, &drawn.negative_prompt))
                .collect::<Result<_, _>>()?,
        };
        let learned = learned_in(texts.texts.iter().flat_map(|text| &text.chunks), &words);
        let PromptTexts { texts, unknown, .. } = texts;
        // A picture is padded to its own longest text, so that it is the same without the others.
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut cut = None;
        for picture in &mut pictures {
            let numbers = || picture.timelines().flat_map(|timeline| &timeline.0).map(|(_, text)| *text);
            let longest = numbers().map(|text| texts[text].chunks.len()).max().unwrap_or(1);
            let parts = numbers().filter(|text| texts[*text].is_part);
            let longest_part = parts.map(|text| texts[text].chunks.len()).max().unwrap_or(1);
            let count = self.chunks_read.unwrap_or(longest);
            cut = cut.max((longest > count).then_some((count, longest)));
            for (_, text) in picture.timelines_mut().flat_map(|timeline| &mut timeline.0) {
                let repeated_to = if texts[*text].is_part { longest_part } else { 0 };
                let this = Wanted { text: *text, repeated_to, count };
                *text = wanted.iter().position(|other| *other == this).unwrap_or_else(|| {
                    wanted.push(this);
                    wanted.len() - 1
                });
            }
        }
        let chunks = wanted.iter().map(|text| text.count);
        if chunks.clone().sum::<usize>() > MAX_ENCODED {
            let chunks = chunks.max().unwrap_or(0);
            return Err(PromptError::TooMany { texts: wanted.len(), chunks }.into());
        }
        self.warn_of(cut);
        let mut encoder = ChunkEncoder {
            tokenizer: &self.tokenizer,
            text_encoder: other.unwrap_or(&mut self.text_encoder),
            words: &words,
            clip_skip: input.clip_skip,
            empty: None,
        };
        let read = wanted
            .iter()
            .map(|wanted| encoder.encode(&texts[wanted.text].chunks, wanted).map(EncodedPrompt::new))
            .collect::<Result<_, _>>()?;
        Ok(EncodedPrompts { texts: read, pictures, cut, learned, unknown })
    }

    /// Warns once that prompts are cut.
    fn warn_of(&mut self, cut: Option<(usize, usize)>) {
        if let Some((count, _)) = cut.filter(|_| !self.warned) {
            self.warned = true;
            tracing::warn!(
                "this UNet reads exactly {count} chunk(s) of a prompt: the rest of a longer prompt is ignored, and \
                 the picture's text says so"
            );
        }
    }

    pub fn time_in_run(&self) -> Duration {
        self.text_encoder.time_in_run()
    }
}

/// The learned words whose vectors are in the chunks.
fn learned_in<'a>(chunks: impl Iterator<Item = &'a Chunk>, words: &LearnedWords) -> Vec<LearnedWord> {
    let ids: Vec<u32> = match words.is_empty() {
        true => return Vec::new(),
        false => chunks.flat_map(|chunk| chunk.ids.iter().copied()).collect(),
    };
    words.among(&ids).cloned().collect()
}

/// A text as the UNet reads it.
#[derive(PartialEq)]
struct Wanted {
    /// Its number.
    text: usize,
    /// The chunk up to which its last vector is repeated.
    repeated_to: usize,
    /// All chunks. The rest is empty.
    count: usize,
}

/// Encodes the chunks of one request.
struct ChunkEncoder<'a> {
    tokenizer: &'a Tokenizer,
    text_encoder: &'a mut TextEncoder,
    words: &'a LearnedWords,
    clip_skip: u32,
    /// An empty chunk, which is what pads.
    empty: Option<Array3<f32>>,
}

impl ChunkEncoder<'_> {
    /// `chunks` are those of the text that is wanted.
    fn encode(&mut self, chunks: &[Chunk], wanted: &Wanted) -> Result<Array3<f32>, ModelError> {
        let mut parts: Vec<Array3<f32>> = Vec::with_capacity(wanted.count);
        for index in 0..wanted.count {
            let part = match (chunks.get(index), parts.last()) {
                (Some(chunk), _) if !chunk.ids.is_empty() => self.chunk(chunk)?,
                (None, Some(last)) if index < wanted.repeated_to => {
                    let last_vector = last.slice(s![.., -1.., ..]);
                    last_vector.broadcast(last.dim()).map_or_else(|| last.clone(), |all| all.to_owned())
                }
                _ => self.padding()?,
            };
            parts.push(part);
        }
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        concatenate(Axis(1), &views)
            .map_err(|error| ModelError::Run { part: ModelPart::TextEncoder, reason: error.to_string() })
    }

    fn padding(&mut self) -> Result<Array3<f32>, ModelError> {
        let empty = match self.empty.take() {
            Some(empty) => empty,
            None => self.chunk(&Chunk::default())?,
        };
        Ok(self.empty.insert(empty).clone())
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<Array3<f32>, ModelError> {
        let mut tokens = self.tokenizer.frame(&chunk.ids);
        let learned = self.words.replace_vectors(&mut tokens.ids, self.text_encoder.vocabulary());
        let mut embedding = self.text_encoder.encode(&tokens, self.clip_skip, learned.as_ref())?;
        if !chunk.is_plain() {
            weigh(&mut embedding, &chunk.weights);
        }
        Ok(embedding)
    }
}

/// A mean below this share of the root mean square is not restored. CLIP's share is about a tenth, tiny-sd's a
/// thousandth.
const LEAST_MEAN: f64 = 0.01;

/// Multiplies each token's embedding by its weight, then all of them so that their mean is as before (A1111's
/// `modules/sd_emphasis.py`, "Original"). The mean is not restored if it is near 0, where the ratio would drown the
/// prompt. Bos, eos and padding have weight 1.
fn weigh(embedding: &mut Array3<f32>, weights: &[f32]) {
    let mut all = Array1::ones(embedding.dim().1);
    // After bos.
    all.iter_mut().skip(1).zip(weights).for_each(|(all, weight)| *all = *weight);
    let before = mean(embedding, |value| value);
    let spread = mean(embedding, |value| value * value).sqrt();
    *embedding *= &all.insert_axis(Axis(1));
    #[expect(clippy::cast_possible_truncation, reason = "a ratio near 1")]
    let ratio = (before / mean(embedding, |value| value)) as f32;
    if before.abs() >= LEAST_MEAN * spread && ratio.is_finite() {
        *embedding *= ratio;
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of values")]
fn mean(values: &Array3<f32>, of: impl Fn(f64) -> f64) -> f64 {
    values.iter().map(|&value| of(f64::from(value))).sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::diffusion::files::ModelFiles;
    use crate::diffusion::nets::{PartSession, Vocabulary};
    use crate::diffusion::text::chunks;
    use crate::domain::{CheckedPrompt, PromptCheck as _};
    use crate::runtime::{DeviceChoice, Runtime};

    const GOLDEN: &str = include_str!("../../../tests/golden/embedding.json");

    fn encoder(tokens_read: Option<usize>) -> PromptEncoder {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let (files, tokenizer) = ModelFiles::open(None).unwrap();
        let graph = PartSession::load(files.part(ModelPart::TextEncoder).unwrap(), &runtime).unwrap();
        let text_encoder = TextEncoder::new(graph, None, Vocabulary::default()).unwrap();
        PromptEncoder::new(Arc::new(tokenizer), text_encoder, tokens_read)
    }

    const STEPS: PromptSteps = PromptSteps { steps: 50, before: None };

    /// What the UNet reads at the first step.
    struct First {
        positive: Array3<f32>,
        negative: Option<Array3<f32>>,
        cut: Option<(usize, usize)>,
    }

    fn encode(encoder: &mut PromptEncoder, input: &GenerationInput) -> Result<First, DiffusionError> {
        let prompts = encoder.encode(input, &[], STEPS, None, &[])?;
        Ok(First {
            positive: prompts.positives(0, 0).next().unwrap().0.values().clone(),
            negative: prompts.negative(0, 0).map(|negative| negative.values().clone()),
            cut: prompts.cut,
        })
    }

    fn input(prompt: &str, negative_prompt: &str) -> GenerationInput {
        GenerationInput { negative_prompt: negative_prompt.to_owned(), ..GenerationInput::new(prompt) }
    }

    #[test]
    fn weighted_and_long_prompts_are_encoded_as_in_a1111() {
        let mut encoder = encoder(None);
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        for case in golden["prompts"].as_array().unwrap() {
            let prompt = case["prompt"].as_str().unwrap();
            let ids: Vec<Vec<u32>> = serde_json::from_value(case["ids"].clone()).unwrap();
            let found = chunks(&encoder.tokenizer, &LearnedWords::none(), prompt).unwrap();
            assert_eq!(found.into_iter().map(|chunk| chunk.ids).collect::<Vec<_>>(), ids, "{prompt}");
            let embedding = encode(&mut encoder, &input(prompt, "")).unwrap().positive;
            assert_eq!(embedding.dim(), (1, 77 * ids.len(), 160), "{prompt}");
            for (chunk, expected) in
                embedding.axis_chunks_iter(Axis(1), 77).zip(case["values"].as_array().unwrap())
            {
                for (value, expected) in chunk.iter().step_by(41).zip(expected.as_array().unwrap()) {
                    let expected = expected.as_f64().unwrap();
                    let apart = (f64::from(*value) - expected).abs() / expected.abs().max(1.0);
                    assert!(apart < 1e-5, "{prompt}: {value} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn a_plain_prompt_is_exactly_the_text_encoder_s_output() {
        let mut encoder = encoder(None);
        for prompt in ["", "a red heart on a blue background", "a fox, a cat, a house: 1.5"] {
            let tokens = encoder.tokenizer.encode(prompt).unwrap();
            assert_eq!(tokens.cut, 0);
            let plain = encoder.text_encoder.encode(&tokens, 1, None).unwrap();
            assert_eq!(encode(&mut encoder, &input(prompt, "")).unwrap().positive, plain, "{prompt}");
        }
    }

    #[test]
    fn the_shorter_prompt_is_padded_with_empty_ones() {
        let mut encoder = encoder(None);
        let one = encode(&mut encoder, &input("a fox", "")).unwrap();
        let both = encode(&mut encoder, &input("a fox", "rain BREAK snow BREAK fog")).unwrap();
        let negative = both.negative.unwrap();
        assert_eq!((both.positive.dim().1, negative.dim().1), (3 * 77, 3 * 77));
        let parts: Vec<_> = both.positive.axis_chunks_iter(Axis(1), 77).collect();
        let empty = one.negative.unwrap();
        assert_eq!(parts, [one.positive.view(), empty.view(), empty.view()]);
        let unguided = GenerationInput { guidance_scale: 1.0, ..input("a fox", "rain BREAK snow") };
        let unguided = encode(&mut encoder, &unguided).unwrap();
        assert!(unguided.negative.is_none() && unguided.positive.dim().1 == 77);
    }

    #[test]
    fn each_text_of_a_changing_prompt_is_encoded_once() {
        let mut encoder = encoder(None);
        let steps = PromptSteps { steps: 4, before: None };
        let request = input("a [fox|cat] AND [snow:ice:0.5] :0.3", "[rain::1]");
        let prompts = encoder.encode(&request, &[], steps, None, &[]).unwrap();
        assert_eq!(prompts.texts.len(), 6);
        let mut alone = |prompt: &str| encode(&mut encoder, &input(prompt, "")).unwrap().positive;
        for (step, [animal, ground]) in
            (0..).zip([["a fox", "snow"], ["a cat", "snow"], ["a fox", "ice"], ["a cat", "ice"]])
        {
            let (texts, weights): (Vec<_>, Vec<_>) =
                prompts.positives(0, step).map(|(text, weight)| (text.values(), weight)).unzip();
            assert_eq!((texts, weights), (vec![&alone(animal), &alone(ground)], vec![1.0, 0.3]), "{step}");
            let negative = prompts.negative(0, step).unwrap().values();
            assert_eq!(negative, &alone(if step == 0 { "rain" } else { "" }), "{step}");
        }
    }

    #[test]
    fn texts_of_other_lengths_are_padded_as_in_a1111() {
        let mut encoder = encoder(None);
        let request = input("[a BREAK b:c:1] AND d", "e BREAK f BREAK g");
        let prompts = encoder.encode(&request, &[], STEPS, None, &[]).unwrap();
        let mut alone = |prompt: &str| encode(&mut encoder, &input(prompt, "")).unwrap().positive;
        let [c, d, empty] = ["c", "d", ""].map(&mut alone);
        let chunks = |text: &EncodedPrompt| {
            text.values().axis_chunks_iter(Axis(1), 77).map(|chunk| chunk.to_owned()).collect::<Vec<_>>()
        };
        let [first, second] =
            prompts.positives(0, 1).map(|(text, _)| chunks(text)).collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(first, [c, empty.clone(), empty.clone()], "alternatives end with empty prompts");
        let last_vector = d.slice(s![.., -1.., ..]).broadcast(d.dim()).unwrap().to_owned();
        assert_eq!(second, [d, last_vector, empty], "parts repeat their last vector");
    }

    #[test]
    fn prompts_of_too_many_texts_are_refused() {
        let mut encoder = encoder(None);
        let many = "[a|b|c][d|e|f|g][h|i|j|k|l][m|n|o|p|q|r|s]";
        let check =
            crate::diffusion::pipeline::prompt_check::ChunkCheck::new(Arc::clone(&encoder.tokenizer), None);
        let checked = |prompt, steps| {
            check.check(&[CheckedPrompt { field: "prompt", picture: 0, parts: vec![prompt] }], steps)
        };
        assert_eq!(checked(many, 250), Ok(()));
        let sentence = "Its parts and changes make 257 texts, and each counts as many chunks as the longest: 1. At most \
                        256 chunks are allowed together; change less of it, or shorten it.";
        assert_eq!(checked(many, 500), Err(vec![("prompt", sentence.to_owned())]));
        let steps = PromptSteps { steps: 500, before: None };
        assert!(encoder.encode(&input(many, ""), &[], steps, None, &[]).is_err());
        // The text encoder pads all of them to the longest.
        let long = "BREAK ".repeat(20);
        let both = [("prompt", "[a|b|c|d|e|f|g|h|i|j|k|l|m|n]"), ("negative_prompt", &long)];
        let both = both.map(|(field, prompt)| CheckedPrompt { field, picture: 0, parts: vec![prompt] });
        assert!(check.check(&both[..1], 50).is_ok() && check.check(&both[1..], 50).is_ok());
        assert!(check.check(&both, 50).unwrap_err()[0].1.starts_with("Its parts and changes make 15 texts"));
        // Not all of the 250 texts are split: that would take long.
        let options: Vec<String> = (0..250).map(|option| option.to_string()).collect();
        let heavy = format!("{}[{}]", "BREAK ".repeat(30), options.join("|"));
        let sentence = checked(&heavy, 500).unwrap_err().remove(0).1;
        assert!(sentence.starts_with("Its parts and changes make 9 texts"), "{sentence}");
    }

    #[test]
    fn pictures_are_checked_as_they_are_encoded() {
        let mut encoder = encoder(None);
        let check =
            crate::diffusion::pipeline::prompt_check::ChunkCheck::new(Arc::clone(&encoder.tokenizer), None);
        // A picture of 28 chunks twice, and as many with one chunk as still fit.
        for (others, fits) in [(199, true), (200, false)] {
            let drawn: Vec<_> = (0..=others)
                .map(|picture| DrawnPrompts {
                    prompt: if picture == 0 { "BREAK ".repeat(28) } else { format!("fox {picture}") },
                    negative_prompt: String::new(),
                })
                .collect();
            let checked: Vec<_> = (0..)
                .zip(&drawn)
                .flat_map(|(picture, drawn)| {
                    [("prompt", &drawn.prompt), ("negative_prompt", &drawn.negative_prompt)]
                        .map(|(field, prompt)| CheckedPrompt { field, picture, parts: vec![prompt.as_str()] })
                })
                .collect();
            let refused = check.check(&checked, 50).err().map(|sentences| sentences[0].1.clone());
            let outcome = encoder.encode(&input("", ""), &drawn, STEPS, None, &[]);
            let error = outcome.err().map(|error| error.to_string());
            let is_same = match (&error, &refused) {
                (Some(error), Some(refused)) => error.ends_with(refused),
                (error, refused) => error.is_none() && refused.is_none(),
            };
            assert!(is_same && refused.is_none() == fits, "{others}: {error:?} {refused:?}");
        }
    }

    #[test]
    fn a_unet_of_fixed_length_reads_the_first_chunks_and_the_cut_is_reported() {
        let long = input("a fox BREAK a cat", "");
        let mut fixed = encoder(Some(77));
        let cut = encode(&mut fixed, &long).unwrap();
        assert_eq!((cut.cut, cut.positive.dim().1), (Some((1, 2)), 77));
        assert_eq!(cut.positive, encode(&mut fixed, &input("a fox", "")).unwrap().positive);
        let padded = encode(&mut encoder(Some(154)), &input("a fox", "")).unwrap();
        assert_eq!((padded.cut, padded.positive.dim().1), (None, 154));
    }

    #[test]
    fn a_mean_is_restored_as_a1111_restores_it() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let list = |key: &str| serde_json::from_value::<Vec<f32>>(golden["mean"][key].clone()).unwrap();
        let mut embedding = Array3::from_shape_vec((1, 6, 8), list("z")).unwrap();
        weigh(&mut embedding, &list("weights"));
        for (value, expected) in embedding.iter().zip(list("emphasised")) {
            assert!((value - expected).abs() < 1e-5, "{value} is not {expected}");
        }
    }

    #[test]
    fn a_mean_of_zero_stays_finite() {
        let mut embedding = Array3::zeros((1, 4, 2));
        embedding[[0, 1, 0]] = 1.0;
        weigh(&mut embedding, &[0.0, 0.0]);
        assert!(embedding.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn hostile_prompts_are_encoded_or_refused_quickly() {
        let mut encoder = encoder(None);
        let check =
            crate::diffusion::pipeline::prompt_check::ChunkCheck::new(Arc::clone(&encoder.tokenizer), None);
        for (prompt, fits) in [
            ("(".repeat(65_536), true),
            ("(a)b".repeat(16_384), false),
            ("( )\t".repeat(16_384), true),
            ("a".repeat(65_536), false),
            ("word ".repeat(13_107), false),
            ("BREAK ".repeat(31), true),
            ("BREAK ".repeat(33), false),
            (",".repeat(65_536), false),
        ] {
            let started = std::time::Instant::now();
            let checked = [CheckedPrompt { field: "prompt", picture: 0, parts: vec![&prompt] }];
            let refused = check.check(&checked, 50).err().map(|mut sentences| sentences.remove(0).1);
            if fits {
                assert_eq!(refused, None, "{prompt:.20}");
                encode(&mut encoder, &input(&prompt, "")).unwrap();
            } else {
                let sentence = refused.unwrap();
                assert_eq!(
                    sentence, "It fills more than 32 chunks of 75 tokens; shorten it.",
                    "{prompt:.20}"
                );
                assert!(encode(&mut encoder, &input(&prompt, "")).is_err());
            }
            // Well under a second even unoptimised; what is not linear takes minutes.
            assert!(started.elapsed().as_secs() < 10, "{prompt:.20} took {:?}", started.elapsed());
        }
    }
}
