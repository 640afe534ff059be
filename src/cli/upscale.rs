//! `stablehand upscale`: a picture at a larger size, without a server.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use serde_json::json;

use super::Failure;
use super::flag_words::in_flags;
use super::generate::{Output, base64_of, finite, progress_bar, with_file};
use super::print::print;
use super::runtime::use_installed_runtimes;
use crate::config::{ModelsDirArgs, ThreadArgs, usual_add_ons};
use crate::diffusion::{Upscalers, decode_image};
use crate::domain::{GenerationInput, ImageSource, InputRules, Upscaler};
use crate::runtime::{DeviceChoice, Runtime};

#[derive(Debug, Args)]
pub(super) struct UpscaleArgs {
    /// Picture to enlarge (PNG, JPEG, WebP, GIF, BMP or TIFF)
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// File to write: .png, .jpg or .webp (without loss); - is a PNG on standard output
    #[arg(value_name = "OUT", value_parser = OsStringValueParser::new().try_map(Output::parse))]
    output: Output,
    /// Upscaler: a file (.safetensors, .pth), a name in --upscaler-dir, lanczos or nearest
    #[arg(long, value_name = "FILE|NAME", default_value = "lanczos")]
    model: String,
    /// Factor by which both sides grow, 1 to 8 [default: 4]
    #[arg(long, value_name = "FACTOR", value_parser = finite, allow_negative_numbers = true)]
    scale: Option<f64>,
    /// Width in pixels, instead of --scale; without --height, the shape stays
    #[arg(long, value_name = "PX", conflicts_with = "scale")]
    width: Option<u32>,
    /// Height in pixels, instead of --scale; with --width, the picture is cut
    #[arg(long, value_name = "PX", conflicts_with = "scale")]
    height: Option<u32>,
    /// Folder of upscalers [default: upscalers in the data folder]
    #[arg(long, env = "STABLEHAND_UPSCALER_DIR", value_name = "DIR")]
    upscaler_dir: Option<PathBuf>,
    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long, env = "STABLEHAND_DEVICE", default_value_t)]
    device: DeviceChoice,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    folders: ModelsDirArgs,
}

pub(super) fn upscale(args: &UpscaleArgs) -> Result<(), Failure> {
    use_installed_runtimes(&args.folders, args.device);
    let runtime = Runtime::load(args.device)?.with_cpu(args.threads.settings());
    if let Some(note) = runtime.note() {
        eprintln!("stablehand: {note}");
    }
    let file = PathBuf::from(&args.model);
    let (folder, name) = match file.file_name().filter(|_| file.is_file()).and_then(|name| name.to_str()) {
        Some(name) => (file.clone(), name),
        None => (args.folder(), args.model.as_str()),
    };
    let mut upscalers = Upscalers::open(folder, &runtime);
    let rules = InputRules { upscalers: upscalers.shelf(), ..InputRules::default() };
    let request = json!({
        "init_image": base64_of(&args.input)?,
        "upscale": { "model": name, "scale": args.scale, "width": args.width, "height": args.height },
    });
    let input = GenerationInput::parse(&request, &rules)
        .map_err(|violations| Failure::Usage(in_flags(&violations, |field| args.typed(field))))?;
    let (Some(upscale), Some(ImageSource::Bytes(bytes))) = (&input.upscale, &input.init_image) else {
        return Err(Failure::Usage("the picture to enlarge must be a file".to_owned()));
    };
    let picture = decode_image(bytes).map_err(|error| Failure::Other(error.to_string()))?;
    let mut upscaling = upscalers.begin(picture, upscale)?;
    let bar = progress_bar(upscaling.progress().1, "tiles");
    while !upscaling.is_done() {
        upscaling.step()?;
        bar.set_position(u64::from(upscaling.progress().0));
    }
    let picture = upscaling.finish(0)?;
    bar.finish_and_clear();
    if let Some(path) = args.output.write(&picture, 0, 1)? {
        let by = Upscaler::a1111_name(&upscale.upscaler);
        let (width, height) = (picture.image.width, picture.image.height);
        print(&format!("{}  {by}  {width}×{height}\n", path.display()))?;
    }
    Ok(())
}

impl UpscaleArgs {
    /// How the user gave what the request has in this field.
    fn typed(&self, field: &str) -> Option<String> {
        match field {
            "init_image" => Some(self.input.display().to_string()),
            field => {
                let field = field.strip_prefix("upscale.")?;
                let model = if field == "model" { with_file("--model", &self.model) } else { None };
                model.or_else(|| Some(format!("--{field}")))
            }
        }
    }

    fn folder(&self) -> PathBuf {
        // Without a data folder, look in the working folder.
        let usual = || usual_add_ons(&self.folders.data_dir().unwrap_or_default()).upscalers;
        self.upscaler_dir.clone().unwrap_or_else(usual)
    }
}
