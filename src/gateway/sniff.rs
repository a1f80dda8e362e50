//! What is spoken on a connection, by its first bytes.
//!
//! | first bytes | |
//! |---|---|
//! | a handshake record of TLS | TLS; the name is the SNI |
//! | a line of text with ` HTTP/` in it, however it is written, empty lines before it | HTTP, and [`web`](super::web) looks at every request |
//! | `GET /` and no version; a long line that begins like a request | the same: there are servers that answer |
//! | anything else | something else |
//!
//! Nothing is passed on before this is decided, but for half a line where anything may be said: what a server could take
//! for HTTP is held until its first line ends, and no request is whole without that.

use std::io;

use tokio::net::TcpStream;

use super::policy::Spoken;
use super::rule;

/// Bytes in which it must be decided. A ClientHello is below 2 KiB, with many extensions below 16.
const BYTES_MAX: usize = 20 * 1024;

/// Bytes of the first line of what could be HTTP.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// The beginning of a connection.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// What was read.
    pub(super) bytes: Vec<u8>,
    /// What it is, once that is known.
    pub(super) heard: Option<Heard>,
}

/// What is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) spoken: Spoken,
    /// The name that TLS says.
    pub(super) name: Option<String>,
}

impl Opening {
    /// Reads until it is known what is spoken; the end makes what was read all that there is. Cancel-safe. False when
    /// the stream ended without a byte.
    pub(super) async fn listen(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while self.heard.is_none() {
            if !self.read(stream).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads once, as [`listen`](Self::listen) does.
    pub(super) async fn read(&mut self, stream: &TcpStream) -> io::Result<bool> {
        loop {
            stream.readable().await?;
            let mut buffer = [0; 4096];
            match stream.try_read(&mut buffer) {
                Ok(0) if self.bytes.is_empty() => return Ok(false),
                Ok(0) => self.heard = Some(cut(&self.bytes)),
                Ok(length) => {
                    self.bytes.extend_from_slice(&buffer[..length]);
                    self.heard = classify(&self.bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            return Ok(true);
        }
    }

    /// What it would be if nothing followed.
    pub(super) fn so_far(&self) -> Spoken {
        self.bytes.first().map_or(Spoken::Other, |_| cut(&self.bytes).spoken)
    }
}

fn http() -> Heard {
    Heard { spoken: Spoken::Http, name: None }
}

fn other() -> Heard {
    Heard { spoken: Spoken::Other, name: None }
}

/// What ended before it could be told. Half a hello says no name; half a line is no request.
fn cut(bytes: &[u8]) -> Heard {
    if bytes[0] == 0x16 { Heard { spoken: Spoken::Tls, name: None } } else { other() }
}

/// What these bytes begin; `None` when it takes more to tell.
fn classify(bytes: &[u8]) -> Option<Heard> {
    if bytes[0] == 0x16 {
        return match bytes.get(1) {
            None => None,
            Some(3) => tls(bytes),
            Some(_) => Some(other()),
        };
    }
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let line = bytes[start..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let ended = start + line.len() < bytes.len();
    if line.iter().any(|byte| !matches!(byte, b'\t'..=b'\r' | b' '..=b'~' | 0x80..)) {
        return Some(other());
    }
    if says_version(line) {
        return Some(http());
    }
    let too_long = bytes.len() > LINE_BYTES_MAX;
    // Servers that take longer lines than we wait for, after however much that is blank, and those of HTTP/0.9.
    let begun = line.trim_ascii_start();
    let is_begun = too_long && (begun.is_empty() || begins_like_request(begun));
    let request = is_begun || (ended && line.starts_with(b"GET /"));
    (ended || too_long).then(|| if request { http() } else { other() })
}

/// Whether ` HTTP/` is in a line: in any case, behind whatever a server could take for a blank.
fn says_version(line: &[u8]) -> bool {
    line.windows(6)
        .any(|part| matches!(part[0], b'\t'..=b'\r' | b' ') && part[1..].eq_ignore_ascii_case(b"HTTP/"))
}

/// Whether a method and the beginning of a target are there (RFC 9112 §3).
fn begins_like_request(line: &[u8]) -> bool {
    let Some(end) = line.iter().position(|byte| matches!(byte, b' ' | b'\t')) else { return false };
    let (method, target) = (&line[..end], line[end..].trim_ascii_start());
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_target = target.starts_with(b"/") || memchr::memmem::find(target, b"://").is_some();
    !method.is_empty() && method.iter().all(is_token) && is_target
}

/// The name in a ClientHello, parsed by whom servers parse it with.
fn tls(bytes: &[u8]) -> Option<Heard> {
    let heard = |name| Some(Heard { spoken: Spoken::Tls, name });
    let mut acceptor = rustls::server::Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        // Something that calls itself a handshake and is none says no name.
        if !matches!(acceptor.read_tls(&mut rest), Ok(1..)) {
            return heard(None);
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                return heard(accepted.client_hello().server_name().and_then(rule::name));
            }
            Ok(None) => {}
            Err(_) => return heard(None),
        }
    }
    if bytes.len() > BYTES_MAX { heard(None) } else { None }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A ClientHello for a name, as a real client writes it.
    pub(in crate::gateway) fn hello(name: &str) -> Vec<u8> {
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = rustls::pki_types::ServerName::try_from(name.to_owned()).expect("name");
        let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).expect("client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("write");
        bytes
    }

    #[test]
    fn a_hello_says_its_name_however_it_is_cut() {
        let bytes = hello("Ok.Example.test");
        for cut in 1..bytes.len() {
            assert_eq!(classify(&bytes[..cut]), None, "{cut}");
        }
        let heard = classify(&bytes).expect("whole");
        assert_eq!(heard, Heard { spoken: Spoken::Tls, name: Some("ok.example.test".to_owned()) });
        assert_eq!(classify(&hello("9.9.9.9")), Some(Heard { spoken: Spoken::Tls, name: None }));
    }

    #[test]
    fn what_a_server_could_take_for_http_is_http() {
        for http in [
            "GET / HTTP/1.1\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\n",
            "get / HTTP/1.1\n",
            "\nX-Y a b HTTP/1.0\r\n",
            "CONNECT evil.test:443 HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n\r\n",
            "GET /\u{e4} HTTP/1.1\r\n",
            "GET /\r\n",
            "GET\t/\tHTTP/1.1\r\n",
            "GET / http/1.1\r\n",
            "GET /\u{b}HTTP/1.1\r\n",
            &format!("POST /{}", "a".repeat(LINE_BYTES_MAX)),
            &format!("x http://evil.test/{}", "a".repeat(LINE_BYTES_MAX)),
            &"\r\n".repeat(LINE_BYTES_MAX),
            &" ".repeat(LINE_BYTES_MAX + 1),
            &format!("{}GET /{}", " ".repeat(100), "a".repeat(LINE_BYTES_MAX)),
        ] {
            let heard = classify(http.as_bytes()).expect(http);
            assert_eq!(heard.spoken, Spoken::Http, "{http:?}");
        }
        for unknown in ["G", "GET / HTT", "\r\n", "GET / ", "SSH-2.0-x", "\n\n"] {
            assert_eq!(classify(unknown.as_bytes()), None, "{unknown:?}");
        }
        for other in [
            &b"SSH-2.0-x\r\n"[..],
            b"\0\0\0\x08\x04\xd2\x16/",
            b"EHLO x\r\n",
            b"\x16\x02abc",
            b"get /key\r\n",
        ] {
            assert_eq!(classify(other).map(|heard| heard.spoken), Some(Spoken::Other), "{other:?}");
        }
        assert!(classify(&vec![b'a'; LINE_BYTES_MAX + 1]).is_some());
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in proptest::collection::vec(any::<u8>(), 1..200), tls in any::<bool>()) {
            let mut bytes = bytes;
            if tls {
                bytes.splice(0..0, [0x16, 3, 1]);
            }
            let _ = classify(&bytes);
        }
    }
}
