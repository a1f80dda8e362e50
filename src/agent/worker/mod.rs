//! Our own code with the rights of a command: the other end of serve's [`wire::worker`](crate::wire::worker).
//!
//! ```text
//! serve ──Request (+ pipe or draft)──▶ run ─▶ content, tree, attributes   one call each
//!       ◀─Reply (+ file or socket)────      ─▶ archive, search, watch     long, through a pipe or in parts
//! ```
//!
//! A worker is a fork of the zygote that has become its user, with the command's Landlock domain, system call
//! filter and control group, and no program. It is never the agent: what it opens may hang, and what runs beside
//! it as the same user may kill it. It does one request at a time and keeps nothing between them, so that serve can
//! kill it at any moment and ask another one.
//!
//! There is nothing to defend here against the sandbox: whatever is raced or forged, it happens with the user's own
//! rights. What matters is that serve never resolves a path.

mod archive;
mod attributes;
mod content;
mod dial;
mod place;
mod rewrite;
mod search;
mod selection;
mod tree;
mod walk;
mod watch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::limits::FRAME_BYTES_MAX;
use crate::sys::{Errno, socket};
use crate::wire;
use crate::wire::worker::{Answer, Believed, Call, Failure, Reply, Request, Selection};
use place::Root;

/// Answers until serve closes its end.
///
/// # Errors
/// When the socket fails, or serve sends something that is not a request.
pub(super) fn run(socket: &OwnedFd) -> Result<(), Errno> {
    let root = own_root()?;
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let received = socket::receive(socket, &mut buffer)?;
        if received.length == 0 {
            return Ok(());
        }
        let request: Request = wire::decode(&buffer[..received.length]).map_err(|_| Errno::PROTO)?;
        let mut replies = Replies { socket, number: request.number };
        let (result, file) = match answer(&root, request.call, received.fds, &mut replies) {
            Ok((answer, file)) => (Ok(answer), file),
            Err(failure) => (Err(failure), None),
        };
        let fds: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
        replies.send(result, &fds)?;
    }
}

/// Writes a tree of this process's own as an archive into a pipe: for the command line, which has the same trees to
/// send.
///
/// # Errors
/// As for [`Call::Pack`].
pub(crate) fn pack_own(path: &[u8], pipe: &OwnedFd) -> Result<(), Failure> {
    archive::pack(&own_root()?, path, &Selection::default(), pipe).map(drop)
}

/// Lays out an archive that somebody else made, as the worker does with those from outside: nothing of it gets out of
/// the directory (CVE-2018-15664).
///
/// # Errors
/// As for [`Call::Unpack`].
pub(crate) fn unpack_own(path: &[u8], pipe: &OwnedFd) -> Result<(), Failure> {
    archive::unpack(&own_root()?, path, Believed::Nothing, pipe).map(drop)
}

fn own_root() -> Result<Root, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(c"/", flags, Mode::empty()).map(Root::new)
}

/// Where replies go.
struct Replies<'a> {
    socket: &'a OwnedFd,
    number: u64,
}

impl Replies<'_> {
    fn send(&self, result: Result<Answer, Failure>, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let reply = Reply { number: self.number, result };
        socket::send(self.socket, &wire::encode(&reply).map_err(|_| Errno::TOOBIG)?, fds)
    }

    /// One part of an answer. Waits when serve does not read.
    fn part(&mut self, answer: Answer) -> Result<(), Failure> {
        Ok(self.send(Ok(answer), &[])?)
    }
}

type Answered = Result<(Answer, Option<OwnedFd>), Failure>;

fn answer(root: &Root, call: Call, mut fds: Vec<OwnedFd>, replies: &mut Replies<'_>) -> Answered {
    let draft = if matches!(call, Call::Commit(_)) { fds.pop() } else { None };
    let given = fds.pop();
    let given = given.as_ref().ok_or(Failure::from(Errno::PROTO));
    let passed = |(answer, file)| (answer, Some(file));
    let alone = |answer| (answer, None);
    match call {
        Call::Open { path } => content::open(root, &path),
        Call::Stream { path } => content::stream(root, &path, given?).map(alone),
        Call::Draft { path, parents } => content::draft(root, &path, parents),
        Call::Fill { path, draft } => content::fill(root, &path, &draft, given?).map(alone),
        Call::Commit(commit) => content::commit(root, &commit, draft).map(alone),
        Call::Discard { path, draft } => content::discard(root, &path, &draft).map(alone),
        Call::Stat { path, follow, sniff } => attributes::stat(root, &path, follow, sniff).map(alone),
        Call::List(list) => tree::list(root, &list, replies).map(alone),
        Call::Mkdir { path, mode, parents } => attributes::mkdir(root, &path, mode, parents).map(alone),
        Call::Rename { from, to, overwrite } => tree::rename(root, &from, &to, overwrite).map(alone),
        Call::Copy { from, to, overwrite } => tree::copy(root, &from, &to, overwrite).map(alone),
        Call::Remove { path, recursive } => tree::remove(root, &path, recursive).map(alone),
        Call::Chmod { path, mode } => attributes::chmod(root, &path, mode).map(alone),
        Call::Chown { path, owner, follow } => attributes::chown(root, &path, &owner, follow).map(alone),
        Call::Symlink { target, path } => attributes::symlink(root, &target, &path).map(alone),
        Call::Pack { path, selection } => archive::pack(root, &path, &selection, given?).map(alone),
        Call::Unpack { path, believed } => archive::unpack(root, &path, believed, given?).map(alone),
        Call::Search(search) => search::search(root, &search, replies).map(alone),
        Call::Watch(watch) => watch::watch(root, &watch, replies).map(alone),
        // Only a watch that goes on has something to report.
        Call::Synchronise => Err(Errno::PROTO.into()),
        Call::Dial { port } => dial::dial(port).map(passed),
        Call::Rewrite { typescript } => rewrite::rewrite(given?, typescript).map(alone),
    }
}
