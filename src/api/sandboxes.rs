//! Sandboxes: create, list, get, delete.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::audit::About;
use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, Json, Query};
use super::schema::{CreateSandbox, ErrorBody, ListSandboxes, SandboxList};
use super::{App, Shared, border};
use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::limits;
use crate::sandbox::{Caller, Sandbox, SandboxSpec, SandboxView};

/// Create a sandbox.
///
/// It runs when the answer comes, and the answer shows what it really got, read back from the kernel. Creating
/// the same id again with the same specification answers 200 and the sandbox that is there.
#[utoipa::path(
    post, path = "/v1/sandboxes", tag = "sandboxes", operation_id = "createSandbox",
    request_body = CreateSandbox,
    responses(
        (status = 201, description = "Created", body = SandboxView),
        (status = 200, description = "It was there already, with this specification", body = SandboxView),
        (status = 404, description = "`IMAGE_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_CONFLICT`, `SANDBOX_BUSY`", body = ErrorBody),
        (status = 422, description = "`LIMIT_UNSUPPORTED`, `INVALID_CWD`, `USER_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`, `INVALID_REFERENCE`, \
            `BODY_TOO_LARGE`, `UNSUPPORTED_MEDIA_TYPE`", body = ErrorBody),
        (status = "5XX", description = "`CAPACITY_EXHAUSTED`, `HOST_UNSUPPORTED`, `ISOLATION_MISMATCH`, \
            `SHUTTING_DOWN`, `INTERNAL`", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(app): App,
    Peer(caller): Peer,
    Json(wanted, _): Json<CreateSandbox>,
) -> Result<(StatusCode, Extension<About>, axum::Json<SandboxView>), Refused> {
    let spec = border::sandbox(wanted)?;
    let (sender, created) = oneshot::channel();
    let tasks = app.tasks.clone();
    tasks.spawn(create_for(app, caller, spec, sender));
    let Ok(created) = created.await else {
        return Err(Error::new(ErrorCode::Internal, "creating the sandbox failed").into());
    };
    let (sandbox, created) = created?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let about = Extension(About(sandbox.id().to_string()));
    Ok((status, about, axum::Json(sandbox.view())))
}

type Created = Result<(Arc<Sandbox>, bool), Error>;

/// Creates a sandbox in a task of its own, so that a client that leaves does not leave it half-made. When the
/// client left and does not know the id, the sandbox goes too; one that the client named stays, because asking
/// again for the same is how the client finds out.
async fn create_for(
    app: Arc<Shared>,
    caller: Arc<Caller>,
    spec: SandboxSpec,
    client: oneshot::Sender<Created>,
) {
    let named = spec.id.is_some();
    let created = app.state.sandboxes.create(&caller, spec).await;
    let Err(Ok((sandbox, true))) = client.send(created) else { return };
    if named {
        return;
    }
    if let Ok(id) = SandboxId::parse(&sandbox.view().id) {
        tracing::debug!(%id, "the client left before its sandbox was there");
        if let Err(error) = app.state.sandboxes.destroy(&caller, &id).await {
            tracing::warn!(%id, %error, "cannot destroy a sandbox that nobody waits for");
        }
    }
}

/// List sandboxes.
///
/// Those of the caller; of everybody for root and operators.
#[utoipa::path(
    get, path = "/v1/sandboxes", tag = "sandboxes", operation_id = "listSandboxes",
    params(ListSandboxes),
    responses(
        (status = 200, description = "The sandboxes", body = SandboxList),
        (status = 400, description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    query: Query,
) -> Result<axum::Json<SandboxList>, Refused> {
    let wanted = labels(query)?;
    let sandboxes = app.state.sandboxes.list(&caller);
    let sandboxes = sandboxes.iter().map(|sandbox| sandbox.view());
    Ok(axum::Json(SandboxList { sandboxes: sandboxes.filter(|view| matches(&wanted, view)).collect() }))
}

/// Key, `=` and value.
const LABEL_CHARACTERS_MAX: usize = 2 * limits::LABEL_BYTES_MAX + 1;

fn labels(Query(pairs): Query) -> Result<ListSandboxes, Error> {
    let mut wanted = ListSandboxes::default();
    for (key, value) in pairs {
        if key != "label" {
            return Err(Query::unknown(&key, "sandboxes can be listed by `label=key=value`"));
        }
        let refuse = |why: &str| {
            Error::new(ErrorCode::InvalidRequest, format!("label {why}"))
                .hint("write `label=key` or `label=key=value`")
                .context(serde_json::json!({"field": "label"}))
        };
        if value.is_empty() || value.starts_with('=') {
            return Err(refuse("is empty"));
        }
        if value.chars().any(char::is_control) {
            return Err(refuse("has control characters, which no label has"));
        }
        if value.chars().count() > LABEL_CHARACTERS_MAX {
            return Err(refuse("is longer than any label"));
        }
        wanted.label.push(value);
    }
    Ok(wanted)
}

fn matches(wanted: &ListSandboxes, view: &SandboxView) -> bool {
    wanted.label.iter().all(|label| match label.split_once('=') {
        Some((key, value)) => view.labels.get(key).is_some_and(|found| found == value),
        None => view.labels.contains_key(label),
    })
}

/// Get a sandbox.
///
/// With what it really got, as the kernel says.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}", tag = "sandboxes", operation_id = "getSandbox",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The sandbox", body = SandboxView),
        (status = 400, description = "`INVALID_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<SandboxView>, Refused> {
    Ok(axum::Json(app.state.sandboxes.get(&caller, &id)?.view()))
}

/// Destroy a sandbox.
///
/// Kills everything in it and removes its files. When the answer comes nothing of it is left.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}", tag = "sandboxes", operation_id = "destroySandbox",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 204, description = "Destroyed"),
        (status = 400, description = "`INVALID_ID`", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_BUSY`", body = ErrorBody),
    )
)]
pub(super) async fn delete(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<StatusCode, Refused> {
    app.state.sandboxes.destroy(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_refuses_what_it_would_otherwise_ignore() {
        let pairs = Query::of;
        let both = labels(pairs(&[("label", "a=b"), ("label", "c")])).expect("labels");
        assert_eq!(both.label, ["a=b", "c"]);
        for bad in [
            &[("labels", "a")][..],
            &[("label", "")],
            &[("", "")],
            &[("label", "=x")],
            &[("label", "a\u{90}")],
        ] {
            assert_eq!(labels(pairs(bad)).expect_err("bad").code, ErrorCode::InvalidRequest, "{bad:?}");
        }
    }
}
