//! What travels in request and response bodies, for the server and for the command line, which is its client.
//!
//! Bodies are strict: an unknown field, a field twice or a wrong type is refused, never ignored. A request body
//! is data only; what its values may be is decided in `api::border`.

pub mod contexts;
pub mod export;
pub mod images;
pub mod mounts;
pub mod ports;
pub mod processes;
pub mod recordings;
pub mod snapshots;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use self::recordings::RecordSetting;
use crate::error::ErrorCode;
use crate::sandbox::{
    CommandUsage, CommandView, Lifecycle, NetworkPolicy, SandboxView, SessionView, TerminalView,
};
use crate::sandbox::{object, some_object};
use crate::wire::launch::{Durability, Host, Profile};

/// An error, as every route answers it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Which of the closed list.
    pub code: ErrorCode,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The field, id or value it is about.
    #[schema(value_type = Option<Object>)]
    pub context: Option<serde_json::Value>,
    /// The request, as the header `x-request-id` and the daemon's log name it.
    pub request_id: String,
}

/// A sandbox to make.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateSandbox {
    /// Its name: 1 to 40 of `a-z`, `0-9` and `-`. Chosen at random when absent. Creating the same id again with
    /// the same specification returns the sandbox that is there; with another one it is refused. Credentials are not
    /// compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", example = "build-42")]
    pub id: Option<String>,
    /// Reference or digest of an image in the store, or `host`: the host's own /usr, read-only.
    #[schema(example = "host")]
    pub image: String,
    /// Environment of every command, over the image's.
    #[serde(deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory of commands, absolute; made when missing. The image's, or `/workspace` for `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Whom commands run as: `user`, `uid`, `user:group` or `uid:gid` of the image. The image's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Host name inside. `sandbox` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The caller's own notes; sandboxes can be listed by them.
    #[serde(deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What the kernel offers inside.
    pub profile: Profile,
    /// Whether files survive a crash of the host.
    pub durability: Durability,
    /// Limits. One that is asked for and that this host cannot enforce is refused.
    #[serde(deserialize_with = "object")]
    pub resources: ResourceLimits,
    /// What may leave it. Nothing when absent; UDP other than questions for names never does.
    #[serde(deserialize_with = "some_object", skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkPolicy>,
    /// When it rests and ends by itself. Never when absent.
    #[serde(deserialize_with = "object", skip_serializing_if = "is_default")]
    pub lifecycle: Lifecycle,
    /// A snapshot that its files begin as, with the image that is of; `image` is then left out. Environment, working
    /// directory and user are the snapshot's unless they are given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Background processes that are started when it is created and each time that it is woken or started again, in this
    /// order. One that cannot be started when it is created is refused, and the sandbox with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 32)]
    pub startup: Vec<processes::StartupProcess>,
    /// What is mounted in it from the beginning, as by `POST …/mounts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<mounts::AddMount>,
}

fn is_default(lifecycle: &Lifecycle) -> bool {
    *lifecycle == Lifecycle::default()
}

impl Default for CreateSandbox {
    fn default() -> Self {
        Self {
            id: None,
            image: "host".to_owned(),
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            hostname: None,
            labels: BTreeMap::new(),
            profile: Profile::default(),
            durability: Durability::default(),
            resources: ResourceLimits::default(),
            network: None,
            lifecycle: Lifecycle::default(),
            snapshot: None,
            startup: Vec::new(),
            mounts: Vec::new(),
        }
    }
}

/// Limits of a sandbox. Absent ones take the daemon's default, if the host can enforce it; 0 lifts a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceLimits {
    /// Memory in bytes, kernel memory included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Swap in bytes, beside memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 4194304)]
    pub pids: Option<u64>,
    /// Processors; 1.5 is one and a half.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1000, example = 1.5)]
    pub cpus: Option<f64>,
    /// Share of the processors under contention.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub cpu_weight: Option<u64>,
    /// Reading from the disk under the sandbox's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 65536)]
    pub io_read_bytes_per_second: Option<u64>,
    /// Writing to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 65536)]
    pub io_write_bytes_per_second: Option<u64>,
    /// Read operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16)]
    pub io_read_operations_per_second: Option<u64>,
    /// Write operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16)]
    pub io_write_operations_per_second: Option<u64>,
    /// Bytes that the sandbox's files may take on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1048576)]
    pub disk_bytes: Option<u64>,
    /// Files that it may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 16)]
    pub disk_files: Option<u64>,
    /// Bytes of /dev/shm, which counts as memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 4096)]
    pub tmpfs_bytes: Option<u64>,
}

/// A command to run: either `argv` or `shell`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunCommand {
    /// Program and arguments. The program is looked up in the sandbox's `PATH` unless it holds a `/`. Arguments and
    /// environment (the sandbox's too) may have 122,880 bytes and 16,384 strings together; give more on stdin.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["python3", "-c", "print(6*7)"]))]
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
    /// What it reads, as text. Without it and without `stdin_base64`, an empty file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// What it reads, as bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin_base64: Option<String>,
    /// After so long the command and everything it started is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604800000)]
    pub timeout_ms: Option<u64>,
    /// How much of each of stdout and stderr the result keeps (8 MiB when absent); what comes after is read,
    /// dropped and reported as `truncated`. Streams carry everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 67108864)]
    pub output_bytes_max: Option<u64>,
    /// Record it in asciinema's format: `true`, or an object that says how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordSetting>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandEnd {
    /// The command.
    pub id: String,
    /// As shells say it: the code, or 128 + n after signal n.
    pub exit_code: i32,
    /// The signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "SIGKILL")]
    pub signal: Option<String>,
    /// Whether it was killed because its time was up.
    pub timed_out: bool,
    /// Whether the kernel killed it, or a child whose end it passed on as 137, because the sandbox's memory was used
    /// up. The kernel counts per sandbox: what something else killed with SIGKILL while another command of the same
    /// sandbox ran out of memory looks the same. Always false where the host cannot limit memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// From start to end, in milliseconds.
    pub duration_ms: f64,
    /// What it used. Absent for a command of a session: its shell is not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<CommandUsage>,
}

/// How a command ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CommandResult {
    /// How it ended.
    #[serde(flatten)]
    pub end: CommandEnd,
    /// What it wrote.
    #[serde(flatten)]
    pub written: Written,
    /// The recording of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
}

/// What a command wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Written {
    /// What it wrote, byte for byte.
    pub stdout: String,
    /// How `stdout` is written here: `base64` exactly when the bytes are not UTF-8.
    pub stdout_encoding: Encoding,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// How `stderr` is written here.
    pub stderr_encoding: Encoding,
    /// Whether there was more than was kept.
    pub truncated: Truncated,
}

/// How bytes are written in a JSON string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Encoding {
    /// The string is the bytes.
    #[serde(rename = "utf-8")]
    Utf8,
    /// RFC 4648 §4, padded.
    #[serde(rename = "base64")]
    Base64,
}

/// Which streams wrote more than was kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Truncated {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Data of the events `stdout` and `stderr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputEvent {
    /// The bytes.
    pub data: String,
    /// How they are written here.
    pub encoding: Encoding,
}

/// Data of the event `started`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StartedEvent {
    /// The command, for signals.
    pub id: String,
    /// Its first process, as the sandbox sees it.
    pub pid: i32,
    /// The recording of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<String>,
}

/// How an attachment goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AttachOptions {
    /// Destroy the sandbox when the attachment ends: for a sandbox of one command.
    pub destroy: bool,
}

/// What the server says in text frames of an attachment. Output comes in binary frames.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum AttachEvent {
    /// The command runs.
    Started(StartedEvent),
    /// It ended; the last frame.
    Exit(CommandEnd),
    /// It could not be run, or we failed; the last frame.
    Error(ErrorBody),
}

/// A signal to send.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendSignal {
    /// `SIGTERM`, `TERM` or 15.
    #[schema(value_type = SignalName)]
    pub signal: SignalName,
}

/// A signal by name or number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SignalName {
    /// 1 to 64.
    Number(i64),
    /// With or without `SIG`.
    Name(String),
}

/// Which sandboxes to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListSandboxes {
    /// `key=value`, or `key` for any value. May be repeated: all must match.
    pub label: Vec<String>,
}

/// Sandboxes of the caller, or all of them for an operator.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SandboxList {
    /// By id.
    pub sandboxes: Vec<SandboxView>,
}

/// Commands that run.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct CommandList {
    /// The oldest first.
    pub commands: Vec<CommandView>,
}

/// A session to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateSession {
    /// Its name: 1 to 64 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`. Chosen at random when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", example = "build")]
    pub id: Option<String>,
    /// Where its shell begins, absolute. The sandbox's working directory when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment, over the sandbox's.
    #[serde(deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whom it runs as. The sandbox's user when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Sessions of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionList {
    /// By name.
    pub sessions: Vec<SessionView>,
}

/// A terminal to open.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenTerminal {
    /// Its name: 1 to 64 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`. Chosen at random when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    pub id: Option<String>,
    /// Program and arguments. Without them bash, or `/bin/sh` where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Working directory, absolute. The session's, or the sandbox's, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment, over the session's or the sandbox's. `TERM` is `xterm-256color` when nobody says.
    #[serde(deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whom it runs as. The session's user, or the sandbox's, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Height, in characters.
    #[schema(minimum = 1, maximum = 4096)]
    pub rows: u64,
    /// Width, in characters.
    #[schema(minimum = 1, maximum = 4096)]
    pub columns: u64,
    /// The session whose directory and exported variables it begins with, as they are now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Record it in asciinema's format: `true`, or an object that says how.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<RecordSetting>,
}

impl Default for OpenTerminal {
    fn default() -> Self {
        Self {
            id: None,
            argv: None,
            cwd: None,
            env: BTreeMap::new(),
            user: None,
            rows: 24,
            columns: 80,
            session: None,
            record: None,
        }
    }
}

/// Terminals of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TerminalList {
    /// By name.
    pub terminals: Vec<TerminalView>,
}

/// A terminal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Height, in characters.
    #[schema(minimum = 1, maximum = 4096)]
    pub rows: u64,
    /// Width, in characters.
    #[schema(minimum = 1, maximum = 4096)]
    pub columns: u64,
}

/// A signal to a terminal's program.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalTerminal {
    /// `SIGTERM`, `TERM` or 15.
    #[schema(value_type = SignalName)]
    pub signal: SignalName,
    /// Whether to every process that it started, too.
    #[serde(default)]
    pub tree: bool,
}

/// From where to look at a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct LookAtTerminal {
    /// Position in the output. The oldest byte that is kept when absent.
    pub cursor: Option<u64>,
}

/// What a viewer says in text frames. Input goes in binary frames, as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TerminalControl {
    /// Another size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<TerminalSize>,
    /// A signal to the terminal's program. (Ctrl-C is input: the byte 3.)
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<SignalName>)]
    pub signal: Option<SignalName>,
}

/// What the server says to a viewer in text frames. Output comes in binary frames, as it is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum TerminalEvent {
    /// The first frame.
    Attached {
        /// Position of the first byte that follows; later than what was asked for when that is gone.
        cursor: u64,
    },
    /// The viewer was too slow, and some output is gone.
    Skipped {
        /// How much.
        bytes: u64,
        /// Position of the next byte.
        cursor: u64,
    },
    /// The program ended, and all of its output was sent; the last frame.
    Exit {
        /// As shells say it: the code, or 128 + n after signal n.
        exit_code: i32,
        /// Position after the last byte.
        cursor: u64,
    },
}

/// A repository to clone into a sandbox.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CloneRepository {
    /// `https://…`, `http://…`, `ssh://…`, `git://…`, `user@host:path`, or an absolute path in the sandbox: of a
    /// repository or a bundle. Without a password in it.
    #[schema(example = "https://git.example/team/app.git")]
    pub url: String,
    /// Where to: absolute, or below the sandbox's working directory; not there yet, or an empty directory. Named after
    /// the URL when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Branch or tag to check out. The repository's default when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// How many commits of history; all when absent, and always of a bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 2147483647)]
    pub depth: Option<u64>,
    /// Clone its submodules too.
    pub recurse_submodules: bool,
    /// Whom git runs as. The sandbox's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// After so long the clone is given up and removed. Ten minutes when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604800000)]
    pub timeout_ms: Option<u64>,
    /// For hosts that want a name and a password. Shown to the URL's host and no other; never in an argument, the
    /// environment, a file or a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// See `username`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// An access token in the place of a password; `username` may be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl fmt::Debug for CloneRepository {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloneRepository").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A repository that was cloned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClonedRepository {
    /// Where it is in the sandbox.
    pub path: String,
    /// The commit that is checked out. A repository without any has none.
    pub commit: Option<String>,
    /// The branch that is checked out. A tag is on none.
    pub branch: Option<String>,
    /// From start to end, in milliseconds.
    pub duration_ms: f64,
}

/// How an imported image is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ImportImage {
    /// Its reference here. Without it, what the archive says.
    pub reference: Option<String>,
    /// It is a tar of files, plain, gzip or zstd, and becomes an image of one layer.
    pub rootfs: Option<bool>,
}

/// The daemon lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

/// The daemon and its host.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct DaemonInfo {
    /// Of Stockade.
    pub version: String,
    /// Of this interface.
    pub api: String,
    /// What the host offers.
    pub host: Host,
    /// Where browsers reach exposed ports; absent when this daemon serves no previews.
    pub preview: Option<ports::PreviewInfo>,
    /// How many sandboxes the caller sees.
    pub sandboxes: usize,
    /// Who the daemon takes the caller for.
    pub caller: CallerInfo,
}

/// A caller, as the kernel names it (`SO_PEERCRED`, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallerInfo {
    /// The user.
    pub uid: u32,
    /// Whether it sees the sandboxes of all users.
    pub operator: bool,
}

/// Bytes as they are, of any length.
#[derive(Debug, ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it is in the description alone")]
pub struct RawBytes(Vec<u8>);

/// A map whose keys are all different. serde keeps the last of two equal keys, so that whoever looked at the
/// first would have decided on another request than the one that is carried out (CVE-2024-41110's shape).
fn unique_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct UniqueKeys;
    impl<'de> Visitor<'de> for UniqueKeys {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of strings")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, String>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
                }
                map.insert(key, value);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(UniqueKeys)
}
