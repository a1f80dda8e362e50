//! Files of a sandbox. Content travels as raw bytes, paths as percent-encoded queries or in JSON, any byte kept.

mod archive;
pub(super) mod content;
pub(super) mod query;
pub mod schema;
mod version;

use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, Json};
use super::output;
use super::schema::ErrorBody;
use super::{App, Shared};
use crate::error::{Error, ErrorCode};
use crate::limits::{NAME_BYTES_MAX, PAGE_DEFAULT, PAGE_MAX, PATH_BYTES_MAX, PATTERN_BYTES_MAX};
use crate::sandbox::Caller;
use crate::sandbox::files::Files;
use crate::wire::worker::{Entry, Kind, List, Search, Stat, Time};
use query::{Query, bytes, limit, mode, refuse};
use schema::{
    ChangeMode, ChangeOwner, CopyFile, FileExists, FileInfo, FileList, FileType, MakeDirectory, MakeSymlink,
    PathText, RemoveFile, RenameFile, SearchFiles, SearchMatch, SearchResult,
};

/// Permissions that chmod may set: the sticky bit too, and no set-user-id, which has no effect in a sandbox.
const MODE_MAX: u32 = 0o1777;

/// The routes of this part.
pub(super) fn routes() -> OpenApiRouter<std::sync::Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(content::read, content::write))
        .routes(routes!(archive::download, archive::upload))
        .routes(routes!(stat))
        .routes(routes!(exists))
        .routes(routes!(list))
        .routes(routes!(search))
        .routes(routes!(mkdir))
        .routes(routes!(rename))
        .routes(routes!(copy))
        .routes(routes!(remove))
        .routes(routes!(chmod))
        .routes(routes!(chown))
        .routes(routes!(symlink))
}

/// A caller's view of a sandbox's files.
async fn files(
    app: &Shared,
    caller: &Caller,
    id: &crate::id::SandboxId,
    user: Option<&str>,
) -> Result<Files, Error> {
    app.state.sandboxes.awake(caller, id).await?.files(user)
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::File,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::Device => FileType::Device,
    }
}

fn time(time: Time) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    // A file can have a time that no calendar has.
    jiff::Timestamp::new(time.seconds, nanoseconds).unwrap_or_default().to_string()
}

/// The media type that a name has.
fn mime_by_name(path: &[u8]) -> Option<&'static str> {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    let (_, extension) = std::str::from_utf8(name).ok()?.rsplit_once('.')?;
    mime_guess::from_ext(extension).first_raw()
}

fn info(path: Vec<u8>, stat: Stat) -> FileInfo {
    let mime = match stat.kind {
        Kind::File => mime_by_name(&path).or(match stat.text {
            Some(true) => Some("text/plain"),
            Some(false) => Some("application/octet-stream"),
            None => None,
        }),
        Kind::Directory => Some("inode/directory"),
        _ => None,
    };
    FileInfo {
        kind: file_type(stat.kind),
        size: stat.tag.size,
        mode: format!("{:04o}", stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        links: stat.links,
        modified_at: time(stat.tag.mtime),
        changed_at: time(stat.tag.ctime),
        etag: version::etag(&stat.tag),
        mime: mime.map(str::to_owned),
        target: stat.target.map(PathText::new),
        path: PathText::new(path),
    }
}

/// Look at a file.
///
/// What it is, without its content. A symbolic link is followed unless `no_follow` is there.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/files/stat", tag = "files", operation_id = "statFile",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "Which, percent-encoded"),
        ("no_follow" = Option<bool>, Query, description = "Look at a symbolic link itself"),
        ("user" = Option<String>, Query, description = "Whose rights; the sandbox's user when absent"),
    ),
    responses(
        (status = 200, description = "What it is", body = FileInfo),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_DENIED`, `NOT_DIRECTORY`, `PATH_INVALID`, `INVALID_REQUEST`",
            body = ErrorBody),
    )
)]
async fn stat(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    mut query: Query,
) -> Result<axum::Json<FileInfo>, Refused> {
    let (path, no_follow) = (query.path()?, query.flag("no_follow")?);
    let user = query.text("user")?;
    query.end()?;
    let files = files(&app, &caller, &id, user.as_deref()).await?;
    let stat = files.stat(files.path(&path)?, !no_follow, true).await?;
    Ok(axum::Json(info(path, stat)))
}

/// Ask whether a file is there.
///
/// A symbolic link is followed: one that leads nowhere is not there.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/files/exists", tag = "files", operation_id = "fileExists",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "Which, percent-encoded"),
        ("user" = Option<String>, Query, description = "Whose rights; the sandbox's user when absent"),
    ),
    responses(
        (status = 200, description = "Whether it is there", body = FileExists),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_DENIED`, `PATH_INVALID`, `INVALID_REQUEST`", body = ErrorBody),
    )
)]
async fn exists(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    mut query: Query,
) -> Result<axum::Json<FileExists>, Refused> {
    let (path, user) = (query.path()?, query.text("user")?);
    query.end()?;
    let files = files(&app, &caller, &id, user.as_deref()).await?;
    match files.stat(files.path(&path)?, true, false).await {
        Ok(stat) => Ok(axum::Json(FileExists { exists: true, kind: Some(file_type(stat.kind)) })),
        Err(error) if matches!(error.code, ErrorCode::FileNotFound | ErrorCode::NotDirectory) => {
            Ok(axum::Json(FileExists { exists: false, kind: None }))
        }
        Err(error) => Err(error.into()),
    }
}

/// List a directory.
///
/// In the order of names, page by page: memory is bounded however many entries there are. Names that begin with a
/// dot are there when `hidden` says so. A `glob` without a slash is for names, one with a slash for whole paths;
/// directories that do not match are walked through all the same. Other file systems are listed and not entered.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/files/list", tag = "files", operation_id = "listFiles",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("path" = String, Query, description = "The directory, percent-encoded"),
        ("recursive" = Option<bool>, Query, description = "What is in directories too"),
        ("hidden" = Option<bool>, Query, description = "Names that begin with a dot too"),
        ("glob" = Option<String>, Query, description = "Only what matches: * ** ? [a-z] {a,b}"),
        ("limit" = Option<u32>, Query, description = "Entries of a page: 1000 unless given, at most 10000"),
        ("cursor" = Option<String>, Query, description = "From the page before"),
        ("user" = Option<String>, Query, description = "Whose rights; the sandbox's user when absent"),
    ),
    responses(
        (status = 200, description = "A page", body = FileList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`NOT_DIRECTORY`, `FILE_DENIED`, `PATH_INVALID`, `INVALID_REQUEST`",
            body = ErrorBody),
    )
)]
async fn list(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    mut query: Query,
) -> Result<axum::Json<FileList>, Refused> {
    let path = query.path()?;
    let (recursive, hidden) = (query.flag("recursive")?, query.flag("hidden")?);
    let (glob, user, cursor) = (query.text("glob")?, query.text("user")?, query.text("cursor")?);
    let limit = query.limit(PAGE_DEFAULT, PAGE_MAX)?;
    query.end()?;
    let after =
        cursor.map(|cursor| place_of(&cursor).ok_or_else(|| refuse("cursor", "is not one of an answer")));
    let files = files(&app, &caller, &id, user.as_deref()).await?;
    let path = files.path(&path)?;
    let list = List { path, recursive, hidden, glob, after: after.transpose()?, limit };
    let page = files.list(list).await?;
    let cursor = match page.items.last() {
        Some(last) if page.end.more => Some(URL_SAFE_NO_PAD.encode(&last.path)),
        _ => None,
    };
    let entries = page.items.into_iter().map(|Entry { path, stat }| info(path, stat)).collect();
    Ok(axum::Json(FileList { entries, cursor, unreadable: page.end.unreadable }))
}

/// The path that a cursor of a list stands for: one that a list can have had.
fn place_of(cursor: &str) -> Option<Vec<u8>> {
    let path = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let name = |name: &[u8]| !name.is_empty() && name != b"." && name != b".." && !name.contains(&0);
    // The last entry of a directory whose path is as long as one may be is named by more.
    (path.len() < PATH_BYTES_MAX + NAME_BYTES_MAX && path.split(|&byte| byte == b'/').all(name))
        .then_some(path)
}

/// Search text in files.
///
/// Line by line, in the order of paths. Files with a NUL byte in their beginning are counted and left out; of lines
/// of more than a mebibyte the beginning is searched.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/files/search", tag = "files", operation_id = "searchFiles",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = SearchFiles,
    responses(
        (status = 200, description = "What was found", body = SearchResult),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_DENIED`, `FILE_NOT_REGULAR`, `PATH_INVALID`, `INVALID_REQUEST`",
            body = ErrorBody),
    )
)]
async fn search(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<SearchFiles>,
) -> Result<axum::Json<SearchResult>, Refused> {
    let pattern = match (wanted.text, wanted.regex) {
        (Some(text), None) => regex::escape(&text),
        (None, Some(regex)) => regex,
        _ => return Err(refuse("text", "or else regex must be there").into()),
    };
    let glob = wanted.glob.unwrap_or_default();
    for (field, value) in [("text", &pattern), ("glob", &glob)] {
        if value.len() > PATTERN_BYTES_MAX {
            return Err(refuse(field, "is too long").into());
        }
    }
    let files = files(&app, &caller, &id, wanted.user.as_deref()).await?;
    let search = Search {
        path: files.path(&bytes("path", &wanted.path)?)?,
        pattern,
        ignore_case: wanted.ignore_case,
        hidden: wanted.hidden,
        glob: Some(glob).filter(|glob| !glob.is_empty()),
        limit: limit(Some(wanted.limit.unwrap_or(PAGE_DEFAULT)), PAGE_MAX)?,
    };
    let page = files.search(search).await?;
    let matches = page.items.into_iter().map(|found| {
        let (text, encoding) = output::written(found.text);
        let path = PathText::new(found.path);
        SearchMatch { path, line: found.line, column: found.column, text, encoding, cut: found.cut }
    });
    Ok(axum::Json(SearchResult {
        matches: matches.collect(),
        truncated: page.end.more,
        files: page.end.files,
        binary: page.end.binary,
        unreadable: page.end.unreadable,
        long_lines: page.end.long_lines,
    }))
}

/// Make a directory.
///
/// With `parents` also those above it that are missing, and it is no failure when it is there.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/files/mkdir", tag = "files", operation_id = "makeDirectory",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = MakeDirectory,
    responses(
        (status = 204, description = "It is there"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_EXISTS`, `NOT_DIRECTORY`, `FILE_DENIED`, `PATH_INVALID`, \
            `INVALID_REQUEST`", body = ErrorBody),
        (status = 507, description = "`DISK_FULL`", body = ErrorBody),
    )
)]
async fn mkdir(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<MakeDirectory>,
) -> Result<StatusCode, Refused> {
    let permissions = wanted.mode.as_deref().map(|text| mode("mode", text, MODE_MAX)).transpose()?;
    let files = files(&app, &caller, &id, wanted.user.as_deref()).await?;
    files.mkdir(files.path(&bytes("path", &wanted.path)?)?, permissions, wanted.parents).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rename a file or directory.
///
/// Within one file system, in one step. What is there is replaced only with `overwrite`.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/files/rename", tag = "files", operation_id = "renameFile",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = RenameFile,
    responses(
        (status = 204, description = "Renamed"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_EXISTS`, `CROSS_DEVICE`, `DIRECTORY_NOT_EMPTY`, `IS_DIRECTORY`, \
            `NOT_DIRECTORY`, `FILE_BUSY`, `FILE_DENIED`, `PATH_INVALID`, `INVALID_REQUEST`", body = ErrorBody),
        (status = 507, description = "`DISK_FULL`", body = ErrorBody),
    )
)]
async fn rename(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<RenameFile>,
) -> Result<StatusCode, Refused> {
    let files = files(&app, &caller, &id, wanted.user.as_deref()).await?;
    let (from, to) = (bytes("from", &wanted.from)?, bytes("to", &wanted.to)?);
    files.rename(files.path(&from)?, files.path(&to)?, wanted.overwrite).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Copy a file or a tree.
///
/// Symbolic links are copied as links. Permissions are kept, owners are not. With `overwrite` files that are there are
/// replaced, each in one step, and directories are filled.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/files/copy", tag = "files", operation_id = "copyFile",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = CopyFile,
    responses(
        (status = 204, description = "Copied"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_EXISTS`, `FILE_NOT_REGULAR`, `IS_DIRECTORY`, `NOT_DIRECTORY`, \
            `FILE_DENIED`, `PATH_INVALID`, `INVALID_REQUEST`", body = ErrorBody),
        (status = 507, description = "`DISK_FULL`", body = ErrorBody),
    )
)]
async fn copy(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<CopyFile>,
) -> Result<StatusCode, Refused> {
    let files = files(&app, &caller, &id, wanted.user.as_deref()).await?;
    let (from, to) = (bytes("from", &wanted.from)?, bytes("to", &wanted.to)?);
    files.copy(files.path(&from)?, files.path(&to)?, wanted.overwrite).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a file or directory.
///
/// A directory that is not empty only with `recursive`. Symbolic links are never followed, other file systems never
/// entered.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/files/remove", tag = "files", operation_id = "removeFile",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = RemoveFile,
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`DIRECTORY_NOT_EMPTY`, `NOT_DIRECTORY`, `FILE_BUSY`, `FILE_DENIED`, \
            `PATH_INVALID`, `INVALID_REQUEST`", body = ErrorBody),
    )
)]
async fn remove(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<RemoveFile>,
) -> Result<StatusCode, Refused> {
    let files = files(&app, &caller, &id, wanted.user.as_deref()).await?;
    match files.remove(files.path(&bytes("path", &wanted.path)?)?, wanted.recursive).await {
        Err(error) if error.code == ErrorCode::FileNotFound && wanted.missing_ok => {}
        other => other?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Change permissions.
///
/// Of a symbolic link's target, since links have none.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/files/chmod", tag = "files", operation_id = "changeMode",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ChangeMode,
    responses(
        (status = 204, description = "Changed"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_DENIED`, `NOT_DIRECTORY`, `PATH_INVALID`, `INVALID_REQUEST`",
            body = ErrorBody),
    )
)]
async fn chmod(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<ChangeMode>,
) -> Result<StatusCode, Refused> {
    let permissions = mode("mode", &wanted.mode, MODE_MAX)?;
    let files = files(&app, &caller, &id, wanted.user.as_deref()).await?;
    files.chmod(files.path(&bytes("path", &wanted.path)?)?, permissions).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Change the owner.
///
/// Names are those of the sandbox's own passwd and group files.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/files/chown", tag = "files", operation_id = "changeOwner",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ChangeOwner,
    responses(
        (status = 204, description = "Changed"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = 422, description = "`USER_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_DENIED`, `NOT_DIRECTORY`, `PATH_INVALID`, `INVALID_REQUEST`",
            body = ErrorBody),
    )
)]
async fn chown(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<ChangeOwner>,
) -> Result<StatusCode, Refused> {
    let owner = Files::owner(&wanted.owner)?;
    let files = files(&app, &caller, &id, wanted.user.as_deref()).await?;
    files.chown(files.path(&bytes("path", &wanted.path)?)?, owner, !wanted.no_follow).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make a symbolic link.
///
/// Inside the sandbox an absolute target begins at the sandbox's root.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/files/symlink", tag = "files", operation_id = "makeSymlink",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = MakeSymlink,
    responses(
        (status = 204, description = "Made"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `FILE_NOT_FOUND`", body = ErrorBody),
        (status = "4XX", description = "`FILE_EXISTS`, `FILE_DENIED`, `NOT_DIRECTORY`, `PATH_INVALID`, \
            `INVALID_REQUEST`", body = ErrorBody),
        (status = 507, description = "`DISK_FULL`", body = ErrorBody),
    )
)]
async fn symlink(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<MakeSymlink>,
) -> Result<StatusCode, Refused> {
    let files = files(&app, &caller, &id, wanted.user.as_deref()).await?;
    let target = bytes("target", &wanted.target)?;
    // It is text and not resolved; the same bytes are impossible in it as in a path.
    files.path(&target)?;
    files.symlink(target, files.path(&bytes("path", &wanted.path)?)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
