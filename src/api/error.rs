//! Errors on the wire: the only place that knows which HTTP status a code has.
//!
//! A route returns [`Refused`]. Its response carries the [`Error`] itself, not bytes: the request's id and the
//! log line are added once, in [`super::request`], for errors of routes, extractors and the router alike.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::schema::ErrorBody;
use crate::error::{Error, ErrorCode};

/// What a route answers when it does not do what was asked.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status(self.0.code);
        response.extensions_mut().insert(Arc::new(self.0));
        response
    }
}

/// The status of a code.
pub(crate) const fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidRequest | ErrorCode::InvalidId | ErrorCode::InvalidReference => {
            StatusCode::BAD_REQUEST
        }
        ErrorCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
        ErrorCode::RouteNotFound
        | ErrorCode::SandboxNotFound
        | ErrorCode::CommandNotFound
        | ErrorCode::ImageNotFound
        | ErrorCode::PlatformNotFound
        | ErrorCode::RegistryNotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::SandboxConflict
        | ErrorCode::SandboxBusy
        | ErrorCode::SandboxDead
        | ErrorCode::ImageInUse => StatusCode::CONFLICT,
        ErrorCode::CommandNotInImage
        | ErrorCode::CommandNotExecutable
        | ErrorCode::InvalidCwd
        | ErrorCode::UserNotFound
        | ErrorCode::ImageInvalid
        | ErrorCode::RegistryDenied
        | ErrorCode::LimitUnsupported => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::ProcessLimit => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::RegistryUnreachable => StatusCode::BAD_GATEWAY,
        ErrorCode::HostUnsupported | ErrorCode::CapacityExhausted | ErrorCode::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorCode::IsolationMismatch | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The bytes a client sees of an error.
pub(crate) fn body(error: &Error, request_id: &str) -> ErrorBody {
    ErrorBody {
        code: error.code,
        message: error.message.to_string(),
        hint: error.hint.as_ref().map(Cow::to_string),
        context: error.context.clone(),
        request_id: request_id.to_owned(),
    }
}

/// Puts the error into the log, under the request's id: our own failures loud, the host's as a warning, and what
/// the caller can mend only when debugging.
pub(crate) fn log(error: &Error, request_id: &str) {
    let causes = causes(error);
    let (code, message) = (error.code, &error.message);
    match code {
        ErrorCode::Internal | ErrorCode::IsolationMismatch => {
            tracing::error!(request_id, ?code, %message, %causes, "request failed");
        }
        ErrorCode::HostUnsupported | ErrorCode::CapacityExhausted => {
            tracing::warn!(request_id, ?code, %message, %causes, "request failed");
        }
        _ => tracing::debug!(request_id, ?code, %message, %causes, "request refused"),
    }
}

fn causes(error: &Error) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// The whole response for an error, outside of the router too.
pub(crate) fn response(error: &Error, request_id: &str) -> Response {
    let bytes = serde_json::to_vec(&body(error, request_id)).unwrap_or_default();
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status(error.code);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_the_client_everything_but_its_causes() {
        let error = Error::internal("cannot make the sandbox", std::io::Error::other("/secret/path"))
            .hint("look into the log")
            .context(serde_json::json!({"id": "a"}));
        let text = serde_json::to_string(&body(&error, "r-1")).expect("json");
        assert_eq!(
            text,
            r#"{"code":"INTERNAL","message":"cannot make the sandbox","hint":"look into the log","context":{"id":"a"},"request_id":"r-1"}"#
        );
        assert_eq!(causes(&error), "/secret/path");
    }
}
