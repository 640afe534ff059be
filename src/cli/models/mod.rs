//! `stablehand models`: pulls, lists, checks and removes models. It also decides what `--model` means everywhere.

mod check;
mod list;
mod pull;
mod rm;

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::Failure;
use crate::config::ConfigError;
use crate::diffusion::{AddOnFolders, Model};
use crate::hub::{HubError, ModelsDir};

#[derive(Debug, Args)]
pub struct ModelsArgs {
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// Download a model from a hub or a URL
    #[command(long_about = pull::ABOUT)]
    Pull(pull::PullArgs),
    /// List the pulled models, with their names and paths for --model
    List(list::ListArgs),
    /// Remove a pulled model
    Rm(rm::RmArgs),
    /// Show what a model contains and test whether it can draw
    #[command(long_about = check::ABOUT)]
    Check(check::CheckArgs),
}

pub(super) fn models(args: &ModelsArgs) -> Result<(), Failure> {
    match &args.command {
        ModelsCommand::Pull(args) => pull::pull(args),
        ModelsCommand::List(args) => list::list(args),
        ModelsCommand::Rm(args) => rm::rm(args),
        ModelsCommand::Check(args) => check::check(args),
    }
}

/// Opens the model that `--model` means: the file or folder at this path, otherwise the pulled model of this name.
/// Without `--model` it is the built-in model. `models_dir` is called only for a name.
pub(super) fn open_model(
    model: Option<&Path>,
    add_ons: Option<AddOnFolders>,
    models_dir: impl FnOnce() -> Result<PathBuf, ConfigError>,
) -> Result<Model, Failure> {
    let name = model.filter(|path| !path.exists() && could_be_a_name(path)).and_then(Path::to_str);
    let Some(name) = name else { return Ok(Model::open(model, add_ons)?) };
    let pulled = ModelsDir::new(models_dir()?).find(name)?.ok_or_else(|| Failure::Other(unknown(name)))?;
    Ok(Model::open(Some(&pulled.path()), add_ons)?)
}

fn unknown(name: &str) -> String {
    let pull = match name.contains('/') {
        true => format!(", `stablehand models pull {name}` may download it"),
        false => String::new(),
    };
    format!(
        "there is no model {name}, neither as a file or folder nor as a pulled model: `stablehand models list` shows the \
         pulled models{pull}"
    )
}

/// Whether the text may be the name of a pulled model, because it does not look like a path.
fn could_be_a_name(path: &Path) -> bool {
    path.is_relative() && !path.starts_with(".") && !path.starts_with("..") && !path.starts_with("~")
}

pub(super) fn print(text: &impl fmt::Display) -> Result<(), Failure> {
    write!(io::stdout(), "{text}")
        .map_err(|error| Failure::Other(format!("cannot write to standard output: {error}")))
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error.is_usage() {
            true => Self::Usage(error.to_string()),
            false => Self::Other(error.to_string()),
        }
    }
}
