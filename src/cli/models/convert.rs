//! `stablehand models convert`: writes weights in one file as `.safetensors`, without running what the file holds.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::Failure;
use crate::cli::print::print;
use crate::cli::signals::stop_flag;
use crate::diffusion::{Conversion, FileError};
use crate::size_text::size_text;

pub(super) const ABOUT: &str = "Write weights in one file (.ckpt, .pt, .bin, .pth or .safetensors: a checkpoint, a VAE, \
a LoRA, a textual inversion) as .safetensors. Nothing that the file holds is run: a file that asks for more than tensors \
is refused. Tensors keep their names and types, and the file keeps its metadata. An existing file is never overwritten.";

#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// The file to read
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT.safetensors")]
    to: PathBuf,
    /// Write 32-bit and 64-bit floating-point numbers in half precision
    #[arg(long)]
    half: bool,
}

const BAR: &str = "{bar:40} {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";
const BUFFER: usize = 1 << 20;
const STOPPED: &str = "stopped: no file was written";
/// The most names in one sentence.
const FEW: usize = 5;

pub(super) fn convert(args: &ConvertArgs) -> Result<(), Failure> {
    let to = &args.to;
    if to.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Failure::Usage(format!("{} should end with .safetensors", to.display())));
    }
    if to.symlink_metadata().is_ok() {
        return Err(exists(to));
    }
    let conversion =
        Conversion::open(&args.from, args.half).map_err(|error| Failure::Other(error.to_string()))?;
    write_new(&conversion, to, &stop_flag())?;
    print(&report(to, &conversion))
}

fn exists(to: &Path) -> Failure {
    Failure::Other(format!("{} exists: remove it first, or name another file", to.display()))
}

/// Writes the new file under another name and gives it its own when it is whole. Leaves nothing where that fails, or where
/// `stop` is raised.
fn write_new(conversion: &Conversion, to: &Path, stop: &AtomicBool) -> Result<(), Failure> {
    let unwritable = |error: io::Error| Failure::Other(format!("cannot write {}: {error}", to.display()));
    let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".stablehand-convert-");
    // As any new file, not only for its owner.
    #[cfg(unix)]
    builder.permissions(<Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
    let mut new = builder.tempfile_in(folder).map_err(unwritable)?;
    let bar = bar(conversion.bytes());
    let mut writer = BufWriter::with_capacity(BUFFER, new.as_file_mut());
    let progress = |bytes| {
        bar.inc(bytes);
        match stop.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    };
    conversion.write(&mut writer, progress).map_err(|error| match error {
        _ if stop.load(Ordering::SeqCst) => Failure::Other(STOPPED.to_owned()),
        FileError::Unwritable(reason) => Failure::Other(format!("cannot write {}: {reason}", to.display())),
        unreadable => Failure::Other(unreadable.to_string()),
    })?;
    writer.flush().map_err(unwritable)?;
    drop(writer);
    bar.finish_and_clear();
    new.as_file().sync_all().map_err(unwritable)?;
    new.persist_noclobber(to).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => exists(to),
        _ => unwritable(error.error),
    })?;
    Ok(())
}

fn bar(bytes: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style)
}

fn report(to: &Path, conversion: &Conversion) -> String {
    let tensors = match conversion.tensors() {
        1 => "1 tensor".to_owned(),
        many => format!("{many} tensors"),
    };
    let mut text = format!("{}: {tensors}, {}\n", to.display(), size_text(conversion.bytes()));
    for (names, sentence) in [
        (
            conversion.kept_full(),
            "in full precision, because half precision has no numbers so large or so small",
        ),
        (conversion.not_read(), "left out, because they are no weights"),
    ] {
        if !names.is_empty() {
            let more = if names.len() > FEW { ", …" } else { "" };
            let few = names.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "  {sentence}: {few}{more}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_conversion_that_is_stopped_leaves_nothing() {
        let from = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lora/kohya.safetensors");
        let conversion = Conversion::open(Path::new(from), false).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("fox.safetensors");
        let stop = AtomicBool::new(true);
        let stopped = write_new(&conversion, &to, &stop).unwrap_err();
        assert_eq!(stopped.to_string(), STOPPED);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        stop.store(false, Ordering::SeqCst);
        write_new(&conversion, &to, &stop).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_new(&conversion, &to, &stop).unwrap_err().to_string().contains("exists"));
    }
}
