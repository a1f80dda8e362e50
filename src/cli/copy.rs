//! `cp`: files and trees into a sandbox and out of one.
//!
//! A file is one request with the bytes as they are; a tree is an archive, made and laid out on this side by the same
//! code as inside. What comes out of a sandbox is hostile: it is laid out below the directory that was named, through
//! no link, and a file takes its name only when it is whole.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body_util::{BodyExt, BodyStream};
use hyper::{Method, Request, Response, header};
use indicatif::{ProgressBar, ProgressStyle};
use percent_encoding::percent_encode;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio_util::io::{ReaderStream, StreamReader};

use super::arguments::Cp;
use super::client::{Body, Client, SEGMENT, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::images::body;
use super::show;
use super::target::Target;
use crate::agent::worker;
use crate::api::files::schema::{FileInfo, FileType};
use crate::error::ErrorCode;
use crate::id::SandboxId;
use crate::sys::Errno;
use crate::wire::worker::Failure as WorkerFailure;

/// Bytes on their way at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// stdin or stdout.
    Stream,
    Local(PathBuf),
    Inside(SandboxId, Vec<u8>),
}

/// What an argument names. What comes before a colon is a sandbox if it can be one.
fn end(argument: &OsStr) -> End {
    let bytes = argument.as_bytes();
    if bytes == b"-" {
        return End::Stream;
    }
    let mut parts = bytes.splitn(2, |&byte| byte == b':');
    if let (Some(id), Some(path)) = (parts.next(), parts.next())
        && let Some(id) = std::str::from_utf8(id).ok().and_then(|id| SandboxId::parse(id).ok())
    {
        let path = if path.is_empty() { b"." } else { path };
        return End::Inside(id, path.to_vec());
    }
    End::Local(PathBuf::from(argument))
}

/// The files of one sandbox.
struct Remote<'a> {
    client: &'a Client,
    id: SandboxId,
    user: String,
}

/// `stockade cp`.
pub(super) async fn cp(daemon: Daemon, arguments: Cp, json: bool) -> Result<u8, Failure> {
    let ends = (end(&arguments.source), end(&arguments.target));
    let connection = daemon.running().await?;
    let user = arguments.user.as_deref().map(|user| format!("&user={}", segment(user))).unwrap_or_default();
    let remote = |id| Remote { client: &connection.client, id, user: user.clone() };
    let progress = Progress::new();
    match ends {
        (End::Inside(id, path), End::Stream) => {
            remote(id).fetch(&path, tokio::io::stdout(), &progress).await?;
        }
        (End::Inside(id, path), End::Local(local)) => remote(id).down(&path, &local, &progress).await?,
        (End::Stream, End::Inside(id, path)) => {
            remote(id).store(&path, None, tokio::io::stdin(), &progress).await?;
        }
        (End::Local(local), End::Inside(id, path)) => remote(id).up(&local, path, &progress).await?,
        _ => return Err(Failure::Usage("one of the two must be in a sandbox, as ID:PATH".to_owned())),
    }
    let bytes = progress.end();
    if json {
        show::print_json(&serde_json::json!({ "bytes": bytes }))?;
    }
    Ok(0)
}

fn local(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Failure + use<> {
    let what = format!("cannot {what} {}", path.display());
    |source| Failure::Local { what, source }
}

/// A path with one more name.
fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.ends_with(b"/") { [path, name].concat() } else { [path, b"/", name].concat() }
}

impl Remote<'_> {
    fn route(&self, verb: &str, path: &[u8], more: &str) -> String {
        let path = percent_encode(path, SEGMENT);
        format!("/v1/sandboxes/{}/files/{verb}?path={path}{}{more}", self.id, self.user)
    }

    /// What is there, if anything.
    async fn stat(&self, path: &[u8]) -> Result<Option<FileInfo>, Failure> {
        match self.client.get(&self.route("stat", path, "")).await {
            Ok(info) => Ok(Some(info)),
            Err(failure) if failure.code() == Some(ErrorCode::FileNotFound) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn put(&self, route: String, length: Option<u64>, body: Body) -> Result<(), Failure> {
        let mut request = Request::put(route).header(header::HOST, "stockade");
        if let Some(length) = length {
            request = request.header(header::CONTENT_LENGTH, length);
        }
        let request = request.body(body).map_err(|error| Failure::Usage(error.to_string()))?;
        // The answer is read whole, so that the connection ends as it should.
        self.client.send(request).await?.into_body().collect().await.map(drop).map_err(lost)
    }

    /// Sends one file.
    async fn store(
        &self,
        path: &[u8],
        metadata: Option<&std::fs::Metadata>,
        from: impl AsyncRead + Send + 'static,
        progress: &Progress,
    ) -> Result<(), Failure> {
        let mode = metadata.map(|metadata| metadata.permissions().mode() & 0o777);
        let mode = mode.map(|mode| format!("&mode={mode:o}")).unwrap_or_default();
        // A device or pipe says that it is empty, and is not.
        let length = metadata.filter(|metadata| metadata.is_file()).map(std::fs::Metadata::len);
        progress.expect(length);
        let stream = progress.count(ReaderStream::with_capacity(from, CHUNK_BYTES));
        self.put(self.route("content", path, &mode), length, body(stream)).await
    }

    /// Sends a file or tree.
    async fn up(&self, from: &Path, mut path: Vec<u8>, progress: &Progress) -> Result<(), Failure> {
        let metadata = tokio::fs::metadata(from).await.map_err(local("open", from))?;
        let present = self.stat(&path).await?;
        if path.ends_with(b"/") || present.is_some_and(|info| info.kind == FileType::Directory) {
            let from = std::path::absolute(from).map_err(local("name", from))?;
            let name = from.file_name().unwrap_or(OsStr::new(""));
            path = below(&path, name.as_bytes());
        }
        if !metadata.is_dir() {
            let file = tokio::fs::File::open(from).await.map_err(local("open", from))?;
            return self.store(&path, Some(&metadata), file, progress).await;
        }
        let from = std::path::absolute(from).map_err(local("name", from))?;
        let (reader, writer) = pipe_pair()?;
        let packing = tokio::task::spawn_blocking(move || {
            worker::pack_own(from.as_os_str().as_bytes(), &writer).map_err(|failure| (from, failure))
        });
        let reader = pipe::Receiver::from_owned_fd(reader).map_err(no_pipe)?;
        let stream = progress.count(ReaderStream::with_capacity(reader, CHUNK_BYTES));
        let sent = self.put(self.route("archive", &path, ""), None, body(stream)).await;
        match packing.await {
            // Why it broke off, rather than that it did.
            Ok(Err((from, failure))) if !is_broken_pipe(&failure) => {
                Err(local("read", &from)(reason(failure)))
            }
            _ => sent,
        }
    }

    async fn get(&self, route: String) -> Result<Response<hyper::body::Incoming>, Failure> {
        self.client.request::<()>(Method::GET, &route, None, "*/*").await
    }

    /// Writes a file's content somewhere.
    async fn fetch(
        &self,
        path: &[u8],
        to: impl AsyncWrite + Unpin,
        progress: &Progress,
    ) -> Result<(), Failure> {
        bring(self.get(self.route("content", path, "")).await?, to, progress).await
    }

    /// Brings a file or tree.
    async fn down(&self, path: &[u8], to: &Path, progress: &Progress) -> Result<(), Failure> {
        let info: FileInfo = self.client.get(&self.route("stat", path, "")).await?;
        let name = path.split(|&byte| byte == b'/').rfind(|name| !name.is_empty()).unwrap_or_default();
        let to = match to.is_dir() && !matches!(name, b"" | b"." | b"..") {
            true => to.join(OsStr::from_bytes(name)),
            false => to.to_owned(),
        };
        if info.kind == FileType::Directory {
            return self.down_tree(path, &to, progress).await;
        }
        let mut target = Target::open(&to).await?;
        self.fetch(path, &mut target, progress).await?;
        target.set_mode(u32::from_str_radix(&info.mode, 8).unwrap_or(0o644) & 0o777)?;
        target.done()
    }

    async fn down_tree(&self, path: &[u8], to: &Path, progress: &Progress) -> Result<(), Failure> {
        let to = std::path::absolute(to).map_err(local("name", to))?;
        let response = self.get(self.route("archive", path, "")).await?;
        let (reader, writer) = pipe_pair()?;
        let target = to.clone();
        let unpacking =
            tokio::task::spawn_blocking(move || worker::unpack_own(target.as_os_str().as_bytes(), &reader));
        let mut writer = pipe::Sender::from_owned_fd(writer).map_err(no_pipe)?;
        let mut content = StreamReader::new(progress.count(frames(response)));
        let sent = tokio::io::copy_buf(&mut content, &mut writer).await;
        drop(writer);
        match (unpacking.await, sent) {
            (Ok(Ok(())), Ok(_)) => Ok(()),
            (Ok(Err(failure)), Ok(_)) => Err(local("write", &to)(reason(failure))),
            (Ok(Err(failure)), Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(local("write", &to)(reason(failure)))
            }
            (_, Err(error)) => Err(Failure::Lost(error.into())),
            (Err(error), _) => Err(Failure::Lost(error.into())),
        }
    }
}

/// Brings what a route answers as this type to a file, or to stdout.
pub(super) async fn save(
    client: &Client,
    route: &str,
    mime: &'static str,
    to: Option<&Path>,
) -> Result<(), Failure> {
    let progress = Progress::new();
    let target = match to {
        // Before anything is asked for: what cannot be written to costs nothing.
        Some(to) => Some(Target::open(to).await?),
        None => None,
    };
    let response = client.request::<()>(Method::GET, route, None, mime).await?;
    let Some(mut target) = target else { return bring(response, tokio::io::stdout(), &progress).await };
    bring(response, &mut target, &progress).await?;
    target.done()
}

async fn bring(
    response: Response<hyper::body::Incoming>,
    mut to: impl AsyncWrite + Unpin,
    progress: &Progress,
) -> Result<(), Failure> {
    progress.expect(hyper::body::Body::size_hint(response.body()).exact());
    let mut content = StreamReader::new(progress.count(frames(response)));
    let copied = async {
        tokio::io::copy_buf(&mut content, &mut to).await?;
        to.flush().await
    };
    match copied.await {
        // A reader that has enough is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| Failure::Local { what: "cannot copy".to_owned(), source }),
    }
}

fn lost(error: hyper::Error) -> Failure {
    Failure::Lost(error.into())
}

fn frames(response: Response<hyper::body::Incoming>) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let frames = TryStreamExt::map_err(BodyStream::new(response.into_body()), io::Error::other);
    frames.try_filter_map(|frame| std::future::ready(Ok(frame.into_data().ok())))
}

fn no_pipe(source: io::Error) -> Failure {
    Failure::Local { what: "cannot make a pipe".to_owned(), source }
}

/// Ours of the ends is used by tokio, the other by a thread that waits.
fn pipe_pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| no_pipe(errno.into()))
}

fn is_broken_pipe(failure: &WorkerFailure) -> bool {
    *failure == WorkerFailure::from(Errno::PIPE)
}

fn reason(failure: WorkerFailure) -> io::Error {
    match failure {
        WorkerFailure::Errno(errno) | WorkerFailure::Entry { errno, .. } => {
            io::Error::from_raw_os_error(errno)
        }
        WorkerFailure::Archive { .. } => io::Error::other("what came is not an archive that is accepted"),
        _ => io::Error::other("it is neither a file nor a directory"),
    }
}

/// How many bytes went by, shown on a terminal.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::no_length();
        if !io::stderr().is_terminal() {
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        // The template is ours and valid; the plain bar is what would be left of a typing error.
        let style = ProgressStyle::with_template("{binary_bytes:>10} {binary_bytes_per_sec} {wide_bar}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    fn expect(&self, length: Option<u64>) {
        if let Some(length) = length {
            self.0.set_length(length);
        }
    }

    fn count<S: Stream<Item = io::Result<Bytes>>>(&self, stream: S) -> impl Stream<Item = S::Item> + use<S> {
        let bar = self.0.clone();
        stream.inspect_ok(move |bytes| bar.inc(bytes.len() as u64))
    }

    /// The number, once all is done.
    fn end(self) -> u64 {
        let bytes = self.0.position();
        self.0.finish_and_clear();
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_before_a_colon_is_a_sandbox_if_it_can_be_one() {
        let inside =
            |id: &str, path: &str| End::Inside(SandboxId::parse(id).expect("id"), path.as_bytes().to_vec());
        for (argument, expected) in [
            ("-", End::Stream),
            ("a", End::Local("a".into())),
            ("./a:b", End::Local("./a:b".into())),
            ("/a:b", End::Local("/a:b".into())),
            ("A_b:c", End::Local("A_b:c".into())),
            ("a:/b", inside("a", "/b")),
            ("a:b:c", inside("a", "b:c")),
            ("a:", inside("a", ".")),
        ] {
            assert_eq!(end(OsStr::new(argument)), expected, "{argument}");
        }
    }
}
