//! What an operator lays beside a model: folders of LoRAs and of textual inversions.
//!
//! Only models whose weights are loaded into their graphs here take them; in an ONNX folder the weights are part of the
//! graphs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::description::ModelDescription;
use super::prompt_check::ChunkCheck;
use crate::diffusion::files::{EmbeddingFolder, LoraFolder, ModelFolder};
use crate::diffusion::nets::ModelError;
use crate::domain::InputRules;

/// Where they are, and what they may cost.
#[derive(Debug, Clone)]
pub struct AddOnFolders {
    pub loras: PathBuf,
    pub embeddings: PathBuf,
    /// In bytes, what one pipeline keeps in parts of the model with LoRAs merged in.
    pub lora_memory: u64,
    /// How old the knowledge of what lies in the folders may be.
    pub look_every: Duration,
}

/// The add-ons of one model; one serves all its pipelines.
#[derive(Debug, Clone)]
pub struct AddOns {
    pub(super) loras: Arc<LoraFolder>,
    pub(super) embeddings: Arc<EmbeddingFolder>,
    pub(super) lora_memory: u64,
}

const TOKEN_EMBEDDING: &str = "text_model.embeddings.token_embedding.weight";

impl AddOns {
    /// None where the model takes none.
    pub fn new(
        model: &ModelFolder,
        description: &ModelDescription,
        folders: AddOnFolders,
    ) -> Result<Option<Self>, ModelError> {
        let Some(parameters) = model.parameters()? else { return Ok(None) };
        let table = parameters.iter().find(|target| target.weight == TOKEN_EMBEDDING);
        let Some(width) = table.and_then(|table| table.shape.get(1).copied()) else { return Ok(None) };
        let (tokenizer, look_every) = (Arc::clone(&description.tokenizer), folders.look_every);
        Ok(Some(Self {
            loras: Arc::new(LoraFolder::new(folders.loras, look_every)),
            embeddings: Arc::new(EmbeddingFolder::new(folders.embeddings, look_every, tokenizer, width)),
            lora_memory: folders.lora_memory,
        }))
    }

    /// What the model can be asked for with them.
    pub fn rules(&self, description: &ModelDescription) -> InputRules {
        let tokenizer = Arc::clone(&description.tokenizer);
        InputRules {
            loras: Some(Arc::clone(&self.loras) as _),
            prompts: Some(Arc::new(ChunkCheck::new(tokenizer, Some(Arc::clone(&self.embeddings))))),
            ..description.rules.clone()
        }
    }
}
