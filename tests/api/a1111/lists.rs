//! What is here, in A1111's words.

use serde_json::{Value, json};

use crate::client::Request;
use crate::helpers::{TestApp, endpoint};

fn names(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn models_are_the_endpoints() {
    let app = TestApp::with(|config| config.endpoints = vec![endpoint("second", 1), endpoint("first", 1)]);
    let row = |id: &str| {
        let file = format!("{id}.safetensors");
        json!({"title": file, "model_name": id, "hash": null, "sha256": null, "filename": file, "config": null})
    };
    assert_eq!(app.get("/sdapi/v1/sd-models").json(), json!([row("second"), row("first")]));
}

#[test]
fn samplers_and_schedulers_have_a1111s_names() {
    let app = TestApp::start();
    let samplers = app.get("/sdapi/v1/samplers").json();
    assert_eq!(samplers[0], json!({"name": "DPM++ 2M", "aliases": ["k_dpmpp_2m"], "options": {}}));
    let samplers = names(&samplers);
    for name in [
        "DPM++ SDE",
        "DPM++ 2M SDE",
        "Euler a",
        "Euler",
        "LMS",
        "Heun",
        "DDIM",
        "PLMS",
        "UniPC",
        "LCM",
        "TCD",
    ] {
        assert!(samplers.iter().any(|known| known == name), "{name} in {samplers:?}");
    }
    assert!(!samplers.iter().any(|name| name == "Restart"));
    let schedulers = app.get("/sdapi/v1/schedulers").json();
    let first = json!({
        "name": "automatic", "label": "Automatic", "aliases": ["default"], "default_rho": -1, "need_inner_model": false,
    });
    assert_eq!(schedulers[0], first);
    let expected = [
        "automatic",
        "uniform",
        "karras",
        "exponential",
        "polyexponential",
        "sgm_uniform",
        "kl_optimal",
        "align_your_steps",
        "simple",
        "normal",
        "ddim",
        "beta",
    ];
    assert_eq!(names(&schedulers), expected);
}

#[test]
fn upscalers_and_latent_modes_are_those_that_need_no_model() {
    let app = TestApp::start();
    let upscalers = app.get("/sdapi/v1/upscalers").json();
    assert_eq!(names(&upscalers), ["None", "Lanczos", "Nearest"]);
    let row = json!({"name": "None", "model_name": null, "model_path": null, "model_url": null, "scale": 4});
    assert_eq!(upscalers[0], row);
    let modes = [
        "Latent",
        "Latent (antialiased)",
        "Latent (bicubic)",
        "Latent (bicubic antialiased)",
        "Latent (nearest)",
        "Latent (nearest-exact)",
    ];
    assert_eq!(names(&app.get("/sdapi/v1/latent-upscale-modes").json()), modes);
}

#[test]
fn what_is_not_here_is_an_empty_list() {
    let app = TestApp::start();
    for name in [
        "sd-vae",
        "prompt-styles",
        "face-restorers",
        "hypernetworks",
        "realesrgan-models",
        "script-info",
        "extensions",
        "loras",
    ] {
        assert_eq!(app.get(&format!("/sdapi/v1/{name}")).json(), json!([]), "{name}");
    }
    assert_eq!(app.get("/sdapi/v1/scripts").json(), json!({"txt2img": [], "img2img": []}));
    assert_eq!(app.get("/sdapi/v1/embeddings").json(), json!({"loaded": {}, "skipped": {}}));
    for name in ["refresh-checkpoints", "refresh-vae", "refresh-loras", "refresh-embeddings"] {
        let response = app.post_text(&format!("/sdapi/v1/{name}"), "");
        assert_eq!((response.status, response.json()), (200, Value::Null), "{name}");
    }
}

#[test]
fn the_extension_for_controlnets_answers() {
    let app = TestApp::start();
    assert_eq!(app.get("/controlnet/version").json(), json!({"version": 3}));
    assert_eq!(app.get("/controlnet/model_list").json(), json!({"model_list": []}));
    let modules = app.get("/controlnet/module_list").json();
    let listed = modules["module_list"].as_array().unwrap();
    assert!(listed.contains(&json!("canny")) && listed.contains(&json!("none")), "{modules}");
    assert_eq!(modules["module_detail"]["canny"]["sliders"][0]["min"], 1.0);
}

#[test]
fn what_no_route_has_is_a_404_in_json() {
    let app = TestApp::start();
    for target in
        ["/sdapi/v1/interrogate", "/sdapi/v1/create/embedding", "/sdapi/v1/version", "/internal/sysinfo"]
    {
        let response = app.get(target);
        assert_eq!(
            (response.status, super::sentence(&response).as_str()),
            (404, "No such route."),
            "{target}"
        );
    }
    for target in ["/config", "/login", "/app_id", "/queue/status"] {
        let response = app.get(target);
        assert!(response.status == 404 && response.json().is_object(), "{target}");
    }
    // Some clients ask a POST route with GET whether it is there.
    let response = app.get("/sdapi/v1/interrupt");
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
    assert_eq!(super::sentence(&response), "This route accepts POST.");
}

#[test]
fn options_are_answered_without_a_key() {
    let app = TestApp::start();
    for target in ["/sdapi/v1/txt2img", "/sdapi/v1/sd-models"] {
        let response = Request::new("OPTIONS", target).send(app.port);
        assert_eq!((response.status, response.body.len()), (204, 0), "{target}");
    }
}
