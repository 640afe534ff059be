//! Texts that are the same for many readers, compressed once.

use std::io::Write as _;

use actix_web::http::header;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use flate2::Compression;
use flate2::write::GzEncoder;

/// A text as it is sent.
pub struct Compressed {
    plain: Bytes,
    /// Empty if it could not be made.
    gzip: Bytes,
}

impl Compressed {
    pub fn new(text: impl Into<Bytes>) -> Self {
        let plain = text.into();
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let gzip = encoder.write_all(&plain).and_then(|()| encoder.finish()).unwrap_or_default();
        Self { plain, gzip: gzip.into() }
    }

    /// The answer with this text as its body, in a form that the client takes.
    pub fn answer(&self, request: &HttpRequest, mut response: HttpResponseBuilder) -> HttpResponse {
        response.append_header((header::VARY, "accept-encoding"));
        if self.gzip.is_empty() || !takes_gzip(request) {
            return response.body(self.plain.clone());
        }
        response.insert_header((header::CONTENT_ENCODING, "gzip")).body(self.gzip.clone())
    }
}

fn takes_gzip(request: &HttpRequest) -> bool {
    let accepted = request.headers().get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.unwrap_or_default().split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.all(|part| !part.starts_with("q=0") || part.contains('.'))
    })
}
