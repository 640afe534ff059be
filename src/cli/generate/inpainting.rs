//! The flags of `generate` for inpainting, outpainting and variations.

use clap::Args;
use serde_json::{Map, Number, Value, json};

use super::{finite, seed};
use crate::domain::Outpaint;

const VARIATIONS: &str = "Variations and tiles";

#[derive(Debug, Args)]
#[command(next_help_heading = super::PICTURES)]
pub(super) struct InpaintingArgs {
    /// What is drawn of --init-image: whole, or masked, which draws the mask's surroundings at full size and lays them
    /// back into the picture [default: whole]
    #[arg(long, value_name = "AREA", requires = "init_image")]
    inpaint_area: Option<String>,
    /// Pixels of --init-image around the mask that are drawn with it, with --inpaint-area masked [default: 32]
    #[arg(long, value_name = "PX", requires = "init_image", allow_negative_numbers = true)]
    inpaint_padding: Option<u32>,
    /// What the repainted area holds before it is drawn: original, surroundings, noise or nothing [default: original, or
    /// surroundings with --outpaint]
    #[arg(long, value_name = "FILL", requires = "init_image")]
    inpaint_fill: Option<String>,
    /// How --init-image becomes a picture of the asked size: stretch, crop, fill or latent [default: stretch]
    #[arg(long, value_name = "MODE", requires = "init_image")]
    resize_mode: Option<String>,
    /// Pixels to add to --init-image and to paint, such as left=128,top=64
    #[arg(long, value_name = "SIDES", requires = "init_image", value_parser = outpaint)]
    outpaint: Option<Value>,
    /// Seed of the noise to blend in; each further picture adds 1 [default: a random one]
    #[arg(long, help_heading = VARIATIONS, allow_negative_numbers = true, value_parser = seed)]
    subseed: Option<Number>,
    /// How much of the noise of --subseed is blended in, 0 to 1; above 0 all pictures have the same seed [default: 0]
    #[arg(long, help_heading = VARIATIONS, value_name = "SHARE", value_parser = finite, allow_negative_numbers = true)]
    subseed_strength: Option<f64>,
    /// Width of the picture whose noise the seed stands for [default: that of the picture]
    #[arg(long, help_heading = VARIATIONS, value_name = "PX", allow_negative_numbers = true)]
    seed_resize_width: Option<u32>,
    /// Height of the picture whose noise the seed stands for [default: that of the picture]
    #[arg(long, help_heading = VARIATIONS, value_name = "PX", allow_negative_numbers = true)]
    seed_resize_height: Option<u32>,
    /// Draw a picture whose opposite edges fit together
    #[arg(long, help_heading = VARIATIONS)]
    tiling: bool,
}

impl InpaintingArgs {
    /// Adds the flags to a request's `input`.
    pub fn write_to(&self, input: &mut Map<String, Value>) {
        for (name, value) in [
            ("inpaint_area", json!(self.inpaint_area)),
            ("inpaint_padding", json!(self.inpaint_padding)),
            ("inpaint_fill", json!(self.inpaint_fill)),
            ("resize_mode", json!(self.resize_mode)),
            ("outpaint", json!(self.outpaint)),
            ("subseed", json!(self.subseed)),
            ("subseed_strength", json!(self.subseed_strength)),
            ("seed_resize_width", json!(self.seed_resize_width)),
            ("seed_resize_height", json!(self.seed_resize_height)),
            ("tiling", json!(self.tiling.then_some(true))),
        ] {
            input.insert(name.to_owned(), value);
        }
    }

    /// Whether the picture says how large the drawing is, unless flags do.
    pub fn takes_size_of_picture(&self) -> bool {
        self.outpaint.is_some() && self.inpaint_area.as_deref() != Some("masked")
    }
}

/// `left=128,top=64` as a request has it. Bounds are checked with the request.
fn outpaint(text: &str) -> Result<Value, String> {
    let sides = text.split(',').map(|side| {
        let (name, pixels) = side.split_once('=')?;
        let name = Outpaint::SIDES.into_iter().find(|known| *known == name.trim())?;
        Some((name.to_owned(), json!(pixels.trim().parse::<u64>().ok()?)))
    });
    let sides: Option<Map<String, Value>> = sides.collect();
    sides.map(Value::Object).ok_or_else(|| {
        format!("it must name {} with pixels, such as left=128,top=64", Outpaint::SIDES.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_named_with_their_pixels() {
        assert_eq!(outpaint("left=128, top=64"), Ok(json!({"left": 128, "top": 64})));
        for wrong in ["", "128", "left", "left=", "left=-1", "up=3", "left=1;top=2"] {
            assert!(
                outpaint(wrong).unwrap_err().starts_with("it must name left, right, top, bottom"),
                "{wrong}"
            );
        }
    }
}
