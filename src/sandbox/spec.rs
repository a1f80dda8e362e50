//! From a request to a plan: defaults, the image's own configuration, and every check that needs no kernel.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::catalog::HOST_IMAGE;
use super::lifecycle::Lifecycle;
use super::mounts::MountRequest;
use super::network::Egress;
use super::startup::StartupSpec;
use crate::error::{Error, ErrorCode};
use crate::id::{SandboxId, SnapshotId};
use crate::limits::{self, IDS_PER_SANDBOX};
use crate::wire::agent::{Name, User};
use crate::wire::launch::{Durability, Host, Profile, Resources, Settings};

/// A sandbox as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Its name; random when absent.
    pub id: Option<SandboxId>,
    /// Reference or digest of an image, or `host`.
    pub image: String,
    /// Environment of every command, over the image's.
    pub env: BTreeMap<String, String>,
    /// Working directory of commands that do not say.
    pub cwd: Option<String>,
    /// User of commands that do not say.
    pub user: Option<String>,
    /// Host name inside.
    pub hostname: Option<String>,
    /// For the caller's own use.
    pub labels: BTreeMap<String, String>,
    /// Isolation profile.
    pub profile: Profile,
    /// Whether files survive a crash of the host.
    pub durability: Durability,
    /// Limits.
    pub resources: ResourcesSpec,
    /// What may leave it; nothing when absent.
    pub network: Option<Egress>,
    /// When it rests and ends by itself.
    pub lifecycle: Lifecycle,
    /// What its files begin as, instead of the image's.
    #[serde(default)]
    pub snapshot: Option<SnapshotId>,
    /// What is started in it whenever it begins to run.
    #[serde(default)]
    pub startup: Vec<StartupSpec>,
    /// What is mounted in it from the beginning.
    #[serde(default)]
    pub mounts: Vec<MountRequest>,
}

impl SandboxSpec {
    /// One of this host's own programs, with something mounted, that ends with its host.
    pub(super) fn of_host(mounts: Vec<MountRequest>) -> Self {
        Self {
            id: None,
            image: HOST_IMAGE.to_owned(),
            env: BTreeMap::new(),
            cwd: None,
            user: None,
            hostname: None,
            labels: BTreeMap::new(),
            profile: Profile::default(),
            durability: Durability::Volatile,
            resources: ResourcesSpec::default(),
            network: None,
            lifecycle: Lifecycle::default(),
            snapshot: None,
            startup: Vec::new(),
            mounts,
        }
    }
}

/// Limits as asked for: absent is the default, 0 is "no limit" where there is one by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcesSpec {
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Bytes of swap.
    pub swap_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// 1–10,000.
    pub cpu_weight: Option<u64>,
    /// Bytes per second.
    pub io_read_bytes_per_second: Option<u64>,
    /// Bytes per second.
    pub io_write_bytes_per_second: Option<u64>,
    /// Operations per second.
    pub io_read_operations_per_second: Option<u64>,
    /// Operations per second.
    pub io_write_operations_per_second: Option<u64>,
    /// Bytes on disk.
    pub disk_bytes: Option<u64>,
    /// Files on disk.
    pub disk_files: Option<u64>,
    /// Bytes of /dev/shm.
    pub tmpfs_bytes: Option<u64>,
}

/// The refusal of a field of a request, and what to give instead.
fn invalid(field: &str, rule: impl AsRef<str>, fix: &'static str) -> Error {
    Error::new(ErrorCode::InvalidRequest, format!("{field} {}", rule.as_ref()))
        .hint(fix)
        .context(serde_json::json!({ "field": field }))
}

/// The refusal of a limit that this host cannot enforce. `limit` is its name in `/v1/info`.
fn unsupported(field: &str, limit: &str, why: &str, fix: &'static str) -> Error {
    Error::new(ErrorCode::LimitUnsupported, why.to_owned())
        .hint(fix)
        .context(serde_json::json!({ "field": field, "limit": limit }))
}

/// A limit's field in a request: the names are the same but for one, which has another unit.
fn field_of(limit: &str) -> String {
    format!("resources.{}", if limit == "cpu_millis" { "cpus" } else { limit })
}

/// Refuses explicit limits that this host cannot enforce, and numbers that no host has.
fn check_explicit(spec: &ResourcesSpec, host: &Host) -> Result<(), Error> {
    let explicit = [
        ("memory_bytes", spec.memory_bytes),
        ("swap_bytes", spec.swap_bytes),
        ("pids", spec.pids),
        ("cpu_millis", spec.cpu_millis),
        ("cpu_weight", spec.cpu_weight),
        ("io_read_bytes_per_second", spec.io_read_bytes_per_second),
        ("io_write_bytes_per_second", spec.io_write_bytes_per_second),
        ("io_read_operations_per_second", spec.io_read_operations_per_second),
        ("io_write_operations_per_second", spec.io_write_operations_per_second),
        ("disk_bytes", spec.disk_bytes),
        ("disk_files", spec.disk_files),
    ];
    for (limit, value) in explicit {
        if value.is_some_and(|value| value != 0) && !host.limits.contains_key(limit) {
            let field = field_of(limit);
            return Err(unsupported(
                &field,
                limit,
                &format!("this host cannot enforce {field}"),
                "leave the limit out, or see `stockade doctor` for what the host lacks",
            ));
        }
        // The kernel takes signed 64-bit numbers; half of that is still more than any host has.
        if value.is_some_and(|value| value > u64::MAX / 4) {
            return Err(invalid(&field_of(limit), "is absurdly large", "give the limit in bytes"));
        }
    }
    Ok(())
}

/// Refuses numbers that make no sense anywhere.
fn check_values(spec: &ResourcesSpec) -> Result<(), Error> {
    if spec.pids.is_some_and(|pids| (1..4).contains(&pids)) {
        return Err(invalid(
            "resources.pids",
            "must be at least 4",
            "the sandbox itself takes two; give 4 or more, or 0 for no limit",
        ));
    }
    if spec.cpu_millis.is_some_and(|millis| (1..50).contains(&millis) || millis > 1_000_000) {
        return Err(invalid(
            "resources.cpus",
            "must be between 0.05 and 1000",
            "1.5 is one and a half; 0 or nothing is no limit",
        ));
    }
    if spec.cpu_weight.is_some_and(|weight| !(1..=10_000).contains(&weight)) {
        return Err(invalid(
            "resources.cpu_weight",
            "must be between 1 and 10000",
            "100 is what everybody has who does not say",
        ));
    }
    Ok(())
}

/// Refuses memory in which nothing runs, and swap beside none.
fn check_memory(spec: &ResourcesSpec, memory_bytes: Option<u64>) -> Result<(), Error> {
    if memory_bytes.is_some_and(|bytes| bytes < limits::MEMORY_BYTES_MIN) {
        return Err(invalid(
            "resources.memory_bytes",
            format!("must be at least {}", limits::MEMORY_BYTES_MIN),
            "below it not even an empty sandbox starts; 0 is no limit",
        ));
    }
    if spec.swap_bytes.is_some() && memory_bytes.is_none() {
        return Err(invalid("resources.swap_bytes", "needs resources.memory_bytes", "give both, or neither"));
    }
    Ok(())
}

/// The limits of a plan: defaults where the host can enforce them, refusal where an explicit one cannot be.
///
/// # Errors
/// `LIMIT_UNSUPPORTED` names the limit; `INVALID_REQUEST` a value that makes no sense.
pub(super) fn resources(
    spec: &ResourcesSpec,
    durability: Durability,
    settings: &Settings,
    host: &Host,
) -> Result<Resources, Error> {
    let enforceable = |limit: &str| host.limits.contains_key(limit);
    let or_default = |limit: &str, asked: Option<u64>, default: u64| match asked {
        Some(0) => None,
        Some(value) => Some(value),
        None => (default != 0 && enforceable(limit)).then_some(default),
    };
    check_explicit(spec, host)?;
    check_values(spec)?;
    let disk_by_memory = host.limits.get("disk_bytes").is_some_and(|by| by == "tmpfs");
    if (spec.disk_bytes.is_some() || spec.disk_files.is_some())
        && disk_by_memory
        && durability == Durability::Durable
    {
        return Err(unsupported(
            "resources.disk_bytes",
            "disk_bytes",
            "this host can limit the disk space of volatile sandboxes only",
            "leave the limit out, use durability `volatile`, or put state_dir on a file system with project quotas",
        ));
    }
    let memory_bytes = or_default("memory_bytes", spec.memory_bytes, settings.default_memory_bytes);
    if disk_by_memory && spec.disk_bytes.zip(memory_bytes).is_some_and(|(disk, memory)| disk > memory / 2) {
        return Err(unsupported(
            "resources.disk_bytes",
            "disk_bytes",
            "this host keeps files under a disk limit in memory: resources.disk_bytes must be at most half of \
             resources.memory_bytes",
            "raise resources.memory_bytes, or put state_dir on a file system with project quotas",
        ));
    }
    check_memory(spec, memory_bytes)?;
    Ok(Resources {
        memory_bytes,
        // Without it a limit on memory would only be one on how soon the host swaps.
        swap_bytes: spec
            .swap_bytes
            .or((memory_bytes.is_some() && host.limits.contains_key("swap_bytes")).then_some(0)),
        pids: or_default("pids", spec.pids, settings.default_pids),
        cpu_millis: spec.cpu_millis.filter(|millis| *millis != 0),
        cpu_weight: spec.cpu_weight,
        io_read_bytes_per_second: spec.io_read_bytes_per_second,
        io_write_bytes_per_second: spec.io_write_bytes_per_second,
        io_read_operations_per_second: spec.io_read_operations_per_second,
        io_write_operations_per_second: spec.io_write_operations_per_second,
        disk_bytes: spec.disk_bytes,
        disk_files: spec.disk_files,
        // Files in memory do not go when their writer is killed: if they could take all of it, the agent would be
        // what the kernel kills next.
        tmpfs_bytes: spec
            .tmpfs_bytes
            .unwrap_or_else(|| {
                settings.default_tmpfs_bytes.min(memory_bytes.map_or(u64::MAX, |bytes| bytes / 2))
            })
            .max(4096),
    })
}

/// The limits of a sandbox that is there, with some of them changed: absent ones stay, 0 is none.
///
/// # Errors
/// `LIMIT_UNSUPPORTED` names the limit; `INVALID_REQUEST` a value that makes no sense.
pub(super) fn changed(before: &Resources, wanted: &ResourcesSpec, host: &Host) -> Result<Resources, Error> {
    check_explicit(wanted, host)?;
    check_values(wanted)?;
    for (field, value) in [
        ("disk_bytes", wanted.disk_bytes),
        ("disk_files", wanted.disk_files),
        ("tmpfs_bytes", wanted.tmpfs_bytes),
    ] {
        if value.is_some() {
            let why = format!("{field} is fixed when a sandbox is made");
            return Err(unsupported(
                field,
                field,
                &why,
                "leave it out; make another sandbox for another limit",
            ));
        }
    }
    let or = |wanted: Option<u64>, before: Option<u64>| match wanted {
        Some(0) => None,
        wanted => wanted.or(before),
    };
    let memory_bytes = or(wanted.memory_bytes, before.memory_bytes);
    let swap_counts = host.limits.contains_key("swap_bytes");
    let swap_bytes = match (memory_bytes, wanted.swap_bytes) {
        (None, _) => None,
        // None is a limit too: as when it was made.
        (Some(_), swap) => swap.or(before.swap_bytes).or(swap_counts.then_some(0)),
    };
    check_memory(&ResourcesSpec { swap_bytes: wanted.swap_bytes, ..ResourcesSpec::default() }, memory_bytes)?;
    Ok(Resources {
        memory_bytes,
        swap_bytes,
        pids: or(wanted.pids, before.pids),
        cpu_millis: or(wanted.cpu_millis, before.cpu_millis),
        cpu_weight: or(wanted.cpu_weight, before.cpu_weight),
        io_read_bytes_per_second: or(wanted.io_read_bytes_per_second, before.io_read_bytes_per_second),
        io_write_bytes_per_second: or(wanted.io_write_bytes_per_second, before.io_write_bytes_per_second),
        io_read_operations_per_second: or(
            wanted.io_read_operations_per_second,
            before.io_read_operations_per_second,
        ),
        io_write_operations_per_second: or(
            wanted.io_write_operations_per_second,
            before.io_write_operations_per_second,
        ),
        ..before.clone()
    })
}

/// Parses `user[:group]`, each a name or an id.
///
/// # Errors
/// `USER_NOT_FOUND` for an id that no sandbox has, `INVALID_REQUEST` for an empty part.
pub(super) fn user(text: &str) -> Result<User, Error> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    Ok(User { user: name(user)?, group: group.map(name).transpose()? })
}

/// Digits only are an id, never a name, whatever the image's passwd file says (CVE-2016-3697).
fn name(text: &str) -> Result<Name, Error> {
    if text.is_empty() || text.len() > 64 || text.chars().any(char::is_control) {
        return Err(invalid(
            "user",
            "must be a name or an id, and optionally a group after a colon",
            "write user, uid, user:group or uid:gid",
        ));
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Name::Text(text.to_owned()));
    }
    match text.parse() {
        Ok(id) if id < IDS_PER_SANDBOX => Ok(Name::Id(id)),
        _ => Err(Error::new(ErrorCode::UserNotFound, "ids in a sandbox are below 65536")
            .hint("use a name of the image or an id below 65536")
            .context(serde_json::json!({ "field": "user" }))),
    }
}

/// Checks a working directory: absolute, and it does not climb.
///
/// # Errors
/// `INVALID_CWD`.
pub(super) fn cwd(text: &str) -> Result<(), Error> {
    let refused = |why: &'static str| {
        Err(Error::new(ErrorCode::InvalidCwd, format!("cwd {why}"))
            .hint("name a directory of the sandbox by its absolute path")
            .context(serde_json::json!({ "field": "cwd" })))
    };
    if !text.starts_with('/') {
        return refused("must be an absolute path");
    }
    if text.len() >= limits::PATH_BYTES_MAX || text.contains('\0') {
        return refused("is too long or holds a NUL byte");
    }
    if text.split('/').any(|part| part == "..") {
        return refused("must not contain '..'");
    }
    if text.split('/').filter(|part| !part.is_empty()).count() > limits::CWD_DEPTH_MAX {
        return refused("has too many directories above each other");
    }
    Ok(())
}

/// Checks that arguments and environment fit in one message, and hold no NUL.
///
/// # Errors
/// `INVALID_REQUEST` names the field.
pub(super) fn strings(argv: &[String], env: &BTreeMap<String, String>) -> Result<(), Error> {
    if argv.first().is_none_or(String::is_empty) {
        return Err(invalid("argv", "must name a program", "its first string is the program"));
    }
    if argv.iter().any(|argument| argument.contains('\0')) {
        return Err(invalid("argv", "must not hold NUL bytes", "leave the character U+0000 out"));
    }
    environment(env)?;
    let bytes = argv.iter().map(|argument| argument.len() + 1).sum::<usize>()
        + env.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    if bytes > limits::EXEC_BYTES_MAX || argv.len() + env.len() > limits::EXEC_STRINGS_MAX {
        let rule = format!(
            "and env, the sandbox's included, hold {bytes} bytes in {} strings; {} bytes in {} are possible",
            argv.len() + env.len(),
            limits::EXEC_BYTES_MAX,
            limits::EXEC_STRINGS_MAX,
        );
        return Err(invalid("argv", rule, "pass long input by stdin or in a file"));
    }
    Ok(())
}

/// Checks names and values of an environment.
///
/// # Errors
/// `INVALID_REQUEST` names the field.
pub(super) fn environment(env: &BTreeMap<String, String>) -> Result<(), Error> {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(invalid(
                "env",
                "names must not be empty or hold '=', and nothing may hold NUL bytes",
                "write {\"NAME\": \"value\"}",
            ));
        }
    }
    Ok(())
}

/// Checks a host name: 1–63 of letters, digits and inner hyphens (RFC 1123 §2.1).
///
/// # Errors
/// `INVALID_REQUEST`.
pub(super) fn hostname(text: &str) -> Result<(), Error> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if fits {
        Ok(())
    } else {
        Err(invalid(
            "hostname",
            "must be 1 to 63 letters, digits and inner hyphens",
            "choose a name like build-42",
        ))
    }
}

/// Checks labels.
///
/// # Errors
/// `INVALID_REQUEST`.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> Result<(), Error> {
    let too_long = |text: &String| text.len() > limits::LABEL_BYTES_MAX || text.contains('\0');
    if labels.len() > limits::LABELS_MAX
        || labels.iter().any(|(key, value)| key.is_empty() || too_long(key) || too_long(value))
    {
        return Err(invalid(
            "labels",
            "are too many or too long",
            "64 labels of 256 bytes in name and value are possible",
        ));
    }
    Ok(())
}

/// Checks everything about a specification that needs neither image nor kernel.
///
/// # Errors
/// The first that makes no sense.
pub(super) fn check(spec: &SandboxSpec) -> Result<(), Error> {
    environment(&spec.env)?;
    strings(&["-".to_owned()], &spec.env)?;
    labels(&spec.labels)?;
    spec.cwd.as_deref().map(cwd).transpose()?;
    spec.user.as_deref().map(user).transpose()?;
    spec.hostname.as_deref().map(hostname).transpose()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_ids_and_everything_else_is_a_name() {
        assert_eq!(user("0").expect("id").user, Name::Id(0));
        assert_eq!(user("app:7").expect("pair").group, Some(Name::Id(7)));
        assert_eq!(user("-1").expect("a name nobody has").user, Name::Text("-1".into()));
        for bad in ["", ":", "a:", "65536", "4294967295", "4294967296", "a\nb"] {
            assert!(user(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_working_directory_is_absolute_and_does_not_climb() {
        assert!(cwd("/workspace/a b").is_ok() && cwd("/").is_ok());
        for bad in ["", "a", "./a", "/a/../..", "/..", "/a\0b", &format!("/{}", "a".repeat(4096))] {
            assert!(cwd(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn environment_and_arguments_are_bounded_and_free_of_nul() {
        let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert!(environment(&one("A", "b=c")).is_ok());
        assert!(environment(&one("", "b")).is_err() && environment(&one("A=B", "")).is_err());
        assert!(environment(&one("A", "\0")).is_err());
        let none = BTreeMap::new();
        assert!(strings(&[], &none).is_err() && strings(&["a\0".into()], &none).is_err());
        assert!(strings(&["a".into(), "x".repeat(limits::EXEC_BYTES_MAX)], &none).is_err());
        assert!(strings(&vec!["x".into(); limits::EXEC_STRINGS_MAX + 1], &none).is_err());
    }

    #[test]
    fn what_is_allowed_fits_in_a_frame() {
        // A working directory and a user of full length, and some numbers, beside the strings.
        let rest = limits::PATH_BYTES_MAX + 256;
        for length in [6, 127, 128, 500, limits::EXEC_BYTES_MAX - 2] {
            let count = limits::EXEC_STRINGS_MAX.min(limits::EXEC_BYTES_MAX / (length + 1));
            let argv = vec!["x".repeat(length); count];
            strings(&argv, &BTreeMap::new()).expect("allowed");
            let frame = crate::wire::encode(&argv).expect("fits");
            assert!(frame.len() + rest <= limits::FRAME_BYTES_MAX, "{count} of {length}: {}", frame.len());
        }
    }
}
