//! Random requests to every route: each gets a response in the contract's form, and never a 5xx.

use std::fmt::Write as _;

use proptest::collection::{hash_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use stablehand::http::RateLimits;

use crate::client::{Request, Response};
use crate::helpers::{KEY, TestApp, prompt};

const CASES: u32 = 3000;

/// JSON as text, because some numbers, escapes and duplicate keys cannot be held in a parsed value.
pub fn json_text() -> impl Strategy<Value = String> {
    let number = select(vec![
        "0",
        "-0",
        "1.0",
        "-1",
        "1e400",
        "-1e-400",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "1e19",
        "0.1e1",
        "123456789012345678901234567890.5",
    ]);
    let string = prop_oneof![
        select(vec![
            r#""""#,
            r#""\u0000""#,
            r#""\ud800""#,
            r#""\udc00\ud800""#,
            r#""\ud83d\ude00""#,
            "\"\u{202e}\u{feff}\u{10ffff}\"",
            r#""K-LMS""#,
            r#""data:image/png;base64,AAAA""#,
            r#""http://127.0.0.1:1/""#,
            r#""((((((a:1.5)[b:[c""#,
        ])
        .prop_map(str::to_owned),
        any::<String>().prop_map(|text| json!(text).to_string()),
        (1_usize..70_000).prop_map(|length| json!("a".repeat(length)).to_string()),
    ];
    let deep = (1_usize..3000, select(vec![("[", "]"), (r#"{"a":"#, "}")]))
        .prop_map(|(depth, (open, close))| format!("{}1{}", open.repeat(depth), close.repeat(depth)));
    let leaf = prop_oneof![
        1 => select(vec!["null", "true", "false"]).prop_map(str::to_owned),
        1 => number.prop_map(str::to_owned),
        1 => any::<f64>().prop_map(|number| json!(number).to_string()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        4 => string,
        1 => deep,
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            hash_map(field(), inner, 0..6).prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

/// The name of a field, quoted. Most are known names.
fn field() -> impl Strategy<Value = String> {
    let known: Vec<String> = ["input", "policy", "webhook", "webhookEvents", "s3Config"]
        .into_iter()
        .map(str::to_owned)
        .chain(valid()["input"].as_object().unwrap().keys().cloned())
        .chain(valid()["policy"].as_object().unwrap().keys().cloned())
        .chain(in_the_dialect()["input"].as_object().unwrap().keys().cloned())
        .collect();
    prop_oneof![4 => select(known), 1 => any::<String>()].prop_map(|name| json!(name).to_string())
}

/// A valid request with nearly all fields.
fn valid() -> Value {
    json!({
        "input": {
            "prompt": "a dog", "negative_prompt": "a cat", "width": 128, "height": 128, "num_outputs": 1,
            "num_inference_steps": 2, "guidance_scale": 7.5, "scheduler": "K-LMS", "seed": 1, "nsfw": false,
            "prompt_strength": 1, "lora_scale": 0.5, "mask_invert": false, "init_image": null, "mask": null,
            "lora": null,
        },
        "policy": {"executionTimeout": 5000, "ttl": 60000, "lowPriority": true},
        "webhook": null, "s3Config": null,
    })
}

/// A valid request in the dialect of `RunPod`'s public endpoints.
fn in_the_dialect() -> Value {
    json!({
        "input": {
            "prompt": "a dog", "size": "128*128", "aspect_ratio": "16:9", "guidance": 7.5, "image_format": "png", "seed": -1,
            "enable_safety_checker": true, "image": null, "images": [], "num_inference_steps": 2,
        },
    })
}

/// A valid body with up to two values replaced, and sometimes one byte changed.
fn almost_valid() -> impl Strategy<Value = Vec<u8>> {
    let replaced = vec((any::<Index>(), json_text()), 0..3);
    let spoilt = prop_oneof![4 => Just(None), 1 => (any::<Index>(), any::<u8>()).prop_map(Some)];
    let body = select(vec![valid(), valid(), in_the_dialect()]);
    (body, replaced, spoilt).prop_map(|(body, replaced, spoilt)| {
        let mut text = body.to_string();
        for (place, value) in replaced {
            // A value begins after a colon and ends before the next comma.
            let colons: Vec<_> = text.match_indices("\":").map(|(at, _)| at + 2).collect();
            let at = colons[place.index(colons.len())];
            let end = text[at..].find(',').map_or(text.len(), |length| at + length);
            text.replace_range(at..end, &value);
        }
        let mut bytes = text.into_bytes();
        if let Some((place, byte)) = spoilt {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        5 => almost_valid(),
        3 => json_text().prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..200),
    ]
}

/// A path segment or query value, percent-encoded.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => escaped.push(char::from(byte)),
            _ => write!(escaped, "%{byte:02X}").unwrap(),
        }
        escaped
    })
}

/// Every route, for this job and for others.
fn target(job: &str) -> impl Strategy<Value = String> + use<> {
    let id = prop_oneof![3 => Just(job.to_owned()), 1 => any::<String>().prop_map(|text| escaped(&text))];
    let operation = select(vec![
        "run",
        "run",
        "run",
        "runsync",
        "runsync",
        "status",
        "status-sync",
        "stream",
        "events",
        "cancel",
        "retry",
        "purge-queue",
        "health",
        "requests",
        "images",
    ]);
    // Not empty: slashes collapse, and `/v1/images` belongs to OpenAI's API, whose errors look otherwise.
    let other = any::<String>().prop_map(|text| format!("e{}", escaped(&text)));
    let endpoint = prop_oneof![15 => Just("stable-diffusion-v1".to_owned()), 1 => other];
    let query = prop_oneof![
        2 => Just(String::new()),
        1 => (select(vec!["wait", "limit", "cursor", "expires", "signature", "status"]), any::<String>())
            .prop_map(|(name, value)| format!("?{name}={}", escaped(&value))),
        1 => any::<String>().prop_map(|text| format!("?{}", escaped(&text))),
    ];
    (select(vec!["v1", "v2"]), endpoint, operation, id, any::<u32>(), query).prop_map(
        |(version, endpoint, operation, id, index, query)| {
            let path = match operation {
                "status" | "status-sync" | "stream" | "events" | "cancel" | "retry" => {
                    format!("{operation}/{id}")
                }
                "images" => format!("images/{id}/{index}.png"),
                plain => plain.to_owned(),
            };
            format!("/{version}/{endpoint}/{path}{query}")
        },
    )
}

fn assert_in_form(method: &str, response: &Response) -> Result<(), TestCaseError> {
    prop_assert!(response.status < 500, "{:?}", response);
    if method == "HEAD" {
        prop_assert!(response.body.is_empty());
    } else if response.status >= 400 {
        response.error(); // checks the whole body
    } else if response.header("content-type") != Some("text/event-stream") {
        prop_assert!(response.json().is_object(), "{:?}", response);
    }
    Ok(())
}

#[test]
fn every_request_gets_a_response_in_the_contract_s_form() {
    let app = TestApp::with(|config| config.http.rate_limits = RateLimits::OFF);
    let job = app.submit(&prompt("a dog"));
    let method = select(vec!["POST", "POST", "POST", "POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS"]);
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&(method, target(&job), body()), |(method, target, body)| {
            let request = Request::new(method, &target).header("Authorization", KEY).body(body);
            assert_in_form(method, &request.send(app.port))
        })
        .unwrap();
    assert_eq!(app.get("/v2/stable-diffusion-v1/health").status, 200);
}
