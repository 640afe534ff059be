//! Encodes prompts for the UNet: each chunk goes through the text encoder and is weighted as in A1111, and the chunks are
//! concatenated along the token axis. A plain prompt of one chunk is exactly the text encoder's output.

use std::sync::Arc;
use std::time::Duration;

use ndarray::{Array1, Array3, Axis, concatenate};

use super::DiffusionError;
use crate::diffusion::files::TextualInversionFolder;
use crate::diffusion::nets::{EncodedPrompt, ModelError, TextEncoder};
use crate::diffusion::text::{Chunk, Learned, LearnedWord, LearnedWords, PromptError, Tokenizer, chunks};
use crate::domain::{GenerationInput, ModelPart, without_lora_tags};

/// A request's prompts, encoded.
pub struct EncodedPrompts {
    /// The number of its tokens is a multiple of the window.
    pub positive: EncodedPrompt,
    /// As long as the positive one. `None` without guidance.
    pub negative: Option<EncodedPrompt>,
    /// Where the UNet reads fewer chunks than the longer prompt has: the chunks that were read, and all of them.
    pub cut: Option<(usize, usize)>,
    /// The learned words in either prompt.
    pub learned: Vec<LearnedWord>,
}

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

    /// Both prompts, the shorter one padded with empty prompts. `other` replaces the text encoder where a LoRA has changed
    /// it. `bundled` are words that LoRAs bring along.
    pub fn encode(
        &mut self,
        input: &GenerationInput,
        other: Option<&mut TextEncoder>,
        bundled: &[Learned],
    ) -> Result<EncodedPrompts, DiffusionError> {
        let words = self.textual_inversions.as_ref().map(|folder| folder.words());
        let mut words = words.unwrap_or_else(|| Arc::new(LearnedWords::none()));
        if !bundled.is_empty() {
            words = Arc::new(words.with(bundled, &self.tokenizer).map_err(PromptError::from)?);
        }
        let split = |prompt: &str| chunks(&self.tokenizer, &words, &without_lora_tags(prompt));
        let mut positive = split(&input.prompt)?;
        let mut negative = match self.guides_by_negative && input.is_guided() {
            true => Some(split(&input.negative_prompt)?),
            false => None,
        };
        let learned = learned_in(positive.iter().chain(negative.iter().flatten()), &words);
        let longest = positive.len().max(negative.as_ref().map_or(0, Vec::len));
        let count = self.chunks_read.unwrap_or(longest);
        let cut = (longest > count).then_some((count, longest));
        if cut.is_some() && !self.warned {
            self.warned = true;
            tracing::warn!(
                "this UNet reads exactly {count} chunk(s) of a prompt: the rest of a longer prompt is ignored, and \
                 the picture's text says so"
            );
        }
        let mut encoder = ChunkEncoder {
            tokenizer: &self.tokenizer,
            text_encoder: other.unwrap_or(&mut self.text_encoder),
            words: &words,
            clip_skip: input.clip_skip,
        };
        positive.resize_with(count, Chunk::default);
        let positive = EncodedPrompt::new(encoder.encode(&positive)?);
        let negative = match &mut negative {
            Some(negative) => {
                negative.resize_with(count, Chunk::default);
                Some(EncodedPrompt::new(encoder.encode(negative)?))
            }
            None => None,
        };
        Ok(EncodedPrompts { positive, negative, cut, learned })
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

/// Encodes the chunks of one request.
struct ChunkEncoder<'a> {
    tokenizer: &'a Tokenizer,
    text_encoder: &'a mut TextEncoder,
    words: &'a LearnedWords,
    clip_skip: u32,
}

impl ChunkEncoder<'_> {
    fn encode(&mut self, chunks: &[Chunk]) -> Result<Array3<f32>, ModelError> {
        let mut parts: Vec<Array3<f32>> = Vec::with_capacity(chunks.len());
        for (index, chunk) in chunks.iter().enumerate() {
            if index > 0 && chunk.ids.is_empty() && chunks[index - 1].ids.is_empty() {
                // The same padding as before.
                parts.push(parts[index - 1].clone());
                continue;
            }
            let mut tokens = self.tokenizer.frame(&chunk.ids);
            let learned = self.words.replace_vectors(&mut tokens.ids, self.text_encoder.vocabulary());
            let mut embedding = self.text_encoder.encode(&tokens, self.clip_skip, learned.as_ref())?;
            if !chunk.is_plain() {
                weigh(&mut embedding, &chunk.weights);
            }
            parts.push(embedding);
        }
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        concatenate(Axis(1), &views)
            .map_err(|error| ModelError::Run { part: ModelPart::TextEncoder, reason: error.to_string() })
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
    use crate::runtime::{DeviceChoice, Runtime};

    const GOLDEN: &str = include_str!("../../../tests/golden/embedding.json");

    fn encoder(tokens_read: Option<usize>) -> PromptEncoder {
        let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
        let (files, tokenizer) = ModelFiles::open(None).unwrap();
        let graph = PartSession::load(files.part(ModelPart::TextEncoder).unwrap(), &runtime).unwrap();
        let text_encoder = TextEncoder::new(graph, None, Vocabulary::default()).unwrap();
        PromptEncoder::new(Arc::new(tokenizer), text_encoder, tokens_read)
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
            let embedding = encoder.encode(&input(prompt, ""), None, &[]).unwrap().positive.values().clone();
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
            assert_eq!(
                encoder.encode(&input(prompt, ""), None, &[]).unwrap().positive.values().clone(),
                plain,
                "{prompt}"
            );
        }
    }

    #[test]
    fn the_shorter_prompt_is_padded_with_empty_ones() {
        let mut encoder = encoder(None);
        let one = encoder.encode(&input("a fox", ""), None, &[]).unwrap();
        let both = encoder.encode(&input("a fox", "rain BREAK snow BREAK fog"), None, &[]).unwrap();
        let negative = both.negative.unwrap();
        assert_eq!((both.positive.values().dim().1, negative.values().dim().1), (3 * 77, 3 * 77));
        let parts: Vec<_> = both.positive.values().axis_chunks_iter(Axis(1), 77).collect();
        let empty = one.negative.unwrap();
        assert_eq!(parts, [one.positive.values().view(), empty.values().view(), empty.values().view()]);
        let unguided = GenerationInput { guidance_scale: 1.0, ..input("a fox", "rain BREAK snow") };
        let unguided = encoder.encode(&unguided, None, &[]).unwrap();
        assert!(unguided.negative.is_none() && unguided.positive.values().dim().1 == 77);
    }

    #[test]
    fn a_unet_of_fixed_length_reads_the_first_chunks_and_the_cut_is_reported() {
        let long = input("a fox BREAK a cat", "");
        let mut fixed = encoder(Some(77));
        let cut = fixed.encode(&long, None, &[]).unwrap();
        assert_eq!((cut.cut, cut.positive.values().dim().1), (Some((1, 2)), 77));
        assert_eq!(
            cut.positive.values().clone(),
            fixed.encode(&input("a fox", ""), None, &[]).unwrap().positive.values().clone()
        );
        let padded = encoder(Some(154)).encode(&input("a fox", ""), None, &[]).unwrap();
        assert_eq!((padded.cut, padded.positive.values().dim().1), (None, 154));
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
            let refused = crate::domain::PromptCheck::check(&check, &prompt).err();
            if fits {
                assert_eq!(refused, None, "{prompt:.20}");
                encoder.encode(&input(&prompt, ""), None, &[]).unwrap();
            } else {
                let sentence = refused.unwrap();
                assert_eq!(
                    sentence, "It fills more than 32 chunks of 75 tokens; shorten it.",
                    "{prompt:.20}"
                );
                assert!(encoder.encode(&input(&prompt, ""), None, &[]).is_err());
            }
            // Well under a second even unoptimised; what is not linear takes minutes.
            assert!(started.elapsed().as_secs() < 10, "{prompt:.20} took {:?}", started.elapsed());
        }
    }
}
