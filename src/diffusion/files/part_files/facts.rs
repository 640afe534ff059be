//! What a part's weights tell beside their values: layers that are left out, tokens that were added, guidance that is
//! embedded, and values that are no numbers.

use ndarray::Array2;

use super::{GUIDANCE, PartFiles, PartGraph, Source};
use crate::diffusion::files::config_expectations::GraphOf;
use crate::diffusion::files::{Checkpoint, FileError, GraphBuild, TOKEN_EMBEDDING};

/// More rows behind the vocabulary than anybody has trained.
const MOST_ADDED_ROWS: usize = 4096;

impl PartFiles {
    /// Uses this many of the text encoder's layers. Its weights may have more, or just these.
    pub fn use_hidden_layers(&mut self, layers: u32) {
        self.hidden_layers = Some(layers);
    }

    /// How many layers of our text encoder's graph are left out.
    pub fn unused_layers(&self) -> Result<u32, FileError> {
        let Some(used) = self.hidden_layers else { return Ok(0) };
        let PartGraph::Weightless(graph) = self.graph(GraphBuild::Cpu)? else { return Ok(0) };
        let all = graph.wanted().filter_map(|(name, _)| layer_of(name)).max().map_or(0, |last| last + 1);
        all.checked_sub(used).ok_or_else(|| {
            FileError::Graph(format!(
                "text_encoder/config.json says that num_hidden_layers is {used}, but the graph has {all} layers"
            ))
        })
    }

    /// Whether a weight of our graph has a say in what comes out.
    pub fn needs(&self, weight: &str) -> bool {
        self.hidden_layers.zip(layer_of(weight)).is_none_or(|(used, layer)| layer < used)
    }

    /// The weights in files, where they are not inside a graph of their own.
    pub(in crate::diffusion::files) fn checkpoint(&self) -> Option<Result<&Checkpoint, FileError>> {
        match &self.source {
            Source::Onnx { .. } => None,
            Source::Weights { checkpoint, .. } => Some(checkpoint.get()),
        }
    }

    /// Whose graph it is. `None` for weights that cannot be read: that is said where they are used.
    pub fn graph_of(&self) -> Option<GraphOf> {
        match self.graph(GraphBuild::Cpu).ok()? {
            PartGraph::Onnx(_) => Some(GraphOf::Export),
            PartGraph::Weightless(graph) if graph.is_built_in() => Some(GraphOf::StableDiffusionV1),
            PartGraph::Weightless(_) => Some(GraphOf::Model),
        }
    }

    /// Whether a UNet's weights have an embedding of the guidance scale.
    pub fn embeds_guidance(&self) -> bool {
        self.checkpoint().is_some_and(|found| found.is_ok_and(|found| found.has(self.part, GUIDANCE)))
    }

    /// The rows of the text encoder's table of embeddings, where its weights are not inside its own graph.
    pub fn embedding_rows(&self) -> Option<usize> {
        self.checkpoint()?.ok()?.shape(self.part, TOKEN_EMBEDDING)?.first().copied()
    }

    /// The rows of added tokens, behind the `known` rows that the graph has. `None` where there are none.
    pub fn added_rows(&self, known: usize) -> Result<Option<Array2<f32>>, FileError> {
        let added = self.embedding_rows().unwrap_or(0).saturating_sub(known);
        let (Some(checkpoint), true) = (self.checkpoint(), added > 0) else { return Ok(None) };
        if added > MOST_ADDED_ROWS {
            return Err(FileError::Graph(format!(
                "{TOKEN_EMBEDDING} has {added} rows behind the vocabulary, but at most {MOST_ADDED_ROWS} are used"
            )));
        }
        checkpoint?.rows_from(self.part, TOKEN_EMBEDDING, known).map(Some)
    }

    /// The weights that are not finite: their names in their file, and how many of their values are not. Reads all of them.
    pub fn broken_weights(&self) -> Result<Vec<(String, usize)>, FileError> {
        let Some(checkpoint) = self.checkpoint() else { return Ok(Vec::new()) };
        let PartGraph::Weightless(graph) = self.graph(GraphBuild::Cpu)? else { return Ok(Vec::new()) };
        let checkpoint = checkpoint?;
        let mut broken = Vec::new();
        for (name, _) in graph.wanted().filter(|(name, _)| self.needs(name)) {
            broken.extend(checkpoint.count_broken(self.part, name)?);
        }
        broken.sort();
        Ok(broken)
    }
}

/// The number of the text encoder's layer that a weight belongs to.
fn layer_of(weight: &str) -> Option<u32> {
    weight.strip_prefix("text_model.encoder.layers.")?.split_once('.')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::files::ModelPlace;
    use crate::domain::ModelPart;

    #[test]
    fn loras_do_not_change_layers_that_are_left_out() {
        let mut parts = PartFiles::find_all(&ModelPlace::Embedded).unwrap();
        let encoder = parts.get_mut(&ModelPart::TextEncoder).unwrap();
        let layers = |encoder: &PartFiles| {
            let targets = encoder.lora_targets().unwrap().unwrap();
            targets.iter().filter_map(|target| layer_of(&target.parameter)).max().map(|last| last + 1)
        };
        let all = layers(encoder).unwrap();
        encoder.use_hidden_layers(all - 1);
        assert_eq!(layers(encoder), Some(all - 1));
        // Nor anything else: their weights may be missing.
        assert!(
            encoder.lora_targets().unwrap().unwrap().iter().all(|target| encoder.needs(&target.parameter))
        );
    }
}
