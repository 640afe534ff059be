//! `stablehand generate`: a picture without a server, by the same three verbs in a loop.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::Failure;
use super::open_model::open_model;
use super::runtime::use_installed_runtimes;
use crate::config::{ModelsDirArgs, usual_add_ons};
use crate::diffusion::AddOnFolders;
use crate::domain::{GenerationInput, MAX_IMAGE_BYTES, Violations};
use crate::runtime::{DeviceChoice, Runtime};

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// What to draw
    prompt: String,
    /// PNG file to write; - is standard output. Several pictures are numbered: picture-0.png, picture-1.png, …
    #[arg(short, long, value_name = "FILE", default_value = "picture.png")]
    output: PathBuf,
    /// Seed of the first picture; each further picture adds 1 [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Denoising steps, 1 to 500
    #[arg(long, default_value_t = 50)]
    steps: u32,
    /// Scheduler, such as DDIM, EULER-A, DPM-M, K-LMS or "DPM++ 2M Karras" [default: the model's own, or K-LMS]
    #[arg(long, value_name = "NAME")]
    scheduler: Option<String>,
    /// Use Karras sigmas, as "DPM++ 2M Karras" does
    #[arg(long)]
    karras: bool,
    /// Noise that a seed gives: cpu is PyTorch's CPU generator, cuda its CUDA generator, as the hosted service used
    #[arg(long, value_name = "SOURCE", default_value = "cpu")]
    noise: String,
    /// Layer of the text encoder to use, counted from the end: 1 is the last, 2 the one before it
    #[arg(long, value_name = "N", default_value_t = 1)]
    clip_skip: u32,
    /// How closely to follow the prompt, above 0 and up to 20; 1 or less turns guidance off
    #[arg(long, default_value_t = 7.5, value_name = "SCALE", value_parser = finite)]
    guidance_scale: f64,
    /// What not to draw
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// Width in pixels [default: the model's native size]
    #[arg(long, value_name = "PX")]
    width: Option<u32>,
    /// Height in pixels [default: the model's native size]
    #[arg(long, value_name = "PX")]
    height: Option<u32>,
    /// Number of pictures, 1 to 10
    #[arg(long, default_value_t = 1, value_name = "N")]
    num_outputs: u32,
    /// Picture to start from (PNG, JPEG, WebP, GIF, BMP or TIFF)
    #[arg(long, value_name = "FILE")]
    init_image: Option<PathBuf>,
    /// Mask for --init-image: white areas are repainted, black areas are kept
    #[arg(long, value_name = "FILE", requires = "init_image")]
    mask: Option<PathBuf>,
    /// Copy the kept areas of --init-image over the result, with the edge blurred by this many pixels [default: off]
    #[arg(long, value_name = "PX", requires = "mask")]
    mask_blur: Option<u32>,
    /// How much of --init-image may change, 0 to 1
    #[arg(long, default_value_t = 0.8, value_name = "SHARE", value_parser = finite)]
    prompt_strength: f64,
    /// LoRA: a .safetensors file, or a name in --lora-dir; put more into the prompt as <lora:NAME:0.8>
    #[arg(long, value_name = "FILE|NAME")]
    lora: Option<String>,
    /// Strength of --lora, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = finite, requires = "lora")]
    lora_scale: f64,
    /// Folder of LoRAs [default: loras in the data folder]
    #[arg(long, env = "STABLEHAND_LORA_DIR", value_name = "DIR")]
    lora_dir: Option<PathBuf>,
    /// Folder of textual inversions; prompts use them by name [default: embeddings in the data folder]
    #[arg(long, env = "STABLEHAND_EMBEDDINGS_DIR", value_name = "DIR")]
    embeddings_dir: Option<PathBuf>,
    /// Model: a .safetensors checkpoint, a folder (diffusers or ONNX), or the name of a pulled model
    /// [default: the built-in tiny-sd]
    #[arg(long, env = "STABLEHAND_MODEL", value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long, env = "STABLEHAND_DEVICE", default_value_t)]
    device: DeviceChoice,
    #[command(flatten)]
    folders: ModelsDirArgs,
}

pub(super) fn generate(args: &GenerateArgs) -> Result<(), Failure> {
    let model = open_model(args.model.as_deref(), Some(args.add_on_folders()), || args.folders.models_dir())?;
    let input = GenerationInput::parse(&args.request(model.description().native_side)?, model.rules())
        .map_err(|violations| Failure::Usage(in_flags(violations)))?;
    let to_stdout = args.output == Path::new("-");
    if to_stdout && input.num_outputs > 1 {
        return Err(Failure::Usage(
            "standard output takes one picture: for more, name a file with -o".to_owned(),
        ));
    }
    let seed = match input.seed {
        Some(seed) => seed,
        None => GenerationInput::random_seed()
            .map_err(|error| Failure::Other(format!("cannot get random numbers from the system: {error}")))?,
    };

    use_installed_runtimes(&args.folders, args.device);
    let runtime = Runtime::load(args.device)?;
    if let Some(note) = runtime.note() {
        eprintln!("stablehand: {note}");
    }
    let mut pipeline = model.load(&runtime)?;
    let mut generation = pipeline.begin(&input, seed)?;
    let bar = progress_bar(generation.progress().1);
    while !generation.is_done() {
        pipeline.step(&mut [&mut generation])?;
        bar.set_position(u64::from(generation.progress().0));
    }
    let pictures = pipeline.finish(&generation)?;
    bar.finish_and_clear();

    for (index, picture) in pictures.iter().enumerate() {
        if to_stdout {
            io::stdout().write_all(&picture.png).map_err(|error| cannot_write("standard output", &error))?;
            continue;
        }
        let path = numbered(&args.output, index, pictures.len());
        fs::write(&path, &picture.png).map_err(|error| cannot_write(&path.display().to_string(), &error))?;
        println!("{}  seed {}  {}×{}", path.display(), picture.seed, input.size.width, input.size.height);
    }
    Ok(())
}

fn cannot_write(place: &str, error: &io::Error) -> Failure {
    Failure::Other(format!("cannot write {place}: {error}"))
}

impl GenerateArgs {
    fn add_on_folders(&self) -> AddOnFolders {
        // Without a data folder, look in the working folder.
        let usual = usual_add_ons(&self.folders.data_dir().unwrap_or_default());
        let file = self.lora.as_deref().filter(|lora| name_of_file(lora).is_some()).map(PathBuf::from);
        AddOnFolders {
            loras: file.or_else(|| self.lora_dir.clone()).unwrap_or(usual.loras),
            embeddings: self.embeddings_dir.clone().unwrap_or(usual.embeddings),
            ..usual
        }
    }

    /// The flags as a request's `input`, so that they are held to the same bounds.
    fn request(&self, native_side: u32) -> Result<Value, Failure> {
        let mut input = Map::new();
        input.insert("prompt".into(), json!(self.prompt));
        input.insert("negative_prompt".into(), json!(self.negative_prompt));
        input.insert("width".into(), json!(self.width.unwrap_or(native_side)));
        input.insert("height".into(), json!(self.height.unwrap_or(native_side)));
        input.insert("num_outputs".into(), json!(self.num_outputs));
        input.insert("num_inference_steps".into(), json!(self.steps));
        input.insert("guidance_scale".into(), json!(self.guidance_scale));
        input.insert("scheduler".into(), json!(self.scheduler));
        // Without the flag it is what the scheduler's name says.
        input.insert("karras".into(), json!(self.karras.then_some(true)));
        input.insert("seed".into(), json!(self.seed));
        input.insert("noise".into(), json!(self.noise));
        input.insert("clip_skip".into(), json!(self.clip_skip));
        input.insert("init_image".into(), json!(self.init_image.as_deref().map(base64_of).transpose()?));
        input.insert("mask".into(), json!(self.mask.as_deref().map(base64_of).transpose()?));
        input.insert("mask_blur".into(), json!(self.mask_blur));
        input.insert("prompt_strength".into(), json!(self.prompt_strength));
        input.insert(
            "lora".into(),
            json!(self.lora.as_deref().map(|lora| name_of_file(lora).unwrap_or(lora))),
        );
        input.insert("lora_scale".into(), json!(self.lora_scale));
        Ok(Value::Object(input))
    }
}

/// The name of a LoRA that is given as a file.
fn name_of_file(lora: &str) -> Option<&str> {
    let path = Path::new(lora);
    path.file_name().filter(|_| path.is_file())?.to_str()
}

/// A picture file as a request would carry it.
fn base64_of(path: &Path) -> Result<String, Failure> {
    let cannot_read = |error: io::Error| Failure::Other(format!("cannot read {}: {error}", path.display()));
    // One byte more than is taken shows that there is too much.
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot_read)?;
    file.take(MAX_IMAGE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    Ok(STANDARD.encode(bytes))
}

/// The violations of a request, with its fields named as the flags that they came from.
fn in_flags(violations: Violations) -> String {
    let flag = |field: &str| match field {
        "num_inference_steps" => "--steps".to_owned(),
        field => format!("--{}", field.replace('_', "-")),
    };
    let sentence = |text: String| match text.split_once(' ') {
        Some((field, rest)) => format!("{} {rest}", flag(field)),
        None => text,
    };
    Violations(violations.0.into_iter().map(sentence).collect()).to_string()
}

/// JSON, in whose form the request is checked, has no word for other numbers.
fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| "it should be a number".to_owned())
}

fn progress_bar(steps: u32) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} steps  {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::from(steps)).with_style(style)
}

/// `fox.png` for one picture; `fox-0.png`, `fox-1.png`, … for several.
fn numbered(path: &Path, index: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or_else(|| "png".into(), |extension| extension.to_string_lossy());
    path.with_file_name(format!("{stem}-{index}.{extension}"))
}
