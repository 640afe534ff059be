//! Whose requests count together.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::HttpRequest;

use crate::http::request::proxies;

/// An API key or, where authentication is off, an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The key's hash.
    Key([u8; 32]),
    Address(IpAddr),
}

/// The network that a request comes from, which for IPv4 is one address.
pub(in super::super) fn address(request: &HttpRequest) -> IpAddr {
    network(proxies::client_address(request))
}

/// One subscriber has a whole /64 of IPv6 addresses, so they count as one.
pub(in crate::http) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let seen = |address: &str| network(address.parse().unwrap()).to_string();
        assert_eq!(seen("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(seen("2001:db8:1:2::9"), "2001:db8:1:2::");
        assert_eq!(seen("::ffff:203.0.113.7"), "203.0.113.7");
    }
}
