//! `POST /delete/{id}`: a job that has ended is gone before its time is over.

use serde_json::json;

use crate::client::Request;
use crate::helpers::{TestApp, keyed, prompt};

const DELETE: &str = "/v2/stable-diffusion-v1/delete";

#[test]
fn a_job_that_has_ended_is_deleted_with_its_pictures() {
    let app = TestApp::start();
    let id = app.submit(&prompt("a dog"));
    let picture = app.wait(&id)["output"][0]["image"].as_str().unwrap().to_owned();
    let target = &picture[picture.find("/v2").unwrap()..];
    assert_eq!(Request::new("GET", target).send(app.port).status, 200);
    let answer = app.post_text(&format!("{DELETE}/{id}"), "");
    assert_eq!((answer.status, answer.json()), (200, json!({"id": id, "status": "deleted"})));
    assert_eq!(app.status(&id).status, 404);
    assert_eq!(Request::new("GET", target).send(app.port).status, 404);
    assert_eq!(app.post_text(&format!("{DELETE}/{id}"), "").status, 404);
}

#[test]
fn a_job_that_goes_on_is_not_deleted() {
    let app = TestApp::with(|config| config.endpoints[0].workers = 0);
    let id = app.submit(&prompt("a dog"));
    let refused = app.post_text(&format!("{DELETE}/{id}"), "");
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.error(),
        "Only a job that has ended can be deleted; this one is IN_QUEUE: cancel it first."
    );
    assert_eq!(app.status(&id).json()["status"], "IN_QUEUE");
    app.get(&format!("/v2/stable-diffusion-v1/cancel/{id}"));
    assert_eq!(app.post_text(&format!("{DELETE}/{id}"), "").status, 200);
}

#[test]
fn deleting_needs_the_key() {
    let app = TestApp::start();
    let id = app.submit(&prompt("a dog"));
    app.wait(&id);
    assert_eq!(Request::new("POST", &format!("{DELETE}/{id}")).send(app.port).status, 401);
    assert_eq!(keyed("POST", &format!("/v2/other/delete/{id}")).send(app.port).status, 404);
    assert_eq!(app.status(&id).status, 200);
}
