//! Several models in one server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::helpers::{KEY, Server, assert_refused, data_dir, download, output, stablehand};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn two_endpoints_draw_with_their_own_models() {
    let folder = data_dir();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny-sd");
    let small = folder.path().join("small");
    for part in ["text_encoder", "tokenizer", "unet", "vae", "graphs", "scheduler"] {
        copy(&model.join(part), &small.join(part));
    }
    fs::copy(model.join("model_index.json"), small.join("model_index.json")).unwrap();
    fs::write(small.join("stablehand.json"), r#"{"max_side": 64}"#).unwrap();
    let config = folder.path().join("stablehand.toml");
    let text = format!("workers = 1\n[endpoints.large]\n[endpoints.small]\nmodel = '{}'\n", small.display());
    fs::write(&config, text).unwrap();

    let server = Server::start_with(&folder.path().join("data"), |command| {
        command.arg("--config").arg(&config);
    });
    let draw = |endpoint: &str| {
        let input = json!({"prompt": "a dog", "width": 128, "height": 128, "num_inference_steps": 2});
        let request = ureq::post(server.url_at(endpoint, "runsync")).header("Authorization", KEY);
        let body: Value =
            request.send_json(json!({ "input": input })).unwrap().body_mut().read_json().unwrap();
        assert_eq!(body["status"], "COMPLETED", "{body}");
        let png = download(body["output"][0]["image"].as_str().unwrap());
        String::from_utf8_lossy(&png).into_owned()
    };
    assert!(draw("small").contains("Model: small"));
    assert!(draw("large").contains("Model: tiny-sd"));
    assert!(server.get("health").is_none(), "the default endpoint is not among them");
    assert_eq!(server.terminate().code(), Some(0));
}

#[test]
fn a_wrong_line_in_the_file_is_named() {
    let folder = data_dir();
    let config = folder.path().join("stablehand.toml");
    fs::write(&config, "# mine\nretentoin = '1m'\n").unwrap();
    let mut command = stablehand(&["--config"]);
    command.arg(&config);
    assert_refused(&output(command), 2, &["stablehand.toml, line 2: there is no setting retentoin"]);
}
