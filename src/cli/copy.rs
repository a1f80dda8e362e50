//! `cp`: files and trees into a sandbox and out of one.
//!
//! A file is one request with the bytes as they are; a tree is an archive, made and laid out on this side by the same
//! code as inside. What comes out of a sandbox is hostile: it is laid out below the directory that was named, through
//! no link, and a file takes its name only when it is whole. A directory that a copy makes has the mode of the one that
//! it is a copy of, and is closed to others until all is in it.

use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions};
use std::io::{self, IsTerminal};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body_util::{BodyExt, BodyStream};
use hyper::{Method, Request, Response, header};
use indicatif::{ProgressBar, ProgressStyle};
use percent_encoding::percent_encode;
use serde::Serialize;
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
use crate::api::files::schema::{ChangeMode, FileInfo, FileType, MakeDirectory, PathText};
use crate::error::ErrorCode;
use crate::id::SandboxId;
use crate::sys::Errno;
use crate::wire::worker::Failure as WorkerFailure;

/// Mode of a directory that is being filled.
const CLOSED: u32 = 0o700;

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
    user: Option<&'a str>,
}

/// `stockade cp`.
pub(super) async fn cp(daemon: Daemon, arguments: Cp, json: bool) -> Result<u8, Failure> {
    let ends = (end(&arguments.source), end(&arguments.target));
    let connection = daemon.running().await?;
    let remote = |id| Remote { client: &connection.client, id, user: arguments.user.as_deref() };
    let progress = Progress::new();
    match ends {
        (End::Inside(id, path), End::Stream) => remote(id).out(&path, &progress).await?,
        (End::Inside(id, path), End::Local(local)) => remote(id).down(&path, &local, &progress).await?,
        (End::Stream, End::Inside(id, path)) => remote(id).take(&path, &progress).await?,
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
        let user = self.user.map(|user| format!("&user={}", segment(user))).unwrap_or_default();
        format!("/v1/sandboxes/{}/files/{verb}?path={path}{user}{more}", self.id)
    }

    async fn change<B: Serialize>(&self, verb: &str, wanted: &B) -> Result<(), Failure> {
        self.client.post_empty(&format!("/v1/sandboxes/{}/files/{verb}", self.id), wanted).await
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

    /// Takes in what comes on stdin: a tar archive where a directory is or is named, else a file.
    async fn take(&self, path: &[u8], progress: &Progress) -> Result<(), Failure> {
        let is_tree = path.ends_with(b"/")
            || self.stat(path).await?.is_some_and(|info| info.kind == FileType::Directory);
        if !is_tree {
            return self.store(path, None, tokio::io::stdin(), progress).await;
        }
        let stream = progress.count(ReaderStream::with_capacity(tokio::io::stdin(), CHUNK_BYTES));
        self.put(self.route("archive", path, ""), None, body(stream)).await
    }

    /// Sends a file or tree.
    async fn up(&self, from: &Path, mut path: Vec<u8>, progress: &Progress) -> Result<(), Failure> {
        let metadata = tokio::fs::metadata(from).await.map_err(local("open", from))?;
        let present = self.stat(&path).await?;
        let into =
            path.ends_with(b"/") || present.as_ref().is_some_and(|info| info.kind == FileType::Directory);
        if into {
            let from = std::path::absolute(from).map_err(local("name", from))?;
            let name = from.file_name().unwrap_or(OsStr::new(""));
            path = below(&path, name.as_bytes());
        }
        if !metadata.is_dir() {
            let file = tokio::fs::File::open(from).await.map_err(local("open", from))?;
            return self.store(&path, Some(&metadata), file, progress).await;
        }
        let is_new = if into { self.stat(&path).await?.is_none() } else { present.is_none() };
        if !is_new {
            return self.up_tree(from, &path, progress).await;
        }
        self.change(
            "mkdir",
            &MakeDirectory {
                path: PathText::new(path.clone()),
                mode: Some(format!("{CLOSED:o}")),
                parents: true,
                user: self.user.map(str::to_owned),
            },
        )
        .await?;
        let sent = self.up_tree(from, &path, progress).await;
        // Of one that was cut off too: nobody would open it later.
        let mode = ChangeMode {
            path: PathText::new(path),
            mode: format!("{:o}", metadata.permissions().mode() & 0o777),
            user: self.user.map(str::to_owned),
        };
        let opened = self.change("chmod", &mode).await;
        sent.and(opened)
    }

    /// Sends what is in a directory into another one.
    async fn up_tree(&self, from: &Path, path: &[u8], progress: &Progress) -> Result<(), Failure> {
        let from = std::path::absolute(from).map_err(local("name", from))?;
        let (reader, writer) = pipe_pair()?;
        let packing = tokio::task::spawn_blocking(move || {
            worker::pack_own(from.as_os_str().as_bytes(), &writer).map_err(|failure| (from, failure))
        });
        let reader = pipe::Receiver::from_owned_fd(reader).map_err(no_pipe)?;
        let stream = progress.count(ReaderStream::with_capacity(reader, CHUNK_BYTES));
        let sent = self.put(self.route("archive", path, ""), None, body(stream)).await;
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

    /// Writes a file's content to stdout, or a directory's as a tar archive.
    async fn out(&self, path: &[u8], progress: &Progress) -> Result<(), Failure> {
        let info: FileInfo = self.client.get(&self.route("stat", path, "")).await?;
        if info.kind != FileType::Directory {
            return self.fetch(path, tokio::io::stdout(), progress).await;
        }
        if io::stdout().is_terminal() {
            let message =
                "a directory comes as a tar archive, which is not for a terminal: `| tar -t` lists it";
            return Err(Failure::Usage(message.to_owned()));
        }
        bring(self.get(self.route("archive", path, "")).await?, tokio::io::stdout(), progress).await
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
            let mode = permissions(&info, 0o755);
            let is_new =
                matches!(to.symlink_metadata(), Err(error) if error.kind() == io::ErrorKind::NotFound);
            // Opened when it is cut off too, by a signal as well: nobody would do so later.
            let _opens = if is_new {
                std::fs::create_dir_all(to.parent().unwrap_or(Path::new("."))).map_err(local("make", &to))?;
                DirBuilder::new().mode(CLOSED).create(&to).map_err(local("make", &to))?;
                Some(Opens { to: &to, mode })
            } else {
                None
            };
            return self.down_tree(path, &to, progress).await;
        }
        let mut target = Target::open(&to).await?;
        self.fetch(path, &mut target, progress).await?;
        target.set_mode(permissions(&info, 0o644))?;
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

/// A directory that only its owner has entered while it was filled.
struct Opens<'a> {
    to: &'a Path,
    mode: u32,
}

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        // One that cannot be opened to others is as safe as it was.
        let _ = std::fs::set_permissions(self.to, Permissions::from_mode(self.mode));
    }
}

/// What of a file's mode a copy has: nothing that lends rights.
fn permissions(info: &FileInfo, unknown: u32) -> u32 {
    u32::from_str_radix(&info.mode, 8).unwrap_or(unknown) & 0o777
}

/// Brings a file's content to stdout. False when nobody reads that any more.
pub(super) async fn bring_to_stdout(response: Response<hyper::body::Incoming>) -> Result<bool, Failure> {
    pour(frames(response), tokio::io::stdout()).await
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
    to: impl AsyncWrite + Unpin,
    progress: &Progress,
) -> Result<(), Failure> {
    progress.expect(hyper::body::Body::size_hint(response.body()).exact());
    // A reader that has enough is no failure.
    pour(progress.count(frames(response)), to).await.map(drop)
}

/// Writes a stream to what takes it. False when nobody does any more.
async fn pour(
    stream: impl Stream<Item = io::Result<Bytes>> + Send,
    mut to: impl AsyncWrite + Unpin,
) -> Result<bool, Failure> {
    let mut content = std::pin::pin!(StreamReader::new(stream));
    let copied = async {
        tokio::io::copy_buf(&mut content, &mut to).await?;
        to.flush().await
    };
    match copied.await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => {
            other.map(|()| true).map_err(|source| Failure::Local { what: "cannot copy".to_owned(), source })
        }
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
