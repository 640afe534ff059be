//! What `models pull` refuses, the error sentences, and that nothing stays in the folder.

use serde_json::json;

use super::fake_hub::{FakeHub, Plain, sha256};
use super::{diffusers, models, noted, pull, safetensors};
use crate::helpers::{assert_refused, data_dir, files_under, output};

#[test]
fn names_that_leave_the_folder_are_refused() {
    for name in [
        "../evil.safetensors",
        "unet/../../evil.safetensors",
        "/etc/cron.d/evil",
        "C:/evil.safetensors",
        "C:\\evil.safetensors",
        "unet\\..\\..\\evil.safetensors",
        "unet/evil\0.safetensors",
        "unet//evil.safetensors",
        "",
    ] {
        let (hub, outer) = (FakeHub::start(), data_dir());
        let folder = outer.path().join("models");
        hub.add("org/name", &diffusers());
        hub.world().extra_entries.push(json!({"type": "file", "path": name, "oid": "0", "size": 1}));
        let refused = pull(&hub, &folder, "org/name");
        assert_refused(&refused, 1, &["is not a plain path inside a repository; nothing was pulled"]);
        assert!(files_under(outer.path()).is_empty(), "{name}");
    }
}

#[test]
fn names_from_a_shard_list_or_a_header_stay_in_their_folder() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let mut files = diffusers();
    files.retain(|(path, _)| !path.starts_with("unet/diffusion"));
    files.push(("unet/diffusion_pytorch_model-1.safetensors", safetensors(10, 1)));
    let index = r#"{"weight_map": {"a": "../v1-5.safetensors"}}"#;
    files.push(("unet/diffusion_pytorch_model.safetensors.index.json", index.as_bytes().to_vec()));
    hub.add("org/name", &files);
    assert_refused(&pull(&hub, folder.path(), "org/name"), 1, &["names the shard \"../v1-5.safetensors\""]);

    for name in [
        "../evil.safetensors",
        "..%2Fevil.safetensors",
        "a:b.safetensors",
        ".evil.safetensors",
        "x.txt",
        "x.pkl",
    ] {
        let plain = Plain {
            bytes: safetensors(10, 1),
            headers: vec![("Content-Disposition", format!("attachment; filename*=UTF-8''{name}"))],
            ..Plain::default()
        };
        hub.world().plain.insert("download/7".to_owned(), plain);
        let refused = pull(&hub, folder.path(), &format!("{}/download/7", hub.other));
        assert_refused(
            &refused,
            1,
            &[
                "has no file of weights at this URL: give the URL of a file of weights (.safetensors, .ckpt, .pt, .bin)",
            ],
        );
    }
    assert!(files_under(folder.path()).is_empty());
}

#[test]
fn other_families_are_refused_before_any_weights_are_downloaded() {
    for (path, config, part) in [
        ("model_index.json", r#"{"_class_name": "StableDiffusionXLPipeline"}"#, "is Stable Diffusion XL"),
        (
            "model_index.json",
            r#"{"_class_name": "FluxPipeline"}"#,
            "is a FluxPipeline according to its model_index.json",
        ),
        ("unet/config.json", r#"{"cross_attention_dim": 1024}"#, "is Stable Diffusion 2"),
    ] {
        let (hub, folder) = (FakeHub::start(), data_dir());
        let mut files = diffusers();
        files.iter_mut().find(|(found, _)| *found == path).unwrap().1 = config.as_bytes().to_vec();
        hub.add("org/name", &files);
        let refused = pull(&hub, folder.path(), "org/name");
        assert_refused(&refused, 1, &[part, "stablehand supports only Stable Diffusion v1 models"]);
        assert!(hub.ranges().is_empty());
        assert!(files_under(folder.path()).is_empty());
    }
}

#[test]
fn another_family_without_a_unet_is_named_too() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let index = br#"{"_class_name": "StableDiffusion3Pipeline"}"#.to_vec();
    let weights = ("transformer/diffusion_pytorch_model.safetensors", safetensors(1000, 1));
    hub.add("org/name", &[("model_index.json", index), weights]);
    let refused = pull(&hub, folder.path(), "org/name");
    assert_refused(&refused, 1, &["stablehand supports only Stable Diffusion v1 models"]);
    assert!(hub.ranges().is_empty());
}

#[test]
fn a_gated_or_private_repository_is_refused_with_a_remedy() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &diffusers());
    let page = format!("{}/org/name", hub.url);
    for (status, code, parts) in [
        (401, "GatedRepo", ["org/name is gated: accept its licence", "set HF_TOKEN"]),
        (403, "GatedRepo", ["org/name is gated: accept its licence", "set HF_TOKEN"]),
        (401, "RepoNotFound", ["has no org/name, or it is private", "or set HF_TOKEN"]),
    ] {
        hub.world().token = Some(("right".to_owned(), status, code));
        assert_refused(&pull(&hub, folder.path(), "org/name"), 1, &[&page, parts[0], parts[1]]);
    }
    let mut command = models(&hub, folder.path(), &["pull", "org/name"]);
    command.env("HF_TOKEN", "wrong");
    assert_refused(&output(command), 1, &["HF_TOKEN is set, but its account may have no access"]);
    let mut command = models(&hub, folder.path(), &["pull", "org/name"]);
    command.env("HF_TOKEN", "two words");
    assert_refused(&output(command), 2, &["HF_TOKEN should be a token"]);
}

#[test]
fn a_missing_model_or_file_is_named() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &diffusers());
    hub.add("org/two", &[("a.safetensors", vec![0]), ("b.safetensors", vec![0])]);
    let private = Plain { status: Some(401), ..Plain::default() };
    hub.world().plain.insert("private.safetensors".to_owned(), private);
    for (model, code, part) in [
        ("org/none", 1, "has no org/none, or it is private"),
        ("org/name@none", 1, "has no revision none of org/name: check the name"),
        ("org/name:none.safetensors", 1, "org/name has no file none.safetensors; name one: org/name:v1-5"),
        ("org/name:README.md", 2, "is not a .safetensors file"),
        ("org/two", 2, "org/two has more than one model; name one: org/two:a.safetensors, org/two:b.saf"),
        ("name", 2, "'name' cannot be pulled: write ORG/NAME"),
        (&format!("{}/none.safetensors", hub.other), 1, "has no none.safetensors: check the name"),
        (
            &format!("{}/private.safetensors", hub.other),
            1,
            "set STABLEHAND_DOWNLOAD_TOKEN to a token of that site, or add its key to the URL, such as ?token=…",
        ),
    ] {
        assert_refused(&pull(&hub, folder.path(), model), code, &[part]);
    }
    let mut offline = models(&hub, folder.path(), &["pull", "org/name"]);
    offline.env("HF_ENDPOINT", "http://127.0.0.1:1024");
    assert_refused(&output(offline), 1, &["cannot reach 127.0.0.1"]);
    let mut wrong = models(&hub, folder.path(), &["pull", "org/name"]);
    wrong.env("HF_ENDPOINT", "hub.example");
    assert_refused(&output(wrong), 2, &["HF_ENDPOINT should be an absolute URL", "hub.example"]);
    assert!(files_under(folder.path()).is_empty());
}

#[test]
fn a_web_page_is_not_a_model() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let page = |kind: &str| Plain {
        bytes: b"<html>Please log in</html>".to_vec(),
        headers: vec![("Content-Type", kind.to_owned())],
        ..Plain::default()
    };
    hub.world().plain.insert("a.safetensors".to_owned(), page("text/html; charset=utf-8"));
    hub.world().plain.insert("b.safetensors".to_owned(), page("application/octet-stream"));
    let pull = |name: &str| pull(&hub, folder.path(), &format!("{}/{name}", hub.other));
    let remedy = "give the URL of a file of weights (.safetensors, .ckpt, .pt, .bin), such as the link";
    assert_refused(&pull("a.safetensors"), 1, &["has a web page at this URL", remedy]);
    let refused = pull("b.safetensors");
    assert_eq!(refused.status.code(), Some(1));
    assert!(noted(&refused).contains("b.safetensors is no file of weights, despite its name"));
    hub.world().plain.insert("c.ckpt".to_owned(), page("application/octet-stream"));
    let refused = pull("c.ckpt");
    assert_eq!(refused.status.code(), Some(1));
    assert!(noted(&refused).contains("c.ckpt is no file of weights, despite its name"));
}

#[test]
fn other_urls_of_the_hub_need_the_hub_s_token() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let url = format!("{}/datasets/org/name/resolve/main/a.safetensors", hub.url);
    for (status, token, remedy) in [
        (401, None, "refuses access to a.safetensors: set HF_TOKEN to a token that can read it"),
        (403, None, "refuses access to a.safetensors: set HF_TOKEN to a token that can read it"),
        (403, Some("wrong"), "HF_TOKEN is set, but its account may have no access"),
    ] {
        hub.world().token = Some(("right".to_owned(), status, "GatedRepo"));
        let mut command = models(&hub, folder.path(), &["pull", &url]);
        // It is never sent to the hub.
        command.env("STABLEHAND_DOWNLOAD_TOKEN", "site-secret");
        command.envs(token.map(|token| ("HF_TOKEN", token)));
        let refused = output(command);
        assert_refused(&refused, 1, &[remedy]);
        assert!(!noted(&refused).contains("STABLEHAND_DOWNLOAD_TOKEN"), "{}", noted(&refused));
    }
}

#[test]
fn redirects_are_limited_in_number_and_scheme() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let to = |location: &str| Plain {
        status: Some(302),
        headers: vec![("Location", location.to_owned())],
        ..Plain::default()
    };
    for (location, part) in [
        ("/a.safetensors", "redirects more than 5 times"),
        ("file:///etc/passwd", "redirects to a URL that should be an http or https URL"),
        (
            "http://me:secret@127.0.0.1/a.safetensors",
            "redirects to a URL that should be a URL without a user",
        ),
    ] {
        hub.world().plain.insert("a.safetensors".to_owned(), to(location));
        assert_refused(&pull(&hub, folder.path(), &format!("{}/a.safetensors", hub.other)), 1, &[part]);
    }
}

#[test]
fn a_pull_that_does_not_fit_the_disk_does_not_start() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let mut files = diffusers();
    files.retain(|(path, _)| !path.starts_with("vae/diffusion"));
    hub.add("org/name", &files);
    let vae = json!({"type": "file", "path": "vae/diffusion_pytorch_model.safetensors", "oid": "0", "size": 1,
        "lfs": {"oid": sha256(b""), "size": 1_u64 << 60, "pointerSize": 134}});
    hub.world().extra_entries.push(vae);
    let refused = pull(&hub, folder.path(), "org/name");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        noted(&refused).contains("free some space, or choose another folder with --models-dir"),
        "{}",
        noted(&refused)
    );
    assert!(hub.ranges().is_empty());
}

#[test]
fn a_file_with_the_wrong_size_is_refused() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let bytes = safetensors(1000, 1);
    hub.add("org/name", &[("a.safetensors", bytes.clone())]);
    hub.world().plain.insert(sha256(&bytes), Plain { bytes: safetensors(2000, 1), ..Plain::default() });
    let refused = pull(&hub, folder.path(), "org/name");
    assert_eq!(refused.status.code(), Some(1));
    assert!(noted(&refused).contains("a.safetensors with 2016 bytes instead of 1016"), "{}", noted(&refused));
}
