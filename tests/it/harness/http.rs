//! A blocking HTTP/1.1 client over a Unix socket, or TCP for previews, small enough to be trusted by the tests that use it.
//!
//! It is not the daemon's own HTTP library on purpose: a shared mistake would cancel out. `httparse` splits the
//! head; the body is framed here by `Content-Length` or chunks (RFC 9112 §6, §7.1).

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// Header lines in one answer.
const HEADERS_MAX: usize = 64;

/// One connection; several requests may follow each other on it.
#[derive(Debug)]
pub struct Connection<S = UnixStream> {
    reader: BufReader<S>,
    host: String,
}

/// Status line and headers of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The body of an answer, read as it arrives.
#[derive(Debug)]
pub struct Body<'a, S = UnixStream> {
    reader: &'a mut BufReader<S>,
    left: Left,
}

#[derive(Debug)]
enum Left {
    Bytes(u64),
    /// Inside a chunk with this much left; 0 is before a chunk's size line.
    Chunk(u64),
    UntilClose,
    Nothing,
}

/// One server-sent event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: String,
}

impl Connection {
    /// Connects.
    pub fn open(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        stream.set_write_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { reader: BufReader::with_capacity(64 * 1024, stream), host: "stockade".to_owned() })
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.reader.get_ref().shutdown(std::net::Shutdown::Write)
    }
}

impl Connection<TcpStream> {
    /// Connects, to ask for this host.
    pub fn connect(address: impl ToSocketAddrs, host: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        stream.set_write_timeout(Some(Duration::from_secs(120)))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::with_capacity(64 * 1024, stream), host: host.to_owned() })
    }
}

impl<S: Read + Write> Connection<S> {
    /// Sends a request with a body of known length.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        // One write for head and body: two would be two wake-ups of the daemon, which the benchmark would count.
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        self.send_raw(&message)
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads status and headers.
    pub fn receive_head(&mut self) -> io::Result<Head> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if self.reader.read_until(b'\n', &mut bytes)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let mut storage = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut storage);
        parsed.parse(&bytes).map_err(io::Error::other)?;
        let headers = parsed
            .headers
            .iter()
            .map(|header| {
                (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned())
            })
            .collect();
        Ok(Head { status: parsed.code.unwrap_or_default(), headers })
    }

    /// The body that belongs to `head`.
    pub fn body(&mut self, head: &Head) -> Body<'_, S> {
        let left = if head.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            Left::Chunk(0)
        } else if let Some(length) = head.header("content-length") {
            Left::Bytes(length.parse().unwrap_or(0))
        } else if head.status == 204 || head.status / 100 == 1 {
            Left::Nothing
        } else {
            Left::UntilClose
        };
        Body { reader: &mut self.reader, left }
    }

    /// Sends a request and reads the whole answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        self.send(method, path, headers, body)?;
        self.receive()
    }

    /// Reads a whole answer.
    pub fn receive(&mut self) -> io::Result<Response> {
        let head = self.receive_head()?;
        let mut body = Vec::new();
        self.body(&head).read_to_end(&mut body)?;
        Ok(Response { status: head.status, headers: head.headers, body })
    }

    /// The socket, for a protocol that follows HTTP.
    pub fn into_stream(self) -> S {
        self.reader.into_inner()
    }
}

impl Head {
    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Response {
    /// The body, for messages.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the body when it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("answer {} is not JSON ({error}): {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// The value of a header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Read> Body<'_, S> {
    /// The next event of a `text/event-stream`, without comments (WHATWG HTML §9.2.6); `None` at the end.
    pub fn next_event(&mut self) -> io::Result<Option<Event>> {
        let mut event = Event::default();
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            if line.is_empty() {
                if event.name.is_empty() && event.data.is_empty() {
                    continue;
                }
                return Ok(Some(event));
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut event.name),
                "id" => event.id = Some(value.to_owned()),
                "data" => {
                    if !event.data.is_empty() {
                        event.data.push('\n');
                    }
                    event.data.push_str(value);
                }
                _ => {}
            }
        }
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        loop {
            if self.read(&mut byte)? == 0 {
                return if bytes.is_empty() {
                    Ok(None)
                } else {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "half a line"))
                };
            }
            if byte[0] == b'\n' {
                if bytes.last() == Some(&b'\r') {
                    bytes.pop();
                }
                return String::from_utf8(bytes).map(Some).map_err(io::Error::other);
            }
            bytes.push(byte[0]);
        }
    }

    fn next_chunk(&mut self) -> io::Result<u64> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "no last chunk: the body was cut off"));
        }
        let size = line.trim().split(';').next().unwrap_or_default();
        let size = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size == 0 {
            self.reader.read_line(&mut line)?;
            self.left = Left::Nothing;
        }
        Ok(size)
    }
}

impl<S: Read> Read for Body<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Left::Chunk(0) = self.left {
            let size = self.next_chunk()?;
            if size == 0 {
                return Ok(0);
            }
            self.left = Left::Chunk(size);
        }
        let most = match self.left {
            Left::Nothing => return Ok(0),
            Left::UntilClose => buffer.len(),
            Left::Bytes(left) | Left::Chunk(left) => {
                buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX))
            }
        };
        if most == 0 {
            return Ok(0);
        }
        let read = self.reader.read(&mut buffer[..most])?;
        if read == 0 && !matches!(self.left, Left::UntilClose) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body was cut off"));
        }
        match &mut self.left {
            Left::Bytes(left) => *left -= read as u64,
            Left::Chunk(left) => {
                *left -= read as u64;
                if *left == 0 {
                    let mut end = String::new();
                    self.reader.read_line(&mut end)?;
                }
            }
            Left::UntilClose | Left::Nothing => {}
        }
        Ok(read)
    }
}
