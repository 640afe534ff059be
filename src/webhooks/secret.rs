//! The secret that signs webhooks, and the signature, as Standard Webhooks has them
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The bounds of the specification, in bytes.
const MIN_BYTES: usize = 24;
const MAX_BYTES: usize = 64;

/// A key of 24 to 64 bytes, written `whsec_` and base64.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    pub const PREFIX: &str = "whsec_";

    /// The value of `webhook-signature`: over the message's name, its time in seconds, and its body.
    pub fn sign(&self, name: &str, timestamp: i64, body: &str) -> String {
        // At most SHA-256's block of 64 bytes, which HMAC takes as it is, with zeros behind (RFC 2104).
        let mut block = [0; 64];
        for (byte, key) in block.iter_mut().zip(&self.0) {
            *byte = *key;
        }
        let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
        mac.update(format!("{name}.{timestamp}.").as_bytes());
        mac.update(body.as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The error is a sentence for the operator, and repeats nothing of the secret.
impl FromStr for WebhookSecret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = text.strip_prefix(Self::PREFIX).and_then(|base64| STANDARD.decode(base64).ok());
        let bytes = bytes.filter(|bytes| (MIN_BYTES..=MAX_BYTES).contains(&bytes.len()));
        bytes.map(Self).ok_or_else(|| {
            format!("it should be {} and the base64 of {MIN_BYTES} to {MAX_BYTES} random bytes", Self::PREFIX)
        })
    }
}

/// Never the secret.
impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn a_signature_is_the_one_that_their_libraries_make() {
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn what_is_no_secret_is_refused_without_repeating_it() {
        for text in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ=", "whsec_%%%"] {
            let error = text.parse::<WebhookSecret>().unwrap_err();
            assert_eq!(error, "it should be whsec_ and the base64 of 24 to 64 random bytes");
        }
        let secret: WebhookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "WebhookSecret");
    }
}
