//! The audit log: what is written into it, and who may read it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, Response, header};
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::border::{refuse, sandbox_id};
use super::caller::Peer;
use super::error::Refused;
use super::extract::Query;
use super::operations::Operation;
use super::request::RequestId;
use super::schema::ErrorBody;
use super::{App, Shared};
use crate::error::{Error, ErrorCode};
use crate::journal::audit::{Digester, Line, Record};
use crate::limits::AUDIT_ANSWER_MAX;
use crate::sandbox::Caller;

/// Requests that change nothing by their method, and open a way in.
const WAYS_IN: [&str; 3] = ["attachCommand", "attachTerminal", "connectToPort"];

/// And those by which all files of a sandbox, or a directory of one, leave.
const WAYS_OUT: [&str; 2] = ["exportSandbox", "downloadSnapshot"];

/// Lines of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditLines {
    /// The oldest first.
    pub lines: Vec<Line>,
    /// The log's last record: its number.
    pub last: u64,
    /// And its hash. Who remembers both can tell later whether the end was cut off.
    pub head: String,
}

/// The sandbox that a request was about, when its path does not say.
#[derive(Clone, Debug)]
pub(super) struct About(pub(super) String);

/// A request that is to be written down when it is answered.
#[derive(Debug)]
pub(super) struct Noted {
    operation: Operation,
    digest: Arc<Mutex<Digester>>,
}

/// Begins to write a request down, if it changes something or opens a way in. Its JSON is part of the digest as it is
/// read.
///
/// # Errors
/// `DISK_FULL` when it cannot be written down. What removes something is let through.
pub(super) fn note(
    shared: &Shared,
    operation: Option<Operation>,
    request: Request<Body>,
) -> Result<(Option<Noted>, Request<Body>), Error> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let Some(operation) = operation.filter(|operation| {
        changes || WAYS_IN.contains(&&*operation.name) || WAYS_OUT.contains(&&*operation.name)
    }) else {
        return Ok((None, request));
    };
    let audit = &shared.state.audit;
    if request.method() != Method::DELETE && !audit.is_writable() {
        return Err(Error::new(
            ErrorCode::DiskFull,
            "the audit log cannot be written: nothing is changed without it",
        )
        .hint("free space under the daemon's state directory; its log says what is wrong"));
    }
    let mut digest = audit.digest();
    digest.part(request.method().as_str().as_bytes());
    digest.part(request.uri().to_string().as_bytes());
    digest.part(b"");
    let digest = Arc::new(Mutex::new(digest));
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    let request = if is_json {
        let digest = Arc::clone(&digest);
        request.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(data) = frame.data_ref() {
                    digest.lock().unwrap_or_else(PoisonError::into_inner).more(data);
                }
                frame
            }))
        })
    } else {
        request
    };
    Ok((Some(Noted { operation, digest }), request))
}

/// Writes down what became of a request.
pub(super) fn write(
    shared: &Shared,
    caller: &Caller,
    noted: Noted,
    request: &RequestId,
    response: &Response<Body>,
) {
    let about = response.extensions().get::<About>().map(|about| about.0.clone());
    let verdict = match response.extensions().get::<Arc<Error>>() {
        Some(error) => code(error.code),
        None => "done".to_owned(),
    };
    let digest = noted.digest.lock().unwrap_or_else(PoisonError::into_inner).clone();
    shared.state.audit.append(Record {
        uid: caller.uid,
        gid: caller.gid,
        pid: caller.pid,
        operation: noted.operation.name.to_string(),
        sandbox: noted.operation.sandbox.or(about),
        verdict,
        request_id: Some(request.as_str().to_owned()),
        digest: digest.finish(),
        ..Record::default()
    });
}

/// Writes down what became of a request whose answer had begun: a record of its own, of the same request.
pub(super) fn failed_later(shared: &Shared, noted: &Later, request: &RequestId, error: &Error) {
    shared.state.audit.append(Record {
        uid: noted.caller.uid,
        gid: noted.caller.gid,
        pid: noted.caller.pid,
        operation: noted.operation.to_owned(),
        sandbox: noted.sandbox.clone(),
        verdict: code(error.code),
        request_id: Some(request.as_str().to_owned()),
        ..Record::default()
    });
}

/// Who asked for something whose answer is a stream.
#[derive(Clone, Debug)]
pub(super) struct Later {
    /// Who.
    pub(super) caller: Arc<Caller>,
    /// For what, as in the description.
    pub(super) operation: &'static str,
    /// Of which sandbox.
    pub(super) sandbox: Option<String>,
}

/// A code as clients see it.
fn code(code: ErrorCode) -> String {
    serde_json::to_value(code).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Read the audit log.
///
/// Who asked for what, and what became of it: every request that changes something or opens a way in. Records of the
/// caller's own requests; of everybody's for root and operators. Each names the hash of the one before; `stockade audit
/// verify` checks the whole log where it lies. Without `after` the last ones.
#[utoipa::path(
    get, path = "/v1/audit", tag = "host", operation_id = "listAudit",
    params(
        ("after" = Option<u64>, Query, description = "Those after this record"),
        ("limit" = Option<u32>, Query, description = "So many at most, up to 1000; 100 when absent"),
        ("sandbox" = Option<String>, Query, description = "About this one alone"),
    ),
    responses(
        (status = 200, description = "The lines", body = AuditLines),
        (status = 400, description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    query: Query,
) -> Result<axum::Json<AuditLines>, Refused> {
    let Window { after, limit, sandbox } = window(query)?;
    let audit = app.state.audit.clone();
    let (last, head) = audit.head();
    let wanted = move |record: &Record| {
        (caller.operator || (record.uid == caller.uid && record.request_id.is_some()))
            && (sandbox.is_none() || record.sandbox == sandbox)
    };
    // It reads files.
    let lines = tokio::task::spawn_blocking(move || audit.lines(after, limit, wanted)).await;
    let lines = lines.map_err(std::io::Error::other).flatten();
    let lines = lines.map_err(|error| Error::internal("cannot read the audit log", error))?;
    Ok(axum::Json(AuditLines { lines, last, head }))
}

#[derive(Debug)]
struct Window {
    after: Option<u64>,
    limit: usize,
    sandbox: Option<String>,
}

fn window(Query(pairs): Query) -> Result<Window, Error> {
    let mut window = Window { after: None, limit: 100, sandbox: None };
    for (key, value) in pairs {
        let number = || value.parse::<u64>().ok().filter(|&number| i64::try_from(number).is_ok());
        match key.as_str() {
            "after" => {
                let after =
                    number().ok_or_else(|| refuse("after", "is not a number", "give `seq` of a record"))?;
                window.after = Some(after);
            }
            "limit" => {
                let limit = number().filter(|limit| (1..=u64::from(AUDIT_ANSWER_MAX)).contains(limit));
                let limit = limit.and_then(|limit| usize::try_from(limit).ok());
                window.limit = limit
                    .ok_or_else(|| refuse("limit", "must be between 1 and 1000", "leave it out for 100"))?;
            }
            "sandbox" => {
                window.sandbox = Some(sandbox_id(&value)?.to_string());
            }
            _ => return Err(Query::unknown(&key, "the parameters are `after`, `limit` and `sandbox`")),
        }
    }
    Ok(window)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_three_parameters() {
        let query = |pairs: &[(&str, &str)]| window(Query::of(pairs));
        let all = query(&[("after", "7"), ("limit", "3"), ("sandbox", "a")]).expect("good");
        assert_eq!((all.after, all.limit, all.sandbox.as_deref()), (Some(7), 3, Some("a")));
        for bad in [("after", "-1"), ("limit", "0"), ("limit", "1001"), ("sandbox", "/"), ("x", "1")] {
            assert!(query(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_verdict_is_the_code_that_the_client_was_told() {
        assert_eq!(code(ErrorCode::SandboxNotFound), "SANDBOX_NOT_FOUND");
    }
}
