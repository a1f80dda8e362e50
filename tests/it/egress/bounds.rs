//! What the gateway holds for one sandbox: bodies that it signs, connections whose client is gone.

use std::io::Read as _;
use std::sync::Arc;

use rustls::ServerConnection;
use serde_json::{Value, json};

use super::{PRELUDE, SECRET, bearer, python, sandbox, set, start};
use crate::harness::tls::{Authority, serve};
use crate::harness::world::{OTHER, SERVER, World};
use crate::harness::{Daemon, host};

fn signed(host: &str) -> Value {
    json!({"host": host, "aws": {"region": "eu-test-1", "service": "dynamodb", "access_key_id": "AKREAL",
        "secret_access_key": SECRET}})
}

/// Starts a script in a sandbox, and waits until it says so.
fn begin(daemon: &Daemon, sandbox: &str, name: &str, script: &str, says: &str) {
    let processes = format!("/v1/sandboxes/{sandbox}/processes");
    let body = json!({"id": name, "argv": ["python3", "-c", format!("{PRELUDE}\n{script}")]});
    assert_eq!(daemon.request("POST", &processes, Some(&body)).status, 201);
    said(daemon, sandbox, name, says);
}

fn said(daemon: &Daemon, sandbox: &str, name: &str, says: &str) {
    let wanted = json!({"for": {"log": {"text": says}}, "timeout_ms": 60_000});
    let path = format!("/v1/sandboxes/{sandbox}/processes/{name}/wait");
    let answer = daemon.request("POST", &path, Some(&wanted));
    let logs = || daemon.request("GET", &path.replace("/wait", "/logs"), None).body;
    assert_eq!(
        answer.status,
        200,
        "{says}: {}",
        String::from_utf8_lossy(&[answer.body.clone(), logs()].concat())
    );
}

fn open(daemon: &Daemon, sandbox: &str) -> u64 {
    daemon.get(&format!("/v1/sandboxes/{sandbox}/network"))["counters"]["connections_open"].as_u64().unwrap()
}

#[test]
fn bodies_that_do_not_come_keep_nobody_else_from_being_signed() {
    let (world, authority) = (World::new(), Authority::new());
    let seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test"], true));
    let daemon = start(&world, &authority);
    let network = json!({"hosts": [signed("ok.test")]});
    let (greedy, modest) = (sandbox(&daemon, &network), sandbox(&daemon, &network));
    let slow = "
kept = [connect('ok.test') for _ in range(40)]
for s in kept: s.sendall(b'POST /slow HTTP/1.1\\r\\nHost: ok.test\\r\\nContent-Length: 10\\r\\n\\r\\nx')
print('began', flush=True)
import threading; threading.Event().wait()";
    begin(&daemon, &greedy, "slow", slow, "began");
    host::wait_for("the gateway to have them all", || open(&daemon, &greedy) == 40);
    let post = "
s = connect('ok.test'); s.sendall(b'POST /quick HTTP/1.1\\r\\nHost: ok.test\\r\\nContent-Length: 3\\r\\n\\r\\nabc')
print(head(s).split('\\r\\n')[0])";
    for _ in 0..20 {
        assert_eq!(python(&daemon, &modest, post), "HTTP/1.1 200 OK\n");
    }
    assert!(seen.take().iter().all(|one| one.line.contains("/quick") && one.body == b"abc"));
}

#[test]
fn a_client_that_is_slow_to_begin_is_not_taken_for_one_that_waits_for_its_server() {
    let (world, authority) = (World::new(), Authority::new());
    let _seen = serve(&world, &format!("{SERVER}:443"), authority.server(&["ok.test"], true));
    let daemon = start(&world, &authority);
    let network = json!({"hosts": [bearer()], "intercept": ["ok.test"], "deny": ["evil.test"]});
    let id = sandbox(&daemon, &network);
    // Longer than the gateway waits for a server's first word, and what a busy host makes of a quick client.
    let script = format!(
        "
import ssl, time
plain, secret = connect('ok.test'), connect('ok.test', 443)
closed = connect('{OTHER}')
time.sleep(0.6)
closed.sendall(b'GET / HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n')
print(head(closed).split('\\r\\n')[0])
time.sleep(1.4)
print(ask(plain).split('\\r\\n')[0])
print(ask(ssl.create_default_context().wrap_socket(secret, server_hostname='ok.test')).split('\\r\\n')[0])"
    );
    let heads =
        "HTTP/1.1 403 Forbidden by the network policy of the sandbox\nHTTP/1.1 200 OK\nHTTP/1.1 200 OK\n";
    assert_eq!(python(&daemon, &id, &script), heads);
}

/// Says back what it heard in one go.
fn echo(mut stream: std::net::TcpStream) {
    use std::io::Write as _;
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let _ = stream.write_all(&buffer[..length]);
    }
}

#[test]
fn what_begins_like_text_or_tls_and_does_not_go_on_is_passed_on_or_refused_soon() {
    let world = World::new();
    world.serve(&format!("{SERVER}:5005"), echo);
    world.serve(&format!("{OTHER}:5005"), echo);
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let network = json!({"allow": ["tcp://ok.test:5005", "https://evil.test:5005"], "deny": ["x.test"]});
    let id = sandbox(&daemon, &network);
    let script = r"
import time
def outcome(where, text, more=b''):
    s = connect(where, 5005); begin = time.time(); s.sendall(text)
    try:
        answer = s.recv(100)
        if more: s.sendall(more); answer += s.recv(100)
    except ConnectionResetError: answer = b'reset'
    return answer[:60], time.time() - begin < 5
print(outcome('ok.test', b'JDWP-Handshake'))
print(outcome('ok.test', b'hi', b'\r\n'))
print(outcome('ok.test', b'\x16\x03\x01\x02')[0][:1], outcome('evil.test', b'hi'), outcome('9.9.8.2', b'hi'))
";
    let out = python(&daemon, &id, script);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "(b'JDWP-Handshake', True)", "{out}");
    assert_eq!(lines[1], "(b'hi\\r\\n', True)", "{out}");
    assert_eq!(lines[2], "b'\\x15' (b'reset', True) (b'reset', True)", "{out}");
    let events = daemon.get(&format!("/v1/sandboxes/{id}/network/events"));
    let events = events["events"].as_array().unwrap();
    let denied = |what: &str| {
        let fits = |event: &&Value| event["allowed"] == false && event.to_string().contains(what);
        assert!(events.iter().any(|event| fits(&event)), "{what}: {events:?}");
    };
    denied("the beginning of TLS did not come whole");
    denied("evil.test");
    denied("9.9.8.2");
    // A request that comes in pieces is decided on as ever.
    let pieces = r"
import time
s = connect('ok.test', 5006)
s.sendall(b'GET / HT'); time.sleep(0.5); s.sendall(b'TP/1.1\r\nHost: x.test\r\n\r\n'); print(head(s).split()[1])";
    world.serve(&format!("{SERVER}:5006"), |mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        assert!(!all.contains(&b'\n'), "{all:?}");
    });
    set(&daemon, &id, &json!({"allow": ["tcp://ok.test:5005-5006"], "deny": ["x.test"]}));
    assert_eq!(
        python(&daemon, &id, pieces),
        "403
"
    );
}

#[test]
fn signed_bodies_that_a_server_does_not_read_are_counted() {
    const MANY: usize = 40;
    const MAY_GROW_KIB: u64 = 20 * 1024;
    let (world, authority) = (World::new(), Authority::new());
    let config = authority.server(&["ok.test"], true);
    world.serve(&format!("{SERVER}:443"), move |mut stream| {
        let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
        // As long as the test's process lives.
        loop {
            std::thread::park();
        }
    });
    let db = serve(&world, &format!("{OTHER}:443"), authority.server(&["evil.test"], true));
    let daemon = start(&world, &authority);
    let network = json!({"hosts": [signed("ok.test"), signed("evil.test")]});
    let (id, other) = (sandbox(&daemon, &network), sandbox(&daemon, &network));
    // What it has when it has done all of it once.
    let once = "
s = connect('evil.test'); s.sendall(b'POST / HTTP/1.1\\r\\nHost: evil.test\\r\\nContent-Length: 1000000\\r\\n\\r\\n' + bytes(1000000))
print(head(s).split('\\r\\n')[0])";
    assert_eq!(python(&daemon, &id, once), "HTTP/1.1 200 OK\n");
    let gateway = daemon.role_pid("stockade-gateway").unwrap();
    let before = host::resident_kib(gateway);
    let script = format!(
        "
import threading
answers = []; kept = []; lock = threading.Lock()
def post():
    s = connect('ok.test'); s.settimeout(None); kept.append(s)
    s.sendall(b'POST / HTTP/1.1\\r\\nHost: ok.test\\r\\nContent-Length: 1000000\\r\\n\\r\\n' + bytes(1000000))
    text = head(s).split('\\r\\n')[0]
    with lock:
        answers.append(text)
        if len(answers) == {MANY} - 2: print('refused', set(answers), flush=True)
for _ in range({MANY}): threading.Thread(target=post, daemon=True).start()
threading.Event().wait()"
    );
    begin(&daemon, &id, "bodies", &script, "refused {'HTTP/1.1 503 Service Unavailable'}");
    let grown = host::resident_kib(gateway).saturating_sub(before);
    assert!(grown < MAY_GROW_KIB, "{grown} KiB for {MANY} bodies of 1 MB");
    // Another sandbox has places of its own.
    assert_eq!(python(&daemon, &other, once), "HTTP/1.1 200 OK\n");
    assert_eq!(db.take().len(), 2);
}

#[test]
fn a_connection_ends_with_its_client_while_the_server_is_silent() {
    let (world, authority) = (World::new(), Authority::new());
    world.serve(
        &format!("{SERVER}:8080"),
        |mut stream| while matches!(stream.read(&mut [0; 512]), Ok(1..)) {},
    );
    let daemon = start(&world, &authority);
    let id = sandbox(&daemon, &json!({"allow": ["ok.test:8080"]}));
    // What is not read yet hides the end no more than nothing does.
    for more in ["", "GET /second HTTP/1.1\\r\\nHost: ok.test:8080\\r\\n\\r\\n"] {
        let name = if more.is_empty() { "one" } else { "two" };
        let script = format!(
            "
import time, struct
kept = [connect('ok.test', 8080) for _ in range(5)]
for s in kept: s.sendall(b'GET / HTTP/1.1\\r\\nHost: ok.test:8080\\r\\n\\r\\n{more}')
print('asked', flush=True)
while not os.path.exists('/tmp/{name}'): time.sleep(0.01)
for s in kept: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); s.close()"
        );
        begin(&daemon, &id, name, &script, "asked");
        host::wait_for("the gateway to have them all", || open(&daemon, &id) == 5);
        daemon.put(&id, &format!("/tmp/{name}"), b"");
        host::wait_for("the gateway to let go of them", || open(&daemon, &id) == 0);
    }
}
