//! What the values of a request about ports may be.

use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::json;

use super::border::{line, refuse, within};
use super::extract::Query;
use super::proxy::WAIT;
use super::schema::ports::ExposePort;
use crate::error::{Error, ErrorCode};
use crate::id::PreviewToken;
use crate::limits::{PORT_NAME_BYTES_MAX, PORT_WAIT_MS_MAX};
use crate::sandbox::PortSpec;

fn bad_port() -> Error {
    refuse(
        "port",
        "must be a number from 1 to 65535",
        "name the port on which the server in the sandbox listens",
    )
}

/// A port in a path, as it is written everywhere.
pub(super) fn port(text: &str) -> Result<u16, Error> {
    super::proxy::number(text).ok_or_else(bad_port)
}

fn wait(field: &str, milliseconds: Option<u64>) -> Result<Duration, Error> {
    let wait = within(field, milliseconds, 0, PORT_WAIT_MS_MAX)?;
    Ok(wait.map_or(Duration::ZERO, Duration::from_millis))
}

/// A port to expose, if its values are sane.
pub(super) fn expose(wanted: ExposePort) -> Result<PortSpec, Error> {
    let port = u16::try_from(wanted.port).ok().filter(|port| *port > 0).ok_or_else(bad_port)?;
    if let Some(name) = &wanted.name {
        line("name", name, PORT_NAME_BYTES_MAX)?;
    }
    let token = wanted.token.as_deref().map(PreviewToken::parse).transpose();
    let token = token.map_err(|why| refuse("token", why.to_string(), "leave it out to have one chosen"))?;
    Ok(PortSpec { port, name: wanted.name, token, wait: wait("wait_ms", wanted.wait_ms)? })
}

fn milliseconds(field: &str, text: &str) -> Result<Duration, Error> {
    let number = text.parse().map_err(|_| {
        Error::new(ErrorCode::InvalidRequest, format!("{field} must be a number of milliseconds"))
            .hint(format!("give a number from 0 to {PORT_WAIT_MS_MAX}, or leave it out"))
            .context(json!({"field": field}))
    })?;
    wait(field, Some(number))
}

/// How long a proxied request may wait.
pub(super) fn wait_header(headers: &HeaderMap) -> Result<Duration, Error> {
    match headers.get(WAIT) {
        None => Ok(Duration::ZERO),
        Some(value) => milliseconds(WAIT.as_str(), value.to_str().unwrap_or_default()),
    }
}

/// How long connecting may wait.
pub(super) fn connect(Query(pairs): Query) -> Result<Duration, Error> {
    let mut wait = Duration::ZERO;
    for (key, value) in pairs {
        if key != "wait_ms" {
            return Err(Query::unknown(&key, "connecting may be given `wait_ms`"));
        }
        wait = milliseconds("wait_ms", &value)?;
    }
    Ok(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::extract::parse;

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_field() {
        for (body, wrong) in [
            (r#"{"port":0}"#, "port"),
            (r#"{"port":65536}"#, "port"),
            (r#"{"port":80,"token":"a-b"}"#, "token"),
            (r#"{"port":80,"token":""}"#, "token"),
            (r#"{"port":80,"token":"ABC"}"#, "token"),
            (r#"{"port":80,"name":""}"#, "name"),
            (r#"{"port":80,"name":"a\u0007"}"#, "name"),
            (r#"{"port":80,"wait_ms":60001}"#, "wait_ms"),
        ] {
            let refusal = expose(parse(body.as_bytes()).expect("well-formed")).expect_err(body);
            assert_eq!(refusal.context.expect("a context")["field"], wrong, "{body}");
        }
        for text in ["", "0", "+80", "080", "80 ", "0x50", "65536", "-1", "http"] {
            assert!(port(text).is_err(), "{text:?}");
        }
        assert_eq!(port("8000").ok(), Some(8000));
        let pairs = |key: &str, value: &str| Query(vec![(key.to_owned(), value.to_owned())]);
        assert_eq!(connect(pairs("wait_ms", "5")).ok(), Some(Duration::from_millis(5)));
        assert!(connect(pairs("wait_ms", "x")).is_err() && connect(pairs("wait", "5")).is_err());
    }
}
