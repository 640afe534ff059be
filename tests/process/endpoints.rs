//! Several models in one server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::helpers::{KEY, Server, assert_refused, data_dir, download, model_copy, output, stablehand};

/// The built-in model, limited to 64 pixels.
fn small_model(to: &Path) {
    model_copy(to);
    fs::write(to.join("stablehand.json"), r#"{"max_side": 64}"#).unwrap();
}

/// A server with the endpoints of a configuration file.
fn serve(folder: &Path, text: &str) -> Server {
    let config = folder.join("stablehand.toml");
    fs::write(&config, text).unwrap();
    Server::start_with(&folder.join("data"), |command| {
        command.arg("--config").arg(&config);
    })
}

fn draw(server: &Server, endpoint: &str) -> Value {
    let input = json!({"prompt": "a dog", "width": 128, "height": 128, "num_inference_steps": 2});
    let request = ureq::post(server.url_at(endpoint, "runsync")).header("Authorization", KEY);
    request.send_json(json!({ "input": input })).unwrap().body_mut().read_json().unwrap()
}

/// The name of the model in the text of the PNG.
fn model_of(body: &Value) -> String {
    assert_eq!(body["status"], "COMPLETED", "{body}");
    let png = download(body["output"][0]["image"].as_str().unwrap());
    let text = String::from_utf8_lossy(&png).into_owned();
    text.split("Model: ").nth(1).unwrap().split([',', '\0', '\n']).next().unwrap().to_owned()
}

#[test]
fn each_endpoint_draws_with_its_own_model() {
    let folder = data_dir();
    let small = folder.path().join("small");
    small_model(&small);
    let text = format!("workers = 1\n[endpoints.large]\n[endpoints.small]\nmodel = '{}'\n", small.display());
    let server = serve(folder.path(), &text);
    assert!(model_of(&draw(&server, "small")).starts_with("small"));
    assert!(model_of(&draw(&server, "large")).starts_with("tiny-sd"));
    assert!(server.get("health").is_none(), "the default endpoint does not exist here");
    assert_eq!(server.terminate().code(), Some(0));
}

#[test]
fn models_take_turns_within_the_budget_and_a_broken_one_affects_only_its_endpoint() {
    let folder = data_dir();
    let (small, broken) = (folder.path().join("small"), folder.path().join("broken"));
    small_model(&small);
    small_model(&broken);
    let vae = broken.join("vae/diffusion_pytorch_model.fp16.safetensors");
    fs::write(&vae, &fs::read(&vae).unwrap()[..1000]).unwrap();
    let text = format!(
        "memory-budget = '100MiB'\n[endpoints.large]\n[endpoints.small]\nmodel = '{}'\npreload = false\n\
         [endpoints.broken]\nmodel = '{}'\n",
        small.display(),
        broken.display()
    );
    let server = serve(folder.path(), &text);
    for _ in 0..2 {
        assert!(model_of(&draw(&server, "small")).starts_with("small"));
        assert!(model_of(&draw(&server, "large")).starts_with("tiny-sd"));
        let body = draw(&server, "broken");
        assert_eq!(body["status"], "FAILED", "{body}");
        assert!(body["error"].as_str().unwrap().contains("diffusion_pytorch_model"), "{body}");
    }
    assert_eq!(server.terminate().code(), Some(0));
}

#[test]
fn an_error_in_the_file_names_its_line() {
    let folder = data_dir();
    let config = folder.path().join("stablehand.toml");
    fs::write(&config, "# mine\nretentoin = '1m'\n").unwrap();
    let mut command = stablehand(&["--config"]);
    command.arg(&config);
    assert_refused(&output(command), 2, &["stablehand.toml, line 2: there is no setting retentoin"]);
}
