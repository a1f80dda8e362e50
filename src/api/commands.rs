//! Commands: run to the end in one answer or as a stream, list, signal.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use serde::Serialize;

use super::border::Run;
use super::caller::Peer;
use super::error::Refused;
use super::extract::{CommandInPath, IdInPath, Json};
use super::output::{self, Grant, Stdin};
use super::request::RequestId;
use super::schema::{CommandList, CommandResult, ErrorBody, RunCommand, SendSignal, StartedEvent};
use super::{App, border, events};
use crate::error::Error;

/// The command's id, in the head of the answer.
const COMMAND_ID: HeaderName = HeaderName::from_static("x-command-id");

/// Run a command.
///
/// Waits for its end and answers with everything that it wrote, up to `output_bytes_max` of each stream. With
/// the header `accept: text/event-stream` the answer is a stream instead: `started`, then `stdout` and `stderr`
/// as they come, then `exit` (or `error`), each with an increasing id. `started` says that the command has a
/// process: one whose program turns out not to be there is told by the `error` after it. The command is killed when the client
/// closes the connection. A command that fails is a result, not an error: see `exit_code`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/commands", tag = "commands", operation_id = "runCommand",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = RunCommand,
    responses(
        (status = 200, description = "The command ended, or its events", content(
            (CommandResult = "application/json"), (String = "text/event-stream"),
        )),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`, `SANDBOX_BUSY`", body = ErrorBody),
        (status = 422, description = "`COMMAND_NOT_IN_IMAGE`, `COMMAND_NOT_EXECUTABLE`, `INVALID_CWD`, \
            `USER_NOT_FOUND`", body = ErrorBody),
        (status = 429, description = "`PROCESS_LIMIT`, `RECORDING_LIMIT`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, `BODY_TOO_LARGE`, \
            `UNSUPPORTED_MEDIA_TYPE`", body = ErrorBody),
        (status = "5XX", description = "`INTERNAL`, `SHUTTING_DOWN`", body = ErrorBody),
    )
)]
pub(super) async fn run(
    State(app): App,
    Peer(caller): Peer,
    Extension(request): Extension<RequestId>,
    IdInPath(id): IdInPath,
    headers: HeaderMap,
    Json(wanted, held): Json<RunCommand>,
) -> Result<Response, Refused> {
    let Run { spec, stdin, output_bytes_max } = border::command(wanted)?;
    let command = app.state.sandboxes.run(&caller, &id, spec).await?;
    let command_id = command.id.clone();
    let mut response = if events::wanted(&headers) {
        let started =
            StartedEvent { id: command.id.clone(), pid: command.pid, recording: output::recording(&command) };
        let (sender, receiver) = output::channel();
        let stdin = Stdin { bytes: stdin, grant: Some(held) };
        app.tasks.spawn(output::forward(command, stdin, sender));
        events::response(events::of_command(started, receiver, request))
    } else {
        let mut grant = Grant::new(app.budget.clone());
        let result = output::collect(command, stdin, output_bytes_max, &mut grant).await?;
        answer(&result, grant)?
    };
    name(&mut response, &command_id);
    Ok(response)
}

/// Puts a command's id into the head of its answer.
pub(super) fn name(response: &mut Response, id: &str) {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(COMMAND_ID, id);
    }
}

/// The answer, whose memory is given back when it has been sent.
pub(super) fn answer(result: &impl Serialize, grant: Grant) -> Result<Response, Error> {
    let bytes =
        serde_json::to_vec(result).map_err(|error| Error::internal("cannot write the result", error))?;
    let length = HeaderValue::from(bytes.len());
    let body = http_body_util::Full::from(bytes).map_frame(move |frame| {
        let _held = &grant;
        frame
    });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // The wrapped body does not know it, and chunks would cost another write.
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    Ok(response)
}

/// List running commands.
///
/// Those of this sandbox that have not ended, the oldest first.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/commands", tag = "commands", operation_id = "listCommands",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The commands", body = CommandList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<CommandList>, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &id)?;
    Ok(axum::Json(CommandList { commands: sandbox.commands() }))
}

/// Send a signal.
///
/// To the command's first process. `SIGKILL` kills it and thereby everything that it started.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/commands/{command}/signal", tag = "commands",
    operation_id = "signalCommand",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("command" = String, Path, description = "The command"),
    ),
    request_body = SendSignal,
    responses(
        (status = 204, description = "Sent"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `COMMAND_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn signal(
    State(app): App,
    Peer(caller): Peer,
    CommandInPath { sandbox, command }: CommandInPath,
    Json(wanted, _): Json<SendSignal>,
) -> Result<StatusCode, Refused> {
    let number = border::signal(&wanted.signal)?;
    let sandbox = app.state.sandboxes.unfrozen(&caller, &sandbox).await?;
    sandbox.signal(&command, number).await?;
    Ok(StatusCode::NO_CONTENT)
}
