//! Signed URLs: each opens one picture, or the events of one job, without a key and until it expires.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::{EndpointId, ImagePlace, ImageRef, Job, JobId, JobOutline, Timestamp};

/// What a signed URL gives access to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedResource<'a> {
    /// The job's picture with this index.
    Image(u32),
    /// The same picture, enlarged or encoded as this name says.
    FinishedImage(u32, &'a str),
    /// The job's events.
    Events,
}

/// Signs and checks URLs with a key that never leaves the data folder.
#[derive(Clone)]
pub struct UrlSigner(
    /// The key, padded with zeros to the block size of SHA-256 as HMAC requires (RFC 2104, section 2).
    [u8; 64],
);

impl UrlSigner {
    pub fn new(key: [u8; 32]) -> Self {
        let mut block = [0; 64];
        block[..32].copy_from_slice(&key);
        Self(block)
    }

    fn sign(&self, resource: SignedResource<'_>, endpoint: &EndpointId, id: &JobId, expires: i64) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(resource, endpoint, id, expires).finalize().into_bytes())
    }

    /// Whether we made `signature` for exactly these values. Compares in constant time.
    pub fn verifies(
        &self,
        resource: SignedResource<'_>,
        endpoint: &EndpointId,
        id: &JobId,
        expires: i64,
        signature: &str,
    ) -> bool {
        URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|bytes| self.mac(resource, endpoint, id, expires).verify_slice(&bytes).is_ok())
    }

    /// Each value is preceded by its length, so that no two lists of values sign the same bytes.
    fn mac(
        &self,
        resource: SignedResource<'_>,
        endpoint: &EndpointId,
        id: &JobId,
        expires: i64,
    ) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&self.0.into());
        let (kind, index, finish): (&[u8], u32, Option<&str>) = match resource {
            SignedResource::Image(index) => (b"stablehand image v1", index, None),
            SignedResource::FinishedImage(index, finish) => {
                (b"stablehand finished image v1", index, Some(finish))
            }
            SignedResource::Events => (b"stablehand events v1", 0, None),
        };
        let values: [&[u8]; 5] = [
            kind,
            endpoint.as_str().as_bytes(),
            id.as_str().as_bytes(),
            &index.to_be_bytes(),
            &expires.to_be_bytes(),
        ];
        for value in values.into_iter().chain(finish.map(str::as_bytes)) {
            mac.update(&(value.len() as u64).to_be_bytes());
            mac.update(value);
        }
        mac
    }
}

/// Makes the URLs of one answer, all with the same base.
pub struct JobUrls<'a> {
    /// Such as `https://pictures.example`, without a trailing slash.
    pub base: &'a str,
    pub signer: &'a UrlSigner,
}

impl JobUrls<'_> {
    /// The URL of a picture: on this server until the job is deleted, or in the client's bucket. `None` if the
    /// picture is withheld.
    pub fn image(&self, job: &Job, image: &ImageRef) -> Option<String> {
        self.url(&job.endpoint, &job.id, job.expires_at, image)
    }

    /// The same for a job of which only the outline is read.
    pub fn outline_image(&self, job: &JobOutline, image: &ImageRef) -> Option<String> {
        self.url(&job.endpoint, &job.id, job.expires_at, image)
    }

    /// The URL of a job's events. It accepts listeners until `expires`, in seconds since the epoch.
    pub fn events(&self, endpoint: &EndpointId, id: &JobId, expires: i64) -> String {
        let signature = self.signer.sign(SignedResource::Events, endpoint, id, expires);
        let base = self.base;
        format!("{base}/v2/{endpoint}/events/{id}?expires={expires}&signature={signature}")
    }

    /// The URL of a picture on this server that is enlarged or encoded as `finish` says.
    pub fn finished_image(&self, job: &JobOutline, image: &ImageRef, finish: &str) -> Option<String> {
        self.finished(&job.endpoint, &job.id, job.expires_at, image, finish)
    }

    /// The same for a whole job. In a client's bucket, the picture is as it was drawn.
    pub fn finished_for(&self, job: &Job, image: &ImageRef, finish: &str) -> Option<String> {
        self.finished(&job.endpoint, &job.id, job.expires_at, image, finish)
            .or_else(|| self.image(job, image))
    }

    fn finished(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        expires_at: Timestamp,
        image: &ImageRef,
        finish: &str,
    ) -> Option<String> {
        if image.place != ImagePlace::Here {
            return None;
        }
        let (base, index, expires) = (self.base, image.index, last_second(expires_at));
        let signature = self.signer.sign(SignedResource::FinishedImage(index, finish), endpoint, id, expires);
        Some(format!(
            "{base}/v2/{endpoint}/images/{id}/{index}/{finish}?expires={expires}&signature={signature}"
        ))
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
        let signature = self.signer.sign(SignedResource::Image(index), endpoint, id, expires);
        let base = self.base;
        Some(format!("{base}/v2/{endpoint}/images/{id}/{index}.png?expires={expires}&signature={signature}"))
    }
}

/// The expiry in whole seconds, rounded up; within that second the job's row decides.
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
        let first = SignedResource::Image(0);
        let signature = signer.sign(first, &endpoint, &id, 100);
        assert!(signer.verifies(first, &endpoint, &id, 100, &signature));
        assert!(!signer.verifies(SignedResource::Image(1), &endpoint, &id, 100, &signature));
        assert!(!signer.verifies(SignedResource::Events, &endpoint, &id, 100, &signature));
        for finish in ["", "drawn-q90.jpeg"] {
            let finished = SignedResource::FinishedImage(0, finish);
            assert!(!signer.verifies(finished, &endpoint, &id, 100, &signature));
            let signature = signer.sign(finished, &endpoint, &id, 100);
            assert!(signer.verifies(finished, &endpoint, &id, 100, &signature));
            let larger = SignedResource::FinishedImage(0, "4096x4096-q90.jpeg");
            assert!(!signer.verifies(larger, &endpoint, &id, 100, &signature));
        }
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
