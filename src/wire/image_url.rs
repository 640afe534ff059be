//! Image URLs that need no key: signed, bound to one picture, and dead with the job.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::{EndpointId, ImageRef, Job, JobId, Timestamp};

/// Signs and checks image URLs with a key that never leaves the data folder.
#[derive(Clone)]
pub struct UrlSigner(
    /// The key, filled up with zeros to SHA-256's block size as HMAC has it (RFC 2104, section 2).
    [u8; 64],
);

impl UrlSigner {
    pub fn new(key: [u8; 32]) -> Self {
        let mut block = [0; 64];
        block[..32].copy_from_slice(&key);
        Self(block)
    }

    fn sign(&self, endpoint: &EndpointId, id: &JobId, index: u32, expires: i64) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(endpoint, id, index, expires).finalize().into_bytes())
    }

    /// Whether `signature` is ours for exactly these values; compared in constant time.
    pub fn verifies(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        index: u32,
        expires: i64,
        signature: &str,
    ) -> bool {
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|bytes| self.mac(endpoint, id, index, expires).verify_slice(&bytes).is_ok())
    }

    /// Every part goes in behind its length, so that no two lists of parts read alike.
    fn mac(&self, endpoint: &EndpointId, id: &JobId, index: u32, expires: i64) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&self.0.into());
        let parts: [&[u8]; 5] = [
            b"stablehand image v1",
            endpoint.as_str().as_bytes(),
            id.as_str().as_bytes(),
            &index.to_be_bytes(),
            &expires.to_be_bytes(),
        ];
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

/// Makes the URLs of one answer, all under the same base.
pub struct ImageUrls<'a> {
    /// Such as `https://pictures.example`, without a slash at its end.
    pub base: &'a str,
    pub signer: &'a UrlSigner,
}

impl ImageUrls<'_> {
    /// Where a picture of `job` is served until the job is forgotten, or where it lies in the client's bucket.
    pub fn url_of(&self, job: &Job, image: &ImageRef) -> String {
        if let Some(url) = &image.url {
            return url.clone();
        }
        let index = image.index;
        let expires = last_second(job.expires_at);
        let signature = self.signer.sign(&job.endpoint, &job.id, index, expires);
        let (base, endpoint, id) = (self.base, &job.endpoint, &job.id);
        format!("{base}/v2/{endpoint}/images/{id}/{index}.png?expires={expires}&signature={signature}")
    }
}

/// The second at whose beginning everything is over, rounded up: the row decides the rest.
fn last_second(expires_at: Timestamp) -> i64 {
    Timestamp(expires_at.0.saturating_add(999)).unix_seconds()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_one_picture_only() {
        let signer = UrlSigner::new([1; 32]);
        let endpoint = EndpointId::default();
        let id = JobId::parse("c80ffee4-f315-4e25-a146-0f3d98cf024b").unwrap();
        let signature = signer.sign(&endpoint, &id, 0, 100);
        assert!(signer.verifies(&endpoint, &id, 0, 100, &signature));
        assert!(!signer.verifies(&endpoint, &id, 1, 100, &signature));
        assert!(!signer.verifies(&endpoint, &id, 0, 101, &signature));
        assert!(!signer.verifies(&EndpointId::new("other"), &id, 0, 100, &signature));
        assert!(!UrlSigner::new([2; 32]).verifies(&endpoint, &id, 0, 100, &signature));
        assert!(!signer.verifies(&endpoint, &id, 0, 100, ""));
        assert!(!signer.verifies(&endpoint, &id, 0, 100, &signature[1..]));
    }

    #[test]
    fn a_url_outlives_its_job_by_less_than_a_second() {
        assert_eq!(last_second(Timestamp(1_000)), 1);
        assert_eq!(last_second(Timestamp(1_001)), 2);
    }
}
