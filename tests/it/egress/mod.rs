//! What the gateway does with requests beside letting them pass: credentials, TLS, handlers.
//!
//! A credential is looked for wherever a sandbox could find one; that it arrives where it should is seen at the server.

mod bounds;
mod changes;
mod clients;
mod credentials;
mod fair;
mod first;
mod handlers;
mod opened;
mod scan;

use serde_json::{Value, json};

use crate::harness::tls::Authority;
use crate::harness::world::World;
use crate::harness::{Daemon, id};

/// What no sandbox may see.
const SECRET: &str = "s3cr3t-0f-the-operator";

/// Functions for scripts in a sandbox.
const PRELUDE: &str = r#"
import socket, sys, os
def connect(where, port=80): return socket.create_connection((where, port), timeout=20)
def head(s):
    "The head of an answer, and what came of the body."
    data = b''
    while b'\r\n\r\n' not in data:
        part = s.recv(65536)
        if not part: break
        data += part
    return data.decode()
def ask(s, path='/', host='ok.test', method='GET', headers=''):
    "Asks on a connection, and gives the whole answer."
    s.sendall(f'{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n'.encode())
    text = head(s)
    length = next((int(l.split(':')[1]) for l in text.lower().split('\r\n') if l.startswith('content-length:')), 0)
    while len(text.partition('\r\n\r\n')[2]) < length: text += s.recv(65536).decode()
    return text
"#;

fn python(daemon: &Daemon, id: &str, script: &str) -> String {
    let result = daemon.run(id, json!({"argv": ["python3", "-c", format!("{PRELUDE}\n{script}")]}));
    assert_eq!(result["exit_code"], 0, "{script}: {result}");
    result["stdout"].as_str().unwrap().to_owned()
}

/// A daemon whose gateway trusts this authority.
fn start(world: &World, authority: &Authority) -> Daemon {
    let config = format!("{}ca_file = \"{}\"\n", world.config(""), authority.path().display());
    Daemon::within(&world.host(), &config)
}

/// Whether what takes long is to be done whole: every start, every port.
fn full() -> bool {
    std::env::var("STOCKADE_TEST_FULL").is_ok_and(|value| value == "1")
}

fn sandbox(daemon: &Daemon, network: &Value) -> String {
    id(&daemon.create(json!({"network": network})))
}

fn set(daemon: &Daemon, id: &str, policy: &Value) -> Value {
    let answer = daemon.request("PUT", &format!("/v1/sandboxes/{id}/network"), Some(policy));
    assert_eq!(answer.status, 200, "{policy}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn policy(daemon: &Daemon, id: &str) -> Value {
    daemon.get(&format!("/v1/sandboxes/{id}/network"))["policy"].clone()
}

/// A policy with a token for ok.test.
fn bearer() -> Value {
    json!({"host": "ok.test", "header": {"name": "authorization", "value": format!("Bearer {SECRET}")}})
}
