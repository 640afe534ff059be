//! Encodes the chunks of a text one by one, weighted as in A1111, and pads them to the number that the UNet reads.

use ndarray::{Array1, Array3, Axis, concatenate, s};

use crate::diffusion::nets::{ModelError, TextEncoder};
use crate::diffusion::text::{Chunk, LearnedWords, Tokenizer};
use crate::domain::ModelPart;

/// A text as the UNet reads it.
#[derive(PartialEq)]
pub(super) struct Wanted {
    /// Its number.
    pub text: usize,
    /// The chunk up to which its last vector is repeated.
    pub repeated_to: usize,
    /// All chunks. The rest is empty.
    pub count: usize,
}

/// Encodes the chunks of one request.
pub(super) struct ChunkEncoder<'a> {
    pub tokenizer: &'a Tokenizer,
    pub text_encoder: &'a mut TextEncoder,
    pub words: &'a LearnedWords,
    pub clip_skip: u32,
    /// An empty chunk, which is what pads.
    pub empty: Option<Array3<f32>>,
}

impl ChunkEncoder<'_> {
    /// `chunks` are those of the text that is wanted.
    pub fn encode(&mut self, chunks: &[Chunk], wanted: &Wanted) -> Result<Array3<f32>, ModelError> {
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

    const GOLDEN: &str = include_str!("../../../tests/golden/embedding.json");

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
}
