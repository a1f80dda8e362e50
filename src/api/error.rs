//! Errors on the wire: the only place that knows which HTTP status a code has.
//!
//! A route returns [`Refused`]. Its response carries the [`Error`] itself, not bytes: the request's id and the
//! log line are added once, in [`super::request`], for errors of routes, extractors and the router alike.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::request::RequestId;
use super::schema::ErrorBody;
use crate::error::{Error, ErrorCode};

/// The code of a failure of ours. Servers in sandboxes cannot send it.
const ERROR: HeaderName = HeaderName::from_static("x-stockade-error");

/// What a route answers when it does not do what was asked.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status(self.0.code);
        response.extensions_mut().insert(Arc::new(self.0));
        response
    }
}

const UNPROCESSABLE: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

/// The status of a code.
pub(crate) const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidRequest | ErrorCode::InvalidId => StatusCode::BAD_REQUEST,
        ErrorCode::InvalidReference => StatusCode::BAD_REQUEST,
        ErrorCode::BodyTooLarge | ErrorCode::FileTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::PermissionDenied | ErrorCode::FileDenied => StatusCode::FORBIDDEN,
        ErrorCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorCode::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorCode::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::FileTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::FilesUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::FileExists | ErrorCode::LimitBelowUse | ErrorCode::ProcessExited => StatusCode::CONFLICT,
        ErrorCode::DirectoryNotEmpty | ErrorCode::FileBusy | ErrorCode::CrossDevice => StatusCode::CONFLICT,
        ErrorCode::FileNotRegular | ErrorCode::ArchiveInvalid => UNPROCESSABLE,
        ErrorCode::SnapshotUnsupported => UNPROCESSABLE,
        ErrorCode::StopUnsupported | ErrorCode::LanguageNotInImage | ErrorCode::KeyInvalid => UNPROCESSABLE,
        ErrorCode::QuotaExceeded | ErrorCode::ContextBusy => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::RecordingLimit => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::PreviewHostUnknown => StatusCode::MISDIRECTED_REQUEST,
        ErrorCode::RouteNotFound | ErrorCode::SandboxNotFound => StatusCode::NOT_FOUND,
        ErrorCode::CommandNotFound | ErrorCode::FileNotFound => StatusCode::NOT_FOUND,
        ErrorCode::ProcessNotFound | ErrorCode::SessionNotFound => StatusCode::NOT_FOUND,
        ErrorCode::TerminalNotFound | ErrorCode::ImageNotFound => StatusCode::NOT_FOUND,
        ErrorCode::ContextNotFound | ErrorCode::SnapshotNotFound => StatusCode::NOT_FOUND,
        ErrorCode::RunNotFound | ErrorCode::RecordingNotFound => StatusCode::NOT_FOUND,
        ErrorCode::PlatformNotFound | ErrorCode::RegistryNotFound => StatusCode::NOT_FOUND,
        ErrorCode::GitRepositoryNotFound | ErrorCode::GitBranchNotFound => StatusCode::NOT_FOUND,
        ErrorCode::PortNotExposed | ErrorCode::InvalidToken => StatusCode::NOT_FOUND,
        ErrorCode::MountNotFound | ErrorCode::BucketNotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::SandboxConflict | ErrorCode::SandboxBusy | ErrorCode::NotDirectory => StatusCode::CONFLICT,
        ErrorCode::SandboxDead | ErrorCode::StdinClosed | ErrorCode::ProcessConflict => StatusCode::CONFLICT,
        ErrorCode::SessionExists | ErrorCode::SessionBusy | ErrorCode::ContextExists => StatusCode::CONFLICT,
        ErrorCode::TerminalExists | ErrorCode::TerminalEnded | ErrorCode::IsDirectory => StatusCode::CONFLICT,
        ErrorCode::ImageInUse | ErrorCode::MountInUse | ErrorCode::InputNotWanted => StatusCode::CONFLICT,
        ErrorCode::GitDestinationNotEmpty | ErrorCode::SnapshotMismatch => StatusCode::CONFLICT,
        ErrorCode::CommandNotInImage
        | ErrorCode::CommandNotExecutable
        | ErrorCode::InvalidCwd
        | ErrorCode::PathInvalid
        | ErrorCode::UserNotFound
        | ErrorCode::ImageInvalid
        | ErrorCode::RegistryDenied
        | ErrorCode::GitNotInImage
        | ErrorCode::GitDenied
        | ErrorCode::GitFailed
        | ErrorCode::MountPointInvalid
        | ErrorCode::DirectoryDenied
        | ErrorCode::BucketDenied
        | ErrorCode::BucketWrongRegion
        | ErrorCode::LimitUnsupported => UNPROCESSABLE,
        ErrorCode::SessionEnded | ErrorCode::StalePreviewUrl => StatusCode::GONE,
        ErrorCode::ProcessLimit | ErrorCode::WatchLimit => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::RegistryUnreachable
        | ErrorCode::GitUnreachable
        | ErrorCode::BucketUnreachable
        | ErrorCode::BucketBadCertificate
        | ErrorCode::BucketNotS3
        | ErrorCode::PortClosed
        | ErrorCode::ServiceFailed => StatusCode::BAD_GATEWAY,
        ErrorCode::GitTimeout | ErrorCode::WaitTimeout | ErrorCode::ServiceTimeout => {
            StatusCode::GATEWAY_TIMEOUT
        }
        ErrorCode::HostUnsupported | ErrorCode::CapacityExhausted | ErrorCode::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::IsolationMismatch | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Every code: what it says, and what the caller can do. Part of the OpenAPI document.
pub(crate) const CODES: &[(ErrorCode, &str, &str)] = &[
    (ErrorCode::InvalidRequest, "a field, its type, size or value is wrong", "`context.field` names it"),
    (ErrorCode::InvalidId, "the sandbox id is malformed or reserved", "1 to 40 of a-z, 0-9 and '-'"),
    (
        ErrorCode::InvalidReference,
        "the image reference cannot be parsed",
        "`[registry/]repository[:tag][@digest]`",
    ),
    (ErrorCode::BodyTooLarge, "the body is larger than the route takes", "send less; attach for long input"),
    (ErrorCode::UnsupportedMediaType, "the body is not JSON", "send `content-type: application/json`"),
    (ErrorCode::RouteNotFound, "there is no such route", "see the paths here"),
    (ErrorCode::MethodNotAllowed, "the route does not have this method", "see the header `allow`"),
    (ErrorCode::SandboxNotFound, "there is none of this id, or it is somebody else's", "list the sandboxes"),
    (
        ErrorCode::SandboxConflict,
        "the id is taken with another specification",
        "choose another id, or delete it",
    ),
    (ErrorCode::SandboxBusy, "it is being created or destroyed", "try again"),
    (ErrorCode::SandboxDead, "its first process is gone", "start it again, or delete it"),
    (
        ErrorCode::StopUnsupported,
        "its files would end with it",
        "leave the limit on disk space out, or delete it",
    ),
    (ErrorCode::CommandNotFound, "the command does not exist or has ended", "list the commands"),
    (ErrorCode::ProcessNotFound, "there is no process of this id", "list the processes"),
    (ErrorCode::ProcessConflict, "the id is taken by another process", "remove it, or choose another id"),
    (ErrorCode::ProcessExited, "the process has ended", "look at its exit code and logs"),
    (ErrorCode::StdinClosed, "the process has no stdin, or it is closed", "start it with `stdin`"),
    (ErrorCode::WaitTimeout, "what was waited for did not come in time", "look at the logs; wait longer"),
    (ErrorCode::SessionNotFound, "the session does not exist", "list the sessions"),
    (ErrorCode::SessionExists, "the id is taken by another session", "choose another id, or delete it"),
    (
        ErrorCode::SessionEnded,
        "the session's shell ended; `context` has its exit code and what the command wrote",
        "the next command starts it afresh",
    ),
    (ErrorCode::SessionBusy, "the session's command does not end", "wait for it"),
    (ErrorCode::ContextNotFound, "the context does not exist", "list the contexts"),
    (
        ErrorCode::RunNotFound,
        "the run is not kept",
        "list the context's runs; those that were to detach are kept",
    ),
    (ErrorCode::ContextExists, "the id is taken by another context", "choose another id, or delete it"),
    (ErrorCode::ContextBusy, "too many runs of the context wait for their turn", "wait for some of them"),
    (ErrorCode::InputNotWanted, "the context's code does not ask for input", "wait for the event `input`"),
    (
        ErrorCode::LanguageNotInImage,
        "the image has no interpreter for the language",
        "use an image that has it: `python`, `node` or `full`",
    ),
    (ErrorCode::TerminalNotFound, "the terminal does not exist", "list the terminals"),
    (ErrorCode::TerminalExists, "the id is taken by another terminal", "choose another id, or delete it"),
    (ErrorCode::TerminalEnded, "the terminal's program has ended", "read what is left, then delete it"),
    (ErrorCode::RecordingNotFound, "the recording does not exist", "list the recordings"),
    (ErrorCode::RecordingLimit, "the sandbox may not have more recordings", "fetch and delete some of them"),
    (ErrorCode::CommandNotInImage, "the image has no such program", "check the path and PATH"),
    (
        ErrorCode::CommandNotExecutable,
        "the file is there and cannot be executed",
        "check its mode and format",
    ),
    (
        ErrorCode::InvalidCwd,
        "the working directory is not there or cannot be entered",
        "name another directory",
    ),
    (
        ErrorCode::UserNotFound,
        "the image has no such user or group",
        "use a name it has, or an id below 65536",
    ),
    (ErrorCode::ProcessLimit, "the sandbox has no room for another process", "end some, or raise `pids`"),
    (ErrorCode::FileNotFound, "there is no such file or directory", "check the path"),
    (ErrorCode::FileExists, "something is there already", "choose another name, or overwrite it"),
    (ErrorCode::IsDirectory, "it is a directory", "list it, or fetch it as an archive"),
    (ErrorCode::NotDirectory, "a part of the path is not a directory", "check the path"),
    (ErrorCode::DirectoryNotEmpty, "the directory is not empty", "remove it with `recursive`"),
    (
        ErrorCode::FileNotRegular,
        "it is a named pipe, a socket or a device",
        "run a command in the sandbox to use it",
    ),
    (ErrorCode::FileDenied, "the sandbox's user may not do this to the file", "name another `user`"),
    (
        ErrorCode::PathInvalid,
        "no file can have this path, or it has too many links",
        "name the file by its own path",
    ),
    (
        ErrorCode::PreconditionFailed,
        "`if-match` or `if-none-match` does not hold",
        "read the file again for its `etag`",
    ),
    (ErrorCode::RangeNotSatisfiable, "the range lies behind the end", "see the header `content-range`"),
    (ErrorCode::DiskFull, "the sandbox's disk is full", "remove something, or raise `disk_bytes`"),
    (ErrorCode::FileTooLarge, "the file system knows no files of this size", "split it"),
    (ErrorCode::FileBusy, "the file is in use, or changes too fast", "try again"),
    (ErrorCode::CrossDevice, "it would leave its file system", "copy it, then remove it"),
    (ErrorCode::ArchiveInvalid, "the bytes are not a tar archive that is accepted", "make it anew"),
    (ErrorCode::FileTimeout, "the sandbox's file system does not answer", "see its limits and mounts"),
    (ErrorCode::FilesUnavailable, "what works on the sandbox's files was killed or is busy", "try again"),
    (ErrorCode::WatchLimit, "more is to be watched than can be", "exclude directories, or end a watch"),
    (ErrorCode::PortClosed, "nothing accepts connections on the port", "start the server"),
    (ErrorCode::PortNotExposed, "the port is not exposed", "expose it, or list those that are"),
    (
        ErrorCode::InvalidToken,
        "no preview has this address: unknown, revoked, or its token was changed",
        "ask whoever gave you the address for the present one",
    ),
    (
        ErrorCode::StalePreviewUrl,
        "the preview's sandbox has ended, or was started anew since",
        "expose the port again",
    ),
    (
        ErrorCode::PreviewHostUnknown,
        "the host name is not one of previews",
        "use the URL that exposing the port gave",
    ),
    (ErrorCode::ServiceTimeout, "the server in the sandbox does not answer in time", "look at its logs"),
    (
        ErrorCode::ServiceFailed,
        "the server in the sandbox broke off, or does not speak HTTP/1.1",
        "look at its logs",
    ),
    (ErrorCode::SnapshotNotFound, "there is none of this id, or it is somebody else's", "list the snapshots"),
    (
        ErrorCode::SnapshotUnsupported,
        "the sandbox can have no snapshots: its files end with it",
        "leave the limit on disk space out",
    ),
    (
        ErrorCode::SnapshotMismatch,
        "the snapshot is of another image than the sandbox, or not its own",
        "`restore` it, or create a new sandbox with `snapshot`",
    ),
    (
        ErrorCode::KeyInvalid,
        "the recipient or the identity is none of age",
        "`age-keygen` makes both: age1… and AGE-SECRET-KEY-1…",
    ),
    (ErrorCode::ImageNotFound, "the image is not in the store", "pull or import it"),
    (ErrorCode::ImageInUse, "a sandbox is made of the image", "delete the sandbox first"),
    (ErrorCode::ImageInvalid, "the bytes are not an image that is accepted", "make the image anew"),
    (ErrorCode::PlatformNotFound, "the image has no such platform", "ask for one that it has"),
    (ErrorCode::RegistryDenied, "the registry refuses the credentials, or wants some", "give others"),
    (ErrorCode::RegistryNotFound, "the registry has no such repository or tag", "check the reference"),
    (
        ErrorCode::RegistryUnreachable,
        "the registry does not answer, or not as it should",
        "check it and try again",
    ),
    (ErrorCode::GitNotInImage, "the image has no git", "use an image with git and /bin/sh"),
    (
        ErrorCode::GitRepositoryNotFound,
        "there is no such repository",
        "check the URL; it may need credentials",
    ),
    (ErrorCode::GitBranchNotFound, "the repository has no such branch or tag", "check `branch`"),
    (ErrorCode::GitDenied, "the repository's host refuses the credentials, or wants some", "give others"),
    (
        ErrorCode::GitUnreachable,
        "the repository's host does not answer, or not as it should",
        "check it and the sandbox's network",
    ),
    (ErrorCode::GitDestinationNotEmpty, "something is where the clone should go", "name another `path`"),
    (ErrorCode::GitTimeout, "the clone took too long", "raise `timeout_ms`, or use `depth`"),
    (ErrorCode::GitFailed, "git could not clone for another reason", "`context.git` has its words"),
    (ErrorCode::MountNotFound, "the sandbox has no such mount", "list its mounts"),
    (ErrorCode::MountInUse, "something is mounted there already", "choose another path, or unmount it"),
    (
        ErrorCode::MountPointInvalid,
        "nothing can be mounted there: a link or a file is on the way",
        "name a directory by its own path",
    ),
    (
        ErrorCode::DirectoryDenied,
        "the host's directory is not to be shown in sandboxes, or only read-only",
        "an operator names it in `mounts.directories`",
    ),
    (ErrorCode::BucketNotFound, "there is no such bucket", "check its name and the endpoint"),
    (ErrorCode::BucketDenied, "the bucket's server refuses the credentials, or wants some", "give others"),
    (
        ErrorCode::BucketUnreachable,
        "the bucket's server does not answer, or its address is closed",
        "check the endpoint; an operator opens addresses that are not public with `network.open`",
    ),
    (ErrorCode::BucketWrongRegion, "the bucket is in another region", "see `context.expected`"),
    (
        ErrorCode::BucketBadCertificate,
        "the server's certificate is not one to trust",
        "an operator adds its authority with `network.ca_file`",
    ),
    (
        ErrorCode::BucketNotS3,
        "the server does not answer as S3 does, or sends its clients elsewhere",
        "check the endpoint and `addressing`",
    ),
    (
        ErrorCode::QuotaExceeded,
        "the caller's quota does not allow it",
        "`context` says what is taken and what is allowed",
    ),
    (
        ErrorCode::LimitBelowUse,
        "the sandbox uses more than that already",
        "end something in it first, or give it more",
    ),
    (
        ErrorCode::LimitUnsupported,
        "this host cannot enforce the limit",
        "leave it out; see `stockade doctor`",
    ),
    (ErrorCode::HostUnsupported, "the host lacks what isolation needs", "see `stockade doctor`"),
    (ErrorCode::CapacityExhausted, "the host has no room for more", "free something, or wait"),
    (ErrorCode::PermissionDenied, "the caller may not do this", "call as another user"),
    (
        ErrorCode::IsolationMismatch,
        "the kernel made another sandbox than was asked; it was killed",
        "see the log",
    ),
    (ErrorCode::ShuttingDown, "the daemon is stopping", "try again when it is back"),
    (ErrorCode::Internal, "a fault of the daemon or the host", "see the daemon's log under the request id"),
];

/// What to do about a code in general.
fn fix(code: ErrorCode) -> &'static str {
    CODES.iter().find(|(found, _, _)| *found == code).map_or("see the daemon's log", |(_, _, fix)| fix)
}

/// The codes as a table for the OpenAPI document (CommonMark).
pub(crate) fn codes_table() -> String {
    let mut table = String::from("\n\n| Code | Status | Meaning | What to do |\n|---|---|---|---|\n");
    for (code, meaning, fix) in CODES {
        let name = name(*code);
        table.push_str(&format!("| `{name}` | {} | {meaning} | {fix} |\n", status(*code).as_str()));
    }
    table
}

/// The bytes a client sees of an error.
pub(crate) fn body(error: &Error, request_id: &str) -> ErrorBody {
    ErrorBody {
        code: error.code,
        message: error.message.to_string(),
        // Whoever made the error knows best; otherwise what helps with this code in general.
        hint: Some(error.hint.as_ref().map_or_else(|| fix(error.code).to_owned(), Cow::to_string)),
        context: error.context.clone(),
        request_id: request_id.to_owned(),
    }
}

/// Puts the error into the log, under the request's id: our own failures loud, the host's as a warning, and what
/// the caller can mend only when debugging.
pub(crate) fn log(error: &Error, request_id: &str) {
    let causes = causes(error);
    let (code, message) = (error.code, &error.message);
    match code {
        ErrorCode::Internal | ErrorCode::IsolationMismatch => {
            tracing::error!(request_id, ?code, %message, %causes, "request failed");
        }
        ErrorCode::HostUnsupported | ErrorCode::CapacityExhausted => {
            tracing::warn!(request_id, ?code, %message, %causes, "request failed");
        }
        _ => tracing::debug!(request_id, ?code, %message, %causes, "request refused"),
    }
}

fn causes(error: &Error) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The whole response for an error, outside of the router too.
pub(crate) fn response(error: &Error, request_id: &str) -> Response {
    let bytes = serde_json::to_vec(&body(error, request_id)).unwrap_or_default();
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status(error.code);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    mark(response.headers_mut(), error.code);
    response
}

/// The code as it is written.
pub(crate) fn name(code: ErrorCode) -> String {
    serde_json::to_string(&code).unwrap_or_default().trim_matches('"').to_owned()
}

/// Names the code in a header that no server behind us can send: failures of ours can be told from its own.
pub(crate) fn mark(headers: &mut HeaderMap, code: ErrorCode) {
    if let Ok(value) = HeaderValue::from_str(&name(code)) {
        headers.insert(ERROR, value);
    }
}

/// The same as the last bytes of a connection, where there is no response to put it into.
pub(super) fn bare(error: &Error, status: &str, id: &RequestId) -> Vec<u8> {
    let body = serde_json::to_string(&body(error, id.as_str())).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\
         x-request-id: {}\r\n{ERROR}: {}\r\n\r\n",
        body.len(),
        id.as_str(),
        name(error.code),
    );
    (head + &body).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_the_client_everything_but_its_causes() {
        let error = Error::internal("cannot make the sandbox", std::io::Error::other("/secret/path"))
            .hint("look into the log")
            .context(serde_json::json!({"id": "a"}));
        let text = serde_json::to_string(&body(&error, "r-1")).expect("json");
        assert_eq!(
            text,
            r#"{"code":"INTERNAL","message":"cannot make the sandbox","hint":"look into the log","context":{"id":"a"},"request_id":"r-1"}"#
        );
        assert_eq!(causes(&error), "/secret/path");
    }

    #[test]
    fn an_error_that_names_no_fix_gets_its_codes() {
        for (code, _, fix) in CODES {
            assert_eq!(body(&Error::new(*code, "no"), "r-1").hint.as_deref(), Some(*fix), "{code:?}");
        }
    }
}
