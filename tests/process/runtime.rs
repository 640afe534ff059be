//! `stablehand runtime`, `doctor` and `bench` as a person runs them.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::helpers::{assert_refused, data_dir, files_under, output, stablehand};

fn run(data: &Path, args: &[&str]) -> Output {
    let mut command = stablehand(args);
    command.arg("--data-dir").arg(data);
    output(command)
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn doctor(data: &Path, args: &[&str]) -> (Option<i32>, Value) {
    let mut command = stablehand(&["doctor", "--json", "--data-dir"]);
    command.arg(data).args(args);
    // Flags come before them.
    command.env("STABLEHAND_LISTEN", "127.0.0.1:0").env("STABLEHAND_DEVICE", "cpu");
    let output = output(command);
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("JSON, not {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

/// The verdict on a check, and what it found.
fn check(report: &Value, name: &str) -> (String, String) {
    let checks = report["checks"].as_array().unwrap();
    let check =
        checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{name} in {report}"));
    let word = |field: &str| check[field].as_str().unwrap().to_owned();
    (word("verdict"), word("finding"))
}

#[test]
fn nothing_is_installed_at_first() {
    let data = data_dir();
    let listed = run(data.path(), &["runtime", "list"]);
    assert!(listed.status.success());
    assert!(text(&listed).contains("`stablehand runtime install cuda` installs one"), "{}", text(&listed));
    assert_refused(&run(data.path(), &["runtime", "rm", "cuda"]), 1, &["no CUDA runtime is installed"]);
    assert_refused(&run(data.path(), &["runtime", "install", "rocm"]), 2, &["rocm"]);
    assert_eq!(files_under(data.path()), Vec::<std::path::PathBuf>::new());
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod install {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Stdio;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::helpers::PATIENCE;

    /// Installs with a script in pip's place, which answers `--version` and does `body` otherwise. The machine's own
    /// Python and pip are hidden behind programs that fail.
    fn install(data: &Path, body: &str) -> Output {
        let programs = programs(body);
        with_path(data, &search_path(&programs))
    }

    fn search_path(programs: &TempDir) -> String {
        format!("{}:/usr/bin:/bin", programs.path().display())
    }

    fn programs(body: &str) -> TempDir {
        let programs = TempDir::new().unwrap();
        let program = |name: &str, script: &str| {
            let path = programs.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        for hidden in ["python3", "python", "pip3"] {
            program(hidden, "exit 1");
        }
        program("pip", &format!("[ \"$1\" = --version ] && exit 0\n{body}"));
        programs
    }

    fn with_path(data: &Path, path: &str) -> Output {
        output(installing(data, path))
    }

    fn installing(data: &Path, path: &str) -> Command {
        let mut command: Command = stablehand(&["runtime", "install", "cuda", "--data-dir"]);
        command.arg(data).env("PATH", path);
        command
    }

    /// The last line on standard error, which says why.
    fn reason(output: &Output) -> String {
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        stderr.lines().last().unwrap_or_default().to_owned()
    }

    #[test]
    fn without_pip_one_sentence_names_the_remedy() {
        let data = data_dir();
        assert_refused(&with_path(data.path(), "/nowhere"), 1, &["pip is needed", "apt install python3-pip"]);
        assert!(files_under(data.path()).is_empty());
    }

    #[test]
    fn pip_s_reason_is_told_and_nothing_is_installed() {
        let data = data_dir();
        let failed = install(data.path(), "echo 'ERROR: No matching distribution found for it' >&2; exit 1");
        let reason = reason(&failed);
        assert!(
            reason.contains("nvidia-cuda-runtime 13.0.96 (No matching distribution found for it)")
                && reason.contains("run the command again"),
            "{reason}"
        );
        assert!(text(&run(data.path(), &["runtime", "list"])).contains("No runtime is installed"));
    }

    #[test]
    fn ctrl_c_says_what_is_kept_and_stops_pip() {
        let data = data_dir();
        let programs = programs("echo $$ >\"$PIP_PROCESS\"\nexec sleep 100");
        let pip_process = data.path().join("pip-process");
        let mut command = installing(data.path(), &search_path(&programs));
        command.env("PIP_PROCESS", &pip_process).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let pip = loop {
            if let Some(id) = fs::read_to_string(&pip_process).ok().filter(|id| id.ends_with('\n')) {
                break id.trim().to_owned();
            }
            assert!(Instant::now() < deadline, "pip starts");
            thread::sleep(Duration::from_millis(10));
        };
        let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        let stopped = child.wait_with_output().unwrap();
        let reason = reason(&stopped);
        assert!(reason.contains("stopped: complete packages are kept; run the command again"), "{reason}");
        assert!(!Path::new("/proc").join(pip).exists(), "pip is gone");
    }

    #[test]
    fn without_a_card_the_announcement_says_so_first() {
        let data = data_dir();
        let failed = install(data.path(), "exit 1");
        let stderr = String::from_utf8_lossy(&failed.stderr);
        let has_card = Path::new("/dev/nvidia0").exists();
        assert!(has_card || stderr.starts_with("Nothing here can use this runtime yet: "), "{stderr}");
    }

    #[test]
    fn a_wheel_of_other_bytes_is_refused() {
        let data = data_dir();
        let failed = install(
            data.path(),
            "while [ $# -gt 1 ]; do [ \"$1\" = --dest ] && dest=$2; shift; done\n\
             echo other >\"$dest/nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.whl\"",
        );
        let reason = reason(&failed);
        assert!(reason.contains("other bytes for nvidia-cuda-runtime 13.0.96"), "{reason}");
        let left = files_under(data.path());
        assert!(
            left.iter().all(|path| path.extension().is_none_or(|extension| extension != "whl")),
            "{left:?}"
        );
    }
}

#[test]
fn doctor_finds_a_plain_machine_well_and_changes_nothing() {
    let data = data_dir();
    let (code, report) = doctor(data.path(), &[]);
    assert_eq!((code, &report["works"]), (Some(0), &Value::Bool(true)), "{report}");
    assert_eq!(report["devices"][0]["takes"], "cpu");
    assert_eq!(check(&report, "model").0, "ok");
    assert!(check(&report, "data folder").1.contains("no jobs yet"), "{report}");
    assert!(files_under(data.path()).is_empty());

    let mut command = stablehand(&["doctor", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data.path());
    let lines = text(&output(command));
    assert!(lines.contains("--device auto      takes "), "{lines}");
    assert!(lines.ends_with("The server would start and draw.\n"), "{lines}");
}

#[test]
fn doctor_names_what_would_stop_the_server() {
    let (data, model) = (data_dir(), data_dir());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, report) = doctor(data.path(), &["--listen", &address]);
    assert_eq!(code, Some(1));
    let (verdict, finding) = check(&report, "port");
    assert!(verdict == "fail" && finding.contains(&format!("{address} is taken by ")), "{report}");

    let (code, report) = doctor(data.path(), &["--agent-listen", &address]);
    assert_eq!((code, check(&report, "agent port").0.as_str()), (Some(1), "fail"), "{report}");

    let (code, report) = doctor(data.path(), &["--model", model.path().to_str().unwrap()]);
    assert_eq!((code, check(&report, "model").0.as_str()), (Some(1), "fail"));

    fs::write(data.path().join("stablehand.db"), "no database. ".repeat(20)).unwrap();
    let (code, report) = doctor(data.path(), &[]);
    assert_eq!((code, check(&report, "data folder").0.as_str()), (Some(1), "fail"));

    let (code, report) = doctor(data.path(), &["--device", "cuda:7"]);
    assert_eq!((code, &report["devices"][0]["takes"]), (Some(1), &Value::Null));
}

#[test]
fn doctor_finds_secrets_that_are_short_or_not_shared() {
    let data = data_dir();
    let (code, report) = doctor(data.path(), &["--api-keys", "a"]);
    let (verdict, finding) = check(&report, "access");
    assert_eq!((code, verdict.as_str()), (Some(0), "warning"), "{report}");
    assert!(finding.contains("shorter than 8 characters"), "{finding}");

    let key = "0123456789abcdef";
    let (_, report) = doctor(data.path(), &["--api-keys", key, "--node", "1"]);
    let finding = check(&report, "access").1;
    assert!(finding.contains("signing key") && finding.contains("webhook secret"), "{finding}");
    let (_, report) = doctor(data.path(), &["--api-keys", key]);
    assert!(report["checks"].as_array().unwrap().iter().all(|check| check["name"] != "access"), "{report}");
}

#[test]
fn doctor_reads_the_configuration_file() {
    let data = data_dir();
    let file = data.path().join("stablehand.toml");
    fs::write(&file, "[endpoints.one]\ndevice = \"cpu\"\n[endpoints.two]\nmodel = \"/nowhere\"\n").unwrap();
    let (code, report) = doctor(&data.path().join("data"), &["--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    let models: Vec<_> =
        report["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "model").collect();
    assert_eq!(models.len(), 2, "{report}");
    assert!(models.iter().any(|check| check["finding"].as_str().unwrap().contains("/nowhere")), "{report}");
}

#[test]
fn bench_measures_each_thing_in_figures() {
    let data = data_dir();
    let mut command = stablehand(&["bench", "--device", "cpu", "--sizes", "64x64", "--json", "--data-dir"]);
    command.arg(data.path());
    let output = output(command);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    for measurement in ["load", "first picture", "prompt", "decode", "step", "pictures", "host memory"] {
        let mut found = rows.iter().filter(|row| row["measurement"] == measurement).peekable();
        assert!(found.peek().is_some(), "{measurement} in {report}");
        assert!(found.all(|row| row["value"].as_f64().is_some_and(|value| value > 0.0)), "{report}");
    }
    let steps: Vec<_> = rows
        .iter()
        .filter(|row| row["measurement"] == "step")
        .map(|row| row["rows"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 4, 8, 16]);
    assert_eq!(report["machine"]["device"], "cpu");
    let compared = rows.iter().find(|row| row["measurement"] == "against the CPU").unwrap();
    assert_eq!(compared["note"], "this is the CPU");
    // What runs is said meanwhile.
    assert!(String::from_utf8_lossy(&output.stderr).contains("measuring: step"));
    assert!(files_under(data.path()).is_empty());
}
