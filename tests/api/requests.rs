//! `/requests`: the list of jobs.

use serde_json::{Value, json};

use crate::helpers::{TestApp, prompt};

const REQUESTS: &str = "/v2/stable-diffusion-v1/requests";

fn ids(page: &Value) -> Vec<&str> {
    page["requests"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect()
}

#[test]
fn the_list_has_status_bodies_with_the_newest_first() {
    let app = TestApp::start();
    let first = app.submit(&prompt("a dog"));
    app.wait(&first);
    let second = app.submit(&prompt("fail"));
    app.wait(&second);
    let page = app.get(REQUESTS).json();
    let status = |id: &str| app.status(id).json();
    assert_eq!(page, json!({"requests": [status(&second), status(&first)], "cursor": null}));
    let failed = app.get(&format!("{REQUESTS}?status=FAILED")).json();
    assert_eq!(ids(&failed), [second]);
}

#[test]
fn pages_have_no_gap() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let mut submitted: Vec<String> = (0..5).map(|i| app.submit(&prompt(&format!("dog {i}")))).collect();
    app.get(&format!("/v2/stable-diffusion-v1/cancel/{}", submitted[1]));
    submitted.reverse();
    let mut seen = Vec::new();
    let mut target = format!("{REQUESTS}?limit=2");
    loop {
        let page = app.get(&target).json();
        assert!(page["requests"].as_array().unwrap().len() <= 2);
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        let Some(cursor) = page["cursor"].as_str() else { break };
        target = format!("{REQUESTS}?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, submitted);
    let queued = app.get(&format!("{REQUESTS}?status=IN_QUEUE&limit=100")).json();
    assert_eq!(ids(&queued).len(), 4);
}

#[test]
fn the_list_leaves_out_long_inputs_and_expired_jobs() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt(&"dog ".repeat(8_000)));
    assert_eq!(
        app.get(REQUESTS).json(),
        json!({"requests": [{"delayTime": 0, "id": id, "status": "IN_QUEUE"}], "cursor": null})
    );
    app.advance_ms(24 * 3_600_000);
    assert_eq!(app.get(REQUESTS).json(), json!({"requests": [], "cursor": null}));
}

#[test]
fn an_invalid_parameter_is_named() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    for (query, part) in [
        ("limit=0", "limit does not meet the constraints. It must be a whole number from 1 to 100."),
        ("limit=101", "limit"),
        ("limit=many", "limit"),
        ("status=DONE", "status does not meet the constraints. It must be one of IN_QUEUE, IN_PROGRESS,"),
        ("cursor=-1", "cursor"),
        ("cursor=99999999999999999999", "cursor"),
    ] {
        let refused = app.get(&format!("{REQUESTS}?{query}"));
        assert_eq!(refused.status, 400, "{query}");
        assert!(refused.error().contains(part), "{}", refused.error());
    }
    assert_eq!(app.get("/v2/other/requests").status, 404);
}
