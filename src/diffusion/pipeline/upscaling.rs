//! A picture that is enlarged, and not drawn: begin, step, finish, as for drawing. A step is a tile.

use serde_json::json;

use super::enlarging::Enlarging;
use super::upscalers::Upscalers;
use super::{DiffusionError, Picture, Pipeline};
use crate::diffusion::image::{PictureFile, PictureTexts, RgbImage, decode_image};
use crate::domain::{Enlarged, GenerationInput, ImageSource, Target, UPSCALE_GRID, Upscale, Upscaler};
use crate::runtime::is_out_of_memory;

/// Made by [`Upscalers::begin`].
pub struct Upscaling {
    upscale: Upscale,
    enlarging: Enlarging,
    /// Why it could not be enlarged. It is done then.
    fault: Option<String>,
    /// Whether all of it is made.
    is_made: bool,
    /// Steps done, and in all: one more than the tiles, and the last one only looks.
    done: u32,
    steps: u32,
}

impl Upscalers {
    /// Begins to enlarge a picture. Loads the model that is asked for.
    pub fn begin(&mut self, picture: RgbImage, upscale: &Upscale) -> Result<Upscaling, DiffusionError> {
        let target =
            upscale.enlarged.target(picture.size(), UPSCALE_GRID).map_err(DiffusionError::Upscaling)?;
        let tiles = match &upscale.upscaler {
            Upscaler::Model(name) => {
                Enlarging::tiles(picture.size(), target, self.look_at(name)?.scale, name)?
            }
            _ => 0,
        };
        let enlarging = self.enlarging(picture, target, &upscale.upscaler)?;
        Ok(Upscaling {
            upscale: upscale.clone(),
            enlarging,
            fault: None,
            is_made: false,
            done: 0,
            steps: tiles + 1,
        })
    }

    /// A picture on its way to `target`.
    pub(super) fn enlarging(
        &mut self,
        picture: RgbImage,
        target: Target,
        upscaler: &Upscaler,
    ) -> Result<Enlarging, DiffusionError> {
        match upscaler {
            Upscaler::Model(name) => Enlarging::by_model(picture, target, self.get(name)?),
            Upscaler::Pixels(mode) => Ok(Enlarging::by_pixels(picture, target, *mode)),
            Upscaler::Latent(_) => Err(DiffusionError::Upscaling("A picture has no latents.".to_owned())),
        }
    }
}

impl Pipeline {
    /// Begins the job that `input` asks for, if that is to enlarge a picture.
    pub fn begin_upscaling(&mut self, input: &GenerationInput) -> Result<Option<Upscaling>, DiffusionError> {
        let Some(upscale) = &input.upscale else { return Ok(None) };
        let Some(ImageSource::Bytes(bytes)) = &input.init_image else {
            return Err(DiffusionError::Upscaling("The picture to enlarge is missing.".to_owned()));
        };
        self.upscalers.begin(decode_image(bytes)?, upscale).map(Some)
    }
}

impl Upscaling {
    pub fn is_done(&self) -> bool {
        self.is_made || self.fault.is_some()
    }

    /// The steps done, and all of them.
    pub fn progress(&self) -> (u32, u32) {
        (if self.is_done() { self.steps } else { self.done.min(self.steps - 1) }, self.steps)
    }

    /// Enlarges one tile. Fails for a lack of memory only, and has changed nothing then: other errors are those of
    /// [`Self::finish`], so that they concern no job beside it.
    pub fn step(&mut self) -> Result<(), DiffusionError> {
        if self.is_done() {
            return Ok(());
        }
        self.is_made = self.enlarging.is_done();
        match self.enlarging.step() {
            Ok(()) => self.done += 1,
            Err(error) if is_out_of_memory(&error.to_string()) => return Err(error),
            Err(error) => self.fault = Some(error.to_string()),
        }
        Ok(())
    }

    /// The enlarged picture. `seed` only names it.
    pub fn finish(&self, seed: u64) -> Result<Picture, DiffusionError> {
        if let Some(fault) = &self.fault {
            return Err(DiffusionError::Upscaling(fault.clone()));
        }
        let image = self.enlarging.finish()?;
        let texts = self.texts();
        let png = PictureFile::Png.encode(&image, &texts)?.bytes;
        Ok(Picture { seed, image, png, texts, flagged: false, prompts: None })
    }

    /// In A1111's words, and as a request without its picture.
    fn texts(&self) -> PictureTexts {
        let upscaler = &self.upscale.upscaler;
        let mut request = json!({ "model": upscaler.as_str() });
        let by = match self.upscale.enlarged {
            Enlarged::Scale(scale) => {
                request["scale"] = json!(scale);
                format!("Postprocess upscale by: {scale}")
            }
            Enlarged::Sides { width, height } => {
                (request["width"], request["height"]) = (json!(width), json!(height));
                format!("Postprocess upscale to: {}x{}", width.unwrap_or(0), height.unwrap_or(0))
            }
        };
        PictureTexts {
            parameters: format!("{by}, Postprocess upscaler: {}", upscaler.a1111_name()),
            request: json!({ "upscale": request }).to_string(),
        }
    }
}
