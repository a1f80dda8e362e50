//! A server that reads requests as strictly as RFC 9112 lets it, and remembers what came, good or not.
//!
//! A proxy that passes on what two readers could understand differently is found out here: what is not exactly one
//! request after the other is remembered as such. [`judge`] says the same of bytes that took no way at all, which is
//! the control of every case.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::host;

/// Bytes of a line.
const LINE_MAX: u64 = 128 * 1024;

/// A request, or why it is none.
pub type Seen = Result<Request, String>;

/// A request, read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method and target.
    pub line: String,
    /// By lower-case names; a name that comes twice has its values on lines of their own.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// Fields behind a body in chunks.
    pub trailers: Vec<String>,
}

/// What came, on all connections.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    open: Arc<AtomicUsize>,
}

impl Recorder {
    /// Serves this listener until the process ends or [`Recording`] is dropped.
    pub fn serve(&self, listener: TcpListener) -> Recording {
        let stop = listener.try_clone().unwrap();
        let this = self.clone();
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let this = this.clone();
                this.open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    this.connection(stream);
                    this.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Recording { stop, thread: Some(thread) }
    }

    /// One connection. Every request is answered; the first thing that is none ends it.
    pub fn connection(&self, stream: TcpStream) {
        let mut writer = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        loop {
            let seen = match read(&mut reader) {
                Ok(None) => return,
                Ok(Some(request)) => Ok(request),
                Err(why) => Err(why),
            };
            let over = seen.is_err();
            self.seen.lock().unwrap().push(seen);
            if over {
                // Whatever else comes on it belongs to what was none.
                let _ = writer.shutdown(Shutdown::Write);
                let _ = std::io::copy(&mut reader, &mut std::io::sink());
                return;
            }
            if writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    }

    /// What has come since, once all connections are at their ends: nothing can follow.
    #[track_caller]
    pub fn take(&self) -> Vec<Seen> {
        host::wait_for("the proxy to end its connections", || self.open.load(Ordering::SeqCst) == 0);
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

/// A listener that is served; it ends with this.
#[derive(Debug)]
pub struct Recording {
    stop: TcpListener,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Recording {
    fn drop(&mut self) {
        // Wakes the thread, which holds the same socket: it must not outlive the namespace that the socket is in.
        let _ = nix::sys::socket::shutdown(
            std::os::fd::AsRawFd::as_raw_fd(&self.stop),
            nix::sys::socket::Shutdown::Both,
        );
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// What the bytes are to a strict reader.
pub fn judge(bytes: &[u8]) -> Vec<Seen> {
    let mut reader = BufReader::new(bytes);
    let mut seen = Vec::new();
    loop {
        match read(&mut reader) {
            Ok(None) => return seen,
            Ok(Some(request)) => seen.push(Ok(request)),
            Err(why) => {
                seen.push(Err(why));
                return seen;
            }
        }
    }
}

/// A line without its end; `None` at the end of everything.
fn line(reader: &mut impl BufRead) -> Result<Option<String>, String> {
    let mut bytes = Vec::new();
    let read = reader.take(LINE_MAX).read_until(b'\n', &mut bytes);
    match read {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(format!("cut in its lines: {error}")),
    }
    let shown = String::from_utf8_lossy(&bytes).into_owned();
    if !bytes.ends_with(b"\n") && reader.fill_buf().is_ok_and(<[u8]>::is_empty) {
        return Err(format!("cut in its lines: {shown:?}"));
    }
    let Some(text) = bytes.strip_suffix(b"\r\n") else { return Err(format!("no line: {shown:?}")) };
    if text.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
        return Err(format!("control characters: {shown:?}"));
    }
    Ok(Some(text.iter().copied().map(char::from).collect()))
}

fn is_token(text: &str) -> bool {
    let is = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is)
}

/// Lines of fields up to the empty one.
fn fields(reader: &mut impl BufRead) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    loop {
        let Some(text) = line(reader)? else { return Err("cut in its head".to_owned()) };
        if text.is_empty() {
            return Ok(found);
        }
        let (name, value) = text.split_once(':').ok_or_else(|| format!("no field: {text:?}"))?;
        if !is_token(name) {
            return Err(format!("no name of a field: {text:?}"));
        }
        found.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

fn read(reader: &mut impl BufRead) -> Result<Option<Request>, String> {
    let Some(first) = line(reader)? else { return Ok(None) };
    let parts: Vec<&str> = first.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(format!("no request: {first:?}")) };
    let good = target.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
    if !is_token(method) || !(target.starts_with('/') || target == "*") || !good {
        return Err(format!("no request: {first:?}"));
    }
    let (mut headers, mut times) = (BTreeMap::<String, String>::new(), BTreeMap::<String, usize>::new());
    for (name, value) in fields(reader)? {
        *times.entry(name.clone()).or_default() += 1;
        let all = headers.entry(name).or_default();
        if !all.is_empty() {
            all.push('\n');
        }
        all.push_str(&value);
    }
    let count = |name: &str| times.get(name).copied().unwrap_or_default();
    if count("host") != 1 {
        return Err(format!("{} hosts: {headers:?}", count("host")));
    }
    let mut request =
        Request { line: format!("{method} {target}"), headers, body: Vec::new(), trailers: Vec::new() };
    let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
    match (count("content-length"), count("transfer-encoding")) {
        (0, 0) => {}
        (1, 0) => {
            let text = header("content-length");
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let length: u64 =
                digits.then(|| text.parse().ok()).flatten().ok_or_else(|| format!("length {text:?}"))?;
            let read = reader.take(length).read_to_end(&mut request.body);
            if read.map_or(true, |count| count as u64 != length) {
                return Err(format!("cut in its body: {}", request.line));
            }
        }
        (0, 1) if header("transfer-encoding") == "chunked" => chunks(reader, &mut request)?,
        _ => return Err(format!("a body with two ends, or none: {:?}", request.headers)),
    }
    Ok(Some(request))
}

fn chunks(reader: &mut impl BufRead, request: &mut Request) -> Result<(), String> {
    loop {
        let Some(size) = line(reader)? else { return Err(format!("cut in its body: {}", request.line)) };
        let digits = (1..=8).contains(&size.len()) && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let length = digits.then(|| u64::from_str_radix(&size, 16).ok()).flatten();
        let length = length.ok_or_else(|| format!("size of a chunk: {size:?}"))?;
        if length == 0 {
            let trailers = fields(reader)?.into_iter();
            request.trailers = trailers.map(|(name, value)| format!("{name}: {value}")).collect();
            return Ok(());
        }
        let read = reader.take(length).read_to_end(&mut request.body);
        if read.map_or(true, |count| count as u64 != length) {
            return Err(format!("cut in its body: {}", request.line));
        }
        if line(reader)?.as_deref() != Some("") {
            return Err(format!("the end of a chunk: {}", request.line));
        }
    }
}
