//! Background processes: start, list, wait, stdin, signals, removal. Their logs are in [`super::logs`].

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::StreamExt;

use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, Json, ProcessInPath, Query};
use super::schema::processes::{
    KillProcesses, Process, ProcessList, ProcessesKilled, SignalProcess, StartProcess, WaitForProcess,
    Waited, WriteStdin,
};
use super::schema::{ErrorBody, RawBytes};
use super::{App, border, signals};
use crate::error::{Error, ErrorCode};
use crate::limits::UPLOAD_PAUSE_S;
use crate::sandbox::{self, Met};

/// As the API shows it.
pub(super) fn shown(process: &sandbox::Process) -> Process {
    let view = process.view();
    Process { signal: view.signal.map(signals::name), view }
}

/// Start a process.
///
/// It outlives the request and the daemon; its output goes to a log on disk that keeps the newest part. The answer
/// comes when its program has been executed, or could not be.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/processes", tag = "processes", operation_id = "startProcess",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = StartProcess,
    responses(
        (status = 201, description = "The process", body = Process),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`PROCESS_CONFLICT`, `SANDBOX_DEAD`, `SANDBOX_BUSY`", body = ErrorBody),
        (status = 422, description = "`COMMAND_NOT_IN_IMAGE`, `COMMAND_NOT_EXECUTABLE`, `INVALID_CWD`, \
            `USER_NOT_FOUND`", body = ErrorBody),
        (status = 429, description = "`PROCESS_LIMIT`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, `BODY_TOO_LARGE`, \
            `UNSUPPORTED_MEDIA_TYPE`", body = ErrorBody),
        (status = "5XX", description = "`INTERNAL`, `CAPACITY_EXHAUSTED`, `SHUTTING_DOWN`", body = ErrorBody),
    )
)]
pub(super) async fn start(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<StartProcess>,
) -> Result<(StatusCode, axum::Json<Process>), Refused> {
    let spec = border::process(wanted)?;
    let process = app.state.sandboxes.awake(&caller, &id).await?.start_process(spec).await?;
    Ok((StatusCode::CREATED, axum::Json(shown(&process))))
}

/// List processes.
///
/// Those that run, and those that have ended and were not removed. The oldest first.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/processes", tag = "processes", operation_id = "listProcesses",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The processes", body = ProcessList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<ProcessList>, Refused> {
    let processes = app.state.sandboxes.get(&caller, &id)?.processes();
    Ok(axum::Json(ProcessList { processes: processes.iter().map(|process| shown(process)).collect() }))
}

/// Kill all processes.
///
/// With everything that they started, however it detached itself. Commands, sessions and terminals are not processes.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/processes", tag = "processes", operation_id = "killProcesses",
    params(("id" = String, Path, description = "The sandbox"), KillProcesses),
    responses(
        (status = 200, description = "Nothing of them is left", body = ProcessesKilled),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn kill_all(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    query: Query,
) -> Result<axum::Json<ProcessesKilled>, Refused> {
    let remove = query.flag("remove", "processes may be killed with `remove`")?;
    let killed = app.state.sandboxes.get(&caller, &id)?.kill_processes(remove).await?;
    Ok(axum::Json(ProcessesKilled { killed }))
}

/// Get a process.
///
/// Its state, its exit when it has ended, and what is kept of its output.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/processes/{process}", tag = "processes", operation_id = "getProcess",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process"),
    ),
    responses(
        (status = 200, description = "The process", body = Process),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `PROCESS_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    ProcessInPath { sandbox, process }: ProcessInPath,
) -> Result<axum::Json<Process>, Refused> {
    let process = app.state.sandboxes.get(&caller, &sandbox)?.process(&process)?;
    Ok(axum::Json(shown(&process)))
}

/// Remove a process.
///
/// Kills it and everything that it started, if it runs, and removes it with its logs.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/processes/{process}", tag = "processes",
    operation_id = "removeProcess",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process"),
    ),
    responses(
        (status = 204, description = "Nothing of it is left"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `PROCESS_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn remove(
    State(app): App,
    Peer(caller): Peer,
    ProcessInPath { sandbox, process }: ProcessInPath,
) -> Result<StatusCode, Refused> {
    app.state.sandboxes.get(&caller, &sandbox)?.remove_process(&process).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Wait for a process.
///
/// For its end, for a line of its output, or for a port that it listens on. When the process ends first, the answer
/// is `PROCESS_EXITED` with its exit in `context`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/processes/{process}/wait", tag = "processes",
    operation_id = "waitForProcess",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process"),
    ),
    request_body = WaitForProcess,
    responses(
        (status = 200, description = "It came true", body = Waited),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `PROCESS_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`PROCESS_EXITED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
        (status = 504, description = "`WAIT_TIMEOUT`", body = ErrorBody),
    )
)]
pub(super) async fn wait(
    State(app): App,
    Peer(caller): Peer,
    ProcessInPath { sandbox, process }: ProcessInPath,
    Json(wanted, _): Json<WaitForProcess>,
) -> Result<axum::Json<Waited>, Refused> {
    let began = Instant::now();
    let (condition, timeout) = border::wait(wanted)?;
    let sandbox = app.state.sandboxes.get(&caller, &sandbox)?;
    let (process, _used) = (sandbox.process(&process)?, sandbox.hold());
    let (log, port) = match process.wait_for(&sandbox, &condition, timeout).await? {
        Met::Exit => (None, None),
        Met::Log(found) => (Some(found), None),
        Met::Port(found) => (None, Some(found)),
    };
    let waited_ms = began.elapsed().as_secs_f64() * 1000.0;
    Ok(axum::Json(Waited { process: shown(&process), log, port, waited_ms }))
}

/// Write to stdin.
///
/// The body is what the process reads, byte for byte and of any length; it is taken as fast as the process reads.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/processes/{process}/stdin", tag = "processes",
    operation_id = "writeProcessStdin",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process"),
        WriteStdin,
    ),
    request_body(content = RawBytes, content_type = "application/octet-stream", description = "The bytes"),
    responses(
        (status = 204, description = "All of it is in the pipe"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `PROCESS_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`STDIN_CLOSED`, `PROCESS_EXITED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn stdin(
    State(app): App,
    Peer(caller): Peer,
    ProcessInPath { sandbox, process }: ProcessInPath,
    query: Query,
    body: Body,
) -> Result<StatusCode, Refused> {
    let close = query.flag("close", "stdin may be given `close`")?;
    let process = app.state.sandboxes.unfrozen(&caller, &sandbox).await?.process(&process)?;
    let mut frames = body.into_data_stream();
    while let Some(bytes) = next_frame(&mut frames).await? {
        process.write(&bytes).await?;
    }
    if close {
        process.close_stdin().await?;
    } else {
        // An empty body asks whether it is open.
        process.write(&[]).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn next_frame(frames: &mut axum::body::BodyDataStream) -> Result<Option<Bytes>, Error> {
    let cut_short =
        |hint: &'static str| Error::new(ErrorCode::InvalidRequest, "the body was cut short").hint(hint);
    match tokio::time::timeout(Duration::from_secs(UPLOAD_PAUSE_S), frames.next()).await {
        Ok(frame) => {
            frame.transpose().map_err(|error| cut_short("what came before it was written").source(error))
        }
        Err(_) => Err(cut_short("send the next bytes within two minutes")),
    }
}

/// Send a signal to a process.
///
/// To its first process, or with `tree` to everything that it started.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/processes/{process}/signal", tag = "processes",
    operation_id = "signalProcess",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("process" = String, Path, description = "The process"),
    ),
    request_body = SignalProcess,
    responses(
        (status = 204, description = "Sent"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `PROCESS_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`PROCESS_EXITED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn signal(
    State(app): App,
    Peer(caller): Peer,
    ProcessInPath { sandbox, process }: ProcessInPath,
    Json(wanted, _): Json<SignalProcess>,
) -> Result<StatusCode, Refused> {
    let number = border::signal(&wanted.signal)?;
    let process = app.state.sandboxes.unfrozen(&caller, &sandbox).await?.process(&process)?;
    process.signal(number, wanted.tree).await?;
    Ok(StatusCode::NO_CONTENT)
}
