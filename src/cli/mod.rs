//! The command line: one file a command, and one way to fail: a line on stderr and an exit code.

mod serve;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::app::Model;
use crate::config::{Config, ConfigError, ServeArgs};
use crate::worker::Engine;

/// Stable Diffusion as a service on one's own machine, in one binary.
#[derive(Parser)]
#[command(name = "stablehand", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "Without a command, stablehand serves: `stablehand --listen 127.0.0.1:9000` \
is `stablehand serve --listen 127.0.0.1:9000`.";

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API (the default)
    #[command(long_about = SERVE_ABOUT)]
    Serve(Box<ServeArgs>),
}

const SERVE_ABOUT: &str = "Serve the HTTP API: POST /v2/stable-diffusion-v1/run, poll /status, \
download the pictures. Each setting can come from the environment instead; a flag wins.";

/// Why a command ended, in one sentence for the operator.
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

/// Runs the command that `args` (the program's name first) ask for. `load` looks at the configured
/// model, quickly, and says how to make engines of it.
pub fn run<E, F, L>(args: impl IntoIterator<Item = OsString>, load: L) -> ExitCode
where
    E: Engine,
    F: Fn() -> Result<E, String> + Clone + Send + 'static,
    L: FnOnce(&Config) -> Result<Model<F>, String>,
{
    let outcome = match Cli::try_parse_from(with_default_command(args)) {
        Ok(Cli { command: Command::Serve(args) }) => serve::serve(*args, load),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            _ => Err(Failure::Usage(one_line(&error))),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("stablehand: {failure}");
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// Puts `serve` in where the first word is a flag of its own, or nothing.
fn with_default_command(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let first = args.get(1).and_then(|arg| arg.to_str());
    let of_no_command = ["-h", "--help", "-V", "--version"];
    if first.is_none_or(|first| first.starts_with('-') && !of_no_command.contains(&first)) {
        args.insert(args.len().min(1), "serve".into());
    }
    args
}

/// The sentence of a usage error, without the usage that follows it.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.trim_start_matches("error:").split_whitespace().collect();
    words.join(" ")
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

    #[test]
    fn usage_errors_are_one_line() {
        for line in ["stablehand nonsense", "stablehand --nonsense", "stablehand --retention soon"] {
            let error = Cli::try_parse_from(args(line)).err().unwrap();
            let sentence = one_line(&error);
            assert!(!sentence.is_empty() && !sentence.contains('\n'), "{sentence}");
        }
    }
}
