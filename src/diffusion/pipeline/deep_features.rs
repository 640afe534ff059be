//! Which calls of a generation run the whole UNet, and what the others take from them (`cache_interval`).
//!
//! Every N-th call of a pass is whole, from its first one. What it computes deep in the UNet is kept for each of its rows, and
//! the calls up to the next whole one run the outer layers alone (DeepCache, Ma et al. 2023, arXiv 2312.00858, with uniform
//! intervals). Calls are counted, not steps: a sampler of second order makes two calls a step.

use std::collections::BTreeMap;

use ndarray::{Array3, Array4, ArrayView3, Axis};

use super::Generation;
use crate::diffusion::nets::ModelError;
use crate::domain::ModelPart;

/// How much of the UNet a call runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    Whole,
    /// The outer layers, with the deep features of the last whole call.
    Outer,
}

impl Depth {
    pub const ALL: [Self; 2] = [Self::Whole, Self::Outer];
}

/// What a row of a call shows the UNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Row {
    /// This part of the prompt.
    Positive(usize),
    /// The negative prompt.
    Negative,
    /// The negative prompt, and no picture to change.
    Blind,
}

/// A row of a generation's calls: the number of the image, and what is shown.
pub(super) type RowOfImage = (usize, Row);

/// The deep features of one generation.
pub(super) struct DeepFeatures {
    /// Every such call is whole.
    interval: usize,
    /// Of the last whole call, `[features, height, width]` for each row.
    rows: BTreeMap<RowOfImage, Array3<f32>>,
    /// Where the generation was before that call: what is saved until the next one, so that a job that goes on begins with a
    /// whole call, as it did without a break.
    pub place: Option<Vec<u8>>,
}

impl DeepFeatures {
    /// An interval of 1 keeps none.
    pub fn every(interval: u32) -> Self {
        Self { interval: interval.max(1) as usize, rows: BTreeMap::new(), place: None }
    }

    /// Of a call, counted from 0 in each pass.
    fn depth(&self, call: usize) -> Depth {
        if call.is_multiple_of(self.interval) { Depth::Whole } else { Depth::Outer }
    }

    pub fn keep(&mut self, row: RowOfImage, feature: &ArrayView3<f32>) {
        self.rows.insert(row, feature.to_owned());
    }
}

impl Generation {
    /// Of the next call.
    pub(super) fn depth(&self) -> Depth {
        // What was saved by another hand may begin anywhere.
        if self.deep.rows.is_empty() { Depth::Whole } else { self.deep.depth(self.place().0) }
    }

    /// Whether no call of this depth follows the next call.
    pub(super) fn is_at_last_call_of(&self, depth: Depth) -> bool {
        let (next, calls) = self.place();
        self.is_done() || (next + 1..calls).all(|call| self.deep.depth(call) != depth)
    }

    /// Whether the next call is a whole one, and the call after it is not.
    pub(super) fn keeps_deep_features(&self) -> bool {
        let (next, calls) = self.place();
        self.depth() == Depth::Whole && next + 1 < calls && self.deep.depth(next + 1) == Depth::Outer
    }

    /// Notes what is saved until the next whole call.
    pub(super) fn note_place(&mut self) {
        let is_new = self.first.is_none() && self.place().0 == 0;
        if self.deep.interval > 1 && self.depth() == Depth::Whole {
            self.deep.place = (!is_new).then(|| self.place_bytes());
        }
    }

    /// Drops the features that no call will take.
    pub(super) fn drop_deep_features(&mut self) {
        let (next, calls) = self.place();
        if next >= calls || self.deep.depth(next) == Depth::Whole {
            self.deep.rows.clear();
        }
    }
}

/// The deep features of a call's rows, `[rows, features, height, width]`. Each row is of one generation of the batch.
pub(super) fn deep_features(
    rows: &[(usize, RowOfImage)],
    batch: &[&mut Generation],
) -> Result<Array4<f32>, ModelError> {
    let failed = |reason: String| ModelError::Run { part: ModelPart::UNet, reason };
    let feature = |(generation, row): &(usize, RowOfImage)| {
        let kept = batch[*generation].deep.rows.get(row).map(|feature| feature.view());
        kept.ok_or_else(|| failed(format!("there is no deep feature for {row:?}")))
    };
    let features = rows.iter().map(feature).collect::<Result<Vec<_>, _>>()?;
    ndarray::stack(Axis(0), &features).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nth_call_is_whole_from_the_first_one() {
        let whole = |interval, calls: usize| {
            let deep = DeepFeatures::every(interval);
            (0..calls).filter(|call| deep.depth(*call) == Depth::Whole).collect::<Vec<_>>()
        };
        assert_eq!(whole(1, 4), [0, 1, 2, 3]);
        assert_eq!(whole(3, 8), [0, 3, 6]);
        assert_eq!(whole(20, 8), [0]);
    }
}
