//! One cache folder for several users, and cache folders from which nothing can be loaded.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::helpers::{assert_refused, data_dir, output, stablehand};

const DRAW: [&str; 10] =
    ["generate", "a dog", "--steps", "1", "--width", "64", "--height", "64", "--device", "cpu"];

/// A folder that every user can reach.
fn shared_folder() -> TempDir {
    let folder = data_dir();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

fn create(path: PathBuf, mode: u32) -> PathBuf {
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// Draws as another user, to standard output.
fn draw(user: u32, cache: &Path) -> Output {
    let mut command = stablehand(&DRAW);
    command
        .args(["-o", "-"])
        .env("STABLEHAND_CACHE_DIR", cache)
        .env("STABLEHAND_DATA_DIR", "/nonexistent/data");
    command.uid(user).gid(user).current_dir("/");
    output(command)
}

fn assert_drawn(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.starts_with(b"\x89PNG"));
}

/// The unpacked libraries: the name of each folder, the file's owner and its mode.
fn libraries(cache: &Path) -> Vec<(String, u32, u32)> {
    let mut found = Vec::new();
    for folder in fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()) {
        for file in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap()) {
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            found.push((name, file.uid(), file.mode() & 0o777));
        }
    }
    found.sort();
    found
}

#[test]
#[ignore = "needs root, to become other users"]
fn users_who_share_a_cache_do_not_load_each_other_s_code() {
    let folder = shared_folder();
    for mode in [0o777, 0o1777] {
        let cache = create(folder.path().join(format!("cache-{mode:o}")), mode);
        for user in [12345, 22222, 12345] {
            assert_drawn(&draw(user, &cache));
        }
        let found = libraries(&cache);
        assert_eq!(
            found.iter().map(|(_, owner, mode)| (*owner, *mode)).collect::<Vec<_>>(),
            [(12345, 0o644), (22222, 0o644)]
        );
        assert!(found[1].0.ends_with("-22222") && found[1].0.starts_with(&found[0].0), "{found:?}");

        // The first user writes other code. It is never loaded: not by the others, nor by its owner.
        let library = fs::read_dir(cache.join(&found[0].0)).unwrap().next().unwrap().unwrap().path();
        fs::write(&library, "other code").unwrap();
        assert_drawn(&draw(22222, &cache));
        assert_drawn(&draw(0, &cache));
        assert_eq!(libraries(&cache).len(), 3);
        assert_drawn(&draw(12345, &cache));
    }
}

#[test]
#[ignore = "needs root, to become other users"]
fn what_root_unpacked_serves_everyone() {
    let folder = shared_folder();
    let cache = create(folder.path().join("cache"), 0o755);
    for user in [0, 12345, 22222] {
        assert_drawn(&draw(user, &cache));
    }
    let found = libraries(&cache);
    assert_eq!((found.len(), found[0].1, found[0].2), (1, 0, 0o644), "{found:?}");
}

#[test]
#[ignore = "needs root, to become other users"]
fn a_folder_that_cannot_be_used_is_named_with_its_remedy() {
    let folder = shared_folder();
    let read_only = create(folder.path().join("cache"), 0o755);
    assert_refused(&draw(12345, &read_only), 1, &["Permission denied", "STABLEHAND_CACHE_DIR"]);
    // Another user has been here first, under the name of this user.
    let open = create(folder.path().join("open"), 0o777);
    assert_drawn(&draw(12345, &open));
    let name = &libraries(&open)[0].0;
    let trap = create(open.join(format!("{name}-22222")), 0o777);
    std::os::unix::fs::chown(&trap, Some(12345), None).unwrap();
    let refused = draw(22222, &open);
    assert_refused(
        &refused,
        1,
        &["belongs to user 12345, who could change the code in it", "STABLEHAND_CACHE_DIR"],
    );
}

#[test]
#[ignore = "needs root, to become other users"]
fn a_user_without_a_home_gets_a_cache_of_their_own() {
    let folder = shared_folder();
    let temporary = create(folder.path().join("tmp"), 0o1777);
    for user in [12345, 22222] {
        let mut command = stablehand(&DRAW);
        command.args(["-o", "-"]).env("STABLEHAND_DATA_DIR", "/nonexistent/data").env("TMPDIR", &temporary);
        for name in ["STABLEHAND_CACHE_DIR", "HOME", "XDG_CACHE_HOME"] {
            command.env_remove(name);
        }
        assert_drawn(&output({
            command.uid(user).gid(user).current_dir("/");
            command
        }));
        assert_eq!(libraries(&temporary.join(format!("stablehand-{user}"))).len(), 1);
    }
}

#[test]
#[ignore = "needs root, to mount a file system"]
fn a_file_system_without_programs_is_named_with_the_loader_s_reason() {
    let folder = shared_folder();
    let mounted = create(folder.path().join("noexec"), 0o755);
    let binary = stablehand(&DRAW);
    let script = r#"mount -t tmpfs -o noexec none "$0" && exec "$@" -o -"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(&mounted).arg(binary.get_program()).args(binary.get_args());
    command.env("STABLEHAND_CACHE_DIR", &mounted).env("STABLEHAND_DATA_DIR", "/nonexistent/data");
    let refused = output(command);
    assert_refused(
        &refused,
        1,
        &[
            "cannot load ONNX Runtime from",
            &format!("{}/onnxruntime-", mounted.display()),
            "failed to map segment from shared object (the file system may be mounted noexec)",
            "name another folder with STABLEHAND_CACHE_DIR",
        ],
    );
    assert!(!String::from_utf8_lossy(&refused.stderr).contains("/proc/self"));
}
