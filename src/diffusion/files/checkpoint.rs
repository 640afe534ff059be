//! Weights as people have them: everything in one file, or a file for each part, whole or in shards.

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::original_names::{self, Depth};
use super::{Architecture, FileError, TensorFile, WeightWriter, WeightlessGraph, Weights};
use crate::domain::ModelPart;

/// More threads would only wait for memory.
const MOST_THREADS: usize = 8;

/// Files that hold weights together.
pub struct Checkpoint {
    files: Vec<Arc<TensorFile>>,
    /// The file that has a tensor, and the tensor's number in it.
    places: HashMap<String, (usize, usize)>,
    depth: Depth,
}

impl Checkpoint {
    /// Where two files have a tensor of the same name, the first file wins.
    pub fn new(files: Vec<Arc<TensorFile>>, architecture: Architecture) -> Self {
        let mut places = HashMap::new();
        for (number, file) in files.iter().enumerate() {
            for (order, name) in file.tensor_names().into_iter().enumerate() {
                places.entry(name).or_insert((number, order));
            }
        }
        Self { files, places, depth: architecture.depth() }
    }

    pub fn files(&self) -> impl Iterator<Item = &TensorFile> {
        self.files.iter().map(Arc::as_ref)
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

    /// Reads what `graph` wants, tensor by tensor, in the order of the files.
    pub fn fill(&self, part: ModelPart, graph: &WeightlessGraph) -> Result<Weights, FileError> {
        let mut wanted = Vec::new();
        for (name, shape) in graph.wanted() {
            let found = self.find(part, name).ok_or_else(|| self.missing(part, name))?;
            let file = &self.files[found.file];
            let given = file.shape(&found.tensor).unwrap_or_default();
            if !same_matrix(given, shape) {
                return Err(FileError::Tensor {
                    tensor: found.tensor,
                    file: file.name().to_owned(),
                    reason: format!("its shape is {given:?}, but this model needs {shape:?}"),
                });
            }
            wanted.push((name, found));
        }
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
        let found = candidates(part, name, self.depth).filter_map(|tensor| {
            let &(file, order) = self.places.get(&tensor)?;
            Some(Found { file, order, tensor })
        });
        // The first file's, under whichever name; there, the likeliest.
        found.min_by_key(|found| found.file)
    }

    fn missing(&self, part: ModelPart, name: &str) -> FileError {
        // By the name that this file would use.
        let originals = || original_names::names(part, name, self.depth).into_iter();
        let is_original = self.places.keys().any(|name| name.starts_with("model.diffusion_model."));
        let tensor = originals().next().filter(|_| is_original).unwrap_or_else(|| name.to_owned());
        let names: Vec<&str> = self.files().map(TensorFile::name).collect();
        FileError::Missing { tensor, file: names.join(", ") }
    }
}

struct Found {
    file: usize,
    order: usize,
    tensor: String,
}

/// The names that a tensor may have, the likeliest first.
fn candidates(part: ModelPart, name: &str, depth: Depth) -> impl Iterator<Item = String> {
    let mut names = vec![name.to_owned()];
    match part {
        // Newer transformers write the text model alone.
        ModelPart::TextEncoder => names.extend(name.strip_prefix("text_model.").map(str::to_owned)),
        // Before 0.18, diffusers named the VAE's attention in its own way.
        ModelPart::VaeDecoder | ModelPart::VaeEncoder => {
            let old = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
            names.extend(
                old.iter()
                    .filter(|(new, _)| name.contains(&format!("attentions.0.{new}.")))
                    .map(|(new, old)| name.replace(new, old)),
            );
        }
        ModelPart::UNet | ModelPart::SafetyChecker => {}
    }
    let originals = original_names::names(part, name, depth);
    names
        .into_iter()
        .chain(originals.into_iter().flat_map(|name| original_names::places(&name).collect::<Vec<_>>()))
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
