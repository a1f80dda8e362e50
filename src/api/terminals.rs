//! Terminals: open, list, resize, signal, close. Looking at one is in `terminal_attach`.

use axum::extract::State;
use axum::http::StatusCode;

use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, ItemInPath, Json};
use super::schema::{ErrorBody, OpenTerminal, SignalTerminal, TerminalList, TerminalSize};
use super::{App, border, border_lasting};
use crate::sandbox::TerminalView;

/// Open a terminal.
///
/// Starts a program on a pseudoterminal of its own. It runs until it ends or is closed, whoever looks at it; with
/// `session` it begins in that session's directory, with the variables that the session exports. With `record` what is
/// seen on it is kept too, as `recordings` has it.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/terminals", tag = "terminals", operation_id = "openTerminal",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = OpenTerminal,
    responses(
        (status = 201, description = "Its program runs", body = TerminalView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `SESSION_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`TERMINAL_EXISTS`, `SESSION_BUSY`, `SANDBOX_DEAD`", body = ErrorBody),
        (status = 422, description = "`COMMAND_NOT_IN_IMAGE`, `COMMAND_NOT_EXECUTABLE`, `INVALID_CWD`, \
            `USER_NOT_FOUND`", body = ErrorBody),
        (status = 429, description = "`PROCESS_LIMIT`, `RECORDING_LIMIT`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn open(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<OpenTerminal>,
) -> Result<(StatusCode, axum::Json<TerminalView>), Refused> {
    let spec = border_lasting::terminal(wanted)?;
    let sandbox = app.state.sandboxes.awake(&caller, &id).await?;
    let terminal = sandbox.open_terminal(spec).await?;
    Ok((StatusCode::CREATED, axum::Json(terminal.view())))
}

/// List terminals.
///
/// By name, those whose program has ended too.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/terminals", tag = "terminals", operation_id = "listTerminals",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The terminals", body = TerminalList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<TerminalList>, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &id)?;
    Ok(axum::Json(TerminalList { terminals: sandbox.terminals() }))
}

/// Show a terminal.
///
/// Its size, how far its output is, and its exit code when its program has ended.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/terminals/{terminal}", tag = "terminals", operation_id = "getTerminal",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("terminal" = String, Path, description = "The terminal"),
    ),
    responses(
        (status = 200, description = "The terminal", body = TerminalView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `TERMINAL_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<axum::Json<TerminalView>, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &sandbox)?;
    Ok(axum::Json(sandbox.terminal(&item)?.view()))
}

/// Resize a terminal.
///
/// Its foreground processes hear of it by SIGWINCH.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/terminals/{terminal}/resize", tag = "terminals",
    operation_id = "resizeTerminal",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("terminal" = String, Path, description = "The terminal"),
    ),
    request_body = TerminalSize,
    responses(
        (status = 204, description = "It has this size"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `TERMINAL_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`TERMINAL_ENDED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn resize(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
    Json(wanted, _): Json<TerminalSize>,
) -> Result<StatusCode, Refused> {
    let (rows, columns) = border_lasting::terminal_size(wanted)?;
    let sandbox = app.state.sandboxes.unfrozen(&caller, &sandbox).await?;
    sandbox.terminal(&item)?.resize(rows, columns)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Signal a terminal's program.
///
/// Its first process, or with `tree` everything that it started. Ctrl-C and the like are input, not signals.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/terminals/{terminal}/signal", tag = "terminals",
    operation_id = "signalTerminal",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("terminal" = String, Path, description = "The terminal"),
    ),
    request_body = SignalTerminal,
    responses(
        (status = 204, description = "Sent"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `TERMINAL_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`TERMINAL_ENDED`, `SANDBOX_DEAD`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn signal(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
    Json(wanted, _): Json<SignalTerminal>,
) -> Result<StatusCode, Refused> {
    let number = border::signal(&wanted.signal)?;
    let sandbox = app.state.sandboxes.unfrozen(&caller, &sandbox).await?;
    sandbox.terminal(&item)?.signal(number, wanted.tree).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Close a terminal.
///
/// Kills its program and everything that it started, and forgets its output. Viewers hear `exit`.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/terminals/{terminal}", tag = "terminals", operation_id = "closeTerminal",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("terminal" = String, Path, description = "The terminal"),
    ),
    responses(
        (status = 204, description = "Nothing of it is left"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `TERMINAL_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn close(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<StatusCode, Refused> {
    let sandbox = app.state.sandboxes.unfrozen(&caller, &sandbox).await?;
    sandbox.close_terminal(&item).await?;
    Ok(StatusCode::NO_CONTENT)
}
