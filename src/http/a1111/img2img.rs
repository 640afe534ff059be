//! The pictures of img2img, and what is repainted of them.

use super::error::A1111Error;
use crate::domain::{ImageSource, InputRules, MAX_MASK_BLUR};
use crate::http::surface::{FieldError, Fields, Translation, upload};

/// A1111's defaults.
const STRENGTH: f64 = 0.75;
const MASK_BLUR: i128 = 4;
/// In the order of A1111's numbers.
const FILLS: [&str; 4] = ["surroundings", "original", "noise", "nothing"];
const RESIZE_MODES: [&str; 4] = ["stretch", "crop", "fill", "latent"];
const MAX_PADDING: i128 = 256;

/// Reads the fields that txt2img lacks. Blocks while it decodes a mask.
pub fn translate(
    fields: &Fields,
    rules: &InputRules,
    to: &mut Translation,
    warnings: &mut Vec<String>,
) -> Result<(), A1111Error> {
    let images = fields.value(&["init_images"]).and_then(|images| images.as_array());
    let image = images.and_then(|images| images.iter().find_map(|image| image.as_str()));
    let image = image.filter(|image| !image.trim().is_empty()).ok_or(A1111Error::NoInitImage)?;
    if images.is_some_and(|images| images.len() > 1) {
        warnings.push("Only the first of init_images was used.".to_owned());
    }
    to.set_from("init_image", "init_images", image);
    let resize_mode = choice(fields, "resize_mode", &RESIZE_MODES, 0)?;
    if rules.edits_images {
        if fields.name_of(&["mask"]).is_some() {
            return Err(A1111Error::Unsupported(
                "mask is not supported by this model, because InstructPix2Pix changes the whole picture."
                    .to_owned(),
            ));
        }
        resize(to, resize_mode);
        to.number("image_guidance_scale", fields, &["image_cfg_scale"])?;
        return Ok(());
    }
    let strength = fields.number(&["denoising_strength"])?.unwrap_or(STRENGTH);
    to.set_from("prompt_strength", "denoising_strength", strength.clamp(0.0, 1.0));
    let Some(mask) = fields.text(&["mask"])? else {
        resize(to, resize_mode);
        return Ok(());
    };
    to.set_from("mask", "mask", white_is_repainted(&mask)?);
    let blur = fields.integer(&["mask_blur", "mask_blur_x", "mask_blur_y"])?.unwrap_or(MASK_BLUR);
    to.set_from("mask_blur", "mask_blur", u64::try_from(blur.max(0)).unwrap_or(0).min(MAX_MASK_BLUR));
    to.set_from(
        "mask_invert",
        "inpainting_mask_invert",
        fields.flag(&["inpainting_mask_invert"])?.unwrap_or(false),
    );
    to.set_from("inpaint_fill", "inpainting_fill", choice(fields, "inpainting_fill", &FILLS, 0)?);
    if fields.flag(&["inpaint_full_res"])?.unwrap_or(true) {
        let padding = fields.integer(&["inpaint_full_res_padding"])?.unwrap_or(0).clamp(0, MAX_PADDING);
        to.set_from("inpaint_area", "inpaint_full_res", "masked");
        to.set_from("inpaint_padding", "inpaint_full_res_padding", u32::try_from(padding).unwrap_or(0));
    } else {
        resize(to, resize_mode);
    }
    Ok(())
}

/// Stretching is the default.
fn resize(to: &mut Translation, mode: &str) {
    if mode != RESIZE_MODES[0] {
        to.set_from("resize_mode", "resize_mode", mode);
    }
}

/// One of A1111's numbered choices.
fn choice(
    fields: &Fields,
    name: &str,
    words: &[&'static str],
    default: usize,
) -> Result<&'static str, FieldError> {
    let Some(number) = fields.integer(&[name])? else { return Ok(words[default]) };
    let word = usize::try_from(number).ok().and_then(|number| words.get(number));
    word.copied().ok_or_else(|| {
        FieldError::new(name, format!("{name} is {number}; it must be from 0 to {}.", words.len() - 1))
    })
}

/// A mask as `input` takes it. In one with transparent parts, what is opaque is repainted (A1111's `create_binary_mask`).
fn white_is_repainted(mask: &str) -> Result<String, FieldError> {
    let unusable =
        |sentence: String| FieldError::new("mask", format!("mask does not meet the constraints. {sentence}"));
    let ImageSource::Bytes(bytes) = ImageSource::parse(mask).map_err(unusable)? else {
        return Ok(mask.to_owned());
    };
    Ok(upload::mask_from_opacity(&bytes).map_err(unusable)?.unwrap_or_else(|| upload::base64(&bytes)))
}
