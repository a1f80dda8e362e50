//! A sandbox's way out: everything that it sends to elsewhere ends at sockets that the gateway holds.
//!
//! ```text
//! launcher ─ clone ─▶ enters the sandbox's user and network namespaces by its agent's pidfd
//!                     sockets on loopback                               1
//!                     nftables: redirect streams and questions there,
//!                     drop all else that is not for loopback            2
//!                     route: every address is local                     3
//!          ◀─ sockets ─ and ends
//! ```
//!
//! Before 3 nothing has a route but loopback; the order means that no packet finds a route without the rules, nor
//! the rules without the sockets. No interface leads out of the namespace, then or ever: what the gateway does not
//! forward goes nowhere. Doing it again replaces sockets and rules, for a launcher that took over from another.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink};
use rustix::thread::ThreadNameSpaceType;

use super::inside::{self, failed};
use crate::sys::Errno;
use crate::sys::netlink::{APPEND, Attributes, CREATE, Messages};
use crate::wire::launch::Failure;

/// Our table in the sandbox's namespace.
const TABLE: &str = "stockade";

/// Connections that wait while no gateway runs, or it is busy. More are not answered until it has taken some.
const BACKLOG: i32 = 1024;

/// Prepares the network namespace of the sandbox with this agent. Gives the sockets to which everything is led:
/// streams, questions for names, and, where the host has IPv6, its streams.
///
/// # Errors
/// The first step that failed; the sandbox then still has loopback and nothing else.
pub fn prepare(agent: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Failure> {
    inside::run("prepare the network", || prepare_inside(agent))
}

/// In the clone.
fn prepare_inside(agent: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Failure> {
    let kinds = ThreadNameSpaceType::USER | ThreadNameSpaceType::NETWORK;
    rustix::thread::move_into_thread_name_spaces(agent, kinds)
        .map_err(failed("enter the sandbox's network"))?;
    let any = |address: std::net::IpAddr| SocketAddr::new(address, 0);
    let (streams, port) = bound(SocketType::STREAM, any(Ipv4Addr::LOCALHOST.into()))
        .map_err(failed("listen in the sandbox's network"))?;
    let (questions, question_port) = bound(SocketType::DGRAM, any(Ipv4Addr::LOCALHOST.into()))
        .map_err(failed("listen for questions in the sandbox's network"))?;
    redirect(&Family::V4, port, Some(question_port)).map_err(failed("add rules to the sandbox's network"))?;
    route(&Family::V4).map_err(failed("add a route to the sandbox's network"))?;
    let mut sockets = vec![streams, questions];
    // A host without IPv6, or without its NAT, has sandboxes without it: they have no route.
    let v6 = bound(SocketType::STREAM, any(Ipv6Addr::LOCALHOST.into())).and_then(|(streams, port)| {
        redirect(&Family::V6, port, None)?;
        route(&Family::V6)?;
        Ok(streams)
    });
    sockets.extend(v6.ok());
    Ok(sockets)
}

/// A socket on a port of the kernel's choice.
fn bound(kind: SocketType, address: SocketAddr) -> Result<(OwnedFd, u16), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    rustix::net::bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let name = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, name.port()))
}

/// What differs between the two.
struct Family {
    /// `AF_INET` and `AF_INET6`, which nf_tables calls `ip` and `ip6`.
    number: u8,
    /// Where the header has the destination.
    destination: u32,
    /// Its bytes when it is loopback: the first of 127.0.0.0/8, all of ::1.
    loopback: &'static [u8],
    /// The source of whatever goes to elsewhere.
    source: &'static [u8],
}

impl Family {
    const V4: Self = Self { number: 2, destination: 16, loopback: &[127], source: &[127, 0, 0, 1] };
    const V6: Self = Self {
        number: 10,
        destination: 24,
        loopback: &Ipv6Addr::LOCALHOST.octets(),
        source: &Ipv6Addr::LOCALHOST.octets(),
    };
}

/// `ip route add local default dev lo src LOOPBACK` (linux/rtnetlink.h).
fn route(family: &Family) -> Result<(), Errno> {
    const NEW_ROUTE: u16 = 24;
    const TABLE_LOCAL: u8 = 255;
    const STATIC: u8 = 4;
    const SCOPE_HOST: u8 = 254;
    const LOCAL: u8 = 2;
    const OUT_INTERFACE: u16 = 4;
    const PREFERRED_SOURCE: u16 = 7;
    /// The first of every namespace.
    const LOOPBACK: u32 = 1;
    let head = [family.number, 0, 0, 0, TABLE_LOCAL, STATIC, SCOPE_HOST, LOCAL, 0, 0, 0, 0];
    let mut messages = Messages::default();
    messages.add(NEW_ROUTE, CREATE, &head, |attributes| {
        attributes.bytes(OUT_INTERFACE, &LOOPBACK.to_ne_bytes()).bytes(PREFERRED_SOURCE, family.source);
    });
    match messages.exchange(None) {
        // From a launcher before this one.
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// linux/netfilter/nf_tables.h
mod nft {
    pub(super) const SUBSYSTEM: u16 = 10;
    pub(super) const BEGIN: u16 = 16;
    pub(super) const END: u16 = 17;
    pub(super) const NEW_TABLE: u16 = SUBSYSTEM << 8;
    pub(super) const DELETE_TABLE: u16 = (SUBSYSTEM << 8) | 2;
    pub(super) const NEW_CHAIN: u16 = (SUBSYSTEM << 8) | 3;
    pub(super) const NEW_RULE: u16 = (SUBSYSTEM << 8) | 6;
    /// `NF_INET_LOCAL_OUT`
    pub(super) const OUTPUT: u32 = 3;
    pub(super) const EQUAL: u32 = 0;
    pub(super) const NOT_EQUAL: u32 = 1;
    pub(super) const REGISTER: u32 = 1;
    /// `NFT_META_L4PROTO`
    pub(super) const PROTOCOL: u32 = 16;
    pub(super) const NETWORK_HEADER: u32 = 1;
    pub(super) const TRANSPORT_HEADER: u32 = 2;
    pub(super) const DROP: i32 = 0;
    pub(super) const RETURN: i32 = -5;
}

const TCP: u8 = 6;
const UDP: u8 = 17;
/// The port of name servers.
const DOMAIN: u16 = 53;

/// Two chains: `way` leads streams to `port` and questions to theirs; `wall` drops what is left and not for
/// loopback, so that sending it fails at once (EPERM).
fn redirect(family: &Family, port: u16, questions: Option<u16>) -> Result<(), Errno> {
    let table = |attributes: &mut Attributes<'_>| {
        attributes.text(1, TABLE);
    };
    let head = [family.number, 0, 0, 0];
    let brackets = [0, 0, 0, 10];
    let mut messages = Messages::default();
    messages.mark(nft::BEGIN, &brackets);
    // Made, so that removing it cannot fail; removed, so that it is empty; made.
    messages.add(nft::NEW_TABLE, CREATE, &head, table);
    messages.add(nft::DELETE_TABLE, 0, &head, table);
    messages.add(nft::NEW_TABLE, CREATE, &head, table);
    for (name, kind, priority) in [("way", "nat", -100_i32), ("wall", "filter", 0)] {
        messages.add(nft::NEW_CHAIN, CREATE, &head, |attributes| {
            attributes.text(1, TABLE).text(3, name).text(7, kind).nested(4, |hook| {
                hook.number(1, nft::OUTPUT).bytes(2, &priority.to_be_bytes());
            });
        });
    }
    let mut rule = |chain: &str, expressions: &dyn Fn(&mut Attributes<'_>)| {
        messages.add(nft::NEW_RULE, CREATE | APPEND, &head, |attributes| {
            attributes.text(1, TABLE).text(2, chain).nested(4, |list| expressions(list));
        });
    };
    // Questions go to the gateway wherever they are sent: names that something else answered would be pinned nowhere.
    if let Some(questions) = questions {
        rule("way", &|list| {
            protocol_is(list, UDP);
            port_is(list, DOMAIN);
            redirect_to(list, questions);
        });
    }
    rule("way", &|list| {
        protocol_is(list, TCP);
        port_is(list, DOMAIN);
        redirect_to(list, port);
    });
    rule("way", &|list| {
        destination(list, family, nft::EQUAL);
        verdict(list, nft::RETURN);
    });
    rule("way", &|list| {
        protocol_is(list, TCP);
        redirect_to(list, port);
    });
    rule("wall", &|list| {
        destination(list, family, nft::NOT_EQUAL);
        verdict(list, nft::DROP);
    });
    messages.mark(nft::END, &brackets);
    messages.exchange(Some(netlink::NETFILTER))
}

fn expression(list: &mut Attributes<'_>, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
    list.nested(1, |element| {
        element.text(1, name).nested(2, fill);
    });
}

fn compare(list: &mut Attributes<'_>, operation: u32, value: &[u8]) {
    expression(list, "cmp", |data| {
        data.number(1, nft::REGISTER).number(2, operation).nested(3, |inside| {
            inside.bytes(1, value);
        });
    });
}

fn load(list: &mut Attributes<'_>, base: u32, offset: u32, length: usize) {
    expression(list, "payload", |data| {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        data.number(1, nft::REGISTER).number(2, base).number(3, offset).number(4, length);
    });
}

fn protocol_is(list: &mut Attributes<'_>, protocol: u8) {
    expression(list, "meta", |data| {
        data.number(1, nft::REGISTER).number(2, nft::PROTOCOL);
    });
    compare(list, nft::EQUAL, &[protocol]);
}

fn port_is(list: &mut Attributes<'_>, port: u16) {
    load(list, nft::TRANSPORT_HEADER, 2, 2);
    compare(list, nft::EQUAL, &port.to_be_bytes());
}

fn destination(list: &mut Attributes<'_>, family: &Family, operation: u32) {
    load(list, nft::NETWORK_HEADER, family.destination, family.loopback.len());
    compare(list, operation, family.loopback);
}

fn verdict(list: &mut Attributes<'_>, code: i32) {
    expression(list, "immediate", |data| {
        data.number(1, 0).nested(2, |inside| {
            inside.nested(2, |verdict| {
                verdict.bytes(1, &code.to_be_bytes());
            });
        });
    });
}

fn redirect_to(list: &mut Attributes<'_>, port: u16) {
    expression(list, "immediate", |data| {
        data.number(1, nft::REGISTER).nested(2, |inside| {
            inside.bytes(1, &port.to_be_bytes());
        });
    });
    expression(list, "redir", |data| {
        data.number(1, nft::REGISTER);
    });
}
