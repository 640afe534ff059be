//! The requests of clients that no registry has, as they send them: one test a client.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use stablehand::domain::ImageSize;

use super::{IMG2IMG, SCRIPTED, TXT2IMG, info};
use crate::client::{Request, Response};
use crate::engine::{Script, picture};
use crate::helpers::{KEY, TestApp, prompt, with_input};

/// A server whose A1111 surface needs no key, for the many clients that send none.
fn open() -> TestApp {
    TestApp::with(|config| config.http.open_surfaces = "a1111,openai".parse().unwrap())
}

fn get(app: &TestApp, target: &str) -> Response {
    Request::new("GET", target).send(app.port)
}

fn post(app: &TestApp, target: &str, body: Value) -> Response {
    Request::new("POST", target)
        .header("Content-Type", "application/json")
        .body(body.to_string())
        .send(app.port)
}

/// A list that is not empty, as the client needs it.
fn listed(response: &Response, name: &str) -> Vec<Value> {
    assert_eq!(response.status, 200, "{name}");
    let list = response.json().as_array().unwrap_or_else(|| panic!("{name}")).clone();
    assert!(list.iter().all(Value::is_object), "{name}");
    list
}

#[test]
fn open_webui_sets_its_model_and_draws_two() {
    let app = TestApp::start();
    let basic = format!("Basic {}", STANDARD.encode(format!("user:{KEY}")));
    let send = |method: &str, target: &str, body: &str| {
        let request = Request::new(method, target).header("Authorization", &basic);
        request.header("Content-Type", "application/json").body(body).send(app.port)
    };
    let mut options = send("GET", "/sdapi/v1/options", "").json();
    let title = send("GET", "/sdapi/v1/sd-models", "").json()[0]["title"].clone();
    options["sd_model_checkpoint"] = title;
    assert_eq!(send("POST", "/sdapi/v1/options", &options.to_string()).status, 200);
    // Where its user chose no model.
    options["sd_model_checkpoint"] = json!("");
    assert_eq!(send("POST", "/sdapi/v1/options", &options.to_string()).json(), Value::Null);
    // The last three are its user's additional parameters.
    let body = json!({
        "prompt": "a dog", "batch_size": 2, "width": 512, "height": 512, "steps": 50, "negative_prompt": "",
        "sampler_name": "Euler a", "scheduler": "Karras", "cfg_scale": 5,
    });
    let answer = send("POST", TXT2IMG, &body.to_string());
    assert_eq!(answer.json()["images"], json!([SCRIPTED, SCRIPTED]));
    assert!(answer.json()["info"].is_string());
    // Without credentials it sends an empty header.
    let app = open();
    let empty = Request::new("GET", "/sdapi/v1/options").header("Authorization", "Basic ").send(app.port);
    assert_eq!(empty.status, 200);
}

#[test]
fn sillytavern_looks_around_and_draws() {
    let app = open();
    let options = get(&app, "/sdapi/v1/options").json();
    assert!(options.get("forge_preset").is_none());
    for name in ["sd-models", "samplers", "schedulers", "upscalers", "latent-upscale-modes"] {
        assert!(!listed(&get(&app, &format!("/sdapi/v1/{name}")), name).is_empty(), "{name}");
    }
    listed(&get(&app, "/sdapi/v1/sd-vae"), "sd-vae");
    let set = json!({"sd_model_checkpoint": options["sd_model_checkpoint"]});
    assert_eq!(post(&app, "/sdapi/v1/options", set).status, 200);
    let progress = get(&app, "/sdapi/v1/progress").json();
    assert_eq!((&progress["progress"], &progress["state"]["job_count"]), (&json!(0.0), &json!(0)));
    let mut body = json!({
        "url": format!("http://127.0.0.1:{}", app.port), "auth": "user:secret", "prompt": "a dog",
        "negative_prompt": "bad", "sampler_name": "DDIM", "scheduler": "normal", "steps": 20, "cfg_scale": 7,
        "width": 512, "height": 512, "restore_faces": false, "enable_hr": false, "hr_upscaler": "Latent",
        "hr_scale": 2, "hr_additional_modules": [], "denoising_strength": 0.7, "hr_second_pass_steps": 0, "seed": -1,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "sd_vae": "Automatic", "forge_additional_modules": []},
        "override_settings_restore_afterwards": true, "clip_skip": 1, "save_images": true, "send_images": true,
        "do_not_save_grid": false, "do_not_save_samples": false,
    });
    let answer = post(&app, TXT2IMG, body.clone());
    assert_eq!(answer.json()["images"], json!([SCRIPTED]));
    assert_eq!(answer.json().get("warnings"), None);
    assert_eq!(info(&answer)["sampler_name"], "DDIM");
    assert!(!answer.text().contains("secret"));
    let face = json!({"ad_model": "face_yolov8n.pt"});
    body["alwayson_scripts"] = json!({"ADetailer": {"args": [true, true, face]}});
    let answer = post(&app, TXT2IMG, body);
    assert_eq!(answer.json()["warnings"].as_array().unwrap().len(), 1);
    assert_eq!(post(&app, "/sdapi/v1/interrupt", json!({})).json(), json!({}));
}

#[test]
fn sillytavern_draws_as_with_stable_diffusion_cpp() {
    let app = open();
    assert_eq!(Request::new("OPTIONS", "/v1/images/generations").send(app.port).status, 204);
    let model = get(&app, "/v1/models").json()["data"][0]["id"].clone();
    let body = json!({
        "model": model, "prompt": "a dog", "negative_prompt": "bad", "width": 512, "height": 768, "steps": 20,
        "cfg_scale": 7, "seed": -1, "batch_size": 1, "sampler_name": "euler_a", "scheduler": "discrete", "clip_skip": -1,
    });
    let answer = post(&app, TXT2IMG, body);
    assert_eq!(answer.json()["images"], json!([SCRIPTED]), "{answer:?}");
}

#[test]
fn koboldai_lite_draws_from_a_browser() {
    let app = TestApp::with(|config| {
        config.http.open_surfaces = "a1111".parse().unwrap();
        config.http.cors_origins = vec!["https://lite.koboldai.net".to_owned()];
    });
    let from_page = |method: &str, target: &str| {
        Request::new(method, target).header("Origin", "https://lite.koboldai.net")
    };
    let preflight = from_page("OPTIONS", TXT2IMG)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "content-type");
    let preflight = preflight.send(app.port);
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://lite.koboldai.net"));
    for target in ["/sdapi/v1/sd-models", "/sdapi/v1/options"] {
        assert_eq!(from_page("GET", target).send(app.port).status, 200, "{target}");
    }
    let body = json!({
        "prompt": "a dog", "sampler_name": "k_euler_a", "batch_size": 1, "n_iter": 1, "steps": 20, "cfg_scale": 7,
        "width": 512, "height": 512, "negative_prompt": "", "do_not_save_samples": true, "do_not_save_grid": true,
        "enable_hr": false, "eta": 0, "s_churn": 0, "s_tmax": 0, "s_tmin": 0, "s_noise": 1,
        "override_settings": {"sd_model_checkpoint": "none"},
    });
    let drawn = from_page("POST", TXT2IMG).body(body.to_string()).send(app.port);
    assert_eq!(drawn.json()["images"], json!([SCRIPTED]));
    let image = STANDARD.encode(picture(ImageSize { width: 64, height: 64 }));
    let body = json!({"init_images": [image], "prompt": "a cat", "denoising_strength": 0.6});
    let drawn = from_page("POST", IMG2IMG).body(body.to_string()).send(app.port);
    assert_eq!(drawn.json()["images"], json!([SCRIPTED]));
}

#[test]
fn image_generation_mcp_draws_at_a_wide_size_and_from_a_picture() {
    let app =
        TestApp::launch(|config| config.http.open_surfaces = "a1111".parse().unwrap(), Script::drawing());
    let model = get(&app, "/sdapi/v1/sd-models").json()[0]["title"].clone();
    let body = json!({
        "prompt": "a dog", "negative_prompt": "", "width": 912, "height": 512, "steps": 30, "cfg_scale": 7.0,
        "sampler_name": "DPM++ 2M", "scheduler": "Karras", "batch_size": 1, "n_iter": 1, "seed": -1,
        "override_settings": {"sd_model_checkpoint": model},
    });
    let answer = post(&app, TXT2IMG, body);
    let size = super::extras::decoded(answer.json()["images"][0].as_str().unwrap()).size();
    assert_eq!(size, ImageSize { width: 912, height: 512 });
    assert_eq!(info(&answer)["sd_model_name"], "stable-diffusion-v1");
    let image = STANDARD.encode(picture(ImageSize { width: 768, height: 768 }));
    let body = json!({"prompt": "a dog", "init_images": [image], "denoising_strength": 0.75, "width": 768, "height": 768});
    assert_eq!(post(&app, IMG2IMG, body).status, 200);
}

#[test]
fn aiyabot_starts_and_draws_two() {
    let app = open();
    assert_eq!(get(&app, "/sdapi/v1/cmd-flags").json(), json!({"api": true}));
    assert_eq!(Request::new("HEAD", "/").send(app.port).status, 200);
    for name in
        ["samplers", "prompt-styles", "face-restorers", "hypernetworks", "upscalers", "sd-models", "loras"]
    {
        listed(&get(&app, &format!("/sdapi/v1/{name}")), name);
    }
    assert!(get(&app, "/sdapi/v1/embeddings").json()["loaded"].is_object());
    assert!(get(&app, "/config").json().is_object());
    let body = json!({
        "prompt": "a dog", "negative_prompt": "", "steps": 30, "width": 512, "height": 512, "cfg_scale": "7.0",
        "sampler_index": "Euler a", "seed": 3, "seed_resize_from_h": -1, "seed_resize_from_w": -1,
        "denoising_strength": null, "n_iter": 2, "styles": [[]], "hr_second_pass_steps": 12.5, "hr_scale": 1,
        "override_settings": {"CLIP_stop_at_last_layers": 1, "face_restoration_model": "None"}, "save_images": true,
    });
    let answer = post(&app, TXT2IMG, body);
    assert_eq!(answer.json()["images"], json!([SCRIPTED, SCRIPTED]));
    // It looks at the text of every picture.
    let image = STANDARD.encode(picture(ImageSize { width: 64, height: 64 }));
    let uri = format!("data:image/png;base64,{image}");
    let info = post(&app, "/sdapi/v1/png-info", json!({"image": uri})).json();
    assert!(info["info"].as_str().unwrap().starts_with("a dog"));
    assert_eq!(get(&app, "/sdapi/v1/progress").json()["state"]["job"], "");
}

#[test]
fn librechat_asks_for_a_large_picture_and_reads_its_info() {
    let app =
        TestApp::launch(|config| config.http.open_surfaces = "a1111".parse().unwrap(), Script::drawing());
    let body = json!({
        "prompt": "a dog", "negative_prompt": "bad", "cfg_scale": 4.5, "steps": 22, "width": 1024, "height": 1024,
    });
    let info = info(&post(&app, TXT2IMG, body));
    assert_eq!((&info["width"], &info["height"]), (&json!(1024), &json!(1024)));
    assert!(info["seed"].is_u64() && info["infotexts"][0].as_str().unwrap().contains("Steps: "));
}

#[test]
fn dify_sends_no_type_and_old_names() {
    let app = open();
    let (_, input) = with_input(&app, || {
        let body = json!({
            "prompt": "a dog", "negative_prompt": "", "seed": -1, "subseed": -1, "subseed_strength": 0,
            "sampler_index": "DPM++ SDE Karras", "steps": 20, "cfg_scale": 7, "width": 1024, "height": 1024,
            "denoising_strength": 0, "enable_hr": false, "hr_scale": 2, "hr_upscaler": "Latent", "firstphase_width": 0,
            "firstphase_height": 0, "refiner_checkpoint": "", "refiner_switch_at": 0, "script_args": [],
            "override_settings": {}, "s_noise": 1, "comments": {}, "do_not_reload_embeddings": true,
        });
        Request::new("POST", TXT2IMG).body(body.to_string()).send(app.port)
    });
    assert_eq!((&input["scheduler"], &input["karras"]), (&json!("DPM-SDE"), &json!(true)));
}

#[test]
fn oobabooga_frees_memory_before_and_after() {
    let app = open();
    let empty = |target: &str| {
        Request::new("POST", target).header("Content-Type", "application/json").body("").send(app.port)
    };
    assert_eq!(empty("/sdapi/v1/reload-checkpoint").status, 200);
    let body = json!({
        "prompt": "a dog", "seed": -1, "sampler_name": "DPM++ 2M Karras", "enable_hr": true, "hr_scale": "1.0",
        "hr_upscaler": "ESRGAN_4x", "denoising_strength": 0.6, "steps": 4, "cfg_scale": 7, "width": 512, "height": 512,
        "restore_faces": false, "override_settings_restore_afterwards": true, "negative_prompt": "",
    });
    let answer = post(&app, TXT2IMG, body);
    assert_eq!(answer.json()["images"].as_array().unwrap().len(), 1, "{answer:?}");
    assert_eq!(empty("/sdapi/v1/unload-checkpoint").status, 200);
    // The next picture loads the model again.
    app.wait(&app.submit(&prompt("a dog")));
}
