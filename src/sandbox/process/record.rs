//! What must be known of a process when serve is started again.

use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::wire::agent::{Exit, Step, Usage};

/// The file in a process's directory.
const NAME: &str = "record.json";

/// What becomes of a process that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnExit {
    /// It stays in lists, with its logs, until it is removed.
    #[default]
    Keep,
    /// It is removed with its logs.
    Remove,
}

/// A process as it lies on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    /// The agent's number, and the name of its directory.
    pub(super) number: u32,
    pub(super) argv: Vec<String>,
    pub(super) cwd: String,
    pub(super) user: String,
    pub(super) pid: i32,
    /// RFC 3339.
    pub(super) started_at: String,
    /// Milliseconds since 1970, for durations and deadlines across a restart.
    pub(super) started_ms: i64,
    pub(super) timeout_ms: Option<u64>,
    pub(super) timed_out: bool,
    pub(super) on_exit: OnExit,
    pub(super) log_bytes_max: u64,
    pub(super) end: Option<End>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) how: How,
    /// Milliseconds since 1970.
    pub(super) at_ms: i64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum How {
    /// By itself or by a signal.
    Exited(Exit, Usage),
    /// Its program never ran.
    Failed(Step, i32),
    /// With the sandbox, unseen.
    Lost,
}

/// The directory of a process, in that of its sandbox.
pub(super) fn directory(number: u32) -> String {
    format!("p{number}")
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Record {
    /// Writes it, so that it is there whole or as it was.
    pub(super) fn save(&self, parent: &OwnedFd) -> std::io::Result<()> {
        let directory = directory(self.number);
        let (draft, name) = (format!("{directory}/{NAME}.new"), format!("{directory}/{NAME}"));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, draft.as_str(), flags, Mode::from_raw_mode(0o600))?;
        let text = serde_json::to_vec(self)?;
        std::io::Write::write_all(&mut std::fs::File::from(file), &text)?;
        Ok(rustix::fs::renameat(parent, draft.as_str(), parent, name.as_str())?)
    }

    fn load(parent: &OwnedFd, directory: &str) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, format!("{directory}/{NAME}"), flags, Mode::empty()).ok()?;
        serde_json::from_reader(std::io::BufReader::new(std::fs::File::from(file))).ok()
    }
}

/// All processes of a sandbox, in no order. What is half-made or unreadable is removed.
pub(super) fn load_all(parent: &OwnedFd) -> std::io::Result<Vec<Record>> {
    let mut records = Vec::new();
    for name in entries(parent, ".")? {
        match Record::load(parent, &name) {
            Some(record) if directory(record.number) == name => records.push(record),
            _ => remove(parent, &name),
        }
    }
    Ok(records)
}

/// Removes the directory of a process.
pub(super) fn remove(parent: &OwnedFd, directory: &str) {
    for name in entries(parent, directory).unwrap_or_default() {
        // What is left makes the removal below fail, and is found at the next start.
        let _ = rustix::fs::unlinkat(parent, format!("{directory}/{name}"), AtFlags::empty());
    }
    if let Err(error) = rustix::fs::unlinkat(parent, directory, AtFlags::REMOVEDIR)
        && error != rustix::io::Errno::NOENT
    {
        tracing::warn!(%error, directory, "cannot remove the files of a process");
    }
}

fn entries(parent: &OwnedFd, directory: &str) -> std::io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, directory, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
}
