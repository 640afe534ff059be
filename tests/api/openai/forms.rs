//! Multipart forms for tests.

use crate::client::{Request, Response};
use crate::helpers::{TestApp, keyed};

const BOUNDARY: &str = "----stablehand-test-7d1";

/// A form under construction.
#[derive(Clone, Default)]
pub struct TestForm(Vec<u8>);

impl TestForm {
    pub fn text(self, name: &str, value: &str) -> Self {
        self.part(&format!("name=\"{name}\""), value.as_bytes())
    }

    pub fn file(self, name: &str, file_name: &str, bytes: &[u8]) -> Self {
        self.part(
            &format!("name=\"{name}\"; filename=\"{file_name}\"\r\nContent-Type: application/octet-stream"),
            bytes,
        )
    }

    fn part(mut self, head: &str, bytes: &[u8]) -> Self {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        self.0.extend(head.into_bytes());
        self.0.extend(bytes);
        self.0.extend(b"\r\n");
        self
    }

    pub fn request(&self, target: &str) -> Request {
        let mut body = self.0.clone();
        body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
        keyed("POST", target)
            .header("Content-Type", &format!("multipart/form-data; boundary={BOUNDARY}"))
            .body(body)
    }

    pub fn post(&self, app: &TestApp, target: &str) -> Response {
        self.request(target).send(app.port)
    }
}
