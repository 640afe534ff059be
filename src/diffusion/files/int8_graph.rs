//! A UNet's graph whose linear layers compute in int8.
//!
//! It is made from a float32 build when it is first wanted, so every build and every kind of UNet has one, those that a
//! model brings along, too. The layers of the transformers become `LinearInt8` nodes (`kernels::operators`). Their
//! weights lie in a second buffer; everything else stays where it was, so the first buffer can be another session's.
//!
//! Two kinds of layers stay as they are, because they cost next to nothing and matter much: those of the time embedding,
//! and the keys and values of the prompt.

use std::collections::HashSet;
use std::sync::Arc;

use super::protobuf::{Field, Value, bytes, fields, number};
use super::weights::Order;
use super::{FileError, WeightlessGraph, Weights};

/// The name of the file that the graph has the quantised weights in. It is in memory, like the one of the others.
pub const INT8_LOCATION: &str = "int8";
const DOMAIN: &str = "stablehand";
const OPERATOR: &str = "LinearInt8";
/// Our operator for the same layer in float32.
const LINEAR: &str = "Linear";
/// Which input of a layer is its weight.
const WEIGHT: usize = 1;
const MICROSOFT: &str = "com.microsoft";
/// `TensorProto.DataType`.
const UINT8: u64 = 2;
/// Output channels in a block, the bytes of the scales before it, and inputs that lie side by side.
const BLOCK: usize = 16;
const SCALES: usize = BLOCK * size_of::<f32>();
const DEPTH: usize = 4;
/// The most inputs that the operator takes.
const MOST_INPUTS: usize = 1 << 16;
/// The largest number in eight bits, and what is added to it.
const LARGEST: f32 = 127.0;
const OFFSET: i16 = 128;

/// The graph, and which weights go into the second buffer.
pub struct Int8Graph {
    onnx: Vec<u8>,
    layers: Vec<Layer>,
    length: usize,
}

/// A layer's weight `[outputs, inputs]`, and its place in the buffer.
#[derive(Debug, Clone, PartialEq)]
struct Layer {
    name: String,
    outputs: usize,
    inputs: usize,
    at: usize,
}

impl Layer {
    fn length(&self) -> usize {
        self.outputs / BLOCK * self.of_block()
    }

    fn of_block(&self) -> usize {
        SCALES + BLOCK * self.inputs
    }

    /// An initializer for it.
    fn tensor(&self) -> Vec<u8> {
        let mut tensor = Vec::new();
        number(&mut tensor, 1, (self.outputs / BLOCK) as u64);
        number(&mut tensor, 1, self.of_block() as u64);
        number(&mut tensor, 2, UINT8);
        bytes(&mut tensor, 8, self.quantized_name().as_bytes());
        let place = [("offset", self.at.to_string()), ("length", self.length().to_string())];
        for (key, value) in [("location", INT8_LOCATION.to_owned())].into_iter().chain(place) {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, key.as_bytes());
            bytes(&mut entry, 2, value.as_bytes());
            bytes(&mut tensor, 13, &entry);
        }
        number(&mut tensor, 14, 1); // TensorProto.data_location: EXTERNAL
        tensor
    }

    fn quantized_name(&self) -> String {
        format!("{}.int8", self.name)
    }
}

impl WeightlessGraph {
    /// The same graph with its transformers' linear layers in int8. Fails if it has none that can be.
    pub fn in_int8(&self) -> Result<Int8Graph, FileError> {
        let broken = || FileError::Graph("it is no ONNX file".to_owned());
        let model = fields(self.onnx()).ok_or_else(broken)?;
        let graph = model.iter().find_map(|field| field.bytes(7)).ok_or_else(broken)?;
        let graph = fields(graph).ok_or_else(broken)?;
        let layers = self.layers(&graph).ok_or_else(broken)?;
        let Some(length) = layers.last().map(|last| last.at + last.length()) else {
            return Err(FileError::Graph("it has no linear layers that can be computed in int8".to_owned()));
        };
        let graph = rewritten(&graph, &layers).ok_or_else(broken)?;
        let mut onnx = Vec::with_capacity(self.onnx().len());
        let mut knows_domain = false;
        for field in &model {
            match field.number {
                7 => bytes(&mut onnx, 7, &graph),
                _ => onnx.extend(field.whole),
            }
            // ModelProto.opset_import
            let opset = field.bytes(8).and_then(fields).unwrap_or_default();
            knows_domain |= opset.iter().any(|field| field.text(1) == Some(DOMAIN));
        }
        if !knows_domain {
            let mut opset = Vec::new();
            bytes(&mut opset, 1, DOMAIN.as_bytes());
            number(&mut opset, 2, 1);
            bytes(&mut onnx, 8, &opset);
        }
        Ok(Int8Graph { onnx, layers, length })
    }

    /// The layers whose weights nothing else in the graph reads.
    fn layers(&self, graph: &[Field<'_>]) -> Option<Vec<Layer>> {
        let (mut names, mut others) = (Vec::new(), HashSet::new());
        for field in graph {
            let Some(node) = field.bytes(1) else { continue };
            let node = Node::read(node)?;
            let weight = node.weight().filter(|weight| self.order(weight) == Some(node.order()));
            names.extend(weight.filter(|weight| !names.contains(weight)));
            let inputs = node.inputs.iter().enumerate();
            others.extend(
                inputs.filter(|(index, _)| weight.is_none() || *index != WEIGHT).map(|(_, name)| *name),
            );
        }
        let mut at = 0;
        let mut layers = Vec::new();
        for name in names.into_iter().filter(|name| is_quantized(name) && !others.contains(name)) {
            let Some(&[outputs, inputs]) = self.shape(name) else { continue };
            let fits = outputs.is_multiple_of(BLOCK) && inputs.is_multiple_of(DEPTH) && inputs <= MOST_INPUTS;
            if !fits || outputs == 0 || inputs == 0 {
                continue;
            }
            let layer = Layer { name: name.to_owned(), outputs, inputs, at };
            at += layer.length();
            layers.push(layer);
        }
        Some(layers)
    }
}

/// Whether the weight is a linear layer's of a transformer, and not one for the keys or values of the prompt.
fn is_quantized(name: &str) -> bool {
    name.contains(".transformer_blocks.") && !name.contains(".attn2.to_k.") && !name.contains(".attn2.to_v.")
}

/// The graph's fields, with other nodes and weights for these layers.
fn rewritten(graph: &[Field<'_>], layers: &[Layer]) -> Option<Vec<u8>> {
    let find = |name: &str| layers.iter().find(|layer| layer.name == name);
    let mut out = Vec::new();
    for field in graph {
        match (field.number, field.value) {
            (1, Value::Bytes(node)) => {
                let node = Node::read(node)?;
                match node.weight().and_then(find) {
                    Some(layer) => bytes(&mut out, 1, &node.in_int8(layer)),
                    None => out.extend(field.whole),
                }
            }
            (5, Value::Bytes(tensor)) => {
                let tensor = fields(tensor)?;
                let name = tensor.iter().find_map(|field| field.text(8));
                if name.and_then(find).is_none() {
                    out.extend(field.whole);
                }
            }
            _ => out.extend(field.whole),
        }
    }
    for layer in layers {
        bytes(&mut out, 5, &layer.tensor());
    }
    Some(out)
}

/// A `NodeProto`.
struct Node<'a> {
    fields: Vec<Field<'a>>,
    inputs: Vec<&'a str>,
}

impl<'a> Node<'a> {
    fn read(node: &'a [u8]) -> Option<Self> {
        let fields = fields(node)?;
        let inputs = fields.iter().filter_map(|field| field.text(1)).collect();
        Some(Self { fields, inputs })
    }

    fn text(&self, number: u64) -> &'a str {
        self.fields.iter().find_map(|field| field.text(number)).unwrap_or_default()
    }

    /// The weight of a layer, which is a product `x · weightᵀ` and no more, or our own operator.
    fn weight(&self) -> Option<&'a str> {
        match (self.text(4), self.text(7)) {
            (LINEAR, DOMAIN) => self.inputs.get(WEIGHT).copied(),
            ("FusedMatMul", MICROSOFT) if self.inputs.len() == 2 && self.is_only_transposed() => {
                Some(self.inputs[WEIGHT])
            }
            _ => None,
        }
    }

    /// The order in which the layer reads its weight.
    fn order(&self) -> Order {
        if self.text(7) == DOMAIN { Order::OutputBlocks } else { Order::Plain }
    }

    fn is_only_transposed(&self) -> bool {
        let mut attributes = self.fields.iter().filter_map(|field| field.bytes(5));
        let is_transposed = attributes.next().and_then(fields).is_some_and(|attribute| {
            let is_one = |field: &Field<'_>| field.number == 3 && field.value == Value::Number(1);
            attribute.iter().any(|field| field.text(1) == Some("transB")) && attribute.iter().any(is_one)
        });
        is_transposed && attributes.next().is_none()
    }

    /// The node for the same layer in int8. Our own has all that is around the product, too.
    fn in_int8(&self, layer: &Layer) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, input) in self.inputs.iter().enumerate() {
            let name = if index == WEIGHT { layer.quantized_name() } else { (*input).to_owned() };
            bytes(&mut out, 1, name.as_bytes());
        }
        bytes(&mut out, 2, self.text(2).as_bytes());
        bytes(&mut out, 3, self.text(3).as_bytes());
        bytes(&mut out, 4, OPERATOR.as_bytes());
        if self.text(7) == DOMAIN {
            self.fields.iter().filter(|field| field.number == 5).for_each(|field| out.extend(field.whole));
        }
        bytes(&mut out, 7, DOMAIN.as_bytes());
        out
    }
}

impl Int8Graph {
    pub fn onnx(&self) -> &[u8] {
        &self.onnx
    }

    /// The bytes of its quantised weights.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The buffer of quantised weights, from those of the graph that it was made from.
    pub fn quantize(&self, weights: &Weights) -> Result<Arc<[u8]>, FileError> {
        let mut buffer = vec![0; self.length];
        for layer in &self.layers {
            let values =
                weights.values(&layer.name).filter(|values| values.len() == layer.outputs * layer.inputs);
            let values =
                values.ok_or_else(|| FileError::Graph(format!("it has no weight {}", layer.name)))?;
            let out = &mut buffer[layer.at..layer.at + layer.length()];
            for (index, row) in values.chunks_exact(layer.inputs).enumerate() {
                let block = &mut out[index / BLOCK * layer.of_block()..][..layer.of_block()];
                quantize_row(row, index % BLOCK, block);
            }
        }
        Ok(buffer.into())
    }
}

/// Writes the weights of one output channel into its block: its scale, and its values in eight bits, four by four.
fn quantize_row(row: &[f32], column: usize, block: &mut [u8]) {
    let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / LARGEST;
    // What is no number stays none in the results.
    let is_finite = row.iter().all(|value| value.is_finite());
    let factor = if is_finite && scale >= f32::MIN_POSITIVE { LARGEST / largest } else { 0.0 };
    let (scales, numbers) = block.split_at_mut(SCALES);
    let stored = if is_finite { scale } else { f32::NAN };
    scales[column * size_of::<f32>()..][..size_of::<f32>()].copy_from_slice(&stored.to_le_bytes());
    for (four, values) in numbers.chunks_exact_mut(BLOCK * DEPTH).zip(row.chunks_exact(DEPTH)) {
        for (number, value) in four[column * DEPTH..][..DEPTH].iter_mut().zip(values) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 255")]
            let whole = ((value * factor).round_ties_even() as i16 + OFFSET) as u8;
            *number = whole;
        }
    }
}

#[cfg(test)]
mod tests;
