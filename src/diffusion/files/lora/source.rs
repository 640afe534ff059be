//! Reads a module's tensors, with the checks that every kind needs.

use ndarray::Array2;

use super::super::tensor_file::TensorPlace;
use super::super::{TensorFile, quoted_name};
use super::role::{Role, Tensors};

/// One module's tensors in their file.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub file: &'a TensorFile,
    pub tensors: &'a Tensors,
}

impl<'a> Source<'a> {
    pub fn has(&self, role: Role) -> bool {
        self.tensors.contains_key(&role)
    }

    /// The name of the tensor in this role.
    pub fn name(&self, role: Role) -> Option<&'a str> {
        self.tensors.get(&role).map(String::as_str)
    }

    /// The same for a sentence.
    pub fn quoted(&self, role: Role) -> String {
        quoted_name(self.name(role).unwrap_or("?"))
    }

    /// The shape of the tensor in this role. Empty where there is none.
    pub fn shape(&self, role: Role) -> &'a [usize] {
        self.name(role).and_then(|name| self.file.shape(name)).unwrap_or_default()
    }

    /// The number of values of the tensor in this role.
    pub fn count(&self, role: Role) -> usize {
        self.name(role).and_then(|name| self.file.place(name).ok()).map_or(0, TensorPlace::count)
    }

    /// Checks that `role` is there; `present` is one that is.
    pub fn require(&self, role: Role, what: &str, present: Role) -> Result<(), String> {
        if self.has(role) {
            return Ok(());
        }
        let present = self.name(present).or_else(|| self.tensors.values().next().map(String::as_str));
        Err(format!("it has {} without the matching {what}", quoted_name(present.unwrap_or("a tensor"))))
    }

    /// Checks that the tensor in this role has the shape `wanted`, apart from ones at the end: files have linear layers
    /// as 1×1 convolutions and the other way round.
    pub fn expect(&self, role: Role, wanted: &[usize], target: &str) -> Result<(), String> {
        let found = self.shape(role);
        let sizes = found.iter().copied().chain(std::iter::repeat(1)).take(wanted.len());
        if found.len() <= wanted.len().max(4)
            && found.len() >= wanted.len().min(2)
            && sizes.eq(wanted.iter().copied())
            && found.iter().skip(wanted.len()).all(|size| *size == 1)
        {
            return Ok(());
        }
        // Linear layers are shown with two sizes.
        let shown = match wanted {
            [first, second, 1, 1] => &[*first, *second][..],
            other => other,
        };
        Err(self.misfit(role, &format!("{target} needs {shown:?}")))
    }

    /// Checks that the tensor in this role has `count` values, in whatever shape.
    pub fn expect_count(&self, role: Role, count: usize, target: &str) -> Result<(), String> {
        match self.has(role) && self.count(role) == count {
            true => Ok(()),
            false => Err(self.misfit(role, &format!("{target} needs {count} values"))),
        }
    }

    /// The sentence about a tensor whose shape does not fit.
    pub fn misfit(&self, role: Role, needs: &str) -> String {
        let found = self.shape(role);
        format!("its tensor {} has the shape {found:?}; this model's {needs}", self.quoted(role))
    }

    pub fn values(&self, role: Role) -> Result<Vec<f32>, String> {
        let name = self.name(role).ok_or_else(|| format!("it has no {role:?} tensor"))?;
        let values = self.file.values(name).map_err(|error| error.to_string())?;
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        Err(format!("its tensor {} has values that are NaN or infinite", quoted_name(name)))
    }

    /// The tensor in this role as a matrix. It must have as many values.
    pub fn matrix(&self, role: Role, rows: usize, columns: usize) -> Result<Array2<f32>, String> {
        Array2::from_shape_vec((rows, columns), self.values(role)?)
            .map_err(|_| format!("its tensor {} is cut off", self.quoted(role)))
    }

    /// The only value of the tensor in this role, if there is such a tensor.
    pub fn number(&self, role: Role) -> Result<Option<f32>, String> {
        let Some(name) = self.name(role) else { return Ok(None) };
        let not_single = || format!("its {} is not a single number", quoted_name(name));
        // First, so that nothing large is read.
        if self.count(role) != 1 {
            return Err(not_single());
        }
        self.values(role)?.first().copied().map(Some).ok_or_else(not_single)
    }
}

/// The sizes of a weight: a matrix, or a convolution's with its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub outputs: usize,
    pub inputs: usize,
    pub height: usize,
    pub width: usize,
}

impl Size {
    /// None for what is neither a matrix nor a convolution's weight.
    pub fn of(shape: &[usize]) -> Option<Self> {
        match *shape {
            [outputs, inputs] => Some(Self { outputs, inputs, height: 1, width: 1 }),
            [outputs, inputs, height, width] => Some(Self { outputs, inputs, height, width }),
            _ => None,
        }
    }

    pub fn kernel(&self) -> usize {
        self.height * self.width
    }

    /// Calls `change` with the values of each channel, in pieces: of its outputs, or of its inputs.
    pub fn each_channel(
        &self,
        values: &mut [f32],
        on_input: bool,
        mut change: impl FnMut(usize, &mut [f32]),
    ) {
        for (output, row) in values.chunks_exact_mut(self.row().max(1)).enumerate() {
            if !on_input {
                change(output, row);
                continue;
            }
            for (input, points) in row.chunks_exact_mut(self.kernel().max(1)).enumerate() {
                change(input, points);
            }
        }
    }

    /// The inputs of one output, with the kernel.
    pub fn row(&self) -> usize {
        self.inputs * self.kernel()
    }
}
