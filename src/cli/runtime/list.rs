//! `stablehand runtime list`: lists the runtimes, and shows which one `--device auto` uses.

use std::fmt::Write as _;

use clap::Args;

use super::{Failure, print};
use crate::config::DataDirArgs;
use crate::runtime::{DeviceChoice, InstalledRuntime, Library, Origin, Planned, RuntimesDir};
use crate::size_text::size_text;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    folder: DataDirArgs,
}

pub(super) fn list(args: &ListArgs) -> Result<(), Failure> {
    let runtimes = RuntimesDir::in_data_dir(&args.folder.data_dir()?);
    let planned = Planned::for_devices(&runtimes, &[DeviceChoice::Auto])?;
    let mut text = format!("{:<12} {:>8}  USED BY --device auto\n", "NAME", "SIZE");
    if let Planned::Library(Library { path, origin: Origin::Named }) = &planned {
        let _ = writeln!(text, "{:<12} {:>8}  yes: STABLEHAND_ORT_DYLIB is {}", "named", "", path.display());
    }
    if cfg!(feature = "embed-onnxruntime") {
        let used = match &planned {
            Planned::Embedded { .. } => "yes, on the CPU",
            Planned::Library(_) => "no",
        };
        let _ = writeln!(text, "{:<12} {:>8}  {used}", "inside", "");
    }
    let installed = runtimes.list();
    for runtime in &installed {
        let used = used(runtime, &planned);
        let _ = writeln!(text, "{:<12} {:>8}  {used}", runtime.name(), size_text(runtime.bytes()));
    }
    let _ = match installed.is_empty() {
        true => writeln!(text, "\nNo runtime is installed: `stablehand runtime install cuda` installs one."),
        false => writeln!(text, "\nInstalled in {}", runtimes.path().display()),
    };
    let unfinished = runtimes.unfinished_bytes();
    if unfinished > 0 {
        let _ = writeln!(
            text,
            "Unfinished: {}. `stablehand runtime install cuda` completes the installation,\n`stablehand runtime rm cuda` removes its files.",
            size_text(unfinished)
        );
    }
    print(&text)
}

/// Whether `--device auto` uses an installed runtime, and the reason if not.
fn used(runtime: &InstalledRuntime, planned: &Planned) -> String {
    if !runtime.is_whole() {
        return "no: it is damaged; `stablehand runtime install cuda` repairs it".to_owned();
    }
    match planned {
        Planned::Library(library) if library.origin == Origin::Installed => {
            let folder = runtime.path.canonicalize().unwrap_or_else(|_| runtime.path.clone());
            if library.path.starts_with(folder) {
                "yes".to_owned()
            } else {
                "no: another version is used".to_owned()
            }
        }
        Planned::Library(_) => "no: STABLEHAND_ORT_DYLIB names another".to_owned(),
        Planned::Embedded { unused_card: Some(reason) } => format!("no: {reason}"),
        Planned::Embedded { unused_card: None } => "no: there is no NVIDIA card".to_owned(),
    }
}
