//! Extractors whose refusals are our errors: of bodies, paths and queries.
//!
//! A body is read within a bound and a time before it is parsed, whole, by the code that carries it out: there
//! is no second reader that could see something else (CVE-2024-41110).

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Shared;
use super::error::Refused;
use super::output::Grant;
use crate::error::{Error, ErrorCode};
use crate::id::{SandboxId, SnapshotId};
use crate::limits::{BODY_BYTES_FREE, JSON_BODY_BYTES_MAX, JSON_BODY_TIMEOUT_S};

/// How long the rest of a body is read that is refused already.
const BODY_DRAIN: Duration = Duration::from_secs(1);

/// A JSON body, and the memory that it was given, for as long as what came of it is held.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T, pub(crate) Grant);

impl<T: DeserializeOwned> FromRequest<Arc<Shared>> for Json<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Refused> {
        if !is_json(request.headers()) {
            return Err(Error::new(ErrorCode::UnsupportedMediaType, "the body must be JSON")
                .hint("send the header `content-type: application/json`")
                .context(json!({"header": "content-type"}))
                .into());
        }
        let mut grant = Grant::new(Arc::clone(&shared.budget));
        let bytes = read(request.into_body(), &mut grant).await?;
        Ok(Self(parse(&bytes)?, grant))
    }
}

/// A request that says nothing beside its path: no query, and no body or an empty object.
#[derive(Debug)]
pub(crate) struct Bare;

/// What such a body may be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

impl FromRequest<Arc<Shared>> for Bare {
    type Rejection = Refused;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Refused> {
        let (mut parts, body) = request.into_parts();
        Query::from_request_parts(&mut parts, shared).await?.none("this route takes no query")?;
        let mut grant = Grant::new(Arc::clone(&shared.budget));
        let bytes = read(body, &mut grant).await?;
        if !bytes.trim_ascii().is_empty() {
            let Empty {} = parse(&bytes)?;
        }
        Ok(Self)
    }
}

/// Whether the content type is JSON, with or without a character set.
fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads a body within its bounds. Small ones are not counted: they are gone before the next one is read.
async fn read(mut body: Body, grant: &mut Grant) -> Result<Bytes, Error> {
    let collect = async {
        let mut bytes = BytesMut::new();
        if HttpBody::size_hint(&body).lower() > JSON_BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                Error::new(ErrorCode::InvalidRequest, "the body was cut short")
                    .hint("send as many bytes as `content-length` says")
                    .source(error)
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let length = bytes.len() + data.len();
            if length > JSON_BODY_BYTES_MAX {
                return Err(too_large());
            }
            // Twice: as it came, and as what it means.
            if length > BODY_BYTES_FREE && !grant.cover(2 * length) {
                return Err(Error::new(ErrorCode::CapacityExhausted, "too many large requests at once")
                    .hint("wait for the answers to some of them"));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    };
    match tokio::time::timeout(Duration::from_secs(JSON_BODY_TIMEOUT_S), collect).await {
        Ok(Err(refusal)) => {
            // A client that is still sending would see a broken connection in place of the reason.
            let drain = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = tokio::time::timeout(BODY_DRAIN, drain).await;
            Err(refusal)
        }
        Ok(collected) => collected,
        Err(_) => Err(Error::new(ErrorCode::InvalidRequest, "the body took too long to arrive")
            .hint("send the body within 30 seconds")),
    }
}

fn too_large() -> Error {
    Error::new(ErrorCode::BodyTooLarge, "the body is too large")
        .hint("a JSON body may have 8 MiB; give larger input in pieces or through an attachment")
        .context(json!({"bytes_max": JSON_BODY_BYTES_MAX}))
}

/// Parses JSON strictly; the error names the field and the place, and never the value: a credential in the wrong field
/// would go into the log with it.
///
/// The first pass is the fast one. Only a body that it refuses is read again, by a parser that keeps the path
/// to the field. serde_json stops at a depth of 128, and no body of ours nests deeper than three.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    if bytes.trim_ascii_start().first().is_some_and(|&byte| byte != b'{') {
        // serde would take an array as the fields in their order.
        return Err(Error::new(ErrorCode::InvalidRequest, "the body must be a JSON object")
            .hint("write {…}; GET /v1/openapi.json describes every body"));
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let (path, cause) = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => (String::new(), "there is something after the JSON value".to_owned()),
        Err(error) => (error.path().to_string(), without_value(error.inner())),
    };
    let error =
        Error::new(ErrorCode::InvalidRequest, format!("the body is not what this route takes: {cause}"))
            .hint("GET /v1/openapi.json describes every body");
    Err(if path.is_empty() || path == "." { error } else { error.context(json!({"field": path})) })
}

/// What serde says, but for the value that it says it of. Names of fields stay.
fn without_value(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if !error.is_data()
        || ["missing field", "unknown field", "duplicate field"].iter().any(|one| text.starts_with(one))
    {
        return text;
    }
    // "invalid type: string "…", expected …", "unknown variant `…`, expected …", each with the place behind.
    let kind = text.split(['"', '`', ',']).next().unwrap_or_default().trim_end();
    match text.rfind(", expected ") {
        Some(at) => format!("{kind}{}", &text[at..]),
        None => format!("invalid value at line {} column {}", error.line(), error.column()),
    }
}

/// A sandbox's id in the path.
#[derive(Debug)]
pub(crate) struct IdInPath(pub(crate) SandboxId);

impl<S: Send + Sync> FromRequestParts<S> for IdInPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let SandboxPath { id } = from_path(parts, state).await?;
        Ok(Self(super::border::sandbox_id(&id)?))
    }
}

#[derive(Deserialize)]
struct SandboxPath {
    id: String,
}

/// A snapshot's id in the path.
#[derive(Debug)]
pub(crate) struct SnapshotInPath(pub(crate) SnapshotId);

impl<S: Send + Sync> FromRequestParts<S> for SnapshotInPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let SandboxPath { id } = from_path(parts, state).await?;
        Ok(Self(super::border::snapshot_id(&id)?))
    }
}

/// A sandbox's id and one of its ports in the path.
#[derive(Debug)]
pub(crate) struct PortInPath {
    pub(crate) sandbox: SandboxId,
    pub(crate) port: u16,
}

impl<S: Send + Sync> FromRequestParts<S> for PortInPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let PortPath { id, port } = from_path(parts, state).await?;
        Ok(Self { sandbox: super::border::sandbox_id(&id)?, port: super::border_ports::port(&port)? })
    }
}

#[derive(Deserialize)]
struct PortPath {
    id: String,
    port: String,
}

/// A sandbox's and a command's id in the path.
#[derive(Debug)]
pub(crate) struct CommandInPath {
    pub(crate) sandbox: SandboxId,
    pub(crate) command: String,
}

impl<S: Send + Sync> FromRequestParts<S> for CommandInPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let CommandPath { id, command } = from_path(parts, state).await?;
        Ok(Self { sandbox: super::border::sandbox_id(&id)?, command })
    }
}

#[derive(Deserialize)]
struct CommandPath {
    id: String,
    command: String,
}

/// A sandbox's and a process's id in the path.
#[derive(Debug)]
pub(crate) struct ProcessInPath {
    pub(crate) sandbox: SandboxId,
    pub(crate) process: String,
}

impl<S: Send + Sync> FromRequestParts<S> for ProcessInPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let ProcessPath { id, process } = from_path(parts, state).await?;
        Ok(Self { sandbox: super::border::sandbox_id(&id)?, process })
    }
}

#[derive(Deserialize)]
struct ProcessPath {
    id: String,
    process: String,
}

/// A sandbox's id and the name of something in it in the path.
#[derive(Debug)]
pub(crate) struct ItemInPath {
    pub(crate) sandbox: SandboxId,
    pub(crate) item: String,
}

impl<S: Send + Sync> FromRequestParts<S> for ItemInPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let (id, item): (String, String) = from_path(parts, state).await?;
        Ok(Self { sandbox: super::border::sandbox_id(&id)?, item })
    }
}

/// A sandbox's id, the name of a context and that of a run of it in the path.
#[derive(Debug)]
pub(crate) struct RunInPath {
    pub(crate) sandbox: SandboxId,
    pub(crate) context: String,
    pub(crate) run: String,
}

impl<S: Send + Sync> FromRequestParts<S> for RunInPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let (id, context, run): (String, String, String) = from_path(parts, state).await?;
        Ok(Self { sandbox: super::border::sandbox_id(&id)?, context, run })
    }
}

/// An image's reference or digest in the path, percent-encoded.
#[derive(Debug)]
pub(crate) struct ReferenceInPath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for ReferenceInPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let ReferencePath { reference } = from_path(parts, state).await?;
        super::border::reference("reference", &reference)?;
        Ok(Self(reference))
    }
}

#[derive(Deserialize)]
struct ReferencePath {
    reference: String,
}

async fn from_path<S: Send + Sync, T: DeserializeOwned + Send>(
    parts: &mut Parts,
    state: &S,
) -> Result<T, Refused> {
    match Path::<T>::from_request_parts(parts, state).await {
        Ok(Path(path)) => Ok(path),
        Err(rejection) if rejection.status() == StatusCode::INTERNAL_SERVER_ERROR => {
            Err(Error::internal("cannot read the path", rejection).into())
        }
        Err(rejection) => Err(Error::new(ErrorCode::InvalidRequest, "the path is not valid")
            .hint("percent-encode names in the path as UTF-8")
            .source(rejection)
            .into()),
    }
}

/// The pairs of a query. Every route names the keys that it knows and refuses others.
#[derive(Debug)]
pub(crate) struct Query(pub(crate) Vec<(String, String)>);

#[cfg(test)]
impl Query {
    /// One of these pairs.
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(pairs)) => Ok(Self(pairs)),
            Err(rejection) => Err(Error::new(ErrorCode::InvalidRequest, "the query is not valid")
                .hint("percent-encode keys and values as UTF-8")
                .source(rejection)
                .into()),
        }
    }
}

impl Query {
    /// The only parameter of a route, which is `true`, `false` or absent.
    pub(crate) fn flag(self, name: &str, known: &'static str) -> Result<bool, Error> {
        let mut flag = false;
        for (key, value) in self.0 {
            flag = match (key == name, value.as_str()) {
                (true, "true") => true,
                (true, "false") => false,
                (true, _) => {
                    return Err(Error::new(ErrorCode::InvalidRequest, format!("{key} is true or false"))
                        .hint(format!("write ?{key}=true"))
                        .context(json!({"field": key})));
                }
                (false, _) => return Err(Self::unknown(&key, known)),
            };
        }
        Ok(flag)
    }

    /// Refuses every parameter.
    pub(crate) fn none(self, known: &'static str) -> Result<(), Error> {
        self.0.first().map_or(Ok(()), |(key, _)| Err(Self::unknown(key, known)))
    }

    /// The error for a key that the route does not know.
    pub(crate) fn unknown(key: &str, known: &'static str) -> Error {
        Error::new(ErrorCode::InvalidRequest, format!("unknown query parameter {key:?}"))
            .hint(known)
            .context(json!({"field": key}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::schema::{CreateSandbox, RunCommand};

    #[test]
    fn a_bad_body_is_refused_with_the_field_that_is_wrong() {
        for (body, field, says) in [
            (r#"{"imag":"host"}"#, Some("imag"), "unknown field `imag`"),
            (r#"{"resources":{"memory":1}}"#, Some("resources.memory"), "unknown field `memory`"),
            (r#"{"resources":{"memory_bytes":"1g"}}"#, Some("resources.memory_bytes"), "invalid type"),
            (r#"{"resources":{"pids":-1}}"#, Some("resources.pids"), "invalid value"),
            (r#"{"resources":{"pids":1e40}}"#, Some("resources.pids"), "invalid type"),
            (r#"{"env":{"A":1}}"#, Some("env.A"), "invalid type"),
            (r#"{"env":{"A":"1","A":"2"}}"#, Some("env"), "duplicate field `A`"),
            (r#"{"image":"a","image":"b"}"#, None, "duplicate field `image`"),
            (r#"{"profile":"none"}"#, Some("profile"), "unknown variant"),
            (r#"{"image":"host"} {}"#, None, "after the JSON value"),
            (r#"{"image":"ho"#, Some("image"), "EOF"),
            (r#"{"resources":[]}"#, Some("resources"), "invalid type"),
            ("[]", None, "object"),
            ("", None, "EOF"),
            ("null", None, "object"),
            ("\"\\ud800\"", None, "object"),
        ] {
            let error = parse::<CreateSandbox>(body.as_bytes()).expect_err(body);
            assert_eq!(error.code, ErrorCode::InvalidRequest, "{body}");
            let found = error.context.as_ref().and_then(|context| context["field"].as_str());
            if field.is_some() {
                assert_eq!(found, field, "{body}: {error}");
            }
            assert!(error.message.contains(says), "{body}: {error}");
        }
    }

    #[test]
    fn a_value_in_the_wrong_place_is_not_repeated() {
        let secret = r#"s3cr3t, expected \"to stay\" `here`"#;
        for (field, says) in [
            ("\"profile\":\"SECRET\"", "unknown variant, expected"),
            (
                "\"network\":{\"hosts\":[{\"host\":\"a\",\"header\":\"SECRET\"}]}",
                "invalid type: string, expected",
            ),
            ("\"network\":{\"limits\":{\"connections\":\"SECRET\"}}", "invalid type: string, expected u32"),
            ("\"resources\":{\"pids\":-7777}", "invalid value: integer, expected"),
        ] {
            let body = format!("{{{}}}", field.replace("SECRET", secret));
            let error = parse::<CreateSandbox>(body.as_bytes()).expect_err(&body);
            let text = format!("{error} {:?}", error.context);
            assert!(text.contains(says) && text.contains(" at line 1 column "), "{text}");
            assert!(!["s3cr3t", "to stay", "here", "7777"].iter().any(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn a_deep_body_does_not_reach_the_stack() {
        let deep = format!(r#"{{"argv":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse::<RunCommand>(deep.as_bytes()).is_err());
        let unknown = format!(r#"{{"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse::<RunCommand>(unknown.as_bytes()).is_err());
    }

    #[test]
    fn only_json_is_json() {
        for (value, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/jsonx", false),
            ("text/plain", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().expect("header"));
            assert_eq!(is_json(&headers), json, "{value:?}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
