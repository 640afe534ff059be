//! How a request's picture is laid out, and what is repainted of it.
//!
//! The words are A1111's: its "Only masked", "Masked content" and "Resize mode". What they do to pixels is in
//! `diffusion::image`.

use serde_json::{Value, json};

use super::reader::{Reader, small};
use super::{GenerationInput, ImageSize, InputRules, Outpaint};
use crate::domain::ImageSource;

/// In pixels: the maximum of A1111's slider.
pub const MAX_INPAINT_PADDING: u64 = 256;
/// The longest side of a result that has its picture's own size.
pub const MAX_RESULT_SIDE: u32 = 4096;
/// The most pixels of such results together.
const MAX_RESULT_PIXELS: u64 = 1 << 26;
/// A1111's default, where the kept area is always laid over the result.
const MASK_BLUR: u32 = 4;

/// What is drawn of a picture with a mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InpaintArea {
    /// The whole picture, at the requested size.
    #[default]
    Whole,
    /// The surroundings of the mask, at the requested size. The result has the size of the picture.
    Masked,
}

/// What the repainted area holds before it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InpaintFill {
    /// The picture itself.
    #[default]
    Original,
    /// The colours around the area, blurred into it.
    Surroundings,
    /// Noise in the latents.
    Noise,
    /// Zeros in the latents.
    Nothing,
}

/// How a picture of another shape becomes one of the requested size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ResizeMode {
    #[default]
    Stretch,
    /// Covers the size, and cuts off what lies beyond.
    Crop,
    /// Fits into the size, and repeats the edges in the rim.
    Fill,
    /// Stretches its latents instead of its pixels.
    Latent,
}

impl InpaintArea {
    pub const ALL: [(&str, Self); 2] = [("whole", Self::Whole), ("masked", Self::Masked)];
}

impl InpaintFill {
    pub const ALL: [(&str, Self); 4] = [
        ("original", Self::Original),
        ("surroundings", Self::Surroundings),
        ("noise", Self::Noise),
        ("nothing", Self::Nothing),
    ];
}

impl ResizeMode {
    pub const ALL: [(&str, Self); 4] =
        [("stretch", Self::Stretch), ("crop", Self::Crop), ("fill", Self::Fill), ("latent", Self::Latent)];
}

/// The fields that say how a picture is laid out and repainted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inpainting {
    pub area: InpaintArea,
    /// The pixels of the picture around the mask that are drawn with it.
    pub padding: u32,
    pub fill: InpaintFill,
    pub resize_mode: ResizeMode,
    pub outpaint: Option<Outpaint>,
    /// The size of the results, where it is the picture's and that was known when the pictures were dropped.
    pub result: Option<ImageSize>,
    /// Whether there was a mask when the pictures were dropped.
    pub masked: bool,
}

impl Default for Inpainting {
    fn default() -> Self {
        Self {
            area: InpaintArea::default(),
            padding: 32,
            fill: InpaintFill::default(),
            resize_mode: ResizeMode::default(),
            outpaint: None,
            result: None,
            masked: false,
        }
    }
}

impl Inpainting {
    pub(super) const FIELDS: [&str; 5] =
        ["inpaint_area", "inpaint_padding", "inpaint_fill", "resize_mode", "outpaint"];

    /// Reads the fields, and says which of them, and of those for masks, have no effect. Which pictures there are has been
    /// read before.
    pub(super) fn read(reader: &mut Reader, rules: &InputRules, warnings: &mut Vec<String>) -> Self {
        let area = reader.choice("inpaint_area", &InpaintArea::ALL);
        let padding = reader.integer("inpaint_padding", 0, MAX_INPAINT_PADDING).map(small);
        let fill = reader.choice("inpaint_fill", &InpaintFill::ALL);
        let resize_mode = reader.choice("resize_mode", &ResizeMode::ALL);
        let outpaint = Outpaint::read(reader);
        let is_masked = reader.is_present("mask") || outpaint.is_some();
        let mut without_effect = |reader: &Reader, names: &[&str], why: &str| {
            let named = names.iter().filter(|name| reader.is_present(name));
            warnings.extend(named.map(|name| format!("{name} has no effect {why}.")));
        };

        if rules.edits_images {
            if outpaint.is_some() {
                reader.violation(
                    "outpaint is not supported by this model, because InstructPix2Pix changes the whole picture."
                        .to_owned(),
                );
            }
            if resize_mode == Some(ResizeMode::Latent) {
                reader.unmet("resize_mode", "This model (InstructPix2Pix) supports stretch, crop and fill.");
            }
            let names = ["inpaint_area", "inpaint_padding", "inpaint_fill"];
            without_effect(reader, &names, "with this model (InstructPix2Pix), which takes no mask");
            return Self { resize_mode: resize_mode.unwrap_or_default(), ..Self::default() };
        }
        if outpaint.is_some() && !reader.is_present("init_image") {
            reader.unmet("outpaint", "It needs an init_image.");
        }
        if !reader.is_present("init_image") {
            without_effect(reader, &["resize_mode"], "without an init_image");
        }
        if !is_masked {
            let names = ["mask_blur", "mask_invert", "inpaint_area", "inpaint_padding", "inpaint_fill"];
            without_effect(reader, &names, "without a mask");
            return Self { resize_mode: resize_mode.unwrap_or_default(), ..Self::default() };
        }
        let area = area.unwrap_or_default();
        if outpaint.is_some() {
            without_effect(reader, &["resize_mode"], "with outpaint, which keeps the picture's shape");
            if !reader.is_present("mask") {
                without_effect(reader, &["mask_invert"], "without a mask");
            }
        } else if area == InpaintArea::Masked {
            without_effect(
                reader,
                &["resize_mode"],
                "with inpaint_area masked, which keeps the picture's shape",
            );
        }
        if area == InpaintArea::Whole {
            without_effect(reader, &["inpaint_padding"], "without inpaint_area masked");
        }
        let usual_fill = if outpaint.is_some() { InpaintFill::Surroundings } else { InpaintFill::Original };
        Self {
            area,
            padding: padding.unwrap_or(Self::default().padding),
            fill: fill.unwrap_or(usual_fill),
            resize_mode: resize_mode.unwrap_or_default(),
            outpaint,
            result: None,
            masked: false,
        }
    }

    /// Whether the result is the picture itself, with its own size and something drawn into it.
    pub fn keeps_picture(&self) -> bool {
        self.area == InpaintArea::Masked || self.outpaint.is_some()
    }

    /// The blur of the mask, where the request names none.
    pub(super) fn usual_mask_blur(&self) -> Option<u32> {
        self.keeps_picture().then_some(MASK_BLUR)
    }

    /// Checks the size of the results, as far as it is known. Returns the size to draw at: where the request names none,
    /// outpainting has that of the result as far as the limits allow.
    pub(super) fn checked_size(
        &self,
        reader: &mut Reader,
        rules: &InputRules,
        (size, is_named): (ImageSize, bool),
        (picture, outputs): (Option<&ImageSource>, Option<u64>),
    ) -> ImageSize {
        let Some(picture) = picture else { return size };
        let picture = picture.size();
        if let Some(Err(sentence)) = picture.map(|picture| self.check(picture, outputs.map_or(1, small))) {
            reader.unmet("init_image", &sentence);
        }
        match (self.outpaint, picture) {
            (Some(_), _) if is_named || self.area == InpaintArea::Masked => size,
            (Some(outpaint), Some(picture)) => outpaint.around(picture).fitted(rules.grid),
            (Some(_), None) => {
                reader.unmet(
                    "width",
                    "It is required with outpaint if init_image is a URL and inpaint_area is whole.",
                );
                size
            }
            (None, _) => size,
        }
    }

    /// The size of the results of a picture of this size. None if they have the requested size.
    pub fn result_size(&self, picture: ImageSize) -> Option<ImageSize> {
        self.keeps_picture().then(|| self.outpaint.unwrap_or_default().around(picture))
    }

    /// Checks that results with their picture's own size are within the limits. The error is a sentence about the picture.
    pub fn check(&self, picture: ImageSize, outputs: u32) -> Result<(), String> {
        let Some(ImageSize { width, height }) = self.result_size(picture) else { return Ok(()) };
        if width.max(height) > MAX_RESULT_SIDE {
            return Err(format!(
                "The result has {width} × {height} pixels; with this inpainting, each side may have {MAX_RESULT_SIDE} at most: send a smaller picture."
            ));
        }
        if u64::from(width) * u64::from(height) * u64::from(outputs) > MAX_RESULT_PIXELS {
            return Err(format!(
                "{outputs} results of {width} × {height} have more than {MAX_RESULT_PIXELS} pixels together; ask for fewer, or send a smaller picture."
            ));
        }
        Ok(())
    }

    /// Adds the fields that differ from the defaults to the request that draws a picture again.
    pub fn write_to(&self, request: &mut Value) {
        let word = |of: Option<&'static str>| json!(of.unwrap_or_default());
        let plain = Self::default();
        if self.area != plain.area {
            request["inpaint_area"] = word(name_of(&InpaintArea::ALL, self.area));
            request["inpaint_padding"] = json!(self.padding);
        }
        if self.fill != plain.fill || self.outpaint.is_some() {
            request["inpaint_fill"] = word(name_of(&InpaintFill::ALL, self.fill));
        }
        if self.resize_mode != plain.resize_mode {
            request["resize_mode"] = word(name_of(&ResizeMode::ALL, self.resize_mode));
        }
        if let Some(Outpaint { left, right, top, bottom }) = self.outpaint {
            request["outpaint"] = json!({"left": left, "right": right, "top": top, "bottom": bottom});
        }
    }

    /// The items of A1111's infotext. A1111 has no word for outpainting.
    pub fn infotext(&self, mask_blur: Option<u32>, mask_invert: bool) -> Vec<(&'static str, String)> {
        let mut items = Vec::new();
        if let Some(blur) = mask_blur.filter(|blur| *blur > 0) {
            items.push(("Mask blur", blur.to_string()));
        }
        if mask_invert {
            items.push(("Mask mode", "Inpaint not masked".to_owned()));
        }
        if self.area == InpaintArea::Masked {
            items.push(("Inpaint area", "Only masked".to_owned()));
            items.push(("Masked area padding", self.padding.to_string()));
        }
        let content = match self.fill {
            InpaintFill::Original => None,
            InpaintFill::Surroundings => Some("fill"),
            InpaintFill::Noise => Some("latent noise"),
            InpaintFill::Nothing => Some("latent nothing"),
        };
        items.extend(content.map(|content| ("Masked content", content.to_owned())));
        if let Some(Outpaint { left, right, top, bottom }) = self.outpaint {
            items.push(("Outpaint", format!("left {left}, right {right}, top {top}, bottom {bottom}")));
        }
        items
    }
}

impl GenerationInput {
    /// The size of the pictures that the request asks for, as far as it is known: that of a picture behind a URL is not.
    pub fn result_size(&self) -> ImageSize {
        let picture = self.init_image.as_ref().filter(|_| self.inpainting.keeps_picture());
        let from_picture =
            picture.and_then(ImageSource::size).and_then(|picture| self.inpainting.result_size(picture));
        let enlarged = self.hires.as_ref().map(|hires| hires.target.kept);
        from_picture.or(self.inpainting.result).or(enlarged).unwrap_or(self.size)
    }

    /// Whether only a part of its picture is repainted.
    pub fn is_masked(&self) -> bool {
        self.mask.is_some() || self.inpainting.outpaint.is_some() || self.inpainting.masked
    }
}

fn name_of<T: PartialEq + Copy>(all: &[(&'static str, T)], value: T) -> Option<&'static str> {
    all.iter().find(|(_, other)| *other == value).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests;
