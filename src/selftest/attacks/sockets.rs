//! Sockets: every family, type and protocol, and the options that reach into the kernel.

use std::os::fd::AsRawFd as _;

use libc as c;

use super::{Answer, Attack, Group, call, nothing, raw, reached};
use crate::selftest::scene::Scene;
use crate::sys::{Errno, attempt};
use crate::wire::launch::Profile::{self, Compat, Default};

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Sockets, name, run)
}

const UNIX: i64 = 1;
const INET: i64 = 2;
const INET6: i64 = 10;
const NETLINK: i64 = 16;
const STREAM: i64 = 1;
const DATAGRAM: i64 = 2;
const RAW: i64 = 3;
const PACKETS: i64 = 5;

/// A socket of a family that the kernel may have to load first: what is not loaded is not tried outside, where trying
/// would load it.
macro_rules! family {
    ($name:literal, $protocol:literal, $family:expr, $kind:expr, $number:expr) => {
        attack($name, |scene| {
            if !scene.inside && !loaded($protocol) {
                return nothing(concat!("this kernel has not loaded ", $protocol));
            }
            call(c::SYS_socket, &[$family, $kind, $number])
        })
    };
}

macro_rules! netlink {
    ($name:literal, $number:literal) => {
        attack($name, |_| call(c::SYS_socket, &[NETLINK, RAW, $number]))
    };
}

/// An option that succeeds, or of which the kernel says that it looked at it.
macro_rules! option {
    ($name:literal, $family:expr, $kind:expr, $level:literal, $option:literal, [$($errno:ident),*]) => {
        attack($name, |_| set($family, $kind, $level, $option, &[$(Errno::$errno),*]))
    };
}

pub(super) const ATTACKS: &[Attack] = &[
    attack("every-family-type-and-protocol", matrix),
    attack("every-pair", pairs),
    family!("packet-socket", "PACKET", 17, RAW, 0x300),
    attack("raw-socket", |_| call(c::SYS_socket, &[INET, RAW, 1])),
    attack("raw-socket-any", |_| call(c::SYS_socket, &[INET, RAW, 255])),
    attack("raw-socket-v6", |_| call(c::SYS_socket, &[INET6, RAW, 58])),
    attack("v6-socket", |_| call(c::SYS_socket, &[INET6, STREAM, 0])).offered_by(&[Default, Compat]),
    family!("vsock", "AF_VSOCK", 40, STREAM, 0),
    family!("kernel-cryptography", "ALG", 38, PACKETS, 0),
    family!("express-data-path", "XDP", 44, RAW, 0),
    family!("key-management", "KEY", 15, RAW, 2),
    family!("reliable-datagrams", "RDS", 21, PACKETS, 0),
    family!("tipc", "TIPC", 30, 4, 0),
    family!("bluetooth", "HCI", 31, RAW, 1),
    family!("can-bus", "CAN_RAW", 29, RAW, 1),
    family!("rxrpc", "RXRPC", 33, DATAGRAM, 2),
    family!("shared-memory-sockets", "SMC", 43, STREAM, 0),
    family!("qualcomm-router", "QIPCRTR", 42, DATAGRAM, 0),
    family!("phone-network", "PHONET", 35, DATAGRAM, 0),
    family!("multi-path-tcp", "MPTCP", INET, STREAM, 262),
    family!("sctp", "SCTP", INET, STREAM, 132),
    family!("dccp", "DCCP", INET, 6, 33),
    family!("udp-lite", "UDP-Lite", INET, DATAGRAM, 136),
    netlink!("netlink-diagnosis", 4),
    netlink!("netlink-xfrm", 6),
    netlink!("netlink-selinux", 7),
    netlink!("netlink-audit", 9),
    netlink!("netlink-route-lookup", 10),
    netlink!("netlink-connector", 11),
    netlink!("netlink-netfilter", 12),
    netlink!("netlink-kernel-objects", 15),
    netlink!("netlink-generic", 16),
    netlink!("netlink-cryptography", 21),
    attack("urgent-byte", |_| {
        let pair = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let fd = pair.0.as_raw_fd().into();
        call(c::SYS_sendto, &[fd, attempt::address(b"x"), 1, c::MSG_OOB.into(), 0, 0])
    }),
    option!("stack-on-tcp", INET, STREAM, 6, 31, [NOENT, NOTCONN]),
    option!("repair-tcp", INET, STREAM, 6, 19, []),
    option!("ipsec-over-udp", INET, DATAGRAM, 17, 100, []),
    option!("packet-filter-tables", INET, STREAM, 0, 64, [INVAL, FAULT, NOENT]),
    option!("bridge-filter-tables", INET, STREAM, 0, 128, [INVAL, FAULT, NOENT]),
    option!("ipsec-policy", INET, STREAM, 0, 17, [INVAL, OPNOTSUPP, FAULT]),
    option!("ipsec-policy-v6", INET6, STREAM, 41, 35, [INVAL, OPNOTSUPP, FAULT]),
    option!("bind-to-device", INET, STREAM, 1, 25, [NODEV]),
    attack("attach-filter", |_| {
        // A classic filter that accepts everything: struct sock_fprog.
        let accept = [6_u64 | 0xffff_ffff << 32];
        let program = [1, attempt::address(&accept)];
        let socket = raw(c::SYS_socket, &[INET, DATAGRAM, 0])?;
        call(c::SYS_setsockopt, &[socket, 1, 26, attempt::address(&program), 16])
    }),
    option!("send-pages", INET, STREAM, 1, 60, []),
    option!("mark-packets", INET, STREAM, 1, 36, []),
    option!("force-buffers", INET, STREAM, 1, 33, []),
    option!("be-transparent", INET, STREAM, 0, 19, []),
    attack("add-interface", |_| {
        // RTM_NEWLINK, made new, of the kind `dummy`.
        let socket = raw(c::SYS_socket, &[NETLINK, RAW, 0])?;
        let request = new_link();
        raw(c::SYS_sendto, &[socket, attempt::address(&*request), request.len() as i64, 0, 0, 0])?;
        acknowledged(socket)
    }),
    attack("take-loopback-down", |_| interface(0x8914, 0)),
    attack("change-address", |_| interface(0x8916, u64::from(u32::from_ne_bytes([127, 0, 0, 2])) << 32 | 2)),
];

/// Whether the kernel has a protocol: it lists those that are there.
fn loaded(name: &str) -> bool {
    let list = std::fs::read_to_string("/proc/net/protocols").unwrap_or_default();
    list.lines().any(|line| line.split_whitespace().next() == Some(name))
}

/// What a program may open: written out here, and not taken from the filter.
fn allowed(profile: Profile, family: i64, kind: i64, protocol: i64) -> bool {
    match (family, kind) {
        (UNIX, _) => true,
        (INET, STREAM) => matches!(protocol, 0 | 6),
        (INET, DATAGRAM) => matches!(protocol, 0 | 17 | 1),
        (INET6, STREAM) => profile != Profile::Hardened && matches!(protocol, 0 | 6),
        (INET6, DATAGRAM) => profile != Profile::Hardened && matches!(protocol, 0 | 17 | 58),
        (NETLINK, _) => protocol == 0,
        _ => false,
    }
}

/// All families, types and protocols that the kernel's tables have room for. Outside only families that every kernel has
/// loaded: trying loads modules.
fn matrix(scene: &Scene) -> Answer {
    let (mut tried, mut opened) = (0_u32, Vec::new());
    for family in (0..64).filter(|family| scene.inside || [UNIX, INET, INET6, NETLINK].contains(family)) {
        for kind in 0..16 {
            // Netlink has 32 protocols and IP 256, with MPTCP's beyond.
            for protocol in 0..if [INET, INET6].contains(&family) { 264 } else { 34 } {
                if !scene.inside && kind != RAW && protocol > 17 {
                    continue;
                }
                tried += 1;
                if let Ok(socket) = raw(c::SYS_socket, &[family, kind, protocol]) {
                    raw(c::SYS_close, &[socket])?;
                    if !allowed(scene.profile, family, kind, protocol) {
                        opened.push(format!("({family}, {kind}, {protocol})"));
                    }
                }
            }
        }
    }
    opened.truncate(12);
    if opened.is_empty() {
        nothing(format!("{tried} combinations, none beyond what is allowed"))
    } else {
        Ok(opened.join(" "))
    }
}

fn pairs(scene: &Scene) -> Answer {
    let mut made = Vec::new();
    for family in (0..64).filter(|&family| family != UNIX && (scene.inside || family == 30)) {
        for kind in 1..11 {
            let ends = [0_i32; 2];
            if raw(c::SYS_socketpair, &[family, kind, 0, attempt::address(&ends)]).is_ok() {
                made.push(format!("({family}, {kind})"));
            }
        }
    }
    if made.is_empty() { nothing("only Unix sockets come in pairs") } else { Ok(made.join(" ")) }
}

fn set(family: i64, kind: i64, level: i64, option: i64, looked: &[Errno]) -> Answer {
    let socket = raw(c::SYS_socket, &[family, kind, 0])?;
    let value = [1_i32, 0, 0, 0];
    reached(call(c::SYS_setsockopt, &[socket, level, option, attempt::address(&value), 4]), looked)
}

/// A request of netdevice(7) about `lo`.
fn interface(request: i64, value: u64) -> Answer {
    let socket = raw(c::SYS_socket, &[INET, DATAGRAM, 0])?;
    let mut words = [0_u64; 5];
    words[0] = u64::from_ne_bytes(*b"lo\0\0\0\0\0\0");
    words[2] = value;
    call(c::SYS_ioctl, &[socket, request, attempt::address(&words)])
}

/// struct nlmsghdr, struct ifinfomsg, and IFLA_LINKINFO with IFLA_INFO_KIND (rtnetlink(7)).
fn new_link() -> Box<[u8]> {
    let kind = [&10_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"dummy\0", &[0; 2]].concat();
    let length = u16::try_from(4 + kind.len()).unwrap_or(0);
    let info = [&length.to_ne_bytes()[..], &18_u16.to_ne_bytes(), &kind].concat();
    let total = u32::try_from(16 + 16 + info.len()).unwrap_or(0);
    // NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL.
    let flags = 0x001_u16 | 0x004 | 0x400 | 0x200;
    let head = [&total.to_ne_bytes()[..], &16_u16.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat();
    [head, vec![0; 16], info].concat().into_boxed_slice()
}

/// The kernel's answer to a netlink request: an error number, or 0.
fn acknowledged(socket: i64) -> Answer {
    let mut answer = [0_i32; 64];
    raw(c::SYS_recvfrom, &[socket, attempt::room(&mut answer), 256, 0, 0, 0])?;
    match answer[4] {
        0 => Ok("the kernel has done it".to_owned()),
        errno => Err(Errno::from_raw_os_error(-errno).into()),
    }
}
