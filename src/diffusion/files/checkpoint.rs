//! Weights as people have them: everything in one file, or a file for each part, whole or in shards.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use ndarray::Array2;

use super::original_names::{self, Depth};
use super::{Architecture, FileError, TOKEN_EMBEDDING, TensorFile, WeightWriter, WeightlessGraph, Weights};
use crate::domain::ModelPart;

/// More threads would only wait for memory.
const MOST_THREADS: usize = 8;

/// Files that hold weights together.
pub struct Checkpoint {
    files: Vec<Arc<TensorFile>>,
    /// Tensors by their names without torch's wrappers.
    places: HashMap<String, Place>,
    depth: Depth,
}

impl Checkpoint {
    /// Where two files have a tensor of the same name, the first file wins.
    pub fn new(files: Vec<Arc<TensorFile>>, architecture: Architecture) -> Self {
        let mut places = HashMap::new();
        for (number, file) in files.iter().enumerate() {
            for (order, tensor) in file.tensor_names().into_iter().enumerate() {
                let name = original_names::unwrapped(&tensor).into_owned();
                let wrapped = (name != tensor).then_some(tensor);
                places.entry(name).or_insert(Place { file: number, order, wrapped });
            }
        }
        Self { files, places, depth: architecture.depth() }
    }

    /// The same for a file that belongs to another one's model.
    pub fn beside(file: Arc<TensorFile>, model: &Self) -> Self {
        Self { depth: model.depth, ..Self::new(vec![file], Architecture::StableDiffusionV1) }
    }

    pub fn files(&self) -> impl Iterator<Item = &TensorFile> {
        self.files.iter().map(Arc::as_ref)
    }

    pub fn shared_files(&self) -> &[Arc<TensorFile>] {
        &self.files
    }

    /// Whether it has the tensor that diffusers calls `name`.
    pub fn has(&self, part: ModelPart, name: &str) -> bool {
        self.find(part, name).is_some()
    }

    /// The shape of the tensor that diffusers calls `name`.
    pub fn shape(&self, part: ModelPart, name: &str) -> Option<&[usize]> {
        let found = self.find(part, name)?;
        self.files[found.file].shape(&found.tensor)
    }

    /// All values of the tensor that diffusers calls `name`, as f32.
    pub fn values(&self, part: ModelPart, name: &str) -> Result<Vec<f32>, FileError> {
        let found = self.find(part, name).ok_or_else(|| self.missing(part, name))?;
        self.files[found.file].values(&found.tensor)
    }

    /// Fails if a tensor that `graph` wants is missing or has another shape.
    pub fn check(&self, part: ModelPart, graph: &WeightlessGraph) -> Result<(), FileError> {
        self.locate(part, graph, |_| true).map(drop)
    }

    /// What `graph` wants, and where it is.
    fn locate<'a>(
        &self,
        part: ModelPart,
        graph: &'a WeightlessGraph,
        needed: impl Fn(&str) -> bool,
    ) -> Result<Vec<(&'a str, Found)>, FileError> {
        let mut all: Vec<_> = graph.wanted().filter(|(name, _)| needed(name)).collect();
        // So that the same file always gives the same error.
        all.sort_unstable();
        let mut wanted = Vec::with_capacity(all.len());
        for (name, shape) in all {
            let found = self.find(part, name).ok_or_else(|| self.missing(part, name))?;
            let file = &self.files[found.file];
            let given = file.shape(&found.tensor).unwrap_or_default();
            // Rows of added tokens lie behind those of the vocabulary, and are used apart from them.
            let has_added_rows = name == TOKEN_EMBEDDING
                && matches!((given, shape), ([rows, width], [least, same]) if rows > least && width == same);
            if !same_matrix(given, shape) && !has_added_rows {
                return Err(FileError::Tensor {
                    tensor: found.tensor,
                    file: file.name().to_owned(),
                    reason: format!("its shape is {given:?}, but this model needs {shape:?}"),
                });
            }
            wanted.push((name, found));
        }
        Ok(wanted)
    }

    /// Reads what `graph` wants, tensor by tensor, in the order of the files. Weights that are not `needed` stay zero.
    pub fn fill(
        &self,
        part: ModelPart,
        graph: &WeightlessGraph,
        needed: impl Fn(&str) -> bool,
    ) -> Result<Weights, FileError> {
        let wanted = self.locate(part, graph, needed)?;
        let mut weights = graph.allocate();
        let mut writers: HashMap<_, _> = weights.writers().into_iter().collect();
        let mut tasks: Vec<(Found, WeightWriter)> =
            wanted.into_iter().filter_map(|(name, found)| Some((found, writers.remove(name)?))).collect();
        tasks.sort_by_key(|(found, _)| (found.file, found.order));
        self.read_all(tasks)?;
        self.files().try_for_each(TensorFile::check_unchanged)?;
        Ok(weights)
    }

    /// Reads tensors on every core, since converting them is what takes time.
    fn read_all(&self, tasks: Vec<(Found, WeightWriter)>) -> Result<(), FileError> {
        let tasks = Mutex::new(tasks.into_iter());
        let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || -> Result<(), FileError> {
            while let Some((found, mut writer)) = next() {
                self.files[found.file].each_piece(&found.tensor, |piece| writer.write(piece))?;
            }
            Ok(())
        };
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let outcomes = workers.into_iter().map(|worker| match worker.join() {
                Ok(outcome) => outcome,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            // Waits for all of them, even after a failure.
            outcomes.fold(Ok(()), Result::and)
        })
    }

    fn find(&self, part: ModelPart, name: &str) -> Option<Found> {
        let names = original_names::names(part, name, self.depth);
        let found = names.into_iter().filter_map(|name| {
            let Place { file, order, wrapped } = self.places.get(&name)?;
            Some(Found { file: *file, order: *order, tensor: wrapped.clone().unwrap_or(name) })
        });
        // The first file's, under whichever name; there, the likeliest.
        found.min_by_key(|found| found.file)
    }

    /// Where the tensor that diffusers calls `name` is: its file, and its number in it.
    pub fn place(&self, part: ModelPart, name: &str) -> Option<(&Arc<TensorFile>, usize)> {
        let found = self.find(part, name)?;
        Some((&self.files[found.file], found.order))
    }

    /// The rows of a matrix from number `first` on.
    pub fn rows_from(&self, part: ModelPart, name: &str, first: usize) -> Result<Array2<f32>, FileError> {
        let found = self.find(part, name).ok_or_else(|| self.missing(part, name))?;
        let file = &self.files[found.file];
        let &[rows, width] = file.shape(&found.tensor).unwrap_or_default() else {
            return Err(self.missing(part, name));
        };
        let (mut passed, mut values) = (0, Vec::new());
        file.each_piece(&found.tensor, |piece| {
            let start = (first * width).saturating_sub(passed).min(piece.len());
            values.extend_from_slice(&piece[start..]);
            passed += piece.len();
        })?;
        file.check_unchanged()?;
        Array2::from_shape_vec((rows.saturating_sub(first), width), values)
            .map_err(|_| FileError::Changed(file.name().to_owned()))
    }

    /// How many values of the tensor that diffusers calls `name` are infinite or no numbers, with its name in the file.
    pub fn count_broken(&self, part: ModelPart, name: &str) -> Result<Option<(String, usize)>, FileError> {
        let Some(found) = self.find(part, name) else { return Ok(None) };
        let mut count = 0;
        self.files[found.file].each_piece(&found.tensor, |piece| {
            count += piece.iter().filter(|value| !value.is_finite()).count();
        })?;
        Ok((count > 0).then_some((found.tensor, count)))
    }

    fn missing(&self, part: ModelPart, name: &str) -> FileError {
        // By the name that this file would use.
        let is_original = self.places.keys().any(|name| name.starts_with(original_names::UNET));
        let originals = || original_names::names(part, name, self.depth).into_iter().next();
        let tensor = is_original.then(originals).flatten().unwrap_or_else(|| name.to_owned());
        let names: Vec<&str> = self.files().map(TensorFile::name).collect();
        FileError::Missing { tensor, file: names.join(", ") }
    }
}

/// The file that has a tensor, and the tensor's number in it.
struct Place {
    file: usize,
    order: usize,
    /// Its name in the file, where that has wrappers.
    wrapped: Option<String>,
}

struct Found {
    file: usize,
    order: usize,
    tensor: String,
}

/// Whether two shapes are the same but for ones at the end: a 1×1 convolution is a linear map.
fn same_matrix(given: &[usize], wanted: &[usize]) -> bool {
    fn trimmed(mut shape: &[usize]) -> &[usize] {
        while let [rest @ .., 1] = shape {
            if rest.len() < 2 {
                break;
            }
            shape = rest;
        }
        shape
    }
    given == wanted || (trimmed(given) == trimmed(wanted) && trimmed(given).len() == 2)
}
