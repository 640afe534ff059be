//! What a model is made of, part by part, as its graphs declare it: for the reader of a report.

use super::session::Graph;
use super::{ModelError, Port};
use crate::diffusion::files::ModelFolder;
use crate::domain::ModelPart;
use crate::runtime::Runtime;

/// One part's files and ports.
#[derive(Debug, Clone)]
pub struct PartReport {
    pub part: ModelPart,
    /// The graph and its weights, each with its size in bytes.
    pub files: Vec<(String, u64)>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

impl ModelFolder {
    /// Every part that there is. Each graph is loaded and let go before the next.
    pub fn parts(&self, runtime: &Runtime) -> Result<Vec<PartReport>, ModelError> {
        let present = ModelPart::ALL.into_iter().filter(|part| self.has(*part));
        let report = |part| {
            let (inputs, outputs) = Graph::load(self, part, runtime)?.into_ports();
            Ok(PartReport { part, files: self.files_of(part), inputs, outputs })
        };
        present.map(report).collect()
    }
}
