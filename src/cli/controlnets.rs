//! `stablehand controlnets`: pulls, lists and removes ControlNets.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Failure;
use super::models::pull::{pull_into, sha256};
use super::print::print;
use crate::config::ControlNetDirArgs;
use crate::diffusion::ControlNetFolder;
use crate::hub::{Hub, HubError, ModelRef, ModelsDir};
use crate::size_text::size_text;

const PULL: &str = "Download a ControlNet for Stable Diffusion v1 from a hub or a URL: a repository of diffusers \
(lllyasviel/sd-controlnet-canny), or one file (comfyanonymous/ControlNet-v1-1_fp16_safetensors:control_v11p_sd15_canny_fp16.safetensors). \
Everything else is as with `stablehand models pull`.";

#[derive(Debug, Args)]
pub struct ControlNetsArgs {
    #[command(subcommand)]
    command: ControlNetsCommand,
}

#[derive(Debug, Subcommand)]
enum ControlNetsCommand {
    /// Download a ControlNet from a hub or a URL
    #[command(long_about = PULL)]
    Pull(PullArgs),
    /// List the ControlNets, by the names that requests use
    List(ListArgs),
    /// Remove a pulled ControlNet
    Rm(RmArgs),
}

#[derive(Debug, Args)]
struct PullArgs {
    /// ORG/NAME, ORG/NAME@REVISION, ORG/NAME:FILE, ORG/NAME:FOLDER, a link to one of them, or the URL of a file of weights
    controlnet: String,
    /// Expected SHA-256 of the file, in hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Option<String>,
    #[command(flatten)]
    folders: ControlNetDirArgs,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    folders: ControlNetDirArgs,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// Name or path of a pulled ControlNet, or name of an unfinished pull
    name: String,
    #[command(flatten)]
    folders: ControlNetDirArgs,
}

pub(super) fn controlnets(args: &ControlNetsArgs) -> Result<(), Failure> {
    match &args.command {
        ControlNetsCommand::Pull(args) => pull(args),
        ControlNetsCommand::List(args) => list(args),
        ControlNetsCommand::Rm(args) => rm(args),
    }
}

fn pull(args: &PullArgs) -> Result<(), Failure> {
    let hub = Hub::from_environment()?.for_controlnets();
    let reference = ModelRef::parse(&args.controlnet, hub.base())?;
    let path = args.folders.controlnet_dir()?;
    let (pulled, verb) = pull_into(&ModelsDir::new(path.clone()), &hub, &reference, args.sha256.as_deref())?;
    let (name, size) = (&pulled.manifest.name, size_text(pulled.manifest.bytes()));
    // By the path of the weights, which is all that the server goes by.
    let here = ControlNetFolder::new(path, Duration::ZERO).files();
    let used = here.iter().find(|file| file.path.starts_with(pulled.path())).map_or(name, |file| &file.name);
    print(&format!("{name} {verb} ({size}): requests use it as {used}\n"))
}

fn list(args: &ListArgs) -> Result<(), Failure> {
    let path = args.folders.controlnet_dir()?;
    let files = ControlNetFolder::new(path.clone(), Duration::ZERO).files();
    let mut text = String::new();
    if files.is_empty() {
        let _ = writeln!(
            text,
            "no ControlNets in {} yet: pull one with `stablehand controlnets pull ORG/NAME`",
            path.display()
        );
    }
    let width = files.iter().map(|file| file.name.chars().count()).max().unwrap_or(0).max(4);
    if !files.is_empty() {
        let _ = writeln!(text, "{:<width$}  {:>8}  PATH", "NAME", "SIZE");
    }
    for file in &files {
        let _ =
            writeln!(text, "{:<width$}  {:>8}  {}", file.name, size_text(file.bytes), file.path.display());
    }
    for pull in ModelsDir::new(path).unfinished()? {
        let _ = writeln!(
            text,
            "unfinished: {} ({} so far): pull it again to resume, or remove it with `stablehand controlnets rm`",
            pull.name,
            size_text(pull.bytes)
        );
    }
    print(&text)
}

fn rm(args: &RmArgs) -> Result<(), Failure> {
    let removed = ModelsDir::new(args.folders.controlnet_dir()?).remove(&args.name);
    let (name, bytes) = removed.map_err(|error| match error {
        HubError::NotPulled { name, similar } => {
            let meant = similar.map(|similar| format!(" (did you mean {similar}?)")).unwrap_or_default();
            Failure::Other(format!(
                "no ControlNet '{name}' has been pulled{meant}: `stablehand controlnets list` shows what is there"
            ))
        }
        error => error.into(),
    })?;
    print(&format!("removed {name} ({})\n", size_text(bytes)))
}
