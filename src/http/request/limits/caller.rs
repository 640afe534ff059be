//! Whose requests count together.

use std::net::{IpAddr, Ipv6Addr};

use actix_web::HttpRequest;

/// An API key or, where authentication is off, an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The key's hash.
    Key([u8; 32]),
    Address(IpAddr),
}

/// The network that a request comes from, which for IPv4 is one address.
pub(in super::super) fn address(request: &HttpRequest) -> IpAddr {
    network(exact_address(request))
}

/// The address that a request comes from. A connection from this machine may be a reverse proxy's, which writes its
/// client's address last into `X-Forwarded-For`. From another machine that header proves nothing.
pub(in super::super) fn exact_address(request: &HttpRequest) -> IpAddr {
    let peer = request.peer_addr().map_or(Ipv6Addr::UNSPECIFIED.into(), |peer| peer.ip().to_canonical());
    let forwarded = || {
        let header = request.headers().get_all("x-forwarded-for").last()?.to_str().ok()?;
        header.rsplit(',').next()?.trim().parse::<IpAddr>().ok()
    };
    if peer.is_loopback() { forwarded().unwrap_or(peer) } else { peer }
}

/// One subscriber has a whole /64 of IPv6 addresses, so they count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn seen(peer: &str, forwarded: Option<&str>) -> String {
        let mut request = TestRequest::default().peer_addr(peer.parse().unwrap());
        if let Some(forwarded) = forwarded {
            request = request.insert_header(("X-Forwarded-For", forwarded));
        }
        address(&request.to_http_request()).to_string()
    }

    #[test]
    fn the_forwarded_address_counts_only_from_this_machine() {
        assert_eq!(seen("203.0.113.7:1", None), "203.0.113.7");
        assert_eq!(seen("203.0.113.7:1", Some("198.51.100.1")), "203.0.113.7");
        assert_eq!(seen("127.0.0.1:1", Some("10.0.0.1, 198.51.100.1")), "198.51.100.1");
        assert_eq!(seen("[::ffff:127.0.0.1]:1", Some("198.51.100.1")), "198.51.100.1");
        assert_eq!(seen("127.0.0.1:1", Some("whoever")), "127.0.0.1");
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        assert_eq!(seen("[2001:db8:1:2:3:4:5:6]:1", None), "2001:db8:1:2::");
        assert_eq!(seen("[2001:db8:1:2::9]:1", None), "2001:db8:1:2::");
        assert_eq!(seen("[::ffff:203.0.113.7]:1", None), "203.0.113.7");
    }
}
