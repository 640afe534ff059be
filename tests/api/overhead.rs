//! What a picture costs through each API, without the drawing: the engine follows a script. It prints times, and is run by
//! hand: `cargo test --test api overhead -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stablehand::http::RateLimits;

use crate::client::{Request, Response};
use crate::engine::Script;
use crate::helpers::{TestApp, keyed};

const ROUNDS: usize = 500;
const ENDPOINT: &str = "/v2/stable-diffusion-v1";

/// A way to a picture: its name, and the requests that it takes.
type Way = (&'static str, fn(&TestApp));

/// The first one is what the others are compared with, by the tenth of the rounds that was disturbed least.
const WAYS: [Way; 10] = [
    ("native: runsync, then the picture", |app| fetch(app, &runsync(app)["output"][0]["image"])),
    ("native: run, status-sync, then the picture", |app| {
        let id = ok(app.post(&format!("{ENDPOINT}/run"), native())).id();
        fetch(app, &app.wait(&id)["output"][0]["image"]);
    }),
    ("native: runsync alone", |app| _ = runsync(app)),
    ("openai: b64_json", |app| _ = openai(app, "b64_json")),
    ("openai: url", |app| _ = openai(app, "url")),
    ("openai: url, then the picture", |app| fetch(app, &openai(app, "url")["data"][0]["url"])),
    ("a1111: txt2img", |app| {
        let body = json!({"prompt": "a dog", "steps": 1});
        assert_eq!(
            ok(app.post("/sdapi/v1/txt2img", body)).json()["images"].as_array().map(Vec::len),
            Some(1)
        );
    }),
    ("huggingface", |app| {
        let body = json!({"inputs": "a dog", "parameters": {"num_inference_steps": 1}});
        assert!(ok(app.post("/huggingface", body)).body.starts_with(b"\x89PNG"));
    }),
    ("mcp: generate_image", |app| {
        let arguments = json!({"prompt": "a dog", "steps": 1, "format": "png"});
        let params = json!({"name": "generate_image", "arguments": arguments});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let request = keyed("POST", "/mcp").header("Content-Type", "application/json");
        let answer =
            ok(request.header("Accept", "application/json, text/event-stream").body(body).send(app.port));
        assert!(answer.text().contains("\"type\":\"image\""), "{answer:?}");
    }),
    ("runpod's dialect: runsync, then the picture", |app| {
        let input = json!({"prompt": "a dog", "num_inference_steps": 1, "size": "512*512"});
        let job = ok(app.post(&format!("{ENDPOINT}/runsync"), json!({ "input": input }))).json();
        fetch(app, &job["output"]["image_url"]);
    }),
];

#[test]
#[ignore = "prints times"]
fn of_every_api() {
    let app = TestApp::launch(|config| config.http.rate_limits = RateLimits::OFF, Script::drawing());
    let mut times = WAYS.map(|_| Vec::<Duration>::with_capacity(ROUNDS));
    // In turns, so that what else the machine does meets all of them alike.
    for _ in 0..ROUNDS {
        for ((_, draw), times) in WAYS.iter().zip(&mut times) {
            let start = Instant::now();
            draw(&app);
            times.push(start.elapsed());
        }
    }
    for times in &mut times {
        times.sort();
    }
    let share = |times: &[Duration], percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
    println!("{:<46} {:>8} {:>8} {:>8} {:>11}", "milliseconds", "10 %", "25 %", "median", "10 % more");
    for ((name, _), times_of) in WAYS.iter().zip(&times) {
        let [low, quarter, median] = [10, 25, 50].map(|percent| share(times_of, percent));
        let more = low - share(&times[0], 10);
        println!("{name:<46} {low:>8.2} {quarter:>8.2} {median:>8.2} {more:>+11.2}");
    }
}

fn native() -> Value {
    json!({"input": {"prompt": "a dog", "num_inference_steps": 1}})
}

fn runsync(app: &TestApp) -> Value {
    ok(app.post(&format!("{ENDPOINT}/runsync"), native())).json()
}

fn openai(app: &TestApp, form: &str) -> Value {
    let body = json!({"prompt": "a dog", "steps": 1, "response_format": form});
    ok(app.post("/v1/images/generations", body)).json()
}

fn fetch(app: &TestApp, url: &Value) {
    let (_, target) = url.as_str().unwrap().split_once("/v2/").unwrap();
    assert!(ok(Request::new("GET", &format!("/v2/{target}")).send(app.port)).body.starts_with(b"\x89PNG"));
}

fn ok(response: Response) -> Response {
    assert_eq!(response.status, 200, "{response:?}");
    response
}
