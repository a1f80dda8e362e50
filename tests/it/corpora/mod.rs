//! Collections of what attackers send, at both of the places that read HTTP from strangers: the listener of previews,
//! and the gateway in front of the world.
//!
//! Every case has its control: the same bytes, without a proxy between, are to a strict reader what the case says that
//! no server may get to see.

mod addresses;
mod hellos;
mod hosts;
mod requests;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use serde_json::json;

use crate::harness::previews::{PORT, authority, expose};
use crate::harness::recorder::{Recorder, Recording};
use crate::harness::world::{OTHER, SERVER, World};
use crate::harness::{Daemon, PATIENCE, id};

/// Bytes of a text: its letters are bytes, up to U+00FF.
fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|letter| u8::try_from(u32::from(letter)).unwrap()).collect()
}

/// Answers in what was read.
fn answers(read: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(read);
    let heads = text.split("HTTP/1.").skip(1);
    let codes = heads.filter_map(|rest| rest.get(2..5)?.parse().ok());
    // An interim answer is none.
    codes.filter(|code| *code >= 200).collect()
}

/// Sends bytes; reads until there were so many answers, says that nothing more comes, and reads to the end.
fn exchange(stream: &mut TcpStream, bytes: &[u8], wanted: usize) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    // What it refuses it need not read to the end.
    let _ = stream.write_all(bytes);
    let mut read = Vec::new();
    let mut buffer = [0; 16 * 1024];
    while answers(&read).len() < wanted {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => read.extend_from_slice(&buffer[..count]),
            _ => return read,
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        read.extend_from_slice(&buffer[..count]);
    }
    read
}

/// A way to send bytes to somebody who records what becomes of them.
struct Way {
    daemon: Daemon,
    sandbox: String,
    recorder: Recorder,
    /// What a request for it says as its host.
    host: String,
    /// Where its client connects.
    to: SocketAddr,
    inside: bool,
    // Fields are dropped in their order: first what listens in the sandbox's network or in the world's.
    recording: Option<Recording>,
    world: Option<World>,
}

impl Drop for Way {
    fn drop(&mut self) {
        // It would keep the sandbox's network.
        self.recording = None;
        let _ = &self.world;
    }
}

impl Way {
    /// Through the listener of previews to a port of a sandbox.
    fn preview() -> Self {
        let daemon = Daemon::with(&["--preview-listen", "127.0.0.1:0"]);
        let sandbox = id(&daemon.create(json!({"id": "box"})));
        let host = authority(&expose(&daemon, &sandbox, json!({"port": PORT, "token": "t0ken"})));
        let recorder = Recorder::default();
        let listener = daemon.in_network_of(&sandbox, || TcpListener::bind(("127.0.0.1", PORT)).unwrap());
        let recording = Some(recorder.serve(listener));
        let port = host.rsplit_once(':').unwrap().1.parse().unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        Self { daemon, sandbox, recorder, host, to, inside: false, recording, world: None }
    }

    /// Out of a sandbox and through the gateway to `ok.test`, the only name that its policy allows.
    fn gateway() -> Self {
        let world = World::new();
        let recorder = Recorder::default();
        let recording = Some(recorder.serve(world.listen("0.0.0.0:8080")));
        let daemon = Daemon::within(&world.host(), &world.config(""));
        let limits = json!({"connections_per_second": 10_000});
        let network = json!({"allow": ["ok.test:8080"], "limits": limits});
        let sandbox = id(&daemon.create(json!({"network": network})));
        // The gateway gives the address for the name, and remembers that.
        let resolve = "import socket; print(socket.gethostbyname('ok.test'))";
        let command = json!({"argv": ["python3", "-c", resolve]});
        assert_eq!(daemon.run(&sandbox, command)["stdout"], format!("{SERVER}\n"));
        let to = SocketAddr::new(SERVER.parse().unwrap(), 8080);
        // Whatever is taken for a request to evil.test would find somebody.
        assert_ne!(SERVER, OTHER);
        let host = "ok.test:8080".to_owned();
        Self { daemon, sandbox, recorder, host, to, inside: true, recording, world: Some(world) }
    }

    fn connect(&self) -> TcpStream {
        let to = self.to;
        let connect = move || TcpStream::connect(to).unwrap();
        if self.inside { self.daemon.in_network_of(&self.sandbox, connect) } else { connect() }
    }

    /// Sends bytes on a connection of their own; gives the answers' codes.
    fn send(&self, bytes: &[u8], wanted: usize) -> Vec<u16> {
        let mut stream = self.connect();
        answers(&exchange(&mut stream, bytes, wanted))
    }
}
