//! Models that diffusers or the hub's own client have downloaded are used where they are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::fake_hub::FakeHub;
use super::{models, noted, said};
use crate::helpers::{assert_refused, data_dir, files_under, output, stablehand};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Puts the built-in model into a cache as the hub's own client does. Returns the folder of its version.
fn cache_tiny(cache: &Path) -> PathBuf {
    let repository = cache.join("models--org--tiny");
    let (snapshot, blobs) = (repository.join("snapshots").join(COMMIT), repository.join("blobs"));
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd");
    for (index, file) in files_under(&model).into_iter().enumerate() {
        let (blob, link) = (blobs.join(index.to_string()), snapshot.join(&file));
        fs::copy(model.join(&file), &blob).unwrap();
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(&blob, &link).unwrap();
    }
    snapshot
}

fn with_cache(mut command: Command, cache: &Path) -> Output {
    command.env("HF_HUB_CACHE", cache);
    output(command)
}

fn generate(cache: &Path, data: &Path, model: &str) -> Output {
    let mut command = stablehand(&["generate", "a dog", "--steps", "1", "--width", "64", "--height", "64"]);
    command.args(["--device", "cpu", "--model", model]).current_dir(data).env("STABLEHAND_DATA_DIR", data);
    with_cache(command, cache)
}

#[test]
fn a_cached_model_draws_without_a_copy_and_is_listed() {
    let (hub, data) = (FakeHub::start(), data_dir());
    let (cache, folder) = (data.path().join("hub"), data.path().join("models"));
    let snapshot = cache_tiny(&cache);
    let before = files_under(&cache);
    assert!(said(&generate(&cache, data.path(), "org/tiny")).contains("picture.png"));
    let picture = fs::read(data.path().join("picture.png")).unwrap();
    assert!(picture.windows(12).any(|text| text == b"Model: tiny,"), "its name is not that of its commit");
    assert_eq!(files_under(&cache), before);
    assert!(!folder.exists());

    let list = said(&with_cache(models(&hub, &folder, &["list"]), &cache));
    let bytes: u64 =
        files_under(&cache).iter().map(|file| fs::metadata(cache.join(file)).unwrap().len()).sum();
    assert!(bytes > 1_000_000);
    let shown = list.lines().last().unwrap();
    assert!(shown.starts_with("org/tiny  diffusers folder  ") && shown.contains(" MB  "), "{list}");
    assert!(shown.ends_with(snapshot.to_str().unwrap()), "{list}");
    assert!(
        list.contains(&format!("In the cache of the hub's own programs, {} (used", cache.display())),
        "{list}"
    );

    let rm = with_cache(models(&hub, &folder, &["rm", "org/tiny"]), &cache);
    assert_refused(&rm, 1, &["org/tiny is in the cache of the hub's own programs", "so it was not removed"]);
    assert_eq!(files_under(&cache), before);
    let mistyped = generate(&cache, data.path(), "org/tinny");
    assert_refused(&mistyped, 1, &["there is no model org/tinny", "(did you mean org/tiny?)"]);
}

#[test]
fn a_damaged_cache_is_named_and_a_pulled_model_comes_first() {
    let (hub, data) = (FakeHub::start(), data_dir());
    let (cache, folder) = (data.path().join("hub"), data.path().join("models"));
    let snapshot = cache_tiny(&cache);
    let unet = snapshot.join("unet/diffusion_pytorch_model.fp16.safetensors");
    fs::remove_file(unet.canonicalize().unwrap()).unwrap();
    let refused = generate(&cache, data.path(), "org/tiny");
    let parts = ["is not complete (the content of unet/diffusion_pytorch_model.fp16.safetensors is missing)"];
    assert_refused(&refused, 1, &parts);
    let list = said(&with_cache(models(&hub, &folder, &["list"]), &cache));
    assert!(list.contains("incomplete in ") && list.contains(": org/tiny (the content of unet/"), "{list}");
    let rm = with_cache(models(&hub, &folder, &["rm", "org/tiny"]), &cache);
    assert_refused(&rm, 1, &["so it was not removed"]);

    let files = files_under(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/models/tiny-sd")));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd");
    let files: Vec<_> =
        files.iter().map(|file| (file.to_str().unwrap(), fs::read(root.join(file)).unwrap())).collect();
    hub.add("org/tiny", &files);
    said(&with_cache(models(&hub, &folder, &["pull", "org/tiny"]), &cache));
    said(&generate(&cache, data.path(), "org/tiny"));
}

#[test]
fn pulling_what_is_cached_says_that_it_is_there() {
    let (hub, data) = (FakeHub::start(), data_dir());
    let (cache, folder) = (data.path().join("hub"), data.path().join("models"));
    cache_tiny(&cache);
    let refused = with_cache(models(&hub, &folder, &["pull", "org/tiny"]), &cache);
    assert!(noted(&refused).contains("org/tiny is also in the cache at"), "{}", noted(&refused));
}
