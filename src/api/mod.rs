//! The HTTP interface `/v1`, on a Unix socket.
//!
//! ```text
//! accept ─▶ listen    who is it (SO_PEERCRED), may it, how many already; header timeout; drain
//!             └▶ request   id, panic → 500, error → JSON and log line; audit: who asked for what
//!                  └▶ router     /v1/… (utoipa: route and documentation are one thing)
//!                       ├ extract    JSON, path, query: bounded, strict, our errors
//!                       ├ border     what values may be  ──▶ specs of `sandbox`
//!                       ├ host, sandboxes, stats, images ──▶ JSON
//!                       ├ processes, logs, environment
//!                       ├ contexts, code, lifecycle, snapshots
//!                       ├ recordings
//!                       ├ commands, attach
//!                       │     └ output   both pipes of a command ─▶ buffer, SSE or WebSocket
//!                       └ ports
//!                             └ proxy    requests into a sandbox; also from its own TCP listener, for browsers
//! ```
//!
//! Invariants:
//! - Every answer of a route, an extractor or the router that is not a success is an
//!   [`ErrorBody`](schema::ErrorBody); so is the answer to what is not HTTP at all, when it comes first (`malformed`).
//! - A sandbox of somebody else is indistinguishable from none: ownership is checked by `Sandboxes::get`, which
//!   and `Sandboxes::awake`, which are the only ways from an id to a sandbox.
//! - Memory per client is bounded. Nothing is read from a pipe that cannot be kept or handed on: a slow
//!   reader's command blocks in write(2), and the daemon does not.
//! - A command lives no longer than the request that started it; a process does.
//!
//! Why not `axum::serve`: it has no header timeout, no bound on connections, and sleeps a second when
//! descriptors run out. Why no tower layers: each boxes the future of every request, and the three things that
//! every request needs are one function in `request`.

pub(crate) mod attach;
mod audit;
mod border;
mod border_contexts;
mod border_lasting;
mod border_mounts;
mod border_ports;
mod bounds;
mod caller;
mod code;
mod commands;
mod contexts;
mod drive;
mod environment;
mod error;
mod events;
mod export;
mod extract;
mod feed;
pub mod files;
mod git;
mod host;
mod images;
mod lifecycle;
mod listen;
mod logs;
mod malformed;
mod metrics;
mod mounts;
mod network;
mod operations;
mod output;
mod places;
mod ports;
mod processes;
mod proxy;
mod recordings;
mod request;
mod runs;
mod sandboxes;
pub mod schema;
mod sessions;
mod signals;
mod snapshots;
mod stats;
mod terminal_attach;
mod terminals;
mod watch;

use std::ops::Range;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::{Error, ErrorCode};
use crate::journal::audit::Audit;
use crate::sandbox::Sandboxes;
use crate::sandbox::catalog::Catalog;
use crate::wire::launch::Host;

pub use audit::AuditLines;
pub use export::IDENTITY;
pub use feed::EventList;
pub use listen::serve;
pub use proxy::{BadBase, Base};
pub use stats::StatsList;

/// What the routes work on.
#[derive(Debug)]
pub struct State {
    /// The sandboxes.
    pub sandboxes: Sandboxes,
    /// The images.
    pub catalog: Catalog,
    /// Who asked for what.
    pub audit: Audit,
    /// What launch found on this host.
    pub host: Host,
    /// Members of this group see and control the sandboxes of all users, as root does.
    pub operator_gid: Option<u32>,
    /// Host uids that sandboxes and image files own. A caller with one of these came out of a sandbox, and is
    /// turned away.
    pub sandbox_uids: Range<u32>,
    /// Where browsers reach exposed ports, if they do.
    pub previews: Option<Base>,
    /// What is done, on a thread that may wait, when nobody has asked for anything for a while.
    pub when_idle: fn(),
}

/// The state and what the routes share beside it.
#[derive(Debug)]
struct Shared {
    state: State,
    /// Bytes of output and input that may be held in memory.
    budget: Arc<output::Budget>,
    /// Bytes of what came of runs that went on without their client.
    kept: Arc<output::Budget>,
    /// Connections and attachments.
    tasks: TaskTracker,
    /// Fires when the time for a clean end is over.
    abort: CancellationToken,
    /// Fires when the daemon begins to end: then streams without an end of their own do.
    closing: CancellationToken,
    /// What a request is, by its path.
    operations: operations::Operations,
    metrics: metrics::Metrics,
}

type App = axum::extract::State<Arc<Shared>>;

/// The document's head; routes add themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Stockade",
        description = "Runs code you do not trust, in sandboxes on this host. Spoken over a Unix socket: \
            `curl --unix-socket /run/stockade/stockade.sock http://stockade/v1/info`. Callers are known by \
            their uid; a sandbox belongs to the uid that made it. Errors are `ErrorBody` with a code of a \
            closed list, which the header `x-stockade-error` says too; every answer has the header `x-request-id`. What cannot be parsed as a request of HTTP/1.1 \
            is answered `INVALID_REQUEST` with status 400, 414 or 431 and closed; after another request on the same \
            connection that answer has no body.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "host", description = "The daemon and its host."),
        (name = "sandboxes", description = "Isolated file system, process tree and network, with an id."),
        (name = "snapshots", description = "Files of a sandbox that are kept, given back, and given to others."),
        (name = "commands", description = "One program run to its end in a sandbox."),
        (name = "files", description = "Files of a sandbox, with the rights of one of its users."),
        (name = "git", description = "Repositories in a sandbox."),
        (name = "processes", description = "Programs that run on in a sandbox, with logs."),
        (name = "environment", description = "Variables of whatever is started in a sandbox."),
        (name = "network", description = "What may leave a sandbox, and what did."),
        (name = "sessions", description = "A shell each, that lives on between commands."),
        (name = "contexts", description = "An interpreter each, whose variables live on between cells."),
        (name = "terminals", description = "A program each, on a terminal that any number of people look at."),
        (name = "recordings", description = "What was seen on terminals and of commands, for asciinema to play."),
        (name = "mounts", description = "Buckets, and directories of the host, in a sandbox's tree."),
        (name = "ports", description = "Servers in a sandbox, for browsers and other clients."),
        (name = "images", description = "What sandboxes are made of."),
    ),
    components(schemas(
        crate::journal::feed::Happened,
        feed::EventsLost,
        schema::AttachEvent,
        schema::StartedEvent,
        schema::OutputEvent,
        schema::processes::LogDropped,
        schema::contexts::RunStartedEvent,
        schema::contexts::CodeOutputEvent,
        schema::contexts::RichOutput,
        schema::contexts::ClearEvent,
        schema::contexts::CodeEnd,
        schema::TerminalEvent,
        schema::TerminalControl,
    ))
)]
struct Document;

/// What the router cannot describe: one operation for every method, on a path of any length.
#[derive(OpenApi)]
#[openapi(paths(ports::proxied))]
struct Proxied;

/// Files that are kept, given back, and sent elsewhere.
fn kept_routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(snapshots::create, snapshots::list_of))
        .routes(routes!(snapshots::list, export::upload_snapshot))
        .routes(routes!(export::download))
        .routes(routes!(snapshots::get, snapshots::delete))
        .routes(routes!(snapshots::restore))
        .routes(routes!(snapshots::roll_back))
        .routes(routes!(snapshots::fork))
        .routes(routes!(snapshots::commit))
        .routes(routes!(export::export))
        .routes(routes!(export::push))
        .routes(routes!(export::store))
}

fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(host::health))
        .routes(routes!(host::info))
        .routes(routes!(host::openapi))
        .routes(routes!(sandboxes::create, sandboxes::list))
        .routes(routes!(sandboxes::get, sandboxes::delete))
        .routes(routes!(lifecycle::stop))
        .routes(routes!(lifecycle::pause))
        .routes(routes!(lifecycle::start))
        .routes(routes!(lifecycle::set))
        .routes(routes!(feed::list))
        .routes(routes!(metrics::metrics))
        .routes(routes!(host::quota))
        .routes(routes!(audit::list))
        .routes(routes!(stats::one))
        .routes(routes!(stats::all))
        .routes(routes!(stats::limit))
        .merge(kept_routes())
        .routes(routes!(commands::run, commands::list))
        .routes(routes!(attach::attach))
        .routes(routes!(commands::signal))
        .merge(files::routes())
        .routes(routes!(git::clone))
        .routes(routes!(watch::watch))
        .routes(routes!(watch::changes))
        .routes(routes!(processes::start, processes::list, processes::kill_all))
        .routes(routes!(processes::get, processes::remove))
        .routes(routes!(processes::wait))
        .routes(routes!(processes::stdin))
        .routes(routes!(processes::signal))
        .routes(routes!(logs::read))
        .routes(routes!(environment::get, environment::change, environment::replace))
        .routes(routes!(network::get, network::set))
        .routes(routes!(network::events))
        .routes(routes!(mounts::mount, mounts::list))
        .routes(routes!(mounts::get, mounts::unmount))
        .routes(routes!(sessions::create, sessions::list))
        .routes(routes!(sessions::get, sessions::delete))
        .routes(routes!(sessions::run))
        .routes(routes!(contexts::create, contexts::list))
        .routes(routes!(contexts::get, contexts::delete))
        .routes(routes!(contexts::restart))
        .routes(routes!(contexts::interrupt))
        .routes(routes!(contexts::input))
        .routes(routes!(contexts::run, runs::list))
        .routes(routes!(runs::get))
        .routes(routes!(terminals::open, terminals::list))
        .routes(routes!(terminals::get, terminals::close))
        .routes(routes!(terminals::resize))
        .routes(routes!(terminals::signal))
        .routes(routes!(terminal_attach::attach))
        .routes(routes!(recordings::list))
        .routes(routes!(recordings::get, recordings::delete))
        .routes(routes!(ports::expose, ports::list))
        .routes(routes!(ports::get, ports::revoke))
        .routes(routes!(ports::connect))
        .routes(routes!(images::list))
        .routes(routes!(images::pull))
        .routes(routes!(images::import))
        .routes(routes!(export::load))
        .routes(routes!(images::get, images::delete))
}

/// The OpenAPI document, generated from the routes and completed by the bounds of what they take.
pub fn openapi() -> serde_json::Value {
    let mut document = described();
    bounds::apply(&mut document);
    document
}

/// The same without the bounds.
fn described() -> serde_json::Value {
    let mut document = routes().into_openapi();
    document.merge(Proxied::openapi());
    if let Some(description) = &mut document.info.description {
        description.push_str(&error::codes_table());
    }
    serde_json::to_value(document).unwrap_or_default()
}

fn router(shared: Arc<Shared>) -> Router {
    let (router, _) = routes().split_for_parts();
    // Every method and path below these is the server's in the sandbox.
    let router = router
        .route("/v1/sandboxes/{id}/ports/{port}/proxy", any(ports::proxied))
        .route("/v1/sandboxes/{id}/ports/{port}/proxy/", any(ports::proxied))
        .route("/v1/sandboxes/{id}/ports/{port}/proxy/{*path}", any(ports::proxied));
    router.fallback(no_such_route).method_not_allowed_fallback(no_such_method).with_state(shared)
}

async fn no_such_route() -> error::Refused {
    Error::new(ErrorCode::RouteNotFound, "there is no such route")
        .hint("GET /v1/openapi.json describes every route")
        .into()
}

async fn no_such_method() -> error::Refused {
    Error::new(ErrorCode::MethodNotAllowed, "this route does not have this method")
        .hint("the header `allow` lists the methods that it has")
        .into()
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod document_tests {
    use super::*;

    const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi.json");

    #[test]
    fn the_interface_changes_only_on_purpose() {
        let now = format!("{:#}\n", openapi());
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(SNAPSHOT, &now).expect("write the snapshot");
        }
        let kept = std::fs::read_to_string(SNAPSHOT).unwrap_or_default();
        assert!(
            now == kept,
            "tests/openapi.json is not what the code says; if that is meant, run the test with UPDATE_SNAPSHOTS=1"
        );
    }

    #[test]
    fn every_route_is_documented() {
        let document = openapi();
        assert_eq!(document["openapi"], "3.1.0");
        let mut ids = std::collections::BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let id = operation["operationId"].as_str().expect("operation id");
                assert!(ids.insert(id.to_owned()), "{id} is there twice");
                for part in ["summary", "description"] {
                    let text = operation[part].as_str().unwrap_or_default();
                    assert!(!text.is_empty(), "{method} {path} has no {part}");
                }
                assert!(operation["tags"][0].is_string(), "{method} {path} has no tag");
            }
        }
        assert_eq!(ids.len(), 110);
    }

    #[test]
    fn every_code_is_documented_once() {
        let document = openapi();
        let codes = document["components"]["schemas"]["ErrorCode"]["enum"].as_array().expect("codes");
        let table = document["info"]["description"].as_str().expect("description");
        for code in codes {
            let row = format!("| `{}` |", code.as_str().expect("text"));
            assert_eq!(table.matches(&row).count(), 1, "{row}");
        }
        assert_eq!(codes.len(), error::CODES.len());
    }
}
