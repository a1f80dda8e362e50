//! Files of a sandbox, seen from serve: every path goes to a worker inside, every byte comes by descriptor.
//!
//! ```text
//! Files ─Call─▶ workers ─▶ worker (inside, the sandbox user's rights): resolves, opens, renames
//!       ◀─────── file ◀──
//! content: checks the file, reads or writes it on threads that may wait
//! ```
//!
//! serve resolves no path of a sandbox, ever. What a worker answers is untrusted: see [`wire::worker`](crate::wire::worker).

mod content;
mod failure;
#[cfg(test)]
mod tests;
mod watch;
mod workers;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use rustix::pipe::PipeFlags;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

pub use content::FileReader;
pub use watch::{Changed, Seen, Watching};

use super::agent::Agent;
use super::lifecycle::Use;
use crate::error::{Error, ErrorCode};
use crate::limits::{
    DIALERS_PER_SANDBOX_MAX, PATH_BYTES_MAX, WATCHES_PER_SANDBOX_MAX, WORKERS_PER_SANDBOX_MAX,
};
use crate::sys::dialled::Dialled;
use crate::wire::agent::User;
use crate::wire::worker::{
    Answer, Believed, Call, Commit, Condition, End, Entry, List, Match, Search, Selection, Stat, Tag,
};
use content::{File, PipeReader};
use watch::Trackers;
use workers::{Talk, Workers, borrowed};

/// What a sandbox keeps for its files.
#[derive(Debug)]
pub(super) struct Held {
    workers: Arc<Workers>,
    /// Workers that watch: others must not wait for them.
    watchers: Arc<Workers>,
    /// Workers that connect to ports: one that nobody answers takes seconds to say so.
    dialers: Arc<Workers>,
    /// As many as there can be of them. Whoever has to wait for one waits here, in the order of asking.
    dialing: Arc<Semaphore>,
    trackers: Arc<Trackers>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            workers: Arc::new(Workers::at_most(WORKERS_PER_SANDBOX_MAX)),
            watchers: Arc::new(Workers::at_most(WATCHES_PER_SANDBOX_MAX)),
            dialers: Arc::new(Workers::at_most(DIALERS_PER_SANDBOX_MAX)),
            dialing: Arc::new(Semaphore::new(DIALERS_PER_SANDBOX_MAX)),
            trackers: Arc::default(),
        }
    }
}

impl Held {
    /// Waits until drafts that became no file are gone.
    pub(super) async fn cleared(&self) {
        self.workers.cleared().await;
    }

    /// The files as this user sees them.
    pub(super) fn of(&self, agent: Arc<Agent>, user: User, cwd: String, used: Use) -> Files {
        Files {
            workers: Arc::clone(&self.workers),
            watchers: Arc::clone(&self.watchers),
            dialers: Arc::clone(&self.dialers),
            dialing: Arc::clone(&self.dialing),
            trackers: Arc::clone(&self.trackers),
            agent,
            user,
            cwd,
            used,
        }
    }
}

/// The files of one sandbox, with the rights of one of its users.
#[derive(Clone, Debug)]
pub struct Files {
    workers: Arc<Workers>,
    watchers: Arc<Workers>,
    dialers: Arc<Workers>,
    dialing: Arc<Semaphore>,
    trackers: Arc<Trackers>,
    agent: Arc<Agent>,
    user: User,
    cwd: String,
    used: Use,
}

/// A file that was opened for reading.
#[derive(Debug)]
pub enum Opened {
    /// One whose bytes serve reads.
    File {
        /// Its version.
        tag: Tag,
        /// What was opened.
        file: OpenedFile,
    },
    /// One whose bytes come through the worker: /proc, networks. Its size is not known.
    Stream(Vec<u8>),
}

/// See [`Opened::File`].
#[derive(Debug)]
pub struct OpenedFile(File);

impl OpenedFile {
    /// Reads `length` bytes from `start`.
    pub fn read(self, start: u64, length: u64) -> FileReader {
        self.0.read(start, length)
    }
}

/// How a file is written.
#[derive(Clone, Debug)]
pub struct WriteSpec {
    /// Where.
    pub path: Vec<u8>,
    /// Permissions; else those of the file that is replaced.
    pub mode: Option<u32>,
    /// Owner; else that of the file that is replaced.
    pub owner: Option<User>,
    /// Whether missing directories above it are made.
    pub parents: bool,
    /// What must be there.
    pub condition: Condition,
}

/// Entries or matches, and what is said after the last one.
#[derive(Debug)]
pub struct Page<T> {
    /// In the order of their paths.
    pub items: Vec<T>,
    /// What was left out.
    pub end: End,
}

impl Files {
    /// For what is read of them for long.
    pub fn used(&self) -> Use {
        self.used.clone()
    }

    /// A path as a worker takes it: absolute. Relative ones begin at the sandbox's working directory.
    ///
    /// # Errors
    /// `PATH_INVALID` for what no file can be called.
    pub fn path(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        if path.is_empty() || path.contains(&0) {
            return Err(Error::new(ErrorCode::PathInvalid, "a path is empty or holds a NUL byte")
                .hint("name a path inside the sandbox"));
        }
        let path = match path {
            [b'/', ..] => path.to_vec(),
            _ => [self.cwd.as_bytes(), b"/", path].concat(),
        };
        if path.len() >= PATH_BYTES_MAX {
            return Err(Error::new(ErrorCode::PathInvalid, "the path is too long")
                .hint(format!("a path has less than {PATH_BYTES_MAX} bytes")));
        }
        Ok(path)
    }

    /// An owner: `user` or `user:group`, names or ids.
    ///
    /// # Errors
    /// When it is none.
    pub fn owner(text: &str) -> Result<User, Error> {
        super::spec::user(text)
    }

    async fn ask(&self, call: Call, fd: Option<&OwnedFd>) -> Result<Talk, Error> {
        self.workers.ask(&self.agent, &self.user, call, &borrowed(fd)).await
    }

    /// A call that carries no descriptor either way and is over soon.
    async fn call(&self, call: Call) -> Result<Answer, Error> {
        let (answer, _) = self.ask(call, None).await?.soon().await?;
        Ok(answer)
    }

    /// The same, as long as it takes. The worker is killed when the caller goes away.
    async fn long_call(&self, call: Call) -> Result<(), Error> {
        let (answer, _) = self.ask(call, None).await?.next().await?;
        done(&answer)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// When it is not a regular file that the user may read.
    pub async fn open(&self, path: Vec<u8>) -> Result<Opened, Error> {
        let (answer, fd) = self.ask(Call::Open { path: path.clone() }, None).await?.soon().await?;
        match answer {
            Answer::Content(_) => {}
            Answer::Indirect => return Ok(Opened::Stream(path)),
            _ => {
                return Err(failure::lost());
            }
        }
        let file = File::check(fd)?;
        Ok(Opened::File { tag: file.tag()?, file: OpenedFile(file) })
    }

    /// Reads a file through the worker, or a tree as an archive.
    async fn through(
        &self,
        call: Call,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        let (reader, writer) = pipe_pair()?;
        let talk = self.ask(call, Some(&writer)).await?;
        drop(writer);
        rustix::io::ioctl_fionbio(&reader, true).map_err(|errno| no_descriptors(errno.into()))?;
        let reader = pipe::Receiver::from_owned_fd(reader).map_err(no_descriptors)?;
        let reader = PipeReader::new(talk, reader);
        Ok(stream::unfold(reader, async |mut reader| reader.next().await.map(|item| (item, reader))))
    }

    /// Reads a file through the worker.
    ///
    /// # Errors
    /// When there can be no worker. Its own refusals come as the first item.
    pub async fn stream(
        &self,
        path: Vec<u8>,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        self.through(Call::Stream { path }).await
    }

    /// Reads a tree, or what of it is selected, as a tar archive.
    ///
    /// # Errors
    /// As [`stream`](Self::stream).
    pub async fn pack(
        &self,
        path: Vec<u8>,
        selection: Selection,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        self.through(Call::Pack { path, selection }).await
    }

    /// Lays out a tar archive below a directory.
    ///
    /// # Errors
    /// When the archive is none, or does not fit; what came before that stays.
    pub async fn unpack<S, E>(&self, path: Vec<u8>, believed: Believed, body: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::error::Error + Send + Sync + 'static,
    {
        self.feed(Call::Unpack { path, believed }, body).await
    }

    /// Asks for something that is made of a stream, which the worker reads from a pipe.
    async fn feed<S, E>(&self, call: Call, body: S) -> Result<(), Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::error::Error + Send + Sync + 'static,
    {
        let (reader, writer) = pipe_pair()?;
        let mut talk = self.ask(call, Some(&reader)).await?;
        drop(reader);
        rustix::io::ioctl_fionbio(&writer, true).map_err(|errno| no_descriptors(errno.into()))?;
        let mut writer = pipe::Sender::from_owned_fd(writer).map_err(no_descriptors)?;
        let mut body = std::pin::pin!(body);
        let feed = async {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| {
                    Error::new(ErrorCode::InvalidRequest, "the body was cut short")
                        .hint("send it again, whole; a file is what it was, and what had come of an archive was laid out")
                        .source(error)
                })?;
                if writer.write_all(&chunk).await.is_err() {
                    // The worker has read enough, and says why.
                    break;
                }
            }
            drop(writer);
            Ok::<_, Error>(())
        };
        let mut feed = std::pin::pin!(feed);
        tokio::select! {
            biased;
            fed = &mut feed => fed?,
            reply = talk.next() => return done(&reply?.0),
        }
        done(&talk.next().await?.0)
    }

    /// Writes a file whole. Whatever goes wrong, the old file is still there.
    ///
    /// # Errors
    /// When the body breaks off, the disk is full, the condition is not met, or the user may not.
    pub async fn write<S, E>(&self, spec: WriteSpec, body: S) -> Result<Stat, Error>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::error::Error + Send + Sync + 'static,
    {
        let WriteSpec { path, mode, owner, parents, condition } = spec;
        let draft = Call::Draft { path: path.clone(), parents };
        let (answer, fd) = self.ask(draft, None).await?.soon().await?;
        let Answer::Draft { name, present } = answer else {
            return Err(failure::lost());
        };
        let litter = name.clone().map(|draft| Litter { files: self.clone(), path: path.clone(), draft });
        // None comes from where closing one could wait for somebody: then the worker writes.
        let file = fd.map(|fd| File::check(Some(fd))).transpose()?;
        if !early(&condition, present.as_ref()) {
            return Err(failure::refusal(crate::wire::worker::Failure::Condition));
        }
        match (&file, &name) {
            (Some(file), _) => drop(content::write(file, body).await?),
            (None, Some(draft)) => {
                self.feed(Call::Fill { path: path.clone(), draft: draft.clone() }, body).await?;
            }
            (None, None) => return Err(failure::lost()),
        }
        // Two callers with conditions do not come in between each other.
        let _turn = match condition {
            Condition::Any => None,
            _ => Some(self.workers.turn().await),
        };
        let commit = Call::Commit(Commit { path, draft: name, mode, owner, condition });
        let answer = self.ask(commit, file.as_ref().map(File::fd)).await?.soon().await?.0;
        litter.into_iter().for_each(Litter::gone);
        match answer {
            Answer::Stat(stat) => Ok(stat),
            _ => Err(failure::lost()),
        }
    }

    /// Directories below this one that a file at this path in it needs, and that are not there.
    ///
    /// # Errors
    /// When one cannot be looked at.
    pub(in crate::sandbox) async fn parents(&self, below: &str, path: &str) -> Result<Parents, Error> {
        let mut parents = Parents { files: self.clone(), missing: Vec::new() };
        for (end, _) in path.match_indices('/') {
            let directory = format!("{below}/{}", &path[..end]).into_bytes();
            match self.stat(directory.clone(), true, false).await {
                Err(error) if error.code == ErrorCode::FileNotFound => parents.missing.push(directory),
                other => drop(other?),
            }
        }
        Ok(parents)
    }

    /// Looks at a file.
    ///
    /// # Errors
    /// When it is not there, or the user may not look.
    pub async fn stat(&self, path: Vec<u8>, follow: bool, sniff: bool) -> Result<Stat, Error> {
        match self.call(Call::Stat { path, follow, sniff }).await? {
            Answer::Stat(stat) => Ok(stat),
            _ => Err(failure::lost()),
        }
    }

    /// A page of a directory's entries.
    ///
    /// # Errors
    /// When it is not a directory that the user may read.
    pub async fn list(&self, list: List) -> Result<Page<Entry>, Error> {
        let limit = list.limit;
        let talk = self.ask(Call::List(list), None).await?;
        collect(talk, limit, |answer| match answer {
            Answer::Entries(entries) => Some(entries),
            _ => None,
        })
        .await
    }

    /// Lines that match.
    ///
    /// # Errors
    /// When the pattern is none, or the user may not read.
    pub async fn search(&self, search: Search) -> Result<Page<Match>, Error> {
        let limit = search.limit;
        let talk = self.ask(Call::Search(search), None).await?;
        collect(talk, limit, |answer| match answer {
            Answer::Matches(matches) => Some(matches),
            _ => None,
        })
        .await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As mkdir(2); with `parents` it may be there.
    pub async fn mkdir(&self, path: Vec<u8>, mode: Option<u32>, parents: bool) -> Result<(), Error> {
        done(&self.call(Call::Mkdir { path, mode, parents }).await?)
    }

    /// Renames.
    ///
    /// # Errors
    /// As rename(2); `FILE_EXISTS` when something is there that may not be replaced.
    pub async fn rename(&self, from: Vec<u8>, to: Vec<u8>, overwrite: bool) -> Result<(), Error> {
        done(&self.call(Call::Rename { from, to, overwrite }).await?)
    }

    /// Copies a file or a tree.
    ///
    /// # Errors
    /// When something cannot be read or written; what was copied before stays.
    pub async fn copy(&self, from: Vec<u8>, to: Vec<u8>, overwrite: bool) -> Result<(), Error> {
        self.long_call(Call::Copy { from, to, overwrite }).await
    }

    /// Removes.
    ///
    /// # Errors
    /// When something cannot be removed; what was removed before is gone.
    pub async fn remove(&self, path: Vec<u8>, recursive: bool) -> Result<(), Error> {
        self.long_call(Call::Remove { path, recursive }).await
    }

    /// Changes permissions.
    ///
    /// # Errors
    /// As chmod(2).
    pub async fn chmod(&self, path: Vec<u8>, mode: u32) -> Result<(), Error> {
        done(&self.call(Call::Chmod { path, mode }).await?)
    }

    /// Changes the owner.
    ///
    /// # Errors
    /// As chown(2), and when there is no such user.
    pub async fn chown(&self, path: Vec<u8>, owner: User, follow: bool) -> Result<(), Error> {
        done(&self.call(Call::Chown { path, owner, follow }).await?)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As symlink(2).
    pub async fn symlink(&self, target: Vec<u8>, path: Vec<u8>) -> Result<(), Error> {
        done(&self.call(Call::Symlink { target, path }).await?)
    }

    /// Rewrites the cell in a memory file: see [`Call::Rewrite`].
    ///
    /// # Errors
    /// When there can be no worker, or it dies of the cell.
    pub(super) async fn rewrite(&self, typescript: bool, file: &OwnedFd) -> Result<Answer, Error> {
        let call = Call::Rewrite { typescript };
        let talk = self.workers.ask(&self.agent, &self.user, call, &borrowed(Some(file))).await?;
        talk.soon().await.map(|(answer, _)| answer)
    }

    /// Connects to a TCP port of the sandbox's loopback, from inside its network namespace.
    ///
    /// # Errors
    /// `PORT_CLOSED` when nothing accepts connections there.
    pub(super) async fn dial(&self, port: u16) -> Result<Dialled, Error> {
        let call = Call::Dial { port };
        // It is never closed.
        let _turn = self.dialing.acquire().await;
        let (answer, fd) = self.dialers.ask(&self.agent, &self.user, call, &[]).await?.soon().await?;
        let (Answer::Connection, Some(fd)) = (answer, fd) else { return Err(failure::lost()) };
        Dialled::new(fd, port).map_err(no_descriptors)?.ok_or_else(failure::lost)
    }
}

fn done(answer: &Answer) -> Result<(), Error> {
    if *answer == Answer::Done { Ok(()) } else { Err(failure::lost()) }
}

/// Whether a condition can still be met, before the body is taken. It is asked again at the end.
fn early(condition: &Condition, present: Option<&Stat>) -> bool {
    match (condition, present) {
        (Condition::Any, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => true,
        (Condition::OneOf(tags), Some(stat)) => tags.contains(&stat.tag),
        _ => false,
    }
}

/// All parts of an answer. A worker that sends more than was asked for is killed.
async fn collect<T>(
    mut talk: Talk,
    limit: u32,
    part: impl Fn(Answer) -> Option<Vec<T>>,
) -> Result<Page<T>, Error> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut items = Vec::new();
    loop {
        let (answer, _) = talk.next().await?;
        if let Answer::End(end) = answer {
            return Ok(Page { items, end });
        }
        let more = part(answer).ok_or_else(failure::lost)?;
        if more.len() > limit - items.len() {
            return Err(failure::lost());
        }
        items.extend(more);
    }
}

fn no_descriptors(error: io::Error) -> Error {
    Error::new(ErrorCode::CapacityExhausted, "the daemon has no descriptors left").source(error)
}

/// Both ends of a pipe; ours are made non-blocking by whoever takes them over.
fn pipe_pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let pair = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| no_descriptors(errno.into()))?;
    // Fewer wake-ups for long streams; the default does too where a user has no more (pipe(7)).
    let _ = rustix::pipe::fcntl_setpipe_size(&pair.0, 256 * 1024);
    Ok(pair)
}

/// Directories that are not there yet, the uppermost first. Those that are made and stay empty are removed again, unless they
/// are to be kept.
pub(in crate::sandbox) struct Parents {
    files: Files,
    missing: Vec<Vec<u8>>,
}

impl Parents {
    /// Something is in them.
    pub(in crate::sandbox) fn keep(mut self) {
        self.missing.clear();
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        let (files, missing) = (self.files.clone(), std::mem::take(&mut self.missing));
        if missing.is_empty() {
            return;
        }
        let workers = Arc::clone(&files.workers);
        workers.clear(async move {
            for path in missing.into_iter().rev() {
                for _ in 0..EMPTY_TRIES {
                    match files.remove(path.clone(), false).await {
                        // A draft in it may still be on its way out.
                        Err(error) if error.code == ErrorCode::DirectoryNotEmpty => {
                            tokio::time::sleep(EMPTY_PAUSE).await;
                        }
                        _ => break,
                    }
                }
            }
        });
    }
}

/// How often, and how far apart, it is looked whether a directory is empty.
const EMPTY_TRIES: u32 = 40;
/// See [`EMPTY_TRIES`].
const EMPTY_PAUSE: Duration = Duration::from_millis(100);

/// A draft with a name, to be removed when it does not become the file.
struct Litter {
    files: Files,
    path: Vec<u8>,
    draft: Vec<u8>,
}

impl Litter {
    /// It has become the file.
    fn gone(mut self) {
        self.draft.clear();
    }
}

impl Drop for Litter {
    fn drop(&mut self) {
        if self.draft.is_empty() {
            return;
        }
        let (files, path) = (self.files.clone(), std::mem::take(&mut self.path));
        let draft = std::mem::take(&mut self.draft);
        let workers = Arc::clone(&files.workers);
        workers.clear(async move {
            if let Err(error) = files.call(Call::Discard { path, draft }).await {
                tracing::debug!(%error, "a draft was left in a sandbox");
            }
        });
    }
}
