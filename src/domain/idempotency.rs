//! What makes two requests the same one.

use sha2::{Digest, Sha256};

use super::EndpointId;

/// A request that its client may repeat without having its work done twice. It holds hashes only: what is
/// hashed includes the client's own key, so nobody without that can tell a body by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idempotency {
    /// Of whom, which endpoint and which `Idempotency-Key`.
    pub key: [u8; 32],
    /// Of all those and the body.
    pub request: [u8; 32],
}

/// What is wrong with an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key should be 1 to {max} visible ASCII characters.", max = Idempotency::MAX_LENGTH)]
pub struct BadIdempotencyKey;

impl Idempotency {
    /// The longest `Idempotency-Key`, in characters.
    pub const MAX_LENGTH: usize = 255;

    /// `caller`: by what the API key is known, nothing where everybody is let in. `key`: the header's value.
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
            // Each behind its length, so that no two lists of parts read alike.
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
    fn who_where_and_under_which_key_all_count() {
        let of = |caller: &str, endpoint: &str, key: &str| {
            Idempotency::new(caller.as_bytes(), &EndpointId::new(endpoint), key.as_bytes(), b"{}").unwrap()
        };
        let all =
            [of("a", "b", "c"), of("b", "b", "c"), of("a", "c", "c"), of("a", "b", "d"), of("ab", "c", "c")];
        for (i, one) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|other| other.key != one.key && other.request != one.request));
        }
        assert_eq!(of("a", "b", "c"), all[0]);
    }

    #[test]
    fn a_key_is_visible_ascii_and_bounded() {
        let new = |key: &str| Idempotency::new(b"", &EndpointId::default(), key.as_bytes(), b"");
        assert!(new(&"k".repeat(255)).is_ok() && new("~!\"").is_ok());
        for bad in ["", "two words", "tab\t", "é", &"k".repeat(256)] {
            assert_eq!(new(bad), Err(BadIdempotencyKey), "{bad}");
        }
    }
}
