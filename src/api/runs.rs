//! Runs that go on without their client: what came of them is collected beside the client, and fetched later.
//!
//! ```text
//! sandbox::context ─ContextEvent─▶ keep ─▶ KeptRun ─▶ GET …/runs/{run}
//!                                   └▶ the client's stream, while there is one
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use super::caller::Peer;
use super::code::{self, Kept};
use super::error::Refused;
use super::extract::{ItemInPath, Query, RunInPath};
use super::output::Grant;
use super::schema::ErrorBody;
use super::schema::contexts::{CodeRunList, CodeRunView};
use super::{App, border};
use crate::error::{Error, ErrorCode};
use crate::limits;
use crate::sandbox::{CodeRun, ContextEvent, KeptRun, Outcome, RunSpec, Sandbox};

/// Starts a run that goes on whatever its client does, and gives what a client that stays can follow.
///
/// # Errors
/// As for runs.
pub(super) async fn start(
    sandbox: Arc<Sandbox>,
    context: String,
    spec: RunSpec,
    bytes_max: usize,
    grant: Grant,
) -> Result<CodeRun, Error> {
    let (told, begun) = oneshot::channel();
    // A task of its own: it collects also when whoever asked leaves before the run's turn has come.
    tokio::spawn(async move {
        let run = match sandbox.run_in_context(&context, spec).await {
            Ok(run) => run,
            Err(error) => return drop(told.send(Err(error))),
        };
        let (followed, events) = mpsc::channel(1);
        let client = CodeRun { id: run.id.clone(), events, kept: run.kept.clone() };
        // Whoever left does not follow.
        let _ = told.send(Ok(client));
        keep(run, followed, bytes_max, grant).await;
    });
    begun.await.unwrap_or_else(|_| Err(code::lost()))
}

/// Collects what comes of a run, and hands it on for as long as somebody follows.
async fn keep(mut run: CodeRun, followed: mpsc::Sender<ContextEvent>, bytes_max: usize, mut grant: Grant) {
    let mut kept = Kept::default();
    while let Some(event) = run.events.recv().await {
        // A follower that has gone is none.
        let _ = followed.send(event.clone()).await;
        let Some(last) = kept.take(event, bytes_max, &mut grant) else { continue };
        // Our types have string keys and no failing Serialize.
        let body = serde_json::to_vec(&kept.collected(&run.id, &last)).unwrap_or_default();
        if let Some(run) = &run.kept {
            run.end(Outcome { body: Bytes::from(body), held: Box::new(grant) });
        }
        return;
    }
}

/// A run, as [`CodeRunView`] without parsing what came of it.
#[derive(Debug, Serialize)]
struct View<'a> {
    id: &'a str,
    created_at: &'a str,
    ended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
}

fn view(run: &KeptRun, with_result: bool) -> Result<Response, Error> {
    let outcome = run.outcome();
    let result =
        outcome.as_ref().filter(|_| with_result).map(|outcome| serde_json::from_slice(&outcome.body));
    let result = result.transpose().map_err(|error| Error::internal("cannot read a run's result", error))?;
    let view = View { id: &run.id, created_at: &run.created_at, ended: outcome.is_some(), result };
    Ok(axum::Json(view).into_response())
}

/// The answer to a client that does not follow a run that goes on alone.
pub(super) fn accepted(run: &CodeRun) -> Result<Response, Error> {
    let Some(kept) = &run.kept else { return Err(code::lost()) };
    Ok((StatusCode::ACCEPTED, view(kept, false)?).into_response())
}

/// List runs that are kept.
///
/// Those that were to detach: the ones that go on or wait, and the last ones that have ended, the oldest first. Their
/// results are at each of them.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/contexts/{context}/runs", tag = "contexts", operation_id = "listRuns",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("context" = String, Path, description = "The context"),
    ),
    responses(
        (status = 200, description = "The runs", body = CodeRunList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `CONTEXT_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    ItemInPath { sandbox, item }: ItemInPath,
) -> Result<axum::Json<CodeRunList>, Refused> {
    let sandbox = app.state.sandboxes.get(&caller, &sandbox)?;
    let runs = sandbox.kept_runs(&item)?;
    let views = runs.iter().map(|run| CodeRunView {
        id: run.id.clone(),
        created_at: run.created_at.clone(),
        ended: run.outcome().is_some(),
        result: None,
    });
    Ok(axum::Json(CodeRunList { runs: views.collect() }))
}

/// Show a run that is kept.
///
/// One that was to detach. Once it has ended, `result` is what a client that had waited would have been answered. With
/// `wait_ms` the answer comes when it has ended, or after that time.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/contexts/{context}/runs/{run}", tag = "contexts", operation_id = "getRun",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("context" = String, Path, description = "The context"),
        ("run" = String, Path, description = "The run"),
        ("wait_ms" = Option<u64>, Query, description = "Wait so long for its end, at most 60000; not at all when absent"),
    ),
    responses(
        (status = 200, description = "The run", body = CodeRunView),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `CONTEXT_NOT_FOUND`, `RUN_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    RunInPath { sandbox, context, run }: RunInPath,
    query: Query,
) -> Result<Response, Refused> {
    let wait = wait(query)?;
    let run = app.state.sandboxes.get(&caller, &sandbox)?.kept_run(&context, &run)?;
    tokio::select! {
        () = run.ended() => {}
        () = tokio::time::sleep(wait) => {}
        // The daemon ends.
        () = app.closing.cancelled() => {}
    }
    if run.is_deleted() && run.outcome().is_none() {
        return Err(
            Error::new(ErrorCode::ContextNotFound, "the context was deleted while its code ran").into()
        );
    }
    Ok(view(&run, true)?)
}

fn wait(Query(pairs): Query) -> Result<Duration, Error> {
    let mut wait = None;
    for (key, value) in pairs {
        if key != "wait_ms" {
            return Err(Query::unknown(&key, "a run may be given `wait_ms`"));
        }
        wait = Some(border::cursor("wait_ms", &value)?);
    }
    let wait = border::within("wait_ms", wait, 0, limits::CONTEXT_RUN_WAIT_MS_MAX)?;
    Ok(Duration::from_millis(wait.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_time_that_is_not_too_long_is_waited() {
        let wait = |pairs: &[(&str, &str)]| wait(Query::of(pairs));
        assert_eq!(wait(&[]).expect("none"), Duration::ZERO);
        assert_eq!(wait(&[("wait_ms", "60000")]).expect("a minute"), Duration::from_secs(60));
        for wrong in [("wait_ms", "60001"), ("wait_ms", "-1"), ("wait_ms", ""), ("wait", "1")] {
            let error = wait(&[wrong]).expect_err("refused");
            assert_eq!(error.context, Some(json!({"field": wrong.0})), "{wrong:?}");
        }
    }
}
