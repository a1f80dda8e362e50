//! What passes between a browser and a server in a sandbox, and what does not.

use std::io::Read as _;
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tungstenite::Message;
use tungstenite::protocol::CloseFrame;

use crate::harness::http::{Connection, Head};
use crate::harness::previews::{
    PORT, PORTS, authority, expose, get, header, preview, raw, seen, serving, start, websocket,
};
use crate::harness::{Daemon, PATIENCE, host, skip};

#[test]
fn requests_pass_and_only_we_say_where_from() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let mut connection = preview(&address);
    let headers = [
        ("X-Mine", "1"),
        ("Cookie", "a=b"),
        ("Connection", "keep-alive, X-Hop"),
        ("X-Hop", "1"),
        ("X-Forwarded-For", "6.6.6.6"),
        ("X_Forwarded_For", "6.6.6.6"),
        ("X-Forwarded-Host", "evil"),
        ("Forwarded", "for=6.6.6.6"),
        ("X-Original-URL", "/admin"),
        ("X-Sandbox-Name", "other"),
        ("Proxy-Authorization", "Basic eA=="),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ];
    let answer = connection.request("GET", "/q?x=%2F", &headers, b"").unwrap();
    let told = answer.json();
    for (name, value) in [
        ("host", &*address),
        ("x-mine", "1"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", &address),
        ("x-forwarded-proto", "http"),
        ("x-original-url", &format!("http://{address}/q?x=%2F")),
        ("x-sandbox-name", "box"),
    ] {
        assert_eq!(header(&told, name), [value], "{name}: {told}");
    }
    for name in [
        "x-hop",
        "x_forwarded_for",
        "forwarded",
        "proxy-authorization",
        "te",
        "upgrade",
        "http2-settings",
        "connection",
    ] {
        assert_eq!(header(&told, name), [""; 0], "{name}: {told}");
    }
}

#[test]
fn redirects_cookies_and_bodies_pass_whole() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let mut connection = preview(&address);
    let answer = connection.request("GET", "/redirect", &[], b"").unwrap();
    assert_eq!((answer.status, answer.header("location")), (302, Some("/elsewhere?x=1")));
    let cookies: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name == "set-cookie")
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(cookies, ["a=1", "b=2; Path=/"]);

    // Bodies: known length, chunks, many bytes, and an answer that does not wait for them.
    let bytes: Vec<u8> = (0..40_000_000_u32).map(|index| (index * 7 / 3).to_le_bytes()[0]).collect();
    let sum =
        |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let told = connection.request("PUT", "/up", &[("Expect", "100-continue")], b"").unwrap().json();
    assert_eq!(told["length"], 0);
    let told = connection.request("POST", "/up", &[], &bytes).unwrap().json();
    assert_eq!(
        (told["length"].as_u64(), told["sha256"].as_str()),
        (Some(bytes.len() as u64), Some(&*sum(&bytes)))
    );
    connection
        .send_raw(
            format!("POST /up HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n").as_bytes(),
        )
        .unwrap();
    for part in bytes[..1_000_000].chunks(70_000) {
        connection
            .send_raw(&[format!("{:x};ext=1\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())
            .unwrap();
    }
    connection.send_raw(b"0\r\n\r\n").unwrap();
    let told = connection.receive().unwrap().json();
    assert_eq!(told["sha256"].as_str(), Some(&*sum(&bytes[..1_000_000])));
    let answer = connection.request("GET", "/bytes?30000000", &[], b"").unwrap();
    assert_eq!(answer.body.len(), 30_000_000);
    let answer = preview(&address).request("POST", "/early", &[], &bytes[..100_000]);
    assert!(answer.is_ok_and(|answer| answer.status == 413));
}

#[test]
fn events_come_as_they_are_sent_and_a_reader_that_leaves_is_known() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let mut connection = preview(&address);
    connection.send("GET", "/events?3", &[("Accept", "text/event-stream")], b"").unwrap();
    let head = connection.receive_head().unwrap();
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    let mut body = connection.body(&head);
    let first = body.next_event().unwrap().unwrap();
    // The server sleeps between the first and the second: it is not over yet.
    assert!(!seen(&address).is_empty());
    assert_eq!((first.name.as_str(), first.data.as_str()), ("tick", "0"));
    assert_eq!(body.next_event().unwrap().unwrap().data, "1");
    assert_eq!(body.next_event().unwrap().unwrap().data, "2");
    assert!(body.next_event().unwrap().is_none());

    let mut reader = preview(&address);
    reader.send("GET", "/endless", &[], b"").unwrap();
    assert_eq!(reader.receive_head().unwrap().status, 200);
    drop(reader);
    host::wait_for("the server to see that its reader left", || {
        seen(&address).iter().any(|line| line == "endless: the reader left")
    });

    // Whoever reads under an address that is revoked reads no longer.
    let mut reader = preview(&address);
    reader.send("GET", "/endless", &[], b"").unwrap();
    let head = reader.receive_head().unwrap();
    assert_eq!(daemon.request("DELETE", "/v1/sandboxes/box/ports/8000", None).status, 204);
    let mut rest = Vec::new();
    assert!(reader.body(&head).read_to_end(&mut rest).is_err(), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn websockets_carry_messages_of_any_size_and_codes_of_their_end() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let mut socket = websocket(&address, "/ws");
    for size in [0, 1, 125, 126, 65_535, 65_536, 3_000_000] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message, "{size}");
    }
    let end = CloseFrame { code: 4321.into(), reason: "enough".into() };
    socket.close(Some(end.clone())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Close(Some(end)));

    // Through the API's socket the same.
    let stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    let url = format!("ws://stockade{PORTS}/8000/proxy/ws");
    let (mut socket, _) = tungstenite::client(url, stream).unwrap();
    socket.send(Message::text("over the socket")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("over the socket"));

    // It ends with the address.
    let mut socket = websocket(&address, "/ws");
    socket.send(Message::text("before")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("before"));
    expose(&daemon, "box", json!({"port": PORT}));
    assert!(socket.read().is_err(), "it goes on under an address that was changed");

    // And with the sandbox.
    let address = authority(&daemon.get("/v1/sandboxes/box/ports/8000"));
    let mut socket = websocket(&address, "/ws");
    daemon.destroy("box");
    assert!(socket.read().is_err(), "it goes on without the sandbox");
}

#[test]
fn a_websocket_whose_reader_stalls_holds_up_its_sender_and_not_the_daemon() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let mut socket = websocket(&address, "/ws");
    let before = host::resident_kib(daemon.serve_pid());
    socket.get_ref().set_nonblocking(true).unwrap();
    let mut sent = 0_usize;
    // The server echoes, nobody reads: both directions fill up, and then sending is held up.
    let stalled = std::time::Instant::now();
    while stalled.elapsed() < Duration::from_secs(2) {
        match socket.send(Message::binary(vec![0; 65_536])) {
            Ok(()) => sent += 65_536,
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(tungstenite::Error::WriteBufferFull(_)) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 512 << 20, "nothing holds it up");
    }
    let grown = host::resident_kib(daemon.serve_pid()).saturating_sub(before);
    assert!(grown < 16 << 10, "the daemon grew by {grown} KiB");
    assert_eq!(get(&address, "/").status, 200, "others are held up");
}

#[test]
fn one_clients_connection_is_never_anothers() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let (mut one, mut two) = (preview(&address), preview(&address));
    let number = |connection: &mut Connection<TcpStream>| {
        connection.request("GET", "/n", &[], b"").unwrap().json()["connection"].as_u64().unwrap()
    };
    let (first, second) = (number(&mut one), number(&mut two));
    assert_ne!(first, second);
    assert_eq!((number(&mut one), number(&mut two)), (first, second), "kept alive");
    // A server may close what is kept; the next request does not notice.
    assert_eq!(one.request("GET", "/close", &[], b"").unwrap().status, 502);
    assert!(number(&mut one) > second);

    // The same connection, to another sandbox: the one into the first is given up.
    daemon.create(json!({"id": "other"}));
    start(&daemon, "other", PORT, "0.0.0.0");
    let other = authority(&expose(&daemon, "other", json!({"port": PORT})));
    for (host, name) in [(&address, "box"), (&other, "other"), (&address, "box")] {
        one.send_raw(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(header(&one.receive().unwrap().json(), "x-sandbox-name"), [name]);
    }
}

#[test]
fn a_hostile_server_splits_and_stalls_nothing() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let answer = |bytes: &str| {
        let mut connection = preview(&address);
        connection.send("POST", "/raw", &[], bytes.as_bytes()).unwrap();
        let head: Head = connection.receive_head().unwrap();
        let mut body = Vec::new();
        let whole = connection.body(&head).read_to_end(&mut body).is_ok();
        // Whatever comes after the answer would be the next one's.
        (head, String::from_utf8_lossy(&body).into_owned(), whole)
    };
    let (head, body, whole) = answer(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    assert!(head.header("content-length").is_none() && whole, "{head:?}");
    assert_eq!(body, "hello");
    for (bytes, what) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "two lengths"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n folded\r\n\r\n", "a folded line"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            "a switch that nobody asked for",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "another protocol"),
        ("", "nothing"),
        (&format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(200_000)), "a large head"),
        (&format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(500)), "many headers"),
    ] {
        let (head, body, _) = answer(bytes);
        assert_eq!(head.status, 502, "{what}");
        assert!(body.contains("SERVICE_FAILED"), "{what}: {body}");
    }
    let (head, body, _) = answer(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok more",
    );
    assert_eq!((head.status, body.as_str()), (200, "ok"));
    let (head, body, _) = answer("HTTP/1.0 200 OK\r\n\r\nuntil the end");
    assert_eq!((head.status, body.as_str()), (200, "until the end"));
    let (head, _, whole) = answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort");
    assert!(head.status == 200 && !whole, "a body that was cut short seems whole");
}

#[test]
fn the_ws_of_npm_is_a_server_like_any_other() {
    if !host::has_tool("node") || !std::path::Path::new("/usr/share/nodejs/ws").exists() {
        skip!("userland", "node and its module ws are not installed");
    }
    let daemon = Daemon::with(&["--preview-listen", "127.0.0.1:0"]);
    daemon.create(json!({"id": "box", "resources": {"memory_bytes": 1_u64 << 30}}));
    let server = "const {WebSocketServer} = require('/usr/share/nodejs/ws');
const server = new WebSocketServer({port: 9000, host: '::1', perMessageDeflate: true});
server.on('connection', (socket, request) => {
  socket.on('message', (data, binary) => socket.send(binary ? data : request.headers['x-sandbox-name'] + ' ' + data));
  socket.on('close', code => console.log('closed ' + code));
});
server.on('listening', () => console.log('listening'));";
    let spec = json!({"id": "ws", "argv": ["node", "-e", server]});
    assert_eq!(daemon.request("POST", "/v1/sandboxes/box/processes", Some(&spec)).status, 201);
    let address = authority(&expose(&daemon, "box", json!({"port": 9000, "wait_ms": 60_000})));
    let mut socket = websocket(&address, "/");
    socket.send(Message::text("hello")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("box hello"));
    socket.send(Message::binary(vec![3; 500_000])).unwrap();
    assert_eq!(socket.read().unwrap().len(), 500_000);
    socket.close(Some(CloseFrame { code: 4000.into(), reason: "".into() })).unwrap();
    while socket.read().is_ok() {}
    // Else the server waits half a minute for its client's end of the connection.
    drop(socket);
    let closed = json!({"for": {"log": {"text": "closed 4000"}}, "timeout_ms": 30_000});
    let waited = daemon.request("POST", "/v1/sandboxes/box/processes/ws/wait", Some(&closed));
    assert_eq!(waited.status, 200, "{}", String::from_utf8_lossy(&waited.body));
}

/// A page whose script speaks to its server over a WebSocket, and then tells it by an ordinary request what it heard.
const PAGE: &str = "<!doctype html><title>preview</title><script>
const socket = new WebSocket('ws://' + location.host + '/ws');
socket.onopen = () => socket.send('from the page');
socket.onmessage = event => fetch('/heard?' + encodeURIComponent(event.data + ' at ' + document.cookie));
socket.onerror = () => fetch('/heard?error');
</script>";

/// A browser with all its processes: Debian's program is a script that starts the real one. They end with the test,
/// however that ends.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[test]
fn the_clients_mistakes_are_not_the_servers_and_a_refusal_reaches_who_sends_all_first() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let head = format!("POST /x HTTP/1.1\r\nHost: {address}\r\nTransfer-Encoding: chunked\r\n\r\n");
    let answer = raw(&address, format!("{head}zz\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    // Nobody listens there; the whole body is sent before anything is read.
    let closed = authority(&expose(&daemon, "box", json!({"port": 9})));
    let length = 8 * 1024 * 1024;
    let head = format!("POST / HTTP/1.1\r\nHost: {closed}\r\nContent-Length: {length}\r\n\r\n");
    let answer = raw(&closed, &[head.as_bytes(), &vec![b'x'; length][..]].concat());
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[test]
fn a_browser_shows_a_preview_whose_page_has_a_websocket() {
    if !host::has_tool("chromium-headless-shell") {
        skip!("userland", "chromium is not installed");
    }
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: a=1; Domain=localhost\r\nContent-Length: {}\r\n\r\n",
        PAGE.len()
    );
    let url = format!("http://{address}/raw?{}", BASE64.encode(head + PAGE).replace('+', "%2B"));
    let profile = crate::harness::scratch();
    let browser = Command::new("chromium-headless-shell")
        .args(["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(&url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let browser = Browser(browser);
    let start = std::time::Instant::now();
    let heard = loop {
        let line = seen(&address).into_iter().find(|line| line.contains("/heard"));
        if line.is_some() || start.elapsed() > 4 * PATIENCE {
            break line;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    drop(browser);
    assert_eq!(heard.as_deref(), Some("GET /heard?from%20the%20page%20at%20a%3D1 HTTP/1.1"));
}
