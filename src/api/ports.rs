//! Ports: expose, list, revoke; and requests and connections to any port, for clients that have this socket.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::uri::PathAndQuery;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::attach::same_origin;
use super::caller::Peer;
use super::error::Refused;
use super::extract::{IdInPath, Json, PortInPath, Query};
use super::proxy::{self, Ends, Keep, Target, Told};
use super::request::Passed;
use super::schema::ErrorBody;
use super::schema::ports::{ConnectToPort, ExposePort, ExposedPort, PortList};
use super::{App, Shared, border_ports};
use crate::error::{Error, ErrorCode};
use crate::id::SandboxId;
use crate::sandbox::PortView;

fn with_url(shared: &Shared, sandbox: &SandboxId, view: PortView) -> ExposedPort {
    let url = shared.state.previews.as_ref().map(|base| base.url_of(view.port, sandbox, &view.token));
    ExposedPort { view, url }
}

/// Expose a port.
///
/// Gives it an address that browsers can open without any other right: `http://{port}-{sandbox}-{token}.{base}/`. Exposing
/// a port again gives it another token, and the address before is good no longer; with the same `token` only the
/// rest changes. Nobody needs to listen on the port yet.
#[utoipa::path(
    post, path = "/v1/sandboxes/{id}/ports", tag = "ports", operation_id = "exposePort",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ExposePort,
    responses(
        (status = 201, description = "Exposed", body = ExposedPort),
        (status = 200, description = "It was exposed already, and is now as asked", body = ExposedPort),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXHAUSTED`: the sandbox has too many", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn expose(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
    Json(wanted, _): Json<ExposePort>,
) -> Result<(StatusCode, axum::Json<ExposedPort>), Refused> {
    let spec = border_ports::expose(wanted)?;
    let (view, new) = app.state.sandboxes.awake(&caller, &id).await?.expose_port(spec)?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(with_url(&app, &id, view))))
}

/// List exposed ports.
///
/// By number.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/ports", tag = "ports", operation_id = "listPorts",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The ports", body = PortList),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
    )
)]
pub(super) async fn list(
    State(app): App,
    Peer(caller): Peer,
    IdInPath(id): IdInPath,
) -> Result<axum::Json<PortList>, Refused> {
    let ports = app.state.sandboxes.get(&caller, &id)?.exposed_ports();
    Ok(axum::Json(PortList { ports: ports.into_iter().map(|view| with_url(&app, &id, view)).collect() }))
}

/// Show an exposed port.
///
/// With its token and address.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/ports/{port}", tag = "ports", operation_id = "getPort",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("port" = u16, Path, description = "The port"),
    ),
    responses(
        (status = 200, description = "The port", body = ExposedPort),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `PORT_NOT_EXPOSED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn get(
    State(app): App,
    Peer(caller): Peer,
    PortInPath { sandbox, port }: PortInPath,
) -> Result<axum::Json<ExposedPort>, Refused> {
    let view = app.state.sandboxes.get(&caller, &sandbox)?.exposed_port(port)?;
    Ok(axum::Json(with_url(&app, &sandbox, view)))
}

/// Revoke a port's address.
///
/// What goes on by that address ends. The server in the sandbox is left alone.
#[utoipa::path(
    delete, path = "/v1/sandboxes/{id}/ports/{port}", tag = "ports", operation_id = "revokePort",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("port" = u16, Path, description = "The port"),
    ),
    responses(
        (status = 204, description = "Its address is good no longer"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`, `PORT_NOT_EXPOSED`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`", body = ErrorBody),
    )
)]
pub(super) async fn revoke(
    State(app): App,
    Peer(caller): Peer,
    PortInPath { sandbox, port }: PortInPath,
) -> Result<StatusCode, Refused> {
    app.state.sandboxes.get(&caller, &sandbox)?.revoke_port(port)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Send a request to a port.
///
/// Any method, with any path below this one, is passed to the server that listens on the port, exposed or not, and its
/// answer is the answer, WebSocket included. The server sees itself as `localhost:{port}`. The header
/// `x-stockade-wait-ms` says how long to wait for somebody to listen. Failures of ours have the header
/// `x-stockade-error` with the code, which no answer of a server has; of `x-request-id` the server's stays.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/ports/{port}/proxy/{path}", tag = "ports", operation_id = "proxyToPort",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("port" = u16, Path, description = "The port"),
        ("path" = String, Path, description = "What the server is asked for, with a query if there is one"),
    ),
    responses(
        (status = "default", description = "What the server answers"),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`", body = ErrorBody),
        (status = 502, description = "`PORT_CLOSED`: nobody listens (yet); `SERVICE_FAILED`", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXHAUSTED`: too many connections", body = ErrorBody),
        (status = 504, description = "`SERVICE_TIMEOUT`", body = ErrorBody),
        (status = "4XX", description = "`INVALID_REQUEST`, `INVALID_ID`", body = ErrorBody),
    )
)]
pub(super) async fn proxied(
    State(app): App,
    Peer(caller): Peer,
    PortInPath { sandbox, port }: PortInPath,
    mut request: Request,
) -> Result<Response, Refused> {
    let sandbox = app.state.sandboxes.awake(&caller, &sandbox).await?;
    let authority = proxy::authority(&request)?.clone();
    let wait = border_ports::wait_header(request.headers())?;
    let server = HeaderValue::from_str(&format!("localhost:{port}"));
    let server = server.map_err(|error| Error::internal("cannot name the server", error))?;
    *request.uri_mut() = below(request.uri())?;
    let target = Target {
        sandbox,
        port,
        wait,
        over: CancellationToken::new(),
        told: Told { host: Some(server), scheme: "http", authority, client: None },
    };
    match proxy::forward(&app, &Keep::default(), target, request).await {
        Ok(mut response) => {
            response.extensions_mut().insert(Passed);
            Ok(response.map(Body::new))
        }
        Err(refusal) => Ok(refused(refusal)),
    }
}

/// A refusal that says when to ask again, if that may help, and whether on this connection.
fn refused(refusal: Error) -> Response {
    let (again, ends) = (proxy::passes(refusal.code), proxy::ends_connection(refusal.code));
    let mut response = Refused::from(refusal).into_response();
    if ends {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if again {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What of the path is the server's, as it was sent: `/v1/sandboxes/{id}/ports/{port}/proxy` has six parts.
fn below(uri: &Uri) -> Result<Uri, Error> {
    let path = uri.path();
    let at = path.match_indices('/').nth(6).map_or(path.len(), |(at, _)| at);
    let rest = &path[at..];
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{}{query}", if rest.is_empty() { "/" } else { rest });
    let target: PathAndQuery =
        target.parse().map_err(|error| Error::internal("cannot write the server's path", error))?;
    Ok(Uri::from(target))
}

/// Connect to a port.
///
/// For any protocol: with `connection: upgrade` and `upgrade: tcp` the connection carries, after the answer 101, the
/// bytes of a connection to the port, exposed or not.
#[utoipa::path(
    get, path = "/v1/sandboxes/{id}/ports/{port}/connect", tag = "ports", operation_id = "connectToPort",
    params(
        ("id" = String, Path, description = "The sandbox"),
        ("port" = u16, Path, description = "The port"),
        ConnectToPort,
    ),
    responses(
        (status = 101, description = "The connection is one to the port from here on"),
        (status = 400, description = "`INVALID_REQUEST`: not an upgrade to tcp", body = ErrorBody),
        (status = 403, description = "`PERMISSION_DENIED`: from another origin", body = ErrorBody),
        (status = 404, description = "`SANDBOX_NOT_FOUND`", body = ErrorBody),
        (status = 409, description = "`SANDBOX_DEAD`", body = ErrorBody),
        (status = 502, description = "`PORT_CLOSED`: nobody listens", body = ErrorBody),
        (status = 503, description = "`CAPACITY_EXHAUSTED`: too many connections", body = ErrorBody),
    )
)]
pub(super) async fn connect(
    State(app): App,
    Peer(caller): Peer,
    PortInPath { sandbox, port }: PortInPath,
    query: Query,
    mut request: Request,
) -> Result<Response, Refused> {
    same_origin(request.headers())?;
    let wait = border_ports::connect(query)?;
    if !upgrades_to_tcp(request.headers()) {
        return Err(Error::new(ErrorCode::InvalidRequest, "this route changes the protocol to tcp")
            .hint("send `connection: upgrade` and `upgrade: tcp`, or use `stockade forward`")
            .into());
    }
    let sandbox = app.state.sandboxes.awake(&caller, &sandbox).await?;
    let connection = sandbox.connect(port, wait).await?;
    let client = hyper::upgrade::on(&mut request);
    let abort = app.abort.clone();
    app.tasks.spawn(async move {
        let ended = connection.ended();
        let ends = Ends { over: CancellationToken::new(), abort, idle: None };
        match client.await {
            Ok(client) => proxy::tunnel(TokioIo::new(client), connection, ends, ended).await,
            Err(error) => tracing::debug!(%error, "a connection did not change its protocol"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    Ok(response)
}

fn upgrades_to_tcp(headers: &HeaderMap) -> bool {
    let is = |name, wanted: &str| {
        headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
    };
    is(header::UPGRADE, "tcp") && is(header::CONNECTION, "upgrade")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_path_is_what_was_sent() {
        for (sent, path) in [
            ("/v1/sandboxes/a/ports/80/proxy/", "/"),
            ("/v1/sandboxes/a/ports/80/proxy", "/"),
            ("/v1/sandboxes/a/ports/80/proxy?x=1", "/?x=1"),
            ("/v1/sandboxes/a/ports/80/proxy/b%2Fc//d/../e?x=%20&y", "/b%2Fc//d/../e?x=%20&y"),
            ("/v1/sandboxes/a/ports/80/proxy//evil.example/", "//evil.example/"),
        ] {
            assert_eq!(below(&sent.parse().expect("URI")).expect("path").to_string(), path, "{sent}");
        }
    }
}
