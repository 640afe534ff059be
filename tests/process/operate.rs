//! What operators do with a server that runs: ask whether it is ready, look at its jobs, and copy its data folder.

use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::helpers::{KEY, Server, assert_refused, data_dir, output, small, stablehand};

/// Runs a command for the server with its key.
fn ask(server: &Server, args: &[&str]) -> Output {
    let mut command = stablehand(args);
    command.env("STABLEHAND_LISTEN", server.address()).env("STABLEHAND_API_KEY", KEY);
    output(command)
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn in_folder(dir: &Path, args: &[&str]) -> Output {
    let mut command = stablehand(args);
    command.arg("--data-dir").arg(dir);
    output(command)
}

#[test]
fn health_says_whether_a_server_is_ready() {
    let data = data_dir();
    let server = Server::start(data.path());
    let id = server.submit(&small("a dog")).unwrap();
    server.wait(&id);
    let address = server.address().to_owned();
    assert_eq!(stdout(&ask(&server, &["health"])), format!("http://{address} is ready\n"));
    assert_eq!(
        stdout(&ask(&server, &["health", "--max-wait", "1m"])),
        format!("http://{address} is ready\n")
    );
    assert_eq!(stdout(&ask(&server, &["health", "--live"])), format!("http://{address} is alive\n"));
    server.terminate();
    let mut command = stablehand(&["health"]);
    command.env("STABLEHAND_LISTEN", &address);
    assert_refused(&output(command), 1, &["cannot be reached", &address]);

    let idle = Server::start_without_workers(data.path());
    let asked = ask(&idle, &["health"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8(asked.stdout).unwrap().ends_with(" is not ready\n"));
}

#[test]
fn jobs_are_listed_shown_cancelled_and_purged() {
    let data = data_dir();
    let server = Server::start_without_workers(data.path());
    let ids: Vec<String> = ["a dog", "a cat", "a \u{1b}[31mbird"]
        .iter()
        .map(|prompt| server.submit(&small(prompt)).unwrap())
        .collect();
    let lines = stdout(&ask(&server, &["jobs", "list"]));
    assert_eq!(lines.lines().count(), 3);
    let newest = lines.lines().next().unwrap();
    assert!(
        newest.starts_with(&format!("{}  IN_QUEUE", ids[2])) && newest.ends_with("a  [31mbird"),
        "{newest}"
    );

    let shown: Value = serde_json::from_str(&stdout(&ask(&server, &["jobs", "show", &ids[0]]))).unwrap();
    assert_eq!((&shown["status"], &shown["input"]["prompt"]), (&json!("IN_QUEUE"), &json!("a dog")));
    assert_eq!(stdout(&ask(&server, &["jobs", "cancel", &ids[0]])), format!("{}  CANCELLED\n", ids[0]));
    let cancelled = stdout(&ask(&server, &["jobs", "list", "--status", "CANCELLED", "--json"]));
    let cancelled: Value = serde_json::from_str(&cancelled).unwrap();
    assert_eq!((cancelled[0]["id"].as_str(), cancelled.as_array().unwrap().len()), (Some(&*ids[0]), 1));
    assert_eq!(stdout(&ask(&server, &["jobs", "list", "--limit", "2"])).lines().count(), 2);
    assert_eq!(stdout(&ask(&server, &["jobs", "purge"])), "removed 2 jobs that waited\n");
    assert_eq!(stdout(&ask(&server, &["jobs", "list", "--status", "IN_QUEUE"])), "no jobs\n");

    assert_refused(&ask(&server, &["jobs", "show", "../health"]), 1, &["the server refused", "No such job"]);
    assert_refused(&ask(&server, &["jobs", "list", "--endpoint", "other"]), 1, &["No such endpoint"]);
    let mut command = stablehand(&["jobs", "list"]);
    command.env("STABLEHAND_LISTEN", server.address());
    assert_refused(&output(command), 2, &["STABLEHAND_API_KEY"]);
}

#[test]
fn a_backup_of_a_running_server_is_served_by_another() {
    let (data, place, other) = (data_dir(), data_dir(), data_dir());
    let (file, bare) = (place.path().join("backup"), place.path().join("bare"));
    let server = Server::start(data.path());
    let done = server.submit(&small("a dog")).unwrap();
    let picture = server.wait(&done)["output"][0]["image"].as_str().unwrap().to_owned();
    let found = stdout(&in_folder(data.path(), &["check"]));
    assert!(
        found.contains("in use by a server") && found.contains("1  stable-diffusion-v1  COMPLETED"),
        "{found}"
    );
    assert!(found.ends_with("nothing is wrong\n"), "{found}");

    let (file, bare) = (file.to_str().unwrap(), bare.to_str().unwrap());
    assert!(stdout(&in_folder(data.path(), &["backup", file, "--secrets"])).contains("with secrets"));
    assert!(stdout(&in_folder(data.path(), &["backup", bare])).contains("without secrets"));
    assert_refused(&in_folder(data.path(), &["backup", file]), 1, &["there is such a file already"]);
    let key = fs::read_to_string(data.path().join("signing-key")).unwrap();
    let holds = |path: &str| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(key.trim().len()).any(|part| part == key.trim().as_bytes())
    };
    assert_eq!([holds(file), holds(bare)], [true, false]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_refused(&in_folder(data.path(), &["restore", file]), 1, &["empty data folder only"]);
    assert_eq!(server.terminate().code(), Some(0));

    assert!(stdout(&in_folder(other.path(), &["restore", file])).contains("with its keys"));
    assert!(stdout(&in_folder(other.path(), &["check"])).ends_with("nothing is wrong\n"));
    let server = Server::start_without_workers(other.path());
    assert_eq!(server.get(&format!("status/{done}")).unwrap()["status"], "COMPLETED");
    // The signature is still valid.
    let path = picture.split_once("/v2/").unwrap().1;
    let url = format!("http://{}/v2/{path}", server.address());
    assert!(crate::helpers::download(&url).starts_with(b"\x89PNG"));
}

#[test]
fn completions_and_manuals_name_every_command_and_no_secret() {
    let dir = data_dir();
    let print = |args: &[&str]| {
        let mut command = stablehand(args);
        command.env("STABLEHAND_API_KEYS", "hunter2").env("STABLEHAND_WEBHOOK_SECRET", "hunter2");
        stdout(&output(command))
    };
    let help = print(&["--help"]);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 15, "{commands:?}");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = print(&["completions", shell]);
        assert!(commands.iter().all(|name| script.contains(name)), "{shell}");
        assert!(script.contains("sync-retention") && !script.contains("hunter2"), "{shell}");
    }
    let manual = print(&["man"]);
    assert!(
        manual.contains(".TH stablehand 1") && commands.iter().all(|name| manual.contains(name)),
        "{manual}"
    );
    let pages = dir.path().join("man1");
    print(&["man", pages.to_str().unwrap()]);
    for name in commands {
        let page = fs::read_to_string(pages.join(format!("stablehand-{name}.1"))).unwrap();
        assert!(page.contains("SYNOPSIS") && !page.contains("hunter2"), "{name}");
    }
}
