//! Which addresses a sandbox may reach without an operator's word: those of the public internet, and not the host's.
//!
//! An address has one form here: IPv4 that is wrapped in IPv6 is IPv4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::rule;
use crate::wire::gateway::Network;

/// The one form of an address.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Ranges that are not for everybody (IANA, IPv4 Special-Purpose Address Registry), and what clouds hide behind an
/// ordinary address.
const CLOSED_V4: [(Ipv4Addr, u8, &str); 18] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared by a carrier"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local, metadata of clouds"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "for protocols"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "documentation"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "6to4 relays"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "benchmarks"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "documentation"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "documentation"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved"),
    // Azure's host agent.
    (Ipv4Addr::new(168, 63, 129, 16), 32, "metadata of a cloud"),
    (Ipv4Addr::new(192, 31, 196, 0), 24, "AS112"),
    (Ipv4Addr::new(192, 175, 48, 0), 24, "AS112"),
];

/// Of 2000::/3, outside of which nothing is public.
const CLOSED_V6: [(Ipv6Addr, u8, &str); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "for protocols, Teredo"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "documentation"),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "6to4, which wraps other addresses"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "documentation"),
];

/// Why an address is closed; `None` when it is public.
pub fn closed(address: IpAddr) -> Option<&'static str> {
    let within = |first: IpAddr, prefix| rule::contains(&Network { address: first, prefix }, address);
    match address {
        IpAddr::V4(_) => {
            CLOSED_V4.iter().find(|(first, prefix, _)| within((*first).into(), *prefix)).map(|found| found.2)
        }
        IpAddr::V6(v6) if v6.segments()[0] & 0xe000 != 0x2000 => Some("not public"),
        IpAddr::V6(_) => {
            CLOSED_V6.iter().find(|(first, prefix, _)| within((*first).into(), *prefix)).map(|found| found.2)
        }
    }
}

/// Whether an address is one of the host's own, whatever it looks like: then the kernel answers from the address
/// itself. A host that cannot tell has no way there either.
pub fn is_hosts_own(address: IpAddr) -> bool {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Connecting a datagram socket sends nothing: it looks up the route. The port is of no matter.
    let source = || -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((address, 9))?;
        socket.local_addr()
    };
    source().is_ok_and(|source| canonical(source.ip()) == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_public_internet_is_open() {
        for closed_one in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "169.254.170.2",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "::127.0.0.1",
            "100::1",
            "4000::1",
        ] {
            assert!(closed(closed_one.parse().expect("address")).is_some(), "{closed_one}");
        }
        for open in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"] {
            assert!(closed(open.parse().expect("address")).is_none(), "{open}");
        }
        let wrapped: IpAddr = "::ffff:127.0.0.1".parse().expect("address");
        assert_eq!(canonical(wrapped), IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn the_hosts_own_addresses_are_known() {
        assert!(is_hosts_own([127, 0, 0, 1].into()));
        assert!(!is_hosts_own([198, 51, 100, 7].into()));
    }
}
