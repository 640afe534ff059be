//! The command line. Each command has its own file. All of them fail in the same way: one line on stderr and an exit
//! code.

mod backup;
mod bench;
mod completions;
mod controlnets;
mod doctor;
mod drain;
mod flag_words;
mod generate;
mod health;
mod jobs;
mod man;
mod mcp;
mod models;
mod open_model;
mod paragraph;
mod print;
mod remote;
mod runtime;
mod serve;
mod signals;
mod upscale;
mod usage;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::flag_words::with_flags;
use crate::config::{ConfigError, ConfigFile, ServeArgs};
use crate::diffusion::{DiffusionError, ModelError};
use crate::hub::HubError;
use crate::runtime::RuntimeError;
use usage::one_line;

/// Stable Diffusion as a service on your own machine, in one binary
#[derive(Parser)]
#[command(name = "stablehand", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Without a command, stablehand runs `serve`: `stablehand --listen 127.0.0.1:9000` \
is `stablehand serve --listen 127.0.0.1:9000`. `stablehand serve --help` lists the server's settings.";

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API (the default)
    #[command(long_about = SERVE_ABOUT)]
    Serve(Box<ServeArgs>),
    /// Draw pictures without a server
    Generate(Box<generate::GenerateArgs>),
    /// Give a chat program tools that draw
    #[command(long_about = mcp::ABOUT)]
    Mcp(Box<mcp::McpArgs>),
    /// Enlarge a picture without a server
    Upscale(Box<upscale::UpscaleArgs>),
    /// Download, list, check, convert and remove models
    Models(models::ModelsArgs),
    /// Download, list and remove ControlNets
    Controlnets(controlnets::ControlNetsArgs),
    /// Install, list and remove ONNX Runtime for NVIDIA cards
    Runtime(runtime::RuntimeArgs),
    /// Say whether the server would work here, and on which device
    #[command(long_about = doctor::ABOUT)]
    Doctor(Box<doctor::DoctorArgs>),
    /// Ask a running server whether it is ready
    #[command(long_about = health::ABOUT)]
    Health(health::HealthArgs),
    /// List, show and cancel the jobs of a running server
    Jobs(jobs::JobsArgs),
    /// Send new jobs to other servers, and finish what is here
    #[command(long_about = drain::ABOUT)]
    Drain(drain::DrainArgs),
    /// Copy jobs and pictures into one file
    #[command(long_about = backup::BACKUP_ABOUT)]
    Backup(backup::BackupArgs),
    /// Make a data folder from a backup
    #[command(long_about = backup::RESTORE_ABOUT)]
    Restore(backup::RestoreArgs),
    /// Check a data folder
    #[command(long_about = backup::CHECK_ABOUT)]
    Check(backup::CheckArgs),
    /// Measure what this machine draws
    #[command(long_about = bench::ABOUT)]
    Bench(bench::BenchArgs),
    /// Print completions for a shell
    #[command(long_about = completions::ABOUT)]
    Completions(completions::CompletionsArgs),
    /// Print the manual, or write a page for every command
    Man(man::ManArgs),
    /// Print the licences of stablehand and of everything inside the binary
    Licenses,
}

const SERVE_ABOUT: &str = "Serve the HTTP API: post a job to /v2/stable-diffusion-v1/run, poll /status, \
download the pictures. Every setting can also come from the environment or from a configuration file. A flag wins over \
the environment, and the environment over the file.";

/// Why a command failed, in one sentence for the operator.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Other(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<DiffusionError> for Failure {
    fn from(error: DiffusionError) -> Self {
        Self::Other(with_flags(&error.to_string()))
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error.is_usage() {
            true => Self::Usage(error.to_string()),
            false => Self::Other(error.to_string()),
        }
    }
}

/// Runs the command in `args`, which begin with the name of the program.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = with_default_command(args);
    let outcome = match Cli::try_parse_from(&args) {
        Ok(Cli { command }) => obey(command, &args),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            // A command of commands, without one.
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                return ExitCode::from(2);
            }
            _ => Err(Failure::Usage(one_line(&error))),
        },
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        // The report has said why.
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("stablehand: {failure}");
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// Runs a command. False: what it reports is bad.
fn obey(command: Command, args: &[OsString]) -> Result<bool, Failure> {
    match command {
        Command::Doctor(parsed) => {
            let json = parsed.json();
            let settings = with_file(parsed.serve, &as_serve(args))?;
            return doctor::doctor(json, settings);
        }
        Command::Models(args) => return models::models(&args),
        Command::Health(args) => return health::health(&args),
        Command::Drain(args) => return drain::drain(&args),
        Command::Check(args) => return backup::check(&args),
        Command::Serve(parsed) => serve::serve(with_file(*parsed, args)?),
        Command::Mcp(parsed) => {
            let (url, key) = parsed.server();
            // A running server has its own settings.
            let settings =
                if url.is_some() { parsed.serve } else { with_file(parsed.serve, &as_serve(args))? };
            mcp::mcp(url, key, settings)
        }
        Command::Generate(args) => generate::generate(&args),
        Command::Upscale(args) => upscale::upscale(&args),
        Command::Controlnets(args) => controlnets::controlnets(&args),
        Command::Runtime(args) => runtime::runtime(&args),
        Command::Jobs(args) => jobs::jobs(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Completions(args) => completions::completions(&args, Cli::command()),
        Command::Man(args) => man::man(&args, Cli::command()),
        Command::Licenses => licenses(),
    }?;
    Ok(true)
}

const LICENSES: &str = "stablehand is licensed under MIT OR Apache-2.0.\n";

fn licenses() -> Result<(), Failure> {
    let mut text = LICENSES.to_owned();
    text.push_str("\n==== The built-in model ====\n\n");
    text.push_str(include_str!("../../models/tiny-sd/NOTICE"));
    text.push('\n');
    text.push_str(include_str!("../../models/tiny-sd/LICENSE-APACHE"));
    #[cfg(feature = "embed-onnxruntime")]
    {
        text.push_str("\n==== ONNX Runtime (MIT, Copyright (c) Microsoft Corporation) ====\n\n");
        text.push_str(&crate::runtime::notices());
    }
    print::print(&text)
}

/// Parses the arguments again, with the values from the configuration file as the defaults.
fn with_file(parsed: ServeArgs, args: &[OsString]) -> Result<ServeArgs, Failure> {
    let Some(path) = &parsed.config else { return Ok(parsed) };
    let file = ConfigFile::read(path)?;
    let command = Cli::command();
    let serve = command.find_subcommand("serve").cloned().unwrap_or_default();
    let serve = file.lay_under(serve)?;
    let reread = command.mut_subcommand("serve", |_| serve).try_get_matches_from(args);
    match reread.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(Cli { command: Command::Serve(args) }) => Ok(ServeArgs { endpoints: file.endpoints, ..*args }),
        Ok(_) => Ok(parsed),
        Err(error) => Err(Failure::Usage(one_line(&error))),
    }
}

/// The arguments of `doctor` as those of the server that it speaks of.
fn as_serve(args: &[OsString]) -> Vec<OsString> {
    let mut args: Vec<_> = args.iter().filter(|arg| *arg != "--json").cloned().collect();
    if let Some(command) = args.get_mut(1) {
        *command = "serve".into();
    }
    args
}

/// Inserts `serve` if there is no command.
fn with_default_command(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let first = args.get(1).and_then(|arg| arg.to_str());
    let without_command = ["-h", "--help", "-V", "--version"];
    if first.is_none_or(|first| first.starts_with('-') && !without_command.contains(&first)) {
        args.insert(args.len().min(1), "serve".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        with_default_command(line.split(' ').map(OsString::from))
    }

    #[test]
    fn serve_is_the_default_command() {
        assert_eq!(args("stablehand"), ["stablehand", "serve"]);
        assert_eq!(
            args("stablehand --listen 127.0.0.1:1"),
            ["stablehand", "serve", "--listen", "127.0.0.1:1"]
        );
        assert_eq!(args("stablehand serve --auth off"), ["stablehand", "serve", "--auth", "off"]);
        for asked in ["stablehand --help", "stablehand -V", "stablehand generate"] {
            assert_eq!(args(asked).len(), 2, "{asked}");
        }
    }
}
