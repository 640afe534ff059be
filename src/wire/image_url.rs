//! URLs that need no key: signed, bound to one picture or one job's events, and dead in time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::{EndpointId, ImagePlace, ImageRef, Job, JobId, JobOutline, Timestamp};

/// What a signed URL opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opens {
    /// A job's picture of that index.
    Image(u32),
    /// A job's events.
    Events,
}

/// Signs and checks URLs with a key that never leaves the data folder.
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

    fn sign(&self, opens: Opens, endpoint: &EndpointId, id: &JobId, expires: i64) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(opens, endpoint, id, expires).finalize().into_bytes())
    }

    /// Whether `signature` is ours for exactly these values; compared in constant time.
    pub fn verifies(
        &self,
        opens: Opens,
        endpoint: &EndpointId,
        id: &JobId,
        expires: i64,
        signature: &str,
    ) -> bool {
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|bytes| self.mac(opens, endpoint, id, expires).verify_slice(&bytes).is_ok())
    }

    /// Every part goes in behind its length, so that no two lists of parts read alike.
    fn mac(&self, opens: Opens, endpoint: &EndpointId, id: &JobId, expires: i64) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&self.0.into());
        let (kind, index): (&[u8], u32) = match opens {
            Opens::Image(index) => (b"stablehand image v1", index),
            Opens::Events => (b"stablehand events v1", 0),
        };
        let parts: [&[u8]; 5] = [
            kind,
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
    /// Where a picture of `job` is served until the job is forgotten, or where it lies in the client's bucket; none
    /// for one that is withheld.
    pub fn url_of(&self, job: &Job, image: &ImageRef) -> Option<String> {
        self.url(&job.endpoint, &job.id, job.expires_at, image)
    }

    /// The same, of a job whose outline is known.
    pub fn url_in(&self, job: &JobOutline, image: &ImageRef) -> Option<String> {
        self.url(&job.endpoint, &job.id, job.expires_at, image)
    }

    /// Where a job's events are told to those who connect before `expires`, in seconds since the epoch.
    pub fn events(&self, endpoint: &EndpointId, id: &JobId, expires: i64) -> String {
        let signature = self.signer.sign(Opens::Events, endpoint, id, expires);
        let base = self.base;
        format!("{base}/v2/{endpoint}/events/{id}?expires={expires}&signature={signature}")
    }

    fn url(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        expires_at: Timestamp,
        image: &ImageRef,
    ) -> Option<String> {
        match &image.place {
            ImagePlace::Here => {}
            ImagePlace::Bucket(url) => return Some(url.clone()),
            ImagePlace::Withheld => return None,
        }
        let index = image.index;
        let expires = last_second(expires_at);
        let signature = self.signer.sign(Opens::Image(index), endpoint, id, expires);
        let base = self.base;
        Some(format!("{base}/v2/{endpoint}/images/{id}/{index}.png?expires={expires}&signature={signature}"))
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
        let first = Opens::Image(0);
        let signature = signer.sign(first, &endpoint, &id, 100);
        assert!(signer.verifies(first, &endpoint, &id, 100, &signature));
        assert!(!signer.verifies(Opens::Image(1), &endpoint, &id, 100, &signature));
        assert!(!signer.verifies(Opens::Events, &endpoint, &id, 100, &signature));
        assert!(!signer.verifies(first, &endpoint, &id, 101, &signature));
        assert!(!signer.verifies(first, &EndpointId::new("other"), &id, 100, &signature));
        assert!(!UrlSigner::new([2; 32]).verifies(first, &endpoint, &id, 100, &signature));
        assert!(!signer.verifies(first, &endpoint, &id, 100, ""));
        assert!(!signer.verifies(first, &endpoint, &id, 100, &signature[1..]));
    }

    #[test]
    fn a_url_outlives_its_job_by_less_than_a_second() {
        assert_eq!(last_second(Timestamp(1_000)), 1);
        assert_eq!(last_second(Timestamp(1_001)), 2);
    }
}
