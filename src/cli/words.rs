//! The API's words in those of the command line: flags for fields, commands for routes.
//!
//! The daemon speaks to programs and names fields of JSON bodies. Who typed a flag is told of the flag.

use crate::api::schema::ErrorBody;
use crate::error::ErrorCode;

/// Fields of requests, and the arguments that they are made of.
const FLAGS: &[(&str, &str)] = &[
    ("resources.memory_bytes", "--memory"),
    ("resources.swap_bytes", "--swap"),
    ("resources.pids", "--pids"),
    ("resources.cpus", "--cpus"),
    ("resources.cpu_weight", "--cpu-weight"),
    ("resources.io_read_bytes_per_second", "--io-read"),
    ("resources.io_write_bytes_per_second", "--io-write"),
    ("resources.io_read_operations_per_second", "--io-read-ops"),
    ("resources.io_write_operations_per_second", "--io-write-ops"),
    ("resources.disk_bytes", "--disk"),
    ("resources.disk_files", "--disk-files"),
    ("resources.tmpfs_bytes", "--tmpfs"),
    ("durability `volatile`", "no --durable"),
    ("memory_bytes", "--memory"),
    ("pids", "--pids"),
    ("timeout_ms", "--timeout"),
    ("argv", "the command"),
    ("for.log.text", "--text"),
    ("for.log.regex", "--regex"),
    ("log_bytes_max", "--log-size"),
    ("env", "--env"),
    ("cwd", "--cwd"),
    ("user", "--user"),
    ("id", "--id"),
    ("image", "--image"),
    ("labels", "--label"),
    ("hostname", "--hostname"),
    ("profile", "--profile"),
    ("reference", "the reference"),
    ("rootfs", "--rootfs"),
    ("platform", "--platform"),
    ("username", "--username"),
    ("password", "--password-stdin"),
    ("ca_pem", "--ca-file"),
    ("token", "--token-stdin"),
    ("branch", "--branch"),
    ("depth", "--depth"),
    ("path", "the path"),
    ("mode", "the mode"),
    ("owner", "the owner"),
    ("glob", "--glob"),
    ("limit", "--limit"),
    ("cursor", "--cursor"),
    ("recursive", "--recursive"),
    ("url", "the URL"),
];

/// What helps with a code here, where the daemon's own hint speaks of routes or JSON.
fn fix(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::ImageNotFound => {
            Some("`stockade pull` and `stockade import` bring images; `stockade images` lists those here")
        }
        ErrorCode::SandboxNotFound => Some("`stockade ps` lists the sandboxes that you own"),
        ErrorCode::SandboxDead => {
            Some("`stockade start` it again, or `stockade rm` it; its limits may have been too low")
        }
        ErrorCode::SandboxConflict => Some("use another --id, or `stockade rm` that sandbox first"),
        ErrorCode::ProcessNotFound => Some("`stockade process ls SANDBOX` lists its processes"),
        ErrorCode::ProcessConflict => Some("use another --id, or `stockade process rm` that one first"),
        ErrorCode::TerminalNotFound => Some("`stockade terminal ls SANDBOX` lists its terminals"),
        ErrorCode::IsDirectory => Some("`stockade file ls` lists it, and `stockade cp` copies all of it"),
        ErrorCode::PortNotExposed => Some("`stockade port ls SANDBOX` lists its exposed ports"),
        ErrorCode::MountNotFound => Some("`stockade mount ls SANDBOX` lists its mounts"),
        ErrorCode::StdinClosed => Some("start it with --interactive; once closed, stdin stays closed"),
        ErrorCode::RouteNotFound | ErrorCode::MethodNotAllowed => Some("is the daemon of another version?"),
        _ => None,
    }
}

/// The message of a refusal.
pub(super) fn message(body: &ErrorBody) -> String {
    if let Some(words) = body.context.as_ref().and_then(|context| context["git"].as_str()) {
        let words: Vec<&str> = words.lines().collect();
        return format!("{}; git says: {}", body.message, words.join("; "));
    }
    let field = body.context.as_ref().and_then(|context| context["field"].as_str());
    let mut text = body.message.clone();
    // Short names are words of the language too: only the field that the error is about is one of ours.
    if let Some(field) = field
        && let Some(rest) = text.strip_prefix(field)
        && let Some(flag) = flag(field)
    {
        text = format!("{flag}{rest}");
    }
    spoken(&text)
}

/// What to do about a refusal, if the daemon's words help here.
pub(super) fn hint(body: &ErrorBody) -> Option<String> {
    let foreign = |hint: &str| hint.contains("/v1/") || hint.contains("GET ") || hint.contains('{');
    match fix(body.code) {
        Some(fix) => Some(fix.to_owned()),
        None => body.hint.as_deref().filter(|hint| !foreign(hint)).map(spoken),
    }
}

fn flag(field: &str) -> Option<&'static str> {
    // `env.NAME`, `labels.NAME`, `argv[1]`
    let base = field.split_once('[').map_or(field, |(base, _)| base);
    let exact = FLAGS.iter().find(|(found, _)| *found == base);
    let by_start =
        || FLAGS.iter().find(|(found, _)| base.strip_prefix(found).is_some_and(|rest| rest.starts_with('.')));
    exact.or_else(by_start).map(|(_, flag)| *flag)
}

/// Replaces the names that can be nothing else: dotted ones, and those in backticks.
fn spoken(text: &str) -> String {
    let mut text = text.to_owned();
    for (field, flag) in FLAGS {
        text = text.replace(&format!("`{field}`"), flag);
        if field.contains('.') || field.contains(' ') {
            text = text.replace(field, flag);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: ErrorCode, message: &str, hint: &str, field: &str) -> ErrorBody {
        ErrorBody {
            code,
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
            context: Some(serde_json::json!({"field": field})),
            request_id: String::new(),
        }
    }

    #[test]
    fn people_are_told_of_the_flag_that_they_typed() {
        for (text, field, expected) in [
            (
                "resources.memory_bytes must be at least 8",
                "resources.memory_bytes",
                "--memory must be at least 8",
            ),
            ("cwd must be an absolute path", "cwd", "--cwd must be an absolute path"),
            ("env.A=B must have a name", "env.A=B", "--env must have a name"),
            ("argv[1] holds a NUL character", "argv[1]", "the command holds a NUL character"),
            ("the user is unknown", "user", "the user is unknown"),
        ] {
            // What follows the field stays, also the part of it that is the user's own.
            let body = refusal(ErrorCode::InvalidRequest, text, "", field);
            assert_eq!(message(&body), expected);
        }
        let raise = "raise resources.memory_bytes, or create it with higher `pids`";
        let body = refusal(ErrorCode::LimitUnsupported, "no", raise, "");
        assert_eq!(hint(&body).as_deref(), Some("raise --memory, or create it with higher --pids"));
    }

    #[test]
    fn people_are_not_sent_to_routes() {
        let body = refusal(ErrorCode::ImageNotFound, "no", "GET /v1/images lists what is here", "");
        assert!(hint(&body).is_some_and(|hint| hint.contains("stockade images")));
        let body = refusal(ErrorCode::InvalidRequest, "no", "GET /v1/openapi.json describes every body", "");
        assert_eq!(hint(&body), None);
    }
}
