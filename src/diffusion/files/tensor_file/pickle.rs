//! What a pickle of `torch.save` makes: plain values. They lie in one list and point to each other by number, so that deep
//! or circular values cost no stack.

use super::pickle_global::Global;
use super::pickle_machine::Machine;
use super::pickle_reader::{Reader, Span, Trouble};
use super::torch_value::{StorageValue, TensorValue};

/// The longest name of a tensor, in bytes.
pub(super) const LONGEST_NAME: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number of more than 64 bits: its bytes.
    Long(Span),
    Float,
    Text(Span),
    Bytes,
    Node(NodeId),
}

pub(super) type NodeId = u32;

#[derive(Debug)]
pub(super) enum Node {
    Tuple(Vec<Value>),
    /// A set, too.
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Global(Global),
    /// A thing of a class that is left alone, and what the pickle sets it to.
    Object(Global, Option<Value>),
    Storage(StorageValue),
    Tensor(Box<TensorValue>),
}

/// What a pickle made.
pub(super) struct Unpickled<'a> {
    reader: Reader<'a>,
    nodes: Vec<Node>,
    pub root: Value,
}

impl<'a> Unpickled<'a> {
    /// Runs the pickle at the beginning of `bytes`, which lie in a file of that length.
    pub fn new(bytes: &'a [u8], file_length: u64) -> Result<Self, Trouble> {
        let (reader, nodes, root) = Machine::run(bytes, file_length)?;
        Ok(Self { reader, nodes, root })
    }

    /// How many bytes the pickle has.
    pub fn length(&self) -> usize {
        self.reader.position()
    }

    pub fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(id) => self.nodes.get(id as usize),
            _ => None,
        }
    }

    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        match self.node(value)? {
            Node::Dict(items) => Some(items),
            _ => None,
        }
    }

    /// The values of a list or a tuple.
    pub fn sequence(&self, value: Value) -> Option<&[Value]> {
        match self.node(value)? {
            Node::List(values) | Node::Tuple(values) => Some(values),
            _ => None,
        }
    }

    pub fn storage(&self, id: NodeId) -> Option<&StorageValue> {
        match self.nodes.get(id as usize)? {
            Node::Storage(storage) => Some(storage),
            _ => None,
        }
    }

    pub fn storages(&self) -> impl Iterator<Item = &StorageValue> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// A text that may be a name. Many keys may share a long one: those would take long to look at.
    pub fn text(&self, value: Value) -> Option<&'a str> {
        match value {
            Value::Text(span) if span.length() <= LONGEST_NAME => self.reader.text(span).ok(),
            _ => None,
        }
    }

    pub fn span(&self, span: Span) -> &'a [u8] {
        self.reader.span(span)
    }
}
