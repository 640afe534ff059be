//! Runs UNet calls on a card as captured CUDA graphs: one graph for each shape, with inputs and outputs at fixed addresses.
//!
//! A call copies what has changed to the card, starts the graph and copies the prediction back. Rows are padded to a
//! few sizes, so that few graphs serve all batches. This module knows the UNet's tensors but no generations.

use ndarray::{Array2, Array4, s};
use ort::memory::Allocator;
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::Tensor;

use super::card::CardMemory;
use super::card_turn;
use super::unet::UNetRows;

/// The numbers of rows that captured graphs have. A call with more rows is not captured.
const SIZES: [usize; 5] = [1, 2, 4, 8, 16];
/// The number of graphs for one session. ONNX Runtime keeps them as long as the session, and each takes a few megabytes.
/// Further shapes run without a graph.
const MOST_GRAPHS: i32 = 64;
/// The bytes of all bound tensors. Beyond this, the least recently used shape is dropped.
const MOST_BYTES: usize = 256 << 20;

/// The UNet's tensors by their names in its graph.
pub(super) struct Names<'a> {
    pub sample: &'a str,
    pub timestep: &'a str,
    pub encoder_hidden_states: &'a str,
    /// For a UNet that embeds the guidance scale.
    pub timestep_cond: Option<&'a str>,
    pub out_sample: &'a str,
}

/// The captured graphs of one session.
pub(super) struct Replays {
    /// The most recently used is last. This field comes before `memory`, so that the tensors are dropped first.
    captured: Vec<Captured>,
    memory: CardMemory,
    graphs: i32,
    /// The number of the last graph, captured or not. No number is used twice.
    last_number: i32,
    /// Whether a capture has failed. Then no more are tried.
    failed: bool,
}

impl Replays {
    pub fn new(memory: CardMemory) -> Self {
        Self { memory, captured: Vec::new(), graphs: 0, last_number: 0, failed: false }
    }

    /// The noise prediction `[rows, channels, height, width]`. `None` if this call must run without a graph.
    pub fn predict(
        &mut self,
        session: &mut Session,
        names: &Names<'_>,
        rows: &UNetRows<'_>,
        guidance: Option<&Array2<f32>>,
    ) -> ort::Result<Option<Array4<f32>>> {
        let Some(shape) = CallShape::padded(rows, guidance) else { return Ok(None) };
        if let Some(place) = self.captured.iter().position(|captured| captured.shape == shape) {
            let _turn = card_turn::shared();
            let mut captured = self.captured.remove(place);
            let predicted = captured.run(session, rows, guidance);
            self.captured.push(captured);
            return predicted.map(Some);
        }
        if self.failed || self.graphs >= MOST_GRAPHS {
            return Ok(None);
        }
        let _turn = card_turn::alone();
        self.make_room(shape.bytes());
        self.last_number += 1;
        let mut captured = Captured::new(shape, self.last_number, &self.memory, session, names)?;
        match captured.run(session, rows, guidance) {
            Ok(predicted) => {
                self.graphs += 1;
                if self.graphs == MOST_GRAPHS {
                    tracing::info!(
                        "UNet calls of {MOST_GRAPHS} shapes are captured: further shapes run kernel by kernel"
                    );
                }
                self.captured.push(captured);
                Ok(Some(predicted))
            }
            Err(error) if crate::runtime::is_out_of_memory(&error.to_string()) => Err(error),
            Err(error) => {
                let reason = crate::runtime::reason(&error);
                tracing::warn!(
                    "UNet calls run one kernel at a time, because none could be captured: {reason}"
                );
                self.failed = true;
                Ok(None)
            }
        }
    }

    /// Drops the least recently used graphs' tensors until `bytes` more fit.
    fn make_room(&mut self, bytes: usize) {
        let held = |captured: &[Captured]| captured.iter().map(|one| one.shape.bytes()).sum::<usize>();
        while !self.captured.is_empty() && held(&self.captured) + bytes > MOST_BYTES {
            self.captured.remove(0);
        }
    }
}

/// The shape of the calls that a captured graph can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CallShape {
    rows: usize,
    channels: usize,
    height: usize,
    width: usize,
    tokens: usize,
    dim: usize,
    /// Of the guidance embedding; 0 without one.
    guidance: usize,
}

/// The channels that a UNet predicts. Some UNets read more.
const PREDICTED: usize = 4;

impl CallShape {
    /// The smallest shape that has room for these rows. `None` if there are too many rows.
    fn padded(rows: &UNetRows<'_>, guidance: Option<&Array2<f32>>) -> Option<Self> {
        let (count, channels, height, width) = rows.sample.dim();
        let (_, tokens, dim) = rows.embeddings.first()?.values().dim();
        let rows = SIZES.into_iter().find(|size| *size >= count)?;
        Some(Self { rows, channels, height, width, tokens, dim, guidance: guidance.map_or(0, Array2::ncols) })
    }

    /// The size of its tensors on the card.
    fn bytes(&self) -> usize {
        let map = self.height * self.width;
        self.rows
            * (map * (self.channels + PREDICTED) + self.tokens * self.dim + self.guidance + 1)
            * size_of::<f32>()
    }
}

/// A graph and its tensors.
struct Captured {
    shape: CallShape,
    options: RunOptions,
    binding: IoBinding,
    sample: Mirrored,
    timestep: Mirrored,
    encoder_hidden_states: Mirrored,
    timestep_cond: Option<Mirrored>,
    out_sample: Mirrored,
    /// The numbers of the encoded prompts that are on the card, for each row.
    prompts: Vec<u64>,
}

impl Captured {
    fn new(
        shape: CallShape,
        graph: i32,
        memory: &CardMemory,
        session: &Session,
        names: &Names<'_>,
    ) -> ort::Result<Self> {
        let CallShape { rows, channels, height, width, tokens, dim, guidance } = shape;
        let sample = Mirrored::new(memory, &[rows, channels, height, width])?;
        let timestep = Mirrored::new(memory, &[rows])?;
        let encoder_hidden_states = Mirrored::new(memory, &[rows, tokens, dim])?;
        let mut out_sample = Mirrored::new(memory, &[rows, PREDICTED, height, width])?;
        let mut binding = session.create_binding()?;
        binding.bind_input(names.sample, &sample.card)?;
        binding.bind_input(names.timestep, &timestep.card)?;
        binding.bind_input(names.encoder_hidden_states, &encoder_hidden_states.card)?;
        let timestep_cond = match names.timestep_cond {
            Some(name) => {
                let tensor = Mirrored::new(memory, &[rows, guidance])?;
                binding.bind_input(name, &tensor.card)?;
                Some(tensor)
            }
            None => None,
        };
        binding.bind_output(names.out_sample, &mut out_sample.card)?;
        let mut options = RunOptions::new()?;
        options.set("gpu_graph_id", graph.to_string())?;
        let prompts = Vec::new();
        Ok(Self {
            shape,
            options,
            binding,
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond,
            out_sample,
            prompts,
        })
    }

    /// Runs the graph; its first run captures it.
    fn run(
        &mut self,
        session: &mut Session,
        rows: &UNetRows<'_>,
        guidance: Option<&Array2<f32>>,
    ) -> ort::Result<Array4<f32>> {
        let count = rows.sample.dim().0;
        // Padding rows repeat the first row. Their predictions are not read.
        let padded = |row: usize| if row < count { row } else { 0 };
        let all = 0..self.shape.rows;
        self.sample.write(all.clone().map(|row| rows.sample.slice(s![padded(row), .., .., ..])))?;
        self.timestep.write(all.clone().map(|row| rows.timesteps.slice(s![padded(row)..=padded(row)])))?;
        if let (Some(tensor), Some(guidance)) = (&mut self.timestep_cond, guidance) {
            tensor.write(all.clone().map(|row| guidance.row(padded(row))))?;
        }
        let prompts: Vec<u64> = all.clone().map(|row| rows.embeddings[padded(row)].number()).collect();
        if prompts != self.prompts {
            self.prompts.clear();
            let values = all.map(|row| rows.embeddings[padded(row)].values().slice(s![0, .., ..]));
            self.encoder_hidden_states.write(values)?;
            self.prompts = prompts;
        }
        session.run_binding_with_options(&self.binding, &self.options)?;
        let predicted = self.out_sample.read()?;
        Ok(predicted.slice(s![..count, .., .., ..]).to_owned())
    }
}

/// A tensor on the card, with a copy in the machine's memory.
struct Mirrored {
    host: Tensor<f32>,
    card: Tensor<f32>,
}

impl Mirrored {
    fn new(memory: &CardMemory, shape: &[usize]) -> ort::Result<Self> {
        let host = Tensor::new(&Allocator::default(), shape.to_vec())?;
        Ok(Self { host, card: memory.tensor(shape)? })
    }

    /// Copies the rows, one after the other, to the card.
    fn write<'a, D: ndarray::Dimension + 'a>(
        &mut self,
        rows: impl Iterator<Item = ndarray::ArrayView<'a, f32, D>>,
    ) -> ort::Result<()> {
        let (_, values) = self.host.extract_tensor_mut();
        fill(values, rows);
        self.host.copy_into(&mut self.card)
    }

    /// Copies the values from the card.
    fn read(&mut self) -> ort::Result<ndarray::ArrayView4<'_, f32>> {
        self.card.copy_into(&mut self.host)?;
        let array = self.host.extract_array();
        array.into_dimensionality().map_err(|error| ort::Error::new(error.to_string()))
    }
}

/// Writes the values of the rows, one after the other.
fn fill<'a, D: ndarray::Dimension + 'a>(
    values: &mut [f32],
    rows: impl Iterator<Item = ndarray::ArrayView<'a, f32, D>>,
) {
    let mut rest = values;
    for row in rows {
        let (place, behind) = rest.split_at_mut(row.len().min(rest.len()));
        place.iter_mut().zip(row.iter()).for_each(|(place, value)| *place = *value);
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array3};

    use super::*;
    use crate::diffusion::nets::EncodedPrompt;

    #[test]
    fn rows_are_padded_to_the_next_size_and_too_many_are_not_captured() {
        let prompt = EncodedPrompt::new(Array3::zeros((1, 77, 8)));
        let padded = |count: usize| {
            let rows = UNetRows {
                sample: Array4::zeros((count, 4, 8, 8)),
                timesteps: Array1::zeros(count),
                embeddings: vec![&prompt; count],
                guidance_scales: Vec::new(),
                residuals: Vec::new(),
            };
            CallShape::padded(&rows, None).map(|shape| shape.rows)
        };
        let sizes = [1, 2, 3, 4, 5, 8, 9, 16, 17].map(padded);
        assert_eq!(sizes, [Some(1), Some(2), Some(4), Some(4), Some(8), Some(8), Some(16), Some(16), None]);
    }

    #[test]
    fn each_row_is_written_right_behind_the_one_before() {
        let rows = Array3::from_shape_vec((3, 2, 2), (0..12_u8).map(f32::from).collect()).unwrap();
        let whole = |values: [f32; 12]| values.map(|value| format!("{value}")).join(" ");
        let mut values = [-1.0; 12];
        // In standard layout, and with exchanged axes.
        fill(&mut values, rows.outer_iter());
        assert_eq!(whole(values), "0 1 2 3 4 5 6 7 8 9 10 11");
        fill(&mut values, rows.outer_iter().map(ndarray::ArrayView2::reversed_axes));
        assert_eq!(whole(values), "0 2 1 3 4 6 5 7 8 10 9 11");
    }

    #[test]
    fn the_largest_batch_of_the_usual_size_fits_its_bound_many_times() {
        let usual =
            CallShape { rows: 16, channels: 4, height: 64, width: 64, tokens: 77, dim: 768, guidance: 256 };
        assert!(usual.bytes() * 10 < MOST_BYTES, "{}", usual.bytes());
    }
}
