//! ONNX Runtime's profiles: which nodes ran where.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

const CUDA: &str = "CUDAExecutionProvider";

/// The kinds of nodes that ran, each on its device.
#[derive(Debug, Default)]
pub struct Placement {
    pub on_card: BTreeSet<String>,
    pub elsewhere: BTreeSet<String>,
}

impl Placement {
    /// Of all sessions that wrote their profiles into `folder`.
    pub fn read(folder: &Path) -> Self {
        let mut placement = Self::default();
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let events: Vec<Value> = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            let nodes = events.iter().filter(|event| {
                event["cat"] == "Node" && event["name"].as_str().unwrap().ends_with("_kernel_time")
            });
            for node in nodes {
                let kind = node["args"]["op_name"].as_str().unwrap().to_owned();
                let is_on_card = node["args"]["provider"] == CUDA;
                if is_on_card { &mut placement.on_card } else { &mut placement.elsewhere }.insert(kind);
            }
        }
        assert!(!placement.on_card.is_empty(), "nothing ran on the card");
        placement
    }
}
