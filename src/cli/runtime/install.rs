//! `stablehand runtime install`: announces the downloads and their licences, shows progress, and names the next step.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::{Failure, RuntimeKind, print};
use crate::cli::paragraph::wrap;
use crate::cli::signals::stop_flag;
use crate::config::DataDirArgs;
use crate::runtime::{
    CUDA_PACKAGES, CUDA_VERSION, InstallProgress, Installed, InstalledRuntime, Licence, Package, RuntimesDir,
    download_bytes, install_cuda, installed_bytes, why_no_card,
};
use crate::size_text::size_text;

pub(super) const ABOUT: &str = "Download the ONNX Runtime for NVIDIA cards and NVIDIA's libraries with pip, check their \
SHA-256, and keep them in the data folder, where --device auto finds them. If the download breaks off, run the command \
again: complete packages are kept, and pip downloads the one that was under way from its beginning. NVIDIA's libraries are \
proprietary: by downloading them you accept NVIDIA's licence terms.";

#[derive(Debug, Args)]
pub(super) struct InstallArgs {
    /// Which runtime
    runtime: RuntimeKind,
    #[command(flatten)]
    folder: DataDirArgs,
}

pub(super) fn install(args: &InstallArgs) -> Result<(), Failure> {
    let RuntimeKind::Cuda = args.runtime;
    let runtimes = RuntimesDir::in_data_dir(&args.folder.data_dir()?);
    let progress = Progress::new(runtimes.path(), stop_flag());
    let installed = install_cuda(&runtimes, &progress);
    drop(progress);
    match installed.map_err(|error| Failure::Other(error.to_string()))? {
        Installed::New(runtime) => print(&next(&runtime, "is installed")),
        Installed::Before(runtime) => print(&next(&runtime, "is installed already")),
    }
}

/// One line with the result and the next step.
fn next(runtime: &InstalledRuntime, verb: &str) -> String {
    let what = format!("CUDA runtime {} {verb} ({})", runtime.manifest.version, size_text(runtime.bytes()));
    match why_no_card() {
        None => format!(
            "{what}: start `stablehand --device auto` (auto is the default), and it draws on the card\n"
        ),
        Some(reason) => format!("{what}, and not used yet: {reason}. `stablehand doctor` says more\n"),
    }
}

/// Prints the announcement before the first download, then shows progress on standard error: a bar at a terminal,
/// otherwise lines.
struct Progress<'a> {
    folder: &'a Path,
    stop: Arc<AtomicBool>,
    bar: Cell<Option<ProgressBar>>,
    has_begun: Cell<bool>,
}

const BAR: &str = "{bar:30} {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left";

impl<'a> Progress<'a> {
    fn new(folder: &'a Path, stop: Arc<AtomicBool>) -> Self {
        Self { folder, stop, bar: Cell::new(None), has_begun: Cell::new(false) }
    }

    fn begin(&self) {
        if self.has_begun.replace(true) {
            return;
        }
        eprint!("{}", announcement(self.folder, why_no_card().as_deref()));
        if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(download_bytes()).with_style(style);
            self.bar.set(Some(bar.with_finish(ProgressFinish::AndClear)));
        }
    }

    fn with_bar(&self, act: impl FnOnce(Option<&ProgressBar>)) {
        let bar = self.bar.take();
        act(bar.as_ref());
        self.bar.set(bar);
    }
}

impl InstallProgress for Progress<'_> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn begin(&self) {
        Progress::begin(self);
    }

    fn position(&self, bytes: u64) {
        self.with_bar(|bar| {
            if let Some(bar) = bar {
                bar.set_position(bytes);
            }
        });
    }

    fn package(&self, package: &Package, is_new: bool) {
        if !is_new {
            // The bar has leapt over its bytes, which says nothing about the network.
            self.with_bar(|bar| bar.into_iter().for_each(ProgressBar::reset_eta));
        }
        let state = if is_new { "unpacked" } else { "kept from the last run" };
        let line = format!("  {:<20} {:<9}  {state}", package.name, package.version);
        self.with_bar(|bar| match bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        });
    }
}

/// The packages to download with their sizes and licences. `no_card` is the reason why no card can use them.
fn announcement(folder: &Path, no_card: Option<&str>) -> String {
    let mut text = String::new();
    if let Some(reason) = no_card {
        let first = "Nothing here can use this runtime yet:";
        wrap(&mut text, &format!("{first} {reason}. Ctrl-C stops the installation."), 0);
        text.push('\n');
    }
    let _ = write!(
        text,
        "pip downloads the CUDA runtime {CUDA_VERSION}: {} packages, {}.\n{} stay on the disk, in {}.\n\n",
        CUDA_PACKAGES.len(),
        size_text(download_bytes()),
        size_text(installed_bytes()),
        folder.display()
    );
    for package in &CUDA_PACKAGES {
        let terms = match package.licence {
            Licence::Mit => "MIT",
            Licence::Nvidia => "NVIDIA's licence",
        };
        let _ = writeln!(
            text,
            "  {:<20} {:<9}  {:>7}  {terms}",
            package.name,
            package.version,
            size_text(package.wheel_bytes)
        );
    }
    text.push_str(
        "\nNVIDIA's libraries are proprietary: you download them for yourself, under\n\
         NVIDIA's terms, which are kept beside them in the folder licences.\n\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_announcement_fits_a_terminal_and_names_the_terms() {
        let folder = Path::new("/home/somebody/.local/share/stablehand/runtimes");
        let text =
            announcement(folder, Some("the NVIDIA driver's library libcuda.so.1 is missing; install it"));
        assert!(
            text.starts_with("Nothing here can use this runtime yet: the NVIDIA driver's library"),
            "{text}"
        );
        assert!(!announcement(folder, None).contains("yet"));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("1.3 GB") && text.contains("2.1 GB stay on the disk"), "{text}");
        assert_eq!(text.matches("NVIDIA's licence").count(), 5, "{text}");
    }
}
