//! The binary from outside: what it refuses, in which words, with which exit code.

use std::net::TcpListener;
use std::process::Command;

/// Exit code and stderr of a start that is meant to fail; with no one's environment.
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
        (&["--nonsense"][..], "unexpected argument '--nonsense' found"),
        (&["dance"], "unrecognized subcommand 'dance'"),
        (
            &["--retention", "soon"],
            "invalid value 'soon' for '--retention <TIME>': it should read like 30m, 90s or 1h 30m",
        ),
        (
            &["--retention", "0s"],
            "invalid value '0s' for '--retention <TIME>': it should be from 1s to 30days",
        ),
        (
            &["--listen", "here"],
            "invalid value 'here' for '--listen <ADDRESS>': it should read like 127.0.0.1:8000",
        ),
        (
            &["--public-url", "a.example"],
            "invalid value 'a.example' for '--public-url <URL>': it should begin with http:// or https://",
        ),
        (
            &["--public-url", "http://a/?b"],
            "invalid value 'http://a/?b' for '--public-url <URL>': it should be a plain base, with no user, query or fragment",
        ),
        (
            &["--device", "gpu"],
            "invalid value 'gpu' for '--device <DEVICE>': it should be auto, cpu, cuda or cuda:N",
        ),
        (
            &["serve", "--listen", "0.0.0.0:0", "--auth", "off"],
            "--auth off would let everybody in who reaches 0.0.0.0:0: listen on 127.0.0.1, or leave authentication on",
        ),
        (
            &["--api-keys-file", "/nonexistent"],
            "cannot read the API keys file /nonexistent: No such file or directory (os error 2)",
        ),
        (&["--log", "a=b=c"], "invalid value 'a=b=c' for '--log <FILTER>'"),
    ] {
        assert_eq!(refused(args, &[]), (2, format!("stablehand: {sentence}\n")), "{args:?}");
    }
}

#[test]
fn the_environment_is_checked_as_flags_are() {
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
fn help_names_every_setting_and_its_twin() {
    let output = Command::new(env!("CARGO_BIN_EXE_stablehand")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for twin in [
        "LISTEN",
        "PUBLIC_URL",
        "API_KEYS",
        "API_KEYS_FILE",
        "AUTH",
        "MODEL",
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
        assert!(help.contains(&format!("STABLEHAND_{twin}")), "{twin}");
        assert!(help.contains(&format!("--{}", twin.to_lowercase().replace('_', "-"))), "{twin}");
    }
}
