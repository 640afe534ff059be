//! An id for each request, so that a client's report leads to its lines in the log.

use std::fmt;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
const MAX_BYTES: usize = 64;

/// The client's `X-Request-Id` if it is short, printable ASCII; otherwise a new id.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let usable = |id: &&HeaderValue| {
            (1..=MAX_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        headers.get(&HEADER).filter(usable).map_or_else(Self::new, |id| Self(id.clone()))
    }

    fn new() -> Self {
        let id = Uuid::new_v4().simple().to_string();
        Self(HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("none")))
    }

    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sent: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_bytes(sent).unwrap());
        RequestId::from_headers(&headers).to_string()
    }

    #[test]
    fn a_usable_id_is_kept_and_any_other_is_replaced() {
        for id_sent in ["7", "req-42/a=b", "\"quoted\"", &"a".repeat(64)] {
            assert_eq!(id(id_sent.as_bytes()), id_sent);
        }
        for odd in [&b""[..], b"two words", "\u{e9}".as_bytes(), b"tab\there", &[b'a'; 65]] {
            let id = id(odd);
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        }
        assert_ne!(
            RequestId::from_headers(&HeaderMap::new()).to_string(),
            RequestId::from_headers(&HeaderMap::new()).to_string()
        );
    }
}
