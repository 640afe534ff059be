//! A card as our graphs use it: attention kernels that give right results on it, and memory for bound tensors.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ndarray::linalg::Dot;
use ndarray::{Array2, Array3, Axis, s};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::value::Tensor;

use super::{ModelError, card_turn};
use crate::runtime::{Attention, Device, GraphSource, OnCard, Runtime, RuntimeError, is_out_of_memory};

/// Attention of eight heads of any width: `query`, `key` and `value` to `attended`, `[batch, tokens, width]`.
static PROBE: &[u8] = include_bytes!("../../../models/graphs/probe.attention.onnx");
const HEADS: usize = 8;
/// The widths of a head in Stable Diffusion v1's UNet.
const HEAD_WIDTHS: [usize; 3] = [40, 80, 160];
const QUERIES: usize = 128;
/// As many keys as queries, and as many as a prompt's chunk has tokens.
const KEYS: [usize; 2] = [QUERIES, 77];
/// Of the largest value: float16 comes within a tenth of this, and a kernel that does not work nowhere near.
const TOLERANCE: f32 = 2e-2;

/// Memory of a card for tensors that are bound to a session.
///
/// It does not come from the session that they are bound to. A captured graph writes its intermediate results where
/// its session had them at the capture, and that session may have given the place to somebody else since.
pub(super) struct CardMemory {
    allocator: Allocator,
    /// The allocator is this session's.
    _session: Session,
}

impl CardMemory {
    /// None on a CPU.
    pub fn open(runtime: &Runtime) -> Result<Option<Self>, ModelError> {
        let Device::Cuda { index, .. } = runtime.device() else { return Ok(None) };
        let _turn = card_turn::shared();
        let on_card = OnCard { attention: Some(attention(runtime)), captures: false };
        let session = runtime.session_on_card(GraphSource::Memory(PROBE), on_card)?;
        let place = MemoryInfo::new(
            AllocationDevice::CUDA,
            index.cast_signed(),
            AllocatorType::Device,
            MemoryType::Default,
        );
        let allocator =
            place.and_then(|place| Allocator::new(&session, place)).map_err(|error| failed(&error))?;
        Ok(Some(Self { allocator, _session: session }))
    }

    /// A tensor on the card, its values not yet written.
    pub fn tensor(&self, shape: &[usize]) -> ort::Result<Tensor<f32>> {
        Tensor::new(&self.allocator, shape.to_vec())
    }
}

/// The attention kernels for our graphs on this runtime's card. They are tried out once for each card, and again if
/// the card was too full for the trial.
pub(super) fn attention(runtime: &Runtime) -> Attention {
    static CHOSEN: Mutex<BTreeMap<u32, Attention>> = Mutex::new(BTreeMap::new());
    let Device::Cuda { index, .. } = runtime.device() else { return Attention::Math };
    if let Some(requested) = runtime.card_settings().attention.or_else(Attention::requested) {
        return requested;
    }
    let mut chosen = CHOSEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(attention) = chosen.get(index) {
        return *attention;
    }
    let Some(attention) = first_that_works(runtime) else { return Attention::Math };
    chosen.insert(*index, attention);
    attention
}

/// None where the card had too little memory for a trial, which says nothing about the kernels.
fn first_that_works(runtime: &Runtime) -> Option<Attention> {
    let candidates = Attention::candidates(runtime.device().compute_capability());
    let mut failures: Vec<String> = Vec::new();
    for attention in candidates {
        match error_of(attention, runtime) {
            Ok(error) if error <= TOLERANCE => {
                if !failures.is_empty() {
                    tracing::warn!(
                        "attention on this card uses the kernel {attention}, because others failed their trial: {}",
                        failures.join("; ")
                    );
                }
                tracing::debug!(%attention, error, "chose the attention kernel");
                return Some(attention);
            }
            Ok(error) => failures.push(format!("{attention} (its error is {error:.1e})")),
            Err(error) if is_out_of_memory(&error.to_string()) => return None,
            Err(error) => failures.push(format!("{attention} ({error})")),
        }
    }
    // A card on which no kernel is right will draw nothing right. Its pictures, not its attention, are the proof.
    tracing::warn!(
        "no attention kernel passed its trial on this card: {}; math is used",
        failures.join("; ")
    );
    Some(Attention::Math)
}

/// How far a kernel is from attention computed here, relative to the largest value. Infinite where a value is not
/// finite.
fn error_of(attention: Attention, runtime: &Runtime) -> Result<f32, ModelError> {
    let on_card = OnCard { attention: Some(attention), captures: false };
    let mut session = runtime.session_on_card(GraphSource::Memory(PROBE), on_card)?;
    let mut worst = 0.0_f32;
    for head_width in HEAD_WIDTHS {
        let width = HEADS * head_width;
        for keys in KEYS {
            let (query, key, value) =
                (values(QUERIES, width, 1), values(keys, width, 2), values(keys, width, 3));
            let given =
                |array: &Array3<f32>| Tensor::from_array(array.clone()).map_err(|error| failed(&error));
            let inputs = ort::inputs![
                "query" => given(&query)?, "key" => given(&key)?, "value" => given(&value)?
            ];
            let outputs = session.run(inputs).map_err(|error| failed(&error))?;
            let attended = outputs["attended"].try_extract_array::<f32>().map_err(|error| failed(&error))?;
            let expected = reference(&query, &key, &value);
            let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            for (value, expected) in attended.iter().zip(&expected) {
                let error = (value - expected).abs() / largest;
                worst = if error.is_finite() { worst.max(error) } else { f32::INFINITY };
            }
        }
    }
    Ok(worst)
}

/// `softmax(QKᵀ / √d) V` for each head.
fn reference(query: &Array3<f32>, key: &Array3<f32>, value: &Array3<f32>) -> Array3<f32> {
    let width = query.dim().2 / HEADS;
    let mut attended = Array3::zeros(query.dim());
    for head in 0..HEADS {
        let columns = s![0, .., head * width..(head + 1) * width];
        #[expect(clippy::cast_precision_loss, reason = "a head has a few hundred values at most")]
        let scale = (width as f32).sqrt().recip();
        let (queries, keys, values) = (query.slice(columns), key.slice(columns), value.slice(columns));
        let mut scores: Array2<f32> = Dot::dot(&queries, &keys.t()) * scale;
        for mut row in scores.axis_iter_mut(Axis(0)) {
            let largest = row.fold(f32::NEG_INFINITY, |largest, score| largest.max(*score));
            row.mapv_inplace(|score| (score - largest).exp());
            let sum = row.sum();
            row /= sum;
        }
        let product: Array2<f32> = Dot::dot(&scores, &values);
        attended.slice_mut(columns).assign(&product);
    }
    attended
}

/// Numbers between -1 and 1 that look random and are the same each time.
fn values(tokens: usize, width: usize, seed: u32) -> Array3<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9) | 1;
    Array3::from_shape_simple_fn((1, tokens, width), || {
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        #[expect(clippy::cast_precision_loss, reason = "16 bits fit a float32")]
        let value = (state >> 16) as f32;
        value / 32_768.0 - 1.0
    })
}

fn failed(error: &ort::Error) -> ModelError {
    ModelError::Runtime(RuntimeError::Graph(crate::runtime::reason(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_to_one_token_is_that_token() {
        let (query, key, value) = (values(3, 64, 1), values(1, 64, 2), values(1, 64, 3));
        let attended = reference(&query, &key, &value);
        for row in attended.axis_iter(Axis(1)) {
            assert!(row.iter().zip(&value).all(|(a, b)| (a - b).abs() < 1e-6));
        }
    }

    #[test]
    fn trial_values_spread_over_their_range() {
        let values = values(64, 64, 1);
        let (mean, largest) = (values.mean().unwrap(), values.fold(0.0_f32, |l, v| l.max(v.abs())));
        assert!(mean.abs() < 0.1 && (0.9..=1.0).contains(&largest), "{mean} {largest}");
    }
}
