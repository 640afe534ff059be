//! A graph without weights: which weights it needs, and where in one buffer each goes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Cursor;

use super::weights::{Element, OUTPUT_BLOCK, Order, Slot};
use super::{FileError, OnnxFile, Weights};

/// The text encoder's table of embeddings, `[vocabulary, width]`.
pub const TOKEN_EMBEDDING: &str = "text_model.embeddings.token_embedding.weight";
/// The name of the weights' file in a weightless graph. There is no such file: the weights are in memory.
pub const LOCATION: &str = "weights";
/// `TensorProto.doc_string` of a convolution's weight in the order that NHWC kernels read.
const OHWI: &str = "OHWI";
/// The same in blocks of channels, which `NCHWc` kernels read.
const BLOCKS: &str = "OIHWBiBo";
/// A convolution's and a linear layer's weight in blocks of output channels, for our own operators.
const OUTPUT_BLOCKS: &str = "OIHWBo";
const LINEAR_BLOCKS: &str = "OIBo";
/// In bytes, far more than any part of a Stable Diffusion v1 model has.
const LARGEST: u64 = 16 << 30;

/// A graph from `models/graphs`.
pub struct WeightlessGraph {
    onnx: Cow<'static, [u8]>,
    outputs: Vec<String>,
    /// In the order of their names, so that of two that are missing always the same one is named.
    slots: BTreeMap<String, Slot>,
    length: usize,
}

impl WeightlessGraph {
    /// Reads which weights the graph needs. `channels_in_a_block` is the processor's, for graphs that have blocks.
    pub fn read(onnx: Cow<'static, [u8]>, channels_in_a_block: usize) -> Result<Self, FileError> {
        let broken = |reason: &str| FileError::Graph(reason.to_owned());
        let file =
            OnnxFile::read(&mut Cursor::new(&*onnx), |_| true).map_err(|error| broken(&error.to_string()))?;
        let mut slots = BTreeMap::new();
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
                OUTPUT_BLOCKS if shape.len() == 4 => Order::OutputBlocks,
                LINEAR_BLOCKS if shape.len() == 2 => Order::OutputBlocks,
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
                Order::OutputBlocks => {
                    if !shape[0].is_multiple_of(OUTPUT_BLOCK) {
                        return Err(broken(&format!(
                            "{} is not in blocks of {OUTPUT_BLOCK} channels",
                            tensor.name
                        )));
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

    /// Whether its weights have exactly these places.
    pub(super) fn has_slots(&self, slots: &BTreeMap<String, Slot>) -> bool {
        self.slots == *slots
    }

    /// Whether it has each weight of `other` at the same place.
    pub(super) fn has_weights_of(&self, other: &Self) -> bool {
        other.slots.iter().all(|(name, slot)| self.slots.get(name) == Some(slot))
    }

    /// Bytes of its weights without the gaps between them.
    pub fn weight_bytes(&self) -> usize {
        self.slots.values().map(|slot| slot.length).sum()
    }

    /// A weight's shape in the order of checkpoints: a convolution's is `[out, in, height, width]`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.slots.get(name).map(|slot| slot.shape.as_slice())
    }

    pub(super) fn order(&self, name: &str) -> Option<Order> {
        self.slots.get(name).map(|slot| slot.order)
    }

    /// A buffer for the weights, all zero.
    pub fn allocate(&self) -> Weights {
        Weights::zeroed(self.slots.clone(), self.length)
    }
}
