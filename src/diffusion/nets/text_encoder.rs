//! CLIP's text encoder: from token ids to an embedding for each token.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ndarray::{Array2, Array3, Axis, concatenate};

use super::ModelError;
use super::hidden_layers::HiddenLayers;
use super::port::Port;
use super::session::{PartSession, ids, ranked, tensor};
use crate::diffusion::text::Tokens;
use crate::domain::ModelPart;

pub struct TextEncoder {
    session: PartSession,
    input_ids: Port,
    /// Embeddings beyond the vocabulary. Only our own graphs have this input.
    extra_embeddings: Option<Port>,
    /// The graph's first sequence output. Every exporter puts CLIP's last hidden state first.
    last_hidden_state: Port,
    /// The layers before the last, if the graph outputs them.
    hidden_layers: Option<HiddenLayers>,
    vocabulary: Vocabulary,
}

/// The tokens that a text encoder has embeddings for.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary {
    /// How many its graph has; 0 where that is not known.
    pub known: u32,
    /// The embeddings of tokens that were added behind these, `[rows, dim]`.
    pub added: Option<Arc<Array2<f32>>>,
}

impl Vocabulary {
    /// The number of tokens; 0 where that is not known.
    fn len(&self) -> u32 {
        let added = self.added.as_ref().map_or(0, |rows| rows.nrows());
        self.known.saturating_add(u32::try_from(added).unwrap_or(u32::MAX))
    }

    /// The model's own rows, and behind them those that were learned: what ids from `known` on mean.
    fn extra_rows<'a>(
        &self,
        learned: Option<&'a Array2<f32>>,
    ) -> Result<Option<Cow<'a, Array2<f32>>>, ModelError> {
        Ok(match (&self.added, learned) {
            (None, learned) => learned.map(Cow::Borrowed),
            (Some(added), None) => Some(Cow::Owned((**added).clone())),
            (Some(added), Some(learned)) => {
                let both = concatenate(Axis(0), &[added.view(), learned.view()]);
                let failed = |error: ndarray::ShapeError| ModelError::Run {
                    part: ModelPart::TextEncoder,
                    reason: error.to_string(),
                };
                Some(Cow::Owned(both.map_err(failed)?))
            }
        })
    }
}

impl TextEncoder {
    pub fn new(
        session: PartSession,
        hidden_layers: Option<HiddenLayers>,
        vocabulary: Vocabulary,
    ) -> Result<Self, ModelError> {
        let input_ids = session.input("token ids", |port| port.is_integer() && port.rank() == 2)?;
        let extra_embeddings = session.input("extra embeddings", |port| port.name == "extra_embeddings").ok();
        let known: Vec<_> = [Some(&input_ids), extra_embeddings.as_ref()].into_iter().flatten().collect();
        session.only(&known)?;
        let last_hidden_state = session.output("hidden state", 3)?;
        Ok(Self { session, input_ids, extra_embeddings, last_hidden_state, hidden_layers, vocabulary })
    }

    /// A prompt's embedding `[1, tokens, dim]`, from the layer that `clip_skip` counts back to; 1 is the last.
    /// Prompts are encoded one at a time, so that the result does not depend on other prompts, and graphs with a fixed
    /// batch of one work too. Ids beyond the vocabulary are rows of `learned`, `[rows, dim]`.
    pub fn encode(
        &mut self,
        tokens: &Tokens,
        clip_skip: u32,
        learned: Option<&Array2<f32>>,
    ) -> Result<Array3<f32>, ModelError> {
        let value = ids(&self.input_ids, &[1, tokens.ids.len()], tokens.ids.iter().copied())?;
        let mut inputs = vec![(self.input_ids.name.as_str(), value)];
        if let Some(port) = &self.extra_embeddings {
            let width = usize::try_from(port.fixed(1).unwrap_or(1)).unwrap_or(1);
            let none = Array2::zeros((1, width));
            let rows = self.vocabulary.extra_rows(learned)?;
            inputs.push((port.name.as_str(), tensor(port, rows.as_deref().unwrap_or(&none))?));
        }
        let layers = self.hidden_layers.as_ref();
        if clip_skip > layers.map_or(1, HiddenLayers::max_clip_skip) {
            return Err(self.session.refuse(format!("it has no layer for clip_skip {clip_skip}")));
        }
        let inner = layers.and_then(|layers| Some((layers, layers.output_for(clip_skip)?)));
        let Some((layers, output)) = inner else {
            return ranked(ModelPart::TextEncoder, self.session.run(inputs, &self.last_hidden_state)?);
        };
        let output = self.session.output_named(&output)?;
        layers.finish(ranked(ModelPart::TextEncoder, self.session.run(inputs, &output)?)?)
    }

    /// The number of tokens for which the model has embeddings. 0 means unknown.
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary.len()
    }

    /// The width of its embeddings, if the graph states it.
    pub fn width(&self) -> Option<i64> {
        self.last_hidden_state.fixed(2)
    }

    /// Fails if the graph was exported for another window than the tokenizer's.
    pub fn check_window(&self, window: usize) -> Result<(), ModelError> {
        match self.input_ids.fixed(1) {
            Some(tokens) if usize::try_from(tokens) != Ok(window) => Err(self
                .session
                .refuse(format!("it reads {tokens} tokens, but the tokenizer's window has {window}"))),
            _ => Ok(()),
        }
    }

    pub fn time_in_run(&self) -> Duration {
        self.session.time_in_run()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::Value;

    use super::*;
    use crate::diffusion::files::{ModelFiles, PartFiles};
    use crate::diffusion::text::tiny_sd_tokenizer;
    use crate::runtime::{DeviceChoice, Runtime};

    const GOLDEN: &str = include_str!("../../../tests/golden/embedding.json");
    const TINY_SD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny-sd-onnx");

    /// The default model's text encoder with an output for every layer, as optimum exports it. Two concatenated protobuf
    /// messages are one message with the fields of both, so the outputs are appended.
    fn with_hidden_states(folder: &Path) {
        let layers =
            ["embeddings/Add", "encoder/layers.0/Add_1", "encoder/layers.1/Add_1", "encoder/layers.2/Add_1"];
        let mut graph = fs::read(format!("{TINY_SD}/text_encoder/model.onnx")).unwrap();
        let field = |number: u8, bytes: &[u8]| {
            let mut field = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
            field.extend_from_slice(bytes);
            field
        };
        for (layer, tensor) in layers.iter().enumerate() {
            let (source, name) = (format!("/m/{tensor}_output_0"), format!("hidden_states.{layer}"));
            // NodeProto: input, output, op_type; ValueInfoProto: name, and a type that says f32.
            let node =
                [field(1, source.as_bytes()), field(2, name.as_bytes()), field(4, b"Identity")].concat();
            let value = [field(1, name.as_bytes()), field(2, &field(1, &[8, 1]))].concat();
            graph.extend(field(7, &field(1, &node)));
            graph.extend(field(7, &field(12, &value)));
        }
        fs::create_dir(folder.join("text_encoder")).unwrap();
        fs::write(folder.join("text_encoder/model.onnx"), graph).unwrap();
    }

    #[test]
    fn clip_skip_chooses_a_layer_and_norms_it_as_the_reference_does() {
        let folder = tempfile::tempdir().unwrap();
        with_hidden_states(folder.path());
        encodes_as_the_golden(&exported(folder.path()));
        encodes_as_the_golden(&built_in());
    }

    fn exported(model: &Path) -> PartFiles {
        PartFiles::from_onnx(ModelPart::TextEncoder, &model.join("text_encoder")).unwrap()
    }

    fn built_in() -> PartFiles {
        ModelFiles::open(None).unwrap().0.part(ModelPart::TextEncoder).unwrap().clone()
    }

    fn load(files: &PartFiles) -> TextEncoder {
        let session = PartSession::load(files, &Runtime::load(DeviceChoice::Cpu).unwrap()).unwrap();
        TextEncoder::new(session, HiddenLayers::find(files).unwrap(), Vocabulary::default()).unwrap()
    }

    fn encodes_as_the_golden(files: &PartFiles) {
        let mut encoder = load(files);
        let tokenizer = tiny_sd_tokenizer();
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        for case in golden["clip_skip"].as_array().unwrap() {
            let tokens = tokenizer.encode(case["prompt"].as_str().unwrap()).unwrap();
            for (clip_skip, expected) in (1..).zip(case["values"].as_array().unwrap()) {
                let embedding = encoder.encode(&tokens, clip_skip, None).unwrap();
                for (value, expected) in embedding.iter().step_by(41).zip(expected.as_array().unwrap()) {
                    let apart = f64::from(*value) - expected.as_f64().unwrap();
                    assert!(apart.abs() < 1e-5, "clip_skip {clip_skip}: {value} is not {expected}");
                }
            }
            assert!(encoder.encode(&tokens, 4, None).is_err(), "the embeddings are no layer");
        }
    }

    #[test]
    fn the_norm_of_the_last_layer_is_the_model_s_own() {
        let folder = tempfile::tempdir().unwrap();
        with_hidden_states(folder.path());
        let files = exported(folder.path());
        let layers = HiddenLayers::find(&files).unwrap().unwrap();
        assert_eq!((layers.max_clip_skip(), layers.output_for(2).as_deref()), (3, Some("hidden_states.2")));
        let mut encoder = load(&files);
        let tokens = tiny_sd_tokenizer().encode("a red fox").unwrap();
        let last = encoder.encode(&tokens, 1, None).unwrap();
        let raw = encoder.session.output_named("hidden_states.3").unwrap();
        let value = ids(&encoder.input_ids, &[1, 77], tokens.ids.iter().copied()).unwrap();
        let raw = encoder.session.run(vec![(encoder.input_ids.name.as_str(), value)], &raw).unwrap();
        let normed = layers.finish(ranked(ModelPart::TextEncoder, raw).unwrap()).unwrap();
        assert!(last.iter().zip(&normed).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn the_default_model_has_all_layers_and_a_plain_export_only_the_last() {
        assert_eq!(HiddenLayers::find(&built_in()).unwrap().unwrap().max_clip_skip(), 3);
        assert!(HiddenLayers::find(&exported(Path::new(TINY_SD))).unwrap().is_none());
    }
}
