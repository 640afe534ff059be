//! How many connections each address has, so that one client cannot take all that the server accepts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::request::TrustedProxies;
use crate::http::request::limits::network;

/// The addresses with connections. Clones share them.
#[derive(Clone)]
pub struct Visitors {
    /// Connections in all.
    most: usize,
    most_of_one: usize,
    proxies: TrustedProxies,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    all: usize,
    /// By network. Those of trusted proxies are not counted.
    of_one: HashMap<IpAddr, usize>,
}

/// One connection, which counts until this is dropped.
pub struct Place {
    visitors: Visitors,
    network: Option<IpAddr>,
}

impl Visitors {
    /// `most`: connections that the server takes at once. `most_of_one`: connections of one address, or of one IPv6 network.
    /// Trusted proxies have many clients, and have no limit of their own.
    pub fn new(most: usize, most_of_one: usize, proxies: TrustedProxies) -> Self {
        Self { most, most_of_one, proxies, open: Arc::default() }
    }

    /// Counts a connection. None: its address has enough.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let network = self.counted(address);
        let mut open = self.open();
        if let Some(network) = network {
            let count = open.of_one.entry(network).or_insert(0);
            if *count >= self.most_of_one {
                return None;
            }
            *count += 1;
        }
        open.all += 1;
        Some(Place { visitors: self.clone(), network })
    }

    /// Whether a connection from this address would be taken now.
    pub fn has_place_for(&self, address: IpAddr) -> bool {
        let network = self.counted(address);
        let open = self.open();
        let of_one = network.and_then(|network| open.of_one.get(&network)).copied().unwrap_or_default();
        open.all < self.most && of_one < self.most_of_one
    }

    /// Whose connections are counted together; none if they have no limit.
    fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        (!self.proxies.contains(address.to_canonical())).then(|| network(address))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.visitors.open();
        open.all -= 1;
        let Some(network) = self.network else { return };
        if let Some(count) = open.of_one.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.of_one.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_a_trusted_proxy_any_number() {
        let visitors = Visitors::new(12, 2, TrustedProxies::default());
        let enter = |address: &str| visitors.enter(address.parse().unwrap());
        let first = enter("2001:db8::1");
        let second = enter("2001:db8::2");
        assert!(first.is_some() && second.is_some() && enter("2001:db8::3").is_none());
        assert!(enter("203.0.113.7").is_some());
        drop(first);
        assert!(enter("2001:db8::3").is_some());
        let has_place = |address: &str| visitors.has_place_for(address.parse().unwrap());
        let proxied: Vec<_> = (0..10).map(|_| enter("::ffff:127.0.0.1").unwrap()).collect();
        assert!(has_place("203.0.113.7"));
        let last = enter("203.0.113.7");
        assert!(!has_place("203.0.113.8") && !has_place("127.0.0.1"), "the server is full");
        drop((proxied, second, last));
        assert!(visitors.open().of_one.is_empty());
        assert_eq!(visitors.open().all, 0);
    }
}
