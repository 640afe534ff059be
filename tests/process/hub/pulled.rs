//! Which files are pulled, and from where.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::fake_hub::{FakeHub, Files, Plain, sha256};
use super::{diffusers, models, noted, pickle, pull, safetensors, said};
use crate::helpers::{Server, data_dir, files_under, output, small, stablehand};

pub fn names(folder: &Path) -> Vec<String> {
    let files = files_under(folder).into_iter().map(|path| path.to_str().unwrap().to_owned());
    files.filter(|name| !name.starts_with(".locks")).collect()
}

#[test]
fn only_the_usable_files_of_a_repository_are_pulled() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &diffusers());
    hub.world().page = 3;
    let output = pull(&hub, folder.path(), "org/name");
    assert_eq!(
        said(&output),
        "org/name has been pulled (diffusers folder, 3.0 MB): use it with --model org/name\n"
    );
    assert!(noted(&output).starts_with("pulling org/name: 9 files, 3.0 MB\n"), "{}", noted(&output));
    let expected = [
        ".pulled.json",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];
    let model = folder.path().join("org/name");
    assert_eq!(names(&model), expected);
    assert_eq!(hub.files_asked_for(), expected[1..], "no other file is requested");
    for (path, bytes) in diffusers().iter().filter(|(path, _)| expected.contains(path)) {
        assert_eq!(fs::read(model.join(path)).unwrap(), *bytes, "{path}");
    }
    let manifest: Value = serde_json::from_slice(&fs::read(model.join(".pulled.json")).unwrap()).unwrap();
    assert_eq!(manifest["source"], format!("{}/org/name", hub.url));
    assert_eq!(manifest["commit"].as_str().unwrap().len(), 40);
}

#[test]
fn the_index_decides_which_shards_are_pulled() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let mut files = diffusers();
    files.retain(|(path, _)| !path.starts_with("unet/diffusion"));
    let index = r#"{"metadata": {}, "weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors",
        "b": "diffusion_pytorch_model-00002-of-00002.safetensors", "c": "diffusion_pytorch_model-00001-of-00002.safetensors"}}"#;
    files.extend([
        ("unet/diffusion_pytorch_model.safetensors.index.json", index.as_bytes().to_vec()),
        ("unet/diffusion_pytorch_model-00001-of-00002.safetensors", safetensors(100, 1)),
        ("unet/diffusion_pytorch_model-00002-of-00002.safetensors", safetensors(100, 2)),
        ("unet/diffusion_pytorch_model-00003-of-00003.safetensors", safetensors(100, 3)),
    ]);
    hub.add("org/name", &files);
    said(&pull(&hub, folder.path(), "org/name"));
    let unet = names(&folder.path().join("org/name/unet"));
    assert_eq!(
        unet,
        [
            "config.json",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model-00002-of-00002.safetensors",
            "diffusion_pytorch_model.safetensors.index.json",
        ]
    );
}

#[test]
fn a_named_file_is_pulled_alone() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let mut files = diffusers();
    files.push(("loras/a b+c.safetensors", safetensors(50, 7)));
    hub.add("org/name", &files);
    let pulled = |model: &str| said(&pull(&hub, folder.path(), model));
    assert!(pulled("org/name:v1-5.safetensors").contains("use it with --model org/name:v1-5.safetensors"));
    pulled("org/name:loras/a b+c.safetensors");
    let url = format!("{}/org/name/blob/main/text_encoder/model.safetensors", hub.url);
    assert!(pulled(&url).starts_with("org/name:text_encoder/model.safetensors has been pulled"));
    assert_eq!(
        names(folder.path()),
        [
            "org/name--loras--a b+c.safetensors/.pulled.json",
            "org/name--loras--a b+c.safetensors/a b+c.safetensors",
            "org/name--text_encoder--model.safetensors/.pulled.json",
            "org/name--text_encoder--model.safetensors/model.safetensors",
            "org/name--v1-5.safetensors/.pulled.json",
            "org/name--v1-5.safetensors/v1-5.safetensors",
        ]
    );
}

#[test]
fn a_vae_and_a_configuration_come_with_their_checkpoint() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let (dream, vae) = (safetensors(9000, 1), safetensors(500, 2));
    hub.add("org/name", &[("dream.safetensors", dream.clone()), ("README.md", vec![0])]);
    let hash = sha256(&dream);
    let first = output(models(&hub, folder.path(), &["pull", "org/name", "--sha256", &hash]));
    assert!(said(&first).contains("(safetensors file, 9.0 kB)"));
    // The author adds them later. The checkpoint is not downloaded again.
    let files = [
        ("dream.safetensors", dream),
        ("dream.vae.safetensors", vae),
        ("dream.vae.pt", pickle(500)),
        ("dream.yaml", b"model: {}".to_vec()),
    ];
    hub.add("org/name", &files);
    hub.world().seen.clear();
    let again = output(models(&hub, folder.path(), &["pull", "org/name", "--sha256", &hash]));
    assert_eq!(
        said(&again),
        "org/name:dream.safetensors has been pulled (safetensors file, 9.5 kB): use it with --model \
         org/name:dream.safetensors\n"
    );
    assert_eq!(hub.ranges().len(), 2);
    let model = folder.path().join("org/name--dream.safetensors");
    assert_eq!(names(&model), [".pulled.json", "dream.safetensors", "dream.vae.safetensors", "dream.yaml"]);
    let listed = said(&output(models(&hub, folder.path(), &["list"])));
    assert!(listed.ends_with("/dream.safetensors\n"), "{listed}");
    let refused = output(models(&hub, folder.path(), &["pull", "org/name", "--sha256", &sha256(b"x")]));
    assert!(noted(&refused).contains("nothing was pulled"), "{}", noted(&refused));
}

#[test]
fn weights_under_another_form_s_name_are_pulled_as_they_are() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    for (repository, name, bytes) in [
        ("org/renamed", "v1.ckpt", safetensors(3000, 1)),
        ("org/pickled", "v1.safetensors", pickle(3000)),
        ("org/old", "v1.pt", [b"\x80\x02", &safetensors(3000, 2)[..]].concat()),
    ] {
        hub.add(repository, &[(name, bytes.clone())]);
        said(&pull(&hub, folder.path(), repository));
        let file = folder.path().join(format!("{repository}--{name}/{name}"));
        assert!(fs::read(file).unwrap() == bytes, "{repository}");
    }
}

#[test]
fn pickles_are_pulled_where_there_is_nothing_else_and_named() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/old", &[("v1.ckpt", pickle(3000)), ("v1.vae.pt", pickle(200))]);
    let mut files = diffusers();
    files.retain(|(path, _)| !path.starts_with("text_encoder/model"));
    files.iter_mut().find(|(path, _)| path.ends_with("pytorch_model.bin")).unwrap().1 = pickle(700);
    hub.add("org/mixed", &files);
    let old = pull(&hub, folder.path(), "org/old");
    assert!(
        said(&old).starts_with("org/old:v1.ckpt has been pulled (pickle file, 3.2 kB)"),
        "{}",
        said(&old)
    );
    assert!(noted(&old).contains(
        "v1.ckpt, v1.vae.pt are pickles: stablehand reads only tensors from pickles and runs no code\n"
    ));
    let mixed = pull(&hub, folder.path(), "org/mixed");
    assert!(said(&mixed).starts_with("org/mixed has been pulled (diffusers folder"));
    assert!(
        noted(&mixed).contains("text_encoder/pytorch_model.bin is a pickle: stablehand reads only tensors")
    );
    assert!(folder.path().join("org/mixed/text_encoder/pytorch_model.bin").exists());
    let all: Vec<_> = diffusers();
    hub.add("org/both", &all);
    assert!(!noted(&pull(&hub, folder.path(), "org/both")).contains("pickle"));
    assert!(!folder.path().join("org/both/text_encoder/pytorch_model.bin").exists());
}

#[test]
fn each_revision_is_a_separate_model() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &[("a.safetensors", safetensors(10, 1))]);
    hub.add("org/name@refs/pr/1", &[("a.safetensors", safetensors(20, 2))]);
    said(&pull(&hub, folder.path(), "org/name@refs/pr/1"));
    said(&pull(&hub, folder.path(), "org/name"));
    let read = |path: &str| fs::read(folder.path().join(path)).unwrap().len();
    assert_eq!(read("org/name--a.safetensors/a.safetensors"), 26);
    assert_eq!(read("org/name@refs--pr--1--a.safetensors/a.safetensors"), 36);
}

#[test]
fn a_second_pull_downloads_only_changed_files() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let mut files = diffusers();
    hub.add("org/name", &files);
    said(&pull(&hub, folder.path(), "org/name"));
    let again = pull(&hub, folder.path(), "org/name");
    assert!(said(&again).starts_with("org/name is up to date (diffusers folder, 3.0 MB)"));
    assert!(noted(&again).is_empty());

    hub.world().seen.clear();
    let unet = safetensors(5000, 9);
    let changed = files.iter_mut().find(|(path, _)| path.ends_with("model.fp16.safetensors")).unwrap();
    changed.1.clone_from(&unet);
    files.retain(|(path, _)| *path != "tokenizer/vocab.json");
    hub.add("org/name", &files);
    said(&pull(&hub, folder.path(), "org/name"));
    assert_eq!(hub.ranges().len(), 1, "only one large file is downloaded");
    let model = folder.path().join("org/name");
    assert_eq!(fs::read(model.join("text_encoder/model.fp16.safetensors")).unwrap(), unet);
    assert!(!model.join("tokenizer").exists(), "a file that the repository dropped is removed");
    assert_eq!(names(folder.path()).iter().filter(|name| !name.starts_with("org/name/")).count(), 0);
}

#[test]
fn a_file_from_a_url_keeps_its_name() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let bytes = safetensors(500_000, 1);
    let plain = Plain { bytes: bytes.clone(), etag: Some("\"1\""), ..Plain::default() };
    let named = ("Content-Disposition", "attachment; filename=\"dream.safetensors\"".to_owned());
    let moved = Plain {
        status: Some(302),
        headers: vec![("Location", "/files/real%20name.safetensors?key=1".to_owned())],
        ..Plain::default()
    };
    hub.world().plain.extend([
        ("files/real%20name.safetensors".to_owned(), plain.clone()),
        ("api/download/1".to_owned(), Plain { headers: vec![named], ..plain }),
        ("api/download/2".to_owned(), moved),
    ]);
    let host = hub.other.strip_prefix("http://").unwrap();
    let group = host.replace(':', "_");
    for (path, name) in [
        ("files/real%20name.safetensors?token=secret", "real name.safetensors"),
        ("api/download/1", "dream.safetensors"),
        ("api/download/2", "real name.safetensors"),
    ] {
        let output = output(models(&hub, folder.path(), &["rm", name]));
        assert!(output.status.success() || noted(&output).contains("has been pulled"));
        let output = pull(&hub, folder.path(), &format!("{}/{path}", hub.other));
        let typed = format!("{host}/{name}");
        let typed = if typed.contains(' ') { format!("'{typed}'") } else { typed };
        assert!(said(&output).ends_with(&format!("use it with --model {typed}\n")), "{}", said(&output));
        let file = folder.path().join(&group).join(name).join(name);
        assert_eq!(fs::read(&file).unwrap(), bytes);
        let manifest = fs::read_to_string(file.with_file_name(".pulled.json")).unwrap();
        assert!(manifest.contains(&sha256(&bytes)) && !manifest.contains("secret"), "{manifest}");
    }
    let again = pull(&hub, folder.path(), &format!("{}/api/download/2", hub.other));
    assert!(said(&again).contains("is up to date"));
}

#[test]
fn the_sha256_option_is_enforced() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let bytes = safetensors(1000, 1);
    hub.world().plain.insert("a.safetensors".to_owned(), Plain { bytes: bytes.clone(), ..Plain::default() });
    hub.add("org/name", &[("a.safetensors", bytes.clone())]);
    let pull =
        |model: &str, hash: &str| output(models(&hub, folder.path(), &["pull", model, "--sha256", hash]));
    let (right, wrong) = (sha256(&bytes), sha256(b"other"));
    let url = format!("{}/a.safetensors", hub.other);
    for model in [url.as_str(), "org/name:a.safetensors"] {
        let refused = pull(model, &wrong);
        assert_eq!(refused.status.code(), Some(1));
        assert!(noted(&refused).contains("SHA-256"), "{}", noted(&refused));
        assert!(said(&pull(model, &right.to_uppercase())).contains("has been pulled"));
    }
}

#[test]
fn the_token_goes_only_to_the_hub() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &[("a.safetensors", safetensors(1000, 1))]);
    hub.world().token = Some(("hf_secret".to_owned(), 401, "GatedRepo"));
    let mut command = models(&hub, folder.path(), &["pull", "org/name"]);
    command.env("HF_TOKEN", "hf_secret");
    let output = output(command);
    assert!(said(&output).contains("has been pulled"));
    assert!(!noted(&output).contains("secret"));
    for seen in &hub.world().seen {
        assert_eq!(seen.headers.contains_key("authorization"), seen.by_hub, "{}", seen.path);
    }
    for file in files_under(folder.path()) {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("hf_secret"));
    }
}

#[test]
fn a_pulled_model_draws_by_its_name() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |folder: &str, wanted: &[&str]| {
        let folder = root.join(folder);
        let files = files_under(&folder).into_iter().filter_map(|path| {
            let name = path.to_str().unwrap().to_owned();
            let bytes = wanted.iter().any(|part| name.starts_with(part)).then(|| fs::read(folder.join(path)));
            Some((name, bytes?.unwrap()))
        });
        files.collect::<Files>()
    };
    let configs = ["model_index.json", "stablehand.json", "scheduler/", "tokenizer/"];
    let weights = ["graphs/", "text_encoder/", "unet/", "vae/"];
    let mut onnx = read("tests/models/tiny-sd-onnx", &[""]);
    onnx.extend(read("models/tiny-sd", &configs));
    let diffusers = read("models/tiny-sd", &[&configs[..], &weights].concat());
    hub.world().repositories.extend([("org/onnx".to_owned(), onnx), ("org/tiny".to_owned(), diffusers)]);
    assert!(said(&pull(&hub, folder.path(), "org/onnx")).contains("ONNX folder"));
    assert!(said(&pull(&hub, folder.path(), "org/tiny")).contains("diffusers folder"));
    let pictures = data_dir();
    for name in ["org/onnx", "org/tiny", "tiny"] {
        let mut command =
            stablehand(&["generate", "a dog", "--steps", "1", "--width", "64", "--height", "64"]);
        command.args(["--device", "cpu", "--model", name]).current_dir(pictures.path());
        command.env("STABLEHAND_MODELS_DIR", folder.path());
        assert!(said(&output(command)).contains("picture.png"));
    }
    let data = data_dir();
    let server = Server::start_with(data.path(), |command| {
        command.env("STABLEHAND_MODEL", "org/tiny").env("STABLEHAND_MODELS_DIR", folder.path());
    });
    let id = server.submit(&small("a dog")).unwrap();
    assert_eq!(server.wait(&id)["status"], "COMPLETED");
}
