//! A sandbox that may go everywhere looks for its host, and finds nothing.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{full, sandbox};
use crate::harness::world::World;
use crate::harness::{Daemon, PATIENCE, host_command};

/// What there is to find on the host.
const OPEN: [u16; 3] = [22, 4711, 65_535];

/// Threads that scan.
const THREADS: u32 = 8;

const ASK: &[u8] = b"GET / HTTP/1.0\r\nHost: x.test\r\n\r\n";

/// What answers at an address and port: nothing, the policy, or somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Closed,
    Refused,
    Somebody(String),
}

fn probe(to: SocketAddr) -> Found {
    for _ in 0..200 {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, PATIENCE) else { return Found::Closed };
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let mut text = Vec::new();
        let sent = stream.write_all(ASK);
        let sent = sent.and_then(|()| stream.shutdown(Shutdown::Write));
        let read = sent.and_then(|()| stream.read_to_end(&mut text));
        let text = String::from_utf8_lossy(&text).into_owned();
        match read {
            // What the policy refuses it says; whoever is cut off was too fast, and comes again.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset && text.is_empty() => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            _ if text.contains("NETWORK_DENIED") => return Found::Refused,
            // On loopback a socket that has the very port connects to itself.
            _ if text.is_empty() || text.as_bytes() == ASK => return Found::Closed,
            _ => return Found::Somebody(text),
        }
    }
    Found::Closed
}

/// Whatever is not closed among these ports of an address, and how many the policy refused.
fn scan(address: IpAddr, ports: &[u16]) -> (BTreeSet<(u16, String)>, u32) {
    let (found, refused) = (std::sync::Mutex::new(BTreeSet::new()), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for part in ports.chunks(ports.len().div_ceil(THREADS as usize)) {
            let (found, refused) = (&found, &refused);
            scope.spawn(move || {
                for port in part {
                    match probe(SocketAddr::new(address, *port)) {
                        Found::Closed => {}
                        Found::Refused => {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        Found::Somebody(text) => {
                            found.lock().unwrap().insert((*port, text));
                        }
                    }
                }
            });
        }
    });
    (found.into_inner().unwrap(), refused.into_inner())
}

/// The addresses that the daemon's host has, but for those that take a link to be meant.
fn addresses(world: &World) -> Vec<IpAddr> {
    let links: Value = serde_json::from_str(&world.on_host(|| host_command("ip", &["-j", "addr"]))).unwrap();
    let of = |link: &Value| link["addr_info"].as_array().unwrap().clone();
    let all = links.as_array().unwrap().iter().flat_map(of);
    let local = all.filter(|one| one["scope"] != "link");
    local.map(|one| one["local"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_scan_of_all_of_the_hosts_ports_finds_nothing() {
    let world = World::new();
    for port in OPEN {
        world.web_on_host(&format!("[::]:{port}"));
    }
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let limits = json!({"connections_per_second": 10_000, "connections": 4096});
    let id = sandbox(&daemon, &json!({"mode": "all", "allow": ["*"], "limits": limits}));
    let addresses = addresses(&world);
    let own = |one: &&IpAddr| !one.is_loopback();
    assert!(addresses.len() >= 4 && addresses.iter().filter(own).count() >= 2, "{addresses:?}");
    // Port 53 is the gateway's own name server, wherever it is asked.
    let all: Vec<u16> = (1..=u16::MAX).filter(|port| *port != 53).collect();
    // The gateway decides by the address; a port is one like the other, until this is to be shown for each.
    let some = all.iter().copied().filter(|port| *port < 1024 || port % 32 == 0 || OPEN.contains(port));
    let some: Vec<u16> = some.collect();
    for address in addresses.iter().filter(own) {
        let ports = if full() || address.is_ipv4() { &all } else { &some };
        let (found, refused) = daemon.in_network_of(&id, || scan(*address, ports));
        assert_eq!(found, BTreeSet::new(), "{address}");
        // Each of them was the policy's answer, and none was lost on the way.
        assert_eq!(refused as usize, ports.len(), "{address}");
        // From outside the same scan finds what is there.
        let (found, _) = world.in_world(|| scan(*address, ports));
        assert_eq!(found.iter().map(|(port, _)| *port).collect::<Vec<_>>(), OPEN, "{address}");
    }
    // Loopback is the sandbox's own. Nothing listens there but the gateway, which does not take it for a way out.
    for address in addresses.iter().filter(|address| address.is_loopback()) {
        let (found, refused) = daemon.in_network_of(&id, || scan(*address, &all));
        assert_eq!((found, refused), (BTreeSet::new(), 0), "{address}");
        let (found, _) = world.on_host(|| scan(*address, &some));
        assert_eq!(found.len(), OPEN.len(), "{address}: {found:?}");
    }
}
