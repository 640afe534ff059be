//! A URL for this server to call. Only its text is checked here.

use std::fmt;
use std::str::FromStr;

use url::Url;

/// An absolute http or https URL without a user, and with port 80, 443 or 1024 to 65535. `fetch` looks up the host and
/// decides whether its addresses may be called.
///
/// The host is in canonical form: `http://0x7f.1/` becomes `http://127.0.0.1/`.
#[derive(Clone, PartialEq, Eq)]
pub struct WebUrl(Url);

/// Why a text is not a valid [`WebUrl`]. Its text continues a sentence that begins with the name of the field, such as
/// `webhook`. It does not repeat the URL, which may hold a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebUrlError {
    #[error("should be an absolute URL, such as https://pictures.example/dog.png")]
    NoUrl,
    #[error("should be a URL of at most {MAX_LENGTH} characters")]
    TooLong,
    #[error("should be an http or https URL")]
    Scheme,
    #[error("should be a URL without a user or a password")]
    User,
    #[error("should be a URL of port 80, 443 or from 1024 to 65535, not {0}")]
    Port(u16),
}

/// Presigned URLs are long, but few servers accept longer ones than this.
const MAX_LENGTH: usize = 8192;

impl WebUrl {
    /// Resolves the target of a redirect, or a path, against this URL.
    pub fn join(&self, reference: &str) -> Result<Self, WebUrlError> {
        if reference.len() > MAX_LENGTH {
            return Err(WebUrlError::TooLong);
        }
        checked(self.0.join(reference).map_err(|_| WebUrlError::NoUrl)?)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Only the host, for messages and logs. Paths and queries may be secret.
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    pub fn as_url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for WebUrl {
    type Err = WebUrlError;

    fn from_str(text: &str) -> Result<Self, WebUrlError> {
        if text.len() > MAX_LENGTH {
            return Err(WebUrlError::TooLong);
        }
        checked(Url::parse(text).map_err(|_| WebUrlError::NoUrl)?)
    }
}

fn checked(mut url: Url) -> Result<WebUrl, WebUrlError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(WebUrlError::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(WebUrlError::User);
    }
    match url.port_or_known_default() {
        Some(80 | 443 | 1024..) => {}
        port => return Err(WebUrlError::Port(port.unwrap_or_default())),
    }
    url.set_fragment(None);
    Ok(WebUrl(url))
}

/// Shows only the host. Paths and queries may be secret.
impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebUrl({})", self.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<WebUrl, WebUrlError> {
        text.parse()
    }

    #[test]
    fn only_http_and_https_urls_are_accepted() {
        for (text, error) in [
            ("", WebUrlError::NoUrl),
            ("dog.png", WebUrlError::NoUrl),
            ("//pictures.example/dog.png", WebUrlError::NoUrl),
            ("http://", WebUrlError::NoUrl),
            ("http://[::1%25eth0]/", WebUrlError::NoUrl),
            ("http://256.1.1.1/", WebUrlError::NoUrl),
            ("file:///etc/passwd", WebUrlError::Scheme),
            ("ftp://pictures.example/", WebUrlError::Scheme),
            ("gopher://pictures.example:70/", WebUrlError::Scheme),
            ("data:image/png;base64,AAAA", WebUrlError::Scheme),
            ("http://me@pictures.example/", WebUrlError::User),
            ("http://me:secret@pictures.example/", WebUrlError::User),
            ("http://:secret@pictures.example/", WebUrlError::User),
            ("http://pictures.example:22/", WebUrlError::Port(22)),
            ("https://pictures.example:25/", WebUrlError::Port(25)),
            ("http://pictures.example:0/", WebUrlError::Port(0)),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
        assert_eq!(parse(&format!("http://a/{}", "a".repeat(MAX_LENGTH))), Err(WebUrlError::TooLong));
        for text in ["http://a/", "https://a:8443/x?y=z", "http://a:443/", "http://[2001:4860::1]/"] {
            assert_eq!(parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_host_has_one_canonical_form() {
        for text in [
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://0x7f.0.0.0x1/",
            "http://%31%32%37.0.0.1/",
            "http://１２７.０.０.１/",
            "http:/\\127.0.0.1/",
        ] {
            assert_eq!(parse(text).unwrap().host(), "127.0.0.1", "{text}");
        }
        assert_eq!(parse("http://[::FFFF:127.0.0.1]/").unwrap().host(), "[::ffff:7f00:1]");
    }

    #[test]
    fn a_redirect_is_checked_like_the_first_url() {
        let base = parse("https://pictures.example/a/b?key=1").unwrap();
        assert_eq!(base.join("../c#d").unwrap().as_str(), "https://pictures.example/c");
        assert_eq!(base.join("//other.example/").unwrap().host(), "other.example");
        assert_eq!(base.join("file:///etc/passwd"), Err(WebUrlError::Scheme));
        assert_eq!(base.join("http://me@other.example/"), Err(WebUrlError::User));
    }

    #[test]
    fn the_debug_text_shows_only_the_host() {
        let url = parse("https://pictures.example/secret?key=1").unwrap();
        assert_eq!(format!("{url:?}"), "WebUrl(pictures.example)");
    }
}
