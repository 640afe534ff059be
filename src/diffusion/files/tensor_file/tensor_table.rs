//! What a file of tensors holds: their names, types and shapes, and where each one's values lie.
//!
//! Each format makes such a table. Nothing in it reaches beyond the file: [`TensorTable::add`] checks that.

use std::collections::HashMap;

use super::element_type::ElementType;

/// More than any model has: a limit on the memory that a table takes.
pub(super) const MOST_TENSORS: usize = 200_000;
/// More sizes than torch allows.
pub(super) const LARGEST_RANK: usize = 32;

pub struct TensorTable {
    /// In the order of the file.
    tensors: Vec<TensorPlace>,
    by_name: HashMap<String, usize>,
    /// The file's metadata.
    pub notes: HashMap<String, String>,
    /// What lies in the file and is not read, a few words each.
    pub not_read: Vec<String>,
    /// The offset of the first byte after the header, where the format has one.
    pub data_start: u64,
    file_length: u64,
}

pub struct TensorPlace {
    pub name: String,
    pub element: ElementType,
    pub shape: Vec<usize>,
    /// The offset in the file.
    pub at: u64,
    /// The bytes from the first value to the last.
    pub length: u64,
    /// Steps from one value to the next, in values, for each size. `None` where the values lie in order.
    pub strides: Option<Vec<usize>>,
}

impl TensorTable {
    /// For a file of that length.
    pub fn new(file_length: u64) -> Self {
        Self {
            tensors: Vec::new(),
            by_name: HashMap::new(),
            notes: HashMap::new(),
            not_read: Vec::new(),
            data_start: 0,
            file_length,
        }
    }

    /// Adds a tensor. The error says what is wrong with it.
    pub fn add(&mut self, tensor: TensorPlace) -> Result<(), String> {
        if self.tensors.len() >= MOST_TENSORS {
            return Err(format!("it is one of more than {MOST_TENSORS} tensors"));
        }
        tensor.check(self.file_length)?;
        if self.by_name.insert(tensor.name.clone(), self.tensors.len()).is_some() {
            return Err("the file has two tensors of this name".to_owned());
        }
        self.tensors.push(tensor);
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&TensorPlace> {
        self.by_name.get(name).map(|index| &self.tensors[*index])
    }

    pub fn iter(&self) -> impl Iterator<Item = &TensorPlace> {
        self.tensors.iter()
    }
}

impl TensorPlace {
    /// The number of values. Zero where that is more than a machine can count, which `check` refuses.
    pub fn count(&self) -> usize {
        count(&self.shape).unwrap_or(0)
    }

    fn check(&self, file_length: u64) -> Result<(), String> {
        let shape = &self.shape;
        if shape.len() > LARGEST_RANK {
            return Err(format!("its shape has {} sizes", shape.len()));
        }
        let Some(count) = count(shape) else { return Err(format!("its shape {shape:?} is too large")) };
        if self.at.checked_add(self.length).is_none_or(|end| end > file_length) {
            return Err("its values lie beyond the end of the file".to_owned());
        }
        // Types that are not read may have values of a bit, and tensors without values any sizes.
        let most = file_length.saturating_mul(8);
        if shape.iter().chain([&count]).any(|size| *size as u64 > most) {
            return Err(format!("its shape {shape:?} is too large for the file"));
        }
        let Some(width) = self.element.width() else { return Ok(()) };
        let values = match &self.strides {
            None => count,
            Some(strides) => span(shape, strides).filter(|span| *span >= count).ok_or_else(|| {
                format!("its strides {strides:?} do not give each of its values a place of its own")
            })?,
        };
        match values.checked_mul(width) {
            Some(bytes) if bytes as u64 == self.length => Ok(()),
            _ => Err(format!("its shape {shape:?} does not fit its {} bytes", self.length)),
        }
    }
}

/// How many values a shape has.
pub(super) fn count(shape: &[usize]) -> Option<usize> {
    // First, so that sizes beside a zero do not overflow: torch counts none there either.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size))
}

/// How many values lie between the first one and the last one, with both.
pub(super) fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.len() != strides.len() {
        return None;
    }
    if shape.contains(&0) {
        return Some(0);
    }
    let steps = shape.iter().zip(strides).map(|(size, stride)| (size - 1).checked_mul(*stride));
    steps.into_iter().try_fold(1_usize, |span, step| span.checked_add(step?))
}
