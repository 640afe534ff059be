//! `stablehand models pull`: downloads a model into the models folder. It shows a progress bar at a terminal, and lines
//! elsewhere.

use std::cell::Cell;
use std::io::{self, IsTerminal as _};

use clap::Args;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::Failure;
use crate::cli::print::print;
use crate::cli::signals::exit_on_signal;
use crate::config::{ModelsDirArgs, TinyVaeDirArgs};
use crate::domain::Clock;
use crate::hub::{self, Hub, HubCache, ModelRef, ModelsDir, PullProgress, Pulled, PulledModel};
use crate::size_text::size_text;

pub(super) const ABOUT: &str = "Download a model from a hub or a URL: the files of a repository that stablehand can use \
(half precision if there is a choice), or a file of weights (.safetensors, .ckpt, .pt, .bin). Interrupted downloads \
resume when you run the command again, and checksums are verified. A link from the browser's address bar means what its page shows. Set HF_ENDPOINT to use \
another hub than https://huggingface.co, and HF_TOKEN for private and gated models; it is sent only to the hub. For other \
sites, set STABLEHAND_DOWNLOAD_TOKEN; it is sent only to the host of the URL, as a Bearer token.";

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// ORG/NAME, ORG/NAME@REVISION, ORG/NAME:FILE, ORG/NAME:FOLDER, a link to one of them, or the URL of a file of weights
    /// (.safetensors, .ckpt, .pt, .bin)
    model: String,
    /// Expected SHA-256 of the file, in hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Option<String>,
    /// It is a tiny VAE, such as madebyollin/taesd, for "vae": "tiny"
    #[arg(long)]
    tiny_vae: bool,
    #[command(flatten)]
    tiny_vaes: TinyVaeDirArgs,
    #[command(flatten)]
    folders: ModelsDirArgs,
}

pub(super) fn pull(args: &PullArgs) -> Result<(), Failure> {
    let hub = Hub::from_environment()?;
    let reference = ModelRef::parse(&args.model, hub.base())?;
    if args.tiny_vae {
        return pull_tiny_vae(args, hub, &reference);
    }
    let models = ModelsDir::new(args.folders.models_dir()?);
    tell_of_the_cache(&reference);
    let (model, verb) = pull_into(&models, &hub, &reference, args.sha256.as_deref())?;
    let manifest = &model.manifest;
    if hub::is_lora(&model.path()) {
        models.remove(&manifest.name)?;
        return Err(Failure::Other(format!(
            "{} is a LoRA and no model, so it was not kept: download its file into --lora-dir, and name it in the prompt as \
             <lora:NAME:0.8>",
            manifest.name
        )));
    }
    let size = size_text(manifest.bytes());
    print(&format!(
        "{} {verb} ({}, {size}): use it with --model {}\n",
        manifest.name,
        manifest.form(),
        quoted(&manifest.name)
    ))
}

fn pull_tiny_vae(args: &PullArgs, hub: Hub, reference: &ModelRef) -> Result<(), Failure> {
    let folder = ModelsDir::new(args.tiny_vaes.tiny_vae_dir(|| args.folders.data_dir())?);
    let (model, verb) = pull_into(&folder, &hub.for_tiny_vaes(), reference, args.sha256.as_deref())?;
    let manifest = &model.manifest;
    let size = size_text(manifest.bytes());
    print(&format!("{} {verb} ({size}): use it with --vae tiny or \"vae\": \"tiny\"\n", manifest.name))
}

/// Pulls into a folder. Returns what is there now, and what has become of it.
pub(in crate::cli) fn pull_into(
    folder: &ModelsDir,
    hub: &Hub,
    reference: &ModelRef,
    sha256: Option<&str>,
) -> Result<(PulledModel, &'static str), Failure> {
    exit_on_signal("what can be resumed is kept; run the command again to resume");
    let now_ms = Clock::system().now().0;
    let progress = Progress::default();
    let pulled = hub.pull(reference, sha256, folder, now_ms, &progress);
    drop(progress);
    Ok(match pulled? {
        Pulled::New(model) => (model, "has been pulled"),
        Pulled::Current(model) => (model, "is up to date"),
    })
}

/// Says that the model is on this machine already, if the hub's own programs have downloaded it.
fn tell_of_the_cache(reference: &ModelRef) {
    let name = match reference {
        ModelRef::Url(_) => return,
        name => name.to_string(),
    };
    if let Some(Ok(Some(cached))) = HubCache::of_this_user().map(|cache| cache.find(&name)) {
        eprintln!(
            "{} is also in the cache at {}: --model {} uses it from there if it is not pulled",
            cached.name,
            cached.path.display(),
            quoted(&cached.name)
        );
    }
}

/// The name as a shell reads it: in quotation marks if it has a space.
fn quoted(name: &str) -> String {
    if name.contains(' ') { format!("'{}'", name.replace('\'', r"'\''")) } else { name.to_owned() }
}

pub(in crate::cli) fn sha256(text: &str) -> Result<String, String> {
    hub::sha256_text(text).ok_or_else(|| "it should be 64 hexadecimal digits".to_owned())
}

/// Shows a bar at a terminal, and lines on standard error elsewhere.
#[derive(Default)]
struct Progress {
    bar: Cell<Option<ProgressBar>>,
    total: Cell<Option<u64>>,
    shown_tenths: Cell<u64>,
}

const BAR: &str = "{bar:40} {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
const SPINNER: &str = "{spinner} {decimal_bytes}  {decimal_bytes_per_sec}";
/// Below this size, one line per file is enough.
const LARGE: u64 = 100_000_000;

impl Progress {
    fn say(&self, line: &str) {
        match self.with_bar(|bar| bar.suspend(|| eprintln!("{line}"))) {
            Some(()) => {}
            None => eprintln!("{line}"),
        }
    }

    fn with_bar<T>(&self, act: impl FnOnce(&ProgressBar) -> T) -> Option<T> {
        let bar = self.bar.take()?;
        let outcome = act(&bar);
        self.bar.set(Some(bar));
        Some(outcome)
    }
}

impl PullProgress for Progress {
    fn begin(&self, name: &str, files: usize, bytes: Option<u64>) {
        let count = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
        let size = bytes.map(|bytes| format!(", {}", size_text(bytes))).unwrap_or_default();
        self.say(&format!("pulling {name}: {count}{size}"));
        self.total.set(bytes);
        if io::stderr().is_terminal() {
            let (bar, template) = match bytes {
                Some(bytes) => (ProgressBar::new(bytes), BAR),
                None => (ProgressBar::no_length(), SPINNER),
            };
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar.set(Some(bar.with_style(style).with_finish(ProgressFinish::AndClear)));
        }
    }

    fn position(&self, bytes: u64) {
        if self.with_bar(|bar| bar.set_position(bytes)).is_some() {
            return;
        }
        let Some(total) = self.total.get().filter(|total| *total >= LARGE) else { return };
        let tenths = bytes.saturating_mul(10) / total;
        if tenths > self.shown_tenths.get() && tenths < 10 {
            self.shown_tenths.set(tenths);
            self.say(&format!("{} of {}", size_text(bytes), size_text(total)));
        }
    }

    fn file(&self, path: &str, bytes: u64) {
        self.say(&format!("  {path}  {}", size_text(bytes)));
    }

    fn note(&self, sentence: &str) {
        self.say(sentence);
    }
}
