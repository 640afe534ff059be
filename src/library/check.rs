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
    Outcome::Checked(draws, without_folder(&report, folder))
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

/// Names files by their path in the folder of models: clients need not know where that is.
fn without_folder(report: &str, folder: &Path) -> String {
    report.replace(&format!("{}/", folder.display()), "")
}
