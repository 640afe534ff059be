//! A check: what `stablehand models check` prints.
//!
//! It runs that command in a process of its own. A model that does not fit, or that brings its reader down, costs this
//! server nothing then, and a check can be ended at any time.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs};

use super::task::{Handle, Outcome};

const PATIENCE: Duration = Duration::from_mins(10);
/// Reports have a few thousand characters.
const LONGEST_REPORT: u64 = 1 << 20;
/// How often it is asked whether the check has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Checks the model at `path`, or the built-in one. `folder` is the folder of models.
pub(super) fn run(path: Option<&Path>, folder: &Path, handle: &Handle) -> Outcome {
    let mut command = match program() {
        Ok(program) => Command::new(program),
        Err(error) => return not_started(&error),
    };
    // Cards have their memory for jobs.
    command.args(["models", "check", "--device", "cpu"]).env_remove("STABLEHAND_MODEL");
    if let Some(path) = path {
        command.arg("--").arg(path);
    }
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn() {
        Ok(child) => child,
        Err(error) => return not_started(&error),
    };
    // If memory runs out, the check ends and not the server.
    #[cfg(target_os = "linux")]
    let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), "1000");
    let report = read(&mut child);
    let started = Instant::now();
    let draws = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status.success(),
            Ok(None) if handle.is_cancelled() => {
                end(&mut child);
                return Outcome::Cancelled;
            }
            Ok(None) if started.elapsed() < PATIENCE => thread::sleep(LOOK_EVERY),
            Ok(None) => {
                end(&mut child);
                let minutes = PATIENCE.as_secs() / 60;
                return Outcome::Failed(format!("The check has not ended within {minutes} minutes."));
            }
            Err(error) => return not_started(&error),
        }
    };
    let report = report.and_then(|thread| thread.join().ok()).unwrap_or_default();
    if report.is_empty() {
        return Outcome::Failed(
            "The check ended without a report: perhaps the memory did not suffice.".to_owned(),
        );
    }
    Outcome::Checked(draws, without_folders(&report, path, folder))
}

/// This program, also where its file has been replaced since.
fn program() -> std::io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { env::current_exe() }
}

/// Reads the report while it is written.
fn read(child: &mut Child) -> Option<JoinHandle<String>> {
    let stdout = child.stdout.take()?;
    Some(thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before a fault is worth showing.
        let _ = stdout.take(LONGEST_REPORT).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }))
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn not_started(error: &std::io::Error) -> Outcome {
    tracing::error!(%error, "a check could not be started");
    Outcome::Failed("The check could not be started: the server's log says why.".to_owned())
}

/// Names files by their path in the folder of models or beside the model, and any other by its name alone: clients need
/// not know what lies where on this machine.
fn without_folders(report: &str, path: Option<&Path>, folder: &Path) -> String {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let beside = path.into_iter().flat_map(|path| [path.to_owned(), resolved(path)]);
    let beside = beside.filter_map(|path| path.parent().map(Path::to_owned));
    let mut known: Vec<PathBuf> = [folder.to_owned(), resolved(folder)].into_iter().chain(beside).collect();
    // The longest first: one may lie in another.
    known.sort_by_key(|folder| std::cmp::Reverse(folder.as_os_str().len()));
    let known = known.iter().filter(|folder| folder.is_absolute() && folder.parent().is_some());
    let report = known.fold(report.to_owned(), |report, folder| {
        report.replace(&format!("{}{}", folder.display(), std::path::MAIN_SEPARATOR), "")
    });
    report.split_inclusive('\n').map(names_alone).collect()
}

/// Whether a name in a path may have it. The names of known folders may have any.
fn is_of_name(c: char) -> bool {
    !c.is_whitespace() && !matches!(c, '/' | '\\' | '\'' | '"' | ')' | ',' | ';' | ':')
}

/// A line whose absolute paths are cut to the names of their files.
fn names_alone(line: &str) -> String {
    let begins_path = |before: &str, rest: &str| {
        let is_root = rest.strip_prefix('/').is_some_and(|name| name.starts_with(is_of_name));
        let is_root = is_root || rest.get(1..3) == Some(":\\");
        // Not the middle of a relative path, of a fraction or of a URL.
        is_root
            && !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '/' | ':' | '.' | '-' | '_'))
    };
    let mut text = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        if begins_path(&text, rest) {
            // The colon behind a drive's letter belongs to the path.
            let is_in_path = |c: char| is_of_name(c) || matches!(c, '/' | '\\');
            let end = rest
                .get(2..)
                .and_then(|rest| rest.find(|c| !is_in_path(c)))
                .map_or(rest.len(), |end| end + 2);
            let path = &rest[..end];
            text.push_str(path.rsplit(['/', '\\']).find(|name| !name.is_empty()).unwrap_or_default());
            rest = &rest[end..];
        } else {
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_nothing_of_where_things_lie() {
        let folder = Path::new("/srv/my models");
        let elsewhere =
            Path::new("/home/ann/.cache/huggingface/hub/models--o--n/snapshots/1f/model.safetensors");
        let report = "model      /srv/my models/o/n.safetensors: 16/32 bits, 1 / 2, see https://a.example/b\n\
            unet       /home/ann/.cache/huggingface/hub/models--o--n/snapshots/1f/unet/x.bin\n\
            vae        is missing ('/mnt/disk/vae.pt', /etc/x): a/b\n";
        assert_eq!(
            without_folders(report, Some(elsewhere), folder),
            "model      o/n.safetensors: 16/32 bits, 1 / 2, see https://a.example/b\n\
             unet       unet/x.bin\n\
             vae        is missing ('vae.pt', x): a/b\n"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_tells_nothing_of_its_target() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let target = other.path().join("real.safetensors");
        fs::write(&target, "").unwrap();
        let link = dir.path().join("model.safetensors");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let report = format!("model {}", target.canonicalize().unwrap().display());
        assert_eq!(without_folders(&report, Some(&link), dir.path()), "model real.safetensors");
    }
}
