//! Ways to begin TLS: what says no name, two, or another one than the connection is for, reaches nobody under a policy
//! of names.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::tls::{self, Authority};
use crate::harness::world::{OTHER, SERVER, World};
use crate::harness::{Daemon, PATIENCE, host, id};

/// `access_denied`.
const ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 0x31];

fn counted<const BYTES: usize>(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u64).to_be_bytes()[8 - BYTES..], body].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &counted::<2>(body)].concat()
}

/// The extension `server_name` with entries of these kinds (RFC 6066 §3).
fn names(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let list: Vec<u8> =
        entries.iter().flat_map(|(kind, name)| [&[*kind][..], &counted::<2>(name)].concat()).collect();
    extension(0, &counted::<2>(&list))
}

fn sni(name: &str) -> Vec<u8> {
    names(&[(0, name.as_bytes())])
}

/// What every client of today has (RFC 8446 §9.2).
fn usual() -> Vec<u8> {
    [
        extension(43, &counted::<1>(&[3, 4, 3, 3])),
        extension(13, &counted::<2>(&[4, 3, 8, 4, 4, 1])),
        extension(10, &counted::<2>(&[0, 0x1d, 0, 0x17])),
        extension(51, &counted::<2>(&[&[0, 0x1d][..], &counted::<2>(&[7; 32])].concat())),
        extension(11, &counted::<1>(&[0])),
        extension(23, &[]),
    ]
    .concat()
}

/// A ClientHello as a handshake message (RFC 8446 §4.1.2).
fn message(version: u16, extensions: &[u8]) -> Vec<u8> {
    let suites = counted::<2>(&[0x13, 1, 0x13, 2, 0xc0, 0x2b, 0xc0, 0x2f]);
    let body = [
        &version.to_be_bytes()[..],
        &[9; 32],
        &counted::<1>(&[8; 32]),
        &suites,
        &counted::<1>(&[0]),
        &counted::<2>(extensions),
    ]
    .concat();
    [&[1][..], &counted::<3>(&body)].concat()
}

fn record(version: u16, fragment: &[u8]) -> Vec<u8> {
    [&[0x16][..], &version.to_be_bytes(), &counted::<2>(fragment)].concat()
}

/// One record with a ClientHello with these extensions before the usual ones.
fn hello(extensions: &[u8]) -> Vec<u8> {
    record(0x0301, &message(0x0303, &[extensions, &usual()].concat()))
}

/// A name in records of so many bytes.
fn in_records(name: &str, bytes: usize) -> Vec<u8> {
    let whole = message(0x0303, &[sni(name), usual()].concat());
    whole.chunks(bytes).flat_map(|part| record(0x0301, part)).collect()
}

/// Of Encrypted Client Hello, which anybody sends for show (RFC 9849 §5, §6.2).
fn encrypted() -> Vec<u8> {
    extension(0xfe0d, &[&[0, 0, 1, 0, 1, 7][..], &counted::<2>(&[5; 32]), &counted::<2>(&[6; 200])].concat())
}

/// Extensions of no meaning, as large as asked for.
fn padding(bytes: usize) -> Vec<u8> {
    extension(21, &vec![0; bytes])
}

/// What arrives whole: the name `ok.test`, said once.
fn good() -> Vec<(&'static str, Vec<u8>)> {
    let usual = usual();
    let of = |version, legacy| record(version, &message(legacy, &[sni("ok.test"), usual.clone()].concat()));
    let twelve =
        [sni("ok.test"), extension(13, &counted::<2>(&[4, 3])), extension(10, &counted::<2>(&[0, 0x17]))];
    vec![
        ("usual", hello(&sni("ok.test"))),
        ("of 1.2 alone", record(0x0303, &message(0x0303, &twelve.concat()))),
        ("a record of 1.2", of(0x0303, 0x0303)),
        ("in capitals", hello(&sni("OK.Test"))),
        ("the name last", record(0x0301, &message(0x0303, &[usual.clone(), sni("ok.test")].concat()))),
        ("in two records", in_records("ok.test", 100)),
        ("in many records", in_records("ok.test", 7)),
        ("a byte in each record", in_records("ok.test", 1)),
        ("large", hello(&[padding(12_000), sni("ok.test")].concat())),
        ("more behind it", [hello(&sni("ok.test")), vec![0x17, 3, 3, 0, 2, 1, 2]].concat()),
        // Whose inner name nobody sees; the outer one is the name of who is asked.
        ("encrypted, for show", hello(&[sni("ok.test"), encrypted()].concat())),
        ("with GREASE", hello(&[extension(0x0a0a, &[]), sni("ok.test"), extension(0xfafa, &[0])].concat())),
    ]
}

/// What says no name, or no good one, or more than one.
fn bad_names() -> Vec<(&'static str, Vec<u8>)> {
    let name = |bytes: &[u8]| hello(&names(&[(0, bytes)]));
    vec![
        ("no name", hello(&[])),
        ("no extensions", record(0x0301, &message(0x0303, &[])[..]).clone()),
        ("another name", hello(&sni("evil.test"))),
        ("another allowed name", hello(&sni("other.test"))),
        ("another name in two records", in_records("evil.test", 100)),
        ("a name below it", hello(&sni("x.ok.test"))),
        ("a name above it", hello(&sni("test"))),
        ("an address", hello(&sni("9.9.9.9"))),
        ("an address of IPv6", hello(&sni("::ffff:9.9.9.9"))),
        ("an odd address", hello(&sni("0x9.9.9.9"))),
        ("two names", hello(&names(&[(0, b"ok.test"), (0, b"evil.test")]))),
        ("two names the other way round", hello(&names(&[(0, b"evil.test"), (0, b"ok.test")]))),
        ("the same name twice", hello(&names(&[(0, b"ok.test"), (0, b"ok.test")]))),
        ("two extensions", hello(&[sni("ok.test"), sni("evil.test")].concat())),
        ("two extensions the other way round", hello(&[sni("evil.test"), sni("ok.test")].concat())),
        ("of another kind", hello(&names(&[(1, b"ok.test")]))),
        ("an empty list", hello(&extension(0, &[0, 0]))),
        ("an empty extension", hello(&extension(0, &[]))),
        ("an empty name", name(b"")),
        ("a NUL behind it", name(b"ok.test\0")),
        ("a NUL between", name(b"ok.test\0.evil.test")),
        ("a NUL before", name(b"evil.test\0ok.test")),
        ("a blank", name(b"ok.test evil.test")),
        ("a slash", name(b"ok.test/evil")),
        ("a port", name(b"ok.test:443")),
        ("a user", name(b"evil@ok.test")),
        ("an asterisk", name(b"*.test")),
        ("wide letters", name("\u{ff4f}k.test".as_bytes())),
        ("a Kelvin sign", name("o\u{212a}.test".as_bytes())),
        ("a soft hyphen", name("ok\u{ad}.test".as_bytes())),
        ("no UTF-8", name(b"ok\xff.test")),
        ("a long name", name("a.".repeat(200).as_bytes())),
        ("a long label", name(format!("{}.ok.test", "a".repeat(64)).as_bytes())),
        ("two dots", name(b"ok..test")),
        ("a dot before", name(b".ok.test")),
        ("two dots behind", name(b"ok.test..")),
    ]
}

/// What arrives nowhere.
fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let whole = hello(&sni("ok.test"));
    let mut server_hello = whole.clone();
    server_hello[5] = 2;
    let mut lying = whole.clone();
    lying[8] += 1;
    let shapes = vec![
        ("cut in its extensions", hello(&[sni("evil.test"), extension(0, &[0, 9, 0, 0, 99])].concat())),
        ("a length that lies", lying),
        ("half of it", whole[..40].to_vec()),
        ("its name without its end", whole[..whole.len() - 100].to_vec()),
        ("too large", hello(&[padding(16_000), padding(16_000)].concat())),
        ("too large over records", {
            let large = [padding(30_000), sni("ok.test"), usual()].concat();
            message(0x0303, &large).chunks(2000).flat_map(|part| record(0x0301, part)).collect()
        }),
        ("records without anything", record(0x0301, &[]).repeat(100)),
        ("a record that is too large", record(0x0301, &vec![1; 20_000])),
        ("a ServerHello", server_hello),
        ("a finished message", record(0x0303, &[20, 0, 0, 4, 1, 2, 3, 4])),
        ("an alert before it", [vec![0x15, 3, 3, 0, 2, 1, 0], whole.clone()].concat()),
        ("application data before it", [vec![0x17, 3, 3, 0, 1, 9], whole.clone()].concat()),
        ("a change of ciphers before it", [vec![0x14, 3, 3, 0, 1, 1], whole.clone()].concat()),
        ("of SSL 2", [&[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10][..], &[7; 40]].concat()),
        ("of SSL 3 in its record", record(0x0200, &message(0x0300, &[]))),
        ("of DTLS", [&[0x16, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0][..], &counted::<2>(&[1; 50])].concat()),
        ("a line before it", [b"\r\n".to_vec(), whole.clone()].concat()),
        ("a PROXY line before it", [b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(), whole.clone()].concat()),
        (
            "a request to switch",
            b"OPTIONS * HTTP/1.1\r\nHost: ok.test\r\nUpgrade: TLS/1.2\r\nConnection: upgrade\r\n\r\n"
                .to_vec(),
        ),
        ("a CONNECT", b"CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test:443\r\n\r\n".to_vec()),
        ("a CONNECT to elsewhere", b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n".to_vec()),
        (
            "a SOCKS greeting",
            [5, 1, 0, 5, 1, 0, 3, 9].iter().copied().chain(*b"evil.test").chain([1, 0xbb]).collect(),
        ),
        ("nothing", Vec::new()),
    ];
    bad_names().into_iter().chain(shapes).collect()
}

/// What arrived at the server, connection by connection.
type Arrived = Arc<Mutex<Vec<Vec<u8>>>>;

/// Answers what it hears at once, and keeps all of it.
fn listen(world: &World, address: &str) -> Arrived {
    let arrived = Arrived::default();
    let keep = Arc::clone(&arrived);
    world.serve(address, move |mut stream: TcpStream| {
        let mut all = Vec::new();
        let mut buffer = [0; 65_536];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if all.is_empty() {
                let _ = stream.write_all(b"heard");
            }
            all.extend_from_slice(&buffer[..count]);
        }
        keep.lock().unwrap().push(all);
    });
    arrived
}

/// Sends bytes, in so many at once, and gives what comes back until the end.
fn send(to: SocketAddr, bytes: &[u8], at_once: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for part in bytes.chunks(at_once.max(1)) {
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut back = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        back.extend_from_slice(&buffer[..count]);
    }
    back
}

#[test]
fn tls_that_does_not_say_its_name_once_reaches_nobody() {
    let world = World::new();
    let arrived = listen(&world, &format!("{SERVER}:443"));
    let elsewhere = listen(&world, &format!("{OTHER}:443"));
    // other.test is allowed and somewhere else, which the gateway knows.
    world.name("other.test", &[OTHER]);
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let limits = json!({"connections_per_second": 10_000});
    let network = json!({"allow": ["https://ok.test", "https://other.test"], "limits": limits});
    let sandbox = id(&daemon.create(json!({"network": network})));
    let resolve = "import socket; print(*[socket.gethostbyname(name) for name in ('ok.test', 'other.test')])";
    let resolved = daemon.run(&sandbox, json!({"argv": ["python3", "-c", resolve]}));
    assert_eq!(resolved["stdout"], format!("{SERVER} {OTHER}\n"));
    let exchange = |address: &str, bytes: &[u8], at_once: usize| {
        let to = SocketAddr::new(address.parse().unwrap(), 443);
        daemon.in_network_of(&sandbox, || send(to, bytes, at_once))
    };
    for (name, bytes) in good() {
        // In whatever segments it comes.
        for at_once in [usize::MAX, 100, 1] {
            if bytes.len() > 5000 && at_once == 1 {
                continue;
            }
            assert_eq!(exchange(SERVER, &bytes, at_once), b"heard", "{name}, {at_once} at once");
            host::wait_for("the server to have it", || !arrived.lock().unwrap().is_empty());
            assert!(std::mem::take(&mut *arrived.lock().unwrap()) == [bytes.clone()], "{name}: not whole");
        }
    }
    let bad = bad();
    assert!(bad.len() > 50);
    for (name, bytes) in &bad {
        let back = exchange(SERVER, bytes, usize::MAX);
        let alert = back == ALERT;
        let refused = back.starts_with(b"HTTP/1.1 4") || back.is_empty();
        assert!(alert || refused, "{name}: {:?}", String::from_utf8_lossy(&back));
        // Whoever speaks TLS is told in TLS.
        assert!(alert || bytes.first() != Some(&0x16) || bytes.get(1) != Some(&3), "{name}: no alert");
    }
    // A name that is allowed, said to the address of another one.
    assert_eq!(exchange(OTHER, &hello(&sni("ok.test")), usize::MAX), ALERT);
    assert_eq!(exchange(OTHER, &hello(&sni("other.test")), usize::MAX), b"heard");
    host::wait_for("the server to have it", || !elsewhere.lock().unwrap().is_empty());
    assert_eq!(elsewhere.lock().unwrap().len(), 1);
    assert!(arrived.lock().unwrap().is_empty(), "{:?}", arrived.lock().unwrap());
    // All of it reaches a server, if the policy is about its address.
    let body = json!({"allow": [SERVER], "limits": {"connections_per_second": 10_000}});
    assert_eq!(daemon.request("PUT", &format!("/v1/sandboxes/{sandbox}/network"), Some(&body)).status, 200);
    let mut reached = 0;
    for (_, bytes) in bad.iter().filter(|(_, bytes)| !bytes.starts_with(b"CONNECT")) {
        reached += usize::from(exchange(SERVER, bytes, usize::MAX) == b"heard");
    }
    assert!(reached > 50, "{reached}");
}

#[test]
fn versions_and_names_of_openssl() {
    let (world, authority) = (World::new(), Authority::new());
    let seen = tls::serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test"], true));
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let sandbox = id(&daemon.create(json!({"network": {"allow": ["https://ok.test"]}})));
    for (arguments, works) in [
        ("-tls1_3 -servername ok.test", true),
        ("-tls1_2 -servername ok.test", true),
        ("-servername ok.test -alpn h2,http/1.1", true),
        ("-servername OK.TEST", true),
        ("-tls1_3 -noservername", false),
        ("-tls1_2 -noservername", false),
        ("-tls1_3 -servername evil.test", false),
        ("-tls1_2 -servername evil.test", false),
        ("-servername 9.9.9.9", false),
    ] {
        // It stays until it is ended, and says before that what there is to say.
        let line = format!(
            "rm -f /tmp/said; touch /tmp/said; printf 'GET /seen HTTP/1.0\\r\\nHost: ok.test\\r\\n\\r\\n' | \
             openssl s_client -quiet -ign_eof -connect ok.test:443 {arguments} > /tmp/said 2>&1 & pid=$!; \
             while kill -0 $pid && ! grep -qe hello -e alert /tmp/said; do sleep 0.02; done; \
             kill $pid; cat /tmp/said"
        );
        let result = daemon.run(&sandbox, json!({"shell": line, "timeout_ms": 60_000}));
        let out = result["stdout"].as_str().unwrap();
        if works {
            assert!(out.contains("hello ok.test /seen"), "{arguments}: {out}");
            assert_eq!(seen.one().line, "GET /seen HTTP/1.0");
        } else {
            assert!(out.contains("alert access denied"), "{arguments}: {out}");
            assert!(seen.take().is_empty(), "{arguments}");
        }
    }
}
