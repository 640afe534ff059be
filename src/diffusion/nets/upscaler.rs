//! An upscaler model as a session: tiles of pixels to tiles of more pixels.

mod tiles;

use std::path::Path;

use ndarray::{Array4, s};
use ort::session::{RunOptions, Session};
use ort::value::Tensor;

pub use self::tiles::{Tile, tiles};
use super::ModelError;
use super::card_turn::{self, OnTurn};
use crate::diffusion::files::{FileError, UpscalerFile, UpscalerShape};
use crate::diffusion::image::RgbImage;
use crate::runtime::{self, GraphSource, OnCard, Runtime, take_cores};

/// Maps at the output's size that a run holds at once: a layer's input, its result, and one of them reordered.
const LARGE_MAPS: u64 = 3;
/// The same at the input's size: a dense block's input with all that its convolutions have made.
const SMALL_MAPS: u64 = 8;

/// A loaded upscaler.
pub struct UpscalerNet {
    name: String,
    session: OnTurn<Session>,
    giving_back: Option<RunOptions>,
    is_on_card: bool,
    /// Of the processor that a run takes. None on a card.
    threads: Option<usize>,
    shape: UpscalerShape,
}

impl UpscalerNet {
    /// Loads the file at `path`, which people know as `name`.
    pub fn load(name: &str, path: &Path, runtime: &Runtime) -> Result<Self, ModelError> {
        Self::new(name, &UpscalerFile::open(path)?, runtime)
    }

    fn new(name: &str, file: &UpscalerFile, runtime: &Runtime) -> Result<Self, ModelError> {
        let is_on_card = !runtime.device().is_cpu();
        let graph = file.graph(is_on_card)?;
        let session = {
            let _turn = is_on_card.then(card_turn::shared);
            runtime.session_on_card(GraphSource::Memory(&graph), OnCard::default())?
        };
        let giving_back = match is_on_card {
            true => None,
            false => Some(giving_back().map_err(|error| failed(name, &error))?),
        };
        Ok(Self {
            name: name.to_owned(),
            session: OnTurn::new(session, is_on_card),
            giving_back,
            is_on_card,
            threads: (!is_on_card).then_some(runtime.threads()),
            shape: file.shape(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many times as wide and high a picture becomes.
    pub fn scale(&self) -> usize {
        self.shape.scale
    }

    /// Enlarges one tile of `picture`, and writes its middle into `canvas`, the enlarged picture.
    pub fn enlarge(
        &mut self,
        tile: &Tile,
        picture: &RgbImage,
        canvas: &mut RgbImage,
    ) -> Result<(), ModelError> {
        let scale = self.shape.scale;
        let pixels = tile.read(picture, self.shape.unshuffle);
        let enlarged = self.run(pixels)?;
        let (_, channels, height, width) = enlarged.dim();
        if channels != 3 || height < tile.height() * scale || width < tile.width() * scale {
            let reason = format!("it returned a tile of {:?}", enlarged.shape());
            return Err(FileError::Unreadable { file: self.name.clone(), reason }.into());
        }
        tile.write(enlarged.slice(s![0, .., .., ..]), scale, canvas);
        Ok(())
    }

    /// `[1, 3, h, w]` of 0…1, whose sides are multiples of the factor that it unshuffles by, to `[1, 3, H, W]`.
    fn run(&mut self, pixels: Array4<f32>) -> Result<Array4<f32>, ModelError> {
        let name = self.name.clone();
        let failed = |error: ort::Error| failed(&name, &error);
        let x = Tensor::from_array(unshuffled(pixels, self.shape.unshuffle)).map_err(failed)?;
        let _turn = self.is_on_card.then(card_turn::shared);
        let _cores = self.threads.map(take_cores);
        let outputs = match &self.giving_back {
            Some(options) => self.session.run_with_options(ort::inputs!["x" => x], options),
            None => self.session.run(ort::inputs!["x" => x]),
        };
        let outputs = outputs.map_err(failed)?;
        let enlarged = outputs["y"].try_extract_array::<f32>().map_err(failed)?.to_owned();
        let shape = enlarged.shape().to_vec();
        enlarged.into_dimensionality().map_err(|_| {
            let reason = format!("it returned a tensor of shape {shape:?}");
            FileError::Unreadable { file: self.name.clone(), reason }.into()
        })
    }
}

/// The bytes that an upscaler holds while it is loaded, and those of a run besides. Estimates.
pub fn upscaler_memory(file: &UpscalerFile, is_on_card: bool) -> (u64, u64) {
    let shape = file.shape();
    let (weights, value) = (file.weight_bytes(value_bytes(is_on_card)), value_bytes(is_on_card));
    let small = tiles::largest().pow(2) / (shape.unshuffle as u64).pow(2);
    let large = tiles::largest().pow(2) * (shape.scale as u64).pow(2);
    let maps = large * LARGE_MAPS + small * SMALL_MAPS;
    // A session on a CPU reorders its weights into a second copy while it is made.
    (weights * if is_on_card { 1 } else { 2 }, maps * shape.features as u64 * value)
}

fn value_bytes(is_on_card: bool) -> u64 {
    if is_on_card { 2 } else { 4 }
}

fn giving_back() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    Ok(options)
}

fn failed(name: &str, error: &ort::Error) -> ModelError {
    ModelError::Upscaler { name: name.to_owned(), reason: runtime::reason(error) }
}

/// torch's `pixel_unshuffle`.
fn unshuffled(pixels: Array4<f32>, by: usize) -> Array4<f32> {
    if by == 1 {
        return pixels;
    }
    let (images, channels, height, width) = pixels.dim();
    Array4::from_shape_fn((images, channels * by * by, height / by, width / by), |(n, channel, y, x)| {
        let (color, place) = (channel / (by * by), channel % (by * by));
        pixels[[n, color, y * by + place / by, x * by + place % by]]
    })
}

#[cfg(test)]
mod tests;
