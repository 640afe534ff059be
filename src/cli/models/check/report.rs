//! What a model holds and what works with it, as lines of at most 100 characters.

use std::fmt::{self, Write as _};

use crate::cli::paragraph::wrap_within;
use crate::diffusion::{Model, PartReport, Port};
use crate::domain::ModelPart;
use crate::runtime::multiplies_int8;
use crate::size_text::size_text;

pub(super) const WIDTH: usize = 100;
/// Where values begin.
const COLUMN: usize = 18;
/// Characters of a port's name. Exporters' are shorter.
const LONGEST_NAME: usize = 60;

/// What was found, before anything is drawn.
pub(super) struct Report<'a> {
    pub model: &'a Model,
    pub parts: &'a [PartReport],
    /// What the safety checker takes of the device's memory.
    pub checker_bytes: u64,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.model.name();
        let mut text = match self.model.path() {
            None => format!("{name} (inside this binary)\n"),
            Some(path) => format!("{name} ({})\n", path.display()),
        };
        self.list_parts(&mut text);
        list(&mut text, "Model", self.facts());
        list(&mut text, "Works", self.abilities());
        f.write_str(&text)
    }
}

impl Report<'_> {
    fn list_parts(&self, text: &mut String) {
        let ports = || self.parts.iter().flat_map(|part| part.inputs.iter().chain(&part.outputs));
        let width = ports().map(|port| port.name.chars().count()).max().unwrap_or(0).min(40);
        text.push_str("\nParts\n");
        for part in self.parts {
            let _ = write!(text, "  {:<14}  ", part.part);
            wrap_within(text, &files(&part.files), COLUMN, WIDTH);
            let line = |text: &mut String, direction: &str, port: &Port| {
                let name: String = port.name.chars().take(LONGEST_NAME).collect();
                let _ = write!(text, "    {direction:<3}  {name:<width$}  ");
                wrap_within(text, &port.to_string(), 11 + width.max(name.chars().count()), WIDTH);
            };
            part.inputs.iter().for_each(|port| line(text, "in", port));
            part.outputs.iter().for_each(|port| line(text, "out", port));
        }
    }

    fn facts(&self) -> Vec<(String, String)> {
        let (description, rules) = (self.model.description(), self.model.rules());
        let scheduler = &description.scheduler;
        let max_side = match description.max_side {
            Some(side) => format!("; beyond {side} px enlarged"),
            None => String::new(),
        };
        let spaced = rules.spacing.map(|spacing| format!(", spacing {spacing}")).unwrap_or_default();
        let spacing = scheduler.timestep_spacing.as_deref().unwrap_or("each scheduler's own");
        let source = description.prediction_source.as_ref();
        let source = source.map(|source| format!(" ({source} says so)")).unwrap_or_default();
        let zero_snr = match scheduler.rescale_betas_zero_snr {
            Some(true) => " with zero terminal SNR",
            _ => "",
        };
        let guidance = match description.embeds_guidance {
            true => "an embedding in the UNet, without negative prompts",
            false => "two rows in each UNet call, one for the negative prompt",
        };
        let number = |value: Option<f64>| value.map_or("the default".to_owned(), |value| value.to_string());
        let mut facts = Vec::new();
        if rules.guidance_end < 1.0 {
            let steps =
                format!("for the first {} of the steps, where a request says nothing", rules.guidance_end);
            facts.push(("guided", steps));
        }
        if rules.guidance_rescale > 0.0 {
            facts.push(("rescaled by", format!("{}, where a request says nothing", rules.guidance_rescale)));
        }
        let usual = [
            (
                "sides",
                format!("{} px native, in multiples of {} px{max_side}", description.native_side, rules.grid),
            ),
            (
                "VAE",
                format!(
                    "{} px a latent, {} channels, scaling factor {}",
                    description.vae_scale_factor, description.latent_channels, description.scaling_factor
                ),
            ),
            (
                "text encoder",
                match rules.max_clip_skip {
                    1 => "its last layer alone".to_owned(),
                    layers => format!("{layers} layers, so that clip_skip is {layers} at most"),
                },
            ),
            ("guidance", guidance.to_owned()),
            ("tokenizer", format!("a window of {} tokens", self.model.tokenizer().window())),
            (
                "schedule",
                format!(
                    "{} prediction{source}, {} betas from {} to {}{zero_snr}, {} timesteps, spacing: {spacing}",
                    match scheduler.prediction_type.as_deref() {
                        Some("v_prediction") => "v",
                        other => other.unwrap_or("epsilon"),
                    },
                    scheduler.beta_schedule.as_deref().unwrap_or("linear"),
                    number(scheduler.beta_start),
                    number(scheduler.beta_end),
                    scheduler.num_train_timesteps.unwrap_or(1000),
                ),
            ),
            ("scheduler", format!("{}{spaced}, where a request names none", rules.scheduler)),
        ];
        usual.into_iter().chain(facts).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// What can be asked of the model, by the parts that it has.
    fn abilities(&self) -> Vec<(String, String)> {
        let has = |part: ModelPart| self.parts.iter().any(|found| found.part == part);
        let with = |part: ModelPart| match has(part) {
            true => "yes".to_owned(),
            false => format!("no: it has no {part}"),
        };
        let unet = self.parts.iter().find(|part| part.part == ModelPart::UNet);
        let takes_mask = unet.is_some_and(|unet| unet.inputs.iter().any(|port| port.fixed(1) == Some(9)));
        let inpainting = match takes_mask && has(ModelPart::VaeEncoder) {
            true => "yes, by a UNet made for it".to_owned(),
            false => with(ModelPart::VaeEncoder),
        };
        let previews = match self.model.description().latent_rgb {
            Some(_) => "yes",
            None => "no: its stablehand.json states no latent_rgb_factors",
        };
        let add_ons = match self.model.takes_add_ons() {
            true => "yes",
            false => "no: its weights lie inside its graphs",
        };
        let tiny_vae = match self.model.tiny_vae() {
            Ok(None) => "yes, its own, loaded when a request first wants it".to_owned(),
            Ok(Some(name)) => format!("yes, {name} of --tiny-vae-dir, loaded when a request first wants it"),
            Err(reason) => format!("no: {reason}"),
        };
        let int8 = match (self.model.takes_add_ons(), multiplies_int8()) {
            (true, true) => "yes, for its UNet's linear layers on a CPU",
            (true, false) => "no: it needs an x86-64 processor with AVX2",
            (false, _) => "no: its weights lie inside its graphs",
        };
        let cache_interval = match self.model.rules().max_cache_interval {
            0 | 1 => "no: its UNet does not give its deep features".to_owned(),
            most => format!("yes, 1 to {most}"),
        };
        let safety_checker = match self.model.safety_checker() {
            Ok(()) => {
                format!(
                    "yes, loaded when a request first wants it ({} of memory)",
                    size_text(self.checker_bytes)
                )
            }
            Err(reason) => format!("no: {reason}"),
        };
        let (text, image, inpainting) = match self.model.rules().edits_images {
            true => {
                let no = "no: it is an InstructPix2Pix model, which changes a picture as the prompt says";
                (no.to_owned(), "yes, as the prompt says (InstructPix2Pix)".to_owned(), no.to_owned())
            }
            false => ("yes".to_owned(), with(ModelPart::VaeEncoder), inpainting),
        };
        [
            ("text to image", text),
            ("image to image", image),
            ("inpainting", inpainting),
            ("previews", previews.to_owned()),
            ("LoRAs", add_ons.to_owned()),
            ("safety checker", safety_checker),
            ("tiny VAE", tiny_vae),
            ("int8", int8.to_owned()),
            ("cache_interval", cache_interval),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// A heading with lines under it, their values in one column; nothing where there are no lines.
pub(super) fn list(text: &mut String, heading: &str, lines: impl IntoIterator<Item = (String, String)>) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_some() {
        let _ = writeln!(text, "\n{heading}");
    }
    for (name, value) in lines {
        if name.is_empty() {
            text.push_str("  ");
            wrap_within(text, &value, 2, WIDTH);
        } else {
            let _ = write!(text, "  {name:<14}  ");
            wrap_within(text, &value, COLUMN, WIDTH);
        }
    }
}

/// A part's files; of many (old exporters wrote a file a tensor) the first and the sum of the others.
fn files(files: &[(String, u64)]) -> String {
    let one = |(name, bytes): &(String, u64)| format!("{name} {}", size_text(*bytes));
    match files {
        [first, .., _] if files.len() > 4 => {
            let others = &files[1..];
            let bytes = others.iter().map(|(_, bytes)| bytes).sum();
            format!("{} and {} other files {}", one(first), others.len(), size_text(bytes))
        }
        _ => files.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_are_summed_up() {
        let many: Vec<_> = (0..300).map(|index| (format!("tensor{index}"), 1_000_000)).collect();
        assert_eq!(files(&many), "tensor0 1.0 MB and 299 other files 299 MB");
        assert_eq!(files(&many[..2]), "tensor0 1.0 MB, tensor1 1.0 MB");
    }
}
