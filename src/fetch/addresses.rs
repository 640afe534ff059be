//! Which addresses clients' URLs may reach: public ones, and those that the operator allows.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What the operator allows besides public addresses: networks such as `10.1.2.0/24`, single addresses, and host names
/// such as `minio.internal` (with any address that they resolve to).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedAddresses {
    networks: Vec<IpNet>,
    hosts: Vec<String>,
}

impl AllowedAddresses {
    /// Whether a URL with this `host` may connect to `address`, one of the addresses of the host.
    pub(super) fn permit(&self, host: &str, address: IpAddr) -> bool {
        let address = unwrapped(address);
        is_public(address)
            || self.networks.iter().any(|network| network.contains(&address))
            || self.hosts.iter().any(|allowed| allowed == host)
    }
}

/// Reads a list separated by commas. The error is a sentence for the operator.
impl FromStr for AllowedAddresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut allowed = Self::default();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let network = item.parse().or_else(|_| item.parse::<IpAddr>().map(IpNet::from));
            match (network, url::Host::parse(item)) {
                (Ok(network), _) => allowed.networks.push(network),
                (_, Ok(url::Host::Domain(host))) => allowed.hosts.push(host),
                _ => {
                    return Err(format!(
                        "{item} is not a network such as 10.1.2.0/24, an address or a host name"
                    ));
                }
            }
        }
        Ok(allowed)
    }
}

impl fmt::Display for AllowedAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks = self.networks.iter().map(ToString::to_string);
        let items: Vec<String> = networks.chain(self.hosts.iter().cloned()).collect();
        f.write_str(&items.join(","))
    }
}

/// The IPv4 address inside an IPv6 address that is mapped or translated by NAT64 (RFC 6052); otherwise the address
/// itself. A network without IPv4 reaches the whole IPv4 Internet through NAT64.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if NAT64.contains(&v6) {
        let [.., a, b, c, d] = v6.octets();
        return Ipv4Addr::new(a, b, c, d).into();
    }
    v6.to_ipv4_mapped().map_or(address, IpAddr::V4)
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !SPECIAL_V4.iter().any(|network| network.contains(&v4)),
        IpAddr::V6(v6) => GLOBAL_V6.contains(&v6) && !SPECIAL_V6.iter().any(|network| network.contains(&v6)),
    }
}

/// Addresses outside the public Internet: IANA's registry of special-purpose addresses, multicast, reserved ranges.
const SPECIAL_V4: [Ipv4Net; 17] = [
    v4([0, 0, 0, 0], 8),        // this network
    v4([10, 0, 0, 0], 8),       // private
    v4([100, 64, 0, 0], 10),    // carrier-grade NAT, and some clouds' metadata
    v4([127, 0, 0, 0], 8),      // loopback
    v4([168, 63, 129, 16], 32), // Azure's metadata, at a public address
    v4([169, 254, 0, 0], 16),   // link-local, and most clouds' metadata
    v4([172, 16, 0, 0], 12),    // private
    v4([192, 0, 0, 0], 24),     // IETF protocols, and Oracle's metadata
    v4([192, 0, 2, 0], 24),     // documentation
    v4([192, 31, 196, 0], 24),  // AS112
    v4([192, 52, 193, 0], 24),  // AMT
    v4([192, 88, 99, 0], 24),   // 6to4 relays
    v4([192, 168, 0, 0], 16),   // private
    v4([198, 18, 0, 0], 15),    // benchmarks
    v4([198, 51, 100, 0], 24),  // documentation
    v4([203, 0, 113, 0], 24),   // documentation
    v4([224, 0, 0, 0], 3),      // multicast, reserved, broadcast
];

/// All IPv6 addresses assigned so far. Loopback, unique-local, link-local and multicast lie outside.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0], 3);
const SPECIAL_V6: [Ipv6Net; 4] = [
    v6([0x2001, 0, 0], 23),      // IETF protocols: Teredo, benchmarks, ORCHID
    v6([0x2001, 0x0db8, 0], 32), // documentation
    v6([0x2002, 0, 0], 16),      // 6to4: obsolete, and it can hide any IPv4 address
    v6([0x3fff, 0, 0], 20),      // documentation
];
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6([a, b, c]: [u16; 3], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(allowed: &str, address: &str) -> bool {
        allowed.parse::<AllowedAddresses>().unwrap().permit("host.example", address.parse().unwrap())
    }

    #[test]
    fn public_addresses_are_permitted() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(permitted("", address), "{address}");
        }
    }

    #[test]
    fn every_special_address_is_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.0.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::10.0.0.1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:101:101::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!permitted("", address), "{address}");
        }
    }

    #[test]
    fn the_operator_can_allow_networks_addresses_and_hosts() {
        let allowed = "127.0.0.0/8, 10.1.2.3 ,::1,fd00::/8";
        for address in ["127.1.2.3", "10.1.2.3", "::1", "fd00::7", "::ffff:127.0.0.1", "1.1.1.1"] {
            assert!(permitted(allowed, address), "{address}");
        }
        for address in ["10.1.2.4", "192.168.0.1", "fe80::1"] {
            assert!(!permitted(allowed, address), "{address}");
        }
        let hosts: AllowedAddresses = "Minio.Internal".parse().unwrap();
        assert!(hosts.permit("minio.internal", "10.9.9.9".parse().unwrap()));
        assert!(!hosts.permit("other.internal", "10.9.9.9".parse().unwrap()));
    }

    #[test]
    fn a_wrong_item_is_named() {
        for (text, item) in [("10.0.0.0/33", "10.0.0.0/33"), ("127.1,a b", "127.1"), ("http://a", "http://a")]
        {
            let error = text.parse::<AllowedAddresses>().unwrap_err();
            assert_eq!(
                error,
                format!("{item} is not a network such as 10.1.2.0/24, an address or a host name")
            );
        }
    }

    #[test]
    fn the_text_form_reads_back() {
        let text = "10.1.2.0/24,::1/128,minio.internal";
        assert_eq!(text.parse::<AllowedAddresses>().unwrap().to_string(), text);
    }
}
