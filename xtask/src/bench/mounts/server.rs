//! As little of an S3 server as s3fs, rclone and we need, that takes as little of the processors as it can: signatures are
//! not looked at, what is written is counted and thrown away, and what is read is one block of bytes again and again.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

/// The one bucket.
pub(super) const BUCKET: &str = "bench";

const DATE: &str = "Mon, 01 Jan 2024 00:00:00 GMT";

#[derive(Clone, Debug, Default)]
struct Object {
    size: u64,
    etag: String,
    /// Headers that came with it and go with it.
    meta: String,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: HashMap<String, (Object, BTreeMap<u32, u64>)>,
    made: u64,
}

/// A server on loopback, for as long as this process.
pub(super) struct Server {
    pub(super) port: u16,
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let this = Self { port: listener.local_addr()?.port(), state: Arc::default() };
        let state = Arc::clone(&this.state);
        // Not a pattern that somebody could compress.
        let mut seed = 1_u64;
        let block: Arc<[u8]> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        })
        .take(1 << 20)
        .collect();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, block) = (Arc::clone(&state), Arc::clone(&block));
                std::thread::spawn(move || serve(stream, &state, &block));
            }
        });
        Ok(this)
    }

    /// Makes an object of this size.
    pub(super) fn put(&self, key: &str, size: u64) {
        let mut state = lock(&self.state);
        let object = Object { size, etag: state.etag(), meta: String::new() };
        state.objects.insert(key.to_owned(), object);
    }

    /// How large an object is.
    pub(super) fn size(&self, key: &str) -> Option<u64> {
        lock(&self.state).objects.get(key).map(|object| object.size)
    }
}

impl State {
    fn etag(&mut self) -> String {
        self.made += 1;
        format!("\"{:032x}\"", self.made)
    }
}

/// A request without its body.
struct Request {
    method: String,
    key: String,
    query: HashMap<String, String>,
    headers: HashMap<String, String>,
}

impl Request {
    fn read(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let key = path.strip_prefix(&format!("/{BUCKET}"))?.trim_start_matches('/');
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = pairs.map(|(name, value)| (name.to_owned(), decode(value))).collect();
        let (key, mut headers) = (decode(key), HashMap::new());
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            if line.trim_end().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        Some(Self { method, key, query, headers })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn meta(&self) -> String {
        let kept = self.headers.iter().filter(|(name, _)| name.starts_with("x-amz-meta-"));
        kept.fold(String::new(), |mut all, (name, value)| {
            let _ = write!(all, "{name}: {value}\r\n");
            all
        })
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = escaped.and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Answers requests until the end of the connection.
fn serve(stream: TcpStream, state: &Mutex<State>, block: &[u8]) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    loop {
        let request = Request::read(&mut reader)?;
        let length: u64 = request.header("content-length").parse().unwrap_or(0);
        if !request.header("expect").is_empty() {
            reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).ok()?;
        if request.method == "GET" && !request.key.is_empty() {
            send(reader.get_mut(), &request, state, block)?;
            continue;
        }
        let (status, headers, body) = answer(&request, length, state);
        let length = match request.method.as_str() {
            "HEAD" => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        let head = format!("HTTP/1.1 {status}\r\nLast-Modified: {DATE}\r\n{length}{headers}\r\n{body}");
        reader.get_mut().write_all(head.as_bytes()).ok()?;
    }
}

/// Sends a range of an object.
fn send(out: &mut TcpStream, request: &Request, state: &Mutex<State>, block: &[u8]) -> Option<()> {
    let Some(object) = lock(state).objects.get(&request.key).cloned() else {
        return out.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok();
    };
    let range = request.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let (first, last) = range.map_or((0, object.size - 1), |(first, last)| {
        (first.parse().unwrap_or(0), last.parse().unwrap_or(object.size - 1))
    });
    let last = last.min(object.size - 1);
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    let head = format!(
        "HTTP/1.1 {status}\r\nLast-Modified: {DATE}\r\nETag: {}\r\nAccept-Ranges: bytes\r\n\
         Content-Range: bytes {first}-{last}/{}\r\nContent-Length: {}\r\n{}\r\n",
        object.etag,
        object.size,
        last + 1 - first,
        object.meta
    );
    out.write_all(head.as_bytes()).ok()?;
    let mut at = first;
    while at <= last {
        let from = usize::try_from(at).ok()? % block.len();
        let to = block.len().min(from + usize::try_from(last + 1 - at).ok()?);
        out.write_all(&block[from..to]).ok()?;
        at += u64::try_from(to - from).ok()?;
    }
    Some(())
}

/// Status, headers and body of everything else.
fn answer(request: &Request, length: u64, state: &Mutex<State>) -> (&'static str, String, String) {
    let mut state = lock(state);
    let (id, key) = (request.parameter("uploadId"), &request.key);
    let ok = "200 OK";
    match request.method.as_str() {
        "HEAD" if key.is_empty() => (ok, String::new(), String::new()),
        "HEAD" => match state.objects.get(key) {
            Some(object) => {
                let Object { size, etag, meta } = object;
                (ok, format!("Content-Length: {size}\r\nETag: {etag}\r\n{meta}"), String::new())
            }
            None => ("404 Not Found", String::new(), String::new()),
        },
        "GET" => (ok, "Content-Type: application/xml\r\n".to_owned(), list(request, &state)),
        "POST" if request.query.contains_key("uploads") => {
            let etag = state.etag();
            let id = etag.trim_matches('"').to_owned();
            let object = Object { size: 0, etag, meta: request.meta() };
            state.uploads.insert(id.clone(), (object, BTreeMap::new()));
            let inner = format!("<Bucket>{BUCKET}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>");
            (ok, String::new(), xml("InitiateMultipartUploadResult", &inner))
        }
        "POST" => {
            let Some((mut object, parts)) = state.uploads.remove(id) else {
                return ("404 Not Found", String::new(), xml("Error", "<Code>NoSuchUpload</Code>"));
            };
            object.size = parts.values().sum();
            let inner = format!("<Key>{key}</Key><ETag>{}</ETag>", object.etag);
            state.objects.insert(key.clone(), object);
            (ok, String::new(), xml("CompleteMultipartUploadResult", &inner))
        }
        "PUT" if !id.is_empty() => {
            let number = request.parameter("partNumber").parse().unwrap_or(0);
            let etag = state.etag();
            if let Some((_, parts)) = state.uploads.get_mut(id) {
                parts.insert(number, length);
            }
            (ok, format!("ETag: {etag}\r\n"), String::new())
        }
        "PUT" => {
            let source = decode(request.header("x-amz-copy-source"));
            let source = source.trim_start_matches('/').strip_prefix(&format!("{BUCKET}/"));
            let copied = source.and_then(|source| state.objects.get(source)).cloned();
            let etag = state.etag();
            let size = copied.as_ref().map_or(length, |object| object.size);
            let object = Object { size, etag: etag.clone(), meta: request.meta() };
            state.objects.insert(key.clone(), object);
            let body = copied.map(|_| xml("CopyObjectResult", &format!("<ETag>{etag}</ETag>")));
            (ok, format!("ETag: {etag}\r\n"), body.unwrap_or_default())
        }
        _ => {
            state.objects.remove(key);
            ("204 No Content", String::new(), String::new())
        }
    }
}

fn xml(name: &str, inner: &str) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><{name}>{inner}</{name}>")
}

/// A page of keys, whichever version of the question. No key here has a character to escape.
fn list(request: &Request, state: &State) -> String {
    if request.query.contains_key("location") {
        return xml("LocationConstraint", "");
    }
    let prefix = request.parameter("prefix");
    let after = ["continuation-token", "start-after", "marker"].map(|name| request.parameter(name));
    let after = after.into_iter().max().unwrap_or("");
    let most: usize = request.parameter("max-keys").parse().unwrap_or(1000);
    let delimited = !request.parameter("delimiter").is_empty();
    let (mut contents, mut prefixes) = (String::new(), Vec::<String>::new());
    let (mut last, mut count, mut more) = (String::new(), 0, false);
    for (key, object) in
        state.objects.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix))
    {
        let below = delimited.then(|| key[prefix.len()..].find('/')).flatten();
        let name = below.map_or(key.as_str(), |end| &key[..=prefix.len() + end]);
        if name <= after || prefixes.last().is_some_and(|last| last == name) {
            continue;
        }
        if count == most {
            more = true;
            break;
        }
        count += 1;
        name.clone_into(&mut last);
        if below.is_some() {
            prefixes.push(name.to_owned());
            continue;
        }
        let _ = write!(
            contents,
            "<Contents><Key>{name}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>{}</ETag>\
             <Size>{}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            object.etag, object.size
        );
    }
    for prefix in prefixes {
        let _ = write!(contents, "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
    }
    if more {
        let _ = write!(
            contents,
            "<NextContinuationToken>{last}</NextContinuationToken><NextMarker>{last}</NextMarker>"
        );
    }
    let head = format!(
        "<Name>{BUCKET}</Name><Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys>\
         <IsTruncated>{more}</IsTruncated>"
    );
    xml("ListBucketResult", &(head + &contents))
}
