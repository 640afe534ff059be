//! ONNX Runtime's profiles: which nodes ran where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

const CUDA: &str = "CUDAExecutionProvider";

/// How many nodes of each kind ran, each on its device.
#[derive(Debug, Default)]
pub struct Placement {
    pub on_card: BTreeMap<String, usize>,
    pub elsewhere: BTreeMap<String, usize>,
}

impl Placement {
    /// Of all sessions that wrote their profiles into `folder`.
    pub fn read(folder: &Path) -> Self {
        let mut placement = Self::default();
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let events: Vec<Value> = serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
            let runs = events.iter().filter(|event| {
                event["cat"] == "Node" && event["name"].as_str().unwrap().ends_with("_kernel_time")
            });
            // A node runs many times.
            let nodes: BTreeSet<_> = runs.map(Node::of).collect();
            for node in nodes {
                let kinds =
                    if node.provider == CUDA { &mut placement.on_card } else { &mut placement.elsewhere };
                *kinds.entry(node.kind.to_owned()).or_default() += 1;
            }
        }
        assert!(!placement.on_card.is_empty(), "nothing ran on the card");
        placement
    }

    /// Asserts that the card did all of it, with nothing copied between nodes.
    #[track_caller]
    pub fn assert_wholly_on_card(&self, what: &str) {
        assert!(self.elsewhere.is_empty(), "{what}: {:?} on the CPU", self.elsewhere);
        let copies = self.on_card.keys().find(|kind| kind.starts_with("Memcpy"));
        assert!(copies.is_none(), "{what}: {copies:?}");
    }
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Node<'a> {
    index: &'a str,
    kind: &'a str,
    provider: &'a str,
}

impl<'a> Node<'a> {
    fn of(event: &'a Value) -> Self {
        let text = |name: &str| event["args"][name].as_str().unwrap();
        Self { index: text("node_index"), kind: text("op_name"), provider: text("provider") }
    }
}
