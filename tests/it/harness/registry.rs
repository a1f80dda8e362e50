//! A registry of one image under every name, in a thread, that misbehaves on request.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use super::image::{Blob, sha256};

/// How a registry departs from what it should do.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// Wait before each 64 KiB of a blob.
    pub chunk_delay: Duration,
    /// Ask for this bearer token, and give it to whom has a name and a password.
    pub token: Option<String>,
    /// Give no token.
    pub deny: bool,
    /// Send readers of blobs to another registry.
    pub redirect_blobs_to: Option<String>,
    /// Cut the connection after so many bytes of a blob, on every first request for it.
    pub cut_after: Option<usize>,
    /// Answer 503 to the first so many requests.
    pub fail_first: u32,
    /// Flip a bit in every layer.
    pub corrupt: bool,
    /// Answer with another manifest than the one asked for.
    pub wrong_manifest: bool,
}

#[derive(Debug, Default)]
struct Seen {
    requests: BTreeMap<String, u32>,
    authorizations: Vec<String>,
    ranges: u32,
    total: u32,
}

/// The registry; its thread ends with the process, and nextest gives each test its own.
#[derive(Debug)]
pub struct Fake {
    pub address: String,
    pub image: Vec<Blob>,
    seen: Arc<Mutex<Seen>>,
}

impl Fake {
    pub fn start(image: Vec<Blob>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let origin = Arc::new(Origin {
            image: image.clone(),
            behaviour,
            seen: Arc::clone(&seen),
            address: address.clone(),
        });
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let origin = Arc::clone(&origin);
                // A client that goes away is part of the tests.
                std::thread::spawn(move || origin.converse(stream).is_ok());
            }
        });
        Self { address, image, seen }
    }

    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    /// How often each path was asked for by GET.
    pub fn requests(&self) -> BTreeMap<String, u32> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// The credentials that came.
    pub fn authorizations(&self) -> Vec<String> {
        self.seen.lock().unwrap().authorizations.clone()
    }

    /// How many requests asked for the rest of something.
    pub fn ranges(&self) -> u32 {
        self.seen.lock().unwrap().ranges
    }
}

/// A request, as far as it matters.
#[derive(Debug, Default)]
struct Request {
    method: String,
    path: String,
    authorization: String,
    from: usize,
}

impl Request {
    fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut request = Self::default();
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            let text = line.trim_end();
            if text.is_empty() {
                return Ok(Some(request));
            }
            if request.method.is_empty() {
                let mut words = text.split(' ');
                words.next().unwrap_or_default().clone_into(&mut request.method);
                words.next().unwrap_or_default().clone_into(&mut request.path);
            } else if let Some((name, value)) = text.split_once(':') {
                request.header(&name.to_ascii_lowercase(), value.trim());
            }
            line.clear();
        }
        Ok(None)
    }

    fn header(&mut self, name: &str, value: &str) {
        match name {
            "authorization" => value.clone_into(&mut self.authorization),
            "range" => {
                self.from = value.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap_or(0);
            }
            _ => {}
        }
    }
}

/// The answering side.
struct Origin {
    image: Vec<Blob>,
    behaviour: Behaviour,
    seen: Arc<Mutex<Seen>>,
    address: String,
}

impl Origin {
    fn converse(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        while let Some(request) = Request::read(&mut reader)? {
            let (count, total) = self.note(&request);
            self.answer(&mut writer, &request, count, total)?;
        }
        Ok(())
    }

    /// Counts a request; gives how often this path and how often anything was asked for.
    fn note(&self, request: &Request) -> (u32, u32) {
        let mut seen = self.seen.lock().unwrap();
        seen.total += 1;
        seen.ranges += u32::from(request.from > 0);
        if !request.authorization.is_empty() {
            seen.authorizations.push(request.authorization.clone());
        }
        let total = seen.total;
        let count = seen.requests.entry(request.path.clone()).or_default();
        *count += u32::from(request.method == "GET");
        (*count, total)
    }

    fn answer(&self, writer: &mut TcpStream, request: &Request, count: u32, total: u32) -> io::Result<()> {
        let head_only = request.method == "HEAD";
        let mut respond = |status: &str, headers: &str, body: &[u8]| {
            write!(writer, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len())?;
            if head_only { Ok(()) } else { writer.write_all(body) }
        };
        if total <= self.behaviour.fail_first {
            return respond("503 Service Unavailable", "Retry-After: 0\r\n", b"");
        }
        if request.path.starts_with("/token") {
            let fine = !self.behaviour.deny && request.authorization.starts_with("Basic ");
            let body = if fine { json!({"token": self.behaviour.token}) } else { json!({}) };
            let status = if fine { "200 OK" } else { "401 Unauthorized" };
            return respond(status, "Content-Type: application/json\r\n", body.to_string().as_bytes());
        }
        if let Some(token) = &self.behaviour.token
            && request.authorization != format!("Bearer {token}")
        {
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"test\",scope=\"repository:x:pull\"\r\n",
                self.address
            );
            return respond("401 Unauthorized", &challenge, b"{}");
        }
        if request.path.contains("/manifests/") {
            let mut bytes = self.image[0].bytes.clone();
            if self.behaviour.wrong_manifest {
                bytes.push(b' ');
            }
            let (kind, digest) = (self.image[0].media_type, sha256(&bytes));
            return respond(
                "200 OK",
                &format!("Content-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\n"),
                &bytes,
            );
        }
        let Some((_, digest)) = request.path.split_once("/blobs/") else {
            return respond("200 OK", "", b"{}");
        };
        if let Some(other) = &self.behaviour.redirect_blobs_to {
            let place = format!("Location: http://{other}{}\r\n", request.path);
            return respond("307 Temporary Redirect", &place, b"");
        }
        match self.image.iter().find(|blob| blob.digest() == digest) {
            Some(blob) => self.send_blob(writer, blob, request.from, count),
            None => respond("404 Not Found", "", b"{}"),
        }
    }

    fn send_blob(&self, writer: &mut TcpStream, blob: &Blob, from: usize, count: u32) -> io::Result<()> {
        let mut bytes = blob.bytes.clone();
        if self.behaviour.corrupt && bytes.len() > 100_000 {
            bytes[90_000] ^= 1;
        }
        let rest = &bytes[from.min(bytes.len())..];
        let (length, whole) = (rest.len(), bytes.len());
        if from > 0 {
            let range = format!("Content-Range: bytes {from}-{}/{whole}\r\n", whole - 1);
            write!(writer, "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n{range}\r\n")?;
        } else {
            write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nAccept-Ranges: bytes\r\n\r\n")?;
        }
        let mut sent = 0;
        for chunk in rest.chunks(64 * 1024) {
            std::thread::sleep(self.behaviour.chunk_delay);
            if self.behaviour.cut_after.is_some_and(|most| sent >= most && count == 1) {
                writer.shutdown(Shutdown::Both)?;
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            writer.write_all(chunk)?;
            sent += chunk.len();
        }
        Ok(())
    }
}
