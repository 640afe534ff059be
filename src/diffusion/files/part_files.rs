//! Parts whose graphs are ours and come without weights: where the weights are, and which graph they go into.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::embedded::SD_V1;
use super::model_files::has_extension;
use super::{Architecture, Checkpoint, ModelFolder, SafetensorsFile, Target, WeightlessGraph, Weights};
use crate::diffusion::nets::{GraphBuild, ModelError};
use crate::domain::ModelPart;
use crate::runtime::Device;

/// A part as a graph and what is to be filled into it.
pub(in crate::diffusion) struct WeightlessPart {
    pub graph: WeightlessGraph,
    part: ModelPart,
    checkpoint: Checkpoint,
}

impl WeightlessPart {
    /// The weights, converted to what the graph wants.
    pub fn weights(&self) -> Result<Weights, ModelError> {
        Ok(self.checkpoint.fill(self.part, &self.graph)?)
    }
}

const CONV_IN: &str = "conv_in.weight";

impl ModelFolder {
    /// Whether `part` has weights and takes our graph.
    pub(in crate::diffusion) fn has_weights_alone(&self, part: ModelPart) -> bool {
        let Some(folder) = weights_folder(part) else { return false };
        match self {
            Self::Embedded => true,
            Self::Directory(path) => !weight_files(&path.join(folder)).is_empty(),
            // Some come without a VAE, to be used with one beside them.
            Self::Checkpoint { .. } => self
                .checkpoint(part)
                .ok()
                .flatten()
                .is_some_and(|checkpoint| checkpoint.has(part, first_tensor(part))),
        }
    }

    /// The files with the weights of `part`, where it takes our graph.
    pub(in crate::diffusion) fn checkpoint(&self, part: ModelPart) -> Result<Option<Checkpoint>, ModelError> {
        let Some(folder) = weights_folder(part) else { return Ok(None) };
        let (files, architecture) = match self {
            Self::Embedded => {
                let files = self.embedded().into_iter().flat_map(|files| files.in_folder(folder));
                let weights = files.filter(|(name, _)| has_extension(name, "safetensors"));
                let opened = weights.map(|(name, bytes)| SafetensorsFile::embedded(name, bytes));
                (opened.collect::<Result<Vec<_>, _>>()?, Architecture::TinySd)
            }
            Self::Directory(path) => {
                let paths = weight_files(&path.join(folder));
                if paths.is_empty() {
                    return Ok(None);
                }
                check_shards(&paths).map_err(|reason| self.refuse(reason))?;
                (open_all(&paths)?, Architecture::StableDiffusionV1)
            }
            Self::Checkpoint { path, architecture } => {
                let mut paths = vec![path.clone()];
                let vae = path.with_extension("vae.safetensors");
                if folder == "vae" && vae.is_file() {
                    paths.insert(0, vae);
                }
                (open_all(&paths)?, *architecture)
            }
        };
        Ok(Some(Checkpoint::new(files, architecture)))
    }

    /// `part` as our graph and its weights, where it comes so.
    pub(in crate::diffusion) fn weightless(
        &self,
        part: ModelPart,
        build: GraphBuild,
    ) -> Result<Option<WeightlessPart>, ModelError> {
        let Some(checkpoint) = self.checkpoint(part)? else { return Ok(None) };
        let onnx = self.our_graph(part, &checkpoint, build)?;
        let graph = WeightlessGraph::read(onnx, build.channels_in_a_block())?;
        Ok(Some(WeightlessPart { graph, part, checkpoint }))
    }

    /// The weights that add-ons may change, by name and shape; none where they lie inside graphs that are not ours.
    pub fn parameters(&self) -> Result<Option<Vec<Target>>, ModelError> {
        let mut all = Vec::new();
        for part in ModelPart::ADAPTABLE {
            // They are the same in every build.
            let Some(weightless) = self.weightless(part, GraphBuild::Cpu)? else { return Ok(None) };
            let target = |(name, shape): (&str, &[usize])| Target {
                part,
                weight: name.to_owned(),
                shape: shape.to_vec(),
            };
            all.extend(weightless.graph.wanted().map(target));
        }
        Ok(Some(all))
    }

    /// Bytes of the weights of `part` as its graph lays them out; nothing where its graph brings them.
    pub fn weight_bytes(&self, part: ModelPart, device: &Device) -> Result<u64, ModelError> {
        Ok(self.weightless(part, GraphBuild::plain(device))?.map_or(0, |part| part.graph.length() as u64))
    }

    /// The graph that the weights of `part` go into: the model's own in `graphs/`, else Stable Diffusion v1's.
    fn our_graph(
        &self,
        part: ModelPart,
        checkpoint: &Checkpoint,
        build: GraphBuild,
    ) -> Result<Cow<'static, [u8]>, ModelError> {
        let takes_mask =
            || checkpoint.shape(ModelPart::UNet, CONV_IN).is_some_and(|shape| shape.get(1) == Some(&9));
        let name = match part {
            ModelPart::UNet if takes_mask() => "unet_inpainting",
            part => part.name(),
        };
        // What has no convolutions has no build for them.
        let builds = [Some(build), matches!(build, GraphBuild::Nchwc { .. }).then_some(GraphBuild::Cpu)];
        let files = builds.into_iter().flatten().map(|build| format!("{name}.{}.onnx", build.name()));
        let files: Vec<_> = files.collect();
        for file in &files {
            if let Some(graph) = self.read(&format!("graphs/{file}"))? {
                return Ok(graph);
            }
        }
        let graph = files.iter().find_map(|file| SD_V1.get(file)).map(Cow::Borrowed);
        graph.ok_or_else(|| self.refuse(format!("there is no graph {} for its weights", files[0])))
    }
}

/// A tensor that no such part is without.
fn first_tensor(part: ModelPart) -> &'static str {
    match part {
        ModelPart::TextEncoder => "text_model.final_layer_norm.weight",
        ModelPart::VaeDecoder => "decoder.conv_in.weight",
        ModelPart::VaeEncoder => "encoder.conv_in.weight",
        _ => CONV_IN,
    }
}

/// Where diffusers keeps the weights of a part that takes our graph: the VAE's halves share theirs.
fn weights_folder(part: ModelPart) -> Option<&'static str> {
    match part {
        ModelPart::TextEncoder => Some("text_encoder"),
        ModelPart::UNet => Some("unet"),
        ModelPart::VaeDecoder | ModelPart::VaeEncoder => Some("vae"),
        ModelPart::SafetyChecker => None,
    }
}

/// The weights in a part's folder: whole or in shards, and of several variants the one without a
/// name (full precision), else the first.
fn weight_files(folder: &Path) -> Vec<PathBuf> {
    let mut variants: BTreeMap<(bool, String), Vec<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if has_extension(&name, "safetensors") && !name.starts_with('.') {
            let (stem, _) = sharded(&name);
            let is_variant = stem.contains('.');
            variants.entry((is_variant, stem)).or_default().push(folder.join(name));
        }
    }
    let mut files = variants.into_values().next().unwrap_or_default();
    files.sort();
    files
}

/// A file's name without its ending and number, and of how many it is one: `model-00001-of-00002.fp16.safetensors`
/// is one of two of `model.fp16`, as `model.fp16-00001-of-00002.safetensors` is.
fn sharded(name: &str) -> (String, Option<usize>) {
    let stem = name.trim_end_matches(".safetensors");
    let whole = || (stem.to_owned(), None);
    let Some((left, right)) = stem.split_once("-of-") else { return whole() };
    let Some((left, number)) = left.rsplit_once('-') else { return whole() };
    let (count, variant) = right.split_at(right.find('.').unwrap_or(right.len()));
    match (number.parse::<usize>(), count.parse()) {
        (Ok(_), Ok(count)) => (format!("{left}{variant}"), Some(count)),
        _ => whole(),
    }
}

/// That none of the shards is missing.
fn check_shards(paths: &[PathBuf]) -> Result<(), String> {
    let names = paths.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy());
    for name in names {
        if let (_, Some(count)) = sharded(&name)
            && count != paths.len()
        {
            return Err(format!("{name} is one of {count} files, and there are {} of them", paths.len()));
        }
    }
    Ok(())
}

fn open_all(paths: &[PathBuf]) -> Result<Vec<SafetensorsFile>, ModelError> {
    Ok(paths.iter().map(|path| SafetensorsFile::open(path)).collect::<Result<Vec<_>, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::files::AddTo as _;

    fn folder_with(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("unet")).unwrap();
        for name in names {
            fs::write(folder.path().join("unet").join(name), b"").unwrap();
        }
        folder
    }

    fn chosen(names: &[&str]) -> Vec<String> {
        let folder = folder_with(names);
        let files = weight_files(&folder.path().join("unet"));
        files.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn full_precision_comes_before_variants_and_shards_stay_together() {
        let (whole, half) =
            ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors");
        assert_eq!(chosen(&[half, whole, "config.json", "._x.safetensors"]), [whole]);
        assert_eq!(chosen(&[half, "diffusion_pytorch_model.non_ema.safetensors"]), [half]);
        let shards = ["m-00001-of-00002.safetensors", "m-00002-of-00002.safetensors"];
        assert_eq!(chosen(&[shards[1], shards[0], "m.safetensors.index.json"]), shards);
        for shards in [
            ["m-00001-of-00002.fp16.safetensors", "m-00002-of-00002.fp16.safetensors"],
            ["m.fp16-00001-of-00002.safetensors", "m.fp16-00002-of-00002.safetensors"],
        ] {
            assert_eq!(chosen(&shards), shards);
        }
        assert!(chosen(&["model.onnx"]).is_empty());
    }

    #[test]
    fn weights_are_changed_in_the_graph_s_own_order_and_precision() {
        let blocks = [8, 16].map(|channels_in_a_block| GraphBuild::Nchwc { channels_in_a_block });
        for build in [GraphBuild::Cpu, GraphBuild::Cuda, blocks[0], blocks[1]] {
            let unet = ModelFolder::Embedded.weightless(ModelPart::UNet, build).unwrap().unwrap();
            let mut weights = unet.weights().unwrap();
            for name in [
                "conv_in.weight",
                "down_blocks.0.resnets.0.conv1.weight",
                "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
            ] {
                let before = weights.values(name).unwrap();
                #[allow(clippy::cast_precision_loss)]
                let delta: Vec<f32> = (0..before.len()).map(|i| i as f32 * 1e-4).collect();
                weights.add(name, &delta).unwrap();
                let sums = before.iter().zip(&delta).map(|(before, delta)| before + delta);
                let kept = |sum: f32| match build {
                    GraphBuild::Cuda => half::f16::from_f32(sum).to_f32(),
                    _ => sum,
                };
                assert_eq!(weights.values(name).unwrap(), sums.map(kept).collect::<Vec<_>>(), "{name}");
            }
            assert!(weights.add("conv_in.weight", &[0.0]).unwrap_err().contains("1728 values, not 1"));
            assert!(weights.add("nothing", &[]).unwrap_err().contains("no weight nothing"));
            let _reader = std::sync::Arc::clone(weights.buffer());
            assert!(weights.add("conv_in.weight", &[0.0; 1728]).unwrap_err().contains("in use"));
        }
    }

    #[test]
    fn a_missing_shard_is_named() {
        let paths = [PathBuf::from("m-00001-of-00003.safetensors"), "m-00003-of-00003.safetensors".into()];
        assert!(check_shards(&paths).unwrap_err().contains("one of 3 files, and there are 2"));
        assert_eq!(check_shards(&[PathBuf::from("m.safetensors")]), Ok(()));
    }
}
