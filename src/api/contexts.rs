//! Contexts: make, list, restart, delete, and run code in them.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, ItemInPath, Json};
use super::output::Grant;
use super::request::RequestId;
use super::schema::ErrorBody;
use super::schema::contexts::{AnswerInput, CodeResult, CodeRunView, ContextList, CreateContext, RunCode};
use super::{App, border_contexts, code, events, runs};
use crate::sandbox::ContextView;

/// Make a context.
///
/// An interpreter that stays: what one cell defines, the next ones find. One that is named as its language, as
/// `python`, is there without being made.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/contexts", tag = "contexts", operation_id = "createContext",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = CreateContext,
    responses(
        (status = 201, description = "It is there", body = ContextView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`CONTEXT_EXISTS`, `SANDBOX_DEAD`", body = ErrorBody),
        (status = 422, description = "`LANGUAGE_NOT_IN_IMAGE`, `INVALID_CWD`, `USER_NOT_FOUND`", body = ErrorBody),
        (status = 429, description = "`PROCESS_LIMIT`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<CreateContext>,
) -> Result<(StatusCode, axum::Json<ContextView>), Refused> {
    let spec = border_contexts::context(wanted)?;
    let sandbox = app.state.sandboxes.awake(&caller, &id).await?;
    Ok((StatusCode::CREATED, axum::Json(sandbox.create_context(spec).await?)))
}

/// List contexts.
///
/// By name. Those that are there without being made are among them once they were used.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/contexts", tag = "contexts", operation_id = "listContexts",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The contexts", body = ContextList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<ContextList>, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &id)?;
    Ok(axum::Json(ContextList { contexts: sandbox.contexts() }))
}

/// Show a context.
///
/// Without waiting for the code that runs in it.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/contexts/{context}", tag = "contexts", operation_id = "getContext",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("context" = String, Path, description = "The context"),
    ),
    responses(
        (status = 200, description = "The context", body = ContextView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `CONTEXT_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<axum::Json<ContextView>, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &sandbox)?;
    Ok(axum::Json(sandbox.context(&item)?))
}

/// Delete a context.
///
/// Its interpreter is killed, with everything that it has started. Runs that wait for their turn are refused.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/contexts/{context}", tag = "contexts", operation_id = "deleteContext",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("context" = String, Path, description = "The context"),
    ),
    responses(
        (status = 204, description = "Nothing of it is left"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `CONTEXT_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn delete(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<StatusCode, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &sandbox)?;
    sandbox.delete_context(&item).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restart a context.
///
/// It gets a new interpreter, which knows nothing. The run that goes on ends with the error `ContextRestarted`; those
/// that wait for their turn go on in the new interpreter.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/contexts/{context}/restart", tag = "contexts",
    operation_id = "restartContext",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("context" = String, Path, description = "The context"),
    ),
    responses(
        (status = 200, description = "It is new", body = ContextView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `CONTEXT_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`LANGUAGE_NOT_IN_IMAGE`, `INVALID_CWD`, `USER_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn restart(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<axum::Json<ContextView>, Refused> {
    let sandbox = app.state.sandboxes.unfrozen(&caller, &sandbox).await?;
    Ok(axum::Json(sandbox.restart_context(&item).await?))
}

/// Interrupt the code that runs.
///
/// As Ctrl-C does, in the interpreter and in what it has started: the run ends with the language's own error and the
/// state stays. Code that goes on for a second is killed, and the end of the run says that the state is lost. Nothing
/// happens when nothing runs. Answers before the run has ended.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/contexts/{context}/interrupt", tag = "contexts",
    operation_id = "interruptContext",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("context" = String, Path, description = "The context"),
    ),
    responses(
        (status = 204, description = "It will end"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `CONTEXT_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn interrupt(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<StatusCode, Refused> {
    let sandbox = app.state.sandboxes.unfrozen(&caller, &sandbox).await?;
    sandbox.interrupt_context(&item).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Answer code that asks for input.
///
/// For a run that was started with `stdin`, when it has asked: see the event `input`, or `input` of the context.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/contexts/{context}/input", tag = "contexts",
    operation_id = "answerContext",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("context" = String, Path, description = "The context"),
    ),
    request_body = AnswerInput,
    responses(
        (status = 204, description = "It has the answer"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `CONTEXT_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`INPUT_NOT_WANTED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn input(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
    Json(wanted, _): Json<AnswerInput>,
) -> Result<StatusCode, Refused> {
    let value = border_contexts::answer(wanted)?;
    let sandbox = app.state.sandboxes.unfrozen(&caller, &sandbox).await?;
    sandbox.answer_context(&item, value).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Run code.
///
/// Runs of one context wait for each other, in the order in which they came. The answer comes at the end and holds
/// everything; with the header `accept: text/event-stream` it is a stream instead: `started` when its turn has come,
/// then `stdout`, `stderr`, `display`, `result`, `clear` and `input` as they happen, then `end` (or `error`). Code that
/// fails is a result, not an error: see `error` in it. When the client closes the connection the code is interrupted,
/// unless it was to `detach`: then it goes on, and `GET …/runs/{run}` has what came of it. After `timeout_ms` it is
/// interrupted too.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/contexts/{context}/runs", tag = "contexts", operation_id = "runCode",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("context" = String, Path, description = "The context, or a language"),
    ),
    request_body = RunCode,
    responses(
        (status = 200, description = "The code ended, or its events", content(
            (CodeResult = "application/json"), (String = "text/event-stream"),
        )),
        (status = 202, description = "It has begun, and was to `detach`", body = CodeRunView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `CONTEXT_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`", body = ErrorBody),
        (status = 422, description = "`LANGUAGE_NOT_IN_IMAGE`, `INVALID_CWD`", body = ErrorBody),
        (status = 429, description = "`CONTEXT_BUSY`, `PROCESS_LIMIT`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `BODY_TOO_LARGE`", body = ErrorBody),
    )
)]
pub(super) async fn run(
    State(app): App,
    Peer(caller): Peer,
    Extension(request): Extension<RequestId>,
    ItemInPath { sandbox, item }: ItemInPath,
    headers: HeaderMap,
    Json(wanted, held): Json<RunCode>,
) -> Result<Response, Refused> {
    let (spec, output_bytes_max) = border_contexts::run(wanted)?;
    let sandbox = app.state.sandboxes.awake(&caller, &sandbox).await?;
    let detach = spec.detach;
    let run = if detach {
        runs::start(sandbox, item, spec, output_bytes_max, Grant::new(app.kept.clone())).await?
    } else {
        sandbox.run_in_context(&item, spec).await?
    };
    drop(held);
    if events::wanted(&headers) {
        return Ok(events::response(code::of_run(run, request)));
    }
    if detach {
        return Ok(runs::accepted(&run)?);
    }
    Ok(code::collect(run, output_bytes_max, Grant::new(app.budget.clone())).await?)
}
