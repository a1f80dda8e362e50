//! Bodies about contexts and the code that runs in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Encoding, unique_keys};
use crate::sandbox::{ContextView, Language};

/// A MIME bundle as a client sees it.
pub type Bundle = BTreeMap<String, serde_json::Value>;

/// A context to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CreateContext {
    /// Its name: 1 to 64 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`. Chosen at random when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", example = "analysis")]
    pub id: Option<String>,
    /// Its language; Python when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<Language>,
    /// Where it begins, absolute. The sandbox's working directory when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment, over the sandbox's.
    #[serde(deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Whom it runs as. The sandbox's user when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// After so long its runs are interrupted, unless they say. Never when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604800000)]
    pub timeout_ms: Option<u64>,
}

/// Contexts of a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ContextList {
    /// By name.
    pub contexts: Vec<ContextView>,
}

/// A cell to run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunCode {
    /// The cell.
    #[schema(required = true, value_type = String, example = "x = 41\nx + 1")]
    pub code: Option<String>,
    /// After so long, from its start, it is interrupted. The context's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604800000)]
    pub timeout_ms: Option<u64>,
    /// Environment for this run alone, over the context's.
    #[serde(deserialize_with = "unique_keys", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory for this run alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Whether somebody answers when the code asks for input: see the event `input`. Otherwise it is at its end.
    pub stdin: bool,
    /// Whether it goes on whatever the client does. Without events the answer comes when its turn has come, and says
    /// only which run it is; what came of it is at `GET …/runs/{run}`.
    pub detach: bool,
    /// How much of each of stdout and stderr a collected result keeps; 8 MiB when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 67108864)]
    pub output_bytes_max: Option<u64>,
}

/// What the code that asks is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerInput {
    /// One line, without its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// That there are no more lines, instead.
    pub eof: bool,
}

/// Why a cell did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeFailure {
    /// The class of the exception; or `TimeoutError`, `KeyboardInterrupt`, `InterpreterDied`, `OutOfMemory` or
    /// `ContextRestarted`.
    #[schema(example = "ZeroDivisionError")]
    pub name: String,
    /// Its text.
    #[schema(example = "division by zero")]
    pub message: String,
    /// As the language shows it, line by line.
    pub traceback: Vec<String>,
    /// The line of the cell, from 1.
    pub line: Option<u64>,
}

/// How a run ended. Data of the event `end`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CodeEnd {
    /// The run.
    pub id: String,
    /// The cell's number, from 1. Absent when the interpreter is gone.
    pub execution_count: Option<u64>,
    /// Why it did not succeed; absent when it did.
    pub error: Option<CodeFailure>,
    /// Whether it was interrupted because its time was up.
    pub timed_out: bool,
    /// Whether it was interrupted because somebody wanted it.
    pub interrupted: bool,
    /// Whether the interpreter is gone, and its variables with it. The next run begins in a new one.
    pub state_lost: bool,
    /// Whether it was the first run after state was lost.
    pub restarted: bool,
    /// Whether the kernel killed the interpreter because the sandbox's memory was used up.
    pub oom_killed: bool,
    /// With which code the interpreter ended, if it did by itself; or what the code has given to `sys.exit` or
    /// `process.exit`, which end the cell alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that killed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "SIGSEGV")]
    pub signal: Option<String>,
    /// Whether output was dropped that nobody took while the run was being ended.
    pub output_dropped: bool,
    /// From its start to its end, in milliseconds. Waiting for its turn is not in it.
    pub duration_ms: f64,
}

/// Something that a run shows. Data of the events `display` and `result`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RichOutput {
    /// By MIME type; images and PDF in base64. Beside what notebooks know:
    /// `application/vnd.stockade.dataframe+json` (columns, rows, how many there are) and
    /// `application/vnd.stockade.chart+json` (what is drawn, as numbers).
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    pub data: Bundle,
    /// What the code says about it.
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    pub metadata: Bundle,
    /// `display_id` of a display that may be changed later.
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    pub transient: Bundle,
    /// Whether it takes the place of the one with its `display_id`.
    pub update: bool,
    /// MIME types that were cut or left out because they were too large.
    pub truncated: Vec<String>,
    /// Whether it was shown by what earlier runs have left behind.
    #[serde(default)]
    pub background: bool,
    /// Whether it is the value of the cell. In a collected result only.
    #[serde(default)]
    pub main: bool,
}

/// Data of the events `stdout` and `stderr` of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeOutputEvent {
    /// The bytes.
    pub data: String,
    /// How they are written here.
    pub encoding: Encoding,
    /// Whether they were written by what earlier runs have left behind, as far as that can be known.
    pub background: bool,
}

/// Data of the event `clear`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClearEvent {
    /// Whether what was shown stays until something new is.
    pub wait: bool,
}

/// Data of the event `started` of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunStartedEvent {
    /// The run.
    pub id: String,
}

/// Which parts of a collected result are not whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeTruncated {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// What was shown.
    pub results: bool,
    /// What earlier runs have left behind wrote.
    #[serde(default)]
    pub background: bool,
}

/// A run that was to detach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CodeRunView {
    /// The run.
    pub id: String,
    /// When it was asked for (RFC 3339).
    pub created_at: String,
    /// Whether it has ended.
    pub ended: bool,
    /// What came of it, once it has ended. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<CodeResult>,
}

/// Runs of a context that were to detach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CodeRunList {
    /// The oldest first.
    pub runs: Vec<CodeRunView>,
}

/// A run and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CodeResult {
    /// How it ended.
    #[serde(flatten)]
    pub end: CodeEnd,
    /// What it and what it has started wrote, byte for byte.
    pub stdout: String,
    /// How `stdout` is written here: `base64` exactly when the bytes are not UTF-8.
    pub stdout_encoding: Encoding,
    /// What it wrote to its standard error.
    pub stderr: String,
    /// How `stderr` is written here.
    pub stderr_encoding: Encoding,
    /// Bytes that were written to stdout in all.
    pub stdout_bytes: u64,
    /// Bytes that were written to stderr in all.
    pub stderr_bytes: u64,
    /// What was written by what earlier runs have left behind, to either stream.
    pub background: String,
    /// What it showed, in order; the value of the cell is the one that is `main`.
    pub results: Vec<RichOutput>,
    /// What there was more of than is here.
    pub truncated: CodeTruncated,
}
