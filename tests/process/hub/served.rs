//! The library of a running server: pulls, checks and removals through the API.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fake_hub::{Accident, FakeHub, Plain};
use super::{diffusers, pull, safetensors, said};
use crate::helpers::{KEY, PATIENCE, Server, data_dir, files_under, model_copy};

/// One file of the repository `org/name`.
const FILE: &str = "org/name:a.safetensors";

struct Operator {
    server: Server,
    hub: FakeHub,
    folder: tempfile::TempDir,
}

impl Operator {
    fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    fn start_with(configure: impl FnOnce(&mut Command, &Path)) -> Self {
        let (hub, folder) = (FakeHub::start(), data_dir());
        let server = Server::start_with(&folder.path().join("data"), |command| {
            command
                .env("STABLEHAND_MANAGE_MODELS", "on")
                .env("STABLEHAND_WORKERS", "0")
                .env("STABLEHAND_ALLOW_ADDRESSES", "127.0.0.1")
                .env("STABLEHAND_DOWNLOAD_TOKEN", "site-secret")
                .env("HF_ENDPOINT", &hub.url);
            configure(command, folder.path());
        });
        Self { server, hub, folder }
    }

    fn models(&self) -> std::path::PathBuf {
        self.folder.path().join("data/models")
    }

    fn get(&self, path: &str) -> Value {
        let url = format!("http://{}/v2/library{path}", self.server.address());
        ureq::get(url).header("Authorization", KEY).call().unwrap().body_mut().read_json().unwrap()
    }

    fn library(&self) -> Value {
        self.get("")
    }

    fn post(&self, what: &str, body: &Value) -> (u16, Value) {
        let url = format!("http://{}/v2/library/{what}", self.server.address());
        let request = ureq::post(url).header("Authorization", KEY);
        let mut response = request.config().http_status_as_error(false).build().send_json(body).unwrap();
        (response.status().as_u16(), response.body_mut().read_json().unwrap())
    }

    fn task(&self, id: &str) -> Value {
        self.get(&format!("/tasks/{id}"))
    }

    /// Begins a task and waits for its end.
    fn done(&self, what: &str, body: &Value) -> Value {
        let (status, task) = self.post(what, body);
        assert_eq!(status, 202, "{task}");
        self.until(task["id"].as_str().unwrap(), |task| {
            !["IN_PROGRESS", "CANCELLING"].contains(&task["status"].as_str().unwrap())
        })
    }

    fn until(&self, id: &str, enough: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let task = self.task(id);
            if enough(&task) {
                return task;
            }
            assert!(Instant::now() < deadline, "{task}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_model_is_pulled_listed_and_removed() {
    let operator = Operator::start();
    operator.hub.add("org/name", &diffusers());
    let task = operator.done("pull", &json!({"name": "org/name"}));
    assert_eq!(
        (&task["status"], &task["work"], &task["name"]),
        (&json!("COMPLETED"), &json!("pull"), &json!("org/name"))
    );
    assert_eq!(task["bytes"], task["total"]);
    assert_eq!(
        task["note"],
        "org/name has been pulled: start the server with --model 'org/name', or add an endpoint with it, to draw with it."
    );
    let library = operator.library();
    assert_eq!(library["may_change"], true);
    assert_eq!(library["task"], task);
    let pulled = &library["items"][1];
    assert_eq!((&pulled["name"], &pulled["place"]), (&json!("org/name"), &json!("pulled")));
    assert!(pulled["bytes"].as_u64().unwrap() > 3_000_000 && pulled["pulled_at"].is_i64());
    assert_eq!(operator.library()["items"][0]["endpoints"], json!(["stable-diffusion-v1"]));

    let again = operator.done("pull", &json!({"name": "org/name", "kind": "model"}));
    assert!(again["note"].as_str().unwrap().starts_with("org/name is up to date: "), "{again}");
    let (status, removed) = operator.post("remove", &json!({"name": "org/name"}));
    assert_eq!((status, &removed["name"]), (200, &json!("org/name")));
    assert!(!operator.models().join("org").exists());
    let missing = json!({"error": "There is no org/name here."});
    assert_eq!(operator.post("remove", &json!({"name": "org/name"})), (404, missing.clone()));
    assert_eq!(operator.post("check", &json!({"name": "org/name"})), (404, missing));
}

#[test]
fn a_controlnet_is_pulled_into_its_own_folder() {
    let operator = Operator::start();
    let config = br#"{"_class_name": "ControlNetModel", "cross_attention_dim": 768}"#;
    operator.hub.add(
        "org/canny",
        &[("config.json", config.to_vec()), ("diffusion_pytorch_model.safetensors", safetensors(5000, 1))],
    );
    let task = operator.done("pull", &json!({"name": "org/canny", "kind": "controlnet"}));
    assert_eq!(task["note"], "org/canny has been pulled: requests can use it now.", "{task}");
    let item = &operator.library()["items"][1];
    assert_eq!((&item["name"], &item["kind"]), (&json!("org/canny"), &json!("controlnet")));
    assert_eq!(operator.post("remove", &json!({"name": "org/canny"})).0, 404, "it is no model");
    assert_eq!(operator.post("remove", &json!({"name": "org/canny", "kind": "controlnet"})).0, 200);
}

#[test]
fn a_cancelled_pull_keeps_its_bytes_and_the_next_one_resumes_them() {
    let operator = Operator::start();
    operator.hub.add("org/name", &[("a.safetensors", safetensors(3_000_000, 3))]);
    operator.hub.world().accidents.push_back(Accident::Stall(1_500_000));
    let (_, task) = operator.post("pull", &json!({ "name": FILE }));
    let id = task["id"].as_str().unwrap().to_owned();
    let task = operator.until(&id, |task| task["bytes"].as_u64() > Some(1_000_000));
    assert_eq!((&task["status"], &task["total"]), (&json!("IN_PROGRESS"), &json!(3_000_016)));

    // One at a time, and nothing is removed meanwhile.
    let busy = format!("The server is at work on {FILE}: wait until it is done, or cancel that.");
    for (what, name) in [("pull", "org/other"), ("check", "tiny-sd"), ("remove", FILE)] {
        assert_eq!(
            operator.post(what, &json!({ "name": name })),
            (409, json!({ "error": busy.as_str() })),
            "{what}"
        );
    }
    let (status, task) = operator.post(&format!("tasks/{id}/cancel"), &json!(null));
    assert_eq!((status, &task["status"]), (200, &json!("CANCELLING")));
    assert_eq!(operator.server.terminate().code(), Some(0), "the end does not wait for a silent host");

    let part = files_under(&operator.folder.path().join("data/models"));
    assert!(part.iter().any(|path| path.to_string_lossy().contains(".name--a.safetensors.part")), "{part:?}");
    let (hub, models) = (operator.hub, operator.folder.path().join("data/models"));
    assert!(said(&pull(&hub, &models, FILE)).starts_with(&format!("{FILE} has been pulled")));
    assert!(hub.ranges().last().unwrap().as_ref().unwrap().starts_with("bytes=1"), "{:?}", hub.ranges());
}

#[test]
fn a_cancelled_pull_ends_and_can_be_removed() {
    let operator = Operator::start();
    operator.hub.add("org/name", &[("a.safetensors", safetensors(3_000_000, 3))]);
    // It breaks off and is resumed, again and again: between two tries it sees that it was cancelled.
    operator.hub.world().accidents.extend([Accident::Cut(1_100_000); 6]);
    let (_, task) = operator.post("pull", &json!({ "name": FILE }));
    let id = task["id"].as_str().unwrap().to_owned();
    operator.until(&id, |task| task["note"].is_string());
    operator.post(&format!("tasks/{id}/cancel"), &json!(null));
    let task = operator.until(&id, |task| task["status"] != "CANCELLING");
    assert_eq!((&task["status"], &task["error"]), (&json!("CANCELLED"), &Value::Null));
    assert_eq!(operator.post(&format!("tasks/{id}/cancel"), &json!(null)).1["status"], "CANCELLED");
    let library = operator.library();
    assert_eq!(library["unfinished"][0]["name"], FILE, "{library}");
    assert_eq!(operator.post("remove", &json!({ "name": FILE })).0, 200);
    assert_eq!(operator.library()["unfinished"], json!([]));
}

#[test]
fn what_clients_name_reaches_no_private_address_and_gets_no_token() {
    let operator = Operator::start();
    let bytes = safetensors(2000, 1);
    let file = Plain { bytes: bytes.clone(), ..Plain::default() };
    operator.hub.world().plain.insert("a.safetensors".to_owned(), file);
    let elsewhere = operator.hub.other.replace("127.0.0.1", "127.0.0.2");
    let away = Plain {
        status: Some(302),
        headers: vec![("Location", format!("{elsewhere}/a.safetensors"))],
        ..Plain::default()
    };
    operator.hub.world().plain.insert("away.safetensors".to_owned(), away);

    let refusal = "The address of 127.0.0.2 is not public: the operator can allow it with --allow-addresses.";
    for name in [format!("{elsewhere}/a.safetensors"), format!("{}/away.safetensors", operator.hub.other)] {
        let task = operator.done("pull", &json!({ "name": name }));
        assert_eq!((&task["status"], &task["error"]), (&json!("FAILED"), &json!(refusal)), "{name}");
        assert!(!task.to_string().contains("a.safetensors"), "the rest of a URL may be secret: {task}");
    }
    let task = operator.done("pull", &json!({"name": format!("{}/a.safetensors", operator.hub.other)}));
    assert_eq!(task["status"], "COMPLETED", "{task}");
    let world = operator.hub.world();
    assert!(world.seen.iter().all(|seen| !seen.headers.contains_key("authorization")));
}

#[test]
fn hostile_names_change_nothing() {
    let operator = Operator::start();
    let kept = operator.folder.path().join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("a.safetensors"), safetensors(100, 1)).unwrap();
    let path = kept.display().to_string();
    let names = [
        "",
        " ",
        "..",
        "../kept",
        "../../kept",
        "/",
        "a\0b",
        "a\nb",
        "--help",
        ".locks",
        "C:\\x",
        "org/../kept",
        &path,
    ];
    for name in names {
        for what in ["pull", "check", "remove"] {
            let (status, body) = operator.post(what, &json!({ "name": name }));
            assert!([400, 404].contains(&status), "{what} {name:?}: {status} {body}");
            assert!(!body.to_string().contains("data/models"), "{body}");
        }
    }
    for name in ["file:///etc/passwd", "ftp://example.org/a.safetensors", &"a/".repeat(2000)] {
        assert_eq!(operator.post("pull", &json!({ "name": name })).0, 400, "{name}");
    }
    for (what, body) in [
        ("pull", json!({})),
        ("pull", json!([])),
        ("pull", json!({"name": 7})),
        ("pull", json!({"name": "a/b", "kind": "vae"})),
        ("pull", json!({"name": "a/b", "sha256": "no"})),
        ("check", json!({"name": "tiny-sd", "device": "cuda"})),
        ("remove", json!({"name": "a/b", "more": 1})),
    ] {
        assert_eq!(operator.post(what, &body).0, 400, "{what} {body}");
    }
    assert!(kept.join("a.safetensors").exists());
    assert_eq!(operator.library()["task"], Value::Null);
}

#[test]
fn what_an_endpoint_serves_is_neither_removed_nor_replaced() {
    let operator = Operator::start_with(|command, folder| {
        let model = folder.join("data/models/org/served");
        model_copy(&model);
        let files: Vec<_> = files_under(&model)
            .into_iter()
            .map(|path| {
                let size = fs::metadata(model.join(&path)).unwrap().len();
                json!({"path": path, "size": size, "sha256": "0".repeat(64)})
            })
            .collect();
        let manifest = json!({
            "name": "org/served", "source": "https://hub.example/org/served", "kind": "diffusers",
            "pulled_at_ms": 0, "files": files,
        });
        fs::write(model.join(".pulled.json"), manifest.to_string()).unwrap();
        command.env("STABLEHAND_MODEL", "org/served");
    });
    operator.hub.add("org/served", &diffusers());
    assert_eq!(operator.library()["items"][1]["endpoints"], json!(["stable-diffusion-v1"]));
    let (status, body) = operator.post("remove", &json!({"name": "served"}));
    assert_eq!(status, 409);
    assert_eq!(
        body["error"],
        "org/served is in use by stable-diffusion-v1: serve another model there and restart the server, then remove it."
    );
    let task = operator.done("pull", &json!({"name": "org/served"}));
    assert_eq!(
        task["error"],
        "There is a new version of org/served, but stable-diffusion-v1 draws with the one that is here: pull it when the \
         server is stopped."
    );
    assert!(operator.models().join("org/served/unet").exists());
    assert_eq!(operator.library()["unfinished"], json!([]));
}

#[test]
fn a_check_says_what_the_command_prints() {
    let operator = Operator::start();
    let task = operator.done("check", &json!({"name": "tiny-sd"}));
    assert_eq!((&task["status"], &task["work"]), (&json!("COMPLETED"), &json!("check")), "{task}");
    let report = task["report"].as_str().unwrap();
    assert!(report.starts_with("tiny-sd draws: a step at 64×64 px took "), "{report}");
    for heading in ["\nParts\n", "\nModel\n", "\nWorks\n"] {
        assert!(report.contains(heading), "{heading} in {report}");
    }
    fs::create_dir_all(operator.models()).unwrap();
    fs::write(operator.models().join("broken.safetensors"), safetensors(100, 1)).unwrap();
    let task = operator.done("check", &json!({"name": "broken"}));
    assert_eq!(
        (&task["status"], &task["error"]),
        (&json!("FAILED"), &json!("broken.safetensors does not draw."))
    );
    let report = task["report"].as_str().unwrap();
    assert!(report.starts_with("broken") && report.contains("does not draw"), "{report}");
    assert!(!report.contains(operator.folder.path().to_str().unwrap()), "{report}");
}

#[test]
fn without_the_setting_clients_only_look() {
    let operator = Operator::start_with(|command, _| {
        command.env_remove("STABLEHAND_MANAGE_MODELS");
    });
    assert_eq!(operator.library()["may_change"], false);
    let refusal = json!({"error": "This server does not let clients change its models: start it with --manage-models on."});
    for what in ["pull", "check", "remove", "tasks/1/cancel"] {
        assert_eq!(operator.post(what, &json!({"name": "org/name"})), (403, refusal.clone()), "{what}");
    }
    assert!(operator.hub.world().seen.is_empty());
}
