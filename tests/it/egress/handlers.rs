//! Requests that go to a socket of the operator's.

use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::json;

use super::{PRELUDE, python, sandbox, set, start};
use crate::harness::tls::{Authority, Log, answer, serve_plain};
use crate::harness::world::{SERVER, World};
use crate::harness::{Daemon, assert_error};

/// A handler at this socket, until the socket is removed.
fn handle(path: &Path) -> (Log, std::sync::Arc<std::sync::atomic::AtomicBool>) {
    let listener = UnixListener::bind(path).unwrap();
    let (log, stop) = (Log::default(), std::sync::Arc::default());
    let (seen, stopped) = (log.clone(), std::sync::Arc::<std::sync::atomic::AtomicBool>::clone(&stop));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if stopped.load(std::sync::atomic::Ordering::SeqCst) {
                return;
            }
            let seen = seen.clone();
            std::thread::spawn(move || answer(stream, &seen));
        }
    });
    (log, stop)
}

/// Ends a handler: nobody listens any more, and the socket stays.
fn end(path: &Path, stop: &std::sync::atomic::AtomicBool) {
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    // Wakes it; then the listener is closed, and what comes is refused.
    while std::os::unix::net::UnixStream::connect(path).is_ok() {
        std::thread::yield_now();
    }
}

#[test]
fn requests_go_to_the_operators_socket_and_come_back() {
    let (world, authority) = (World::new(), Authority::new());
    let daemon = start(&world, &authority);
    let socket = daemon.runtime_dir().join("handlers/stub.sock");
    let (seen, stop) = handle(&socket);
    let real = serve_plain(&world, &format!("{SERVER}:8080"));
    // An invented name, and one that exists.
    let hosts = json!([{"host": "stub.internal", "handler": "stub.sock"}, {"host": "ok.test", "handler": "stub.sock"}]);
    let id = sandbox(&daemon, &json!({"hosts": hosts}));
    let out = python(
        &daemon,
        &id,
        r#"
print(ask(connect('stub.internal'), '/a?b=c', host='stub.internal', headers='X-Stockade-Sandbox: other\r\nX_Stockade_Original_Url: y\r\n'))
print(ask(connect('ok.test', 8080), '/real', host='ok.test:8080'))
s = connect('stub.internal')
s.sendall(b'POST /mirror HTTP/1.1\r\nHost: stub.internal\r\nTransfer-Encoding: chunked\r\n\r\n'); text = head(s)
for piece in (b'one', b'two'):
    s.sendall(b'3\r\n%s\r\n' % piece); back = b''
    while piece not in back: back += s.recv(100)
    print(piece)
s = connect('stub.internal')
s.sendall(b'GET /switch HTTP/1.1\r\nHost: stub.internal\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
print(head(s).split('\r\n')[0]); s.sendall(b'anything\n'); print(s.recv(100))
address = socket.gethostbyname('stub.internal')
print('other', ask(connect(address), host='evil.test').split('\r\n')[0])
s = connect(address, 22); s.sendall(b'SSH-2.0-x\r\n')
try: print('closed', s.recv(10))
except ConnectionResetError: print('closed reset')
print(socket.getaddrinfo('stub.internal', 80, socket.AF_INET6) if False else address.startswith('198.1'))
"#,
    );
    assert!(out.contains("hello stub.internal /a?b=c") && out.contains("hello ok.test:8080 /real"), "{out}");
    assert!(out.contains("b'one'\nb'two'\nHTTP/1.1 101") && out.contains("b'anything\\n'"), "{out}");
    assert!(out.contains("other HTTP/1.1 403") && out.contains("closed reset\nTrue"), "{out}");
    let asked = seen.take();
    assert_eq!(asked[0].header("x-stockade-sandbox"), id);
    assert_eq!(asked[0].header("x-stockade-original-url"), "http://stub.internal/a?b=c");
    assert_eq!(asked[0].header("x_stockade_original_url"), "");
    assert_eq!(asked[1].header("x-stockade-original-url"), "http://ok.test:8080/real");
    assert!(real.take().is_empty());
    // TLS to it takes a certificate.
    let tls = "
import ssl
try: print(ask(ssl.create_default_context().wrap_socket(connect('stub.internal', 443), server_hostname='stub.internal'), host='stub.internal'))
except ssl.SSLError as e: print(e.reason)";
    assert_eq!(python(&daemon, &id, tls), "TLSV1_ALERT_ACCESS_DENIED\n");
    set(&daemon, &id, &json!({"hosts": hosts, "intercept": ["stub.internal"]}));
    assert!(python(&daemon, &id, tls).contains("hello stub.internal /"));
    assert_eq!(seen.one().header("x-stockade-original-url"), "https://stub.internal/");
    down_and_up(&daemon, &id, &socket, &stop);
}

fn down_and_up(daemon: &Daemon, id: &str, socket: &Path, stop: &std::sync::atomic::AtomicBool) {
    let get = "print(ask(connect('stub.internal'), host='stub.internal'))";
    end(socket, stop);
    let down = |what: &str| {
        let out = python(daemon, id, get);
        assert!(out.starts_with("HTTP/1.1 503") && out.contains("HANDLER_UNAVAILABLE"), "{what}: {out}");
    };
    down("nobody listens");
    std::fs::remove_file(socket).unwrap();
    down("there is none");
    // Another one, at the same name.
    let (seen, _stop) = handle(socket);
    assert!(python(daemon, id, get).contains("hello stub.internal /"));
    assert_eq!(seen.one().header("x-stockade-sandbox"), id);
    // Only what lies in the directory itself.
    let elsewhere = daemon.directory().join("elsewhere.sock");
    let (other, _stop) = handle(&elsewhere);
    std::fs::remove_file(socket).unwrap();
    std::os::unix::fs::symlink(&elsewhere, socket).unwrap();
    down("it is a link");
    assert!(other.take().is_empty());
    // Without the policy the name and its address lead nowhere.
    set(daemon, id, &json!({"allow": ["evil.test"]}));
    let script = "
import socket
try: connect('stub.internal'); print('reached')
except OSError as e: print(type(e).__name__)
s = connect('198.18.0.1'); print(ask(s, host='stub.internal').split('\\r\\n')[0])";
    assert_eq!(
        python(daemon, id, script),
        "gaierror\nHTTP/1.1 403 Forbidden by the network policy of the sandbox\n"
    );
}

#[test]
fn the_operators_socket_is_neither_passed_by_nor_kept_beyond_a_change() {
    let (world, authority) = (World::new(), Authority::new());
    let real = serve_plain(&world, &format!("{SERVER}:8081"));
    let daemon = start(&world, &authority);
    let at = |name: &str| handle(&daemon.runtime_dir().join("handlers").join(name));
    let ((first, _stop), (second, _end)) = (at("first.sock"), at("second.sock"));
    let network = |socket: &str| json!({"mode": "all", "hosts": [{"host": "ok.test", "handler": socket}]});
    let id = sandbox(&daemon, &network("first.sock"));
    // The server has this address, and it is open; the name is not to be had there.
    let script = format!(
        "for _ in range(2):\n    print(ask(connect('{SERVER}', 8081), '/past', host='ok.test:8081').split('\\r\\n')[0]); print(ask(connect('ok.test'), '/1').rpartition('\\n')[0][-16:])\n\
         print(ask(connect('{SERVER}', 8081), '/other', host='other.test:8081').split('\\r\\n')[0])"
    );
    let refused = "HTTP/1.1 403 Forbidden by the network policy of the sandbox\nhello ok.test /1\n";
    assert_eq!(python(&daemon, &id, &script), format!("{refused}{refused}HTTP/1.1 200 OK\n"));
    assert_eq!(real.one().line, "GET /other HTTP/1.1");
    assert_eq!(first.take().len(), 2);
    // One connection, and another handler in the middle of it.
    let script = format!(
        "{PRELUDE}\nimport time\ns = connect('ok.test'); ask(s, '/first'); print('asked', flush=True)\n\
         while not os.path.exists('/tmp/go'): time.sleep(0.01)\nask(s, '/second'); print('done', flush=True)"
    );
    let processes = format!("/v1/sandboxes/{id}/processes");
    let body = json!({"id": "kept", "argv": ["python3", "-c", script]});
    assert_eq!(daemon.request("POST", &processes, Some(&body)).status, 201);
    let wait_for = |text: &str| {
        let wanted = json!({"for": {"log": {"text": text}}, "timeout_ms": 20_000});
        let answer = daemon.request("POST", &format!("{processes}/kept/wait"), Some(&wanted));
        assert_eq!(answer.status, 200, "{text}: {}", String::from_utf8_lossy(&answer.body));
    };
    wait_for("asked");
    set(&daemon, &id, &network("second.sock"));
    daemon.put(&id, "/tmp/go", b"");
    wait_for("done");
    assert_eq!(
        (first.one().line, second.one().line),
        ("GET /first HTTP/1.1".into(), "GET /second HTTP/1.1".into())
    );
}

#[test]
fn an_operators_socket_is_named_and_no_path() {
    let daemon = Daemon::start();
    for bad in ["/run/docker.sock", "../stockade.sock", ".hidden", "a/b", "", "a\u{0}b"] {
        let network = json!({"hosts": [{"host": "x.test", "handler": bad}]});
        let answer = daemon.request("POST", "/v1/sandboxes", Some(&json!({"network": network})));
        let body = assert_error(&answer, 400, "INVALID_REQUEST");
        assert_eq!(body["context"]["field"], "network.hosts[0].handler", "{body}");
    }
}
