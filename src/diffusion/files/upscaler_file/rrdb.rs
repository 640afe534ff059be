//! `RRDBNet`: residual blocks in residual blocks, each of five convolutions that see all before them.

use super::graph_writer::GraphWriter;
use super::{UpscalerShape, Weights};
use crate::diffusion::files::FileError;

/// Published files have 23 blocks at most.
const MOST_BLOCKS: usize = 64;
/// How much of a block's result is added to its input.
const SHARE: f32 = 0.2;
const CONVOLUTIONS: usize = 5;
const DENSE_BLOCKS: usize = 3;

/// Where its convolutions are in the file.
pub(super) struct Rrdb {
    first: String,
    /// The dense blocks' convolutions, by block, dense block and place.
    blocks: Vec<[[String; CONVOLUTIONS]; DENSE_BLOCKS]>,
    body: String,
    /// Each doubles the size.
    ups: Vec<String>,
    hr: String,
    last: String,
    unshuffle: usize,
    features: usize,
}

impl Rrdb {
    /// None if the file holds another architecture.
    pub fn find(names: &[&str], weights: &Weights) -> Result<Option<Self>, FileError> {
        let has = |module: &str| names.iter().any(|name| name.strip_suffix(".weight") == Some(module));
        let count = |block: &dyn Fn(usize) -> String| {
            (0..=MOST_BLOCKS).take_while(|index| has(&block(*index))).count()
        };
        let mut found = if has("body.0.rdb1.conv1") {
            let block =
                |block: usize, dense: usize, place: usize| format!("body.{block}.rdb{dense}.conv{place}");
            Self::of(
                "conv_first",
                count(&|index| block(index, 1, 1)),
                block,
                "conv_body",
                "conv_hr",
                "conv_last",
            )
        } else if has("RRDB_trunk.0.RDB1.conv1") {
            let block = |block: usize, dense: usize, place: usize| {
                format!("RRDB_trunk.{block}.RDB{dense}.conv{place}")
            };
            Self::of(
                "conv_first",
                count(&|index| block(index, 1, 1)),
                block,
                "trunk_conv",
                "HRconv",
                "conv_last",
            )
        } else if has("model.1.sub.0.RDB1.conv1.0") {
            let block = |block: usize, dense: usize, place: usize| {
                format!("model.1.sub.{block}.RDB{dense}.conv{place}.0")
            };
            let blocks = count(&|index| block(index, 1, 1));
            // The convolutions of a list: one for each doubling, each after the layer that doubles and before its
            // rectifier, and the last two with a rectifier between them.
            let tail: Vec<usize> = (2..32).filter(|index| has(&format!("model.{index}"))).collect();
            let [ups @ .., hr, last] = tail.as_slice() else {
                return Err(weights.wrong("model.10", "its weight is missing"));
            };
            let (hr, last) = (format!("model.{hr}"), format!("model.{last}"));
            let mut old = Self::of("model.0", blocks, block, &format!("model.1.sub.{blocks}"), &hr, &last);
            old.ups = ups.iter().map(|index| format!("model.{index}")).collect();
            old
        } else {
            return Ok(None);
        };
        if found.blocks.len() > MOST_BLOCKS {
            return Err(weights
                .wrong(&found.blocks[MOST_BLOCKS][0][0], &format!("it has more than {MOST_BLOCKS} blocks")));
        }
        if found.ups.is_empty() && !found.first.starts_with("model.") {
            let ups = ["conv_up", "upconv"]
                .into_iter()
                .flat_map(|name| (1..=3).map(move |index| format!("{name}{index}")));
            found.ups = ups.filter(|module| has(module)).collect();
        }
        let (features, inputs) = weights.convolution(&found.first)?;
        let unshuffle = match inputs {
            3 => 1,
            12 => 2,
            48 => 4,
            _ => {
                return Err(weights.wrong(
                    &found.first,
                    &format!("it takes {inputs} channels; an upscaler of colour pictures takes 3, 12 or 48"),
                ));
            }
        };
        (found.features, found.unshuffle) = (features, unshuffle);
        let (outputs, _) = weights.convolution(&found.last)?;
        if outputs != 3 {
            return Err(weights.wrong(&found.last, &format!("it gives {outputs} channels; pictures have 3")));
        }
        if !(1_usize << found.ups.len()).is_multiple_of(unshuffle) {
            return Err(weights.wrong(&found.last, "the picture would become smaller"));
        }
        Ok(Some(found))
    }

    fn of(
        first: &str,
        blocks: usize,
        block: impl Fn(usize, usize, usize) -> String,
        body: &str,
        hr: &str,
        last: &str,
    ) -> Self {
        let dense =
            |index: usize, dense: usize| std::array::from_fn(|place| block(index, dense + 1, place + 1));
        Self {
            first: first.to_owned(),
            blocks: (0..blocks).map(|index| std::array::from_fn(|at| dense(index, at))).collect(),
            body: body.to_owned(),
            ups: Vec::new(),
            hr: hr.to_owned(),
            last: last.to_owned(),
            unshuffle: 1,
            features: 0,
        }
    }

    pub fn shape(&self) -> UpscalerShape {
        UpscalerShape {
            scale: (1_usize << self.ups.len()) / self.unshuffle,
            unshuffle: self.unshuffle,
            features: self.features,
        }
    }

    pub fn write(&self, graph: &mut GraphWriter, x: &str, weights: &Weights) -> Result<String, FileError> {
        let first = graph.convolution(x, &self.first, weights)?;
        let mut feature = first.clone();
        for block in &self.blocks {
            let start = feature.clone();
            for dense in block {
                feature = dense_block(graph, &feature, dense, weights)?;
            }
            feature = graph.add_share(&feature, SHARE, &start);
        }
        let body = graph.convolution(&feature, &self.body, weights)?;
        feature = graph.add(&body, &first);
        for up in &self.ups {
            let doubled = graph.nearest(&feature, 2.0);
            let doubled = graph.convolution(&doubled, up, weights)?;
            feature = graph.leaky(&doubled);
        }
        let hr = graph.convolution(&feature, &self.hr, weights)?;
        let hr = graph.leaky(&hr);
        graph.convolution(&hr, &self.last, weights)
    }
}

fn dense_block(
    graph: &mut GraphWriter,
    x: &str,
    modules: &[String; CONVOLUTIONS],
    weights: &Weights,
) -> Result<String, FileError> {
    let mut seen = vec![x.to_owned()];
    let (last, others) = modules.split_last().expect("five convolutions");
    for module in others {
        let all = joined(graph, &seen);
        let convolved = graph.convolution(&all, module, weights)?;
        seen.push(graph.leaky(&convolved));
    }
    let all = joined(graph, &seen);
    let result = graph.convolution(&all, last, weights)?;
    Ok(graph.add_share(&result, SHARE, x))
}

fn joined(graph: &mut GraphWriter, values: &[String]) -> String {
    match values {
        [only] => only.clone(),
        all => graph.concat(&all.iter().map(String::as_str).collect::<Vec<_>>()),
    }
}
