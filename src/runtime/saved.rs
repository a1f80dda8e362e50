//! Saved file systems: what snapshots, and sandboxes that began as one, are made of.
//!
//! ```text
//! state_dir/sandboxes/<id>/   upper  work  below ─▶ the saved one that it lies on, if there is one
//!           saved/<snapshot>/ upper  work  below ─▶ the same
//!                 flat-<snapshot>/ upper            all of that one and what is below it, as one
//!                 .new-<snapshot>/                  being made, or on its way out
//! ```
//! Both have the same form, so that one becomes the other by one rename(2): a sandbox that does not run is saved by
//! exchanging its directory for an empty one that lies on it (`RENAME_EXCHANGE`), and given saved files by exchanging it for an
//! empty one that lies on those. Whatever is killed in between, every name is one thing or the other. `below` is a symlink, so
//! that it is part of the inode, and a crash of the host cannot leave it empty.
//!
//! - What lies here is never written again: it can be below any number of overlays. The files of a sandbox that runs never
//!   are; they are copied while its commands are frozen ([`copy`]).
//! - They are no subvolumes of btrfs, although a snapshot of one would be a copy in one step. Each subvolume numbers its
//!   inodes from 256, and overlayfs tells layers of one file system apart by nothing else: two files of two layers, or a
//!   directory and one in it, became the same (find(1): "File system loop detected"; `cp -a` and `tar` made links of them).
//! - So many lie on top of each other and no more: whose files are saved when it lies on as many is laid on one first that says what
//!   all of them do (`runtime::merge`). It is made beside them and by their name, once, and they stay for whoever else lies on them.
//! - overlayfs's attributes stay on them: what is below a saved upper directory is what was below it when it was written.
//! - Garbage is what no chain of `below` reaches: from a sandbox, or from a snapshot, which is a file of serve's of that name
//!   (`.new` while it is being made). It is collected when launch starts, when a sandbox that lay on something is gone,
//!   and when serve has forgotten a snapshot.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, RenameFlags};

use super::cgroup::Freezer;
use super::copy;
use super::create::Foundation;
use super::merge;
use super::trash;
use crate::id::{SandboxId, SnapshotId};
use crate::limits::SAVED_DEPTH_MAX;
use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, errno_of};
use crate::wire;
use crate::wire::agent::Exit;
use crate::wire::launch::{Failure, FailureKind, SaveMethod, Saved};

/// Prefix of what is not yet, or no longer, a saved file system.
const UNFINISHED: &str = ".new-";

/// Prefix of one that says what the one of that name and all below it say.
const FLAT: &str = "flat-";

/// The link to what a directory lies on.
const BELOW: &str = "below";

/// More than can lie on top of each other: where that many do, one of them lies on itself.
const CHAIN_MAX: usize = 2 * SAVED_DEPTH_MAX;

/// Suffix of a link, beside what is being made, to the name of the sandbox that is frozen for it.
const FROZEN: &str = ".frozen";

/// Names of files with several names, while a copy is made.
const LINKS: &str = "links";

/// How long a sandbox may take to stand still.
const FREEZE_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);

fn failed(what: &str, error: impl Into<io::Error>) -> Failure {
    let error = error.into();
    let full = matches!(
        Errno::from_io_error(&error),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN)
    );
    let kind = if full { FailureKind::Capacity } else { FailureKind::Internal };
    Failure { kind, what: what.to_owned(), detail: error.to_string() }
}

fn missing(snapshot: &SnapshotId) -> Failure {
    let what = format!("find the saved files {snapshot}");
    Failure { kind: FailureKind::SnapshotMissing, what, detail: "there are none".to_owned() }
}

/// Where all of them lie.
fn all(foundation: &Foundation) -> PathBuf {
    foundation.state.join("saved")
}

fn place(foundation: &Foundation, snapshot: &SnapshotId) -> PathBuf {
    all(foundation).join(snapshot.as_str())
}

fn unfinished(foundation: &Foundation, snapshot: &SnapshotId) -> PathBuf {
    all(foundation).join(format!("{UNFINISHED}{snapshot}"))
}

fn frozen_for(foundation: &Foundation, snapshot: &SnapshotId) -> PathBuf {
    all(foundation).join(format!("{UNFINISHED}{snapshot}{FROZEN}"))
}

/// What a directory of a sandbox, or of saved files, lies on.
///
/// # Errors
/// As readlink(2), and when the link is not one of ours.
pub fn below(directory: &Path) -> io::Result<Option<SnapshotId>> {
    match std::fs::read_link(directory.join(BELOW)) {
        Ok(target) => target
            .to_str()
            .and_then(|name| SnapshotId::parse(name).ok())
            .map(Some)
            .ok_or_else(|| io::Error::other("what it lies on has no name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says what a directory lies on.
///
/// # Errors
/// As symlink(2).
pub fn lay_on(directory: &Path, snapshot: &SnapshotId) -> io::Result<()> {
    std::os::unix::fs::symlink(snapshot.as_str(), directory.join(BELOW))
}

/// Directories of saved files, top first, down to where the image begins.
///
/// # Errors
/// `SnapshotMissing` when one is not there.
pub fn chain(foundation: &Foundation, top: Option<SnapshotId>) -> Result<Vec<PathBuf>, Failure> {
    let (mut chain, mut next) = (Vec::new(), top);
    while let Some(snapshot) = next {
        let directory = place(foundation, &snapshot);
        let upper = directory.join("upper");
        if !upper.is_dir() {
            return Err(missing(&snapshot));
        }
        chain.push(upper);
        if chain.len() > CHAIN_MAX {
            return Err(failed("lay out saved files", io::Error::other("they lie on themselves")));
        }
        next = below(&directory).map_err(|error| failed("find what saved files lie on", error))?;
    }
    Ok(chain)
}

fn flat(snapshot: &SnapshotId) -> Result<SnapshotId, Failure> {
    SnapshotId::parse(&format!("{FLAT}{snapshot}"))
        .map_err(|error| failed("name saved files", io::Error::other(error)))
}

/// What the files of a sandbox are to lie on when they are saved.
#[derive(Debug)]
pub enum Ground {
    /// These, or nothing but the image.
    Even(Option<SnapshotId>),
    /// On one that is to be made first, of these and all below them.
    Deep(SnapshotId),
}

/// Finds what the files of a sandbox are to lie on when they are saved. One that does not run lies on it from then on; one
/// that `runs` has what it lay on when it began.
///
/// # Errors
/// When that is not known, or not there.
pub fn ground(foundation: &Foundation, id: &str, runs: bool) -> Result<Ground, Failure> {
    let directory = foundation.storage(id);
    let what = "find what the sandbox lies on";
    let on = below(&directory).map_err(|error| failed(what, error))?;
    let depth = chain(foundation, on.clone())?.len();
    let Some(top) = on.as_ref().filter(|_| depth >= SAVED_DEPTH_MAX) else { return Ok(Ground::Even(on)) };
    let flat = flat(top)?;
    if !place(foundation, &flat).join("upper").is_dir() {
        return Ok(Ground::Deep(top.clone()));
    }
    if !runs {
        let next = directory.join(format!("{BELOW}.new"));
        let lay = || -> io::Result<()> {
            // Left by a launcher that was killed right here.
            let _ = std::fs::remove_file(&next);
            std::os::unix::fs::symlink(flat.as_str(), &next)?;
            std::fs::rename(&next, directory.join(BELOW))
        };
        lay().map_err(|error| failed("lay the sandbox on other files", error))?;
    }
    Ok(Ground::Even(Some(flat)))
}

/// An empty directory of a sandbox's form that lies on saved files, or on nothing but the image.
fn prepare(
    foundation: &Foundation,
    directory: &Path,
    on: Option<&SnapshotId>,
    root: &Path,
) -> Result<(), Failure> {
    trash::discard(directory);
    let make = || -> io::Result<()> {
        std::fs::create_dir(directory)?;
        std::fs::create_dir(directory.join("work"))?;
        let upper = directory.join("upper");
        std::fs::create_dir(&upper)?;
        copy::root(&open(root)?, &open(&upper)?)?;
        on.map_or(Ok(()), |on| lay_on(directory, on))
    };
    make().map_err(|error| {
        trash::discard(directory);
        failed("make the sandbox's next directory", error)
    })?;
    // Refused before anything has changed.
    chain(foundation, on.cloned()).map(|_| ()).inspect_err(|_| trash::discard(directory))
}

fn open(directory: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty())
}

fn exchange(one: &Path, other: &Path) -> Result<(), Errno> {
    rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, RenameFlags::EXCHANGE)
}

/// Saves the files of a sandbox that does not run: they become what it lies on. False when it has written nothing since it
/// was made of others: then there is nothing to lie on, and they are to be copied.
///
/// # Errors
/// When there are no files, or the disk is full.
pub fn stack(foundation: &Foundation, id: &str, snapshot: &SnapshotId) -> Result<bool, Failure> {
    let directory = foundation.storage(id);
    let upper = directory.join("upper");
    let mut entries = std::fs::read_dir(&upper).map_err(|error| failed("find the sandbox's files", error))?;
    if entries.next().is_none() {
        return Ok(false);
    }
    let (next, saved) = (unfinished(foundation, snapshot), place(foundation, snapshot));
    prepare(foundation, &next, None, &upper)?;
    let put = || -> io::Result<()> {
        // The name that the sandbox's files have after the exchange.
        lay_on(&next, snapshot)?;
        // Under its final name first: whatever refers to it finds it.
        std::fs::rename(&next, &saved)?;
        Ok(exchange(&directory, &saved)?)
    };
    put().map_err(|error| {
        for left in [&next, &saved] {
            trash::discard(left);
        }
        failed("put the sandbox's files aside", error)
    })?;
    // overlayfs's own, for a mount that is gone.
    let _ = std::fs::remove_dir_all(saved.join("work"));
    Ok(true)
}

/// Gives a sandbox that does not run the files that were saved; those that it had are gone.
///
/// # Errors
/// `SnapshotMissing`, or when the disk is full. Then it has those that it had.
pub fn restore(foundation: &Foundation, id: &str, snapshot: &SnapshotId) -> Result<(), Failure> {
    let root = place(foundation, snapshot).join("upper");
    if !root.is_dir() {
        return Err(missing(snapshot));
    }
    // Not the name of one that is being saved.
    let next = all(foundation).join(format!("{UNFINISHED}of-{id}"));
    prepare(foundation, &next, Some(snapshot), &root)?;
    let directory = foundation.storage(id);
    let exchanged = match exchange(&next, &directory) {
        // Its own files are lost.
        Err(Errno::NOENT) => rustix::fs::rename(&next, &directory),
        other => other,
    };
    trash::discard(&next);
    exchanged.map_err(|errno| failed("give the sandbox the saved files", errno))
}

/// Copies of sandboxes' files that are being made, each by a process of its own.
#[derive(Debug, Default)]
pub struct Savings(BTreeMap<i32, Saving>);

/// A sandbox whose files are to be saved.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The request to be answered.
    pub number: u64,
    /// Whose.
    pub id: SandboxId,
    /// The name that they get.
    pub snapshot: SnapshotId,
    /// Whether they are to be on the disk.
    pub lasting: bool,
    /// Bytes and entries of the copy that was made for them to lie on.
    pub beneath: (u64, u64),
}

/// What one of these processes has led to.
#[derive(Debug)]
pub enum Ended {
    /// The answer to a request.
    Saved(u64, Result<Saved, Failure>),
    /// There is now what this one is to lie on.
    Flattened(Wanted),
}

#[derive(Debug)]
struct Saving {
    wanted: Wanted,
    /// Others that wait for the same.
    also: Vec<Wanted>,
    /// What is being made.
    making: SnapshotId,
    /// Whether the sandbox is frozen for it.
    froze: bool,
    /// Where the process says what it has done.
    report: OwnedFd,
}

/// What a process that saves is to do.
struct Job<'a> {
    task: Task<'a>,
    saved: &'a Path,
    lasting: bool,
}

enum Task<'a> {
    /// To copy the sandbox's directory, which lies on something as the copy does.
    Copy { from: &'a Path, to: &'a Path, on: Option<SnapshotId>, freezer: Option<Freezer> },
    /// To find out how much the files in place are.
    Measure,
    /// To make one of several that lie on each other.
    Merge { layers: Vec<PathBuf>, to: &'a Path },
}

impl Savings {
    /// Begins to save what a sandbox has written. A sandbox that `runs` and is not paused is frozen meanwhile.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub fn copy(
        &mut self,
        foundation: &Foundation,
        wanted: &Wanted,
        on: Option<SnapshotId>,
        runs: bool,
    ) -> Result<(), Failure> {
        let Wanted { id, snapshot, .. } = wanted;
        let from = foundation.storage(id.as_str());
        let next = unfinished(foundation, snapshot);
        trash::discard(&next);
        let froze = runs && !foundation.cgroups.is_frozen(id.as_str());
        let freezer = froze.then(|| foundation.cgroups.freezer(id.as_str())).transpose();
        let freezer =
            freezer.map_err(|error| failed("find the sandbox's control group", io::Error::other(error)))?;
        let frozen = frozen_for(foundation, snapshot);
        if froze {
            // Whoever finds this lets it go on.
            std::os::unix::fs::symlink(id.as_str(), &frozen)
                .map_err(|error| failed("note what is frozen", error))?;
        }
        let saved = place(foundation, snapshot);
        let task = Task::Copy { from: &from, to: &next, on, freezer };
        let job = Job { task, saved: &saved, lasting: wanted.lasting };
        let started = self.start(wanted, snapshot.clone(), job, froze);
        if started.is_err() && froze {
            let _ = std::fs::remove_file(frozen);
        }
        started
    }

    /// Waits for the disk to have what was saved, and finds out how much it is.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn settle(&mut self, foundation: &Foundation, wanted: &Wanted) -> Result<(), Failure> {
        let saved = place(foundation, &wanted.snapshot);
        let job = Job { task: Task::Measure, saved: &saved, lasting: true };
        self.start(wanted, wanted.snapshot.clone(), job, false)
    }

    /// Makes what says all that these saved files and those below them say, for a sandbox to lie on.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub fn flatten(
        &mut self,
        foundation: &Foundation,
        wanted: &Wanted,
        top: &SnapshotId,
    ) -> Result<(), Failure> {
        let making = flat(top)?;
        if let Some(saving) = self.0.values_mut().find(|saving| saving.making == making) {
            saving.also.push(wanted.clone());
            return Ok(());
        }
        let (next, saved) = (unfinished(foundation, &making), place(foundation, &making));
        trash::discard(&next);
        let layers = chain(foundation, Some(top.clone()))?;
        // Whoever is laid on it must find it after a crash of the host, too.
        let job = Job { task: Task::Merge { layers, to: &next }, saved: &saved, lasting: true };
        self.start(wanted, making, job, false)
    }

    fn start(
        &mut self,
        wanted: &Wanted,
        making: SnapshotId,
        job: Job<'_>,
        froze: bool,
    ) -> Result<(), Failure> {
        let what = "start a process that saves files";
        let (report, writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| failed(what, errno))?;
        match process::clone3(0, None).map_err(|errno| failed(what, errno))? {
            Cloned::Child => {
                let code = match work(&job, &writer) {
                    Ok(()) => 0,
                    Err(errno) => errno.raw_os_error(),
                };
                process::exit_now(code)
            }
            Cloned::Parent { pid, .. } => {
                let pid = pid.as_raw_nonzero().get();
                self.0
                    .insert(pid, Saving { wanted: wanted.clone(), also: Vec::new(), making, froze, report });
                Ok(())
            }
        }
    }

    /// A process has ended: if it was one of these, what that means for the requests.
    pub fn ended(&mut self, foundation: &Foundation, pid: i32, exit: Exit) -> Vec<Ended> {
        let Some(Saving { mut wanted, also, making, froze, report: pipe }) = self.0.remove(&pid) else {
            return Vec::new();
        };
        if froze {
            // It did so itself, unless it was killed; a sandbox that is gone needs neither.
            let _ = foundation.cgroups.freeze(wanted.id.as_str(), false);
            let _ = std::fs::remove_file(frozen_for(foundation, &making));
        }
        let result = match exit {
            Exit::Code(0) => report(&pipe),
            Exit::Code(code) => Err(failed("save the sandbox's files", Errno::from_raw_os_error(code))),
            _ => Err(failed("save the sandbox's files", io::Error::other("its process was killed"))),
        };
        if result.is_err() {
            trash::discard(&unfinished(foundation, &making));
        }
        let flattened = making != wanted.snapshot;
        let ended = |wanted: Wanted| match &result {
            Ok(_) if flattened => Ended::Flattened(wanted),
            Ok(saved) => {
                let (bytes, entries) = wanted.beneath;
                let saved = Saved { bytes: saved.bytes + bytes, entries: saved.entries + entries, ..*saved };
                Ended::Saved(wanted.number, Ok(saved))
            }
            result => Ended::Saved(wanted.number, result.clone()),
        };
        if let (true, Ok(made)) = (flattened, &result) {
            // Whoever had to have it made is charged with it, and nobody twice.
            wanted.beneath = (made.bytes, made.entries);
        }
        std::iter::once(wanted).chain(also).map(ended).collect()
    }
}

fn report(pipe: &OwnedFd) -> Result<Saved, Failure> {
    let mut buffer = [0; 64];
    let what = "hear what was saved";
    let length = rustix::io::read(pipe, &mut buffer).map_err(|errno| failed(what, errno))?;
    wire::decode(&buffer[..length]).map_err(|error| failed(what, io::Error::other(error)))
}

/// The process that saves: it copies, lets the sandbox go on, and waits for the disk.
fn work(job: &Job<'_>, writer: &OwnedFd) -> Result<(), Errno> {
    // It must not outlive the launcher, which would not know of it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let freezer = match &job.task {
        Task::Copy { freezer, .. } => freezer.as_ref(),
        Task::Measure | Task::Merge { .. } => None,
    };
    let kept: Vec<_> = freezer.map(|freezer| freezer.as_fd()).into_iter().chain([writer.as_fd()]).collect();
    // The launcher's locks and sockets are not to live as long as this takes.
    crate::sys::exec::close_all_except(&kept)?;
    let saved = match &job.task {
        Task::Copy { from, to, on, freezer } => {
            let freeze = |freezer: &Freezer| freezer.freeze_within(FREEZE_WITHIN);
            let frozen = freezer.as_ref().map_or(Ok(()), freeze);
            let saved = frozen.and_then(|()| duplicate(from, to, on.as_ref()));
            let thawed = freezer.as_ref().map_or(Ok(()), Freezer::thaw);
            let saved = saved?;
            // One that is gone is frozen no more.
            let _ = thawed;
            std::fs::rename(to, job.saved).map_err(errno_of)?;
            saved
        }
        Task::Measure => {
            let found = copy::measure(open(&job.saved.join("upper"))?)?;
            Saved { bytes: found.bytes, entries: found.entries, method: SaveMethod::Stacked }
        }
        Task::Merge { layers, to } => {
            flatten(layers, to)?;
            let made = copy::measure(open(&to.join("upper"))?)?;
            // Before it has its name: who finds that may let go of what it was made of.
            rustix::fs::syncfs(open(to)?)?;
            std::fs::rename(to, job.saved).map_err(errno_of)?;
            Saved { bytes: made.bytes, entries: made.entries, method: SaveMethod::Copied }
        }
    };
    if job.lasting {
        rustix::fs::syncfs(open(job.saved)?)?;
    }
    let bytes = wire::encode(&saved).map_err(|_| Errno::INVAL)?;
    rustix::io::write(writer, &bytes)?;
    Ok(())
}

/// Makes `to` what directories mean together, top first.
fn flatten(layers: &[PathBuf], to: &Path) -> Result<(), Errno> {
    let (upper, links) = (to.join("upper"), to.join(LINKS));
    for directory in [to, &upper, &links] {
        std::fs::create_dir(directory).map_err(errno_of)?;
    }
    let layers: Vec<_> = layers.iter().map(|layer| open(layer)).collect::<Result<_, _>>()?;
    merge::trees(&layers, &open(&upper)?, open(&links)?)?;
    std::fs::remove_dir_all(links).map_err(errno_of)
}

/// Makes `to` what `from` is.
fn duplicate(from: &Path, to: &Path, on: Option<&SnapshotId>) -> Result<Saved, Errno> {
    let (upper, links) = (to.join("upper"), to.join(LINKS));
    for directory in [to, &upper, &links] {
        std::fs::create_dir(directory).map_err(errno_of)?;
    }
    let copied = copy::tree(open(&from.join("upper"))?, open(&upper)?, open(&links)?)?;
    std::fs::remove_dir_all(links).map_err(errno_of)?;
    if let Some(on) = on {
        lay_on(to, on).map_err(errno_of)?;
    }
    let method = if copied.cloned { SaveMethod::Reflink } else { SaveMethod::Copied };
    Ok(Saved { bytes: copied.bytes, entries: copied.entries, method })
}

/// Removes what a launcher that died left half-made, and lets what it had frozen go on.
pub fn discard_unfinished(foundation: &Foundation) {
    for name in names_in(&all(foundation)).filter(|name| name.starts_with(UNFINISHED)) {
        let path = all(foundation).join(&name);
        if !name.ends_with(FROZEN) {
            trash::set_aside(&path);
        } else if let Ok(frozen) = std::fs::read_link(&path) {
            // One that is gone needs it no more.
            let _ = foundation.cgroups.freeze(&frozen.to_string_lossy(), false);
            let _ = std::fs::remove_file(&path);
        }
    }
    trash::empty(&all(foundation));
}

/// Removes what nothing needs any more.
pub fn collect(foundation: &Foundation) {
    let snapshots = foundation.state.join("snapshots");
    let known: Vec<SnapshotId> = names_in(&all(foundation))
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| SnapshotId::parse(&name).ok())
        .collect();
    let is_kept = |snapshot: &&SnapshotId| {
        ["json", "new"].iter().any(|kind| snapshots.join(format!("{snapshot}.{kind}")).exists())
    };
    let mut needed: HashSet<SnapshotId> = HashSet::new();
    let mut next: Vec<SnapshotId> = known.iter().filter(is_kept).cloned().collect();
    let sandboxes = foundation.state.join("sandboxes");
    for name in names_in(&sandboxes).filter(|name| !name.starts_with('.')) {
        match below(&sandboxes.join(name)) {
            Ok(on) => next.extend(on),
            Err(error) => {
                // Nobody knows what is needed: then nothing is removed.
                tracing::error!(%error, "cannot find out what a sandbox lies on");
                return;
            }
        }
    }
    while let Some(snapshot) = next.pop() {
        if needed.contains(&snapshot) {
            continue;
        }
        // Whoever lies on this one may be laid on that.
        next.extend(flat(&snapshot).ok().filter(|flat| known.contains(flat)));
        match below(&place(foundation, &snapshot)) {
            Ok(on) => next.extend(on),
            Err(error) => {
                tracing::error!(%error, %snapshot, "cannot find out what saved files lie on");
                return;
            }
        }
        needed.insert(snapshot);
    }
    for snapshot in known.iter().filter(|snapshot| !needed.contains(*snapshot)) {
        tracing::debug!(%snapshot, "removing saved files that nothing needs");
        trash::set_aside(&place(foundation, snapshot));
    }
    trash::empty(&all(foundation));
}

fn names_in(directory: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}
