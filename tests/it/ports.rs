//! Ports of sandboxes: their addresses and tokens, requests through the API's socket, forwarded connections.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::http::Connection;
use crate::harness::previews::{
    PORT, PORTS, authority, expose, get, header, preview, raw, seen, serving, start,
};
use crate::harness::{Daemon, PATIENCE, assert_error, binary, host, host_command};

#[test]
fn an_exposed_port_has_an_address_until_it_is_rotated_or_revoked() {
    let daemon = serving();
    assert_eq!(
        daemon.get("/v1/info")["preview"]["url"].as_str().map(|url| url.starts_with("http://localhost:")),
        Some(true)
    );
    let first = expose(&daemon, "box", json!({"port": PORT, "name": "web"}));
    let token = first["token"].as_str().unwrap();
    assert_eq!((token.len(), first["name"].as_str()), (16, Some("web")));
    let address = authority(&first);
    assert!(address.starts_with(&format!("8000-box-{token}.localhost:")), "{first}");
    let answer = get(&address, "/a/b?c=d");
    assert_eq!((answer.status, answer.json()["target"].as_str()), (200, Some("/a/b?c=d")));

    assert_eq!(daemon.get(PORTS)["ports"], json!([first]));
    assert_eq!(daemon.get("/v1/sandboxes/box/ports/8000"), first);
    let named = expose(&daemon, "box", json!({"port": PORT, "token": "my_token"}));
    assert_eq!(named["token"], "my_token");
    assert_error(&get(&address, "/"), 404, "INVALID_TOKEN");
    let address = authority(&named);
    assert_eq!(get(&address, "/").status, 200);

    assert_eq!(daemon.request("DELETE", "/v1/sandboxes/box/ports/8000", None).status, 204);
    assert_error(&get(&address, "/"), 404, "INVALID_TOKEN");
    assert_error(&daemon.request("DELETE", "/v1/sandboxes/box/ports/8000", None), 404, "PORT_NOT_EXPOSED");
    assert_error(&daemon.request("GET", "/v1/sandboxes/box/ports/8000", None), 404, "PORT_NOT_EXPOSED");
    assert_eq!(daemon.get(PORTS)["ports"], json!([]));
    for (body, field) in [(json!({"port": 0}), "port"), (json!({"port": 1, "token": "a-b"}), "token")] {
        let refused = assert_error(&daemon.request("POST", PORTS, Some(&body)), 400, "INVALID_REQUEST");
        assert_eq!(refused["context"]["field"], field);
    }
}

#[test]
fn tokens_survive_the_daemon_and_not_the_sandbox() {
    let mut daemon = Daemon::with(&["--preview-listen", "127.0.0.1:0"]);
    let sandbox = daemon.create(json!({"id": "box"}));
    start(&daemon, "box", PORT, "127.0.0.1");
    let exposed = expose(&daemon, "box", json!({"port": PORT}));
    daemon.kill_all();
    daemon.spawn();
    let again = daemon.get("/v1/sandboxes/box/ports/8000");
    assert_eq!(again["token"], exposed["token"]);
    // The port of this daemon's listener is another one; the label is the same.
    let address = authority(&again);
    assert_eq!(get(&address, "/").status, 200);

    kill(Pid::from_raw(i32::try_from(sandbox["pid"].as_i64().unwrap()).unwrap()), Signal::SIGKILL).unwrap();
    host::wait_for("the end to be noticed", || {
        daemon.request("GET", "/v1/sandboxes/box", None).json()["state"] == "dead"
    });
    assert_error(&get(&address, "/"), 410, "STALE_PREVIEW_URL");
    assert_eq!(daemon.get("/v1/sandboxes/box")["state"], "dead", "asking has woken it");
    daemon.destroy("box");
    assert_error(&get(&address, "/"), 410, "STALE_PREVIEW_URL");
    daemon.create(json!({"id": "box"}));
    assert_error(&get(&address, "/"), 410, "STALE_PREVIEW_URL");
    daemon.kill_all();
    daemon.spawn();
    let address = authority(&expose(&daemon, "box", json!({"port": 1})));
    let port = address.rsplit_once(':').unwrap().1;
    let stale = format!("8000-box-{}.localhost:{port}", exposed["token"].as_str().unwrap());
    assert_error(&get(&stale, "/"), 410, "STALE_PREVIEW_URL");
    let never = format!("8000-box-never.localhost:{port}");
    assert_error(&get(&never, "/"), 404, "INVALID_TOKEN");
}

#[test]
fn a_token_opens_one_port_of_one_sandbox_and_is_not_guessed() {
    let daemon = serving();
    daemon.create(json!({"id": "other"}));
    start(&daemon, "other", PORT, "0.0.0.0");
    let mine = authority(&expose(&daemon, "box", json!({"port": PORT, "token": "tokenofbox"})));
    expose(&daemon, "other", json!({"port": PORT, "token": "tokenofother"}));
    let port = mine.rsplit_once(':').unwrap().1.to_owned();
    for label in [
        "8000-other-tokenofbox",
        "8000-box-tokenofother",
        "8001-box-tokenofbox",
        "22-box-tokenofbox",
        "8000-box-tokenofbo",
        "8000-box-tokenofboxx",
        "8000-box-tokenofboy",
        "8000-box-",
        "8000-nobody-tokenofbox",
        "08000-box-tokenofbox",
        "box-8000-tokenofbox",
    ] {
        assert_error(&get(&format!("{label}.localhost:{port}"), "/"), 404, "INVALID_TOKEN");
    }
    let mut connection = preview(&mine);
    for guess in 0..500 {
        let host = format!("8000-box-{guess:016x}.localhost:{port}");
        connection.send_raw(format!("GET /guess HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(connection.receive().unwrap().status, 404, "{host}");
    }
    let lines = seen(&mine);
    assert_eq!(lines, ["GET /log HTTP/1.1"], "something came through");
}

#[test]
fn a_host_that_is_not_one_or_not_ours_reaches_nothing() {
    let daemon = serving();
    let good = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let host = good.rsplit_once(':').unwrap().0.to_owned();
    let ask = |head: &str| raw(&good, format!("{head}\r\nConnection: close\r\n\r\n").as_bytes());
    let status = |answer: &str| answer.get(9..12).and_then(|text| text.parse::<u16>().ok());
    for (head, expected) in [
        ("GET /x HTTP/1.1", 400),
        (&*format!("GET /x HTTP/1.1\r\nHost: {host}\r\nHost: {host}"), 400),
        (&format!("GET /x HTTP/1.1\r\nHost: evil.example\r\nHost: {host}"), 400),
        (&format!("GET http://evil.example/x HTTP/1.1\r\nHost: {host}"), 400),
        (&format!("GET http://{host}/x HTTP/1.1\r\nHost: evil.example"), 400),
        (&format!("GET http://{host}@evil.example/x HTTP/1.1\r\nHost: {host}"), 400),
        ("GET /x HTTP/1.1\r\nHost: evil.example", 421),
        ("GET /x HTTP/1.1\r\nHost: 127.0.0.1", 421),
        ("GET /x HTTP/1.1\r\nHost: localhost", 421),
        (&format!("GET /x HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: {host}"), 421),
        (&format!("GET /x HTTP/1.1\r\nHost: {host}.evil.example"), 421),
        (&format!("GET /x HTTP/1.1\r\nHost: a.{host}"), 421),
        (&format!("GET /x HTTP/1.1\r\nHost: {host}:80:80"), 421),
        (&format!("GET /x HTTP/1.1\r\nHost: {host}, evil.example"), 421),
        ("GET /v1/info HTTP/1.1\r\nHost: stockade", 421),
        (&format!("CONNECT {host}:22 HTTP/1.1\r\nHost: {host}:22"), 405),
        (&format!("TRACE /x HTTP/1.1\r\nHost: {host}"), 405),
    ] {
        let answer = ask(head);
        assert_eq!(status(&answer), Some(expected), "{head:?}: {answer}");
    }
    assert_eq!(seen(&good), ["GET /log HTTP/1.1"], "something came through");
    // What is right is not refused: the target may be absolute, a name has no case, and its port may be another one.
    for head in [
        format!("GET http://{host}/ok HTTP/1.1\r\nHost: {host}"),
        format!("GET /ok HTTP/1.1\r\nHost: {}", host.to_uppercase()),
        format!("GET /ok HTTP/1.1\r\nHost: {host}:1"),
        format!("GET /ok HTTP/1.0\r\nHost: {host}"),
    ] {
        let answer = ask(&head);
        assert_eq!(status(&answer), Some(200), "{head:?}: {answer}");
        assert!(answer.contains("\"target\": \"/ok\""), "{answer}");
    }
}

#[test]
fn failures_of_the_daemon_are_told_from_those_of_a_server() {
    let daemon = serving();
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    // Everything that a failure of ours has but the header, and that too.
    let body = r#"{"code":"SHUTTING_DOWN","message":"m","hint":"h","context":null,"request_id":"r"}"#;
    let head = "content-type: application/json\r\nx-request-id: r\r\nX-Stockade-Error: SHUTTING_DOWN";
    let lie = format!("HTTP/1.1 503 Busy\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let target = format!("raw?{}", BASE64.encode(lie).replace('+', "%2B"));
    let proxied = daemon.request("GET", &format!("{PORTS}/8000/proxy/{target}"), None);
    for answer in [proxied, get(&address, &format!("/{target}"))] {
        assert_eq!((answer.status, answer.body.as_slice()), (503, body.as_bytes()));
        assert_eq!((answer.header("x-request-id"), answer.header("x-stockade-error")), (Some("r"), None));
    }
    let ours = daemon.request("GET", &format!("{PORTS}/9/proxy/"), None);
    assert_eq!(ours.header("x-stockade-error"), Some("PORT_CLOSED"));
    let preview = get(&format!("9-{address}"), "/");
    assert_eq!(preview.header("x-stockade-error"), Some("INVALID_TOKEN"));
    assert_eq!(daemon.get("/v1/sandboxes/box")["id"], "box");
    assert!(daemon.request("GET", "/v1/nowhere", None).header("x-stockade-error").is_some());
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for_or_said_to_be() {
    let daemon = Daemon::with(&["--preview-listen", "127.0.0.1:0"]);
    daemon.create(json!({"id": "box"}));
    let address = authority(&expose(&daemon, "box", json!({"port": PORT})));
    let answer = get(&address, "/");
    assert_error(&answer, 502, "PORT_CLOSED");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let page = preview(&address).request("GET", "/", &[("Accept", "text/html,*/*;q=0.8")], b"").unwrap();
    assert_eq!((page.status, page.header("content-type")), (502, Some("text/html; charset=utf-8")));
    assert!(String::from_utf8_lossy(&page.body).contains("PORT_CLOSED"));
    let proxied = daemon.request("GET", &format!("{PORTS}/8000/proxy/"), None);
    assert_error(&proxied, 502, "PORT_CLOSED");
    assert_eq!(proxied.header("retry-after"), Some("1"));

    expose(&daemon, "box", json!({"port": PORT, "token": "t", "wait_ms": 60_000}));
    let address = format!("8000-box-t.localhost:{}", address.rsplit_once(':').unwrap().1);
    std::thread::scope(|scope| {
        let early = scope.spawn(|| get(&address, "/early-bird"));
        let socket = scope.spawn(|| {
            daemon.send("GET", &format!("{PORTS}/8000/proxy/x"), &[("x-stockade-wait-ms", "60000")], b"")
        });
        std::thread::sleep(Duration::from_millis(300));
        start(&daemon, "box", PORT, "127.0.0.1");
        assert_eq!(early.join().unwrap().status, 200);
        assert_eq!(socket.join().unwrap().status, 200);
    });
    let never = daemon.send("GET", &format!("{PORTS}/9/proxy/"), &[("x-stockade-wait-ms", "50")], b"");
    assert_error(&never, 502, "PORT_CLOSED");
    let wrong = daemon.send("GET", &format!("{PORTS}/9/proxy/"), &[("x-stockade-wait-ms", "x")], b"");
    assert_error(&wrong, 400, "INVALID_REQUEST");
}

#[test]
fn a_port_is_reached_through_the_apis_socket_on_whichever_loopback_it_listens() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    for (port, address) in [(8000, "127.0.0.1"), (8001, "::1"), (8002, "0.0.0.0"), (8003, "::")] {
        start(&daemon, "box", port, address);
        let told = daemon.send(
            "POST",
            &format!("{PORTS}/{port}/proxy/a%2Fb//c?d=%20"),
            &[("X-Forwarded-For", "6.6.6.6")],
            b"body",
        );
        assert_eq!(told.status, 200, "{address}: {}", String::from_utf8_lossy(&told.body));
        let told = told.json();
        assert_eq!((told["target"].as_str(), told["length"].as_u64()), (Some("/a%2Fb//c?d=%20"), Some(4)));
        assert_eq!(header(&told, "host"), [format!("localhost:{port}")]);
        assert_eq!(header(&told, "x-sandbox-name"), ["box"]);
        assert_eq!(header(&told, "x-forwarded-for"), [""; 0]);
    }
    for path in ["", "/"] {
        assert_eq!(daemon.request("PATCH", &format!("{PORTS}/8000/proxy{path}"), None).json()["target"], "/");
    }
    // Without a listener there is no address, and the port is no less exposed.
    let exposed = expose(&daemon, "box", json!({"port": PORT}));
    assert_eq!(exposed["url"], Value::Null);
    assert_eq!(daemon.get("/v1/info")["preview"], Value::Null);
    assert_error(&daemon.request("GET", &format!("{PORTS}/0/proxy/"), None), 400, "INVALID_REQUEST");
    assert_error(
        &daemon.request("GET", "/v1/sandboxes/none/ports/80/proxy/", None),
        404,
        "SANDBOX_NOT_FOUND",
    );
    let plain = daemon.request("GET", &format!("{PORTS}/8000/connect"), None);
    assert_error(&plain, 400, "INVALID_REQUEST");
}

/// A forwarder that runs until it is dropped.
struct Forwarder {
    child: Child,
    address: String,
}

impl Forwarder {
    fn start(daemon: &Daemon, arguments: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .arg("forward")
            .args(arguments)
            .env("STOCKADE_SOCKET", daemon.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split(" -> ").next().unwrap().to_owned();
        Self { child, address }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_forwarded_port_carries_any_protocol_and_many_connections() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    start(&daemon, "box", PORT, "127.0.0.1");
    // A protocol that is no HTTP, whose server speaks first and hears the end of what it is sent.
    let server = "import socket,threading
s=socket.create_server(('127.0.0.1',7000),backlog=64)
print('listening',flush=True)
def talk(c):
    c.sendall(b'hello ')
    data=b''
    while part:=c.recv(65536): data+=part
    c.sendall(str(len(data)).encode()); c.close()
while True: threading.Thread(target=talk,args=(s.accept()[0],)).start()";
    let spec = json!({"id": "raw", "argv": ["python3", "-c", server]});
    assert_eq!(daemon.request("POST", "/v1/sandboxes/box/processes", Some(&spec)).status, 201);
    let forwarder = Forwarder::start(&daemon, &["box", "0:7000", "--wait", "30s"]);
    let connections: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(&forwarder.address).unwrap()).collect();
    for (index, mut connection) in connections.into_iter().enumerate() {
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut hello = [0; 6];
        connection.read_exact(&mut hello).unwrap();
        connection.write_all(&vec![1; 1000 * index]).unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        let mut rest = String::new();
        connection.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, (1000 * index).to_string());
    }
    let http = Forwarder::start(&daemon, &["box", "0:8000"]);
    let mut connection = Connection::connect(&*http.address, "anything").unwrap();
    assert_eq!(header(&connection.request("GET", "/", &[], b"").unwrap().json(), "Host"), ["anything"]);
    // A connection that is open when the sandbox ends is closed, and pins nothing of it (the harness looks).
    let mut open = TcpStream::connect(&forwarder.address).unwrap();
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    open.read_exact(&mut [0; 6]).unwrap();
    daemon.destroy("box");
    assert!(matches!(open.read(&mut [0; 6]), Ok(0) | Err(_)));
    let refused = daemon.cli(&["forward", "box", "80"]);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("no sandbox"),
        "{refused:?}"
    );
}

#[test]
fn the_command_line_exposes_lists_and_revokes() {
    let daemon = serving();
    let url = daemon.cli(&["port", "expose", "box", "8000", "--name", "web", "--wait", "5s"]);
    assert!(url.status.success(), "{url:?}");
    let url = String::from_utf8(url.stdout).unwrap();
    // curl knows that names below localhost are this host.
    assert!(host_command("curl", &["-s", url.trim()]).contains("\"x-sandbox-name\", \"box\""), "{url}");
    let list = String::from_utf8(daemon.cli(&["port", "ls", "box"]).stdout).unwrap();
    assert!(list.contains("8000") && list.contains("web") && list.contains(url.trim()), "{list}");
    let list: Value = serde_json::from_slice(&daemon.cli(&["--json", "port", "ls", "box"]).stdout).unwrap();
    assert_eq!(
        (list["ports"][0]["port"].as_u64(), list["ports"][0]["wait_ms"].as_u64()),
        (Some(8000), Some(5000))
    );
    assert!(daemon.cli(&["port", "revoke", "box", "8000"]).status.success());
    let again = daemon.cli(&["port", "revoke", "box", "8000"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("stockade port ls"), "{again:?}");
}

#[test]
fn a_listener_has_the_address_that_is_asked_for_and_says_what_browsers_see() {
    let daemon =
        Daemon::with(&["--preview-listen", "127.0.0.1:0", "--preview-url", "https://Preview.Example.com"]);
    daemon.create(json!({"id": "box"}));
    let exposed = expose(&daemon, "box", json!({"port": PORT, "token": "t"}));
    assert_eq!(exposed["url"], "https://8000-box-t.preview.example.com/");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (arguments, says) in [
        (["--preview-listen", &*address], "cannot listen for previews"),
        (["--preview-listen", "nowhere"], "preview.listen must be an address"),
        (["--preview-url", "http://127.0.0.1"], "preview.url must be"),
    ] {
        let directory = crate::harness::scratch();
        let output = Command::new(binary())
            .args(["serve", "--state-dir"])
            .arg(directory.path().join("state"))
            .arg("--runtime-dir")
            .arg(directory.path().join("run"))
            .args(["--preview-listen", "127.0.0.1:0"].iter().take(if arguments[0] == "--preview-url" {
                2
            } else {
                0
            }))
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(says), "{arguments:?}: {text}");
    }
}
