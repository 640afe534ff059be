//! `SRVGGNetCompact`: convolutions in a row, and the enlarged input added to their result.

use super::graph_writer::GraphWriter;
use super::{UpscalerShape, Weights};
use crate::diffusion::files::FileError;

/// Published files have 34 convolutions at most.
const MOST_CONVOLUTIONS: usize = 128;

pub(super) struct Compact {
    convolutions: usize,
    features: usize,
    scale: usize,
}

impl Compact {
    /// None if the file holds another architecture.
    pub fn find(names: &[&str], weights: &Weights) -> Result<Option<Self>, FileError> {
        let has = |name: &str| names.contains(&name);
        // A convolution and its rectifier follow each other; the last convolution has none.
        if !has("body.0.weight")
            || !has("body.1.weight")
            || weights.shape("body.1.weight").is_none_or(|shape| shape.len() != 1)
        {
            return Ok(None);
        }
        let convolutions =
            (0..MOST_CONVOLUTIONS).take_while(|index| has(&format!("body.{}.bias", 2 * index))).count();
        let (features, inputs) = weights.convolution("body.0")?;
        let last = format!("body.{}", 2 * convolutions.saturating_sub(1));
        let (outputs, _) = weights.convolution(&last)?;
        let scale = (1..=8).find(|scale| 3 * scale * scale == outputs);
        match scale {
            Some(scale) if inputs == 3 => Ok(Some(Self { convolutions, features, scale })),
            _ => Err(weights.wrong(
                &last,
                &format!("it gives {outputs} channels of {inputs}; three for each new pixel are expected"),
            )),
        }
    }

    pub fn shape(&self) -> UpscalerShape {
        UpscalerShape { scale: self.scale, unshuffle: 1, features: self.features }
    }

    pub fn write(&self, graph: &mut GraphWriter, x: &str, weights: &Weights) -> Result<String, FileError> {
        let mut value = x.to_owned();
        for index in 0..self.convolutions {
            value = graph.convolution(&value, &format!("body.{}", 2 * index), weights)?;
            if index + 1 < self.convolutions {
                value = graph.prelu(&value, &format!("body.{}", 2 * index + 1), self.features, weights)?;
            }
        }
        let shuffled = graph.pixel_shuffle(&value, self.scale);
        #[expect(clippy::cast_precision_loss, reason = "8 at most")]
        let enlarged = graph.nearest(x, self.scale as f32);
        Ok(graph.add(&shuffled, &enlarged))
    }
}
