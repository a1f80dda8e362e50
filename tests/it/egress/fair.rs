//! One sandbox that takes what it can get, and another one beside it.
//!
//! Who gets how much is told by counts, while the greedy one goes on: nothing here depends on how fast the machine is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::sandbox;
use crate::harness::world::{SERVER, World};
use crate::harness::{Daemon, host};

/// Goes on until the sandbox ends: connections that are kept, connections one after the other, questions for names.
const GREED: &str = r#"
import socket, sys, threading, os, time
server = sys.argv[1]
def keep():
    kept = []
    while True:
        try:
            s = socket.create_connection((server, 9)); s.sendall(b'x'); s.settimeout(0.02); s.recv(1)
        except TimeoutError: kept.append(s)
        except OSError: pass
def hurry():
    while True:
        try:
            with socket.create_connection((server, 80)) as s: s.sendall(b'GET / HTTP/1.0\r\nHost: x\r\n\r\n'); s.recv(10)
        except OSError: pass
def ask():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        try: s.sendto(os.urandom(2) + b'\1\0\0\1\0\0\0\0\0\0\4slow\4test\0\0\1\0\1', ('1.1.1.1', 53))
        except OSError: pass
        # It is to be more than the gateway answers, and not all of the machine's time.
        time.sleep(0.001)
for work in (keep, hurry, ask):
    threading.Thread(target=work, daemon=True).start()
print('began', flush=True)
threading.Event().wait()
"#;

/// Fetches one thing after the other, by name, and says how often it worked.
const MODEST: &str = r"
import sys, urllib.request
done = 0
for number in range(int(sys.argv[1])):
    with urllib.request.urlopen(f'http://ok.test/{number}', timeout=60) as answer:
        done += answer.read().decode() == f'hello ok.test /{number}\n'
print(done)
";

fn begin(daemon: &Daemon, sandbox: &str, name: &str, argv: Value) {
    let processes = format!("/v1/sandboxes/{sandbox}/processes");
    let answer = daemon.request("POST", &processes, Some(&json!({"id": name, "argv": argv})));
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    let ready = json!({"for": {"log": {"text": "began"}}, "timeout_ms": 30_000});
    assert_eq!(daemon.request("POST", &format!("{processes}/{name}/wait"), Some(&ready)).status, 200);
}

fn counter(daemon: &Daemon, sandbox: &str, name: &str) -> u64 {
    daemon.get(&format!("/v1/sandboxes/{sandbox}/network"))["counters"][name].as_u64().unwrap()
}

#[test]
fn a_flood_of_connections_and_questions_starves_nobody() {
    const MANY: u64 = 50;
    let world = World::new();
    world.serve(&format!("{SERVER}:9"), |mut stream| {
        let _ = stream.read(&mut [0; 2]);
        let _ = stream.read(&mut [0; 2]);
    });
    let daemon = Daemon::within(&world.host(), &world.config(""));
    // The greedy ones have the limits that everybody has, the last one more, and the modest one is not asked to be.
    let greedy: Vec<String> = (0..2).map(|_| sandbox(&daemon, &json!({"mode": "all"}))).collect();
    let more = json!({"mode": "all", "limits": {"connections": 512, "connections_per_second": 1000}});
    let insatiable = sandbox(&daemon, &more);
    let modest = sandbox(&daemon, &json!({"allow": ["ok.test"], "limits": {"connections_per_second": 1000}}));
    for id in greedy.iter().chain([&insatiable]) {
        begin(&daemon, id, "greed", json!(["python3", "-c", GREED, SERVER]));
    }
    // Each has come to its limits before it begins to matter.
    let counts = |name: &str| greedy.iter().map(|id| counter(&daemon, id, name)).collect::<Vec<_>>();
    host::wait_for("the floods to come to their limits", || {
        counts("limited").iter().all(|count| *count > 100)
    });
    let before = counts("limited");
    let result = daemon
        .run(&modest, json!({"argv": ["python3", "-c", MODEST, MANY.to_string()], "timeout_ms": 240_000}));
    assert_eq!(result["stdout"], format!("{MANY}\n"), "{result}");
    // And it went on all the time.
    let after = counts("limited");
    assert!(before.iter().zip(&after).all(|(before, after)| after > before), "{before:?} {after:?}");
    assert_eq!(counter(&daemon, &modest, "limited"), 0);
    assert_eq!(counter(&daemon, &modest, "failed"), 0);
    // What one may have open it has, and no more; who may have more has more.
    host::wait_for("the greedy ones to have what they may have", || {
        let open = counts("connections_open");
        assert!(open.iter().all(|open| *open <= 256), "{open:?}");
        open.iter().all(|open| *open >= 200)
    });
    host::wait_for("the insatiable one to have more", || {
        let open = counter(&daemon, &insatiable, "connections_open");
        assert!(open <= 512, "{open}");
        open >= 300
    });
}

#[test]
fn bulk_takes_no_more_than_its_share() {
    /// What a sandbox may move in a second, what the modest one wants, and what the greedy one would like at once.
    const PER_SECOND: u64 = 1 << 20;
    const WANTED: u64 = 2 << 20;
    const GREEDY: u64 = 50;
    let world = World::new();
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    world.serve(&format!("{SERVER}:9"), move |mut stream: TcpStream| {
        let mut first = [0];
        let _ = stream.read(&mut first);
        while stream.write_all(&[7; 16 * 1024]).is_ok() {
            if first[0] == b'g' {
                count.fetch_add(16 * 1024, Ordering::Relaxed);
            }
        }
    });
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let network = json!({"mode": "all", "limits": {"bytes_per_second": PER_SECOND}});
    let (greedy, modest) = (sandbox(&daemon, &network), sandbox(&daemon, &network));
    let download = r"
import socket, sys, threading
server, many, wanted = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
def fetch():
    with socket.create_connection((server, 9)) as s:
        s.sendall(b'g' if many > 1 else b'm'); left = wanted
        while left > 0: left -= len(s.recv(min(left, 65536)) or sys.exit(1))
threads = [threading.Thread(target=fetch) for _ in range(many)]
for thread in threads: thread.start()
print('began', flush=True)
for thread in threads: thread.join()
print('done', flush=True)
";
    let argv = |many: u64| json!(["python3", "-c", download, SERVER, many.to_string(), WANTED.to_string()]);
    begin(&daemon, &greedy, "bulk", argv(GREEDY));
    host::wait_for("the greedy one to get something", || counter(&daemon, &greedy, "bytes_received") > 0);
    let before = counter(&daemon, &greedy, "bytes_received");
    let result = daemon.run(&modest, json!({"argv": argv(1), "timeout_ms": 240_000}));
    assert_eq!(result["stdout"], "began\ndone\n", "{result}");
    // The one that wants a fiftieth is done first: it was not in the other one's queue.
    let meanwhile = counter(&daemon, &greedy, "bytes_received") - before;
    let whole = GREEDY * WANTED;
    assert!(meanwhile < whole / 3, "{meanwhile} of {whole} meanwhile");
    assert!(meanwhile > 0 && sent.load(Ordering::Relaxed) > 0);
    // The gateway counts, and tells now and then.
    host::wait_for("all of the modest one's to be counted", || {
        counter(&daemon, &modest, "bytes_received") >= WANTED
    });
}
