//! The settings, and what else A1111 keeps for all clients.

use serde_json::{Value, json};

use super::{info, sentence, txt2img};
use crate::helpers::{TestApp, endpoint, with_input};

const OPTIONS: &str = "/sdapi/v1/options";

#[test]
fn options_are_what_has_a_meaning_here() {
    let app = TestApp::start();
    let expected = json!({
        "sd_model_checkpoint": "stable-diffusion-v1.safetensors", "sd_checkpoint_hash": "", "samples_format": "png",
        "CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic", "randn_source": "NV", "eta_noise_seed_delta": 0,
    });
    assert_eq!(app.get(OPTIONS).json(), expected);
    // Open WebUI sends everything back.
    let response = app.post(OPTIONS, expected.clone());
    assert_eq!((response.status, response.json()), (200, Value::Null));
    assert_eq!(app.get(OPTIONS).json(), expected);
}

#[test]
fn a_checkpoint_that_is_set_draws_all_pictures_that_name_none() {
    let app = TestApp::with(|config| config.endpoints = vec![endpoint("first", 0), endpoint("second", 1)]);
    assert_eq!(app.post(OPTIONS, json!({"sd_model_checkpoint": "second.safetensors"})).status, 200);
    assert_eq!(app.get(OPTIONS).json()["sd_model_checkpoint"], "second.safetensors");
    assert_eq!(info(&txt2img(&app, json!({})))["sd_model_name"], "second");
    let refused = app.post(OPTIONS, json!({"sd_model_checkpoint": "third"}));
    assert_eq!(
        (refused.status, sentence(&refused).as_str()),
        (422, "The checkpoint third is not here: this server has first.safetensors, second.safetensors.")
    );
    assert_eq!(app.get(OPTIONS).json()["sd_model_checkpoint"], "second.safetensors");
}

#[test]
fn settings_with_a_meaning_hold_for_all_pictures() {
    let app = TestApp::start();
    let settings = json!({"randn_source": "CPU", "samples_format": "jpg", "unknown": [1], "sd_vae": null});
    assert_eq!(app.post(OPTIONS, settings).status, 200);
    let options = app.get(OPTIONS).json();
    assert_eq!((&options["randn_source"], &options["samples_format"]), (&json!("CPU"), &json!("jpg")));
    let draw = |fields: Value| with_input(&app, || txt2img(&app, fields.clone())).1;
    let png = json!({"samples_format": "png"});
    assert_eq!(draw(json!({"override_settings": png}))["noise"], "cpu");
    let nvidia = json!({"samples_format": "png", "randn_source": "GPU"});
    assert_eq!(draw(json!({"override_settings": nvidia}))["noise"], "cuda");
}

#[test]
fn flags_memory_and_pings_are_answered() {
    let app = TestApp::start();
    assert_eq!(app.get("/sdapi/v1/cmd-flags").json(), json!({"api": true}));
    let memory = app.get("/sdapi/v1/memory").json();
    assert!(memory["cuda"].is_object(), "{memory}");
    if cfg!(target_os = "linux") {
        let ram = &memory["ram"];
        let number = |name: &str| ram[name].as_u64().unwrap();
        assert_eq!(number("free") + number("used"), number("total"));
    }
    assert_eq!(crate::client::Request::new("GET", "/internal/ping").send(app.port).json(), json!({}));
}

#[test]
fn a_model_is_unloaded_and_the_next_picture_loads_it() {
    let app = TestApp::start();
    assert_eq!(txt2img(&app, json!({})).status, 200);
    assert_eq!(app.post_text("/sdapi/v1/unload-checkpoint", "").json(), json!({}));
    let loaded = || {
        let text = app.get("/metrics").text().to_owned();
        text.lines().any(|line| line == "stablehand_models_loaded 0")
    };
    let _ = loaded;
    assert_eq!(app.post_text("/sdapi/v1/reload-checkpoint", "").json(), json!({}));
    assert_eq!(txt2img(&app, json!({})).status, 200);
}
