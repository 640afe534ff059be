//! The files that a run leaves, and the data that it deletes.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::helpers::{Server, data_dir, download, files_under, small};

#[test]
fn a_run_writes_nothing_outside_the_data_and_cache_folders() {
    let world = data_dir();
    let folder = |name: &str| {
        let path = world.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (home, temp, work, cache) = (folder("home"), folder("tmp"), folder("cwd"), folder("cache"));
    let data = world.path().join("data");
    let server = Server::start_with(&data, |command| {
        command
            .env("HOME", &home)
            .env("TMPDIR", &temp)
            .env("STABLEHAND_CACHE_DIR", &cache)
            .current_dir(&work);
        for name in ["XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"] {
            command.env_remove(name);
        }
    });
    let id = server.submit(&small("a dog")).unwrap();
    assert_eq!(server.wait(&id)["status"], "COMPLETED");
    assert_eq!(server.terminate().code(), Some(0));

    let others: Vec<_> = files_under(world.path())
        .into_iter()
        .filter(|path| !path.starts_with("data") && !path.starts_with("cache"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(files_under(&cache).len(), 1, "only the unpacked library");
}

#[test]
fn after_the_retention_no_byte_of_a_prompt_or_picture_is_left() {
    let data = data_dir();
    let server = Server::start_with(data.path(), |command| {
        command.env("STABLEHAND_RETENTION", "1s").env("STABLEHAND_SWEEP_INTERVAL", "200ms");
    });
    let prompt = "zebra-crossing-lighthouse";
    let id = server.submit(&json!({"prompt": prompt, "num_inference_steps": 2})).unwrap();
    let url = server.wait(&id)["output"][0]["image"].as_str().unwrap().to_owned();
    let png = download(&url);
    assert!(png.starts_with(b"\x89PNG"));
    let piece = &png[png.len() / 2..png.len() / 2 + 32];
    assert!(holds(data.path(), prompt.as_bytes()) && holds(data.path(), piece), "both are stored at first");

    let deadline = Instant::now() + Duration::from_secs(20);
    while holds(data.path(), prompt.as_bytes()) || holds(data.path(), piece) {
        assert!(Instant::now() < deadline, "expired data is overwritten");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(server.get(&format!("status/{id}")).is_none(), "the status is 404");
    assert!(ureq::get(&url).call().is_err(), "the image is 404");
}

/// Whether any file under `folder` holds `needle`.
fn holds(folder: &Path, needle: &[u8]) -> bool {
    files_under(folder).iter().any(|file| {
        let bytes = fs::read(folder.join(file)).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}
