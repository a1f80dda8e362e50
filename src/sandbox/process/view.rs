//! A process as the API shows it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::log::Extent;
use super::record::{How, OnExit};
use super::{Process, record};
use crate::error::ErrorCode;
use crate::sandbox::command::refusal;
use crate::wire::agent::{Exit, Usage};

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProcessState {
    /// It runs.
    Running,
    /// It has ended: see `exit_code`.
    Exited,
    /// Its program could not be executed: see `failure`.
    Failed,
    /// The sandbox ended, and it with it.
    Lost,
}

/// A background process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProcessView {
    /// Its id.
    pub id: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Where it was started.
    pub cwd: String,
    /// Whom it runs as.
    pub user: String,
    /// Pid of its first process, as seen in the sandbox.
    pub pid: i32,
    /// How it is.
    pub state: ProcessState,
    /// When it was started (RFC 3339).
    pub started_at: String,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// As shells say it: the code, or 128 + n after signal n.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Number of the signal that killed it; who shows it has the name.
    #[serde(skip)]
    pub signal: Option<i32>,
    /// Why its program could not be executed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<ErrorCode>,
    /// Whether it was killed because its time was up.
    pub timed_out: bool,
    /// After so long it and everything that it started are killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// From its start to its end, or to now, in milliseconds.
    pub duration_ms: u64,
    /// What it used, the children included that it waited for. Once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<CommandUsage>,
    /// Whether its stdin can be written to.
    pub stdin_open: bool,
    /// What becomes of it when it has ended.
    pub on_exit: OnExit,
    /// What is kept of its output.
    pub log: Extent,
    /// How much of its output is kept at most.
    pub log_bytes_max: u64,
}

/// What a command used: time of everything that it started; the rest of its first process and of the children that were
/// waited for (getrusage(2)). What is left in the background and nobody waits for is in nothing but the times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CommandUsage {
    /// Time in user mode, in microseconds.
    pub user_us: u64,
    /// Time in the kernel, in microseconds.
    pub system_us: u64,
    /// The largest resident set of one process, in KiB. At least that of the process which becomes the program: some 20 MiB.
    pub resident_max_kib: u64,
    /// Bytes read from the disk.
    pub read_bytes: u64,
    /// Bytes written to it, or to be.
    pub written_bytes: u64,
    /// Pages that had to be read from the disk.
    pub major_faults: u64,
    /// Pages that had to be found or made in memory.
    pub minor_faults: u64,
    /// How often it waited for something.
    pub voluntary_switches: u64,
    /// How often another one was let run.
    pub involuntary_switches: u64,
}

impl From<Usage> for CommandUsage {
    fn from(usage: Usage) -> Self {
        Self {
            user_us: usage.user_us,
            system_us: usage.system_us,
            resident_max_kib: usage.resident_max_kib,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
            major_faults: usage.major_faults,
            minor_faults: usage.minor_faults,
            voluntary_switches: usage.voluntary_switches,
            involuntary_switches: usage.involuntary_switches,
        }
    }
}

impl Process {
    /// As it is now.
    pub fn view(&self) -> ProcessView {
        let over = *self.over.borrow();
        // Being written to now: then it is open.
        let stdin_open = !over && self.stdin.try_lock().map_or(true, |stdin| stdin.is_some());
        let log = self.log.extent();
        let record = self.lock();
        let end = record.end.filter(|_| over);
        let (state, exit, usage, failure) = match end.map(|end| end.how) {
            None => (ProcessState::Running, None, None, None),
            Some(How::Exited(exit, usage)) => (ProcessState::Exited, Some(exit), Some(usage), None),
            Some(How::Failed(step, errno)) => {
                let program = record.argv.first().map_or("", |program| program);
                (ProcessState::Failed, None, None, Some(refusal(step, errno, program).code))
            }
            Some(How::Lost) => (ProcessState::Lost, None, None, None),
        };
        let until = end.map_or_else(record::now_ms, |end| end.at_ms);
        ProcessView {
            id: record.id.clone(),
            argv: record.argv.clone(),
            cwd: record.cwd.clone(),
            user: record.user.clone(),
            pid: record.pid,
            state,
            started_at: record.started_at.clone(),
            ended_at: end
                .and_then(|end| jiff::Timestamp::from_millisecond(end.at_ms).ok())
                .map(|at| at.to_string()),
            exit_code: exit.map(|exit| match exit {
                Exit::Code(code) => code,
                Exit::Signal(signal) => 128 + signal,
            }),
            signal: match exit {
                Some(Exit::Signal(signal)) => Some(signal),
                _ => None,
            },
            failure,
            timed_out: record.timed_out,
            timeout_ms: record.timeout_ms,
            duration_ms: u64::try_from(until - record.started_ms).unwrap_or(0),
            usage: usage.map(CommandUsage::from),
            stdin_open,
            on_exit: record.on_exit,
            log,
            log_bytes_max: record.log_bytes_max,
        }
    }
}
