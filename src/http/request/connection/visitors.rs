//! How many connections each address has, so that one client cannot take all that the server accepts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::request::TrustedProxies;
use crate::http::request::limits::network;

/// The addresses with connections. Clones share them.
#[derive(Clone)]
pub struct Visitors {
    most: usize,
    proxies: TrustedProxies,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection, which counts until this is dropped.
pub struct Place(Option<(Visitors, IpAddr)>);

impl Visitors {
    /// `most`: connections of one address, or of one IPv6 network. Trusted proxies have many clients, and have no limit.
    pub fn new(most: usize, proxies: TrustedProxies) -> Self {
        Self { most, proxies, counts: Arc::default() }
    }

    /// Counts a connection. None: its address has enough.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        if self.proxies.contains(address.to_canonical()) {
            return Some(Place(None));
        }
        let network = network(address);
        let mut counts = self.counts();
        let count = counts.entry(network).or_insert(0);
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), network))))
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((visitors, network)) = self.0.take() else { return };
        let mut counts = visitors.counts();
        if let Some(count) = counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_a_trusted_proxy_any_number() {
        let visitors = Visitors::new(2, TrustedProxies::default());
        let enter = |address: &str| visitors.enter(address.parse().unwrap());
        let first = enter("2001:db8::1");
        let second = enter("2001:db8::2");
        assert!(first.is_some() && second.is_some() && enter("2001:db8::3").is_none());
        assert!(enter("203.0.113.7").is_some());
        drop(first);
        assert!(enter("2001:db8::3").is_some());
        let proxied: Vec<_> = (0..10).map(|_| enter("::ffff:127.0.0.1").unwrap()).collect();
        drop((proxied, second));
        assert!(visitors.counts().is_empty());
    }
}
