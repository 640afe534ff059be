//! `POST /sdapi/v1/txt2img`.

use std::io::Write as _;
use std::net::TcpStream;

use serde_json::{Value, json};
use stablehand::http::RateLimits;

use super::{SCRIPTED, TXT2IMG, info, txt2img};
use crate::engine::Script;
use crate::helpers::{KEY, TestApp, endpoint, keyed, wait_until_forgotten, with_input};

#[test]
fn the_whole_answer_is_as_clients_read_it() {
    let app = TestApp::start();
    let body = json!({
        "prompt": "a dog", "negative_prompt": "cats", "seed": 5, "steps": 20, "sampler_name": "Euler a",
        "batch_size": 2, "cfg_scale": 4.5,
    });
    let response = txt2img(&app, body);
    assert_eq!(response.status, 200);
    let answer = response.json();
    let names: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["images", "info", "parameters"]);
    assert_eq!(answer["images"], json!([SCRIPTED, SCRIPTED]));
    let parameters = &answer["parameters"];
    assert_eq!((&parameters["prompt"], &parameters["steps"]), (&json!("a dog"), &json!(20)));
    assert_eq!((&parameters["width"], &parameters["sampler_index"]), (&json!(512), &json!("Euler")));
    let expected = json!({
        "prompt": "a dog", "all_prompts": ["a dog", "a dog"], "negative_prompt": "cats",
        "all_negative_prompts": ["cats", "cats"], "seed": 5, "all_seeds": [5, 6], "width": 512, "height": 512,
        "subseed_strength": 0.0, "sampler_name": "Euler a", "cfg_scale": 4.5, "steps": 20, "batch_size": 2,
        "restore_faces": false, "face_restoration_model": null, "sd_model_name": "stable-diffusion-v1",
        "sd_model_hash": "", "sd_vae_name": null, "sd_vae_hash": null, "seed_resize_from_w": -1,
        "seed_resize_from_h": -1, "denoising_strength": null, "extra_generation_params": {"Schedule type": "Uniform"},
        "index_of_first_image": 0, "infotexts": ["", ""], "styles": [], "job_timestamp": "20231114221320",
        "clip_skip": 1, "is_using_inpainting_conditioning": false,
        "version": format!("stablehand {}", env!("CARGO_PKG_VERSION")),
    });
    let mut found = info(&response);
    // Random, and one after the other.
    let (subseed, all) = (found["subseed"].take(), found["all_subseeds"].take());
    let subseed = subseed.as_u64().unwrap();
    assert_eq!(all, json!([subseed, subseed + 1]));
    for name in ["subseed", "all_subseeds"] {
        found.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(found, expected);
}

#[test]
fn the_job_is_an_ordinary_one_with_an_ordinary_input() {
    let app = TestApp::start();
    let (_, input) = with_input(&app, || txt2img(&app, json!({"seed": 7})));
    let expected = json!({
        "prompt": "", "negative_prompt": "", "num_outputs": 1, "width": 512, "height": 512, "seed": 7,
        "num_inference_steps": 50, "guidance_scale": 7.0, "scheduler": "EULER-D", "spacing": "uniform", "noise": "cuda",
    });
    assert_eq!(input, expected);
    // Types are loose, and unknown fields are nothing.
    let (_, input) = with_input(&app, || {
        txt2img(
            &app,
            json!({
                "prompt": "a dog", "seed": "8", "steps": "20", "cfg_scale": 30, "width": 1024.0, "height": "1024",
                "sampler_index": "DPM++ 2M Karras", "sampler_name": null, "enable_hr": "false", "hr_scale": "1.0",
                "denoising_strength": null, "styles": [[]], "eta": 1.0, "s_churn": 0, "auth": "me:secret",
                "script_args": [1], "save_images": true, "clip_skip": 1, "subseed": 9, "subseed_strength": 0,
                "override_settings": {"randn_source": "CPU", "face_restoration_model": "None"},
            }),
        )
    });
    let expected = json!({
        "prompt": "a dog", "negative_prompt": "", "num_outputs": 1, "width": 832, "height": 832, "seed": 8,
        "num_inference_steps": 20, "guidance_scale": 20.0, "scheduler": "DPM-M", "karras": true, "noise": "cpu",
    });
    assert_eq!(input, expected);
}

#[test]
fn a_cfg_scale_beyond_our_limits_is_told() {
    let app = TestApp::start();
    for (asked, drawn) in [(30.0, 20.0), (0.5, 1.0)] {
        let response = txt2img(&app, json!({"prompt": "a dog", "cfg_scale": asked}));
        let warning = format!("cfg_scale is {asked}; {drawn} was used, because it must be from 1 to 20.");
        assert_eq!(response.json()["warnings"], json!([warning]));
        assert_eq!(info(&response)["cfg_scale"], json!(drawn));
    }
}

#[test]
fn batches_are_jobs_with_moved_seeds() {
    let app = TestApp::start();
    let draw = |fields: Value| {
        let mut body = json!({"prompt": "a dog", "seed": 100, "subseed": 7});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let info = info(&txt2img(&app, body));
        (info["all_seeds"].clone(), info["all_subseeds"].clone())
    };
    let numbers = |from: u64, count: u64| json!((from..from + count).collect::<Vec<_>>());
    assert_eq!(draw(json!({"n_iter": 3, "batch_size": 2})), (numbers(100, 6), numbers(7, 6)));
    assert_eq!(draw(json!({"batch_size": 12})), (numbers(100, 12), numbers(7, 12)));
    let (seeds, subseeds) = draw(json!({"n_iter": 2, "batch_size": 2, "subseed_strength": 0.5}));
    assert_eq!((seeds, subseeds), (json!([100, 100, 100, 100]), numbers(7, 4)));
}

#[test]
fn a_variation_and_tiling_are_translated() {
    let app = TestApp::start();
    let body = json!({
        "seed": 1, "subseed": 2, "subseed_strength": "0.25", "seed_resize_from_w": 256, "seed_resize_from_h": 320,
        "tiling": true,
    });
    let (_, input) = with_input(&app, || txt2img(&app, body.clone()));
    for (name, value) in [
        ("seed", json!(1)),
        ("subseed", json!(2)),
        ("subseed_strength", json!(0.25)),
        ("seed_resize_width", json!(256)),
        ("seed_resize_height", json!(320)),
        ("tiling", json!(true)),
    ] {
        assert_eq!(input[name], value, "{name}");
    }
    // Without strength there is none.
    let (_, input) =
        with_input(&app, || txt2img(&app, json!({"subseed": 2, "seed_resize_from_w": 0, "tiling": false})));
    for name in ["subseed", "subseed_strength", "seed_resize_width", "tiling"] {
        assert!(input.get(name).is_none(), "{name}");
    }
}

#[test]
fn a_random_seed_is_reported() {
    let app = TestApp::start();
    for seed in [json!(-1), json!(null), json!("")] {
        let info = info(&txt2img(&app, json!({"seed": seed})));
        assert!(info["seed"].as_u64().unwrap() < 1 << 32, "{info}");
        assert_eq!(info["all_seeds"], json!([info["seed"]]));
    }
}

#[test]
fn a_size_beyond_the_limit_is_drawn_smaller_and_enlarged() {
    let app = TestApp::launch(|_| {}, Script::drawing());
    let response = txt2img(&app, json!({"width": 1024, "height": 1024}));
    let text = info(&response)["infotexts"][0].as_str().unwrap().to_owned();
    assert!(text.contains("Size: 1024x1024") && text.contains("Drawn at: \"832x832, enlarged\""), "{text}");
    let png = super::extras::decoded(response.json()["images"][0].as_str().unwrap());
    assert_eq!((png.width, png.height), (1024, 1024));
    let response = txt2img(&app, json!({"width": 5000}));
    let sentence = super::sentence(&response);
    assert!(
        sentence.starts_with("width and height do not meet the constraints. It is 5000 × 512 pixels"),
        "{sentence}"
    );
}

#[test]
fn pictures_come_in_the_format_that_is_set() {
    let app = TestApp::launch(|_| {}, Script::drawing());
    for (format, start) in [("png", "iVBOR"), ("jpg", "/9j/"), ("webp", "UklGR"), ("avif", "iVBOR")] {
        let response = txt2img(&app, json!({"override_settings": {"samples_format": format}}));
        let image = response.json()["images"][0].as_str().unwrap().to_owned();
        assert!(image.starts_with(start), "{format}");
        assert!(info(&response)["infotexts"][0].as_str().unwrap().contains("Steps: 2"), "{format}");
    }
}

#[test]
fn no_pictures_are_sent_if_none_are_wanted() {
    let app = TestApp::start();
    let response = txt2img(&app, json!({"send_images": false}));
    assert_eq!(response.json()["images"], json!([]));
    assert_eq!(info(&response)["all_seeds"].as_array().unwrap().len(), 1);
}

#[test]
fn what_was_ignored_is_said() {
    let app = TestApp::start();
    let warnings = |fields: Value| {
        let mut body = json!({"prompt": "a dog"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        txt2img(&app, body).json().get("warnings").cloned()
    };
    for (fields, warning) in [
        (json!({"prompt": "warn"}), "The script has no \"ink\"."),
        (json!({"sampler_name": "Restart"}), "The sampler Restart is not here; Heun draws instead."),
        (json!({"sampler_name": "magic"}), "The sampler magic is not known here; DPM++ 2M is used."),
        (
            json!({"override_settings": {"sd_vae_decode_method": "TAESD"}}),
            "sd_vae_decode_method TAESD was ignored: there is no tiny VAE for this model.",
        ),
        (json!({"restore_faces": true}), "restore_faces was ignored: there is no face restorer here."),
        (
            json!({"override_settings": {"sd_model_checkpoint": "other.safetensors"}}),
            "The checkpoint other.safetensors is not here; stable-diffusion-v1.safetensors draws.",
        ),
        (json!({"prompt": "a <lora:ink:1> dog"}), "A LoRA was ignored. This model does not support LoRAs."),
        (
            json!({"refiner_checkpoint": "xl", "refiner_switch_at": 0.8}),
            "refiner_checkpoint was ignored: one model draws all steps.",
        ),
        (
            json!({"alwayson_scripts": {"ADetailer": {"args": [true, true, {"ad_model": "face"}]}}}),
            "ADetailer is not here: no face was drawn again.",
        ),
    ] {
        assert_eq!(warnings(fields.clone()), Some(json!([warning])), "{fields}");
    }
    let nothing = json!({
        "restore_faces": false, "tiling": false, "refiner_checkpoint": "", "refiner_switch_at": 0, "script_name": "",
        "alwayson_scripts": {}, "override_settings": {"sd_vae": "Automatic", "forge_additional_modules": []},
    });
    assert_eq!(warnings(nothing), None);
}

#[test]
fn a_lora_that_is_not_here_is_left_out_of_the_prompt() {
    let app = TestApp::start();
    let (response, input) = with_input(&app, || {
        let lora = json!([{"path": "loras/fur.safetensors", "multiplier": 0.5}]);
        txt2img(&app, json!({"prompt": "a <lora:ink:1> dog", "lora": lora}))
    });
    assert_eq!(input["prompt"], "a  dog ");
    assert_eq!(response.json()["warnings"].as_array().unwrap().len(), 2);
    assert_eq!(info(&response)["prompt"], "a <lora:ink:1> dog <lora:fur.safetensors:0.5>");
}

#[test]
fn a_pictures_text_gives_the_fields_that_are_absent() {
    let app = TestApp::start();
    let text = "a fox\nSteps: 9, Sampler: LMS, CFG scale: 3, Seed: 11, Size: 256x128, Clip skip: 1";
    let (_, input) = with_input(&app, || txt2img(&app, json!({"infotext": text, "steps": 4})));
    assert_eq!(
        (&input["prompt"], &input["seed"], &input["width"]),
        (&json!("a fox"), &json!(11), &json!(256))
    );
    assert_eq!((&input["scheduler"], &input["num_inference_steps"]), (&json!("K-LMS"), &json!(4)));
}

#[test]
fn a_body_is_json_whatever_its_type_says() {
    let app = TestApp::start();
    for kind in ["application/json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"] {
        let request = keyed("POST", TXT2IMG).header("Content-Type", kind).body(r#"{"prompt": "a dog"}"#);
        assert_eq!(request.send(app.port).status, 200, "{kind}");
    }
    for body in ["", "{}", "null"] {
        assert_eq!(keyed("POST", TXT2IMG).body(body).send(app.port).status, 200, "{body}");
    }
}

#[test]
fn the_model_chooses_the_endpoint() {
    let app = TestApp::with(|config| {
        // Jobs of the first endpoint would wait for ever.
        config.endpoints = vec![endpoint("first", 0), endpoint("second", 1)];
    });
    for body in [
        json!({"model": "second"}),
        json!({"override_settings": {"sd_model_checkpoint": "second.safetensors [6ce0161689]"}}),
    ] {
        assert_eq!(info(&txt2img(&app, body))["sd_model_name"], "second");
    }
}

#[test]
fn what_was_answered_is_forgotten_at_once() {
    let app = TestApp::start();
    assert_eq!(txt2img(&app, json!({"n_iter": 3})).status, 200);
    wait_until_forgotten(&app);
}

#[test]
fn a_client_that_closes_its_connection_cancels_its_jobs() {
    let app = TestApp::start();
    app.script.hold();
    let body = r#"{"prompt": "a dog", "n_iter": 3}"#;
    let mut stream = TcpStream::connect(("127.0.0.1", app.port)).unwrap();
    write!(
        stream,
        "POST {TXT2IMG} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    app.script.wait_for_step(1);
    drop(stream);
    wait_until_forgotten(&app);
    app.script.open();
    while app.get("/v2/stable-diffusion-v1/health").json()["workers"]["idle"] != 1 {
        std::thread::yield_now();
    }
    let progress = app.get("/sdapi/v1/progress").json();
    assert_eq!((&progress["progress"], &progress["state"]["job"]), (&json!(0.0), &json!("")));
}

#[test]
fn metrics_count_its_jobs() {
    let app = TestApp::with(|config| config.http.rate_limits = RateLimits::OFF);
    txt2img(&app, json!({"n_iter": 2}));
    let line = r#"stablehand_jobs_submitted_total{surface="a1111",endpoint="stable-diffusion-v1"} 2"#;
    let text = app.get("/metrics").text().to_owned();
    assert!(text.lines().any(|found| found == line), "{text}");
}
