//! Looks host names up and checks every address. `fetch` connects to no other address.

use std::fmt;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::AllowedAddresses;

/// Looks a name up once and checks all its addresses. The connection uses exactly these addresses, so a DNS server
/// cannot give another answer after the check (DNS rebinding).
#[derive(Debug)]
pub struct CheckedResolver<R> {
    pub lookup: R,
    pub allowed: AllowedAddresses,
}

/// The cause inside a [`ureq::Error`] when an address was refused.
#[derive(Debug)]
struct NotPublic;

/// Whether a call failed because an address was refused.
pub fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Other(inner) if inner.is::<NotPublic>())
}

impl<R: Resolver> Resolver for CheckedResolver<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.lookup.resolve(uri, config, timeout).map_err(|error| match error {
            Error::Io(_) => Error::HostNotFound, // the system's answer for unknown names
            error => error,
        })?;
        let host = uri.host().unwrap_or_default();
        if found.iter().all(|address| self.allowed.permit(host, address.ip())) {
            return Ok(found);
        }
        Err(Error::Other(Box::new(NotPublic)))
    }
}

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address is not public")
    }
}

impl std::error::Error for NotPublic {}
