//! `s3Config`: pictures in the client's own bucket, with a real S3 server that checks signatures.

use std::fs;
use std::path::Path;

use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::helpers::TestApp;
use crate::mcp;

const ACCESS_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const ACCESS_SECRET: &str = "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY";

/// An S3 server on this machine with one bucket, `foxes`.
struct S3Server {
    port: u16,
    files: TempDir,
}

impl S3Server {
    fn start() -> Self {
        let files = TempDir::new().unwrap();
        fs::create_dir(files.path().join("foxes")).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(files.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(ACCESS_ID, ACCESS_SECRET));
        let service = service.build();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let connection = hyper_util::server::conn::auto::Builder::new(Local)
                    .serve_connection(TokioIo::new(stream), service.clone())
                    .into_owned();
                actix_web::rt::spawn(async move { drop(connection.await) });
            }
        };
        std::thread::spawn(move || actix_web::rt::System::new().block_on(serve));
        Self { port, files }
    }

    fn config(&self) -> Value {
        json!({
            "accessId": ACCESS_ID, "accessSecret": ACCESS_SECRET, "bucketName": "foxes",
            "endpointUrl": format!("http://127.0.0.1:{}", self.port),
        })
    }

    fn file(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.files.path().join("foxes").join(key)).ok()
    }
}

#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        actix_web::rt::spawn(async move { drop(future.await) });
    }
}

fn app() -> TestApp {
    TestApp::with(|config| config.allow_addresses = "127.0.0.0/8".parse().unwrap())
}

fn runsync(app: &TestApp, s3_config: &Value) -> Value {
    let body = json!({"input": {"prompt": "a fox", "num_outputs": 2}, "s3Config": s3_config});
    app.post("/v2/stable-diffusion-v1/runsync", body).json()
}

fn get(url: &str) -> (u16, Vec<u8>) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
    let mut response = agent.get(url).call().unwrap();
    (response.status().as_u16(), response.body_mut().read_to_vec().unwrap())
}

#[test]
fn pictures_go_to_the_bucket_and_the_output_links_them() {
    let (app, s3) = (app(), S3Server::start());
    let job = runsync(&app, &s3.config());
    assert_eq!(job["status"], "COMPLETED", "{job}");
    let id = job["id"].as_str().unwrap();
    for (index, picture) in job["output"].as_array().unwrap().iter().enumerate() {
        let url = picture["image"].as_str().unwrap();
        let base = format!("http://127.0.0.1:{}/foxes/{id}/{index}.png?", s3.port);
        assert!(url.starts_with(&base) && url.contains("X-Amz-Expires=604800"), "{url}");
        let png = s3.file(&format!("{id}/{index}.png")).unwrap();
        assert!(!png.is_empty());
        assert_eq!(get(url), (200, png));
        assert_eq!(get(&url.replace("X-Amz-Expires=604800", "X-Amz-Expires=604799")).0, 403, "it is signed");
    }
    assert_eq!(job["output"].as_array().unwrap().len(), 2);
    let again = app.status(id).json();
    assert_eq!(again["output"], job["output"]);
}

#[test]
fn a_chat_program_that_looks_at_such_a_job_is_told_where_its_pictures_are() {
    let (app, s3) = (app(), S3Server::start());
    let job = runsync(&app, &s3.config());
    let result = mcp::result(&app, "get_job", json!({"job_id": job["id"]}));
    let fields = &result["structuredContent"];
    let expected: Vec<Value> = job["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|picture| json!({"seed": picture["seed"], "url": picture["image"]}))
        .collect();
    assert_eq!((&fields["images"], &fields["withheld"]), (&json!(expected), &json!(0)), "{result}");
    let [text] = &result["content"].as_array().unwrap()[..] else { panic!("{result}") };
    let text = text["text"].as_str().unwrap();
    assert!(text.starts_with("Here are 2 pictures: in the job's bucket at http://127.0.0.1:"), "{text}");
}

#[test]
fn a_bucket_that_refuses_the_upload_fails_the_job_with_its_reason() {
    let (app, s3) = (app(), S3Server::start());
    for (field, value, code) in
        [("accessSecret", "another", "HTTP 403 (SignatureDoesNotMatch)"), ("accessId", "another", "HTTP 403")]
    {
        let mut config = s3.config();
        config[field] = value.into();
        let job = runsync(&app, &config);
        assert_eq!(job["status"], "FAILED", "{job}");
        let error = job["error"].as_str().unwrap();
        assert!(error.contains(code) && error.contains("127.0.0.1 answered"), "{error}");
        assert!(!error.contains("another"), "{error}");
    }
}

#[test]
fn a_bucket_at_a_private_address_is_refused() {
    let (app, s3) = (TestApp::start(), S3Server::start());
    let job = runsync(&app, &s3.config());
    assert_eq!(
        job["error"],
        "The pictures could not be stored in the bucket foxes: the address of 127.0.0.1 is not public; the server's operator can allow it with --allow-addresses."
    );
}

#[test]
fn the_keys_are_never_shown_and_are_deleted_with_the_job() {
    let (mut app, s3) = (app(), S3Server::start());
    let job = runsync(&app, &s3.config());
    let id = job["id"].as_str().unwrap();
    let status = app.status(id).text().to_owned();
    assert!(!status.contains(ACCESS_SECRET) && !status.contains("s3Config"), "{status}");
    let mut config = s3.config();
    config["accessSecret"] = "another".into();
    let failed = runsync(&app, &config);
    let retry =
        app.post(&format!("/v2/stable-diffusion-v1/retry/{}", failed["id"].as_str().unwrap()), json!(null));
    assert_eq!(retry.status, 400);
    assert_eq!(
        retry.json(),
        json!({"error": "This job's s3Config was deleted when the job ended: submit the job again."})
    );
    app.stop();
    assert!(!holds(app.data_dir(), ACCESS_SECRET));
}

#[test]
fn an_invalid_s3_config_is_refused_at_once() {
    let app = app();
    for (config, error) in [
        (json!("secret"), "s3Config should be an object."),
        (json!({"accessId": "a"}), "s3Config.accessSecret is a required input."),
    ] {
        let body = json!({"input": {"prompt": "a fox"}, "s3Config": config});
        let response = app.post("/v2/stable-diffusion-v1/run", body);
        assert_eq!((response.status, response.json()), (400, json!({ "error": error })));
    }
}

fn holds(dir: &Path, text: &str) -> bool {
    fs::read_dir(dir).unwrap().any(|file| {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}
