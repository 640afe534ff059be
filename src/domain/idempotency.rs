//! Idempotency keys: what makes two requests the same.

use sha2::{Digest, Sha256};

use super::EndpointId;

/// The identity of a request that the client may repeat without a second job. It holds only hashes. They include the
/// client's key, so nobody without the key can find a body by guessing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// The hash of the caller, the endpoint and the `Idempotency-Key`.
    pub key: [u8; 32],
    /// The hash of all these and the body.
    pub request: [u8; 32],
}

/// An invalid `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key should be 1 to {max} visible ASCII characters.", max = Idempotency::MAX_LENGTH)]
pub struct BadIdempotencyKey;

impl Idempotency {
    /// The longest `Idempotency-Key`, in characters.
    pub const MAX_LENGTH: usize = 255;

    /// `caller` identifies the API key; it is empty if no keys are used. `key` is the value of the header.
    pub fn new(
        caller: &[u8],
        endpoint: &EndpointId,
        key: &[u8],
        body: &[u8],
    ) -> Result<Self, BadIdempotencyKey> {
        if !(1..=Self::MAX_LENGTH).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
            return Err(BadIdempotencyKey);
        }
        let mut hash = Sha256::new();
        for part in [b"stablehand idempotency v1", caller, endpoint.as_str().as_bytes(), key] {
            // Each part follows its length, so that two different lists of parts never give the same bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let key = hash.clone().finalize().into();
        hash.update(body);
        Ok(Self { key, request: hash.finalize().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_endpoint_and_key_all_count() {
        let new = |caller: &str, endpoint: &str, key: &str| {
            Idempotency::new(caller.as_bytes(), &EndpointId::new(endpoint), key.as_bytes(), b"{}").unwrap()
        };
        let all = [
            new("a", "b", "c"),
            new("b", "b", "c"),
            new("a", "c", "c"),
            new("a", "b", "d"),
            new("ab", "c", "c"),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other.key != one.key && other.request != one.request));
        }
        assert_eq!(new("a", "b", "c"), all[0]);
    }

    #[test]
    fn a_key_is_visible_ascii_of_limited_length() {
        let new = |key: &str| Idempotency::new(b"", &EndpointId::default(), key.as_bytes(), b"");
        assert!(new(&"k".repeat(255)).is_ok() && new("~!\"").is_ok());
        for bad in ["", "two words", "tab\t", "é", &"k".repeat(256)] {
            assert_eq!(new(bad), Err(BadIdempotencyKey), "{bad}");
        }
    }
}
