//! `stablehand backup`, `stablehand restore` and `stablehand check`: the data folder as a file, a data folder from such a
//! file, and what is in a data folder.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::print::print;
use crate::config::DataDirArgs;
use crate::secrets::{self, SecretError};
use crate::size_text::size_text;
use crate::store::{self, BackupError, Findings, Restore, StoreError};

pub(super) const BACKUP_ABOUT: &str = "Copy the jobs and pictures of the data folder into one file, also while a server uses \
it. Models, LoRAs and runtimes are not in it. The file holds prompts and pictures until you delete it: the server deletes \
only its own.";
pub(super) const RESTORE_ABOUT: &str = "Make the job database of an empty data folder from a backup. Jobs whose time is over \
are deleted at the next start.";
pub(super) const CHECK_ABOUT: &str = "Check the job database of a data folder, also while a server uses it, and say what is in \
it. Changes nothing. The exit code is 0 if nothing is wrong.";

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// File to write; it must not exist
    file: PathBuf,
    /// Include the API key, the key that signs picture URLs, and the webhook secret
    #[arg(long)]
    secrets: bool,
    #[command(flatten)]
    folder: DataDirArgs,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// Backup to restore
    file: PathBuf,
    #[command(flatten)]
    folder: DataDirArgs,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    folder: DataDirArgs,
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<SecretError> for Failure {
    fn from(error: SecretError) -> Self {
        Self::Other(error.to_string())
    }
}

pub(super) fn backup(args: &BackupArgs) -> Result<(), Failure> {
    let dir = args.folder.data_dir()?;
    let secrets = if args.secrets { secrets::all(&dir)? } else { Vec::new() };
    let bytes = store::back_up(&dir, &args.file, &secrets)?;
    let with = if secrets.is_empty() { "without secrets" } else { "with secrets: keep it like a key" };
    print(&format!("{}  {}, {with}\n", args.file.display(), size_text(bytes)))
}

pub(super) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let dir = args.folder.data_dir()?;
    let restore = Restore::begin(&args.file, &dir, &secrets::FILES)?;
    secrets::put_back(&restore.staging(), restore.secrets())?;
    let has_keys = !restore.secrets().is_empty();
    restore.finish()?;
    let with = if has_keys { ", with its keys" } else { "; the next start makes new keys" };
    print(&format!("restored {} into {}{with}\n", args.file.display(), dir.display()))
}

/// Prints what is in the folder, and returns whether nothing is wrong.
pub(super) fn check(args: &CheckArgs) -> Result<bool, Failure> {
    let dir = args.folder.data_dir()?;
    if !dir.is_dir() {
        return Err(Failure::Other(format!("{} is no folder", dir.display())));
    }
    let Some(findings) = store::check(&dir)? else {
        print(&format!("{} has no job database yet\n", dir.display()))?;
        return Ok(true);
    };
    print(&format!("{}{}", dir.display(), report(&findings)))?;
    Ok(findings.faults.is_empty())
}

fn report(findings: &Findings) -> String {
    let Findings { version, current, in_use, jobs, contents, bytes, faults } = findings;
    let mut text = String::new();
    let used = if *in_use { ", in use by a server" } else { "" };
    let behind =
        if version < current { format!(", which the next start brings to {current}") } else { String::new() };
    let _ = writeln!(text, ": schema {version}{behind}{used}");
    for (endpoint, counted, count) in jobs {
        let what = if counted == "RETRIED" { "retries, ever" } else { counted };
        let _ = writeln!(text, "{count:>8}  {endpoint}  {what}");
    }
    let _ = writeln!(text, "{contents:>8}  inputs, pictures and the like, {}", size_text(*bytes));
    for fault in faults {
        let _ = writeln!(text, "FAULT     {fault}");
    }
    let verdict =
        if faults.is_empty() { "nothing is wrong" } else { "the database is damaged: restore a backup" };
    let _ = writeln!(text, "{verdict}");
    text
}
