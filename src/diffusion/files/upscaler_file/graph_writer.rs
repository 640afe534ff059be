//! Writes an ONNX graph of the operators that upscalers consist of, as protobuf (onnx.proto3).

use half::f16;

use super::Weights;
use crate::diffusion::files::FileError;
use crate::diffusion::files::protobuf::{bytes, number, tag};

/// `TensorProto.DataType`.
const FLOAT: u64 = 1;
const FLOAT16: u64 = 10;
const IR_VERSION: u64 = 8;
const OPSET: u64 = 17;

/// A graph while it is written. Values between nodes go by their names.
pub(super) struct GraphWriter {
    half: bool,
    /// The body of a `GraphProto`.
    graph: Vec<u8>,
    values: usize,
}

/// An attribute of a node.
enum Attribute<'a> {
    Float(f32),
    Int(u64),
    Ints(&'a [u64]),
    Text(&'a str),
}

impl GraphWriter {
    /// `half`: weights and values between nodes are float16.
    pub fn new(half: bool) -> Self {
        let mut graph = Vec::new();
        bytes(&mut graph, 2, b"upscaler");
        Self { half, graph, values: 0 }
    }

    /// The graph's input `[1, channels, height, width]` in float32.
    pub fn input(&mut self, name: &str, channels: usize) -> String {
        bytes(&mut self.graph, 11, &image(name, Some(channels)));
        self.cast(name)
    }

    /// The whole file, with `value` as the output `name`, in float32.
    pub fn finish(mut self, value: &str, name: &str) -> Vec<u8> {
        match self.half {
            true => self.node("Cast", &[value], name, &[("to", Attribute::Int(FLOAT))]),
            false => self.node("Identity", &[value], name, &[]),
        }
        bytes(&mut self.graph, 12, &image(name, None));
        let mut opset = Vec::new();
        bytes(&mut opset, 1, b"");
        number(&mut opset, 2, OPSET);
        let mut model = Vec::with_capacity(self.graph.len() + 64);
        number(&mut model, 1, IR_VERSION);
        bytes(&mut model, 8, &opset);
        bytes(&mut model, 7, &self.graph);
        model
    }

    /// A convolution of 3 × 3 that keeps the size, by the weight and bias `module` has.
    pub fn convolution(&mut self, x: &str, module: &str, weights: &Weights) -> Result<String, FileError> {
        let (outputs, inputs) = weights.convolution(module)?;
        let names = [format!("{module}.weight"), format!("{module}.bias")];
        self.tensor(
            &names[0],
            &[outputs, inputs, 3, 3],
            &weights.values(&names[0], &[outputs, inputs, 3, 3])?,
        );
        self.tensor(&names[1], &[outputs], &weights.values(&names[1], &[outputs])?);
        Ok(self.next(
            "Conv",
            &[x, &names[0], &names[1]],
            &[("kernel_shape", Attribute::Ints(&[3, 3])), ("pads", Attribute::Ints(&[1, 1, 1, 1]))],
        ))
    }

    /// `max(x, 0.2 x)`.
    pub fn leaky(&mut self, x: &str) -> String {
        self.next("LeakyRelu", &[x], &[("alpha", Attribute::Float(0.2))])
    }

    /// A rectifier with a slope below zero for each channel.
    pub fn prelu(
        &mut self,
        x: &str,
        module: &str,
        channels: usize,
        weights: &Weights,
    ) -> Result<String, FileError> {
        let name = format!("{module}.weight");
        let slopes = weights.values(&name, &[channels])?;
        self.tensor(&name, &[channels, 1, 1], &slopes);
        Ok(self.next("PRelu", &[x, &name], &[]))
    }

    pub fn concat(&mut self, values: &[&str]) -> String {
        self.next("Concat", values, &[("axis", Attribute::Int(1))])
    }

    pub fn add(&mut self, a: &str, b: &str) -> String {
        self.next("Add", &[a, b], &[])
    }

    /// `x · factor + y`.
    pub fn add_share(&mut self, x: &str, factor: f32, y: &str) -> String {
        let name = format!("share.{}", self.values);
        self.tensor(&name, &[1], &[factor]);
        let scaled = self.next("Mul", &[x, &name], &[]);
        self.add(&scaled, y)
    }

    /// Repeats each value `scale` times along both sides.
    pub fn nearest(&mut self, x: &str, scale: f32) -> String {
        let name = format!("scales.{}", self.values);
        self.float32(&name, &[4], &[1.0, 1.0, scale, scale]);
        self.next(
            "Resize",
            &[x, "", &name],
            &[
                ("mode", Attribute::Text("nearest")),
                ("nearest_mode", Attribute::Text("floor")),
                ("coordinate_transformation_mode", Attribute::Text("asymmetric")),
            ],
        )
    }

    /// torch's `pixel_shuffle`.
    pub fn pixel_shuffle(&mut self, x: &str, scale: usize) -> String {
        self.next(
            "DepthToSpace",
            &[x],
            &[("blocksize", Attribute::Int(scale as u64)), ("mode", Attribute::Text("CRD"))],
        )
    }

    fn cast(&mut self, x: &str) -> String {
        match self.half {
            true => self.next("Cast", &[x], &[("to", Attribute::Int(FLOAT16))]),
            false => x.to_owned(),
        }
    }

    fn next(&mut self, op: &str, inputs: &[&str], attributes: &[(&str, Attribute)]) -> String {
        self.values += 1;
        let output = format!("value.{}", self.values);
        self.node(op, inputs, &output, attributes);
        output
    }

    fn node(&mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) {
        let mut node = Vec::new();
        for input in inputs {
            bytes(&mut node, 1, input.as_bytes());
        }
        bytes(&mut node, 2, output.as_bytes());
        bytes(&mut node, 3, output.as_bytes());
        bytes(&mut node, 4, op.as_bytes());
        for (name, value) in attributes {
            let mut attribute = Vec::new();
            bytes(&mut attribute, 1, name.as_bytes());
            let kind = match value {
                Attribute::Float(value) => {
                    tag(&mut attribute, 2, 5);
                    attribute.extend(value.to_le_bytes());
                    1
                }
                Attribute::Int(value) => {
                    number(&mut attribute, 3, *value);
                    2
                }
                Attribute::Text(value) => {
                    bytes(&mut attribute, 4, value.as_bytes());
                    3
                }
                Attribute::Ints(values) => {
                    for value in *values {
                        number(&mut attribute, 8, *value);
                    }
                    7
                }
            };
            number(&mut attribute, 20, kind);
            bytes(&mut node, 5, &attribute);
        }
        bytes(&mut self.graph, 1, &node);
    }

    /// A weight, in the graph's own type.
    fn tensor(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        if !self.half {
            return self.float32(name, shape, values);
        }
        let raw: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        self.initializer(name, shape, FLOAT16, &raw);
    }

    fn float32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(name, shape, FLOAT, &raw);
    }

    fn initializer(&mut self, name: &str, shape: &[usize], element: u64, raw: &[u8]) {
        let mut tensor = Vec::with_capacity(raw.len() + name.len() + 32);
        for side in shape {
            number(&mut tensor, 1, *side as u64);
        }
        number(&mut tensor, 2, element);
        bytes(&mut tensor, 8, name.as_bytes());
        bytes(&mut tensor, 9, raw);
        bytes(&mut self.graph, 5, &tensor);
    }
}

/// A `ValueInfoProto` of `[1, channels, height, width]` in float32; without `channels`, they are 3.
fn image(name: &str, channels: Option<usize>) -> Vec<u8> {
    let fixed = |size: usize| {
        let mut dimension = Vec::new();
        number(&mut dimension, 1, size as u64);
        dimension
    };
    let free = |side: &str| {
        let mut dimension = Vec::new();
        bytes(&mut dimension, 2, format!("{name}_{side}").as_bytes());
        dimension
    };
    let mut shape = Vec::new();
    for dimension in [fixed(1), fixed(channels.unwrap_or(3)), free("height"), free("width")] {
        bytes(&mut shape, 1, &dimension);
    }
    let mut tensor = Vec::new();
    number(&mut tensor, 1, FLOAT);
    bytes(&mut tensor, 2, &shape);
    let mut kind = Vec::new();
    bytes(&mut kind, 1, &tensor);
    let mut info = Vec::new();
    bytes(&mut info, 1, name.as_bytes());
    bytes(&mut info, 2, &kind);
    info
}
