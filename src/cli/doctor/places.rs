//! Checks the data folder, the cache folder, the ports, and who may use the server.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::listener::listener_on;
use super::report::Check;
use crate::config::Config;
use crate::runtime::{Planned, RuntimesDir, cache_dir, unpacked};
use crate::size_text::size_text;
use crate::store::{FolderState, is_in_use};

/// With fewer free bytes, a queue of pictures soon fills the disk.
const LITTLE_ROOM: u64 = 1_000_000_000;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = vec![data_folder(&config.data_dir), cache_folder(&config.data_dir)];
    checks.push(port("port", config.listen, "--listen"));
    checks.extend(config.agent_listen.map(|address| port("agent port", address, "--agent-listen")));
    checks.extend(config.oddities().into_iter().map(|odd| Check::warning("access", odd.finding, odd.remedy)));
    checks
}

fn data_folder(path: &Path) -> Check {
    const NAME: &str = "data folder";
    const REMEDY: &str = "name another with --data-dir, or give this user the right to write there";
    let place = path.display();
    let Some(folder) = writable(path) else {
        return Check::fail(NAME, format!("{place} cannot be written to"), REMEDY);
    };
    let free = fs4::available_space(&folder).ok();
    let room = free.map(|free| format!(", {} free", size_text(free))).unwrap_or_default();
    let state = match FolderState::read(path) {
        Ok(FolderState::New) => "no jobs yet".to_owned(),
        Ok(FolderState::Ours { version, current }) if version == current => format!("schema {version}"),
        Ok(FolderState::Ours { version, current }) => {
            format!("schema {version}, which the next start brings to {current}")
        }
        Ok(FolderState::Newer) => {
            let finding = format!("{place} was written by a newer stablehand");
            return Check::fail(NAME, finding, "use that version, or another --data-dir");
        }
        Ok(FolderState::Foreign) => {
            let finding = format!("stablehand.db in {place} is not a database of stablehand");
            return Check::fail(NAME, finding, "move it away, or use another --data-dir");
        }
        Err(error) => return Check::fail(NAME, format!("{place}: {error}"), REMEDY),
    };
    let finding = format!("{place}: {state}{room}");
    if is_in_use(path) {
        return Check::note(
            NAME,
            format!(
                "{finding}; a stablehand that runs now uses it, and a second one needs another --data-dir"
            ),
        );
    }
    match free {
        Some(free) if free < LITTLE_ROOM => Check::warning(NAME, finding, "make room on that disk"),
        _ => Check::ok(NAME, finding),
    }
}

fn cache_folder(data_dir: &Path) -> Check {
    const NAME: &str = "cache";
    let path = cache_dir();
    let place = path.display();
    if let Some(library) = unpacked(&path) {
        let bytes = fs::metadata(library).map_or(0, |metadata| metadata.len());
        return Check::ok(NAME, format!("{place}: ONNX Runtime is unpacked ({})", size_text(bytes)));
    }
    // The embedded library is unpacked only if no other library is used.
    let runtimes = RuntimesDir::in_data_dir(data_dir);
    if matches!(
        Planned::for_devices(&runtimes, &[crate::runtime::DeviceChoice::Auto]),
        Ok(Planned::Library(_))
    ) {
        return Check::ok(NAME, format!("{place}: not needed"));
    }
    match writable(&path) {
        Some(_) => Check::ok(NAME, format!("{place}: the first start unpacks ONNX Runtime there")),
        None => Check::fail(
            NAME,
            format!("{place} cannot be written to, and ONNX Runtime is unpacked there"),
            "make it writable, or name another with STABLEHAND_CACHE_DIR",
        ),
    }
}

/// The folder, or its nearest parent that exists, if files can be created there. No file remains.
fn writable(path: &Path) -> Option<PathBuf> {
    let folder = path.ancestors().find(|folder| folder.exists())?;
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let is_folder = fs::metadata(folder).is_ok_and(|metadata| metadata.is_dir());
    (is_folder && tempfile::tempfile_in(folder).is_ok()).then(|| folder.to_owned())
}

fn port(name: &'static str, address: SocketAddr, flag: &str) -> Check {
    match TcpListener::bind(address) {
        Ok(_) if address.port() == 0 => Check::ok(name, format!("{address}: any free port")),
        Ok(_) => Check::ok(name, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let process = listener_on(address.port());
            if let Some(process) = process.as_ref().filter(|process| process.name == "stablehand") {
                let id = process.id;
                let finding = format!(
                    "{address} is taken by the stablehand that runs now (process {id}), and a second one needs another \
                     {flag}"
                );
                return Check::note(name, finding);
            }
            let by = match process {
                Some(process) => format!(" by {} (process {})", process.name, process.id),
                None => " by another program".to_owned(),
            };
            Check::fail(
                name,
                format!("{address} is taken{by}"),
                format!("stop it, or choose another port with {flag}"),
            )
        }
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => Check::fail(
            name,
            format!("{address} is not an address of this machine"),
            "listen on 127.0.0.1, or on 0.0.0.0 for all of this machine's addresses",
        ),
        Err(error) => {
            Check::fail(name, format!("{address}: {error}"), format!("choose another address with {flag}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Verdict;

    #[test]
    fn a_folder_that_does_not_exist_is_judged_by_the_one_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let check = data_folder(&dir.path().join("a/b"));
        assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
        assert!(check.finding.contains(": no jobs yet, "), "{check:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is made");
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let check = data_folder(&file.join("data"));
        assert!(check.verdict == Verdict::Fail && check.remedy.is_some(), "{check:?}");
    }
}
