//! A small internet: a namespace for the daemon, one for everybody else, and servers with public addresses in it.
//!
//! ```text
//! daemon's namespace                         the world's
//! HOST 9.9.8.1 ── veth ──────────────────── 9.9.8.2, SERVER 9.9.9.9, OTHER 9.9.9.10, INSIDE 10.9.9.9, 169.254.169.254
//! ```

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::{host, host_command};

/// The daemon's host, with an address that looks public.
pub const HOST: &str = "9.9.8.1";
/// Where most servers are.
pub const SERVER: &str = "9.9.9.9";
/// Another.
pub const OTHER: &str = "9.9.9.10";

/// What names lead to.
type Zone = Arc<Mutex<HashMap<String, Leads>>>;

/// What a name leads to.
#[derive(Clone, Debug, Default)]
struct Leads {
    /// Other names, one after the other, before it comes to addresses.
    aliases: Vec<String>,
    /// Answers that take turns.
    turns: Vec<Vec<IpAddr>>,
    asked: usize,
    ttl: u8,
}

/// The two namespaces, until this is dropped.
#[derive(Debug)]
pub struct World {
    host: String,
    world: String,
    zone: Zone,
}

impl World {
    /// Makes it, with a name server on [`SERVER`] and a web server on port 80 of every address.
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("st-{}-{number}-{what}", std::process::id());
        let this = Self { host: name("h"), world: name("w"), zone: Zone::default() };
        let ip = |line: &str| {
            host_command("ip", &line.split_whitespace().collect::<Vec<_>>());
        };
        let Self { host, world, .. } = &this;
        ip(&format!("netns add {host}"));
        ip(&format!("netns add {world}"));
        ip(&format!("link add out netns {host} type veth peer name in netns {world}"));
        for line in [
            format!("-n {host} link set lo up"),
            format!("-n {world} link set lo up"),
            format!("-n {host} addr add {HOST}/24 dev out"),
            format!("-n {host} link set out up"),
            format!("-n {world} addr add 9.9.8.2/24 dev in"),
            format!("-n {world} link set in up"),
            format!("-n {host} route add default via 9.9.8.2"),
            format!("-n {host} addr add 2606:4700::1/64 dev out nodad"),
            format!("-n {world} addr add 2606:4700::2/64 dev in nodad"),
        ] {
            ip(&line);
        }
        for address in [SERVER, OTHER, "10.9.9.9", "169.254.169.254", "192.168.7.7", "100.100.100.200"] {
            ip(&format!("-n {world} addr add {address}/32 dev lo"));
        }
        for (name, address) in [("ok.test", SERVER), ("other.test", SERVER), ("evil.test", OTHER)] {
            this.name(name, &[address]);
        }
        this.answer_names();
        this.web("0.0.0.0:80");
        this
    }

    /// The daemon's namespace.
    pub fn host(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.host)
    }

    /// The configuration of a daemon in it.
    pub fn config(&self, open: &str) -> String {
        format!("log = \"info\"\n[network]\nresolvers = [\"{SERVER}:53\"]\nopen = [{open}]\n")
    }

    /// Adds an address to the world.
    pub fn address(&self, address: &str) {
        host_command("ip", &["-n", &self.world, "addr", "add", &format!("{address}/32"), "dev", "lo"]);
    }

    /// Lets a name lead somewhere.
    pub fn name(&self, name: &str, addresses: &[&str]) {
        self.lead(name, &[], &[addresses], 5);
    }

    /// Lets a name lead over others to addresses, to other ones each time that it is asked for.
    pub fn lead(&self, name: &str, aliases: &[&str], turns: &[&[&str]], ttl: u8) {
        let turn = |turn: &&[&str]| turn.iter().map(|address| address.parse().unwrap()).collect();
        let leads = Leads {
            aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
            turns: turns.iter().map(turn).collect(),
            asked: 0,
            ttl,
        };
        self.zone.lock().unwrap().insert(name.to_owned(), leads);
    }

    /// How often a name was asked for.
    pub fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap().get(name).map_or(0, |leads| leads.asked)
    }

    /// Makes every address of a range one of the world's, to which the daemon's host has a way.
    pub fn range(&self, range: &str) {
        host_command("ip", &["-n", &self.world, "route", "add", "local", range, "dev", "lo"]);
        if range.contains(':') {
            let via = ["-n", &self.host, "-6", "route", "replace", range, "via", "2606:4700::2"];
            host_command("ip", &via);
        }
    }

    /// Does something in a namespace: the world's, or the daemon's.
    fn inside<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        host::in_network(&PathBuf::from("/run/netns").join(name), work)
    }

    /// A listener in the world.
    pub fn listen(&self, address: &str) -> TcpListener {
        self.inside(&self.world, || TcpListener::bind(address).unwrap())
    }

    /// Does something in the world.
    pub fn in_world<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside(&self.world, work)
    }

    /// The command line of a program in the world.
    pub fn command(&self, program: &str) -> std::process::Command {
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.world)).arg(program);
        command
    }

    /// Does something on the daemon's host.
    pub fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.inside(&self.host, work)
    }

    /// Connects from the daemon's host and gives what a web server there says: the positive control.
    pub fn get_from_host(&self, address: &str) -> String {
        self.inside(&self.host, || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /control HTTP/1.0\r\nHost: control\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
    }

    /// Serves every connection to an address of the world; gives the number of those that came.
    pub fn serve(&self, address: &str, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Arc<AtomicU32> {
        let listener = self.inside(&self.world, || TcpListener::bind(address).unwrap());
        attend(listener, serve)
    }

    /// A web server on the daemon's own host.
    pub fn web_on_host(&self, address: &str) {
        let listener = self.inside(&self.host, || TcpListener::bind(address).unwrap());
        attend(listener, answer_requests);
    }

    /// A web server that answers `hello HOST PATH`.
    pub fn web(&self, address: &str) -> Arc<AtomicU32> {
        self.serve(address, answer_requests)
    }

    fn answer_names(&self) {
        let address: SocketAddr = format!("{SERVER}:53").parse().unwrap();
        let socket = self.inside(&self.world, || UdpSocket::bind(address).unwrap());
        let zone = Arc::clone(&self.zone);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let answer = answer(&buffer[..length], &mut zone.lock().unwrap());
                let _ = socket.send_to(&answer, from);
            }
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in [&self.host, &self.world] {
            host_command("ip", &["netns", "del", name]);
        }
    }
}

fn attend(listener: TcpListener, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Arc<AtomicU32> {
    let count = Arc::new(AtomicU32::new(0));
    let (counter, serve) = (Arc::clone(&count), Arc::new(serve));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counter.fetch_add(1, Ordering::SeqCst);
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    count
}

/// Answers requests without a body until the end.
fn answer_requests(stream: TcpStream) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.trim().is_empty() && !head.is_empty() => break,
                Ok(_) => head.push(line.trim().to_owned()),
            }
        }
        let path = head[0].split(' ').nth(1).unwrap_or_default();
        let host = head.iter().find_map(|line| line.strip_prefix("host: ").or(line.strip_prefix("Host: ")));
        let body = format!("hello {} {path}\n", host.unwrap_or("-"));
        let last = head[0].ends_with("1.0");
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if writer.write_all(answer.as_bytes()).is_err() || last {
            return;
        }
    }
}

/// An answer with the addresses of a name (RFC 1035 §4).
fn answer(question: &[u8], zone: &mut HashMap<String, Leads>) -> Vec<u8> {
    let mut at = 12;
    let mut labels = Vec::new();
    while question[at] != 0 {
        let length = usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..at + 1 + length]).to_ascii_lowercase());
        at += length + 1;
    }
    let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    let mut found = zone.get_mut(&labels.join("."));
    let mut records = Vec::new();
    if let Some(leads) = &mut found {
        leads.asked += 1;
        // The name that was asked for is at the question's place.
        let mut owner = vec![0xc0, 12];
        for alias in &leads.aliases {
            let next = encoded(alias);
            records.push(record(&owner, 5, leads.ttl, &next));
            owner = next;
        }
        // Questions for both kinds of addresses come in pairs, and belong to the same turn.
        let turn = &leads.turns[(leads.asked - 1) / 2 % leads.turns.len()];
        records.extend(turn.iter().filter_map(|address| match (kind, address) {
            (1, IpAddr::V4(address)) => Some(record(&owner, 1, leads.ttl, &address.octets())),
            (28, IpAddr::V6(address)) => Some(record(&owner, 28, leads.ttl, &address.octets())),
            _ => None,
        }));
    }
    let code = if found.is_some() { 0x80 } else { 0x83 };
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, code, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    answer.extend(&question[12..at + 5]);
    answer.extend(records.concat());
    answer
}

fn encoded(name: &str) -> Vec<u8> {
    let labels = name
        .split('.')
        .flat_map(|label| std::iter::once(u8::try_from(label.len()).unwrap()).chain(label.bytes()));
    labels.chain([0]).collect()
}

fn record(owner: &[u8], kind: u8, ttl: u8, data: &[u8]) -> Vec<u8> {
    let mut record = owner.to_vec();
    record.extend([0, kind, 0, 1, 0, 0, 0, ttl, 0, u8::try_from(data.len()).unwrap()]);
    record.extend(data);
    record
}

/// For addresses that are written as numbers.
pub fn number(address: &str) -> u32 {
    address.parse::<Ipv4Addr>().unwrap().into()
}
