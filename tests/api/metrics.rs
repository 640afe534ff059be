//! `/metrics`.

use stablehand::http::MetricsAccess;

use crate::client::Request;
use crate::helpers::{TestApp, prompt};

#[test]
fn the_page_counts_jobs_requests_and_pictures() {
    let app = TestApp::start();
    assert_eq!(app.post("/v2/stable-diffusion-v1/runsync", prompt("a very secret dog")).status, 200);
    app.get("/v2/stable-diffusion-v1/status/nothing?secret=1");
    Request::new("INVENTED", "/v1/secret/health").send(app.port);
    app.get("/secret");
    let response = app.get("/metrics");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let page = response.text();
    for line in [
        r#"stablehand_requests_total{route="/v2/{endpoint}/runsync",method="POST",code="200"} 1"#,
        r#"stablehand_requests_total{route="/v2/{endpoint}/status/{id}",method="GET",code="404"} 1"#,
        r#"stablehand_requests_total{route="/v1/{endpoint}/health",method="other",code="405"} 1"#,
        r#"stablehand_requests_total{route="none",method="GET",code="404"} 1"#,
        r#"stablehand_jobs{endpoint="stable-diffusion-v1",status="COMPLETED"} 1"#,
        r#"stablehand_jobs_ended_total{endpoint="stable-diffusion-v1",status="COMPLETED"} 1"#,
        r#"stablehand_image_seconds_count{endpoint="stable-diffusion-v1"} 1"#,
        r#"stablehand_job_queued_seconds_count{endpoint="stable-diffusion-v1"} 1"#,
    ] {
        assert!(page.lines().any(|found| found.trim_end_matches(".0") == line), "{line}\n{page}");
    }
    assert!(!page.contains("secret"), "{page}");
}

#[test]
fn the_age_of_the_queue_is_the_age_of_its_oldest_job() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    app.submit(&serde_json::json!({"input": {"prompt": ""}, "policy": {"lowPriority": true}}));
    app.advance_ms(1_500);
    app.submit(&prompt("a dog"));
    app.advance_ms(1_000);
    let response = app.get("/metrics");
    let oldest = r#"stablehand_queue_oldest_seconds{endpoint="stable-diffusion-v1"} 2.5"#;
    assert!(response.text().contains(oldest), "{}", response.text());
    let queued = r#"stablehand_jobs{endpoint="stable-diffusion-v1",status="IN_QUEUE"} 2"#;
    assert!(response.text().contains(queued));
    let workers = r#"stablehand_workers{endpoint="stable-diffusion-v1",state="running"} 0"#;
    assert!(response.text().contains(workers));
}

#[test]
fn metrics_need_a_key_unless_they_are_open() {
    let app = TestApp::start();
    assert_eq!(Request::new("GET", "/metrics").send(app.port).status, 401);
    let app = TestApp::with(|config| config.http.metrics = MetricsAccess::Open);
    assert_eq!(Request::new("GET", "/metrics").send(app.port).status, 200);
}
