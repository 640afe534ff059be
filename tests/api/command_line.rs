//! The binary from outside: its error sentences and exit codes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use stablehand::http::Surface;

use crate::client::Request;

/// The exit code and stderr of a start that must fail. The environment is empty.
fn refused(args: &[&str], envs: &[(&str, &str)]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_stablehand"))
        .args(args)
        .env_clear()
        .env("STABLEHAND_DATA_DIR", dir.path().join("data"))
        .env("STABLEHAND_LISTEN", "127.0.0.1:0")
        .env("STABLEHAND_WORKERS", "0")
        .envs(envs.iter().copied())
        .output()
        .unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for (args, sentence) in [
        (&["--xyzzy"][..], "unexpected argument '--xyzzy' found"),
        (&["dance"], "unrecognized subcommand 'dance'"),
        (
            &["--retention", "soon"],
            "invalid value 'soon' for '--retention <TIME>': it should be a time such as 30m, 90s or 1h 30m",
        ),
        (
            &["--retention", "0s"],
            "invalid value '0s' for '--retention <TIME>': it should be from 1s to 30days",
        ),
        (
            &["--listen", "here"],
            "invalid value 'here' for '--listen <ADDRESS>': it should be an address and port, such as 127.0.0.1:8000",
        ),
        (
            &["--public-url", "a.example"],
            "invalid value 'a.example' for '--public-url <URL>': it should begin with http:// or https://",
        ),
        (
            &["--public-url", "http://a/?b"],
            "invalid value 'http://a/?b' for '--public-url <URL>': it should have no user, query or fragment",
        ),
        (
            &["--device", "gpu"],
            "invalid value 'gpu' for '--device <DEVICE>': it should be auto, cpu, cuda or cuda:N (such as cuda:1)",
        ),
        (
            &["serve", "--listen", "0.0.0.0:0", "--auth", "off"],
            "--auth off would let anybody who can reach 0.0.0.0:0 use the server: listen on 127.0.0.1, or leave authentication on",
        ),
        (
            &["--node", "2"],
            "--node says that this server is one of several, and they need the same API keys: give all of them the same \
             --api-keys-file or STABLEHAND_API_KEYS",
        ),
        (
            &["--api-keys-file", "/nonexistent"],
            "cannot read the API keys file /nonexistent: No such file or directory (os error 2)",
        ),
        (
            &["--config", "/nonexistent"],
            "cannot read the configuration file /nonexistent: No such file or directory (os error 2)",
        ),
        (&["--log", "a=b=c"], "invalid value 'a=b=c' for '--log <FILTER>'"),
    ] {
        assert_eq!(refused(args, &[]), (2, format!("stablehand: {sentence}\n")), "{args:?}");
    }
}

#[test]
fn the_environment_is_checked_like_the_flags() {
    let (code, error) = refused(&[], &[("STABLEHAND_SYNC_RETENTION", "3 fortnights")]);
    assert_eq!(code, 2);
    assert!(
        error.starts_with("stablehand: invalid value '3 fortnights' for '--sync-retention <TIME>'"),
        "{error}"
    );
}

#[test]
fn a_port_in_use_is_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(
        refused(&["--listen", &address], &[]),
        (
            1,
            format!(
                "stablehand: {address} is in use by another program: stop it, or choose another port with --listen\n"
            )
        )
    );
}

#[test]
fn an_unusable_data_folder_is_one_line_and_exit_code_1() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let (code, error) = refused(&["--data-dir", path], &[]);
    assert_eq!(code, 1);
    assert!(error.starts_with(&format!("stablehand: cannot use the data folder {path}: ")), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn help_names_every_flag_and_its_environment_variable() {
    let output = Command::new(env!("CARGO_BIN_EXE_stablehand")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for variable in [
        "CONFIG",
        "LISTEN",
        "PUBLIC_URL",
        "API_KEYS",
        "API_KEYS_FILE",
        "AUTH",
        "MODEL",
        "MODELS_DIR",
        "DEVICE",
        "WORKERS",
        "DATA_DIR",
        "RETENTION",
        "SYNC_RETENTION",
        "SWEEP_INTERVAL",
        "QUEUE_LIMIT",
        "SHUTDOWN_GRACE",
        "LOG",
    ] {
        assert!(help.contains(&format!("STABLEHAND_{variable}")), "{variable}");
        assert!(help.contains(&format!("--{}", variable.to_lowercase().replace('_', "-"))), "{variable}");
    }
}

/// A server process that has printed its first line.
#[cfg(unix)]
struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    port: u16,
}

#[cfg(unix)]
impl Process {
    fn start(data_dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_stablehand"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--workers",
                "0",
                "--log",
                "trace,stablehand=trace",
                "--data-dir",
            ])
            .arg(data_dir)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url =
            line.strip_prefix("stablehand listens on http://127.0.0.1:").unwrap_or_else(|| panic!("{line}"));
        let port = url.split(' ').next().unwrap().parse().unwrap();
        Self { child, stdout, port }
    }

    /// Ends it with a signal. Returns its exit code, the rest of its stdout and all of its stderr.
    fn end(mut self, signal: &str) -> (Option<i32>, String, String) {
        let (mut rest, mut log) = (String::new(), String::new());
        Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        self.stdout.read_to_string(&mut rest).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), rest, log)
    }
}

#[cfg(unix)]
#[test]
fn only_the_first_start_shows_the_key_and_the_log_never_does() {
    let dir = tempfile::tempdir().unwrap();
    let first = Process::start(dir.path());
    let key = std::fs::read_to_string(dir.path().join("api-key")).unwrap().trim().to_owned();
    let response = Request::new("POST", "/v2/stable-diffusion-v1/run?note=query-secret")
        .header("Authorization", &format!("Bearer {key}"))
        .body(r#"{"input": {"prompt": "prompt-secret"}}"#)
        .send(first.port);
    assert_eq!(response.status, 200);
    let port = first.port;
    let (code, shown, log) = first.end("-TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(shown.contains(&format!("curl -X POST http://127.0.0.1:{port}/v2/stable-diffusion-v1/runsync")));
    assert!(shown.contains(&key), "{shown}");
    assert!(log.contains("route=\"/v2/{endpoint}/run\" status=200"), "{log}");
    for secret in [key.as_str(), "query-secret", "prompt-secret"] {
        assert!(!log.contains(secret), "{log}");
    }
    // What libraries write at these levels has URLs of requests in it.
    for line in log.lines().filter(|line| line.contains("DEBUG ") || line.contains("TRACE ")) {
        assert!(line.contains(" stablehand"), "{line}");
    }

    let second = Process::start(dir.path());
    let port = second.port;
    let (code, shown, log) = second.end("-INT");
    let pasted = |surface: Surface| {
        format!("{}, with an API key: http://127.0.0.1:{port}{}\n", surface.title(), surface.path())
    };
    let surfaces = Surface::ALL.map(pasted).concat();
    assert_eq!((code, shown), (Some(0), surfaces), "{log}");
}
