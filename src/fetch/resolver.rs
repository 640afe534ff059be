//! Names to addresses, each checked: what comes out of here is all that is ever connected to.

use std::fmt;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::AllowedAddresses;

/// Looks a name up once, checks all it resolves to, and passes on those very addresses: a second answer,
/// as a DNS server that rebinds would give, is never asked for.
#[derive(Debug)]
pub struct CheckedResolver<R> {
    pub lookup: R,
    pub allowed: AllowedAddresses,
}

/// Found inside a [`ureq::Error`] where an address was refused.
#[derive(Debug)]
pub struct NotPublic;

impl<R: Resolver> Resolver for CheckedResolver<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.lookup.resolve(uri, config, timeout).map_err(|error| match error {
            Error::Io(_) => Error::HostNotFound, // what the system's lookup says of names it does not know
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
