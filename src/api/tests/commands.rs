//! Output byte for byte, input without standstill, and nothing that outlives its request.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Daemon, until};

fn is_alive(pid: i64) -> bool {
    std::path::Path::new(&format!("/proc/{pid}/stat")).exists()
}

#[tokio::test]
async fn a_sandbox_goes_from_created_to_gone() {
    let daemon = Daemon::start(0..0).await;
    let wanted = r#"{"id":"a","labels":{"k":"v"}}"#;
    let (status, made) = daemon.call("POST", "/v1/sandboxes", Some(wanted)).await;
    assert_eq!((status, made["id"].as_str()), (StatusCode::CREATED, Some("a")));
    let (status, again) = daemon.call("POST", "/v1/sandboxes", Some(wanted)).await;
    assert_eq!((status, &again["created_at"]), (StatusCode::OK, &made["created_at"]));
    for (label, found) in [("k=v", 1), ("k", 1), ("k=w", 0), ("j", 0)] {
        let (_, list) = daemon.call("GET", &format!("/v1/sandboxes?label={label}"), None).await;
        assert_eq!(list["sandboxes"].as_array().expect("list").len(), found, "{label}");
    }
    assert_eq!(daemon.call("DELETE", "/v1/sandboxes/a", None).await.0, StatusCode::NO_CONTENT);
    assert_eq!(daemon.call("GET", "/v1/sandboxes/a", None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_result_is_exact() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    for (script, expected) in [
        ("printf x; printf y >&2; exit 3", json!({"stdout": "x", "stderr": "y", "exit_code": 3})),
        ("printf 'a\\0\\377'", json!({"stdout": "YQD/", "stdout_encoding": "base64"})),
        ("printf 'a\\0\\303\\244'", json!({"stdout": "a\0ä", "stdout_encoding": "utf-8"})),
        ("kill -KILL $$", json!({"exit_code": 137, "signal": "SIGKILL", "timed_out": false})),
        ("cat", json!({"stdout": "", "exit_code": 0})),
        ("sleep 1000 & echo started", json!({"stdout": "started\n", "exit_code": 0})),
    ] {
        let (status, result) = daemon.shell("a", script, "").await;
        assert_eq!(status, StatusCode::OK, "{script}: {result}");
        for (field, value) in expected.as_object().expect("object") {
            assert_eq!(&result[field], value, "{script}: {field}");
        }
    }
}

#[tokio::test]
async fn input_and_output_larger_than_any_pipe_do_not_wait_for_each_other() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let input = "0123456789abcdef".repeat(100_000);
    let (_, result) = daemon.shell("a", "cat", &format!(r#","stdin":"{input}""#)).await;
    assert!(result["stdout"] == *input, "cat gives back what it was given");
    let (_, unread) = daemon.shell("a", "exit 7", &format!(r#","stdin":"{input}""#)).await;
    assert_eq!(unread["exit_code"], 7, "input that nobody reads is no failure");
}

#[tokio::test]
async fn output_beyond_the_bound_is_read_and_dropped() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let script = "head -c 3000000 /dev/zero | tr '\\0' a; echo end >&2";
    let (_, result) = daemon.shell("a", script, r#","output_bytes_max":10"#).await;
    assert_eq!(result["stdout"], "aaaaaaaaaa");
    assert_eq!(result["truncated"], json!({"stdout": true, "stderr": false}));
    assert_eq!((&result["stderr"], &result["exit_code"]), (&json!("end\n"), &json!(0)));
}

#[tokio::test]
async fn a_timeout_ends_everything_that_was_started() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let began = Instant::now();
    let (_, result) = daemon.shell("a", "sleep 1000 & echo $!; wait", r#","timeout_ms":300"#).await;
    assert_eq!((&result["timed_out"], &result["exit_code"]), (&json!(true), &json!(137)));
    assert!(began.elapsed() < Duration::from_secs(5));
    let pid = result["stdout"].as_str().expect("text").trim().parse().expect("pid");
    until("the child is gone", || !is_alive(pid)).await;
}

#[tokio::test]
async fn a_pipe_that_somebody_else_holds_does_not_hold_up_the_result() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let began = Instant::now();
    // The twin kills process groups; a real agent would have to be cheated by passing the descriptor on.
    let (_, result) = daemon.shell("a", "setsid sleep 8 & echo x", "").await;
    assert_eq!((&result["stdout"], &result["exit_code"]), (&json!("x\n"), &json!(0)));
    assert!(began.elapsed() < Duration::from_secs(4), "the result waited for the orphan");
}

/// Reads one event: its name and data.
async fn event(body: &mut hyper::body::Incoming, text: &mut String) -> (String, Value) {
    loop {
        if let Some((block, rest)) = text.split_once("\n\n") {
            let field = |wanted: &str| {
                block.lines().find_map(|line| line.strip_prefix(wanted)).unwrap_or_default().to_owned()
            };
            let event = (field("event: "), serde_json::from_str(&field("data: ")).unwrap_or_default());
            *text = rest.to_owned();
            return event;
        }
        let frame = body.frame().await.expect("more").expect("frame");
        text.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("text"));
    }
}

async fn stream(daemon: &Daemon, script: &str) -> hyper::body::Incoming {
    stream_of(daemon, &json!({"shell": script})).await
}

async fn stream_of(daemon: &Daemon, command: &Value) -> hyper::body::Incoming {
    let request = Request::post("/v1/sandboxes/a/commands")
        .header("host", "x")
        .header("content-type", "application/json")
        .header("accept", "text/event-stream")
        .body(Full::from(command.to_string()))
        .expect("request");
    let response = daemon.send(request).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert!(response.headers().contains_key("x-command-id"));
    response.into_body()
}

#[tokio::test]
async fn a_stream_tells_start_output_and_end() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let mut body = stream(&daemon, "echo x; sleep 0.2; echo y >&2; exit 3").await;
    let mut text = String::new();
    assert_eq!(event(&mut body, &mut text).await.0, "started");
    let output = event(&mut body, &mut text).await;
    assert_eq!(output, ("stdout".to_owned(), json!({"data": "x\n", "encoding": "utf-8"})));
    let output = event(&mut body, &mut text).await;
    assert_eq!(output, ("stderr".to_owned(), json!({"data": "y\n", "encoding": "utf-8"})));
    let (name, end) = event(&mut body, &mut text).await;
    assert_eq!((name.as_str(), &end["exit_code"], &end["stdout"]), ("exit", &json!(3), &Value::Null));
    assert!(body.frame().await.is_none(), "nothing comes after the end");
}

#[tokio::test]
async fn a_command_dies_with_the_connection_of_its_reader() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let mut body = stream(&daemon, "sleep 1000").await;
    let (_, started) = event(&mut body, &mut String::new()).await;
    let pid = started["pid"].as_i64().expect("pid");
    assert!(is_alive(pid));
    drop(body);
    until("the command is gone", || !is_alive(pid)).await;
    let (_, list) = daemon.call("GET", "/v1/sandboxes/a/commands", None).await;
    assert_eq!(list["commands"], json!([]));
}

#[tokio::test]
async fn a_timeout_does_not_wait_for_a_reader_that_stands_still() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let mut body = stream_of(&daemon, &json!({"argv": ["yes"], "timeout_ms": 300})).await;
    let (_, started) = event(&mut body, &mut String::new()).await;
    let pid = started["pid"].as_i64().expect("pid");
    until("the command is gone, although nobody reads", || !is_alive(pid)).await;
}

#[tokio::test]
async fn a_signal_reaches_a_command_by_its_id() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let mut body = stream(&daemon, "exec sleep 1000").await;
    let mut text = String::new();
    let (_, started) = event(&mut body, &mut text).await;
    let path = format!("/v1/sandboxes/a/commands/{}/signal", started["id"].as_str().expect("id"));
    let (_, list) = daemon.call("GET", "/v1/sandboxes/a/commands", None).await;
    assert_eq!(list["commands"][0]["id"], started["id"]);
    assert_eq!(daemon.call("POST", &path, Some(r#"{"signal":15}"#)).await.0, StatusCode::NO_CONTENT);
    let (name, end) = event(&mut body, &mut text).await;
    assert_eq!((name.as_str(), &end["signal"]), ("exit", &json!("SIGTERM")));
    assert_eq!(daemon.call("POST", &path, Some(r#"{"signal":15}"#)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_reader_that_stands_still_stops_the_command_and_costs_no_memory() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let mut body = stream(&daemon, "exec head -c 10000000 /dev/zero").await;
    let mut text = String::new();
    let (_, started) = event(&mut body, &mut text).await;
    let pid = started["pid"].as_i64().expect("pid");
    let written = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("io");
        let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("wchar").to_owned();
        line.parse::<u64>().expect("number")
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = written();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(written(), before, "the command waits");
    assert!(before < 2_000_000, "{before} bytes were taken for a reader that takes none");
    while event(&mut body, &mut text).await.0 != "exit" {}
}

#[tokio::test]
async fn an_attachment_carries_input_output_and_signals() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let attach = async || {
        let url = "ws://stockade/v1/sandboxes/a/commands/attach";
        tokio_tungstenite::client_async(url, daemon.connect().await).await.expect("attach").0
    };
    let mut socket = attach().await;
    socket
        .send(Message::text(r#"{"shell":"cat; sleep 0.3; echo end >&2; kill -TERM $$"}"#))
        .await
        .expect("send");
    let started = socket.next().await.expect("frame").expect("frame").into_text().expect("text");
    assert_eq!(serde_json::from_str::<Value>(&started).expect("JSON")["event"], "started");
    socket.send(Message::binary(b"\0hello".as_slice())).await.expect("send");
    socket.send(Message::binary(b"\0".as_slice())).await.expect("send");
    assert_eq!(socket.next().await.expect("frame").expect("frame"), Message::binary(b"\x01hello".as_slice()));
    assert_eq!(socket.next().await.expect("frame").expect("frame"), Message::binary(b"\x02end\n".as_slice()));
    let last = socket.next().await.expect("frame").expect("frame").into_text().expect("text");
    let last: Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!((&last["event"], &last["exit_code"]), (&json!("exit"), &json!(143)));

    let mut socket = attach().await;
    socket.send(Message::text(r#"{"argv":["sleep","1000"]}"#)).await.expect("send");
    socket.next().await.expect("frame").expect("started");
    socket.send(Message::text(r#"{"signal":"SIGINT"}"#)).await.expect("send");
    let last = socket.next().await.expect("frame").expect("frame").into_text().expect("text");
    assert_eq!(serde_json::from_str::<Value>(&last).expect("JSON")["signal"], "SIGINT");

    let mut socket = attach().await;
    socket.send(Message::text(r#"{"argv":["a"],"stdin":"x"}"#)).await.expect("send");
    let last = socket.next().await.expect("frame").expect("frame").into_text().expect("text");
    let last: Value = serde_json::from_str(&last).expect("JSON");
    assert_eq!((&last["event"], &last["code"]), (&json!("error"), &json!("INVALID_REQUEST")));
}

#[tokio::test]
async fn an_attachment_that_is_left_takes_command_and_sandbox_with_it() {
    let daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let url = "ws://stockade/v1/sandboxes/a/commands/attach?destroy=true";
    let (mut socket, _) = tokio_tungstenite::client_async(url, daemon.connect().await).await.expect("attach");
    socket.send(Message::text(r#"{"argv":["sleep","1000"]}"#)).await.expect("send");
    let started = socket.next().await.expect("frame").expect("frame").into_text().expect("text");
    let pid = serde_json::from_str::<Value>(&started).expect("JSON")["pid"].as_i64().expect("pid");
    assert!(is_alive(pid));
    drop(socket);
    until("the command is gone", || !is_alive(pid)).await;
    for _ in 0..200 {
        if daemon.call("GET", "/v1/sandboxes/a", None).await.0 == StatusCode::NOT_FOUND {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the sandbox stayed");
}
