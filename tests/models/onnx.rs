//! As much of ONNX's protobuf as it takes to give a graph other ports, and to move its weights out.
//!
//! Field numbers are those of `onnx.proto`. What is not edited here stays as the bytes that it was.

use std::fs;
use std::path::Path;

use prost::Message;

pub const FLOAT: i32 = 1;
pub const INT32: i32 = 6;
pub const INT64: i32 = 7;
pub const BOOL: i32 = 9;
pub const FLOAT16: i32 = 10;
pub const BFLOAT16: i32 = 16;

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(int64, optional, tag = "1")]
    pub ir_version: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub producer_name: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<Opset>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Opset {
    #[prost(string, optional, tag = "1")]
    pub domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub version: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<Node>,
    #[prost(string, optional, tag = "2")]
    pub name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub initializers: Vec<TensorValue>,
    #[prost(message, repeated, tag = "11")]
    pub inputs: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub outputs: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub outputs: Vec<String>,
    #[prost(string, optional, tag = "3")]
    pub name: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub op_type: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub attributes: Vec<Vec<u8>>,
    #[prost(string, optional, tag = "7")]
    pub domain: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(int64, optional, tag = "3")]
    pub int: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, optional, tag = "20")]
    pub kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorValue {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, optional, tag = "2")]
    pub element: Option<i32>,
    #[prost(float, repeated, tag = "4")]
    pub floats: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32s: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64s: Vec<i64>,
    #[prost(string, optional, tag = "8")]
    pub name: Option<String>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub raw: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<Entry>,
    #[prost(int32, optional, tag = "14")]
    pub data_location: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(string, optional, tag = "1")]
    pub key: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Kind {
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorKind>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorKind {
    #[prost(int32, optional, tag = "1")]
    pub element: Option<i32>,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub sizes: Vec<Size>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Size {
    #[prost(int64, optional, tag = "1")]
    pub value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub symbol: Option<String>,
}

/// A port such as `port("sample", FLOAT16, &["batch", "4", "height", "width"])`.
pub fn port(name: &str, element: i32, sizes: &[&str]) -> ValueInfo {
    let sizes = sizes.iter().map(|size| match size.parse() {
        Ok(value) => Size { value: Some(value), symbol: None },
        Err(_) => Size { value: None, symbol: Some((*size).to_owned()) },
    });
    let shape = Shape { sizes: sizes.collect() };
    let tensor = TensorKind { element: Some(element), shape: Some(shape) };
    ValueInfo { name: Some(name.to_owned()), kind: Some(Kind { tensor: Some(tensor) }) }
}

pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str], attributes: &[Attribute]) -> Node {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Node {
        inputs: owned(inputs),
        outputs: owned(outputs),
        op_type: Some(op_type.to_owned()),
        attributes: attributes.iter().map(Message::encode_to_vec).collect(),
        ..Node::default()
    }
}

pub fn int(name: &str, value: i64) -> Attribute {
    Attribute { name: Some(name.to_owned()), int: Some(value), ints: vec![], kind: Some(2) }
}

pub fn ints(name: &str, values: &[i64]) -> Attribute {
    Attribute { name: Some(name.to_owned()), int: None, ints: values.to_vec(), kind: Some(7) }
}

pub fn cast(from: &str, to: &str, element: i32) -> Node {
    node("Cast", &[from], &[to], &[int("to", element.into())])
}

pub fn floats(name: &str, values: &[f32]) -> TensorValue {
    let dims = if values.len() == 1 { vec![] } else { vec![i64::try_from(values.len()).unwrap()] };
    TensorValue {
        dims,
        element: Some(FLOAT),
        floats: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorValue::default()
    }
}

pub fn int64s(name: &str, values: &[i64]) -> TensorValue {
    TensorValue {
        dims: vec![i64::try_from(values.len()).unwrap()],
        element: Some(INT64),
        int64s: values.to_vec(),
        name: Some(name.to_owned()),
        ..TensorValue::default()
    }
}

impl Model {
    pub fn read(path: &Path) -> Self {
        Self::decode(fs::read(path).unwrap().as_slice()).unwrap()
    }

    pub fn new(graph: Graph) -> Self {
        Self {
            ir_version: Some(8),
            producer_name: None,
            graph: Some(graph),
            opset_import: vec![Opset { domain: None, version: Some(17) }],
        }
    }

    pub fn write(&self, path: &Path) {
        fs::write(path, self.encode_to_vec()).unwrap();
    }

    pub fn graph(&mut self) -> &mut Graph {
        self.graph.as_mut().unwrap()
    }

    /// Writes the graph with its weights in the file `data` beside it.
    pub fn write_with_external_data(&mut self, path: &Path, data: &str) {
        let mut bytes = Vec::new();
        for tensor in &mut self.graph().initializers {
            let Some(raw) = tensor.raw.take_if(|raw| raw.len() >= 1024) else { continue };
            let entry = |key: &str, value: String| Entry { key: Some(key.to_owned()), value: Some(value) };
            tensor.external_data = vec![
                entry("location", data.to_owned()),
                entry("offset", bytes.len().to_string()),
                entry("length", raw.len().to_string()),
            ];
            tensor.data_location = Some(1);
            bytes.extend(raw);
            bytes.resize(bytes.len().next_multiple_of(4096), 0);
        }
        fs::write(path.with_file_name(data), bytes).unwrap();
        self.write(path);
    }
}

impl Graph {
    /// Puts `port` in the place of the input `name`; `nodes`, given port's name and the name that the old
    /// input has inside, make the old from the new.
    pub fn replace_input(&mut self, name: &str, port: ValueInfo, nodes: impl Fn(&str, &str) -> Vec<Node>) {
        let inside = format!("{name}_inside_{}", self.nodes.len());
        for input in self.nodes.iter_mut().flat_map(|node| &mut node.inputs).filter(|input| *input == name) {
            input.clone_from(&inside);
        }
        let made = nodes(port.name.as_deref().unwrap(), &inside);
        self.nodes.splice(0..0, made);
        let place = self.inputs.iter_mut().find(|input| input.name.as_deref() == Some(name)).unwrap();
        *place = port;
    }

    /// Puts `port` in the place of the output `name`; `nodes` make the new from the old.
    pub fn replace_output(&mut self, name: &str, port: ValueInfo, nodes: impl Fn(&str, &str) -> Vec<Node>) {
        let inside = format!("{name}_inside_{}", self.nodes.len());
        let names = self.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().chain(&mut node.outputs));
        for found in names.filter(|found| *found == name) {
            found.clone_from(&inside);
        }
        self.nodes.extend(nodes(&inside, port.name.as_deref().unwrap()));
        let place = self.outputs.iter_mut().find(|output| output.name.as_deref() == Some(name)).unwrap();
        *place = port;
    }
}
