//! Uploads pictures to a client's own bucket, with the S3 protocol.
//!
//! The signature is part of the URL (Signature Version 4). So an upload is an ordinary PUT with the usual check of the
//! address, and the URL of a picture can be made without a call to the server.

use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle};
use ureq::http::{Request, StatusCode, header};

use super::{Deadline, FetchError, Fetcher};
use crate::domain::{S3Config, WebUrl, WebUrlError};

/// How long the URL of a picture is valid: the longest time that the protocol allows.
const URL_LIFE: Duration = Duration::from_hours(7 * 24);
/// The limit for one upload.
const TIME: Duration = Duration::from_secs(60);
/// Longer than an upload may take, with room for clocks that differ.
const UPLOAD_URL_LIFE: Duration = Duration::from_mins(15);
const PNG: &str = "image/png";
/// How many bytes of an error response are read.
const MAX_ERROR_BYTES: u64 = 4096;
/// The usual value for servers that have no regions.
const NO_REGION: &str = "us-east-1";

impl Fetcher {
    /// Uploads a PNG file to the bucket under `key`, within 60 s. Returns a URL that anybody can open for seven days.
    pub fn store_image(&self, config: &S3Config, key: &str, png: &[u8]) -> Result<String, FetchError> {
        let bucket = bucket(config)?;
        let credentials = Credentials::new(config.access_id.as_str(), config.access_secret.as_str());
        let mut put = bucket.put_object(Some(&credentials), key);
        put.headers_mut().insert(header::CONTENT_TYPE.as_str(), PNG);
        let url: WebUrl = put.sign(UPLOAD_URL_LIFE).as_str().parse()?;

        let deadline = Deadline::after(TIME);
        let request = Request::put(url.as_str()).header(header::CONTENT_TYPE, PNG);
        let response = self.call(request.body(png), &url, deadline)?;
        if response.status() != StatusCode::OK {
            let (host, status) = (url.host().to_owned(), response.status().as_u16());
            let mut answer = String::new();
            let mut body = response.into_body().into_reader().take(MAX_ERROR_BYTES);
            return Err(match body.read_to_string(&mut answer).ok().and_then(|_| error_code(&answer)) {
                Some(code) => FetchError::Refused { host, status, code: code.to_owned() },
                None => FetchError::Status { host, status },
            });
        }
        Ok(bucket.get_object(Some(&credentials), key).sign(URL_LIFE).into())
    }
}

/// The bucket at an endpoint. The host of the endpoint may already begin with the name of the bucket, as in the hosted
/// service's examples.
fn bucket(config: &S3Config) -> Result<Bucket, FetchError> {
    let (endpoint, name) = (&config.endpoint_url, config.bucket_name.as_str());
    let host = endpoint.host();
    let region = config.region.as_deref().unwrap_or_else(|| region(host)).to_owned();
    let mut url = endpoint.as_url().clone();
    let bare = host.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
    let style = match bare {
        Some(bare) => {
            url.set_host(Some(bare)).map_err(|_| WebUrlError::NoUrl)?;
            UrlStyle::VirtualHost
        }
        // AWS's certificates do not cover names with dots.
        None if host.ends_with(".amazonaws.com") && !name.contains('.') => UrlStyle::VirtualHost,
        None => UrlStyle::Path,
    };
    Bucket::new(url, style, Cow::Owned(name.to_owned()), Cow::Owned(region))
        .map_err(|_| FetchError::Url(WebUrlError::NoUrl))
}

/// The region in the host name of an endpoint, as in `s3.eu-west-1.amazonaws.com`, `s3.us-west-004.backblazeb2.com`
/// or `nyc3.digitaloceanspaces.com`.
fn region(host: &str) -> &str {
    if host.ends_with(".r2.cloudflarestorage.com") {
        return "auto";
    }
    let labels: Vec<&str> = host.split('.').collect();
    if let [.., region, "digitaloceanspaces", "com"] = labels[..] {
        return region;
    }
    let after_s3 = labels.iter().position(|label| *label == "s3").map(|at| &labels[at + 1..]);
    match after_s3 {
        Some(["dualstack", region, _, _, ..] | [region, _, _, ..]) => region,
        _ => NO_REGION,
    }
}

/// The S3 error code in an error response, such as `AccessDenied`.
fn error_code(answer: &str) -> Option<&str> {
    let (_, rest) = answer.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let is_name = (1..=64).contains(&code.len()) && code.chars().all(|c| c.is_ascii_alphanumeric());
    is_name.then_some(code)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn base(endpoint: &str, name: &str) -> (String, String) {
        let config = json!({
            "accessId": "id", "accessSecret": "secret", "bucketName": name, "endpointUrl": endpoint,
        });
        let bucket = bucket(&S3Config::parse(&config).unwrap().unwrap()).unwrap();
        (bucket.base_url().to_string(), bucket.region().to_owned())
    }

    #[test]
    fn common_forms_of_endpoints_are_understood() {
        for (endpoint, name, url, region) in [
            (
                "https://s3.eu-west-1.amazonaws.com",
                "cats",
                "https://cats.s3.eu-west-1.amazonaws.com/",
                "eu-west-1",
            ),
            (
                "https://cats.s3.eu-west-1.amazonaws.com/",
                "cats",
                "https://cats.s3.eu-west-1.amazonaws.com/",
                "eu-west-1",
            ),
            (
                "https://s3.eu-west-1.amazonaws.com",
                "cats.example",
                "https://s3.eu-west-1.amazonaws.com/cats.example/",
                "eu-west-1",
            ),
            (
                "https://s3.dualstack.eu-west-1.amazonaws.com",
                "cats",
                "https://cats.s3.dualstack.eu-west-1.amazonaws.com/",
                "eu-west-1",
            ),
            ("https://s3.amazonaws.com", "cats", "https://cats.s3.amazonaws.com/", "us-east-1"),
            (
                "https://s3.us-west-004.backblazeb2.com",
                "cats",
                "https://s3.us-west-004.backblazeb2.com/cats/",
                "us-west-004",
            ),
            (
                "https://cats.nyc3.digitaloceanspaces.com",
                "cats",
                "https://cats.nyc3.digitaloceanspaces.com/",
                "nyc3",
            ),
            (
                "https://1a2b.r2.cloudflarestorage.com",
                "cats",
                "https://1a2b.r2.cloudflarestorage.com/cats/",
                "auto",
            ),
            ("http://127.0.0.1:9000", "cats", "http://127.0.0.1:9000/cats/", "us-east-1"),
            ("https://files.example/s3/", "cats", "https://files.example/s3/cats/", "us-east-1"),
        ] {
            assert_eq!(base(endpoint, name), (url.to_owned(), region.to_owned()), "{endpoint}");
        }
    }

    #[test]
    fn only_the_code_of_an_error_response_is_shown() {
        let answer = "<?xml version='1.0'?><Error><Code>NoSuchBucket</Code><Message>m</Message></Error>";
        assert_eq!(error_code(answer), Some("NoSuchBucket"));
        for answer in ["", "<Code>a b</Code>", "<Code></Code>", "<Code>secret"] {
            assert_eq!(error_code(answer), None, "{answer}");
        }
    }
}
