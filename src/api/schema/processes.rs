//! Bodies about background processes and variables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Encoding, SignalName, unique_keys};
use crate::sandbox::{LogMatch, OnExit, PortMatch, ProcessView, Stream};

/// A process to start: either `argv` or `shell`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StartProcess {
    /// Its id: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or digit. From a number, as `p17`, when
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", example = "web")]
    pub id: Option<String>,
    /// Program and arguments. The program is looked up in the sandbox's `PATH` unless it holds a `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["python3", "-m", "http.server"]))]
    pub argv: Option<Vec<String>>,
    /// A script for `/bin/sh -c` instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Working directory, absolute. The sandbox's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment, over the sandbox's.
    #[serde(deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whom it runs as. The sandbox's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether its stdin is a pipe that can be written to; otherwise `/dev/null`.
    pub stdin: bool,
    /// After so long it and everything that it started are killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604800000)]
    pub timeout_ms: Option<u64>,
    /// What becomes of it when it has ended.
    pub on_exit: OnExit,
    /// How much of its output is kept on disk, stdout and stderr together; 8 MiB when absent. The oldest goes first,
    /// an eighth at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 65536, maximum = 1073741824)]
    pub log_bytes_max: Option<u64>,
}

/// A background process that a sandbox always has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartupProcess {
    /// Its id: 1 to 64 letters, digits, `.`, `_` and `-`, the first a letter or digit. Each once.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", example = "web")]
    pub id: String,
    /// Program and arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["python3", "-m", "http.server"]))]
    pub argv: Option<Vec<String>>,
    /// A script for `/bin/sh -c` instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Working directory, absolute. The sandbox's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment, over the sandbox's.
    #[serde(default, deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whom it runs as. The sandbox's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A background process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Process {
    /// What is known of it.
    #[serde(flatten)]
    pub view: ProcessView,
    /// The signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "SIGKILL")]
    pub signal: Option<String>,
}

/// Processes of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ProcessList {
    /// The oldest first.
    pub processes: Vec<Process>,
}

/// What was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProcessesKilled {
    /// How many processes ran.
    pub killed: usize,
}

/// What to wait for.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WaitForProcess {
    /// How long. For as long as it takes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604800000)]
    pub timeout_ms: Option<u64>,
    /// What. Its end when absent.
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub what: Option<WaitFor>,
}

/// One thing to wait for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum WaitFor {
    /// Its end.
    Exit(WaitForExit),
    /// A line of its output.
    Log(WaitForLog),
    /// A port that answers on the sandbox's loopback.
    Port(WaitForPort),
}

/// Its end.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitForExit {}

/// A line of its output: one that holds `text`, or one that matches `regex`. Lines that were written before count.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WaitForLog {
    /// This text. It may be in a line that is not complete, such as a prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "listening on")]
    pub text: Option<String>,
    /// A match of this regular expression (Rust's regex crate) in a complete line, or in what is left of one when the
    /// process has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "listening on port (\\d+)")]
    pub regex: Option<String>,
    /// On which stream. On either when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// From which cursor on. From the oldest byte that is kept when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// A port that answers: that takes a connection, or answers a request.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WaitForPort {
    /// Its number.
    #[schema(minimum = 1, example = 8000)]
    pub port: u16,
    /// A request that must be answered, by HTTP/1.1 without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<WaitForHttp>,
}

/// A `GET` request and what its answer must be.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WaitForHttp {
    /// Path and query.
    #[schema(example = "/health")]
    pub path: String,
    /// The lowest status that counts.
    #[schema(minimum = 100, maximum = 599)]
    pub status_min: u16,
    /// The highest.
    #[schema(minimum = 100, maximum = 599)]
    pub status_max: u16,
}

impl Default for WaitForHttp {
    /// The root, answered by anything but an error.
    fn default() -> Self {
        Self { path: "/".to_owned(), status_min: 200, status_max: 399 }
    }
}

/// What came true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Waited {
    /// The process now.
    pub process: Process,
    /// The line that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogMatch>,
    /// The port that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortMatch>,
    /// How long it took from the request on.
    pub waited_ms: f64,
}

/// A signal to send to a process.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalProcess {
    /// `SIGTERM`, `TERM` or 15.
    #[schema(value_type = SignalName)]
    pub signal: SignalName,
    /// To all processes that it started as well, however they detached themselves.
    #[serde(default)]
    pub tree: bool,
}

/// What to do with its stdin after the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct WriteStdin {
    /// Close it: the process reads its end.
    pub close: bool,
}

/// What becomes of killed processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct KillProcesses {
    /// Remove them, and those that have ended, with their logs.
    pub remove: bool,
}

/// Which part of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct ReadLog {
    /// `stdout`, `stderr` or `both`, which is meant when absent.
    #[param(value_type = Option<String>)]
    pub stream: Option<Stream>,
    /// From this cursor on. From the oldest byte that is kept when absent.
    pub cursor: Option<u64>,
    /// At most so many bytes of output in a JSON answer; 1 MiB when absent.
    #[param(minimum = 1, maximum = 8388608)]
    pub limit_bytes: Option<u64>,
}

/// Part of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogPart {
    /// What was written, in the order in which it was read.
    pub entries: Vec<LogEntry>,
    /// Where to go on.
    pub next_cursor: u64,
    /// Bytes between the cursor that was asked for and the first entry that are not there any more.
    pub dropped_bytes: u64,
    /// Whether there is more already.
    pub more: bool,
    /// Whether the process runs: then there may be more later.
    pub running: bool,
}

/// Bytes of one stream. Also the data of the events `stdout` and `stderr` of a followed log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// Which stream.
    pub stream: Stream,
    /// Cursor of the first byte.
    pub cursor: u64,
    /// The bytes.
    pub data: String,
    /// How they are written here.
    pub encoding: Encoding,
}

/// Data of the event `dropped`: the reader was slower than the process for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogDropped {
    /// How many bytes are not there any more.
    pub bytes: u64,
}

/// A sandbox's variables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// By name.
    #[serde(deserialize_with = "unique_keys")]
    pub env: BTreeMap<String, String>,
}

/// Changes of a sandbox's variables. They hold for what is started from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChangeEnvironment {
    /// To set.
    #[serde(deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// To remove; a name that is not there is no error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unset: Vec<String>,
}
