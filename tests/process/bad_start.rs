//! Errors at start: each is one sentence.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use crate::helpers::{KEY, Server, assert_refused, data_dir, model_copy, output, small, stablehand};

fn serve(data: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = stablehand(&["serve", "--device", "cpu", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data).args(args).env("STABLEHAND_API_KEYS", KEY).envs(env.iter().copied());
    output(command)
}

#[test]
fn a_folder_without_a_model_is_refused_with_what_is_missing() {
    let (data, model) = (data_dir(), data_dir());
    let path = model.path().to_str().unwrap();
    assert_refused(&serve(data.path(), &["--model", path], &[]), 1, &[path, "it has no folder tokenizer"]);
    model_copy(model.path());
    fs::remove_dir_all(model.path().join("unet")).unwrap();
    assert_refused(&serve(data.path(), &["--model", path], &[]), 1, &[path, "it has no unet/model.onnx"]);
}

#[test]
fn a_damaged_model_is_refused_with_the_damaged_file() {
    let (data, model) = (data_dir(), data_dir());
    let path = model.path().to_str().unwrap();
    model_copy(model.path());
    let unet = model.path().join("unet/diffusion_pytorch_model.fp16.safetensors");
    let whole = fs::read(&unet).unwrap();
    fs::write(&unet, &whole[..whole.len() / 2]).unwrap();
    let refused = serve(data.path(), &["--model", path], &[]);
    assert_refused(&refused, 1, &["diffusion_pytorch_model.fp16.safetensors", "was cut short"]);
    fs::write(&unet, &whole).unwrap();
    fs::write(model.path().join("tokenizer/vocab.json"), "{").unwrap();
    assert_refused(&serve(data.path(), &["--model", path], &[]), 1, &["vocab.json"]);
    model_copy(model.path());
    fs::write(model.path().join("scheduler/scheduler_config.json"), "[]").unwrap();
    assert_refused(&serve(data.path(), &["--model", path], &[]), 1, &["scheduler_config.json"]);
}

#[test]
fn a_copied_model_folder_works_like_the_built_in_one() {
    let (data, model) = (data_dir(), data_dir());
    model_copy(model.path());
    let server = Server::start_with(data.path(), |command| {
        command.arg("--model").arg(model.path());
    });
    let id = server.submit(&small("a dog")).unwrap();
    assert_eq!(server.wait(&id)["status"], "COMPLETED");
}

#[test]
fn a_port_in_use_is_named() {
    let data = data_dir();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = stablehand(&["serve", "--listen", &address, "--data-dir"]);
    command.arg(data.path()).env("STABLEHAND_API_KEYS", KEY);
    assert_refused(&output(command), 1, &[&address, "--listen"]);
}

#[test]
fn a_data_folder_in_use_is_named() {
    let data = data_dir();
    let _first = Server::start(data.path());
    assert_refused(&serve(data.path(), &[], &[]), 1, &["another stablehand", "--data-dir"]);
}

#[test]
fn a_damaged_database_is_named_and_not_changed() {
    let data = data_dir();
    let database = data.path().join("stablehand.db");
    let garbage = "this is no database, whatever its name says. ".repeat(200);
    fs::write(&database, &garbage).unwrap();
    assert_refused(&serve(data.path(), &[], &[]), 1, &["stablehand.db"]);
    assert_eq!(fs::read_to_string(&database).unwrap(), garbage);
}

#[test]
fn an_unusable_onnx_runtime_is_named() {
    let data = data_dir();
    let library = data.path().join("libwrong.so");
    let path = library.to_str().unwrap();
    assert_refused(&serve(data.path(), &[], &[("STABLEHAND_ORT_DYLIB", path)]), 1, &[path, "no such file"]);
    fs::write(&library, "no library").unwrap();
    assert_refused(&serve(data.path(), &[], &[("STABLEHAND_ORT_DYLIB", path)]), 1, &[path]);
    let file = data.path().join("file");
    fs::write(&file, "").unwrap();
    let cache = [("STABLEHAND_CACHE_DIR", file.to_str().unwrap())];
    assert_refused(&serve(data.path(), &[], &cache), 1, &["STABLEHAND_CACHE_DIR"]);
}

#[cfg(unix)]
#[test]
fn too_few_open_files_are_named_with_the_remedy() {
    let data = data_dir();
    let served = stablehand(&["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--data-dir"]);
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -n 20 && exec \"$0\" \"$@\""])
        .arg(served.get_program())
        .args(served.get_args());
    command.arg(data.path()).env("STABLEHAND_API_KEYS", KEY);
    assert_refused(&output(command), 1, &["only 20 files", "ulimit -n"]);
}

#[test]
fn empty_variables_are_unset_ones() {
    let data = data_dir();
    let server = Server::start_with(data.path(), |command| {
        for name in ["MODEL", "PUBLIC_URL", "API_KEYS", "RETENTION", "WORKERS", "ORT_DYLIB", "CONFIG"] {
            command.env(format!("STABLEHAND_{name}"), "");
        }
        command.env("TMPDIR", "");
    });
    let key = fs::read_to_string(data.path().join("api-key")).unwrap();
    let health = server.url("health");
    assert_eq!(ureq::get(health).header("Authorization", key.trim()).call().unwrap().status(), 200);
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_is_no_failure() {
    for line in ["\"$0\" --help | true", "\"$0\" licenses | head -1", "\"$0\" man | head -1"] {
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &format!("{line}; exit ${{PIPESTATUS[0]}}")]).arg(stablehand(&[]).get_program());
        let output = output(command);
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    }
    // The server does not end with the reader of its log.
    let data = data_dir();
    let server = Server::start_with(data.path(), |command| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stderr(writer);
    });
    let id = server.submit(&small("a dog")).unwrap();
    assert_eq!(server.wait(&id)["status"], "COMPLETED");
}

#[test]
fn invalid_settings_are_usage_errors() {
    let data = data_dir();
    for (env, parts) in [
        (("STABLEHAND_RETENTION", "soon"), &["retention"][..]),
        (("STABLEHAND_DEVICE", "tpu"), &["auto, cpu, cuda or cuda:N"]),
        (("STABLEHAND_PUBLIC_URL", "example.org"), &["public"]),
        (("STABLEHAND_LISTEN", "8000"), &["listen"]),
        (("STABLEHAND_CPU_SPEED", "slow"), &["cpu-speed", "auto, fast or memory"]),
        (("STABLEHAND_THREADS", "0"), &["threads", "1..=1024"]),
    ] {
        let output = {
            let mut command = stablehand(&["serve", "--data-dir"]);
            command.arg(data.path()).env("STABLEHAND_API_KEYS", KEY).env(env.0, env.1);
            output(command)
        };
        assert_eq!(output.status.code(), Some(2), "{env:?}");
        let stderr = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(parts.iter().all(|part| stderr.contains(&part.to_lowercase())), "{env:?}: {stderr}");
    }
}

#[test]
fn listening_on_all_addresses_without_keys_is_refused() {
    let data = data_dir();
    let mut command = stablehand(&["serve", "--listen", "0.0.0.0:0", "--auth", "off", "--data-dir"]);
    command.arg(data.path());
    assert_refused(&output(command), 2, &["auth"]);
}
