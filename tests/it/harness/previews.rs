//! A sandbox with a server in it, and clients of its previews.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::{Connection, Response};
use super::{Daemon, PATIENCE};

pub const SERVER: &str = include_str!("../../fixtures/previews/server.py");

/// The sandbox in which most of this happens, and the port of its server.
pub const PORTS: &str = "/v1/sandboxes/box/ports";
pub const PORT: u16 = 8000;

/// A daemon with previews and a sandbox called `box`, in which a server listens.
pub fn serving() -> Daemon {
    let daemon = Daemon::with(&["--preview-listen", "127.0.0.1:0"]);
    daemon.create(json!({"id": "box"}));
    start(&daemon, "box", PORT, "0.0.0.0");
    daemon
}

/// Starts the server in a sandbox and waits until it listens.
#[track_caller]
pub fn start(daemon: &Daemon, sandbox: &str, port: u16, address: &str) {
    daemon.put(sandbox, "/workspace/server.py", SERVER.as_bytes());
    let id = format!("server-{port}");
    let argv = ["python3", "-u", "/workspace/server.py", &port.to_string(), address];
    let spec = json!({"id": id, "argv": argv});
    let path = format!("/v1/sandboxes/{sandbox}/processes");
    assert_eq!(daemon.request("POST", &path, Some(&spec)).status, 201);
    let ready = json!({"for": {"log": {"text": "listening"}}, "timeout_ms": 30_000});
    let waited = daemon.request("POST", &format!("{path}/{id}/wait"), Some(&ready));
    assert_eq!(waited.status, 200, "{}", String::from_utf8_lossy(&waited.body));
}

#[track_caller]
pub fn expose(daemon: &Daemon, sandbox: &str, spec: Value) -> Value {
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{sandbox}/ports"), Some(&spec));
    assert!(matches!(answer.status, 200 | 201), "{spec}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// The host name and port of a URL.
pub fn authority(exposed: &Value) -> String {
    let url = exposed["url"].as_str().unwrap_or_else(|| panic!("no url in {exposed}"));
    url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/')).unwrap().to_owned()
}

/// Connects to the preview listener, to ask for this host.
pub fn preview(authority: &str) -> Connection<TcpStream> {
    let port: u16 = authority.rsplit_once(':').unwrap().1.parse().unwrap();
    Connection::connect(("127.0.0.1", port), authority).unwrap()
}

#[track_caller]
pub fn get(authority: &str, path: &str) -> Response {
    preview(authority).request("GET", path, &[], b"").unwrap()
}

/// Sends bytes as they are to the preview listener, says after the first answer that there are no more, and reads what
/// comes until it closes. What waits for more bytes than were sent is not answered.
pub fn raw(authority: &str, bytes: &[u8]) -> String {
    let port: u16 = authority.rsplit_once(':').unwrap().1.parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut answer = vec![0; 64 * 1024];
    let first = stream.read(&mut answer).unwrap_or_default();
    answer.truncate(first);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    // A reset after the answer is an end too.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The request lines that the server has seen.
pub fn seen(authority: &str) -> Vec<String> {
    let log = get(authority, "/log").json();
    log.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

pub fn header<'a>(told: &'a Value, name: &str) -> Vec<&'a str> {
    let pairs = told["headers"].as_array().unwrap().iter();
    pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

/// Opens a WebSocket of a preview.
pub fn websocket(address: &str, path: &str) -> tungstenite::WebSocket<TcpStream> {
    let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    tungstenite::client(format!("ws://{address}{path}"), stream).unwrap().0
}
