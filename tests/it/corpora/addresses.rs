//! Addresses that wrap others, and names that lead to what they should not.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::world::{HOST, OTHER, SERVER, World};
use crate::harness::{Daemon, PATIENCE, host, id};

/// Where a server of both kinds of addresses is.
const PORT: u16 = 81;

/// Ranges that no sandbox reaches, as far as a kernel sends anything there at all.
const CLOSED: [&str; 14] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "168.63.129.16/32",
    "192.31.196.0/24",
    "192.175.48.0/24",
];

/// The same of IPv6.
const CLOSED_V6: [&str; 13] = [
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fec0::/10",
    "4000::/16",
    "e000::/16",
    "::/96",
];

/// First, last and something between.
fn addresses_in(range: &str) -> [Ipv4Addr; 3] {
    let (first, bits) = range.split_once('/').unwrap();
    let first = u32::from(first.parse::<Ipv4Addr>().unwrap());
    let size = 1_u64 << (32 - bits.parse::<u32>().unwrap());
    let at = |offset: u64| Ipv4Addr::from(first + u32::try_from(offset).unwrap());
    [at(0), at(size * 5 / 7), at(size - 1)]
}

/// The ways in which an address of IPv6 can stand for one of IPv4.
fn wrapped(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
    let number = u128::from(u32::from(v4));
    let [a, b, c, d] = v4.octets().map(u128::from);
    let nat64 = 0x0064_ff9b_u128 << 96;
    vec![
        // Mapped: the kernel takes it for IPv4. Compatible: it did once.
        Ipv6Addr::from(0xffff_0000_0000 | number),
        Ipv6Addr::from(number),
        // Translated, well-known and by a prefix of one's own (RFC 6052 §2.2).
        Ipv6Addr::from(nat64 | number),
        Ipv6Addr::from(nat64 | 1 << 80 | (a << 8 | b) << 64 | c << 48 | d << 40),
        // 6to4, and Teredo, which has it inverted.
        Ipv6Addr::from(0x2002_u128 << 112 | number << 80),
        Ipv6Addr::from(0x2001_0000_u128 << 96 | (number ^ 0xffff_ffff)),
        // ISATAP, of this site and of a unique local prefix.
        Ipv6Addr::from(0xfe80_u128 << 112 | 0x5efe_0000_0000 | number),
        Ipv6Addr::from(0xfd00_u128 << 112 | 0x0200_5efe_0000_0000 | number),
    ]
}

/// What a web server there says, or how it does not.
fn ask(address: IpAddr, patience: Duration) -> String {
    let attempt = || -> std::io::Result<String> {
        // A link-local address takes a link.
        let to = match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                std::net::SocketAddrV6::new(v6, PORT, 0, 1).into()
            }
            _ => SocketAddr::new(address, PORT),
        };
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: x.test\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    attempt().unwrap_or_else(|error| error.to_string())
}

/// The same of many, several at once: some are answered by nobody.
fn ask_all(addresses: &BTreeSet<IpAddr>, patience: Duration) -> Vec<(IpAddr, String)> {
    let addresses: Vec<IpAddr> = addresses.iter().copied().collect();
    let parts = addresses.chunks(addresses.len().div_ceil(16));
    std::thread::scope(|scope| {
        let ask = |part: &'_ [IpAddr]| part.iter().map(|one| (*one, ask(*one, patience))).collect::<Vec<_>>();
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || ask(part))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn no_address_stands_for_one_that_is_closed() {
    let world = World::new();
    world.web(&format!("[::]:{PORT}"));
    for range in CLOSED.iter().chain(&CLOSED_V6) {
        world.range(range);
    }
    let mut cases: BTreeSet<IpAddr> = BTreeSet::new();
    for v4 in CLOSED.iter().flat_map(|range| addresses_in(range)) {
        cases.insert(v4.into());
        cases.extend(wrapped(v4).into_iter().map(IpAddr::from));
    }
    // Nothing at all may stand for the sandbox's or the host's own loopback, or for what is on no net.
    for special in
        ["127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "240.0.0.1", HOST]
    {
        let v4: Ipv4Addr = special.parse().unwrap();
        cases.insert(v4.into());
        cases.extend(wrapped(v4).into_iter().map(IpAddr::from));
    }
    for text in ["::", "::1", "fe80::1", "ff02::1", "fd00:ec2::254", "fec0::1", "2001:db8::1", "2606:4700::1"]
    {
        cases.insert(text.parse().unwrap());
    }
    assert!(cases.len() > 300, "{}", cases.len());

    let daemon = Daemon::within(&world.host(), &world.config(""));
    let limits = json!({"connections_per_second": 10_000});
    let sandbox = id(&daemon.create(json!({"network": {"mode": "all", "allow": ["*"], "limits": limits}})));
    let inside = daemon.in_network_of(&sandbox, || ask_all(&cases, PATIENCE));
    for (address, answer) in &inside {
        assert!(!answer.contains("hello"), "{address} was reached: {answer}");
    }
    // By the gateway, with its reason, and not by chance.
    let refused = inside.iter().filter(|(_, answer)| answer.contains("403") && answer.contains("closed: "));
    assert!(refused.count() > 250, "{inside:?}");
    // Whatever the kernel sends anywhere is there, and answers the daemon's host.
    let outside = world.on_host(|| ask_all(&cases, Duration::from_secs(2)));
    let outside = outside.iter().filter(|(_, answer)| answer.contains("hello")).count();
    assert!(outside > 200, "{outside} of {} can be reached at all", cases.len());
    // And the very same sandbox reaches what is public, wrapped as well.
    let open = |text: &str| {
        let address = text.parse().unwrap();
        daemon.in_network_of(&sandbox, move || ask(address, PATIENCE))
    };
    for text in [SERVER, &format!("::ffff:{SERVER}"), "2606:4700::2"] {
        assert!(open(text).contains("hello"), "{text}: {}", open(text));
    }
}

/// What a program inside gets, time after time: the addresses, and what a web server there says.
const ROUNDS: &str = r#"
import socket, sys
def get(address):
    try:
        with socket.create_connection((address, 80), timeout=8) as s:
            s.sendall(b'GET / HTTP/1.0\r\nHost: x.test\r\n\r\n'); data = b''
            while part := s.recv(65536): data += part
            return data.decode()
    except OSError as e: return str(e)
reached, refused = set(), 0
for _ in range(int(sys.argv[2])):
    try: found = {info[4][0] for info in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)}
    except OSError: refused += 1; continue
    for address in found:
        print(address, 'hello' in get(address))
print('refused', refused)
"#;

fn rounds(daemon: &Daemon, sandbox: &str, name: &str, count: usize) -> (BTreeSet<String>, usize) {
    let result = daemon.run(sandbox, json!({"argv": ["python3", "-c", ROUNDS, name, count.to_string()]}));
    assert_eq!(result["exit_code"], 0, "{result}");
    let out = result["stdout"].as_str().unwrap();
    let refused = out.lines().last().unwrap().strip_prefix("refused ").unwrap().parse().unwrap();
    (out.lines().filter(|line| !line.starts_with("refused")).map(str::to_owned).collect(), refused)
}

/// Asks the world's name server from the daemon's host, as nobody's gateway.
fn addresses_outside(world: &World, name: &str) -> String {
    let script = "import socket, sys
labels = b''.join(bytes([len(l)]) + l.encode() for l in sys.argv[2].split('.'))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)
s.sendto(b'\\x12\\x34\\x01\\0\\0\\x01\\0\\0\\0\\0\\0\\0' + labels + b'\\0\\0\\x01\\0\\x01', (sys.argv[1], 53))
print(s.recv(2000)[-4:].hex())";
    world.on_host(|| crate::harness::host_command("/usr/bin/python3", &["-c", script, SERVER, name]))
}

#[test]
fn names_that_change_lead_to_no_closed_address() {
    let world = World::new();
    let inside: [&[&str]; 4] = [&["10.9.9.9"], &["169.254.169.254"], &[HOST], &["127.0.0.1"]];
    // From a good one to each that is not, and back, with answers that may not be kept.
    let turns: Vec<&[&str]> = inside.iter().flat_map(|one| [&[SERVER][..], one]).collect();
    world.lead("rebind.test", &[], &turns, 0);
    world.lead("mixed.test", &[], &[&["10.9.9.9", SERVER, "192.168.7.7"], &["127.0.0.1", OTHER]], 0);
    world.lead("wrapped.test", &[], &[&["::ffff:10.9.9.9", "64:ff9b::a09:909", "2002:a09:909::1"]], 0);
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let sandbox = id(&daemon.create(json!({"network": {"allow": ["*.test", SERVER, OTHER]}})));
    let (reached, refused) = rounds(&daemon, &sandbox, "rebind.test", 16);
    assert_eq!(reached, BTreeSet::from([format!("{SERVER} True")]));
    assert!(refused >= 4, "{refused}");
    let (reached, refused) = rounds(&daemon, &sandbox, "mixed.test", 8);
    assert_eq!(reached, BTreeSet::from([format!("{SERVER} True"), format!("{OTHER} True")]));
    assert_eq!(refused, 0);
    assert_eq!(rounds(&daemon, &sandbox, "wrapped.test", 2), (BTreeSet::new(), 2));
    // The name server did say all that.
    let said: BTreeSet<String> = (0..16).map(|_| addresses_outside(&world, "rebind.test")).collect();
    assert_eq!(said.len(), 5, "{said:?}");
    assert!(said.contains("7f000001\n") && said.contains("0a090909\n"), "{said:?}");
}

#[test]
fn aliases_open_nothing_and_hide_nothing() {
    let world = World::new();
    let chain: Vec<String> = (0..12).map(|number| format!("c{number}.cdn.test")).collect();
    let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
    world.lead("inside.test", &["intranet.test"], &[&["10.9.9.9"]], 5);
    world.lead("deep.test", &chain, &[&["169.254.169.254"]], 5);
    world.lead("long.test", &chain, &[&[SERVER]], 5);
    world.lead("denied.test", &["a.cdn.test", "secret.bad.test"], &[&[OTHER]], 5);
    world.lead("other.cdn.test", &["evil.test"], &[&[OTHER]], 5);
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let allow = ["inside.test", "deep.test", "long.test", "denied.test"];
    let policy = |deny: Value| json!({"allow": allow, "deny": deny});
    let sandbox = id(&daemon.create(json!({"network": policy(json!(["*.bad.test"]))})));
    let by_name = |name: &str| {
        let script = "import sys, urllib.request as u\ntry: print(u.urlopen('http://' + sys.argv[1] + '/', timeout=20).read())\n\
                      except Exception as e: print(type(e).__name__, e)";
        let result = daemon.run(&sandbox, json!({"argv": ["python3", "-c", script, name]}));
        result["stdout"].as_str().unwrap().to_owned()
    };
    assert!(by_name("long.test").contains("hello long.test"), "{}", by_name("long.test"));
    for name in ["inside.test", "deep.test", "denied.test"] {
        let out = by_name(name);
        assert!(!out.contains("hello") && out.contains("URLError"), "{name}: {out}");
        assert!(world.asked(name) > 0, "{name} was not asked for");
    }
    // The names behind it are not opened by it, though the sandbox has seen their addresses.
    for name in ["c0.cdn.test", "c11.cdn.test", "other.cdn.test", "intranet.test"] {
        assert!(by_name(name).contains("URLError"), "{name}");
    }
    // Without the rule the alias is no obstacle.
    let path = format!("/v1/sandboxes/{sandbox}/network");
    assert_eq!(daemon.request("PUT", &path, Some(&policy(json!([])))).status, 200);
    assert!(by_name("denied.test").contains("hello denied.test"));
    host::wait_for("the decisions", || {
        let events = daemon.get(&format!("{path}/events"))["events"].to_string();
        events.contains("deny *.bad.test") && events.contains("10.9.9.9, which is closed")
    });
}
