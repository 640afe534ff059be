//! Storages and tensors as a pickle of `torch.save` has them: a storage is a row of values under a key, and a tensor is a
//! view into one. Where a storage's bytes lie is for the form of the file to say.

use super::element_type::ElementType;
use super::pickle::{Node, NodeId, Value};
use super::pickle_global::{Global, Rebuild};
use super::pickle_machine::Machine;
use super::pickle_reader::Span;
use super::tensor_table::{LARGEST_RANK, span};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum StorageType {
    Of(ElementType),
    /// Bytes, whose type each tensor states.
    Untyped,
}

#[derive(Debug)]
pub(super) struct StorageValue {
    pub kind: StorageType,
    pub key: Span,
    /// Values, or bytes where it has no type.
    pub count: u64,
}

#[derive(Debug)]
pub(super) struct TensorValue {
    pub storage: NodeId,
    pub element: ElementType,
    /// The first value's place in the storage, in values.
    pub offset: u64,
    pub shape: Vec<usize>,
    /// None where the values lie in order.
    pub strides: Option<Vec<usize>>,
}

impl StorageValue {
    /// From a persistent ID: `('storage', type, key, device, count)`, and in older files a view, which is none.
    pub fn from_parts(machine: &Machine, parts: &[Value]) -> Result<Self, String> {
        let odd = || "it names its storages in a way that torch.save does not".to_owned();
        let (Some(&[Value::Text(word), kind, Value::Text(key), _, Value::Int(count)]), rest) =
            (parts.first_chunk(), parts.get(5..).unwrap_or_default())
        else {
            return Err(odd());
        };
        if machine.reader.span(word) != b"storage" {
            return Err(odd());
        }
        if !matches!(rest, [] | [Value::None]) {
            return Err("it has storages inside storages, as torch 0.1 wrote them".to_owned());
        }
        let Some(Node::Global(Global::Storage(kind))) = machine.node(kind) else { return Err(odd()) };
        let count = u64::try_from(count).map_err(|_| odd())?;
        Ok(Self { kind: kind.clone(), key, count })
    }

    /// The number of its bytes. `None` if its type is not read.
    pub fn length(&self) -> Result<Option<u64>, String> {
        let width = match &self.kind {
            StorageType::Untyped => Some(1),
            StorageType::Of(element) => element.width(),
        };
        let Some(width) = width else { return Ok(None) };
        let too_large = || "it has a storage that has more bytes than a file can have".to_owned();
        self.count.checked_mul(width as u64).map(Some).ok_or_else(too_large)
    }
}

impl TensorValue {
    /// From the arguments of the function that makes a tensor.
    pub fn from_arguments(machine: &Machine, version: Rebuild, arguments: &[Value]) -> Result<Self, String> {
        let odd = || "it makes a tensor in a way that torch.save does not".to_owned();
        let Some(&[Value::Node(storage), Value::Int(offset), shape, strides]) = arguments.first_chunk()
        else {
            return Err(odd());
        };
        let enough = match version {
            Rebuild::V1 => arguments.len() == 4,
            Rebuild::V2 => (6..=7).contains(&arguments.len()),
            Rebuild::V3 => (7..=8).contains(&arguments.len()),
        };
        let Some(Node::Storage(found)) = machine.node(Value::Node(storage)).filter(|_| enough) else {
            return Err(odd());
        };
        let stated = match (version, arguments.get(6).and_then(|element| machine.node(*element))) {
            (Rebuild::V3, Some(Node::Global(Global::Element(element)))) => Some(element.clone()),
            (Rebuild::V3, _) => return Err(odd()),
            _ => None,
        };
        let element = match (&found.kind, stated) {
            (StorageType::Untyped, Some(element)) => element,
            (StorageType::Of(element), None) => element.clone(),
            (StorageType::Of(of), Some(element)) if *of == element => element,
            _ => return Err(odd()),
        };
        let (shape, strides) = (numbers(machine, shape)?, numbers(machine, strides)?);
        let tensor = Self {
            storage,
            element,
            offset: u64::try_from(offset).map_err(|_| format!("it has a tensor with the offset {offset}"))?,
            strides: (!is_in_order(&shape, &strides)).then_some(strides.clone()),
            shape,
        };
        let values = span(&tensor.shape, &strides).ok_or_else(|| {
            format!("it has a tensor with the shape {:?} and the strides {strides:?}", tensor.shape)
        })?;
        let room = match (&found.kind, tensor.element.width()) {
            (StorageType::Untyped, Some(width)) => found.count / width as u64,
            _ => found.count,
        };
        match tensor.offset.checked_add(values as u64) {
            Some(end) if end <= room => Ok(tensor),
            _ => Err("it has a tensor that reaches beyond its storage".to_owned()),
        }
    }
}

fn numbers(machine: &Machine, value: Value) -> Result<Vec<usize>, String> {
    let values = match machine.node(value) {
        Some(Node::Tuple(values) | Node::List(values)) if values.len() <= LARGEST_RANK => values,
        _ => return Err("it has a tensor whose shape is not a few numbers".to_owned()),
    };
    let number = |value: &Value| match value {
        Value::Int(number) => {
            usize::try_from(*number).map_err(|_| format!("it has a tensor with the size or stride {number}"))
        }
        _ => Err("it has a tensor whose shape is not a few numbers".to_owned()),
    };
    values.iter().map(number).collect()
}

/// Whether the strides are those of values in order. The stride of a single value does not matter.
fn is_in_order(shape: &[usize], strides: &[usize]) -> bool {
    let mut step = 1_usize;
    shape.contains(&0)
        || shape.len() == strides.len()
            && shape.iter().zip(strides).rev().all(|(size, stride)| {
                let fits = *size == 1 || *stride == step;
                step = step.saturating_mul(*size);
                fits
            })
}
