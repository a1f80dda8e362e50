//! The network: the host's own services, its neighbours, and what clouds answer to whoever asks.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixStream};
use std::time::Duration;

use libc as c;

use super::{Answer, Attack, Control, Group, Refusal, raw};
use crate::selftest::scene::Scene;
use crate::sys::attempt;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Network, name, run)
}

/// How long a server may take. What is dropped silently is told from what is refused by nothing else.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What the host's servers say: what else answers is not the one that was asked.
pub const GREETING: &[u8] = b"stockade-selftest";

/// A row for an address that only a host of a certain kind has. The control has it, and a server on it.
macro_rules! address {
    ($name:literal, $octets:expr) => {
        attack($name, |scene| stranger(scene, Ipv4Addr::from($octets)))
    };
}

pub(super) const ATTACKS: &[Attack] = &[
    attack("hosts-loopback", |scene| tcp(Ipv4Addr::LOCALHOST.into(), scene)).control(Control::Host),
    attack("hosts-loopback-v6", |scene| tcp(Ipv6Addr::LOCALHOST.into(), scene)).control(Control::Host),
    attack("hosts-loopback-mapped", |scene| tcp(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), scene))
        .control(Control::Host),
    attack("hosts-any-address", |scene| tcp(Ipv4Addr::UNSPECIFIED.into(), scene)).control(Control::Host),
    attack("hosts-loopback-datagram", |scene| udp(Ipv4Addr::LOCALHOST.into(), scene)).control(Control::Host),
    attack("hosts-addresses", |scene| every_address(scene, tcp)).control(Control::Host),
    attack("hosts-addresses-datagram", |scene| every_address(scene, udp)).control(Control::Host),
    attack("hosts-abstract-socket", |scene| abstract_socket(&scene.host.abstract_socket))
        .control(Control::Host),
    attack("abstract-sockets-show", |_| {
        let table = std::fs::read_to_string("/proc/net/unix")?;
        let found =
            table.lines().find(|line| line.rsplit(' ').next().is_some_and(|name| name.starts_with('@')));
        found.map_or_else(|| super::nothing("none shows"), |line| Ok(line.to_owned()))
    })
    .control(Control::Host),
    attack("interfaces-show", |_| {
        let table = std::fs::read_to_string("/proc/net/dev")?;
        let names = table.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
        let others: Vec<&str> = names.filter(|name| *name != "lo").collect();
        if others.is_empty() { super::nothing("only lo") } else { Ok(others.join(" ")) }
    })
    .control(Control::Host),
    address!("metadata-of-clouds", [169, 254, 169, 254]),
    address!("metadata-of-containers", [169, 254, 170, 2]),
    address!("metadata-of-alibaba", [100, 100, 100, 200]),
    address!("metadata-of-azure", [168, 63, 129, 16]),
    address!("private-ten", [10, 0, 0, 1]),
    address!("private-172", [172, 17, 0, 1]),
    address!("private-192", [192, 168, 1, 1]),
    address!("carriers-shared", [100, 64, 0, 1]),
    address!("benchmarking", [198, 18, 0, 1]),
    address!("link-local", [169, 254, 1, 1]),
    address!("public", [1, 1, 1, 1]),
];

/// Asks the host's server.
fn tcp(address: IpAddr, scene: &Scene) -> Answer {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(address, scene.host.port), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = Vec::new();
    stream.take(64).read_to_end(&mut greeting)?;
    if greeting == GREETING {
        Ok(format!("{address} answers"))
    } else {
        super::nothing("somebody else answers")
    }
}

fn udp(address: IpAddr, scene: &Scene) -> Answer {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"?", (address, scene.host.port))?;
    let mut answer = [0; 64];
    let (length, _) = socket.recv_from(&mut answer)?;
    if answer[..length] == *GREETING {
        Ok(format!("{address} answers"))
    } else {
        super::nothing("somebody else answers")
    }
}

fn every_address(scene: &Scene, ask: fn(IpAddr, &Scene) -> Answer) -> Answer {
    let mut refused = Vec::new();
    for &address in &scene.host.addresses {
        match ask(address, scene) {
            Ok(answer) => return Ok(answer),
            Err(Refusal::Errno(errno)) => refused.push(format!("{address}: {}", super::name(errno))),
            Err(Refusal::Nothing(why) | Refusal::Broken(why)) => refused.push(format!("{address}: {why}")),
        }
    }
    super::nothing(if refused.is_empty() { "the host has no address".to_owned() } else { refused.join(", ") })
}

/// Connects to an abstract Unix socket.
pub(super) fn abstract_socket(name: &str) -> Answer {
    UnixStream::connect_addr(&UnixAddress::from_abstract_name(name)?)?;
    Ok("connected".to_owned())
}

/// Connects to an address that is not the host's. Outside, the address is made one of the scratch's own, and a server
/// listens on it: a connection needs no more than a way to get there.
fn stranger(scene: &Scene, address: Ipv4Addr) -> Answer {
    let mut server = None;
    if !scene.inside {
        give_address(address)?;
        server = Some(std::net::TcpListener::bind((address, 80))?);
    }
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address.into(), 80), PATIENCE)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    drop(server);
    Ok(format!("{address} accepts connections"))
}

/// Makes this the address of `lo`, and brings `lo` up (netdevice(7)).
fn give_address(address: Ipv4Addr) -> Result<(), Refusal> {
    let socket = raw(c::SYS_socket, &[2, 2, 0])?;
    let name = u64::from_ne_bytes(*b"lo\0\0\0\0\0\0");
    // SIOCSIFFLAGS: IFF_UP. SIOCSIFADDR: struct sockaddr_in.
    let up = [name, 0, 1, 0, 0];
    raw(c::SYS_ioctl, &[socket, 0x8914, attempt::address(&up)])?;
    let place = u64::from(u32::from_ne_bytes(address.octets())) << 32 | 2;
    let set = [name, 0, place, 0, 0];
    raw(c::SYS_ioctl, &[socket, 0x8916, attempt::address(&set)])?;
    Ok(())
}
