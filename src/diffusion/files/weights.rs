//! The weights of one session in memory, and the order in which its graph has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use half::f16;

use super::{PartFiles, WeightlessGraph};

/// The weights of one session, in the layout of its graph. ONNX Runtime reads those of nodes on the CPU in place, so
/// they must live as long as the session unless all of it runs on a card.
#[derive(Clone)]
pub struct Weights {
    slots: BTreeMap<String, Slot>,
    buffer: Arc<[u8]>,
}

/// Where a weight goes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slot {
    /// In the order of checkpoints.
    pub shape: Vec<usize>,
    pub element: Element,
    pub order: Order,
    pub at: usize,
    pub length: usize,
}

/// The order of a weight's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As in checkpoints.
    Plain,
    /// A convolution's with the input channels last.
    ChannelsLast,
    /// A convolution's in blocks of so many input and output channels.
    Blocks(usize),
    /// A convolution's or a linear layer's in blocks of [`OUTPUT_BLOCK`] output channels.
    OutputBlocks,
}

/// The channels in a block of [`Order::OutputBlocks`].
pub(super) const OUTPUT_BLOCK: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F32,
    F16,
}

impl Weights {
    /// A buffer of `length` bytes, all zero.
    #[expect(unsafe_code, reason = "zeroed memory that is initialised as it is")]
    pub(super) fn zeroed(slots: BTreeMap<String, Slot>, length: usize) -> Self {
        // SAFETY: zeros are values of u8. Made so, the pages are the system's own zeros until they are written to.
        let buffer = unsafe { Arc::<[u8]>::new_zeroed_slice(length).assume_init() };
        Self { slots, buffer }
    }

    /// The buffer, for the session.
    pub fn buffer(&self) -> &Arc<[u8]> {
        &self.buffer
    }

    /// Whether a graph finds each of its weights here, in its own layout.
    pub fn fit(&self, graph: &WeightlessGraph) -> bool {
        graph.has_slots(&self.slots)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.keys().map(String::as_str)
    }

    /// A weight's shape as checkpoints have it: a convolution's is `[out, in, height, width]`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.slots.get(name).map(|slot| slot.shape.as_slice())
    }

    /// A weight's values in the order of its shape.
    pub fn values(&self, name: &str) -> Option<Vec<f32>> {
        let slot = self.slots.get(name)?;
        let bytes = self.buffer.get(slot.at..slot.at + slot.length)?;
        let count = slot.length / slot.element.width();
        let run = slot.run().unwrap_or(count).max(1);
        let mut values = Vec::with_capacity(count);
        for first in (0..count).step_by(run) {
            let (start, stride) = slot.spread(first / run);
            let places = 0..run.min(count - first);
            values.extend(places.map(|place| slot.element.read(bytes, start + place * stride)));
        }
        Some(values)
    }

    /// Where to write each of them, all at once; nothing while a session reads them.
    pub fn writers(&mut self) -> Vec<(&str, WeightWriter<'_>)> {
        let Some(mut rest) = Arc::get_mut(&mut self.buffer) else { return Vec::new() };
        let mut slots: Vec<_> = self.slots.iter().collect();
        slots.sort_unstable_by_key(|(_, slot)| (slot.at, slot.length));
        let (mut writers, mut at) = (Vec::with_capacity(slots.len()), 0);
        for (name, slot) in slots {
            let (bytes, behind) = std::mem::take(&mut rest)[slot.at - at..].split_at_mut(slot.length);
            writers.push((name.as_str(), WeightWriter { slot, bytes, next: 0 }));
            (rest, at) = (behind, slot.at + slot.length);
        }
        writers
    }
}

/// Parameters that a LoRA can change.
pub trait Parameters {
    /// The values of the parameter of this name, in the order of the checkpoint's own shape.
    fn values(&self, parameter: &str) -> Result<Vec<f32>, String>;

    /// Replaces all of them.
    fn replace(&mut self, parameter: &str, values: &[f32]) -> Result<(), String>;
}

/// A part's weights with the files that they come from. Where the graph's type is smaller than the files', values are read
/// from the files once more, so that a change is rounded once.
pub struct Originals<'a> {
    pub weights: &'a mut Weights,
    pub files: &'a PartFiles,
}

impl Parameters for Originals<'_> {
    fn values(&self, parameter: &str) -> Result<Vec<f32>, String> {
        let slot = self.weights.slots.get(parameter);
        let slot = slot.ok_or_else(|| format!("there is no weight {parameter}"))?;
        let values = match slot.element {
            Element::F32 => self.weights.values(parameter),
            Element::F16 => self.files.values(parameter).map_err(|error| error.to_string())?,
        };
        values.ok_or_else(|| format!("{parameter} cannot be read"))
    }

    fn replace(&mut self, parameter: &str, values: &[f32]) -> Result<(), String> {
        self.weights.replace(parameter, values)
    }
}

impl Weights {
    /// Writes all values of a weight anew, in whatever type and order the graph has them.
    pub fn replace(&mut self, parameter: &str, values: &[f32]) -> Result<(), String> {
        let slot = self.slots.get(parameter).ok_or_else(|| format!("there is no weight {parameter}"))?;
        let count = slot.length / slot.element.width();
        if count != values.len() {
            return Err(format!("{parameter} has {count} values, not {}", values.len()));
        }
        let buffer = Arc::get_mut(&mut self.buffer);
        let bytes = buffer.and_then(|buffer| buffer.get_mut(slot.at..slot.at + slot.length));
        let bytes = bytes.ok_or_else(|| format!("{parameter} is in use"))?;
        WeightWriter { slot, bytes, next: 0 }.write(values);
        Ok(())
    }
}

/// Writes a weight's values, which come piece by piece in the order of its shape, in the graph's type and order.
pub struct WeightWriter<'a> {
    slot: &'a Slot,
    bytes: &'a mut [u8],
    next: usize,
}

impl WeightWriter<'_> {
    /// Writes the next values. Ignores values beyond the end.
    pub fn write(&mut self, values: &[f32]) {
        let element = self.slot.element;
        let room = self.bytes.len() / element.width() - self.next;
        let values = &values[..values.len().min(room)];
        if let Some(run) = self.slot.run() {
            let mut index = self.next;
            let mut rest = values;
            while !rest.is_empty() {
                let (start, stride) = self.slot.spread(index / run);
                let (of_run, others) = rest.split_at(rest.len().min(run - index % run));
                for (place, value) in (index % run..).zip(of_run) {
                    element.write(&mut self.bytes[(start + place * stride) * element.width()..], *value);
                }
                (index, rest) = (index + of_run.len(), others);
            }
        } else {
            let bytes = &mut self.bytes[self.next * element.width()..];
            match element {
                Element::F32 => {
                    for (bytes, value) in bytes.chunks_exact_mut(4).zip(values) {
                        bytes.copy_from_slice(&value.to_le_bytes());
                    }
                }
                Element::F16 => {
                    for (bytes, value) in bytes.chunks_exact_mut(2).zip(values) {
                        bytes.copy_from_slice(&f16::from_f32(*value).to_le_bytes());
                    }
                }
            }
        }
        self.next += values.len();
    }
}

impl Slot {
    /// The number of values in a row that have equal distances in the graph's order, where it has one of its own: those for an
    /// output channel, or for a pair of channels.
    fn run(&self) -> Option<usize> {
        let axes = match self.order {
            Order::Plain => return None,
            Order::OutputBlocks => 1,
            Order::ChannelsLast | Order::Blocks(_) => 2,
        };
        // A weight without values may claim any sizes.
        let product = |product: usize, size: &usize| product.saturating_mul(*size);
        Some(self.shape.get(axes..)?.iter().fold(1, product).max(1))
    }

    /// Where a run is in the graph's order: the position of its first value, and the distance from one to the next.
    fn spread(&self, run: usize) -> (usize, usize) {
        let inputs = self.shape.get(1).copied().unwrap_or(1).max(1);
        let of_run = self.run().unwrap_or(1);
        let (output, input) = (run / inputs, run % inputs);
        match self.order {
            Order::Plain => (run * of_run, 1),
            Order::ChannelsLast => (output * of_run * inputs + input, inputs),
            Order::Blocks(block) => {
                let outer = (output / block) * (inputs / block) + input / block;
                let start = outer * of_run * block * block + input % block * block + output % block;
                (start, block * block)
            }
            Order::OutputBlocks => {
                (run / OUTPUT_BLOCK * of_run * OUTPUT_BLOCK + run % OUTPUT_BLOCK, OUTPUT_BLOCK)
            }
        }
    }
}

impl Element {
    pub const fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    fn read(self, bytes: &[u8], index: usize) -> f32 {
        let b = &bytes[index * self.width()..];
        match self {
            Self::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            Self::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
        }
    }

    fn write(self, bytes: &mut [u8], value: f32) {
        match self {
            Self::F32 => bytes[..4].copy_from_slice(&value.to_le_bytes()),
            Self::F16 => bytes[..2].copy_from_slice(&f16::from_f32(value).to_le_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_come_in_pieces_go_where_the_graph_has_them() {
        // Of output o, input i and place p of a kernel, in blocks of output channels.
        for shape in [vec![32, 3], vec![32, 2, 3, 3]] {
            let count: usize = shape.iter().product();
            let of_output = count / 32;
            let slot = Slot {
                shape: shape.clone(),
                element: Element::F32,
                order: Order::OutputBlocks,
                at: 64,
                length: 4 * count,
            };
            let mut weights = Weights::zeroed(BTreeMap::from([("w".to_owned(), slot)]), 64 + 4 * count);
            let values: Vec<f32> = (0_u16..).map(f32::from).take(count).collect();
            for (_, mut writer) in weights.writers() {
                values.chunks(5).for_each(|piece| writer.write(piece));
            }
            for (index, value) in values.iter().enumerate() {
                let (output, rest) = (index / of_output, index % of_output);
                let place = output / 16 * of_output * 16 + rest * 16 + output % 16;
                let bytes = &weights.buffer()[64 + 4 * place..][..4];
                assert_eq!(bytes, value.to_le_bytes(), "{shape:?}: value {index}");
            }
            assert_eq!(weights.values("w").unwrap(), values);
        }
    }
}
