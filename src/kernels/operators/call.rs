//! What the operators share: a call's tensors and threads, memory from one call to the next, and the shapes of results.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ort::operator::{ComputeContext, KernelContext, ShapeInferenceContext};
use ort::value::{DynValue, PrimitiveTensorElementType, ValueRef, ValueType};

use crate::kernels::convolution::Threads;

/// A call of an operator. Graphs may come with a model, so nothing is taken for granted.
pub struct Call<'a> {
    operator: &'static str,
    context: &'a ComputeContext,
    inputs: Vec<Option<ValueRef<'a>>>,
}

/// A tensor's shape and values.
pub type Read<'a, T> = (&'a [i64], &'a [T]);

impl<'a> Call<'a> {
    pub fn of(operator: &'static str, context: &'a ComputeContext) -> ort::Result<Self> {
        let inputs =
            (0..context.num_inputs()?).map(|index| context.input(index)).collect::<ort::Result<_>>()?;
        Ok(Self { operator, context, inputs })
    }

    pub fn operator(&self) -> &'static str {
        self.operator
    }

    pub fn refused(&self, reason: &str) -> ort::Error {
        ort::Error::new(format!("{}: {reason}", self.operator))
    }

    pub fn input<T: PrimitiveTensorElementType>(&self, index: usize) -> ort::Result<Read<'_, T>> {
        self.optional(index)?.ok_or_else(|| self.refused("an input is missing"))
    }

    pub fn optional<T: PrimitiveTensorElementType>(&self, index: usize) -> ort::Result<Option<Read<'_, T>>> {
        let Some(value) = self.inputs.get(index).and_then(Option::as_ref) else { return Ok(None) };
        let value: &DynValue = value;
        let (shape, values) = value.try_extract_tensor::<T>()?;
        Ok(Some((shape, values)))
    }

    pub fn size(&self, size: i64) -> ort::Result<usize> {
        usize::try_from(size).map_err(|_| self.refused("a size is negative"))
    }

    /// Lets `work` write the result, on ONNX Runtime's threads.
    pub fn write(
        &self,
        shape: Vec<i64>,
        threads: usize,
        work: impl FnOnce(&mut [f32], &Threads<'_>) -> Result<(), &'static str>,
    ) -> ort::Result<()> {
        let output = self.context.output(0, shape)?;
        let mut output = output.ok_or_else(|| self.refused("it has no output"))?;
        let (_, output) = output.try_extract_tensor_mut::<f32>()?;
        let failure = Cell::new(None);
        let run = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
            if tasks == 1 {
                task(0);
            } else if let Err(error) = self.context.par_for(tasks, 0, task) {
                failure.set(Some(error));
            }
        };
        work(output, &Threads { count: threads, run: &run }).map_err(|reason| self.refused(reason))?;
        failure.take().map_or(Ok(()), Err)
    }
}

/// A node's attribute that counts something.
pub fn count(context: &KernelContext<'_>, operator: &str, name: &str) -> ort::Result<usize> {
    let count: i64 = context.get(name).ok_or_else(|| missing(operator, name))?;
    usize::try_from(count).map_err(|_| ort::Error::new(format!("{operator}: {name} are negative")))
}

/// A node's attribute that says yes by 1 and no by 0, as it does without.
pub fn flag(context: &KernelContext<'_>, operator: &str, name: &str) -> ort::Result<bool> {
    match context.get::<i64>(name) {
        None | Some(0) => Ok(false),
        Some(1) => Ok(true),
        Some(_) => Err(ort::Error::new(format!("{operator}: {name} is neither 0 nor 1"))),
    }
}

pub fn missing(operator: &str, name: &str) -> ort::Error {
    ort::Error::new(format!("{operator}: it has no {name}"))
}

/// What calls leave for the next, one for each call at the same time.
pub struct Pool<S>(Arc<Mutex<Vec<S>>>);

impl<S> Clone for Pool<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Default for Pool<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: Default> Pool<S> {
    pub fn lend<R>(&self, work: impl FnOnce(&mut S) -> R) -> R {
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = all().pop().unwrap_or_default();
        let result = work(&mut scratch);
        all().push(scratch);
        result
    }
}

/// Says that the result has the shape of the first input, but for what `change` does to it. With shapes, ONNX Runtime plans its
/// memory better, and some of its operators refuse an input without.
pub fn like_first_input(
    context: &mut ShapeInferenceContext,
    change: impl FnOnce(&mut [i64]) -> Option<()>,
) -> ort::Result<()> {
    let Some(ValueType::Tensor { ty, mut shape, dimension_symbols }) = context.inputs().into_iter().next()
    else {
        return Ok(());
    };
    // Without a shape it looks like a scalar.
    if shape.is_empty() || change(&mut shape).is_none() {
        return Ok(());
    }
    // A size that is neither known nor named cannot be said, so it gets a name of its own. A known one has none.
    let sizes = shape.iter().zip(dimension_symbols.iter());
    let dimension_symbols = sizes
        .map(|(size, name)| match (*size >= 0, name.is_empty()) {
            (true, _) => String::new(),
            (false, true) => new_name(),
            (false, false) => name.clone(),
        })
        .collect();
    context.set_output(0, &ValueType::Tensor { ty, shape, dimension_symbols })
}

/// Sizes with the same name are the same, so no two get one.
fn new_name() -> String {
    static NAMES: AtomicU64 = AtomicU64::new(0);
    format!("stablehand.{}", NAMES.fetch_add(1, Ordering::Relaxed))
}
