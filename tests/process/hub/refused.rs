//! What is not pulled, in which words, and that nothing of it is left.

use serde_json::json;

use super::stand_in::{Plain, StandIn, sha256};
use super::{diffusers, models, noted, pull, safetensors};
use crate::helpers::{assert_refused, data_dir, files_under, output};

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
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
        let (hub, outer) = (StandIn::start(), data_dir());
        let folder = outer.path().join("models");
        hub.add("org/name", &diffusers());
        hub.world().listed_besides.push(json!({"type": "file", "path": name, "oid": "0", "size": 1}));
        let refused = pull(&hub, &folder, "org/name");
        assert_refused(&refused, 1, &["is no plain path inside a repository; nothing was pulled"]);
        assert!(files_under(outer.path()).is_empty(), "{name}");
    }
}

#[test]
fn names_that_a_list_of_shards_or_a_server_gives_stay_in_their_folder() {
    let (hub, folder) = (StandIn::start(), data_dir());
    let mut files = diffusers();
    files.retain(|(path, _)| !path.starts_with("unet/diffusion"));
    files.push(("unet/diffusion_pytorch_model-1.safetensors", safetensors(10, 1)));
    let index = r#"{"weight_map": {"a": "../v1-5.safetensors"}}"#;
    files.push(("unet/diffusion_pytorch_model.safetensors.index.json", index.as_bytes().to_vec()));
    hub.add("org/name", &files);
    assert_refused(&pull(&hub, folder.path(), "org/name"), 1, &["names a shard \"../v1-5.safetensors\""]);

    for name in
        ["../evil.safetensors", "..%2Fevil.safetensors", "a:b.safetensors", ".evil.safetensors", "x.txt"]
    {
        let plain = Plain {
            bytes: safetensors(10, 1),
            headers: vec![("Content-Disposition", format!("attachment; filename*=UTF-8''{name}"))],
            ..Plain::default()
        };
        hub.world().plain.insert("download/7".to_owned(), plain);
        let refused = pull(&hub, folder.path(), &format!("{}/download/7", hub.other));
        assert_refused(&refused, 1, &["give the URL of a .safetensors file"]);
    }
    assert!(files_under(folder.path()).is_empty());
}

#[test]
fn pickles_are_refused_whoever_asks_for_them() {
    let (hub, folder) = (StandIn::start(), data_dir());
    hub.add(
        "org/pickles",
        &[("v1-5.ckpt", b"pickle".to_vec()), ("unet/diffusion_pytorch_model.bin", vec![0])],
    );
    hub.world().plain.insert("a.ckpt".to_owned(), Plain { bytes: vec![0; 10], ..Plain::default() });
    let named = ("Content-Disposition", "attachment; filename=a.pt".to_owned());
    hub.world().plain.insert(
        "download/7".to_owned(),
        Plain { bytes: vec![0; 10], headers: vec![named], ..Plain::default() },
    );
    for (model, part) in [
        ("org/pickles", "org/pickles has nothing but pickles (.ckpt, .bin), which can run any code"),
        ("org/pickles:v1-5.ckpt", "v1-5.ckpt is a pickle, which can run any code when it is read"),
        (&format!("{}/a.ckpt", hub.other), "a.ckpt is a pickle"),
        (&format!("{}/download/7", hub.other), "a.pt is a pickle"),
    ] {
        assert_refused(&pull(&hub, folder.path(), model), 1, &[part, "as .safetensors"]);
    }
    assert!(files_under(folder.path()).is_empty());
}

#[test]
fn other_families_are_refused_before_their_weights_come() {
    for (path, config, part) in [
        ("model_index.json", r#"{"_class_name": "StableDiffusionXLPipeline"}"#, "is Stable Diffusion XL"),
        (
            "model_index.json",
            r#"{"_class_name": "FluxPipeline"}"#,
            "is a FluxPipeline according to its model_index.json",
        ),
        ("unet/config.json", r#"{"cross_attention_dim": 1024}"#, "is Stable Diffusion 2"),
    ] {
        let (hub, folder) = (StandIn::start(), data_dir());
        let mut files = diffusers();
        files.iter_mut().find(|(found, _)| *found == path).unwrap().1 = config.as_bytes().to_vec();
        hub.add("org/name", &files);
        let refused = pull(&hub, folder.path(), "org/name");
        assert_refused(&refused, 1, &[part, "stablehand draws with Stable Diffusion v1 models"]);
        assert!(hub.ranges().is_empty());
        assert!(files_under(folder.path()).is_empty());
    }
}

#[test]
fn who_may_not_have_a_repository_is_told_what_to_do() {
    let (hub, folder) = (StandIn::start(), data_dir());
    hub.add("org/name", &diffusers());
    let page = format!("{}/org/name", hub.url);
    for (status, code, parts) in [
        (401, "GatedRepo", ["accepted its licence", "set HF_TOKEN"]),
        (403, "GatedRepo", ["accepted its licence", "set HF_TOKEN"]),
        (401, "RepoNotFound", ["knows no org/name", "or set HF_TOKEN"]),
    ] {
        hub.world().token = Some(("right".to_owned(), status, code));
        assert_refused(&pull(&hub, folder.path(), "org/name"), 1, &[&page, parts[0], parts[1]]);
    }
    let mut command = models(&hub, folder.path(), &["pull", "org/name"]);
    command.env("HF_TOKEN", "wrong");
    assert_refused(&output(command), 1, &["HF_TOKEN is set, and may be of another account"]);
    let mut command = models(&hub, folder.path(), &["pull", "org/name"]);
    command.env("HF_TOKEN", "two words");
    assert_refused(&output(command), 2, &["HF_TOKEN should be a token"]);
}

#[test]
fn what_is_not_there_is_named() {
    let (hub, folder) = (StandIn::start(), data_dir());
    hub.add("org/name", &diffusers());
    hub.add("org/two", &[("a.safetensors", vec![0]), ("b.safetensors", vec![0])]);
    let private = Plain { status: Some(401), ..Plain::default() };
    hub.world().plain.insert("private.safetensors".to_owned(), private);
    for (model, code, part) in [
        ("org/none", 1, "knows no org/none"),
        ("org/name@none", 1, "has no revision none of org/name: check the name"),
        (
            "org/name:none.safetensors",
            1,
            "org/name has no file none.safetensors; name one file: org/name:v1-5",
        ),
        ("org/name:README.md", 2, "is no .safetensors file"),
        (
            "org/two",
            2,
            "org/two has more than one model; name one file: org/two:a.safetensors, org/two:b.saf",
        ),
        ("name", 2, "'name' cannot be pulled: it should read ORG/NAME"),
        (&format!("{}/none.safetensors", hub.other), 1, "has no none.safetensors: check the name"),
        (&format!("{}/private.safetensors", hub.other), 1, "if its URL takes a key, as ?token=…, add it"),
    ] {
        assert_refused(&pull(&hub, folder.path(), model), code, &[part]);
    }
    let mut offline = models(&hub, folder.path(), &["pull", "org/name"]);
    offline.env("HF_ENDPOINT", "http://127.0.0.1:1024");
    assert_refused(&output(offline), 1, &["127.0.0.1 cannot be reached"]);
    let mut wrong = models(&hub, folder.path(), &["pull", "org/name"]);
    wrong.env("HF_ENDPOINT", "hub.example");
    assert_refused(&output(wrong), 2, &["HF_ENDPOINT should be an absolute URL", "hub.example"]);
    assert!(files_under(folder.path()).is_empty());
}

#[test]
fn a_page_in_the_place_of_a_file_is_no_model() {
    let (hub, folder) = (StandIn::start(), data_dir());
    let page = |kind: &str| Plain {
        bytes: b"<html>Please log in</html>".to_vec(),
        headers: vec![("Content-Type", kind.to_owned())],
        ..Plain::default()
    };
    hub.world().plain.insert("a.safetensors".to_owned(), page("text/html; charset=utf-8"));
    hub.world().plain.insert("b.safetensors".to_owned(), page("application/octet-stream"));
    let pull = |name: &str| pull(&hub, folder.path(), &format!("{}/{name}", hub.other));
    assert_refused(&pull("a.safetensors"), 1, &["has a page at this URL"]);
    let refused = pull("b.safetensors");
    assert_eq!(refused.status.code(), Some(1));
    assert!(noted(&refused).contains("b.safetensors is no .safetensors file, whatever its name says"));
}

#[test]
fn redirects_end_and_lead_to_the_web_alone() {
    let (hub, folder) = (StandIn::start(), data_dir());
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
fn what_does_not_fit_the_disk_is_not_begun() {
    let (hub, folder) = (StandIn::start(), data_dir());
    let mut files = diffusers();
    files.retain(|(path, _)| !path.starts_with("vae/diffusion"));
    hub.add("org/name", &files);
    let vae = json!({"type": "file", "path": "vae/diffusion_pytorch_model.safetensors", "oid": "0", "size": 1,
        "lfs": {"oid": sha256(b""), "size": 1_u64 << 60, "pointerSize": 134}});
    hub.world().listed_besides.push(vae);
    let refused = pull(&hub, folder.path(), "org/name");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        noted(&refused).contains("make room, or name another folder with --models-dir"),
        "{}",
        noted(&refused)
    );
    assert!(hub.ranges().is_empty());
}

#[test]
fn a_file_of_another_size_than_was_stated_is_refused() {
    let (hub, folder) = (StandIn::start(), data_dir());
    let bytes = safetensors(1000, 1);
    hub.add("org/name", &[("a.safetensors", bytes.clone())]);
    hub.world().plain.insert(sha256(&bytes), Plain { bytes: safetensors(2000, 1), ..Plain::default() });
    let refused = pull(&hub, folder.path(), "org/name");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        noted(&refused).contains("a.safetensors with 2016 bytes where 1016 were stated"),
        "{}",
        noted(&refused)
    );
}
