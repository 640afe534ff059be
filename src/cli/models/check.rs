//! `stablehand models check`: what a model folder holds, what will work with it and what will not.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use super::Failure;
use crate::cli::open_model::open_model;
use crate::cli::print::print;
use crate::cli::runtime::use_installed_runtimes;
use crate::config::ModelsDirArgs;
use crate::diffusion::{Model, PartReport, Pipeline, Port};
use crate::domain::{GenerationInput, ImageSize, ModelPart};
use crate::runtime::{DeviceChoice, Runtime};
use crate::size_text::size_text;

pub(super) const ABOUT: &str = "Show what a model contains and what works with it, then draw a small picture as a test. \
The exit code is 0 if the model can draw.";

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// A .safetensors checkpoint, a folder (diffusers or ONNX), or the name of a pulled model
    /// [default: the built-in tiny-sd]
    #[arg(value_name = "MODEL", env = "STABLEHAND_MODEL", hide_env_values = true)]
    model: Option<PathBuf>,
    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long, env = "STABLEHAND_DEVICE", default_value_t, hide_env_values = true)]
    device: DeviceChoice,
    #[command(flatten)]
    folders: ModelsDirArgs,
}

pub(super) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let model = open_model(args.model.as_deref(), None, || args.folders.models_dir())?;
    use_installed_runtimes(&args.folders, args.device);
    let runtime = Runtime::load(args.device)?;
    let loaded = model.load_graphs(&runtime)?;
    print(&Report { model: &model, parts: &loaded.parts() })?;

    let mut pipeline = loaded.into_pipeline()?;
    let mut verdict = String::new();
    list(
        &mut verdict,
        "Warnings",
        pipeline.warnings().iter().map(|warning| (String::new(), warning.clone())),
    );
    let size = side(&model);
    let step = time_of_a_step(&mut pipeline, size)?;
    let _ = writeln!(
        verdict,
        "\n{} draws: a step at {size}×{size} px took {:.2} s on the {}.",
        model.name(),
        step.as_secs_f64(),
        runtime.device()
    );
    print(&verdict)
}

/// The smallest side that the model draws.
fn side(model: &Model) -> u32 {
    64_u32.next_multiple_of(model.rules().grid)
}

/// Draws a small picture in two steps, the whole way to its PNG. Returns the time of the second step: the first one
/// warms the sessions up.
fn time_of_a_step(pipeline: &mut Pipeline, side: u32) -> Result<Duration, Failure> {
    let rules = pipeline.model().rules();
    let input = GenerationInput {
        size: ImageSize { width: side, height: side },
        num_inference_steps: 2,
        scheduler: rules.scheduler,
        karras: rules.karras,
        ..GenerationInput::new("a picture")
    };
    let mut generation = pipeline.begin(&input, 0)?;
    let mut last = Duration::ZERO;
    while !generation.is_done() {
        let started = Instant::now();
        pipeline.step(&mut [&mut generation])?;
        last = started.elapsed();
    }
    pipeline.finish(&generation)?;
    Ok(last)
}

/// What was found, before anything is drawn.
struct Report<'a> {
    model: &'a Model,
    parts: &'a [PartReport],
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
            let _ = writeln!(text, "  {:<14}  {}", part.part, files(&part.files));
            let line = |text: &mut String, direction: &str, port: &Port| {
                let _ = writeln!(text, "    {direction:<3}  {:<width$}  {port}", port.name);
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
        let karras = if rules.karras { " with Karras sigmas" } else { "" };
        let spacing = scheduler.timestep_spacing.as_deref().unwrap_or("each scheduler's own");
        let number = |value: Option<f64>| value.map_or("the default".to_owned(), |value| value.to_string());
        let mut facts = Vec::new();
        if rules.guidance_end < 1.0 {
            let steps =
                format!("for the first {} of the steps, where a request says nothing", rules.guidance_end);
            facts.push(("guidance", steps));
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
            ("tokenizer", format!("a window of {} tokens", self.model.tokenizer().window())),
            (
                "schedule",
                format!(
                    "{} prediction, {} betas from {} to {}, {} timesteps, spacing: {spacing}",
                    scheduler.prediction_type.as_deref().unwrap_or("epsilon"),
                    scheduler.beta_schedule.as_deref().unwrap_or("linear"),
                    number(scheduler.beta_start),
                    number(scheduler.beta_end),
                    scheduler.num_train_timesteps.unwrap_or(1000),
                ),
            ),
            ("scheduler", format!("{}{karras}, where a request names none", rules.scheduler)),
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
        [
            ("text to image", "yes".to_owned()),
            ("image to image", with(ModelPart::VaeEncoder)),
            ("inpainting", inpainting),
            ("previews", previews.to_owned()),
            ("LoRAs", add_ons.to_owned()),
            ("safety checker", with(ModelPart::SafetyChecker)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

/// A heading with lines under it, their values in one column; nothing where there are no lines.
fn list(text: &mut String, heading: &str, lines: impl IntoIterator<Item = (String, String)>) {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_some() {
        let _ = writeln!(text, "\n{heading}");
    }
    for (name, value) in lines {
        let _ = match name.is_empty() {
            true => writeln!(text, "  {value}"),
            false => writeln!(text, "  {name:<14}  {value}"),
        };
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
