//! A graph without weights, and the buffer with the weights for a session.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use half::f16;

use super::{AddTo, FileError, OnnxFile};

/// The text encoder's table of embeddings, `[vocabulary, width]`.
pub const TOKEN_EMBEDDING: &str = "text_model.embeddings.token_embedding.weight";
/// The name of the weights' file in a weightless graph. There is no such file: the weights are in memory.
pub const LOCATION: &str = "weights";
/// `TensorProto.doc_string` of a convolution's weight in the order that NHWC kernels read.
const OHWI: &str = "OHWI";
/// The same in blocks of channels, which `NCHWc` kernels read.
const BLOCKS: &str = "OIHWBiBo";
/// In bytes, far more than any part of a Stable Diffusion v1 model has.
const LARGEST: u64 = 16 << 30;

/// A graph from `models/graphs`.
pub struct WeightlessGraph {
    onnx: Cow<'static, [u8]>,
    outputs: Vec<String>,
    slots: HashMap<String, Slot>,
    length: usize,
}

/// Where a weight goes.
#[derive(Debug, Clone, PartialEq)]
struct Slot {
    /// In the order of checkpoints.
    shape: Vec<usize>,
    element: Element,
    order: Order,
    at: usize,
    length: usize,
}

/// The order of a weight's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// As in checkpoints.
    Plain,
    /// A convolution's with the input channels last.
    ChannelsLast,
    /// A convolution's in blocks of so many input and output channels.
    Blocks(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F32,
    F16,
}

/// The weights of one session, in the layout of its graph. ONNX Runtime reads those of nodes on the CPU in place, so
/// they must live as long as the session unless all of it runs on a card.
pub struct Weights {
    slots: HashMap<String, Slot>,
    buffer: Arc<[u8]>,
}

impl WeightlessGraph {
    /// Reads which weights the graph needs. `channels_in_a_block` is the processor's, for graphs that have blocks.
    pub fn read(onnx: Cow<'static, [u8]>, channels_in_a_block: usize) -> Result<Self, FileError> {
        let broken = |reason: &str| FileError::Graph(reason.to_owned());
        let file =
            OnnxFile::read(&mut Cursor::new(&*onnx), |_| true).map_err(|error| broken(&error.to_string()))?;
        let mut slots = HashMap::new();
        let mut end = 0;
        // A graph that is not ours may come with a model: it reads no file.
        let elsewhere =
            file.tensors.iter().find(|tensor| tensor.file_beside().is_some_and(|file| file != LOCATION));
        if let Some(tensor) = elsewhere {
            return Err(broken(&format!("{} lies in another file than {LOCATION}", tensor.name)));
        }
        for tensor in file.tensors.iter().filter(|tensor| tensor.file_beside() == Some(LOCATION)) {
            let (at, length) = tensor.range_beside().unwrap_or_default();
            let element = match tensor.element {
                1 => Element::F32,
                10 => Element::F16,
                _ => return Err(broken(&format!("{} is neither float32 nor float16", tensor.name))),
            };
            let stop = at.checked_add(length).filter(|stop| *stop <= LARGEST);
            let count = tensor.shape.iter().try_fold(1_u64, |count, size| count.checked_mul(*size));
            let (Some(stop), Some(count)) = (stop, count) else {
                return Err(broken(&format!("{} is too large", tensor.name)));
            };
            if count * element.width() as u64 != length || at % 64 != 0 {
                return Err(broken(&format!("{} has no room in its layout", tensor.name)));
            }
            end = end.max(stop);
            let mut shape: Vec<usize> =
                tensor.shape.iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX)).collect();
            let order = match tensor.note.as_str() {
                OHWI if shape.len() == 4 => Order::ChannelsLast,
                BLOCKS if shape.len() == 4 => Order::Blocks(channels_in_a_block),
                _ => Order::Plain,
            };
            match order {
                Order::Plain => {}
                Order::ChannelsLast => shape = vec![shape[0], shape[3], shape[1], shape[2]],
                Order::Blocks(block) => {
                    if block == 0 || !shape[..2].iter().all(|size| size.is_multiple_of(block)) {
                        return Err(broken(&format!("{} is not in blocks of {block} channels", tensor.name)));
                    }
                }
            }
            let to_usize = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
            let slot = Slot { shape, element, order, at: to_usize(at), length: to_usize(length) };
            slots.insert(tensor.name.clone(), slot);
        }
        let mut places: Vec<_> = slots.values().map(|slot: &Slot| (slot.at, slot.length)).collect();
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            return Err(broken("two of its weights overlap"));
        }
        Ok(Self { onnx, outputs: file.outputs, slots, length: usize::try_from(end).unwrap_or(usize::MAX) })
    }

    /// The graph itself.
    pub fn onnx(&self) -> &[u8] {
        &self.onnx
    }

    /// Whether it is one of those inside the binary. Other graphs come with a model, and may hold anything.
    pub fn is_built_in(&self) -> bool {
        matches!(self.onnx, Cow::Borrowed(_))
    }

    /// The names of its outputs.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Bytes of its weights.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The weights that it needs: names, and shapes in the order of checkpoints.
    pub fn wanted(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.slots.iter().map(|(name, slot)| (name.as_str(), slot.shape.as_slice()))
    }

    /// A weight's shape in the order of checkpoints: a convolution's is `[out, in, height, width]`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.slots.get(name).map(|slot| slot.shape.as_slice())
    }

    /// A buffer for the weights, all zero.
    #[expect(unsafe_code, reason = "zeroed memory that is initialised as it is")]
    pub fn allocate(&self) -> Weights {
        // SAFETY: zeros are values of u8. Made so, the pages are the system's own zeros until they are written to.
        let buffer = unsafe { Arc::<[u8]>::new_zeroed_slice(self.length).assume_init() };
        Weights { slots: self.slots.clone(), buffer }
    }
}

impl Weights {
    /// The buffer, for the session.
    pub fn buffer(&self) -> &Arc<[u8]> {
        &self.buffer
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
        Some(
            (0..slot.length / slot.element.width())
                .map(|i| slot.element.read(bytes, slot.position(i)))
                .collect(),
        )
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

impl AddTo for Weights {
    /// Adds in single precision, whatever type the graph has its weights in.
    fn add(&mut self, parameter: &str, delta: &[f32]) -> Result<(), String> {
        let slot = self.slots.get(parameter).ok_or_else(|| format!("there is no weight {parameter}"))?;
        let (element, width) = (slot.element, slot.element.width());
        let count = slot.length / width;
        if count != delta.len() {
            return Err(format!("{parameter} has {count} values, not {}", delta.len()));
        }
        let buffer = Arc::get_mut(&mut self.buffer);
        let bytes = buffer.and_then(|buffer| buffer.get_mut(slot.at..slot.at + slot.length));
        let bytes = bytes.ok_or_else(|| format!("{parameter} is in use"))?;
        let add = |bytes: &mut [u8], delta: &f32| element.write(bytes, element.read(bytes, 0) + delta);
        if slot.order == Order::Plain {
            bytes.chunks_exact_mut(width).zip(delta).for_each(|(bytes, delta)| add(bytes, delta));
        } else {
            for (index, delta) in delta.iter().enumerate() {
                let at = slot.position(index) * width;
                add(&mut bytes[at..at + width], delta);
            }
        }
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
        if let Some(kernel) = self.slot.kernel() {
            let mut index = self.next;
            let mut rest = values;
            while !rest.is_empty() {
                let (start, stride) = self.slot.spread(index / kernel);
                let (of_pair, others) = rest.split_at(rest.len().min(kernel - index % kernel));
                for (place, value) in (index % kernel..).zip(of_pair) {
                    element.write(&mut self.bytes[(start + place * stride) * element.width()..], *value);
                }
                (index, rest) = (index + of_pair.len(), others);
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
    /// The graph's position of the value at `index` of the checkpoint's order.
    fn position(&self, index: usize) -> usize {
        let Some(kernel) = self.kernel() else { return index };
        let (start, stride) = self.spread(index / kernel);
        start + index % kernel * stride
    }

    /// The number of values for each pair of output and input channel, where the graph has an order of its own.
    fn kernel(&self) -> Option<usize> {
        match self.shape[..] {
            [_, _, height, width] if self.order != Order::Plain => Some((height * width).max(1)),
            _ => None,
        }
    }

    /// The positions of the values of a pair of channels in the graph's order: that of the first, and the distance from
    /// one to the next.
    fn spread(&self, pair: usize) -> (usize, usize) {
        let [_, inputs, height, width] = self.shape[..] else { return (pair, 1) };
        let (output, input) = (pair / inputs, pair % inputs);
        match self.order {
            Order::Plain => (pair * height * width, 1),
            Order::ChannelsLast => (output * height * width * inputs + input, inputs),
            Order::Blocks(block) => {
                let outer = (output / block) * (inputs / block) + input / block;
                let start = outer * height * width * block * block + input % block * block + output % block;
                (start, block * block)
            }
        }
    }
}

impl Element {
    const fn width(self) -> usize {
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
