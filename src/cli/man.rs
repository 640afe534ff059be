//! `stablehand man`: the manual, made from the same texts as `--help`.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command};
use clap_mangen::Man;

use super::Failure;
use super::print::write;

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Folder to write a page for every command to, such as ~/.local/share/man/man1 [default: print the main page]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn man(args: &ManArgs, command: Command) -> Result<(), Failure> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        // Writing to memory does not fail.
        let _ = Man::new(command).render(&mut page);
        return write(&page);
    };
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command, dir))
        .map_err(|error| Failure::Other(format!("cannot write the pages to {}: {error}", dir.display())))
}
