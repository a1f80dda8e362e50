//! Parse at the border, trust inside: what the values of a request may be.
//!
//! Every refusal names its field in `context.field`, says what is allowed, and hints at the fix. Sizes, NUL bytes and what only
//! this interface knows (argv or shell, stdin, output) are decided here. What the sandbox, its image or the host
//! must be known for (users, directories, controllers, defaults) is decided in `sandbox`, with codes of its own.
//! Nothing has been made yet when either refuses.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::extract::Query;
use super::schema::images::PullImage;
use super::schema::processes::{ReadLog, StartProcess, WaitFor, WaitForPort, WaitForProcess};
use super::schema::recordings::RecordSetting;
use super::schema::{CloneRepository, CreateSandbox, ResourceLimits, RunCommand};
use super::signals;
use crate::error::{Error, ErrorCode};
use crate::id::{SandboxId, SnapshotId};
use crate::limits;
use crate::sandbox::catalog::{HOST_IMAGE, PullSpec};
use crate::sandbox::{
    CloneSpec, CommandSpec, Condition, HttpProbe, Login, Matcher, Probe, ProcessSpec, RepositoryUrl,
    ResourcesSpec, SandboxSpec, Stream, parse_policy,
};
use crate::wire::fetch::Credentials;

/// The smallest limit of files on disk that leaves room for a file.
const DISK_BYTES_MIN: u64 = 1 << 20;

/// The refusal of a field: the rule that it breaks, and what to give instead.
pub(super) fn refuse(
    field: impl AsRef<str>,
    rule: impl AsRef<str>,
    fix: impl Into<std::borrow::Cow<'static, str>>,
) -> Error {
    let field = field.as_ref();
    Error::new(ErrorCode::InvalidRequest, format!("{field} {}", rule.as_ref()))
        .hint(fix)
        .context(json!({"field": field}))
}

/// Text without NUL, of a bounded length.
pub(super) fn text(field: &str, value: &str, bytes_max: usize) -> Result<(), Error> {
    if value.len() > bytes_max {
        return Err(refuse(
            field,
            format!("is too long: {} bytes, at most {bytes_max}", value.len()),
            format!("shorten it to {bytes_max} bytes"),
        ));
    }
    if value.contains('\0') {
        return Err(refuse(field, "holds a NUL character", "leave the character U+0000 out"));
    }
    Ok(())
}

/// Text that is shown in lists: not empty, no control characters either.
pub(super) fn line(field: &str, value: &str, bytes_max: usize) -> Result<(), Error> {
    text(field, value, bytes_max)?;
    if value.is_empty() {
        return Err(refuse(field, "is empty", "give it a value, or leave the field out"));
    }
    if value.chars().any(char::is_control) {
        return Err(refuse(field, "holds a control character", "use printable characters only"));
    }
    Ok(())
}

/// A sandbox's id.
pub(crate) fn sandbox_id(id: &str) -> Result<SandboxId, Error> {
    SandboxId::parse(id).map_err(|why| {
        Error::new(ErrorCode::InvalidId, format!("the sandbox id {why}"))
            .hint("choose 1 to 40 characters of a-z, 0-9 and '-', not starting or ending with '-'")
            .context(json!({"field": "id"}))
    })
}

/// A snapshot's id.
pub(crate) fn snapshot_id(id: &str) -> Result<SnapshotId, Error> {
    SnapshotId::parse(id).map_err(|why| {
        Error::new(ErrorCode::InvalidId, format!("the snapshot id {why}"))
            .hint("GET /v1/snapshots lists those that there are")
            .context(json!({"field": "snapshot"}))
    })
}

/// A reference to an image, as far as its shape is no matter of the image code.
pub(crate) fn reference(field: &str, value: &str) -> Result<(), Error> {
    line(field, value, limits::REFERENCE_BYTES_MAX).map_err(|error| {
        Error { code: ErrorCode::InvalidReference, ..error }
            .hint("a reference is [registry/]repository[:tag][@sha256:…]")
    })
}

pub(super) fn labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    if labels.len() > limits::LABELS_MAX {
        return Err(refuse(
            "labels",
            format!("holds {} labels, at most {}", labels.len(), limits::LABELS_MAX),
            "put what belongs together into one label",
        ));
    }
    for (key, value) in labels {
        let field = format!("labels.{}", shown(key));
        line(&field, key, limits::LABEL_BYTES_MAX)?;
        if key.contains('=') {
            return Err(refuse(
                &field,
                "holds a '=' in its name",
                "a label's value may hold '=', its name may not",
            ));
        }
        if !value.is_empty() {
            line(&field, value, limits::LABEL_BYTES_MAX)?;
        }
    }
    Ok(())
}

/// A name in an error: only its beginning, without what could upset a terminal.
fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_default).collect()
}

pub(super) fn env(env: &BTreeMap<String, String>) -> Result<(), Error> {
    for (name, value) in env {
        let field = format!("env.{}", shown(name));
        if name.is_empty() || name.contains('=') {
            return Err(refuse(&field, "must have a name, without '='", "write {\"NAME\": \"value\"}"));
        }
        text(&field, name, limits::EXEC_BYTES_MAX)?;
        text(&field, value, limits::EXEC_BYTES_MAX)?;
    }
    exec_size("env", env.len(), env_bytes(env))
}

fn env_bytes(env: &BTreeMap<String, String>) -> usize {
    // As execve(2) counts: `name=value` and the terminating NUL.
    env.iter().map(|(name, value)| name.len() + value.len() + 2).sum()
}

pub(super) fn exec_size(field: &str, strings: usize, bytes: usize) -> Result<(), Error> {
    for (count, unit, most) in
        [(strings, "strings", limits::EXEC_STRINGS_MAX), (bytes, "bytes", limits::EXEC_BYTES_MAX)]
    {
        if count > most {
            return Err(refuse(
                field,
                format!("holds {count} {unit}, at most {most} in arguments and environment together"),
                "give large input on stdin or as a file",
            ));
        }
    }
    Ok(())
}

pub(super) fn within(field: &str, value: Option<u64>, least: u64, most: u64) -> Result<Option<u64>, Error> {
    let fix = || format!("give a number from {least} to {most}, or leave it out");
    match value {
        Some(value) if value < least => Err(refuse(field, format!("must be at least {least}"), fix())),
        Some(value) if value > most => Err(refuse(field, format!("must be at most {most}"), fix())),
        _ => Ok(value),
    }
}

fn cpu_millis(cpus: Option<f64>) -> Result<Option<u64>, Error> {
    let Some(cpus) = cpus else { return Ok(None) };
    if cpus != 0.0 && !(0.05..=f64::from(limits::CPUS_MAX)).contains(&cpus) {
        return Err(refuse(
            "resources.cpus",
            "must be between 0.05 and 1000 processors",
            "1.5 is one and a half; 0 or nothing is no limit",
        ));
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0, or between 10 and 1,000,000, after the check above"
    )]
    Ok(Some((cpus * 1000.0).round() as u64))
}

/// Limits, if their values are sane.
pub(super) fn resources(wanted: &ResourceLimits) -> Result<ResourcesSpec, Error> {
    let size = |field, value, least| within(field, value, least, limits::SIZE_MAX);
    Ok(ResourcesSpec {
        memory_bytes: size("resources.memory_bytes", wanted.memory_bytes, 0)?,
        swap_bytes: size("resources.swap_bytes", wanted.swap_bytes, 0)?,
        pids: within("resources.pids", wanted.pids, 0, limits::PIDS_MAX)?,
        cpu_millis: cpu_millis(wanted.cpus)?,
        cpu_weight: within("resources.cpu_weight", wanted.cpu_weight, 1, 10_000)?,
        io_read_bytes_per_second: size(
            "resources.io_read_bytes_per_second",
            wanted.io_read_bytes_per_second,
            limits::IO_BYTES_MIN,
        )?,
        io_write_bytes_per_second: size(
            "resources.io_write_bytes_per_second",
            wanted.io_write_bytes_per_second,
            limits::IO_BYTES_MIN,
        )?,
        io_read_operations_per_second: size(
            "resources.io_read_operations_per_second",
            wanted.io_read_operations_per_second,
            limits::IO_OPERATIONS_MIN,
        )?,
        io_write_operations_per_second: size(
            "resources.io_write_operations_per_second",
            wanted.io_write_operations_per_second,
            limits::IO_OPERATIONS_MIN,
        )?,
        disk_bytes: size("resources.disk_bytes", wanted.disk_bytes, DISK_BYTES_MIN)?,
        disk_files: size("resources.disk_files", wanted.disk_files, 16)?,
        tmpfs_bytes: size("resources.tmpfs_bytes", wanted.tmpfs_bytes, 4096)?,
    })
}

/// A sandbox to make, if its values are sane.
pub(crate) fn sandbox(wanted: CreateSandbox) -> Result<SandboxSpec, Error> {
    let id = wanted.id.as_deref().map(sandbox_id).transpose()?;
    reference("image", &wanted.image)?;
    env(&wanted.env)?;
    labels(&wanted.labels)?;
    let resources = resources(&wanted.resources)?;
    let snapshot = wanted.snapshot.as_deref().map(snapshot_id).transpose()?;
    if snapshot.is_some() && wanted.image != HOST_IMAGE {
        return Err(refuse(
            "image",
            "and snapshot exclude each other",
            "leave image out: the snapshot has one",
        ));
    }
    Ok(SandboxSpec {
        id,
        image: wanted.image,
        env: wanted.env,
        cwd: wanted.cwd,
        user: wanted.user,
        hostname: wanted.hostname,
        labels: wanted.labels,
        profile: wanted.profile,
        durability: wanted.durability,
        resources,
        network: wanted.network.as_ref().map(parse_policy).transpose()?,
        lifecycle: wanted.lifecycle,
        snapshot,
        startup: super::border_lasting::startup(wanted.startup)?,
        mounts: super::border_mounts::mounts(wanted.mounts)?,
    })
}

/// A command to run, and what the request says about its input and output.
#[derive(Debug)]
pub(crate) struct Run {
    /// The command.
    pub(crate) spec: CommandSpec,
    /// What it reads.
    pub(crate) stdin: Option<Vec<u8>>,
    /// How much of each stream to keep.
    pub(crate) output_bytes_max: usize,
}

pub(super) const ARGV_OR_SHELL: &str =
    r#"give either "argv": ["program", "argument"] or "shell": "a line for /bin/sh""#;

/// A command to run, if its values are sane.
pub(crate) fn command(wanted: RunCommand) -> Result<Run, Error> {
    let argv = match (wanted.argv, wanted.shell) {
        (Some(argv), None) => argv,
        (None, Some(script)) => vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
        (Some(_), Some(_)) => return Err(refuse("shell", "and argv exclude each other", ARGV_OR_SHELL)),
        (None, None) => return Err(refuse("argv", "is missing, and so is shell", ARGV_OR_SHELL)),
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err(refuse("argv", "must begin with a program", ARGV_OR_SHELL));
    }
    for (index, argument) in argv.iter().enumerate() {
        text(&format!("argv[{index}]"), argument, limits::EXEC_BYTES_MAX)?;
    }
    env(&wanted.env)?;
    let argv_bytes: usize = argv.iter().map(|argument| argument.len() + 1).sum();
    exec_size("argv", argv.len() + wanted.env.len(), argv_bytes + env_bytes(&wanted.env))?;
    let stdin = stdin(wanted.stdin, wanted.stdin_base64)?;
    let timeout =
        within("timeout_ms", wanted.timeout_ms, 1, limits::TIMEOUT_MS_MAX)?.map(Duration::from_millis);
    let output_bytes_max = output_bytes_max(wanted.output_bytes_max)?;
    let spec = CommandSpec {
        argv,
        env: wanted.env,
        cwd: wanted.cwd,
        user: wanted.user,
        timeout,
        stdin: stdin.is_some(),
        record: wanted.record.and_then(RecordSetting::spec),
        ..CommandSpec::default()
    };
    Ok(Run { spec, stdin, output_bytes_max })
}

/// How much of each stream a result keeps.
pub(super) fn output_bytes_max(wanted: Option<u64>) -> Result<usize, Error> {
    let kept = within("output_bytes_max", wanted, 0, limits::OUTPUT_BYTES_MAX as u64)?;
    Ok(kept.map_or(limits::OUTPUT_BYTES_DEFAULT, |kept| {
        usize::try_from(kept).unwrap_or(limits::OUTPUT_BYTES_MAX)
    }))
}

pub(super) fn stdin(text: Option<String>, base64: Option<String>) -> Result<Option<Vec<u8>>, Error> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(refuse(
                "stdin_base64",
                "is not base64 (RFC 4648, padded)",
                "encode with the standard alphabet and padding, or give text as `stdin`",
            )
            .source(error)),
        },
        (Some(_), Some(_)) => Err(refuse(
            "stdin_base64",
            "and stdin exclude each other",
            "give bytes as `stdin_base64` or text as `stdin`",
        )),
    }
}

const PULL_SECRETS: &str = "give `username` and `password`, or `token`, or neither";

/// An image to pull, if its values are sane.
pub(crate) fn pull(wanted: PullImage) -> Result<PullSpec, Error> {
    reference("reference", &wanted.reference)?;
    for (field, value, bytes_max) in [
        ("platform", &wanted.platform, 128),
        ("username", &wanted.username, 1024),
        ("password", &wanted.password, limits::SECRET_BYTES_MAX),
        ("token", &wanted.token, limits::SECRET_BYTES_MAX),
    ] {
        if let Some(value) = value {
            line(field, value, bytes_max)?;
        }
    }
    let credentials = match (wanted.username, wanted.password, wanted.token) {
        (None, None, None) => Credentials::Anonymous,
        (Some(username), Some(password), None) => Credentials::Basic { username, password },
        (None, None, Some(token)) => Credentials::Token(token),
        (_, _, Some(_)) => {
            return Err(refuse("token", "and username and password exclude each other", PULL_SECRETS));
        }
        _ => return Err(refuse("password", "and username belong together", PULL_SECRETS)),
    };
    if let Some(pem) = &wanted.ca_pem {
        text("ca_pem", pem, limits::CA_PEM_BYTES_MAX)?;
    }
    Ok(PullSpec {
        reference: wanted.reference,
        platform: wanted.platform,
        credentials,
        plain_http: wanted.plain_http,
        ca_pem: wanted.ca_pem,
    })
}

/// What a URL's host is shown, if the two fields go together.
fn login(
    username: Option<String>,
    password: Option<String>,
    token: Option<String>,
) -> Result<Option<Login>, Error> {
    for (field, value, bytes_max) in [
        ("username", &username, 1024),
        ("password", &password, limits::SECRET_BYTES_MAX),
        ("token", &token, limits::SECRET_BYTES_MAX),
    ] {
        if let Some(value) = value {
            line(field, value, bytes_max)?;
        }
    }
    match (username, password, token) {
        (None, None, None) => Ok(None),
        (Some(username), Some(password), None) => Ok(Some(Login { username, password })),
        // The large hosts take any name beside a token.
        (username, None, Some(password)) => {
            let username = username.unwrap_or_else(|| "x-access-token".to_owned());
            Ok(Some(Login { username, password }))
        }
        (_, Some(_), Some(_)) => Err(refuse("token", "and password exclude each other", CLONE_SECRETS)),
        _ => Err(refuse("password", "and username belong together", CLONE_SECRETS)),
    }
}

const CLONE_SECRETS: &str = "give `username` and `password`, or `token`, or neither";

/// A repository to clone, if the values are sane.
pub(crate) fn clone(wanted: CloneRepository) -> Result<CloneSpec, Error> {
    let url = RepositoryUrl::parse(&wanted.url)?;
    let login = login(wanted.username, wanted.password, wanted.token)?;
    if login.is_some() && url.host().is_none() {
        let fix = "use an https URL, or put an ssh key into the sandbox";
        return Err(refuse("url", "is of a kind that takes no name and password", fix));
    }
    if let Some(path) = &wanted.path {
        line("path", path, limits::PATH_BYTES_MAX)?;
    }
    if let Some(branch) = &wanted.branch {
        line("branch", branch, limits::NAME_BYTES_MAX)?;
    }
    let depth = within("depth", wanted.depth, 1, i32::MAX.unsigned_abs().into())?;
    let timeout = within("timeout_ms", wanted.timeout_ms, 1, limits::TIMEOUT_MS_MAX)?;
    Ok(CloneSpec {
        url,
        path: wanted.path,
        branch: wanted.branch,
        depth: depth.and_then(|depth| u32::try_from(depth).ok()),
        submodules: wanted.recurse_submodules,
        user: wanted.user,
        timeout: timeout.map(Duration::from_millis),
        login,
    })
}

/// A process to start, if its values are sane.
pub(crate) fn process(wanted: StartProcess) -> Result<ProcessSpec, Error> {
    wanted.id.as_deref().map(process_id).transpose()?;
    let log_bytes_max =
        within("log_bytes_max", wanted.log_bytes_max, limits::LOG_BYTES_MIN, limits::LOG_BYTES_MAX)?;
    let run = command(RunCommand {
        argv: wanted.argv,
        shell: wanted.shell,
        cwd: wanted.cwd,
        env: wanted.env,
        user: wanted.user,
        timeout_ms: wanted.timeout_ms,
        ..RunCommand::default()
    })?;
    Ok(ProcessSpec {
        id: wanted.id,
        command: CommandSpec { stdin: wanted.stdin, ..run.spec },
        on_exit: wanted.on_exit,
        log_bytes_max: log_bytes_max.unwrap_or(limits::LOG_BYTES_DEFAULT),
    })
}

fn process_id(id: &str) -> Result<(), Error> {
    let refused = |rule: &str| {
        let refused = refuse("id", rule, "choose letters, digits, '.', '_' and '-', such as web-1");
        Err(Error { code: ErrorCode::InvalidId, ..refused })
    };
    if id.is_empty() || id.len() > limits::PROCESS_ID_BYTES_MAX {
        return refused("must have 1 to 64 characters");
    }
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return refused("holds a character that it may not");
    }
    if !id.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return refused("must start with a letter or a digit");
    }
    if id.strip_prefix('p').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())) {
        return refused("is of the form p1, which is for processes without an id of their own");
    }
    Ok(())
}

/// What to wait for and how long, if it is sane.
pub(crate) fn wait(wanted: WaitForProcess) -> Result<(Condition, Option<Duration>), Error> {
    let timeout =
        within("timeout_ms", wanted.timeout_ms, 1, limits::TIMEOUT_MS_MAX)?.map(Duration::from_millis);
    let condition = match wanted.what {
        None | Some(WaitFor::Exit(_)) => Condition::Exit,
        Some(WaitFor::Port(port)) => Condition::Port(probe(port)?),
        Some(WaitFor::Log(log)) => {
            let (field, pattern, matcher) = match (log.text, log.regex) {
                (Some(pattern), None) => ("for.log.text", pattern, Matcher::text as fn(&str) -> _),
                (None, Some(pattern)) => ("for.log.regex", pattern, Matcher::regex as fn(&str) -> _),
                _ => {
                    let fix = r#"write {"log": {"text": "…"}} or {"log": {"regex": "…"}}"#;
                    return Err(refuse("for.log", "takes either text or regex", fix));
                }
            };
            text(field, &pattern, limits::WAIT_PATTERN_BYTES_MAX)?;
            if pattern.is_empty() {
                return Err(refuse(field, "is empty", "say what the line holds"));
            }
            Condition::Log {
                matcher: matcher(&pattern)?,
                stream: log.stream,
                cursor: log.cursor.unwrap_or(0),
            }
        }
    };
    Ok((condition, timeout))
}

fn probe(wanted: WaitForPort) -> Result<Probe, Error> {
    if wanted.port == 0 {
        return Err(refuse("for.port.port", "must be at least 1", "give a number from 1 to 65535"));
    }
    let http = wanted.http.map(|http| {
        let path = http.path;
        let target = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        if !target || path.len() > limits::PATH_BYTES_MAX {
            let fix = "write a path that begins with / and is percent-encoded";
            return Err(refuse("for.port.http.path", "is not the target of a request", fix));
        }
        let statuses = 100..=599;
        if !(statuses.contains(&http.status_min) && statuses.contains(&http.status_max))
            || http.status_min > http.status_max
        {
            let fix = "give two numbers from 100 to 599, the lower one as status_min";
            return Err(refuse("for.port.http.status_min", "and status_max are no range of statuses", fix));
        }
        Ok(HttpProbe { path, status_min: http.status_min, status_max: http.status_max })
    });
    Ok(Probe { port: wanted.port, http: http.transpose()? })
}

/// Which part of a log, if it is sane.
pub(crate) fn read_log(Query(pairs): Query) -> Result<ReadLog, Error> {
    let mut wanted = ReadLog::default();
    for (key, value) in pairs {
        match key.as_str() {
            "stream" => {
                wanted.stream = match value.as_str() {
                    "stdout" => Some(Stream::Stdout),
                    "stderr" => Some(Stream::Stderr),
                    "both" => None,
                    _ => {
                        return Err(refuse("stream", "is none", "write stdout, stderr or both"));
                    }
                };
            }
            "cursor" => wanted.cursor = Some(cursor("cursor", &value)?),
            "limit_bytes" => wanted.limit_bytes = Some(cursor("limit_bytes", &value)?),
            _ => return Err(Query::unknown(&key, "a log may be given `stream`, `cursor` and `limit_bytes`")),
        }
    }
    Ok(wanted)
}

/// A cursor as text.
pub(crate) fn cursor(field: &str, value: &str) -> Result<u64, Error> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        // The description says `int64`, and no answer of ours is larger.
        Ok(cursor) if digits && i64::try_from(cursor).is_ok() => Ok(cursor),
        _ => Err(refuse(field, "is not a number", "give back the number that the last answer said")),
    }
}

/// How much of a log one answer may hold.
pub(crate) fn log_limit(wanted: &ReadLog) -> Result<usize, Error> {
    let limit = within("limit_bytes", wanted.limit_bytes, 1, limits::LOG_ANSWER_BYTES_MAX as u64)?;
    Ok(limit.map_or(limits::LOG_ANSWER_BYTES_DEFAULT, |limit| {
        usize::try_from(limit).unwrap_or(limits::LOG_ANSWER_BYTES_MAX)
    }))
}

/// Variables to set and to remove, if they are sane.
pub(crate) fn variables(set: &BTreeMap<String, String>, unset: &[String]) -> Result<(), Error> {
    env(set)?;
    for (index, name) in unset.iter().enumerate() {
        line(&format!("unset[{index}]"), name, limits::EXEC_BYTES_MAX)?;
    }
    Ok(())
}

/// The number of a signal.
pub(crate) fn signal(wanted: &super::schema::SignalName) -> Result<i32, Error> {
    signals::number(wanted).ok_or_else(|| {
        refuse("signal", "is not a signal of Linux", "give a name like SIGTERM, or a number from 1 to 64")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox_refusal(body: &str) -> (ErrorCode, String) {
        let wanted = crate::api::extract::parse(body.as_bytes()).expect("well-formed");
        let error = sandbox(wanted).expect_err(body);
        assert!(error.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "{body}: {error} has no hint");
        let field = error.context.as_ref().and_then(|context| context["field"].as_str());
        (error.code, field.unwrap_or_default().to_owned())
    }

    #[test]
    fn a_sandbox_that_cannot_be_meant_is_refused_with_its_field() {
        let long = "x".repeat(5000);
        for (body, code, field) in [
            (r#"{"id":""}"#, ErrorCode::InvalidId, "id"),
            (r#"{"id":"www"}"#, ErrorCode::InvalidId, "id"),
            (r#"{"id":"../../etc"}"#, ErrorCode::InvalidId, "id"),
            (r#"{"image":""}"#, ErrorCode::InvalidReference, "image"),
            (r#"{"image":"a\u0000b"}"#, ErrorCode::InvalidReference, "image"),
            (&format!(r#"{{"image":"{long}"}}"#), ErrorCode::InvalidReference, "image"),
            (r#"{"env":{"":"x"}}"#, ErrorCode::InvalidRequest, "env."),
            (r#"{"env":{"A=B":"x"}}"#, ErrorCode::InvalidRequest, "env.A=B"),
            (r#"{"env":{"A":"x\u0000"}}"#, ErrorCode::InvalidRequest, "env.A"),
            (r#"{"env":{"\u001b[2J":"x\u0000"}}"#, ErrorCode::InvalidRequest, "env.\\u{1b}[2J"),
            (r#"{"labels":{"a\n":"x"}}"#, ErrorCode::InvalidRequest, "labels.a\\n"),
            (r#"{"labels":{"":"x"}}"#, ErrorCode::InvalidRequest, "labels."),
            (&format!(r#"{{"labels":{{"a":"{long}"}}}}"#), ErrorCode::InvalidRequest, "labels.a"),
            (
                r#"{"resources":{"memory_bytes":18446744073709551615}}"#,
                ErrorCode::InvalidRequest,
                "resources.memory_bytes",
            ),
            (r#"{"resources":{"pids":4194305}}"#, ErrorCode::InvalidRequest, "resources.pids"),
            (r#"{"resources":{"cpus":-1}}"#, ErrorCode::InvalidRequest, "resources.cpus"),
            (r#"{"resources":{"cpus":1e300}}"#, ErrorCode::InvalidRequest, "resources.cpus"),
            (r#"{"resources":{"cpu_weight":10001}}"#, ErrorCode::InvalidRequest, "resources.cpu_weight"),
            (r#"{"resources":{"disk_bytes":1}}"#, ErrorCode::InvalidRequest, "resources.disk_bytes"),
            (
                r#"{"resources":{"io_read_bytes_per_second":1}}"#,
                ErrorCode::InvalidRequest,
                "resources.io_read_bytes_per_second",
            ),
            (
                r#"{"resources":{"io_write_operations_per_second":0}}"#,
                ErrorCode::InvalidRequest,
                "resources.io_write_operations_per_second",
            ),
        ] {
            assert_eq!(sandbox_refusal(body), (code, field.to_owned()), "{body}");
        }
    }

    #[test]
    fn a_sandbox_that_can_be_meant_is_taken_as_it_is() {
        let body = r#"{"id":"a","env":{"A":"x=\n"},"cwd":"/b","user":"1000:users",
            "labels":{"k":""},"resources":{"memory_bytes":8388608,"swap_bytes":0,"pids":1,"cpus":1.5}}"#;
        let wanted = crate::api::extract::parse(body.as_bytes()).expect("well-formed");
        let spec = sandbox(wanted).expect("sane");
        assert_eq!(spec.resources.cpu_millis, Some(1500));
        assert_eq!(spec.resources.swap_bytes, Some(0));
        assert_eq!(spec.resources.tmpfs_bytes, None);
        assert_eq!((spec.image.as_str(), spec.user.as_deref()), ("host", Some("1000:users")));
    }

    #[test]
    fn a_command_that_cannot_be_meant_is_refused_with_its_field() {
        let many = format!(r#"{{"argv":["a"{}]}}"#, r#","x""#.repeat(limits::EXEC_STRINGS_MAX));
        let large = format!(r#"{{"argv":["a","{}","{}"]}}"#, "x".repeat(62_000), "x".repeat(62_000));
        let both =
            format!(r#"{{"argv":["a","{}"],"env":{{"A":"{}"}}}}"#, "x".repeat(62_000), "x".repeat(62_000));
        for (body, field) in [
            (r"{}", "argv"),
            (r#"{"argv":[]}"#, "argv"),
            (r#"{"argv":[""]}"#, "argv"),
            (r#"{"argv":["a"],"shell":"a"}"#, "shell"),
            (r#"{"argv":["a","b\u0000c"]}"#, "argv[1]"),
            (r#"{"shell":"a\u0000"}"#, "argv[2]"),
            (&many, "argv"),
            (&large, "argv"),
            (&both, "argv"),
            (r#"{"argv":["a"],"stdin":"","stdin_base64":""}"#, "stdin_base64"),
            (r#"{"argv":["a"],"stdin_base64":"*"}"#, "stdin_base64"),
            (r#"{"argv":["a"],"timeout_ms":0}"#, "timeout_ms"),
            (r#"{"argv":["a"],"timeout_ms":604800001}"#, "timeout_ms"),
            (r#"{"argv":["a"],"output_bytes_max":67108865}"#, "output_bytes_max"),
        ] {
            let wanted = crate::api::extract::parse(body.as_bytes()).expect("well-formed");
            let error = command(wanted).expect_err(body);
            let found = error.context.as_ref().and_then(|context| context["field"].as_str());
            let start = &body[..body.len().min(80)];
            assert_eq!((error.code, found), (ErrorCode::InvalidRequest, Some(field)), "{start}");
            assert!(error.hint.is_some(), "{start}: {error} has no hint");
        }
    }

    #[test]
    fn input_is_bytes() {
        let wanted = RunCommand {
            argv: Some(vec!["cat".to_owned()]),
            stdin_base64: Some("AP8=".to_owned()),
            ..RunCommand::default()
        };
        assert_eq!(command(wanted).expect("sane").stdin, Some(vec![0, 255]));
        let empty =
            RunCommand { shell: Some("cat".to_owned()), stdin: Some(String::new()), ..RunCommand::default() };
        let run = command(empty).expect("sane");
        assert_eq!(run.stdin, Some(Vec::new()), "an empty input is an input, not /dev/null");
        assert_eq!(run.spec.argv, ["/bin/sh", "-c", "cat"]);
    }
}
