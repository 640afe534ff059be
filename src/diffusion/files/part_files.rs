//! Where one part's graph and weights are: an ONNX file that has both, or weights for a graph of ours.

mod facts;
mod finding;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::lazy_checkpoint::LazyCheckpoint;
use super::onnx_folder::{files_with_weights, last_modified, onnx_graph};
use super::{
    Architecture, Checkpoint, FileError, GraphBuild, GraphLibrary, ModelPlace, Target, TensorFile,
    WeightlessGraph, Weights,
};
use crate::domain::ModelPart;

/// The files of one part of a model.
#[derive(Clone)]
pub struct PartFiles {
    part: ModelPart,
    source: Source,
    /// How many of the text encoder's layers are used, where its configuration says so.
    hidden_layers: Option<u32>,
}

#[derive(Clone)]
enum Source {
    /// A graph with its weights in it or beside it.
    Onnx { path: PathBuf, files: Vec<(String, u64)>, modified: Option<SystemTime> },
    /// Weights for a graph of ours. The VAE's halves share theirs, and so do all parts of a checkpoint in one file.
    Weights { checkpoint: Arc<LazyCheckpoint>, graphs: Arc<GraphLibrary> },
}

/// What a session is made from.
pub enum PartGraph<'a> {
    Onnx(&'a Path),
    Weightless(Arc<WeightlessGraph>),
}

const CONV_IN: &str = "conv_in.weight";
/// What our graphs call the feature map that comes into the last layer of a UNet's way up.
pub const DEEP_FEATURE: &str = "deep_feature";
/// A UNet that was distilled with an embedding of the guidance scale has this weight.
const GUIDANCE: &str = "time_embedding.cond_proj.weight";
const NO_GUIDED_INPAINTING: &str =
    "stablehand has none for inpainting with a guidance embedding (time_embedding.cond_proj)";
const NO_GUIDED_EDITING: &str =
    "stablehand has none for InstructPix2Pix with a guidance embedding (time_embedding.cond_proj)";

impl PartFiles {
    /// The part whose ONNX graph lies in `folder`, if one does.
    pub fn from_onnx(part: ModelPart, folder: &Path) -> Option<Self> {
        let path = folder.join(onnx_graph(folder)?);
        let (files, modified) = (files_with_weights(folder), last_modified(folder));
        let source = Source::Onnx { path, files, modified };
        Some(Self { part, source, hidden_layers: None })
    }

    pub fn part(&self) -> ModelPart {
        self.part
    }

    /// Whether its weights come without a graph.
    pub fn takes_our_graph(&self) -> bool {
        matches!(self.source, Source::Weights { .. })
    }

    /// The files with the weights, and the graph where it comes with them, each with its size in bytes.
    pub fn list(&self) -> Vec<(String, u64)> {
        match &self.source {
            Source::Onnx { files, .. } => files.clone(),
            Source::Weights { checkpoint, .. } => {
                let files = checkpoint.get().into_iter().flat_map(Checkpoint::files);
                files.map(|file| (file.name().to_owned(), file.length())).collect()
            }
        }
    }

    /// When the last of these files was written; none inside the binary.
    pub fn modified(&self) -> Option<SystemTime> {
        match &self.source {
            Source::Onnx { modified, .. } => *modified,
            Source::Weights { checkpoint, .. } => checkpoint
                .get()
                .into_iter()
                .flat_map(Checkpoint::files)
                .filter_map(TensorFile::modified)
                .max(),
        }
    }

    /// Whether the file of an ONNX graph says that it is in half precision.
    pub fn is_half_by_name(&self) -> bool {
        match &self.source {
            Source::Onnx { path, .. } => {
                path.file_name().is_some_and(|name| name.to_string_lossy().contains("fp16"))
            }
            Source::Weights { .. } => false,
        }
    }

    /// The part's own graph, or this build of ours.
    pub fn graph(&self, build: GraphBuild) -> Result<PartGraph<'_>, FileError> {
        let (checkpoint, graphs) = match &self.source {
            Source::Onnx { path, .. } => return Ok(PartGraph::Onnx(path)),
            Source::Weights { checkpoint, graphs } => (checkpoint.get()?, graphs),
        };
        Ok(PartGraph::Weightless(graphs.find(self.graph_name(checkpoint)?, build)?))
    }

    /// The name of our graph for these weights.
    fn graph_name(&self, checkpoint: &Checkpoint) -> Result<&'static str, FileError> {
        let is_guided = self.part == ModelPart::UNet && checkpoint.has(ModelPart::UNet, GUIDANCE);
        Ok(match (self.part, self.unet_channels()) {
            (ModelPart::UNet, Some(9)) if is_guided => {
                return Err(FileError::Graph(NO_GUIDED_INPAINTING.to_owned()));
            }
            (ModelPart::UNet, Some(8)) if is_guided => {
                return Err(FileError::Graph(NO_GUIDED_EDITING.to_owned()));
            }
            (ModelPart::UNet, _) if is_guided => "unet_guided",
            (ModelPart::UNet, Some(9)) => "unet_inpainting",
            (ModelPart::UNet, Some(8)) => "unet_pix2pix",
            (part, _) => part.name(),
        })
    }

    /// The outer layers of our UNet, which take the deep feature that [`Self::graph`] gives. Their weights lie where that
    /// graph has them. `None` where that graph gives none: those that come with a model may be older.
    pub fn shallow_graph(&self, build: GraphBuild) -> Result<Option<Arc<WeightlessGraph>>, FileError> {
        let Source::Weights { checkpoint, graphs } = &self.source else { return Ok(None) };
        if self.part != ModelPart::UNet {
            return Ok(None);
        }
        let name = self.graph_name(checkpoint.get()?)?;
        let whole = graphs.find(name, build)?;
        let gives_it = whole.outputs().iter().any(|output| output == DEEP_FEATURE);
        let shallow = graphs.find(&format!("{name}_shallow"), build).ok().filter(|_| gives_it);
        Ok(shallow.filter(|shallow| whole.has_weights_of(shallow)))
    }

    /// The build of our UNet that takes what ControlNets give. Its weights lie where the plain one's do.
    pub fn controlled_graph(&self, build: GraphBuild) -> Result<PartGraph<'_>, FileError> {
        let Source::Weights { graphs, .. } = &self.source else { return self.graph(build) };
        let name = match self.unet_channels() {
            Some(9) => "unet_inpainting_controlled",
            _ => "unet_controlled",
        };
        Ok(PartGraph::Weightless(graphs.find(name, build)?))
    }

    /// A ControlNet in `file` for this UNet's model. None if the model's weights are inside its own graphs.
    pub fn controlnet(&self, file: Arc<TensorFile>) -> Result<Option<Self>, FileError> {
        let Source::Weights { checkpoint, graphs } = &self.source else { return Ok(None) };
        let checkpoint = LazyCheckpoint::opened(Checkpoint::beside(file, checkpoint.get()?));
        let source = Source::Weights { checkpoint, graphs: Arc::clone(graphs) };
        Ok(Some(Self { part: ModelPart::ControlNet, source, hidden_layers: None }))
    }

    /// The tiny VAE in `file`, for the model at `place`, which may have a graph of its own for it.
    pub fn tiny_vae(file: Arc<TensorFile>, place: &ModelPlace) -> Self {
        let checkpoint = Checkpoint::new(vec![file], Architecture::StableDiffusionV1);
        let checkpoint = LazyCheckpoint::opened(checkpoint);
        let source = Source::Weights { checkpoint, graphs: Arc::new(GraphLibrary::new(place.clone())) };
        Self { part: ModelPart::TinyVae, source, hidden_layers: None }
    }

    /// The shape of a weight, if the weights come without a graph.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let Source::Weights { checkpoint, .. } = &self.source else { return None };
        checkpoint.get().ok()?.shape(self.part, name)
    }

    /// The channels that a UNet reads, if its weights come without a graph.
    pub fn unet_channels(&self) -> Option<usize> {
        let Source::Weights { checkpoint, .. } = &self.source else { return None };
        checkpoint.get().ok()?.shape(ModelPart::UNet, CONV_IN)?.get(1).copied()
    }

    /// Fails if a weight that our graph needs is missing or has another shape.
    pub fn check_weights(&self) -> Result<(), FileError> {
        match (&self.source, self.graph(GraphBuild::Cpu)?) {
            (Source::Weights { checkpoint, .. }, PartGraph::Weightless(graph)) => {
                checkpoint.get()?.check(self.part, &graph)
            }
            _ => Ok(()),
        }
    }

    /// The part's weights in the layout of one of our graphs. `None` if the part's own graph contains them.
    pub fn weights(&self, graph: &WeightlessGraph) -> Result<Option<Weights>, FileError> {
        match &self.source {
            Source::Onnx { .. } => Ok(None),
            Source::Weights { checkpoint, .. } => {
                Ok(Some(checkpoint.get()?.fill(self.part, graph, |name| self.needs(name))?))
            }
        }
    }

    /// All values of one weight, as precise as the files have them. `None` if the part's own graph contains them.
    pub fn values(&self, name: &str) -> Result<Option<Vec<f32>>, FileError> {
        match &self.source {
            Source::Onnx { .. } => Ok(None),
            Source::Weights { checkpoint, .. } => Ok(Some(checkpoint.get()?.values(self.part, name)?)),
        }
    }

    /// The weights that LoRAs may change, by name and shape: not those that have no say, which the files may lack. `None` if
    /// the part's own graph contains the weights.
    pub fn lora_targets(&self) -> Result<Option<Vec<Target>>, FileError> {
        // They are the same in every build.
        let PartGraph::Weightless(graph) = self.graph(GraphBuild::Cpu)? else { return Ok(None) };
        let target = |(name, shape): (&str, &[usize])| Target {
            part: self.part,
            parameter: name.to_owned(),
            shape: shape.to_vec(),
        };
        Ok(Some(graph.wanted().filter(|(name, _)| self.needs(name)).map(target).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::diffusion::files::{Originals, Parameters as _};

    #[test]
    fn weights_are_changed_in_the_graph_s_own_order_and_precision() {
        let parts = PartFiles::find_all(&ModelPlace::Embedded).unwrap();
        let unet = &parts[&ModelPart::UNet];
        let blocks = [8, 16].map(|channels_in_a_block| GraphBuild::Nchwc { channels_in_a_block });
        let winograd = GraphBuild::Winograd { channels_in_a_block: 8 };
        for build in [GraphBuild::Cpu, GraphBuild::Cuda, blocks[0], blocks[1], winograd] {
            let PartGraph::Weightless(graph) = unet.graph(build).unwrap() else { panic!("our graph") };
            let mut weights = unet.weights(&graph).unwrap().unwrap();
            for name in [
                "conv_in.weight",
                "down_blocks.0.resnets.0.conv1.weight",
                "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
            ] {
                let mut originals = Originals { weights: &mut weights, files: unet };
                let before = originals.values(name).unwrap();
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let after: Vec<f32> =
                    before.iter().enumerate().map(|(i, before)| before + i as f32 * 1e-4).collect();
                originals.replace(name, &after).unwrap();
                let kept = |value: f32| match build {
                    GraphBuild::Cuda => half::f16::from_f32(value).to_f32(),
                    _ => value,
                };
                assert_eq!(
                    weights.values(name).unwrap(),
                    after.into_iter().map(kept).collect::<Vec<_>>(),
                    "{name}"
                );
            }
            assert!(weights.replace("conv_in.weight", &[0.0]).unwrap_err().contains("1728 values, not 1"));
            assert!(weights.replace("nothing", &[]).unwrap_err().contains("no weight nothing"));
            let _reader = std::sync::Arc::clone(weights.buffer());
            assert!(weights.replace("conv_in.weight", &[0.0; 1728]).unwrap_err().contains("in use"));
        }
    }

    #[test]
    fn the_outer_layers_of_a_unet_have_their_weights_where_the_whole_unet_has_them() {
        let parts = PartFiles::find_all(&ModelPlace::Embedded).unwrap();
        let block = 8;
        for build in [
            GraphBuild::Cpu,
            GraphBuild::Cuda,
            GraphBuild::Nchwc { channels_in_a_block: block },
            GraphBuild::Winograd { channels_in_a_block: block },
        ] {
            let library = GraphLibrary::new(ModelPlace::Embedded);
            let outer = parts[&ModelPart::UNet].shallow_graph(build).unwrap().unwrap();
            let PartGraph::Weightless(whole) = parts[&ModelPart::UNet].graph(build).unwrap() else {
                panic!("our graph")
            };
            assert!(whole.has_weights_of(&outer) && !outer.has_weights_of(&whole), "{build:?}");
            assert!(outer.weight_bytes() * 4 < whole.weight_bytes(), "{build:?}");
            assert!(parts[&ModelPart::VaeDecoder].shallow_graph(build).unwrap().is_none());
            for name in ["unet_inpainting", "unet_guided", "unet_pix2pix"] {
                let [whole, outer] =
                    ["", "_shallow"].map(|end| library.find(&format!("{name}{end}"), build).unwrap());
                // The built-in model has a guided graph of its own.
                assert!(whole.has_weights_of(&outer), "{name} {build:?}");
                assert!(whole.outputs().iter().any(|output| output == DEEP_FEATURE), "{name} {build:?}");
            }
        }
    }

    #[test]
    fn a_vae_that_cannot_be_read_fails_when_it_is_used_until_it_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        for part in ["text_encoder", "unet", "vae"] {
            let file = "diffusion_pytorch_model.fp16.safetensors";
            let name = if part == "text_encoder" { "model.fp16.safetensors" } else { file };
            let from = format!("{}/models/tiny-sd/{part}/{name}", env!("CARGO_MANIFEST_DIR"));
            fs::create_dir(folder.path().join(part)).unwrap();
            fs::copy(from, folder.path().join(part).join(name)).unwrap();
        }
        let vae = folder.path().join("vae/diffusion_pytorch_model.fp16.safetensors");
        let whole = fs::read(&vae).unwrap();
        fs::write(&vae, &whole[..1000]).unwrap();
        let parts = PartFiles::find_all(&ModelPlace::Folder(folder.path().to_owned())).unwrap();
        let decoder = &parts[&ModelPart::VaeDecoder];
        let error = decoder.graph(GraphBuild::Cpu).err().unwrap().to_string();
        assert!(error.contains("vae/diffusion_pytorch_model"), "{error}");
        fs::write(&vae, whole).unwrap();
        assert!(decoder.graph(GraphBuild::Cpu).is_ok());
    }
}
