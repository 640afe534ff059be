//! Links from a browser, files and models in folders of a repository.

use std::fs;

use super::fake_hub::{FakeHub, Plain};
use super::{diffusers, models, noted, pull, safetensors, said};
use crate::helpers::{assert_refused, data_dir, files_under, output};

#[test]
fn a_link_pulls_what_its_page_shows() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let file = "sub dir/model v1.safetensors";
    hub.add("org/one", &[(file, safetensors(1000, 1)), ("README.md", vec![0])]);
    hub.add("org/one@refs/pr/1", &[("x.safetensors", safetensors(1000, 2))]);
    hub.add("org/name", &diffusers());
    for (link, name) in [
        ("org/one", "org/one:sub dir/model v1.safetensors"),
        ("org/one/", "org/one:sub dir/model v1.safetensors"),
        ("org/one/tree/main", "org/one:sub dir/model v1.safetensors"),
        ("org/one/tree/main/sub%20dir", "org/one:sub dir/model v1.safetensors"),
        ("org/one/blob/main/sub%20dir/model%20v1.safetensors", "org/one:sub dir/model v1.safetensors"),
        (
            "org/one/resolve/main/sub%20dir/model%20v1.safetensors?download=true",
            "org/one:sub dir/model v1.safetensors",
        ),
        ("org/one/tree/refs%2Fpr%2F1", "org/one@refs/pr/1:x.safetensors"),
        ("org/one/blob/refs%2Fpr%2F1/x.safetensors", "org/one@refs/pr/1:x.safetensors"),
        ("org/name/tree/main?library=diffusers", "org/name"),
    ] {
        let output = pull(&hub, folder.path(), &format!("{}/{link}", hub.url));
        let said = said(&output);
        assert!(
            said.starts_with(&format!("{name} has been pulled"))
                || said.starts_with(&format!("{name} is up to date")),
            "{link}: {said}"
        );
    }
    let quoted = said(&pull(&hub, folder.path(), "org/one"));
    assert!(quoted.ends_with("use it with --model 'org/one:sub dir/model v1.safetensors'\n"), "{quoted}");
    let model = "org/one--sub dir--model v1.safetensors/model v1.safetensors";
    assert_eq!(fs::read(folder.path().join(model)).unwrap(), safetensors(1000, 1));
}

#[test]
fn a_short_link_that_redirects_to_a_page_of_the_hub_means_that_page() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &[("a.safetensors", safetensors(1000, 1))]);
    let moved = Plain {
        status: Some(307),
        headers: vec![("Location", format!("{}/org/name/resolve/main/a.safetensors", hub.url))],
        ..Plain::default()
    };
    hub.world().plain.insert("org/name/resolve/main/a.safetensors".to_owned(), moved);
    let link = format!("{}/org/name/resolve/main/a.safetensors", hub.other);
    assert!(said(&pull(&hub, folder.path(), &link)).starts_with("org/name:a.safetensors has been pulled"));
}

#[test]
fn models_in_folders_are_named_and_taken() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let mut files = vec![
        ("Models/A/a.safetensors", safetensors(1000, 1)),
        ("Models/B b/b.safetensors", safetensors(1000, 2)),
        ("VAE/v.vae.pt", vec![0]),
    ];
    hub.add("org/subs", &files);
    assert_refused(
        &pull(&hub, folder.path(), "org/subs"),
        2,
        &[
            "org/subs has more than one model; name one: org/subs:Models/A/a.safetensors, 'org/subs:Models/B b/b.saf",
        ],
    );
    assert!(
        said(&pull(&hub, folder.path(), "org/subs:Models/B b/b.safetensors")).contains("has been pulled")
    );
    let below = diffusers().into_iter().filter(|(path, _)| !path.starts_with("v1-5"));
    let below: Vec<_> = below.map(|(path, bytes)| (format!("big/{path}"), bytes)).collect();
    files.extend(below.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())));
    hub.add("org/subs", &files);
    for link in ["org/subs:big".to_owned(), format!("{}/org/subs/tree/main/big/", hub.url)] {
        assert!(said(&pull(&hub, folder.path(), &link)).starts_with("org/subs:big "), "{link}");
    }
    let model = folder.path().join("org/subs--big");
    assert!(model.join("unet/diffusion_pytorch_model.fp16.safetensors").exists());
    assert!(model.join("model_index.json").exists());
    assert!(hub.files_asked_for().iter().all(|file| !file.contains("README")));
    let listed = said(&output(models(&hub, folder.path(), &["list"])));
    assert!(listed.contains("org/subs:big  ") && listed.contains("diffusers folder"), "{listed}");
    let refused = pull(&hub, folder.path(), "org/subs:none/x.safetensors");
    assert_refused(&refused, 1, &["org/subs has no file none/x.safetensors; name one: org/subs:big, "]);
}

#[test]
fn another_family_in_a_folder_is_refused_before_its_weights() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let files = diffusers().into_iter().map(|(path, bytes)| (format!("xl/{path}"), bytes));
    let mut files: Vec<_> = files.filter(|(path, _)| !path.starts_with("xl/v1-5")).collect();
    files[2].1 = br#"{"_class_name": "StableDiffusionXLPipeline"}"#.to_vec();
    let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    hub.add("org/name", &files);
    assert_refused(&pull(&hub, folder.path(), "org/name:xl"), 1, &["is Stable Diffusion XL"]);
    assert!(hub.ranges().is_empty() && files_under(folder.path()).is_empty());
}

#[test]
fn a_hostile_link_is_refused() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &[("a.safetensors", safetensors(10, 1))]);
    for link in [
        "org/name/blob/main/..%2F..%2F..%2Fetc%2Fpasswd",
        "org/name/blob/main/%5C..%5Ca.safetensors",
        "org/name/tree/..%2F..%2Fapi/x",
        "..%2F..%2Fx/name",
    ] {
        let refused = pull(&hub, folder.path(), &format!("{}/{link}", hub.url));
        assert_refused(&refused, 2, &["this page of the hub cannot be pulled"]);
    }
    let turned = pull(&hub, folder.path(), "org/name:a\u{202e}srosnetefas.ckpt");
    assert!(noted(&turned).contains("is not a plain path inside a repository"));
    assert!(hub.world().seen.is_empty() && files_under(folder.path()).is_empty());
}
