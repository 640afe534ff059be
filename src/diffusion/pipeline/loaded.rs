//! A model whose sessions are made and not yet checked against each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Pipeline;
use super::adapted::AdaptedModels;
use super::batching::Batching;
use super::checking::Checking;
use super::controlnets::ControlNets;
use super::model::Model;
use super::precision::without_int8;
use super::prompt_encoder::PromptEncoder;
use super::tiny_decoding::TinyDecoding;
use super::upscalers::Upscalers;
use super::vae::{Decoding, Encoding};
use super::working::Kept;
use crate::diffusion::files::{GraphBuild, PartFiles, UNetConfig};
use crate::diffusion::nets::{
    ModelError, PartSession, Port, SafetyChecker, TextEncoder, UNet, VaeDecoder, VaeEncoder, best_build,
};
use crate::domain::ModelPart;
use crate::runtime::{CpuSettings, CpuSpeed, Runtime};

/// The sessions of every part that the model has.
pub struct LoadedModel {
    model: Model,
    runtime: Runtime,
    sessions: BTreeMap<ModelPart, PartSession>,
}

/// One part as its files and its graph declare it.
#[derive(Debug, Clone)]
pub struct PartReport {
    pub part: ModelPart,
    /// The graph and its weights, each with its size in bytes.
    pub files: Vec<(String, u64)>,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
}

impl LoadedModel {
    /// Loads the parts that `wants` holds for. The safety checker can be loaded later.
    pub(super) fn load(
        model: Model,
        runtime: Runtime,
        wants: impl Fn(ModelPart) -> bool,
    ) -> Result<Self, ModelError> {
        let runtime = match runtime.cpu().speed {
            CpuSpeed::Auto if model.memory_needs(runtime.device())?.is_small() => {
                let cpu = CpuSettings { speed: CpuSpeed::Memory, ..runtime.cpu() };
                runtime.with_cpu(cpu)
            }
            _ => runtime,
        };
        let load = |files: &PartFiles| Ok((files.part(), PartSession::load(files, &runtime)?));
        let wanted = model.files.parts().filter(|files| wants(files.part()));
        let sessions = wanted.map(load).collect::<Result<_, ModelError>>()?;
        Ok(Self { model, runtime, sessions })
    }

    /// What each part is made of.
    pub fn parts(&self) -> Vec<PartReport> {
        let files = |part| self.model.files.part(part).map(PartFiles::list).unwrap_or_default();
        let report = |(part, session): (&ModelPart, &PartSession)| PartReport {
            part: *part,
            files: files(*part),
            inputs: session.inputs().to_vec(),
            outputs: session.outputs().to_vec(),
        };
        self.sessions.iter().map(report).collect()
    }

    /// Puts the parts together. Fails where they are not of one Stable Diffusion v1 model.
    pub fn into_pipeline(self) -> Result<Pipeline, ModelError> {
        let Self { model, runtime, mut sessions } = self;
        let vae = &model.files.configs.vae;
        let mut take = |part| {
            sessions
                .remove(&part)
                .ok_or_else(|| ModelError::Graph { part, reason: "it is missing".to_owned() })
        };
        let (hidden_layers, vocabulary) = (model.hidden_layers.clone(), model.vocabulary.clone());
        let text_encoder = TextEncoder::new(take(ModelPart::TextEncoder)?, hidden_layers, vocabulary)?;
        let unet = UNet::new(take(ModelPart::UNet)?, &runtime)?
            .with_channels(model.files.configs.unet.as_ref().and_then(UNetConfig::channels));
        let has_encoder = model.files.part(ModelPart::VaeEncoder).is_some();
        let purpose = match (unet.is_inpainting(), unet.edits_images()) {
            (true, _) => Some("inpainting"),
            (_, true) => Some("changing pictures (InstructPix2Pix)"),
            (false, false) => None,
        };
        if let Some(purpose) = purpose.filter(|_| !has_encoder) {
            return Err(ModelError::Graph {
                part: ModelPart::UNet,
                reason: format!("it is one for {purpose}, which needs a vae_encoder beside it"),
            });
        }
        if unet.edits_images() != model.rules().edits_images {
            return Err(ModelError::Graph {
                part: ModelPart::UNet,
                reason: format!(
                    "it takes {0} channels, but its unet/config.json does not say so: set in_channels to {0} there",
                    unet.in_channels()
                ),
            });
        }
        text_encoder.check_window(model.tokenizer.window())?;
        unet.check_text_encoder(&text_encoder)?;
        let vae_decoder = VaeDecoder::new(take(ModelPart::VaeDecoder)?, vae)?;
        let vae_encoder =
            take(ModelPart::VaeEncoder).ok().map(|session| VaeEncoder::new(session, vae)).transpose()?;
        let safety_checker = take(ModelPart::SafetyChecker).ok().map(SafetyChecker::new).transpose()?;
        let mut prompts = PromptEncoder::new(Arc::clone(&model.tokenizer), text_encoder, unet.tokens_read());
        if unet.embeds_guidance() {
            prompts.without_negatives();
        }
        let adapted = model.add_ons.as_ref().map(|add_ons| {
            prompts.learn_from(Arc::clone(&add_ons.textual_inversions));
            AdaptedModels::new(model.clone(), runtime.clone(), add_ons)
        });
        let controlnets =
            model.add_ons.as_ref().map(|add_ons| ControlNets::new(model.clone(), runtime.clone(), add_ons));
        let build = best_build(&runtime);
        Ok(Pipeline {
            prompts,
            unet,
            tiny: TinyDecoding::new(&model, &runtime),
            decoding: Decoding::new(vae_decoder, &model, &runtime),
            encoding: vae_encoder.map(|encoder| Encoding::new(encoder, &model, &runtime)),
            checking: Checking::new(&model, &runtime, safety_checker),
            memory_needs: model
                .memory_needs(runtime.device())?
                .with_own_convolutions(matches!(build, GraphBuild::Winograd { .. }), runtime.threads()),
            kept: Kept::default(),
            adapted,
            controlnets,
            upscalers: Upscalers::new(model.upscalers.clone(), &runtime),
            batching: Batching::usual(runtime.device()),
            device: runtime.device().clone(),
            build,
            threads: runtime.threads(),
            without_int8: without_int8(runtime.device()),
            model,
        })
    }
}
