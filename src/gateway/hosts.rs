//! Hosts for which more is done than to let requests pass: the part of it that is a decision.
//!
//! | a host with | its requests | |
//! |---|---|---|
//! | `upgrade` | leave over verified TLS | `http://host/` to port 443, `http://host:N/` to port N |
//! | a credential | the same, with the credential | only where an answer of ours gave the address for the name |
//! | a handler | go to a socket of the operator's | the name need not exist: it has an address that leads nowhere else |
//!
//! A host that is upgraded is allowed on port 80, and on 443 when its TLS is opened: what it is there for. Any other port
//! takes a rule. A handler's host is allowed on every port, as long as HTTP is spoken there, or TLS that is opened: it
//! has no server that could have others. `deny` wins here too.
//!
//! Said to an address that is not its own such a name is refused, whatever else would let the connection pass: a
//! resolver of its own must not lead a sandbox past the handler, or out in clear. A gateway that begins anew knows no
//! answers of the one before: what went to such a host by an address from then asks once more. Kept across gateways,
//! answers would be one more thing that a gateway which was taken over could leave behind for the next.

use std::net::{IpAddr, Ipv4Addr};

use sha2::{Digest as _, Sha256};

use super::policy::{Spoken, Way};
use super::rule;
use crate::wire::gateway::{Host, Policy};

/// Where handlers seem to be: 198.18.0.0/15, which nobody routes (RFC 2544 §C.2.2).
const HANDLERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const HANDLERS_BITS: u32 = 0x1_ffff;

/// The port that plain HTTP is spoken on, and the one that it becomes.
const PLAIN: u16 = 80;
const SECURE: u16 = 443;

impl Host {
    /// Whether its plain requests leave over TLS. One with a credential is never spoken to in clear.
    pub fn is_upgraded(&self) -> bool {
        self.upgrade || self.credential.is_some()
    }
}

/// What the policy says about this very name.
pub fn find<'a>(policy: &'a Policy, name: &str) -> Option<&'a Host> {
    policy.hosts.iter().find(|host| host.name == name)
}

/// The host of the policy that a connection or request is for, if it went to an address of that host's.
pub fn meant<'a>(policy: &'a Policy, way: &Way<'_>, name: Option<&str>) -> Option<&'a Host> {
    let host = find(policy, name?)?;
    let there = match &host.handler {
        Some(_) => way.address == address(&host.name),
        None => way.pinned.contains(&host.name),
    };
    there.then_some(host)
}

/// The host of the policy whose name is said to an address that is not that host's.
pub fn misled<'a>(policy: &'a Policy, way: &Way<'_>, name: Option<&str>) -> Option<&'a Host> {
    let host = find(policy, name?)?;
    meant(policy, way, name).is_none().then_some(host)
}

/// The address that a handler's host has inside: always the same, so that nothing is to be remembered. Two names may
/// have the same; which one is meant, the request says.
pub fn address(name: &str) -> Ipv4Addr {
    let digest = Sha256::digest(name.as_bytes());
    let spread = u32::from_be_bytes([0, digest[0], digest[1], digest[2]]) & HANDLERS_BITS;
    Ipv4Addr::from(u32::from(HANDLERS) | spread.clamp(1, HANDLERS_BITS - 1))
}

/// Whether a handler's host has this address.
pub fn leads_to_socket(policy: &Policy, ip: IpAddr) -> bool {
    let within = matches!(ip, IpAddr::V4(v4) if u32::from(v4) & !HANDLERS_BITS == u32::from(HANDLERS));
    within && policy.hosts.iter().any(|host| host.handler.is_some() && ip == address(&host.name))
}

/// Whether the TLS of a name is opened.
pub fn is_opened(policy: &Policy, name: &str) -> bool {
    policy.intercept.iter().any(|pattern| pattern == "*" || rule::matches(pattern, name))
}

/// Why TLS passes by what is to be opened: it says no name where all is opened, or, at the address of a name that is
/// opened, none or one that was not asked for.
pub fn evades(policy: &Policy, way: &Way<'_>, name: Option<&str>) -> Option<String> {
    if name.is_some_and(|name| is_opened(policy, name) || way.pinned.iter().any(|pinned| pinned == name)) {
        return None;
    }
    if name.is_none() && policy.intercept.iter().any(|pattern| pattern == "*") {
        return Some("intercept *: TLS that says no name cannot be opened".to_owned());
    }
    let opened = way.pinned.iter().find(|pinned| is_opened(policy, pinned))?;
    let what = name.map_or_else(|| "no name".to_owned(), |name| format!("another name, {name},"));
    Some(format!("intercept: TLS to the address of {opened} says {what} and cannot be opened"))
}

/// The port outside of what goes to this port of an upgraded host.
pub fn port_outside(port: u16) -> u16 {
    if port == PLAIN { SECURE } else { port }
}

/// Whether a host of the policy, by being there, allows what is spoken on this port.
pub fn allows(policy: &Policy, host: &Host, spoken: Spoken, port: u16) -> bool {
    match spoken {
        Spoken::Http => host.is_upgraded() && port == PLAIN,
        Spoken::Tls => port == SECURE && is_opened(policy, &host.name),
        Spoken::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_have_addresses_of_their_own_range() {
        for name in ["a", "api.internal", "x.test", "ok.example.com"] {
            let found = address(name);
            assert_eq!(found.octets()[0], 198, "{found}");
            assert_eq!(found.octets()[1] & 0xfe, 18, "{found}");
            assert_eq!(found, address(name));
            assert!(
                super::super::address::closed(found.into()).is_some(),
                "{found} would leave without a handler"
            );
        }
    }
}
