//! CLIP's text encoder: token ids in, one embedding a token out.

use std::time::Duration;

use ndarray::Array3;

use super::session::{Graph, Port, ids, ranked};
use super::{ModelError, ModelFolder, Tokens};
use crate::runtime::Runtime;

pub struct TextEncoder {
    graph: Graph,
    input_ids: Port,
    /// The graph's first sequence output: CLIP's last hidden state, by every exporter's order.
    last_hidden_state: Port,
}

impl TextEncoder {
    pub fn load(folder: &ModelFolder, runtime: &Runtime) -> Result<Self, ModelError> {
        let graph = Graph::load(folder, "text_encoder", runtime)?;
        let input_ids = graph.input("token ids", |port| port.is_integer() && port.rank() == 2)?;
        graph.only(&[&input_ids])?;
        let last_hidden_state = graph.output("hidden state", 3)?;
        Ok(Self { graph, input_ids, last_hidden_state })
    }

    /// A prompt's embedding `[1, tokens, dim]`. Prompts are encoded one by one, so that what one gets
    /// does not depend on its company (and graphs with a fixed batch of one work too).
    pub fn encode(&mut self, tokens: &Tokens) -> Result<Array3<f32>, ModelError> {
        let value = ids(&self.input_ids, &[1, tokens.ids.len()], tokens.ids.iter().copied())?;
        let hidden = self.graph.run(vec![(&self.input_ids.name, value)], &self.last_hidden_state)?;
        ranked("text_encoder", hidden)
    }

    /// The width of its embeddings, where the graph states it.
    pub fn width(&self) -> Option<i64> {
        self.last_hidden_state.fixed(2)
    }

    /// Refuses a tokenizer whose window is not the one that the graph was exported for.
    pub fn check_window(&self, window: usize) -> Result<(), ModelError> {
        match self.input_ids.fixed(1) {
            Some(tokens) if usize::try_from(tokens) != Ok(window) => Err(self
                .graph
                .refuse(format!("it reads {tokens} tokens, and the tokenizer's window has {window}"))),
            _ => Ok(()),
        }
    }

    pub fn time_in_run(&self) -> Duration {
        self.graph.time_in_run()
    }
}
