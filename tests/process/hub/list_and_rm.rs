//! Pulled models are listed, found by name, and removed.

use std::fs;
use std::path::Path;

use super::fake_hub::{Accident, FakeHub};
use super::{diffusers, models, pull, safetensors, said};
use crate::helpers::{assert_refused, data_dir, output, stablehand};

fn list(hub: &FakeHub, folder: &Path) -> Vec<String> {
    let text = said(&output(models(hub, folder, &["list"])));
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_list_shows_each_model_with_its_path() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let path = folder.path().display();
    assert_eq!(
        list(&hub, folder.path()),
        [format!("no models in {path} yet: pull one with `stablehand models pull ORG/NAME`")]
    );
    hub.add("org/name", &diffusers());
    said(&pull(&hub, folder.path(), "org/name"));
    said(&pull(&hub, folder.path(), "org/name:v1-5.safetensors"));
    hub.add("org/broken", &[("a.safetensors", safetensors(1000, 1))]);
    hub.add("org/gone", &[("a.safetensors", safetensors(1000, 2))]);
    hub.world().accidents.extend([Accident::Cut(500), Accident::Gone, Accident::Gone]);
    for name in ["org/broken", "org/gone"] {
        assert_eq!(pull(&hub, folder.path(), name).status.code(), Some(1));
    }

    let lines = list(&hub, folder.path());
    let said_alone = said(&output(models(&hub, folder.path(), &[])));
    assert_eq!(
        said_alone,
        said(&output(models(&hub, folder.path(), &["list"]))),
        "`models` alone lists them"
    );
    let today = chrono::Local::now().format("%Y-%m-%d").to_string();
    assert_eq!(lines[0], "NAME KIND SIZE PULLED PATH");
    assert!(lines[1].starts_with(&format!("org/name diffusers folder 3.0 MB {today} ")), "{}", lines[1]);
    assert!(lines[1].ends_with(&format!(" {path}/org/name")), "{}", lines[1]);
    assert!(lines[2].starts_with(&format!("org/name:v1-5.safetensors safetensors file 9.0 kB {today} ")));
    assert!(lines[2].ends_with(&format!(" {path}/org/name--v1-5.safetensors/v1-5.safetensors")));
    let unfinished = "unfinished: org/broken:a.safetensors (0.5 kB so far): pull it again to resume, or remove it with `stablehand models rm`";
    assert_eq!(lines[3], unfinished);
    assert_eq!(lines.len(), 4, "a pull that received nothing leaves nothing");
    let removed = said(&output(models(&hub, folder.path(), &["rm", "org/broken:a.safetensors"])));
    assert!(removed.starts_with("removed org/broken:a.safetensors"));
    assert_eq!(list(&hub, folder.path()).len(), 3);
}

#[test]
fn rm_removes_only_the_named_model() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &diffusers());
    hub.add("org/other", &[("a.safetensors", safetensors(1000, 1))]);
    said(&pull(&hub, folder.path(), "org/name"));
    said(&pull(&hub, folder.path(), "org/other"));
    let rm = |name: &str| output(models(&hub, folder.path(), &["rm", name]));
    assert_eq!(said(&rm("name")), "removed org/name (3.0 MB)\n");
    assert_eq!(list(&hub, folder.path()).len(), 2);
    assert!(!folder.path().join("org/name").exists());
    assert_refused(&rm("name"), 1, &["no model 'name' has been pulled", "stablehand models list"]);
    assert_refused(
        &rm("org/othr"),
        1,
        &["'org/othr' has been pulled (did you mean org/other:a.safetensors?)"],
    );
    let file = folder.path().join("org/other--a.safetensors/a.safetensors");
    assert!(said(&rm(file.to_str().unwrap())).starts_with("removed org/other:a.safetensors"));
    assert!(!folder.path().join("org").exists());
}

#[test]
fn rm_leaves_files_outside_the_models_folder_alone() {
    let (hub, outer) = (FakeHub::start(), data_dir());
    let (folder, mine) = (outer.path().join("models"), outer.path().join("mine"));
    fs::create_dir(&mine).unwrap();
    fs::write(mine.join("model.safetensors"), "mine").unwrap();
    hub.add("org/name", &[("a.safetensors", safetensors(1000, 1))]);
    said(&pull(&hub, &folder, "org/name"));
    let rm = |name: &str| output(models(&hub, &folder, &["rm", name]));
    let up = folder.join("../mine");
    for path in [&mine, &up, &mine.join("model.safetensors"), &folder, &folder.join("..")] {
        assert_refused(
            &rm(path.to_str().unwrap()),
            1,
            &["is not inside the models folder", "was not removed"],
        );
    }
    // This folder is inside, but it is not a model.
    assert_refused(&rm(folder.join("org").to_str().unwrap()), 1, &["no model", "has been pulled"]);
    #[cfg(unix)]
    {
        let pulled = folder.join("org/name--a.safetensors");
        fs::rename(&pulled, outer.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(outer.path().join("moved"), &pulled).unwrap();
        assert_refused(&rm("org/name:a.safetensors"), 1, &["is not inside the models folder"]);
        assert!(outer.path().join("moved/a.safetensors").exists());
    }
    assert!(mine.join("model.safetensors").exists());
}

#[test]
fn an_unknown_model_name_is_refused_with_a_hint() {
    let (hub, data) = (FakeHub::start(), data_dir());
    let folder = data.path().join("models");
    hub.add("a/name", &[("x.safetensors", safetensors(1000, 1))]);
    hub.add("b/name", &[("x.safetensors", safetensors(1000, 2))]);
    said(&pull(&hub, &folder, "a/name"));
    said(&pull(&hub, &folder, "b/name"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let with = |command: &[&str], model: &str| {
        let mut command = stablehand(command);
        command.env("STABLEHAND_DATA_DIR", data.path()).env("STABLEHAND_LISTEN", "127.0.0.1:0");
        command.args(["--device", "cpu", "--model", model]);
        output(command)
    };
    for command in [&["generate", "a dog"][..], &["serve"]] {
        assert_refused(&with(command, "none"), 1, &["there is no model none", "`stablehand models list`"]);
        assert_refused(
            &with(command, "a/nam"),
            1,
            &["(did you mean a/name:x.safetensors?)", "models pull a/nam`"],
        );
        let ambiguous = ["'x' may mean a/name:x.safetensors or b/name:x.safetensors"];
        assert_refused(&with(command, "x"), 1, &ambiguous);
        assert_refused(&with(command, "./none"), 1, &["./none is not a Stable Diffusion model"]);
    }
}
