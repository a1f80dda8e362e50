//! Requests that must be refused, each with its status and code, and leave nothing behind.

use http_body_util::Full;
use hyper::{Request, StatusCode};
use serde_json::json;

use super::{Daemon, answer};

/// Method, path, body; status and code.
type Refused = (&'static str, &'static str, Option<&'static str>, u16, &'static str);

const REFUSED: &[Refused] = &[
    ("GET", "/", None, 404, "ROUTE_NOT_FOUND"),
    ("GET", "/v1/sandboxes/", None, 404, "ROUTE_NOT_FOUND"),
    ("GET", "/v2/info", None, 404, "ROUTE_NOT_FOUND"),
    ("PUT", "/v1/sandboxes", None, 405, "METHOD_NOT_ALLOWED"),
    ("DELETE", "/v1/info", None, 405, "METHOD_NOT_ALLOWED"),
    ("POST", "/v1/sandboxes", None, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ("POST", "/v1/sandboxes", Some(""), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes", Some("{"), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes", Some("[]"), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes", Some(r#"{"im":"host"}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes", Some(r#"{"image":7}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes", Some(r#"{"id":"A"}"#), 400, "INVALID_ID"),
    ("POST", "/v1/sandboxes", Some(r#"{"id":"admin"}"#), 400, "INVALID_ID"),
    ("POST", "/v1/sandboxes", Some(r#"{"image":""}"#), 400, "INVALID_REFERENCE"),
    ("POST", "/v1/sandboxes", Some(r#"{"image":"not/here:1"}"#), 404, "IMAGE_NOT_FOUND"),
    ("POST", "/v1/sandboxes", Some(r#"{"env":{"A":"\u0000"}}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes", Some(r#"{"cwd":"x"}"#), 422, "INVALID_CWD"),
    ("POST", "/v1/sandboxes", Some(r#"{"cwd":"/a/../../b"}"#), 422, "INVALID_CWD"),
    ("POST", "/v1/sandboxes", Some(r#"{"user":""}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes", Some(r#"{"user":"65536"}"#), 422, "USER_NOT_FOUND"),
    ("POST", "/v1/sandboxes", Some(r#"{"hostname":"a b"}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes", Some(r#"{"resources":{"memory_bytes":1e30}}"#), 400, "INVALID_REQUEST"),
    (
        "POST",
        "/v1/sandboxes",
        Some(r#"{"resources":{"memory_bytes":1125899906842625}}"#),
        400,
        "INVALID_REQUEST",
    ),
    ("POST", "/v1/sandboxes", Some(r#"{"resources":{"cpus":-1}}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes", Some(r#"{"resources":{"pids":100}}"#), 422, "LIMIT_UNSUPPORTED"),
    ("POST", "/v1/sandboxes", Some(r#"{"id":"here","hostname":"b"}"#), 409, "SANDBOX_CONFLICT"),
    ("GET", "/v1/sandboxes?labels=a", None, 400, "INVALID_REQUEST"),
    ("GET", "/v1/sandboxes/%ff", None, 400, "INVALID_REQUEST"),
    ("GET", "/v1/sandboxes/a%00b", None, 400, "INVALID_ID"),
    ("GET", "/v1/sandboxes/..%2f..", None, 400, "INVALID_ID"),
    ("GET", "/v1/sandboxes/nobody", None, 404, "SANDBOX_NOT_FOUND"),
    ("DELETE", "/v1/sandboxes/nobody", None, 404, "SANDBOX_NOT_FOUND"),
    ("POST", "/v1/sandboxes/here/commands", Some("{}"), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes/here/commands", Some(r#"{"argv":[]}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes/here/commands", Some(r#"{"argv":"ls"}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes/here/commands", Some(r#"{"argv":["a\u0000"]}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes/here/commands", Some(r#"{"argv":["a"],"timeout_ms":0}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes/here/commands", Some(r#"{"argv":["a"],"cwd":"b"}"#), 422, "INVALID_CWD"),
    ("POST", "/v1/sandboxes/here/commands", Some(r#"{"argv":["/not/there"]}"#), 422, "COMMAND_NOT_IN_IMAGE"),
    (
        "POST",
        "/v1/sandboxes/here/commands",
        Some(r#"{"argv":["/etc/passwd"]}"#),
        422,
        "COMMAND_NOT_EXECUTABLE",
    ),
    ("POST", "/v1/sandboxes/nobody/commands", Some(r#"{"argv":["a"]}"#), 404, "SANDBOX_NOT_FOUND"),
    ("POST", "/v1/sandboxes/here/commands/c9/signal", Some(r#"{"signal":"TERM"}"#), 404, "COMMAND_NOT_FOUND"),
    ("POST", "/v1/sandboxes/here/commands/c9/signal", Some(r#"{"signal":"SIGNOT"}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/sandboxes/here/commands/c9/signal", Some(r#"{"signal":0}"#), 400, "INVALID_REQUEST"),
    ("GET", "/v1/sandboxes/here/commands/attach", None, 400, "INVALID_REQUEST"),
    ("GET", "/v1/images/a%2Fb%00", None, 400, "INVALID_REFERENCE"),
    ("GET", "/v1/images/not%2Fhere", None, 404, "IMAGE_NOT_FOUND"),
    ("POST", "/v1/images/pull", Some(r#"{"reference":""}"#), 400, "INVALID_REFERENCE"),
    ("POST", "/v1/images/pull", Some(r#"{"reference":"a/UPPER"}"#), 400, "INVALID_REFERENCE"),
    ("POST", "/v1/images/pull", Some(r#"{"reference":"a","username":"b"}"#), 400, "INVALID_REQUEST"),
    ("POST", "/v1/images/pull", Some(r#"{"reference":"host"}"#), 400, "INVALID_REFERENCE"),
    ("POST", "/v1/images/import?reference=host", Some(""), 400, "INVALID_REFERENCE"),
    ("POST", "/v1/images/import?name=a", Some(""), 400, "INVALID_REQUEST"),
];

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_status_and_code() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("here").await;
    for &(method, path, body, status, code) in REFUSED {
        let (found, answer) = daemon.call(method, path, body).await;
        assert_eq!(
            (found.as_u16(), answer["code"].as_str()),
            (status, Some(code)),
            "{method} {path} {body:?}: {answer}"
        );
        assert!(answer["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "no hint: {answer}");
    }
    for (path, field) in [("/v1/sandboxes", "env"), ("/v1/sandboxes/here/commands", "argv")] {
        let long = "x".repeat(130_000);
        let value = if field == "env" { json!({"A": long}) } else { json!(["a", long]) };
        let (status, error) = daemon.call("POST", path, Some(&json!({field: value}).to_string())).await;
        assert_eq!((status.as_u16(), error["code"].as_str()), (400, Some("INVALID_REQUEST")), "{field}");
    }
    let (_, list) = daemon.call("GET", "/v1/sandboxes", None).await;
    assert_eq!(
        list["sandboxes"].as_array().expect("list").len(),
        1,
        "refused requests left something: {list}"
    );
}

#[tokio::test]
async fn a_body_is_bounded_whether_or_not_it_says_how_long_it_is() {
    let daemon = Daemon::start(0..0).await;
    let body = vec![b' '; crate::limits::JSON_BODY_BYTES_MAX + 1];
    let request =
        || Request::post("/v1/sandboxes").header("host", "x").header("content-type", "application/json");
    let announced = request().body(Full::from(body.clone())).expect("request");
    let (status, error) = answer(daemon.send(announced).await).await;
    assert_eq!((status, error["code"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("BODY_TOO_LARGE")));
    let chunked = request().header("transfer-encoding", "chunked").body(Full::from(body)).expect("request");
    let (status, error) = answer(daemon.send(chunked).await).await;
    assert_eq!((status, error["code"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("BODY_TOO_LARGE")));
}

#[tokio::test]
async fn destroying_a_sandbox_ends_its_creation() {
    let daemon = Daemon::start(0..0).await;
    // Its agent never answers when the user is tried.
    let body = r#"{"id":"slow","user":"1","cwd":"/silence"}"#;
    let create = daemon.call("POST", "/v1/sandboxes", Some(body));
    let destroy = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let began = std::time::Instant::now();
        let (status, _) = daemon.call("DELETE", "/v1/sandboxes/slow", None).await;
        (status, began.elapsed())
    };
    let ((created, refusal), (destroyed, took)) = tokio::join!(create, destroy);
    assert_eq!(destroyed, StatusCode::NO_CONTENT);
    assert!(took.as_secs() < 2, "{took:?}");
    assert_eq!((created.as_u16(), refusal["code"].as_str()), (409, Some("SANDBOX_BUSY")));
    assert_eq!(daemon.call("DELETE", "/v1/sandboxes/slow", None).await.0, StatusCode::NOT_FOUND);
}
