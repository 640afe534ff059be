//! `stablehand completions`: what a shell needs to complete commands, flags and values.

use clap::{Args, Command};
use clap_complete::Shell;

use super::Failure;
use super::print::write;

pub(super) const ABOUT: &str = "Print completions for a shell. For bash: stablehand completions bash > \
~/.local/share/bash-completion/completions/stablehand. For zsh: write them to a file _stablehand in a folder of $fpath. \
For fish: stablehand completions fish > ~/.config/fish/completions/stablehand.fish.";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "stablehand", &mut script);
    write(&script)
}
