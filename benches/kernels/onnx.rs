//! Small graphs, written as ONNX's protobuf, and sessions of them.

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use stablehand::kernels::{Level, operators_at};

/// A graph under construction, from `x` to `y`, each [batch, channels, side, side].
#[derive(Default)]
pub struct Graph(Vec<u8>);

impl Graph {
    pub fn node(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&str],
        output: &str,
        attributes: &[Vec<u8>],
    ) {
        let inputs: Vec<u8> = inputs.iter().flat_map(|input| text(1, input)).collect();
        let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| bytes(5, attribute)).collect();
        let node = [inputs, text(2, output), text(4, operator), text(7, domain), attributes].concat();
        self.0.extend(bytes(1, &node));
    }

    /// Splits a value along its last axis.
    pub fn halves(&mut self, whole_value: &str, halves: [&str; 2]) {
        let names: Vec<u8> = halves.iter().flat_map(|half| text(2, half)).collect();
        let attributes = [whole("axis", 3), whole("num_outputs", 2)].map(|attribute| bytes(5, &attribute));
        let node = [text(1, whole_value), names, text(4, "Split"), attributes.concat()].concat();
        self.0.extend(bytes(1, &node));
    }

    pub fn floats(&mut self, name: &str, sizes: &[usize], values: &[f32]) {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, sizes, 1, &raw);
    }

    /// A vector of 64-bit numbers.
    pub fn shape(&mut self, name: &str, sizes: &[i64]) {
        let raw: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        self.tensor(name, &[sizes.len()], 7, &raw);
    }

    fn tensor(&mut self, name: &str, sizes: &[usize], element_type: usize, raw: &[u8]) {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| number(1, *size)).collect();
        let tensor = [sizes, number(2, element_type), text(8, name), bytes(9, raw)].concat();
        self.0.extend(bytes(5, &tensor));
    }

    /// A session. Our operators are those of `level`, if there is one.
    pub fn session(
        self,
        environment: &Environment,
        x: [usize; 4],
        y: [usize; 4],
        threads: usize,
        level: Option<Level>,
    ) -> ort::Result<Session> {
        let graph =
            [self.0, text(2, "kernel"), bytes(11, &image("x", x)), bytes(12, &image("y", y))].concat();
        let domains =
            ["stablehand", "com.microsoft"].map(|domain| bytes(8, &[text(1, domain), number(2, 1)].concat()));
        let model = [number(1, 9), bytes(7, &graph), bytes(8, &number(2, 20)), domains.concat()].concat();
        let builder = Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            .with_intra_op_spinning(false)?
            // As in the server, where repacked weights would be a second copy.
            .with_config_entry("session.disable_prepacking", "1")?;
        let mut builder = match level {
            Some(level) => builder.with_operators(operators_at(threads, level)?)?,
            None => builder,
        };
        builder.commit_from_memory(&model)
    }
}

/// An attribute of a node.
pub fn whole(name: &str, value: usize) -> Vec<u8> {
    [text(1, name), number(3, value), number(20, 2)].concat()
}

pub fn float(name: &str, value: f32) -> Vec<u8> {
    [text(1, name), varint(2 << 3 | 5), value.to_le_bytes().to_vec(), number(20, 1)].concat()
}

pub fn wholes(name: &str, values: &[usize]) -> Vec<u8> {
    [text(1, name), values.iter().flat_map(|value| number(8, *value)).collect(), number(20, 7)].concat()
}

fn image(name: &str, sizes: [usize; 4]) -> Vec<u8> {
    let shape: Vec<u8> = sizes.iter().flat_map(|size| bytes(1, &number(1, *size))).collect();
    let tensor = [number(1, 1), bytes(2, &shape)].concat();
    [text(1, name), bytes(2, &bytes(1, &tensor))].concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 127 {
        bytes.push(u8::try_from(value & 127).unwrap_or_default() | 128);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap_or_default());
    bytes
}

fn number(field: usize, value: usize) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn bytes(field: usize, value: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2), &varint(value.len()), value].concat()
}

fn text(field: usize, value: &str) -> Vec<u8> {
    bytes(field, value.as_bytes())
}
