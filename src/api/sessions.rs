//! Sessions: make, list, delete, and run commands in them.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::caller::Peer;
use super::commands::answer;
use super::error::Refused;
use super::extract::{IdInPath, ItemInPath, Json};
use super::output::{self, Grant, Stdin};
use super::request::RequestId;
use super::schema::{CommandResult, CreateSession, ErrorBody, RunCommand, SessionList, StartedEvent};
use super::{App, border_lasting, commands, events};
use crate::sandbox::SessionView;

/// Make a session.
///
/// A bash that stays: its directory, variables, functions, aliases and options live on between commands. The
/// session `default` is there without being made.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/sessions", tag = "sessions", operation_id = "createSession",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = CreateSession,
    responses(
        (status = 201, description = "It is there", body = SessionView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SESSION_EXISTS`, `SANDBOX_DEAD`", body = ErrorBody),
        (status = 422, description = "`COMMAND_NOT_IN_IMAGE`: the image has no bash; `INVALID_CWD`, \
            `USER_NOT_FOUND`", body = ErrorBody),
        (status = 429, description = "`PROCESS_LIMIT`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<CreateSession>,
) -> Result<(StatusCode, axum::Json<SessionView>), Refused> {
    let spec = border_lasting::session(wanted)?;
    let sandbox = app.state.sandboxes.awake(&caller, &id).await?;
    Ok((StatusCode::CREATED, axum::Json(sandbox.create_session(spec).await?)))
}

/// List sessions.
///
/// By name. `default` is among them once it was used.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/sessions", tag = "sessions", operation_id = "listSessions",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The sessions", body = SessionList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<SessionList>, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &id)?;
    Ok(axum::Json(SessionList { sessions: sandbox.sessions() }))
}

/// Show a session.
///
/// Without waiting for the command that runs in it.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/sessions/{session}", tag = "sessions", operation_id = "getSession",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("session" = String, Path, description = "The session"),
    ),
    responses(
        (status = 200, description = "The session", body = SessionView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `SESSION_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<axum::Json<SessionView>, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &sandbox)?;
    Ok(axum::Json(sandbox.session(&item)?))
}

/// Delete a session.
///
/// Its bash is killed, with everything that it has started. Commands that wait for their turn are refused. Deleting
/// `default` means that the next command finds a fresh one.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/sessions/{session}", tag = "sessions", operation_id = "deleteSession",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("session" = String, Path, description = "The session"),
    ),
    responses(
        (status = 204, description = "Nothing of it is left"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `SESSION_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn delete(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<StatusCode, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &sandbox)?;
    sandbox.delete_session(&item).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Run a command in a session.
///
/// As outside of a session, but in its bash, one after another: `shell` is a script for that bash, `argv` one
/// command of it, which may be a function or a builtin. `env` and `cwd` are for this command alone; `user` is the
/// session's. After `timeout_ms`, or when the client closes the connection, the command is interrupted: what bash
/// has started is killed, bash itself stays as it is, and the result has `timed_out`. A command that ends bash, as
/// `exit` does, is answered with `SESSION_ENDED`, which has its exit code and output in `context`; the next command
/// starts the session afresh. Output of jobs that earlier commands left in the background is the running command's.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/sessions/{session}/commands", tag = "sessions",
    operation_id = "runInSession",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("session" = String, Path, description = "The session"),
    ),
    request_body = RunCommand,
    responses(
        (status = 200, description = "The command ended, or its events", content(
            (CommandResult = "application/json"), (String = "text/event-stream"),
        )),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `SESSION_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`", body = ErrorBody),
        (status = 410, description = "`SESSION_ENDED`", body = ErrorBody),
        (status = 422, description = "`COMMAND_NOT_IN_IMAGE`: the image has no bash; `INVALID_CWD`",
            body = ErrorBody),
        (status = 429, description = "`RECORDING_LIMIT`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `BODY_TOO_LARGE`", body = ErrorBody),
    )
)]
pub(super) async fn run(
    State(app): App,
    Peer(caller): Peer,
    Extension(request): Extension<RequestId>,
    ItemInPath { sandbox, item }: ItemInPath,
    headers: HeaderMap,
    Json(wanted, held): Json<RunCommand>,
) -> Result<Response, Refused> {
    let (script, output_bytes_max) = border_lasting::session_command(wanted)?;
    let sandbox = app.state.sandboxes.awake(&caller, &sandbox).await?;
    let command = sandbox.run_in_session(&item, script).await?;
    let id = command.id.clone();
    let mut response = if events::wanted(&headers) {
        let started =
            StartedEvent { id: id.clone(), pid: command.pid, recording: output::recording(&command) };
        let (sender, receiver) = output::channel();
        app.tasks.spawn(output::forward(command, Stdin { bytes: None, grant: Some(held) }, sender));
        events::response(events::of_command(started, receiver, request))
    } else {
        let mut grant = Grant::new(app.budget.clone());
        let result = output::collect(command, None, output_bytes_max, &mut grant).await?;
        drop(held);
        answer(&result, grant)?
    };
    commands::name(&mut response, &id);
    Ok(response)
}
