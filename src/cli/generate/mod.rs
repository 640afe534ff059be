//! `stablehand generate`: a picture without a server, by the same three verbs in a loop.

mod controlnet;
mod hires;
mod inpainting;
mod output;
mod sampling;

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Number, Value, json};

use self::controlnet::ControlArg;
use self::hires::HiresArgs;
use self::inpainting::InpaintingArgs;
pub(super) use self::output::Output;
use self::sampling::SamplingArgs;
use super::Failure;
use super::flag_words::{in_flags, with_flags};
use super::open_model::open_model;
use super::print::print;
use super::runtime::use_installed_runtimes;
use crate::config::{CpuArgs, ModelsDirArgs, usual_add_ons};
use crate::diffusion::AddOnFolders;
use crate::domain::{GenerationInput, MAX_IMAGE_BYTES};
use crate::runtime::{DeviceChoice, Runtime};

/// The headings of `--help`, beside that of the flags that most pictures need.
const SAMPLING: &str = "Sampling";
const PICTURES: &str = "Pictures as input";
const WORDS: &str = "LoRAs and wildcards";
const FOLDERS: &str = "Folders";

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// What to draw
    prompt: String,
    /// File to write: .png, .jpg or .webp (without loss); - is a PNG on standard output. Several pictures are numbered:
    /// picture-0.png, picture-1.png, …
    #[arg(short, long, value_name = "FILE", default_value = "picture.png",
        value_parser = OsStringValueParser::new().try_map(Output::parse))]
    output: Output,
    /// Seed of the first picture; each further picture adds 1 [default: -1, a random one]
    #[arg(long, allow_negative_numbers = true, value_parser = seed)]
    seed: Option<Number>,
    /// Denoising steps, 1 to 500
    #[arg(long, default_value_t = 50, allow_negative_numbers = true)]
    steps: u32,
    /// Scheduler, such as DDIM, EULER-A, DPM-M, K-LMS or "DPM++ 2M Karras" [default: the model's own, or K-LMS]
    #[arg(long, value_name = "NAME")]
    scheduler: Option<String>,
    /// How closely to follow the prompt, above 0 and up to 20; 1 or less turns guidance off
    #[arg(long, default_value_t = 7.5, value_name = "SCALE", value_parser = finite, allow_negative_numbers = true)]
    guidance_scale: f64,
    /// What not to draw
    #[arg(long, value_name = "TEXT")]
    negative_prompt: Option<String>,
    /// Width in pixels [default: the model's native size]
    #[arg(long, value_name = "PX", allow_negative_numbers = true)]
    width: Option<u32>,
    /// Height in pixels [default: the model's native size]
    #[arg(long, value_name = "PX", allow_negative_numbers = true)]
    height: Option<u32>,
    /// Number of pictures, 1 to 10
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    num_outputs: u32,
    /// Model: a checkpoint (.safetensors, .ckpt), a folder (diffusers or ONNX), or the name of a pulled model
    /// [default: the built-in tiny-sd]
    #[arg(long, env = "STABLEHAND_MODEL", value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long, env = "STABLEHAND_DEVICE", default_value_t)]
    device: DeviceChoice,
    #[command(flatten)]
    cpu: CpuArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Noise that a seed gives: cpu is PyTorch's CPU generator, cuda its CUDA generator, as the hosted service used
    #[arg(long, help_heading = SAMPLING, value_name = "SOURCE", default_value = "cpu")]
    noise: String,
    /// Precision of the UNet's linear layers: int8 is faster on a CPU, and changes the picture
    #[arg(long, help_heading = SAMPLING, value_name = "PRECISION", default_value = "full")]
    precision: String,
    /// Layer of the text encoder to use, counted from the end: 1 is the last, 2 the one before it
    #[arg(long, help_heading = SAMPLING, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    clip_skip: u32,
    /// How much of the contrast that guidance adds is taken back, 0 to 1 [default: the model's own, or 0]
    #[arg(long, help_heading = SAMPLING, value_name = "SHARE", value_parser = finite, allow_negative_numbers = true)]
    guidance_rescale: Option<f64>,
    /// The share of the steps that are guided, 0 to 1 [default: the model's own, or 1]
    #[arg(long, help_heading = SAMPLING, value_name = "SHARE", value_parser = finite, allow_negative_numbers = true)]
    guidance_end: Option<f64>,
    /// What decodes the picture: full, or tiny for a tiny VAE, which is faster and nearly the same [default: full]
    #[arg(long, help_heading = SAMPLING, value_name = "WHICH")]
    vae: Option<String>,
    /// Picture to start from (PNG, JPEG, WebP, GIF, BMP or TIFF)
    #[arg(long, help_heading = PICTURES, value_name = "FILE")]
    init_image: Option<PathBuf>,
    /// Mask for --init-image: white areas are repainted, black areas are kept
    #[arg(long, help_heading = PICTURES, value_name = "FILE", requires = "init_image")]
    mask: Option<PathBuf>,
    /// Copy the kept areas of --init-image over the result, with the edge blurred by this many pixels [default:
    /// off, or 4 with --inpaint-area masked or --outpaint]
    #[arg(long, help_heading = PICTURES, value_name = "PX", requires = "init_image", allow_negative_numbers = true)]
    mask_blur: Option<u32>,
    /// How much of --init-image may change, 0 to 1 [default: 0.8]
    #[arg(long, help_heading = PICTURES, value_name = "SHARE", value_parser = finite, allow_negative_numbers = true)]
    prompt_strength: Option<f64>,
    /// How closely to follow --init-image, with InstructPix2Pix models [default: 1.5]
    #[arg(long, help_heading = PICTURES, value_name = "SCALE", requires = "init_image", value_parser = finite,
        allow_negative_numbers = true)]
    image_guidance: Option<f64>,
    /// ControlNet and the picture that it follows, as NAME=FILE; behind it further fields of the request:
    /// canny=house.png,weight=0.8,preprocess=canny. May be given up to four times
    #[arg(long, help_heading = PICTURES, value_name = "NAME=FILE", value_parser = ControlArg::parse)]
    controlnet: Vec<ControlArg>,
    #[command(flatten)]
    inpainting: InpaintingArgs,
    #[command(flatten)]
    hires: HiresArgs,
    /// LoRA: a file (.safetensors, .pt, .bin), or a name in --lora-dir; put more into the prompt as <lora:NAME:0.8>
    #[arg(long, help_heading = WORDS, value_name = "FILE|NAME")]
    lora: Option<String>,
    /// Strength of --lora, 0 to 1
    #[arg(long, help_heading = WORDS, value_name = "SHARE", default_value_t = 1.0, value_parser = finite, requires = "lora",
        allow_negative_numbers = true)]
    lora_scale: f64,
    /// Folder of LoRAs [default: loras in the data folder]
    #[arg(long, help_heading = FOLDERS, env = "STABLEHAND_LORA_DIR", value_name = "DIR")]
    lora_dir: Option<PathBuf>,
    /// Folder of ControlNets [default: controlnets in the data folder]
    #[arg(long, help_heading = FOLDERS, env = "STABLEHAND_CONTROLNET_DIR", value_name = "DIR")]
    controlnet_dir: Option<PathBuf>,
    /// Folder of textual inversions; prompts use them by name [default: embeddings in the data folder]
    #[arg(long, help_heading = FOLDERS, env = "STABLEHAND_EMBEDDINGS_DIR", value_name = "DIR")]
    embeddings_dir: Option<PathBuf>,
    /// Draw the prompts' wildcards by the seed: {a|b} is one of the two, __name__ a line of name.txt in --wildcard-dir
    #[arg(long, help_heading = WORDS)]
    wildcards: bool,
    /// Folder of wildcards [default: wildcards in the data folder]
    #[arg(long, help_heading = FOLDERS, env = "STABLEHAND_WILDCARD_DIR", value_name = "DIR")]
    wildcard_dir: Option<PathBuf>,
    /// Folder of upscalers [default: upscalers in the data folder]
    #[arg(long, help_heading = FOLDERS, env = "STABLEHAND_UPSCALER_DIR", value_name = "DIR")]
    upscaler_dir: Option<PathBuf>,
    /// Folder of tiny VAEs, for --vae tiny [default: tiny-vaes in the data folder]
    #[arg(long, help_heading = FOLDERS, env = "STABLEHAND_TINY_VAE_DIR", value_name = "DIR")]
    tiny_vae_dir: Option<PathBuf>,
    #[command(flatten, next_help_heading = FOLDERS)]
    folders: ModelsDirArgs,
}

pub(super) fn generate(args: &GenerateArgs) -> Result<(), Failure> {
    let model = open_model(args.model.as_deref(), Some(args.add_on_folders()), || args.folders.models_dir())?;
    let input = GenerationInput::parse(&args.request(model.description().native_side)?, model.rules())
        .map_err(|violations| Failure::Usage(in_flags(&violations, |field| args.typed(field))))?;
    if args.output == Output::Stdout && input.num_outputs > 1 {
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
    let runtime = Runtime::load(args.device)?.with_cpu(args.cpu.settings());
    if let Some(note) = runtime.note() {
        eprintln!("stablehand: {note}");
    }
    let mut pipeline = model.load(&runtime)?;
    for warning in pipeline.warnings() {
        eprintln!("stablehand: {}: {warning}", model.name());
    }
    let mut generation = pipeline.begin(&input, seed)?;
    let bar = progress_bar(generation.progress().1, "steps");
    while !generation.is_done() {
        pipeline.step(&mut [&mut generation])?;
        bar.set_position(u64::from(generation.progress().0));
    }
    let pictures = pipeline.finish(&generation)?;
    bar.finish_and_clear();
    for warning in generation.warnings() {
        eprintln!("stablehand: {}", with_flags(warning));
    }

    for (index, picture) in pictures.iter().enumerate() {
        if let Some(path) = args.output.write(picture, index, pictures.len())? {
            let (width, height) = (picture.image.width, picture.image.height);
            print(&format!("{}  seed {}  {width}×{height}\n", path.display(), picture.seed))?;
            if let Some(drawn) = &picture.prompts {
                print(&format!("    {}\n", drawn.prompt))?;
            }
        }
    }
    Ok(())
}

impl GenerateArgs {
    fn add_on_folders(&self) -> AddOnFolders {
        // Without a data folder, look in the working folder.
        let usual = usual_add_ons(&self.folders.data_dir().unwrap_or_default());
        let file = self.lora.as_deref().filter(|lora| name_of_file(lora).is_some()).map(PathBuf::from);
        AddOnFolders {
            loras: file.or_else(|| self.lora_dir.clone()).unwrap_or(usual.loras),
            controlnets: self.controlnet_dir.clone().unwrap_or(usual.controlnets),
            embeddings: self.embeddings_dir.clone().unwrap_or(usual.embeddings),
            wildcards: self.wildcard_dir.clone().unwrap_or(usual.wildcards),
            upscalers: self.upscaler_dir.clone().unwrap_or(usual.upscalers),
            tiny_vaes: self.tiny_vae_dir.clone().unwrap_or(usual.tiny_vaes),
            ..usual
        }
    }

    /// How the user gave what the request has in this field, where that is no flag of the same name.
    fn typed(&self, field: &str) -> Option<String> {
        let with_path = |flag: &str, path: &Option<PathBuf>| {
            path.as_ref().map(|path| format!("{flag} {}", path.display()))
        };
        match field {
            "prompt" => Some("the prompt".to_owned()),
            "init_image" => with_path("--init-image", &self.init_image),
            "mask" => with_path("--mask", &self.mask),
            "lora" => with_file("--lora", self.lora.as_ref()?),
            _ => match field.split_once('.')? {
                ("outpaint", side) => Some(format!("{side} in --outpaint")),
                (unit, field) => ControlArg::typed(&self.controlnet, unit, field),
            },
        }
    }

    /// The flags as a request's `input`, so that they are held to the same bounds.
    fn request(&self, native_side: u32) -> Result<Value, Failure> {
        let mut input = Map::new();
        input.insert("prompt".into(), json!(self.prompt));
        input.insert("negative_prompt".into(), json!(self.negative_prompt));
        input.insert("wildcards".into(), json!(self.wildcards));
        let is_named = self.width.is_some() || self.height.is_some();
        let usual = (is_named || !self.inpainting.takes_size_of_picture()).then_some(native_side);
        input.insert("width".into(), json!(self.width.or(usual)));
        input.insert("height".into(), json!(self.height.or(usual)));
        input.insert("num_outputs".into(), json!(self.num_outputs));
        input.insert("num_inference_steps".into(), json!(self.steps));
        input.insert("guidance_scale".into(), json!(self.guidance_scale));
        input.insert("guidance_rescale".into(), json!(self.guidance_rescale));
        input.insert("guidance_end".into(), json!(self.guidance_end));
        input.insert("scheduler".into(), json!(self.scheduler));
        self.sampling.write(&mut input);
        input.insert("seed".into(), json!(self.seed));
        input.insert("noise".into(), json!(self.noise));
        input.insert("vae".into(), json!(self.vae));
        input.insert("precision".into(), json!(self.precision));
        input.insert("clip_skip".into(), json!(self.clip_skip));
        input.insert("init_image".into(), json!(self.init_image.as_deref().map(base64_of).transpose()?));
        input.insert("mask".into(), json!(self.mask.as_deref().map(base64_of).transpose()?));
        input.insert("mask_blur".into(), json!(self.mask_blur));
        input.insert("prompt_strength".into(), json!(self.prompt_strength));
        input.insert("image_guidance_scale".into(), json!(self.image_guidance));
        input.insert("controlnet".into(), ControlArg::request(&self.controlnet)?);
        input.insert("hires".into(), self.hires.request());
        input.insert(
            "lora".into(),
            json!(self.lora.as_deref().map(|lora| name_of_file(lora).unwrap_or(lora))),
        );
        input.insert("lora_scale".into(), json!(self.lora.as_ref().map(|_| self.lora_scale)));
        self.inpainting.write_to(&mut input);
        Ok(Value::Object(input))
    }
}

/// The name of a LoRA that is given as a file.
fn name_of_file(lora: &str) -> Option<&str> {
    let path = Path::new(lora);
    path.file_name().filter(|_| path.is_file())?.to_str()
}

/// A flag whose value is a file of weights or a name in a folder, for sentences that say that there is no such name. None
/// if the value does not look like a file's.
pub(super) fn with_file(flag: &str, value: &str) -> Option<String> {
    let why = match Path::new(value).is_file() {
        true => "whose ending is not that of weights",
        false => "which is no file",
    };
    value.contains(['.', '/', '\\']).then(|| format!("{flag} {value}, {why}"))
}

/// A picture file as a request would carry it.
pub(super) fn base64_of(path: &Path) -> Result<String, Failure> {
    let cannot_read = |error: io::Error| Failure::Other(format!("cannot read {}: {error}", path.display()));
    // One byte more than is taken shows that there is too much.
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot_read)?;
    file.take(MAX_IMAGE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    Ok(STANDARD.encode(bytes))
}

/// A seed as a request has it. Bounds are checked with the request.
fn seed(text: &str) -> Result<Number, String> {
    let unsigned = text.parse::<u64>().map(Number::from);
    unsigned
        .or_else(|_| text.parse::<i64>().map(Number::from))
        .map_err(|_| format!("it must be a whole number from 0 to {}, or -1 for a random one", u64::MAX))
}

/// JSON, in whose form the request is checked, has no word for other numbers.
pub(super) fn finite(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    number.ok_or_else(|| "it must be a number".to_owned())
}

pub(super) fn progress_bar(steps: u32, unit: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = format!("{{bar:40}} {{pos}}/{{len}} {unit}  {{eta}} left");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(u64::from(steps)).with_style(style)
}
