//! What leaves a sandbox, through the gateway, into a small internet of the test's own.
//!
//! Whatever must not arrive is tried in the same way where it must: from the daemon's host, or under a policy that
//! allows it.

use std::collections::HashSet;
use std::io::{Read, Write};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::world::{HOST, OTHER, SERVER, World, number};
use crate::harness::{Daemon, assert_error, host, id};

/// Functions for scripts in a sandbox.
const PRELUDE: &str = r#"
import socket, ssl, sys, time
def get(where, port=80, host=None, path='/', timeout=8):
    "What a web server answers, or how it does not."
    try:
        with socket.create_connection((where, port), timeout=timeout) as s:
            s.sendall(f'GET {path} HTTP/1.0\r\nHost: {host or where}\r\n\r\n'.encode())
            data = b''
            while part := s.recv(65536): data += part
            return data.decode()
    except OSError as e: return f'{type(e).__name__} {e}'
def hello(where, port, name):
    "What answers a ClientHello."
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    if name is None: context.check_hostname = False
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try: client.do_handshake()
    except ssl.SSLWantReadError: pass
    try:
        with socket.create_connection((where, port), timeout=8) as s:
            s.sendall(outgoing.read())
            return s.recv(100)
    except OSError as e: return f'{type(e).__name__} {e}'.encode()
"#;

fn python(daemon: &Daemon, id: &str, script: &str) -> String {
    let result = daemon.run(id, json!({"argv": ["python3", "-c", format!("{PRELUDE}\n{script}")]}));
    assert_eq!(result["exit_code"], 0, "{script}: {result}");
    result["stdout"].as_str().unwrap().to_owned()
}

fn start(world: &World) -> Daemon {
    Daemon::within(&world.host(), &world.config(""))
}

fn sandbox(daemon: &Daemon, network: &Value) -> String {
    id(&daemon.create(json!({"network": network})))
}

fn set(daemon: &Daemon, id: &str, query: &str, policy: &Value) -> Value {
    let answer = daemon.request("PUT", &format!("/v1/sandboxes/{id}/network{query}"), Some(policy));
    assert_eq!(answer.status, 200, "{policy}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// The decisions about a sandbox.
fn events(daemon: &Daemon, id: &str) -> Vec<Value> {
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(0, |event: &Value| event["seq"].as_u64().unwrap());
        let page = daemon.get(&format!("/v1/sandboxes/{id}/network/events?after={after}"));
        match page["events"].as_array().unwrap() {
            events if events.is_empty() => return all,
            events => all.extend(events.iter().cloned()),
        }
    }
}

#[test]
fn nothing_leaves_without_a_policy_and_no_gateway_runs() {
    let world = World::new();
    let daemon = start(&world);
    let closed = daemon.sandbox();
    let out = python(&daemon, &closed, &format!("print(get('{SERVER}')); print(get('ok.test'))"));
    assert!(out.contains("Network is unreachable") && !out.contains("hello"), "{out}");
    assert_eq!(daemon.role_pid("stockade-gateway"), None);
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{closed}/network"))["policy"], json!({"mode": "none"}));
    let open = sandbox(&daemon, &json!({"mode": "all"}));
    let out = python(&daemon, &open, &format!("print(get('{SERVER}')); print(get('ok.test', path='/x'))"));
    assert!(out.contains(&format!("hello {SERVER} /")) && out.contains("hello ok.test /x"), "{out}");
    assert!(daemon.role_pid("stockade-gateway").is_some());
}

#[test]
fn a_name_opens_its_own_address_and_port_and_says_why_it_opens_no_other() {
    let world = World::new();
    world.web(&format!("{SERVER}:8080"));
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"allow": ["ok.test:80", "*.deep.test"]}));
    let out = python(
        &daemon,
        &id,
        &format!(
            r#"
print('ok', get('ok.test', path='/1'))
print('host', get('ok.test', host='other.test'))
print('port', get('ok.test', 8080))
print('name', get('evil.test'))
print('address', get('{SERVER}', host='ok.test'))
print('bare', get('{OTHER}'))
"#
        ),
    );
    let says = |what: &str, text: &str| {
        let at = out.find(what).unwrap_or_else(|| panic!("no {what}: {out}"));
        assert!(out[at..].contains(text), "{what} does not say {text}: {out}");
    };
    assert_eq!(out.matches("hello").count(), 2, "{out}");
    says("ok HTTP/1.0 200", "hello ok.test /1");
    says("host HTTP/1.0 403", "other.test was said to the address of ok.test");
    says("port HTTP/1.0 403", "allow ok.test:8080");
    says("name gaierror", "");
    // The address was given for the name, by the gateway, a moment ago.
    says("address HTTP/1.0 200", "hello ok.test");
    says("bare HTTP/1.0 403", &format!("allow {OTHER}:80"));
    // What the refusals say is what makes them go away.
    let fix = events(&daemon, &id)
        .iter()
        .find_map(|event| (event["host"] == "evil.test").then(|| event["fix"].as_str().unwrap().to_owned()));
    let fix = fix.unwrap();
    let rule = fix.strip_prefix("allow ").unwrap();
    set(&daemon, &id, "", &json!({"allow": ["ok.test:80", rule]}));
    assert!(python(&daemon, &id, "print(get('evil.test'))").contains("hello evil.test"));
}

#[test]
fn every_request_of_a_connection_is_decided_on_by_itself() {
    let world = World::new();
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"allow": ["ok.test:80"]}));
    let requests = [
        ("GET /second HTTP/1.1\\r\\nHost: other.test\\r\\n\\r\\n", "403"),
        ("GET http://other.test/ HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n", "400"),
        ("GET / HTTP/1.1\\r\\nHost: ok.test\\r\\nHost: other.test\\r\\n\\r\\n", "400"),
        ("GET / HTTP/1.1\\r\\nHost: ok.test:81\\r\\n\\r\\n", "400"),
        ("CONNECT other.test:80 HTTP/1.1\\r\\nHost: ok.test\\r\\n\\r\\n", "403"),
        ("\\r\\nGET / HTTP/1.1\\r\\nHost: other.test\\r\\n\\r\\n", "403"),
        ("GET / HTTP/1.1\\r\\n Host: other.test\\r\\nHost: ok.test\\r\\n\\r\\n", "400"),
        (
            "POST / HTTP/1.1\\r\\nHost: ok.test\\r\\nContent-Length: 3\\r\\nTransfer-Encoding: xchunked\\r\\n\\r\\nabc",
            "400",
        ),
        ("GET / HTTP/1.1\\nHost: other.test\\n\\n", "403"),
    ];
    for (request, code) in requests {
        let script = format!(
            r#"
s = socket.create_connection(('ok.test', 80), timeout=8)
s.sendall(b'GET /first HTTP/1.1\r\nHost: ok.test\r\n\r\n')
first = s.recv(4096)
while b'/first\n' not in first: first += s.recv(4096)
s.sendall(b'{request}')
second = b''
try:
    while part := s.recv(4096): second += part
except OSError: pass
print(first.split()[1], second.split()[1] if second else second, b'hello' in second)
"#
        );
        assert_eq!(python(&daemon, &id, &script), format!("b'200' b'{code}' False\n"), "{request}");
    }
}

#[test]
fn a_connection_that_switches_to_another_protocol_passes_until_the_policy_forbids_it() {
    let world = World::new();
    world.serve(&format!("{SERVER}:8081"), |mut stream| {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.contains("connection: upgrade") && head.contains("upgrade: websocket"), "{head}");
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .unwrap();
        let mut buffer = [0; 100];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            stream.write_all(&buffer[..length]).unwrap();
        }
    });
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"allow": ["ok.test:8081"]}));
    let script = format!(
        r#"{PRELUDE}
s = socket.create_connection(('ok.test', 8081), timeout=60)
s.sendall(b'GET / HTTP/1.1\r\nHost: ok.test:8081\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
head = b''
while not head.endswith(b'\r\n\r\n'): head += s.recv(1)
s.sendall(b'hello'); print(head.split()[1], s.recv(5), flush=True)
try: print('end', s.recv(1), flush=True)
except OSError as e: print('end', e, flush=True)
"#
    );
    let processes = format!("/v1/sandboxes/{id}/processes");
    let body = json!({"id": "echo", "argv": ["python3", "-c", script]});
    assert_eq!(daemon.request("POST", &processes, Some(&body)).status, 201);
    let wait_for = |text: &str| {
        let wanted = json!({"for": {"log": {"text": text}}, "timeout_ms": 20_000});
        let answer = daemon.request("POST", &format!("{processes}/echo/wait"), Some(&wanted));
        assert_eq!(answer.status, 200, "{text}: {}", String::from_utf8_lossy(&answer.body));
    };
    wait_for("b'101' b'hello'");
    // It is one of the sandbox's connections as before.
    let counters = &daemon.get(&format!("/v1/sandboxes/{id}/network"))["counters"];
    assert_eq!(counters["connections_open"], 1, "{counters}");
    set(&daemon, &id, "", &json!({"allow": ["other.test"]}));
    wait_for("end");
}

#[test]
fn tls_is_for_the_name_that_was_asked_for() {
    let world = World::new();
    world.serve(&format!("{SERVER}:443"), |mut stream| {
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).unwrap();
        // At once: the other side reads once.
        let _ = stream.write_all(format!("heard {}", buffer[..length].first().unwrap_or(&0)).as_bytes());
    });
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"allow": ["https://ok.test"]}));
    let out = python(
        &daemon,
        &id,
        "for name in ('ok.test', 'OK.test.', 'other.test', 'evil.test', None):\n    print(name, hello('ok.test', 443, name))\n\
         print('http', get('ok.test', 443))",
    );
    let alert = r"b'\x15\x03\x03\x00\x02\x021'";
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "ok.test b'heard 22'");
    for line in &lines[2..5] {
        assert!(line.ends_with(alert), "{out}");
    }
    assert!(lines[5].contains("403"), "{out}");
    let events = events(&daemon, &id);
    let refused = events.iter().find(|event| event["host"] == "evil.test").unwrap();
    assert_eq!((&refused["protocol"], &refused["allowed"]), (&json!("tls"), &json!(false)));
    // And with a policy about addresses the very same reaches the server.
    set(&daemon, &id, "", &json!({"allow": ["https://ok.test", SERVER]}));
    let out = python(&daemon, &id, "print(hello('ok.test', 443, 'evil.test'))");
    assert!(out.contains("heard 22"), "{out}");
}

/// Ways to write an IPv4 address that some program takes for it.
fn spellings(address: &str) -> HashSet<String> {
    let all = number(address);
    let [a, b, c, d] = all.to_be_bytes();
    let part = |value: u32, how: u32| match how {
        0 => value.to_string(),
        1 => format!("0x{value:x}"),
        2 => format!("0X{value:08X}"),
        _ => format!("0{value:o}"),
    };
    let mut found = HashSet::new();
    for how in 0..4_u32.pow(4) {
        let [w, x, y, z] = [how % 4, how / 4 % 4, how / 16 % 4, how / 64];
        let [a, b, c, d] = [a, b, c, d].map(u32::from);
        found.insert(format!("{}.{}.{}.{}", part(a, w), part(b, x), part(c, y), part(d, z)));
        found.insert(format!("{}.{}.{}", part(a, w), part(b, x), part(c << 8 | d, y)));
        found.insert(format!("{}.{}", part(a, w), part(all & 0xff_ffff, x)));
        found.insert(part(all, w));
    }
    found.insert(format!("::ffff:{address}"));
    found.insert(format!("0:0:0:0:0:ffff:{:x}:{:x}", all >> 16, all & 0xffff));
    found
}

#[test]
fn closed_addresses_stay_closed_however_they_are_written() {
    let world = World::new();
    let daemon = start(&world);
    let allow = json!({"mode": "all", "allow": ["*"], "limits": {"connections_per_second": 10_000}});
    let id = sandbox(&daemon, &allow);
    for (address, open) in [
        (SERVER, true),
        ("169.254.169.254", false),
        ("10.9.9.9", false),
        ("192.168.7.7", false),
        ("100.100.100.200", false),
    ] {
        // From the host every one of them can be reached.
        assert!(world.get_from_host(&format!("{address}:80")).contains("hello control"), "{address}");
        let spellings = spellings(address);
        assert!(spellings.len() > 300);
        let script = format!(
            "found = 0; odd = []\nfor text in {:?}.split():\n    answer = get(text)\n    found += 'hello' in answer\n    \
             if not ('hello' in answer or ' 403 ' in answer or ' 400 ' in answer or 'gaierror' in answer): odd.append((text, answer))\n\
             print(found, odd)",
            spellings.into_iter().collect::<Vec<_>>().join(" ")
        );
        let out = python(&daemon, &id, &script);
        let found: usize = out.split(' ').next().unwrap().parse().unwrap();
        assert!(out.ends_with(" []\n"), "{address}: {out}");
        assert_eq!(found > 250, open, "{address}: {out}");
        assert_eq!(found == 0, !open, "{address}: {out}");
    }
}

#[test]
fn the_host_is_not_there_unless_an_operator_opens_it() {
    let world = World::new();
    world.web_on_host("0.0.0.0:4711");
    assert!(world.get_from_host(&format!("{HOST}:4711")).contains("hello"));
    let everything = json!({"mode": "all", "allow": ["*"], "limits": {"connections_per_second": 10_000}});
    let scan = format!(
        "found = [(a, p) for a in ('{HOST}', '127.0.0.1', '0.0.0.0', '2606:4700::1', '::1') for p in \
         [*range(1, 53), *range(54, 60), 80, 443, 4711, 8080] if 'hello' in get(a, p, timeout=3)]\nprint(found)"
    );
    let daemon = start(&world);
    let id = sandbox(&daemon, &everything);
    assert_eq!(python(&daemon, &id, &scan), "[]\n");
    let events = events(&daemon, &id);
    assert!(events.iter().any(|event| event["rule"] == format!("closed: {HOST} (the host's own)")));
    drop(daemon);
    let daemon = Daemon::within(&world.host(), &world.config(&format!("\"{HOST}\"")));
    let id = sandbox(&daemon, &everything);
    assert_eq!(python(&daemon, &id, &scan), format!("[('{HOST}', 4711)]\n"));
}

#[test]
fn a_name_cannot_be_turned_to_the_inside() {
    let world = World::new();
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"mode": "all", "allow": ["*"]}));
    assert!(python(&daemon, &id, "print(get('ok.test'))").contains("hello ok.test"));
    for inside in ["127.0.0.1", "169.254.169.254", "10.9.9.9", "0.0.0.0", HOST, "::1", "::ffff:10.9.9.9"] {
        world.name("ok.test", &[inside]);
        let out = python(&daemon, &id, "print(get('ok.test'))");
        assert!(out.contains("gaierror"), "{inside}: {out}");
    }
    // Of several the public one is left.
    world.name("ok.test", &["10.9.9.9", SERVER, "127.0.0.1"]);
    let out = python(&daemon, &id, "print(socket.gethostbyname_ex('ok.test')[2]); print(get('ok.test'))");
    assert!(out.contains(&format!("['{SERVER}']")) && out.contains("hello ok.test"), "{out}");
}

#[test]
fn what_is_no_stream_does_not_leave_and_names_are_asked_of_the_gateway_alone() {
    let world = World::new();
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"mode": "all"}));
    let out = python(
        &daemon,
        &id,
        &format!(
            r#"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: print('sent', s.sendto(b'x', ('{SERVER}', 443)))
except OSError as e: print('datagram', e)
try: s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); print('sent', s.sendto(b'\x08\0\0\0\0\0\0\0', ('{SERVER}', 0)))
except OSError as e: print('ping', e)
question = b'\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x02ok\x04test\0\0\x01\0\x01'
for server in ('{SERVER}', '{OTHER}', '127.0.0.1', '8.8.8.8'):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(8)
    s.sendto(question, (server, 53)); answer, sender = s.recvfrom(512)
    print(server, sender[0] == server, socket.inet_ntoa(answer[-4:]))
    s = socket.create_connection((server, 53), timeout=8)
    s.sendall(len(question).to_bytes(2) + question); answer = s.recv(512)
    print(socket.inet_ntoa(answer[-4:]))
# Loopback is the sandbox's own.
l = socket.create_server(('0.0.0.0', 4000)); c = socket.create_connection(('127.0.0.1', 4000)); print('own', l.accept()[1][0])
"#
        ),
    );
    assert!(out.contains("datagram [Errno 1]") && out.contains("ping [Errno 1"), "{out}");
    assert!(!out.contains("sent"), "{out}");
    for server in [SERVER, OTHER, "127.0.0.1", "8.8.8.8"] {
        assert!(out.contains(&format!("{server} True {SERVER}\n{SERVER}\n")), "{server}: {out}");
    }
    assert!(out.contains("own 127.0.0.1"), "{out}");
}

#[test]
fn ipv6_leaves_under_the_same_policy() {
    let world = World::new();
    world.web("[2606:4700::2]:8080");
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"allow": ["[2606:4700::2]:8080"]}));
    let out = python(
        &daemon,
        &id,
        "print(get('2606:4700::2', 8080, host='x.test')); print(get('2606:4700::3', 8080, host='x.test'))",
    );
    assert!(out.contains("hello x.test") && out.contains("allow [2606:4700::3]:8080"), "{out}");
}

#[test]
fn servers_that_speak_first_and_streams_of_any_length_pass() {
    let world = World::new();
    world.serve(&format!("{SERVER}:2222"), |mut stream| {
        stream.write_all(b"banner\n").unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).unwrap();
        stream.write_all(&line).unwrap();
    });
    // Sends back what it is sent, until the end of it, and then its length.
    world.serve(&format!("{SERVER}:7"), |mut stream| {
        let mut buffer = vec![0; 65536];
        let mut total = 0_u64;
        while let Ok(length) = stream.read(&mut buffer) {
            if length == 0 {
                break;
            }
            total += length as u64;
            stream.write_all(&buffer[..length]).unwrap();
        }
        write!(stream, "|{total}").unwrap();
    });
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"allow": ["ok.test:2222", "ok.test:7"]}));
    let out = python(
        &daemon,
        &id,
        r#"
s = socket.create_connection(('ok.test', 2222), timeout=8)
print(s.recv(7)); s.sendall(b'hello\n'); print(s.recv(6))
import threading, hashlib, os
for size in (1, 70_000, 3_000_000, 40_000_001):
    data = os.urandom(size)
    s = socket.create_connection(('ok.test', 7), timeout=30)
    def send(): s.sendall(data); s.shutdown(socket.SHUT_WR)
    t = threading.Thread(target=send); t.start()
    back = bytearray()
    while part := s.recv(1 << 20): back += part
    t.join(); print(size, bytes(back) == data + f'|{size}'.encode())
"#,
    );
    assert!(out.starts_with("b'banner\\n'\nb'hello\\n'\n"), "{out}");
    for size in [1, 70_000, 3_000_000, 40_000_001] {
        assert!(out.contains(&format!("{size} True")), "{out}");
    }
    let counters = &daemon.get(&format!("/v1/sandboxes/{id}/network"))["counters"];
    assert!(counters["bytes_sent"].as_u64().unwrap() > 43_000_000, "{counters}");
    assert!(counters["bytes_received"].as_u64().unwrap() > 43_000_000, "{counters}");
}

#[test]
fn a_change_is_in_force_at_once_and_a_dry_run_changes_nothing() {
    let world = World::new();
    world.serve(&format!("{SERVER}:9"), |mut stream| {
        while stream.write_all(b"tick\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let daemon = start(&world);
    let id = daemon.sandbox();
    let path = format!("/v1/sandboxes/{id}/network");
    assert!(python(&daemon, &id, "print(get('ok.test'))").contains("rror"));
    // From none to something, while it runs.
    set(&daemon, &id, "", &json!({"allow": ["ok.test"]}));
    let policy = daemon.get(&path)["policy"].clone();
    assert_eq!(policy, json!({"mode": "allow", "allow": ["ok.test"]}));
    assert!(python(&daemon, &id, "print(get('ok.test'))").contains("hello ok.test"));
    let script = format!(
        "{PRELUDE}\ns = socket.create_connection(('ok.test', 9), timeout=8)\nprint('on', flush=True)\n\
         try:\n    while s.recv(100): pass\nexcept ConnectionResetError: print('cut', flush=True)"
    );
    let processes = format!("/v1/sandboxes/{id}/processes");
    let body = json!({"id": "ticks", "argv": ["python3", "-c", script]});
    assert_eq!(daemon.request("POST", &processes, Some(&body)).status, 201);
    let wait_for = |text: &str| {
        let wanted = json!({"for": {"log": {"text": text}}, "timeout_ms": 20_000});
        let answer = daemon.request("POST", &format!("{processes}/ticks/wait"), Some(&wanted));
        assert_eq!(answer.status, 200, "{text}: {}", String::from_utf8_lossy(&answer.body));
    };
    wait_for("on");
    let change = set(&daemon, &id, "?dry_run=true", &json!({"deny": ["ok.test"], "mode": "all"}));
    assert_eq!(change["dry_run"], true);
    assert_eq!(
        (&change["added"], &change["removed"]),
        (&json!(["mode all", "deny ok.test"]), &json!(["mode allow", "allow ok.test"]))
    );
    let affected: Vec<_> =
        change["affected"].as_array().unwrap().iter().map(|one| one["target"].clone()).collect();
    assert!(affected.contains(&json!("ok.test")) && affected.contains(&json!("ok.test:80")), "{change}");
    assert_eq!(daemon.get(&path)["policy"], policy);
    assert!(python(&daemon, &id, "print(get('ok.test'))").contains("hello ok.test"));
    set(&daemon, &id, "", &json!({"deny": ["ok.test"], "mode": "all"}));
    wait_for("cut");
    assert!(python(&daemon, &id, "print(get('ok.test'))").contains("gaierror"));
    assert!(python(&daemon, &id, "print(get('evil.test'))").contains("hello"));
    // And back to nothing.
    set(&daemon, &id, "", &json!({}));
    let out = python(&daemon, &id, &format!("print(get('evil.test')); print(get('{SERVER}'))"));
    assert!(out.contains("gaierror") && out.contains("mode none"), "{out}");
}

#[test]
fn a_policy_that_is_none_is_refused_by_name() {
    let daemon = Daemon::start();
    let id = daemon.sandbox();
    let path = format!("/v1/sandboxes/{id}/network");
    for (policy, field) in [
        (json!({"allow": ["a b"]}), Some("network.allow[0]")),
        (json!({"deny": ["ok.test", "0x7f.1"]}), Some("network.deny[1]")),
        (json!({"mode": "none", "allow": ["ok.test"]}), Some("network.mode")),
        (json!({"limits": {"connections": 0}}), Some("network.limits.connections")),
        (json!({"allowed": []}), None),
        (json!({"mode": "everything"}), None),
        (json!({"allow": "ok.test"}), None),
        (json!([]), None),
    ] {
        for answer in [
            daemon.request("PUT", &path, Some(&policy)),
            daemon.request("POST", "/v1/sandboxes", Some(&json!({"network": policy}))),
        ] {
            let body = assert_error(&answer, 400, "INVALID_REQUEST");
            if let Some(field) = field {
                assert_eq!(body["context"]["field"], field, "{body}");
            }
        }
    }
    assert_error(
        &daemon.request("PUT", &format!("{path}?dry=true"), Some(&json!({}))),
        400,
        "INVALID_REQUEST",
    );
    let absent = daemon.request("PUT", "/v1/sandboxes/none-such/network", Some(&json!({})));
    assert_error(&absent, 404, "SANDBOX_NOT_FOUND");
}

#[test]
fn killed_processes_are_replaced_and_policies_stand() {
    let world = World::new();
    let mut daemon = start(&world);
    let id = sandbox(&daemon, &json!({"allow": ["ok.test"]}));
    let check = |daemon: &Daemon, after: &str| {
        let out = python(
            daemon,
            &id,
            &format!("print(get('ok.test', timeout=20)); print(get('{OTHER}', timeout=20))"),
        );
        assert!(out.contains("hello ok.test") && out.contains("403"), "after {after}: {out}");
    };
    check(&daemon, "nothing");
    for _ in 0..2 {
        let gateway = daemon.role_pid("stockade-gateway").unwrap();
        let before = events(&daemon, &id);
        kill(Pid::from_raw(gateway), Signal::SIGKILL).unwrap();
        // The connection waits for the next gateway.
        check(&daemon, "the gateway was killed");
        assert_ne!(daemon.role_pid("stockade-gateway"), Some(gateway));
        // And so does what was decided.
        let after = events(&daemon, &id);
        assert!(!before.is_empty() && after.len() > before.len() && after.starts_with(&before), "{after:?}");
        let counters = &daemon.get(&format!("/v1/sandboxes/{id}/network"))["counters"];
        let denied: u64 = after.iter().map(|event| event["count"].as_u64().unwrap()).sum();
        assert!(counters["allowed"].as_u64().unwrap() + counters["denied"].as_u64().unwrap() <= denied);
        assert!(counters["denied"].as_u64().unwrap() >= 2, "{counters}");
    }
    kill(Pid::from_raw(daemon.serve_pid()), Signal::SIGKILL).unwrap();
    daemon.wait_until_healthy();
    check(&daemon, "serve was killed");
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{id}/network"))["policy"]["allow"], json!(["ok.test"]));
    let gateway = daemon.role_pid("stockade-gateway").unwrap();
    daemon.kill_all();
    host::wait_for("the gateway to end with launch", || !host::alive(gateway));
    daemon.spawn();
    check(&daemon, "all were killed");
}

#[test]
fn a_refusal_reaches_who_sends_all_of_a_body_first_and_a_broken_one_is_the_clients() {
    let world = World::new();
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"allow": ["ok.test", "evil.test:81"]}));
    let script = format!(
        r#"
import http.client
c = http.client.HTTPConnection('{OTHER}', 80, timeout=20); c.request('POST', '/', bytes(8 << 20))
print(c.getresponse().status)
s = socket.create_connection(('ok.test', 80), timeout=20)
s.sendall(b'POST / HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n')
print(s.recv(4096).split()[1])
"#
    );
    assert_eq!(python(&daemon, &id, &script), "403\nb'400'\n");
}

#[test]
fn one_sandbox_has_only_so_many_connections() {
    let world = World::new();
    world.serve(&format!("{SERVER}:9"), |mut stream| {
        let _ = stream.read(&mut [0]);
    });
    let daemon = start(&world);
    let policy = json!({"mode": "all", "limits": {"connections": 5}});
    let (one, other) = (sandbox(&daemon, &policy), sandbox(&daemon, &json!({"mode": "all"})));
    let script = format!(
        r#"
def connect():
    # One that is refused may be reset before connect() returns.
    try: return socket.create_connection(('{SERVER}', 9), timeout=8)
    except ConnectionResetError: return None
kept = [connect() for _ in range(20)]
time.sleep(1)
alive = 0
for s in filter(None, kept):
    s.settimeout(0.1)
    try: alive += s.recv(1) != b''
    except TimeoutError: alive += 1
    except OSError: pass
print(alive)
"#
    );
    assert_eq!(python(&daemon, &one, &script), "5\n");
    assert_eq!(python(&daemon, &other, &script), "20\n");
    let counters = &daemon.get(&format!("/v1/sandboxes/{one}/network"))["counters"];
    assert_eq!(counters["limited"], 15, "{counters}");
    let events = daemon.get(&format!("/v1/sandboxes/{one}/network/events"));
    let limited = |event: &&Value| event["rule"] == "limit connections 5";
    let event =
        events["events"].as_array().unwrap().iter().find(limited).unwrap_or_else(|| panic!("{events}"));
    assert_eq!((&event["allowed"], &event["fix"]), (&json!(false), &json!("raise limits.connections")));
}

#[test]
fn people_see_and_change_it_from_the_command_line() {
    let world = World::new();
    let daemon = start(&world);
    let says = |arguments: &[&str]| {
        let output = daemon.cli(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let get = "import urllib.request as u; print(u.urlopen('http://ok.test/').read())";
    let out = says(&["run", "--allow-domain", "ok.test:80", "--", "python3", "-c", get]);
    assert!(out.contains("hello ok.test"), "{out}");
    says(&["create", "--id", "net", "--network", "none"]);
    let out = says(&["network", "set", "net", "--allow", "ok.test:80", "--dry-run"]);
    assert_eq!(out, "- mode none\n+ mode allow\n+ allow ok.test:80\n");
    assert!(says(&["network", "show", "net"]).starts_with("mode   none"));
    says(&["network", "set", "net", "--allow", "ok.test:80"]);
    assert!(says(&["exec", "net", "--", "python3", "-c", get]).contains("hello"));
    let failed = daemon.cli(&["exec", "net", "--", "getent", "hosts", "evil.test"]);
    assert!(!failed.status.success());
    let out = says(&["network", "log", "net", "--denied"]);
    assert!(out.contains("DENIED  name       dns   evil.test") && out.contains("allow evil.test"), "{out}");
    assert!(!out.contains("ok.test"), "{out}");
    says(&["network", "set", "net", "--add", "--allow", "evil.test"]);
    let out = says(&["network", "show", "net"]);
    assert!(out.contains("allow  ok.test:80\nallow  evil.test\n"), "{out}");
    says(&["rm", "net"]);
}

#[test]
fn the_gateway_holds_nothing_but_sockets() {
    let world = World::new();
    let daemon = start(&world);
    let id = sandbox(&daemon, &json!({"mode": "all"}));
    // It listens to sandboxes only when it is closed in.
    assert!(python(&daemon, &id, "print(get('ok.test'))").contains("hello"));
    let gateway = daemon.role_pid("stockade-gateway").unwrap();
    assert_eq!(host::status(gateway, "Seccomp").as_deref(), Some("2"));
    let field = |name: &str| host::status(gateway, name).unwrap_or_default();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs").as_str(), field("Groups").as_str()), ("1", ""));
    let serve = host::status(daemon.serve_pid(), "Uid").unwrap();
    assert!(
        !field("Uid").split_whitespace().any(|uid| uid == "0" || serve.contains(uid)),
        "{}",
        field("Uid")
    );
    assert_eq!(std::fs::read(format!("/proc/{gateway}/environ")).unwrap(), b"");
    let files = std::fs::read_dir(format!("/proc/{gateway}/fd")).unwrap().flatten();
    for file in files.filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
        let name = file.display().to_string();
        let known =
            ["socket:", "pipe:", "anon_inode:", "/memfd:audit", "/dev/null", "/dev/urandom", "/dev/random"];
        // Our own log, as all roles have it.
        let log = daemon.directory().join("log");
        assert!(known.iter().any(|kind| name.starts_with(kind)) || file == log, "it holds {name}");
    }
}
