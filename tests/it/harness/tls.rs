//! Servers that speak TLS and HTTP, and remember what they were asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::world::World;

/// Somebody whom the daemon may be told to trust.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, stockade::gateway::authority::pem(certificate.der())).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// A file with its certificate, as long as this lives.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// A server that has these names, for one more hour, or until a while ago.
    pub fn server(&self, names: &[&str], valid: bool) -> Arc<ServerConfig> {
        let (leaf, key) = self.certificate(names, valid);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)
            .unwrap();
        Arc::new(config)
    }

    /// Writes a certificate with these names and its key, for a server of somebody else's, into a directory.
    pub fn write(&self, names: &[&str], directory: &Path) {
        let (leaf, key) = self.certificate(names, true);
        std::fs::write(directory.join("certificate"), stockade::gateway::authority::pem(&leaf)).unwrap();
        let key = BASE64.encode(key);
        let key = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
        std::fs::write(directory.join("key"), key).unwrap();
    }

    fn certificate(&self, names: &[&str], valid: bool) -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.use_authority_key_identifier_extension = true;
        // The same name as its authority's would make it self-signed to OpenSSL.
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "server");
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
        params.not_before = (now - 48 * hour).into();
        params.not_after = if valid { now + hour } else { now - hour }.into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        (leaf, key.serialize_der())
    }
}

/// A request as a server got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    /// The values of a header, joined.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.iter().filter(|(one, _)| one == name).map(|(_, value)| value.as_str());
        values.collect::<Vec<_>>().join(",")
    }
}

/// What a server was asked, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<Seen>>>);

impl Log {
    /// Everything since this was asked last.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The one request since this was asked last.
    #[track_caller]
    pub fn one(&self) -> Seen {
        let seen = self.take();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen[0].clone()
    }
}

/// Serves HTTP over TLS.
pub fn serve(world: &World, address: &str, config: Arc<ServerConfig>) -> Log {
    let log = Log::default();
    let seen = log.clone();
    world.serve(address, move |stream: TcpStream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        answer(StreamOwned::new(connection, stream), &seen);
    });
    log
}

/// Serves HTTP in clear.
pub fn serve_plain(world: &World, address: &str) -> Log {
    let log = Log::default();
    let seen = log.clone();
    world.serve(address, move |stream| answer(stream, &seen));
    log
}

/// Answers requests until the end. Whatever it is asked it says `hello HOST PATH`, but for
///
/// - `/to/URL`: sends there
/// - `/mirror`: sends back each piece of the body as it comes
/// - `/switch`: whatever follows is sent back
/// - `/info/refs`: what git wants of a repository
pub fn answer(stream: impl Read + Write, log: &Log) {
    let mut stream = BufReader::new(stream);
    while let Some(mut seen) = read_head(&mut stream) {
        let path = seen.line.split(' ').nth(1).unwrap_or_default().to_owned();
        let chunked = seen.header("transfer-encoding") == "chunked";
        let length = seen.header("content-length").parse().unwrap_or(0);
        if path == "/mirror" {
            log.0.lock().unwrap().push(seen);
            if mirror(&mut stream, chunked).is_none() {
                return;
            }
            continue;
        }
        if path == "/switch" {
            log.0.lock().unwrap().push(seen);
            let head =
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            let _ = stream.get_mut().write_all(head).and_then(|()| stream.get_mut().flush());
            let mut line = String::new();
            while matches!(stream.read_line(&mut line), Ok(1..)) {
                let _ = stream.get_mut().write_all(line.as_bytes()).and_then(|()| stream.get_mut().flush());
                line.clear();
            }
            return;
        }
        if chunked {
            while let Some(piece) = read_chunk(&mut stream) {
                seen.body.extend(piece);
            }
        } else {
            seen.body.resize(length, 0);
            if stream.read_exact(&mut seen.body).is_err() {
                return;
            }
        }
        let host = seen.header("host");
        log.0.lock().unwrap().push(seen);
        let (status, header, body) = match path.strip_prefix("/to/") {
            Some(url) => ("302 Found", format!("Location: {url}\r\n"), String::new()),
            None if path.starts_with("/repo/info/refs") => {
                let refs = format!("{}\trefs/heads/main\n", "1".repeat(40));
                ("200 OK", "Content-Type: text/plain\r\n".to_owned(), refs)
            }
            None => ("200 OK", String::new(), format!("hello {host} {path}\n")),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{header}\r\n{body}");
        let out = stream.get_mut();
        if out.write_all(answer.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

fn read_head(stream: &mut impl BufRead) -> Option<Seen> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        match stream.read_line(&mut line) {
            Ok(0) | Err(_) => return None,
            Ok(_) if line.trim().is_empty() && !lines.is_empty() => break,
            Ok(_) => lines.push(line.trim_end().to_owned()),
        }
    }
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Seen { line: lines[0].clone(), headers, body: Vec::new() })
}

fn read_chunk(stream: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let length = usize::from_str_radix(line.trim(), 16).ok()?;
    let mut piece = vec![0; length + 2];
    stream.read_exact(&mut piece).ok()?;
    piece.truncate(length);
    (length > 0).then_some(piece)
}

/// Each piece before the next is read: `None` when the connection is over.
fn mirror<S: Read + Write>(stream: &mut BufReader<S>, chunked: bool) -> Option<()> {
    assert!(chunked);
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.get_mut().write_all(head).ok()?;
    stream.get_mut().flush().ok()?;
    while let Some(piece) = read_chunk(stream) {
        let out = stream.get_mut();
        write!(out, "{:x}\r\n", piece.len()).ok()?;
        out.write_all(&piece).and_then(|()| out.write_all(b"\r\n")).and_then(|()| out.flush()).ok()?;
    }
    stream.get_mut().write_all(b"0\r\n\r\n").ok()?;
    stream.get_mut().flush().ok()
}
