//! Downloads from sites that publish models: a link redirects to a signed URL, a header names the file, and a token from
//! the environment opens it.

use std::fs;
use std::path::Path;
use std::process::Output;

use super::fake_hub::{Accident, FakeHub, Plain};
use super::{models, noted, pickle, pull, safetensors, said};
use crate::helpers::{assert_refused, data_dir, files_under, output};

const LINK: &str = "api/download/models/7";
const DISPOSITION: &str = "Content-Disposition";

/// A site whose link leads to a signed URL of another host, and to this file there.
fn site(hub: &FakeHub, name: &str, bytes: &[u8]) -> String {
    let signed =
        format!("{}/signed/7?signature=secret-signature", hub.other.replace("127.0.0.1", "localhost"));
    let moved = Plain { status: Some(307), headers: vec![("Location", signed)], ..Plain::default() };
    let file = Plain {
        bytes: bytes.to_vec(),
        etag: Some("\"7\""),
        headers: vec![(DISPOSITION, name.to_owned())],
        ..Plain::default()
    };
    hub.world().plain.extend([(LINK.to_owned(), moved), ("signed/7".to_owned(), file)]);
    format!("{}/{LINK}", hub.other)
}

fn pull_with_token(hub: &FakeHub, folder: &Path, url: &str, token: &str) -> Output {
    let mut command = models(hub, folder, &["pull", url]);
    command.env("STABLEHAND_DOWNLOAD_TOKEN", token).env("HF_TOKEN", "hf_secret");
    output(command)
}

#[test]
fn the_token_goes_to_the_first_host_only_and_nothing_keeps_it() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let bytes = safetensors(3_000_000, 1);
    let url = site(&hub, "attachment; filename=\"dream.safetensors\"", &bytes);
    hub.world().site_token = Some("site-secret");
    let refused = pull(&hub, folder.path(), &url);
    assert_refused(
        &refused,
        1,
        &["refuses access to 7: set STABLEHAND_DOWNLOAD_TOKEN to a token of that site"],
    );
    let refused = pull_with_token(&hub, folder.path(), &url, "wrong");
    assert_refused(&refused, 1, &["check the token in STABLEHAND_DOWNLOAD_TOKEN"]);
    assert!(!noted(&refused).contains("wrong"));

    hub.world().seen.clear();
    // The signed URL breaks off once; the link is asked again.
    hub.world().accidents.extend([
        Accident::Cut(9),
        Accident::Cut(9),
        Accident::Cut(9),
        Accident::Cut(1_500_000),
    ]);
    let pulled = pull_with_token(&hub, folder.path(), &url, "site-secret");
    let host = hub.other.strip_prefix("http://").unwrap();
    assert!(
        said(&pulled).starts_with(&format!("{host}/dream.safetensors has been pulled")),
        "{}",
        said(&pulled)
    );
    for seen in &hub.world().seen {
        let sent = seen.headers.get("authorization").map(String::as_str);
        let expected = seen.headers["host"].starts_with("127.").then_some("Bearer site-secret");
        assert_eq!(sent, expected, "{}", seen.path);
    }
    let text = format!("{}{}", said(&pulled), noted(&pulled));
    let mut kept = vec![text];
    for file in files_under(folder.path()) {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        kept.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    assert!(kept.iter().all(|text| !text.contains("secret")));
    let file = format!("{}/dream.safetensors/dream.safetensors", host.replace(':', "_"));
    assert!(fs::read(folder.path().join(file)).unwrap() == bytes);
    let refused = pull_with_token(&hub, folder.path(), &url, "two words");
    assert_refused(&refused, 2, &["STABLEHAND_DOWNLOAD_TOKEN should be a token, without spaces"]);
}

#[test]
fn a_redirect_back_to_the_hub_gets_the_hub_s_token_and_no_other() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    hub.add("org/name", &[("a.safetensors", safetensors(1000, 1))]);
    let location = format!("{}/org/name/resolve/main/a.safetensors", hub.url);
    let moved = Plain { status: Some(302), headers: vec![("Location", location)], ..Plain::default() };
    hub.world().plain.insert("short".to_owned(), moved);
    said(&pull_with_token(&hub, folder.path(), &format!("{}/short", hub.other), "site-secret"));
    for seen in &hub.world().seen {
        let sent = seen.headers.get("authorization").map(String::as_str);
        let is_link = seen.path == "/short";
        let expected =
            if seen.by_hub { Some("Bearer hf_secret") } else { is_link.then_some("Bearer site-secret") };
        assert_eq!(sent, expected, "{}", seen.path);
    }
}

#[test]
fn the_header_names_the_file_in_all_its_forms() {
    for (header, name) in [
        ("attachment; filename=dream.safetensors", "dream.safetensors"),
        ("attachment; filename=\"dream; v1.safetensors\"", "dream; v1.safetensors"),
        (
            "inline; filename=\"x.zip\"; filename*=UTF-8''d%C3%A9j%C3%A0%20vu.safetensors",
            "déjà vu.safetensors",
        ),
        ("attachment; filename=\"déjà.safetensors\"", "déjà.safetensors"),
        ("attachment; FILENAME=\"A.SafeTensors\"", "A.SafeTensors"),
    ] {
        let (hub, folder) = (FakeHub::start(), data_dir());
        let url = site(&hub, header, &safetensors(1000, 1));
        let pulled = said(&pull(&hub, folder.path(), &url));
        assert!(pulled.contains(&format!("/{name} has been pulled")), "{header}: {pulled}");
    }
}

#[test]
fn a_pickle_from_a_site_is_named() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let url = site(&hub, "attachment; filename=old.ckpt", &pickle(1000));
    let pulled = pull(&hub, folder.path(), &url);
    assert!(said(&pulled).contains("/old.ckpt has been pulled (pickle file"));
    assert!(noted(&pulled).contains("old.ckpt is a pickle: stablehand reads only tensors from pickles"));
}

#[test]
fn names_from_outside_never_become_paths() {
    let long = format!("{}.safetensors", "x".repeat(200));
    for name in [
        "../../evil.safetensors",
        "/etc/evil.safetensors",
        "..\\evil.safetensors",
        "C:evil.safetensors",
        ".evil.safetensors",
        "..",
        "a\u{202e}b.safetensors",
        "evil.safetensors%00.txt",
        "evil.exe",
        &long,
    ] {
        for header in [
            format!("attachment; filename=\"{}\"", name.replace('\\', "\\\\")),
            format!("x; filename*=UTF-8''{name}"),
        ] {
            let (hub, outer) = (FakeHub::start(), data_dir());
            let url = site(&hub, &header, &safetensors(10, 1));
            let refused = pull(&hub, &outer.path().join("models"), &url);
            assert_refused(&refused, 1, &["has no file of weights at this URL"]);
            assert!(files_under(outer.path()).is_empty(), "{header}");
        }
    }
}

#[test]
fn a_log_in_page_is_told_from_a_model() {
    let (hub, folder) = (FakeHub::start(), data_dir());
    let page = Plain {
        bytes: b"<html>Log in</html>".to_vec(),
        headers: vec![("Content-Type", "text/html; charset=utf-8".to_owned())],
        ..Plain::default()
    };
    let moved = Plain {
        status: Some(302),
        headers: vec![("Location", "/login?back=7".to_owned())],
        ..Plain::default()
    };
    hub.world().plain.extend([(LINK.to_owned(), moved), ("login".to_owned(), page)]);
    let refused = pull(&hub, folder.path(), &format!("{}/{LINK}", hub.other));
    assert_refused(
        &refused,
        1,
        &["has a web page at this URL", "if the page asks to log in, set STABLEHAND_DOWNLOAD"],
    );
}
