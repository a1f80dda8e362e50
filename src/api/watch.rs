//! Watching files: events as they come, and the cheap question whether there were any.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream;
use serde_json::json;
use std::collections::VecDeque;

use super::caller::Peer;
use super::error::Refused;
use super::events::{self, Numbers};
use super::extract::IdInPath;
use super::files::query::{Query, refuse};
use super::files::schema::{ChangeEvent, ChangeStatus, Changes, PathText};
use super::request::RequestId;
use super::schema::ErrorBody;
use super::{App, lifecycle};
use crate::error::Error;
use crate::limits::WATCH_GLOBS_MAX;
use crate::sandbox::files::{Changed, Files, Seen, Watching};
use crate::wire::worker::{Change, ChangeKind, Watch};

/// What both routes are asked.
struct Wanted {
    path: Vec<u8>,
    recursive: bool,
    include: Vec<String>,
    exclude: Vec<String>,
    user: Option<String>,
}

fn wanted(query: &mut Query) -> Result<Wanted, Error> {
    let globs = |query: &mut Query, key: &str| {
        let globs = query.all(key)?;
        if globs.len() > WATCH_GLOBS_MAX {
            return Err(refuse(key, "is there too often"));
        }
        Ok(globs)
    };
    Ok(Wanted {
        path: query.path()?,
        recursive: query.flag("recursive")?,
        include: globs(query, "include")?,
        exclude: globs(query, "exclude")?,
        user: query.text("user")?,
    })
}

impl Wanted {
    fn watch(self, files: &Files) -> Result<Watch, Error> {
        let Self { path, recursive, include, exclude, .. } = self;
        Ok(Watch { path: files.path(&path)?, recursive, include, exclude })
    }
}

/// Watch files.
///
/// Events: `armed` first, when nothing that happens from now on is missed; then `create`, `modify`, `delete`,
/// `attrib` and `rename`, of what matches an `include` (if there is one) and no `exclude`; `overflow` when more
/// happened than was seen, as for a reader that is too slow; `gone` at the end when what is watched was removed.
/// Changes that follow each other within 10 ms come together, and the same one of the same file once. A directory
/// that is made or moved in is watched too, and what is in it already is reported as created.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/watch", tag = "files", operation_id = "watchFiles",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "Directory or file, percent-encoded"),
        ("recursive" = Option<bool>, Query, description = "Directories in it too"),
        ("include" = Option<Vec<String>>, Query, description = "Globs, repeated: only what matches one"),
        ("exclude" = Option<Vec<String>>, Query,
            description = "Globs, repeated: nothing that matches one, nor what is below it"),
        ("user" = Option<String>, Query, description = "Whose rights; the sandbox's user when absent"),
    ),
    responses(
        (status = 200, description = "Events", body = ChangeEvent, content_type = "text/event-stream"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = 429, description = "`WATCH_LIMIT`", body = ErrorBody),
        (status = "4XX", description = "`FILE_DENIED`, `NOT_DIRECTORY`, `PATH_INVALID`, `INVALID_REQUEST`",
            body = ErrorBody),
    )
)]
pub(super) async fn watch(
    State(app): App,
    Peer(caller): Peer,
    Extension(request): Extension<RequestId>,
    IdInPath(id): IdInPath,
    mut query: Query,
) -> Result<Response, Refused> {
    let wanted = wanted(&mut query)?;
    query.end()?;
    let sandbox = app.state.sandboxes.awake(&caller, &id).await?;
    let files = sandbox.files(wanted.user.as_deref())?;
    let (path, recursive) = (PathText::new(wanted.path.clone()), wanted.recursive);
    let watching = files.watch(wanted.watch(&files)?).await?;
    let mut numbers = Numbers::default();
    let first = numbers.event("armed", &json!({"path": path, "recursive": recursive}));
    let events = Events { watching: Some(watching), numbers, request, ready: VecDeque::from([first]) };
    Ok(lifecycle::held(events::response(stream::unfold(events, Events::next)), sandbox.hold()))
}

/// What a watch reports, as events. It is asked for more when all that it reported was taken.
struct Events {
    watching: Option<Watching>,
    numbers: Numbers,
    request: RequestId,
    ready: VecDeque<Event>,
}

impl Events {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            let seen = self.watching.as_mut()?.next().await;
            match seen {
                Ok(Seen::Changes(changes)) => {
                    let numbers = &mut self.numbers;
                    self.ready.extend(changes.into_iter().map(|change| event(numbers, change)));
                }
                Ok(Seen::Overflow) => self.ready.push_back(self.numbers.event("overflow", &json!({}))),
                Ok(Seen::Synchronised) => {}
                Ok(Seen::Gone) => {
                    self.watching = None;
                    self.ready.push_back(self.numbers.event("gone", &json!({})));
                }
                Err(error) => {
                    self.watching = None;
                    self.ready.push_back(self.numbers.failure(&error, &self.request));
                }
            }
        }
    }
}

fn event(numbers: &mut Numbers, change: Change) -> Event {
    let name = match change.kind {
        ChangeKind::Create => "create",
        ChangeKind::Modify => "modify",
        ChangeKind::Delete => "delete",
        ChangeKind::Rename => "rename",
        ChangeKind::Attrib => "attrib",
    };
    let Change { path, from, directory, .. } = change;
    let data = ChangeEvent { path: PathText::new(path), from: from.map(PathText::new), directory };
    numbers.event(name, &data)
}

/// Ask whether files have changed.
///
/// Without a `cursor` the answer is one for the next time; with it, whether anything that a watch of the same
/// parameters would report has happened since. After the first question it costs one message, whatever the size of
/// the tree. `resync` means that it is not known: nobody asked for ten minutes, the daemon was restarted, or too much
/// happened at once.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/changes", tag = "files", operation_id = "filesChanged",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "Directory or file, percent-encoded"),
        ("cursor" = Option<String>, Query, description = "From the answer before"),
        ("recursive" = Option<bool>, Query, description = "Directories in it too"),
        ("include" = Option<Vec<String>>, Query, description = "As for a watch"),
        ("exclude" = Option<Vec<String>>, Query, description = "As for a watch"),
        ("user" = Option<String>, Query, description = "Whose rights; the sandbox's user when absent"),
    ),
    responses(
        (status = 200, description = "Whether they have", body = Changes),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = 429, description = "`WATCH_LIMIT`", body = ErrorBody),
        (status = "4XX", description = "`FILE_DENIED`, `NOT_DIRECTORY`, `PATH_INVALID`, `INVALID_REQUEST`",
            body = ErrorBody),
    )
)]
pub(super) async fn changes(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    mut query: Query,
) -> Result<axum::Json<Changes>, Refused> {
    let (wanted, cursor) = (wanted(&mut query)?, query.text("cursor")?);
    query.end()?;
    let files = app.state.sandboxes.awake(&caller, &id).await?.files(wanted.user.as_deref())?;
    let (changed, cursor) = files.changed(wanted.watch(&files)?, cursor.as_deref()).await?;
    let status = match changed {
        Changed::No => ChangeStatus::Unchanged,
        Changed::Yes => ChangeStatus::Changed,
        Changed::Unknown => ChangeStatus::Resync,
    };
    Ok(axum::Json(Changes { status, cursor }))
}
