//! The flags of a second pass over the enlarged picture.

use clap::Args;
use serde_json::{Value, json};

use super::finite;

#[derive(Debug, Args)]
#[command(next_help_heading = "Larger pictures")]
#[expect(clippy::struct_field_names, reason = "each is the name of its flag")]
pub(super) struct HiresArgs {
    /// Draw the picture, enlarge it by this factor (1 to 8), and draw it again at that size
    #[arg(long, value_name = "FACTOR", value_parser = finite, allow_negative_numbers = true)]
    hires_scale: Option<f64>,
    /// The same, to this width in pixels; the height keeps the shape
    #[arg(long, value_name = "PX", conflicts_with = "hires_scale")]
    hires_width: Option<u32>,
    /// The same, to this height in pixels; with --hires-width, the picture is cut
    #[arg(long, value_name = "PX", conflicts_with = "hires_scale")]
    hires_height: Option<u32>,
    /// How the picture is enlarged: latent (or latent-bicubic, …), lanczos, nearest, or a model in --upscaler-dir
    /// [default: latent]
    #[arg(long, value_name = "NAME")]
    hires_upscaler: Option<String>,
    /// Denoising steps of the second pass, which makes the last --hires-strength of them [default: --steps]
    #[arg(long, value_name = "STEPS", allow_negative_numbers = true)]
    hires_steps: Option<u32>,
    /// How much the second pass may change, 0 to 1 [default: 0.75]
    #[arg(long, value_name = "SHARE", value_parser = finite, allow_negative_numbers = true)]
    hires_strength: Option<f64>,
    /// Prompt of the second pass [default: the same]
    #[arg(long, value_name = "TEXT")]
    hires_prompt: Option<String>,
    /// What the second pass is not to draw [default: the same]
    #[arg(long, value_name = "TEXT")]
    hires_negative_prompt: Option<String>,
    /// How closely the second pass follows its prompt [default: --guidance-scale]
    #[arg(long, value_name = "SCALE", value_parser = finite, allow_negative_numbers = true)]
    hires_guidance_scale: Option<f64>,
    /// Scheduler of the second pass [default: --scheduler]
    #[arg(long, value_name = "NAME")]
    hires_scheduler: Option<String>,
    /// Spacing of the second pass's steps, such as karras
    #[arg(long, value_name = "NAME")]
    hires_spacing: Option<String>,
}

impl HiresArgs {
    /// The request's `hires`, or null where no flag asks for it.
    pub fn request(&self) -> Value {
        let fields = [
            ("scale", json!(self.hires_scale)),
            ("width", json!(self.hires_width)),
            ("height", json!(self.hires_height)),
            ("upscaler", json!(self.hires_upscaler)),
            ("steps", json!(self.hires_steps)),
            ("strength", json!(self.hires_strength)),
            ("prompt", json!(self.hires_prompt)),
            ("negative_prompt", json!(self.hires_negative_prompt)),
            ("guidance_scale", json!(self.hires_guidance_scale)),
            ("scheduler", json!(self.hires_scheduler)),
            ("spacing", json!(self.hires_spacing)),
        ];
        if fields.iter().all(|(_, value)| value.is_null()) {
            return Value::Null;
        }
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}
