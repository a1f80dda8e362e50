//! Who may connect, how a connection ends, and how the daemon does.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Daemon;

#[tokio::test]
async fn a_caller_from_a_sandbox_is_told_off_and_cut_off() {
    let ourselves = rustix::process::getuid().as_raw();
    let daemon = Daemon::start(ourselves..ourselves + 1).await;
    let mut stream = daemon.connect().await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answer, then the end");
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert_eq!(serde_json::from_str::<Value>(body).expect("JSON")["code"], "PERMISSION_DENIED");
}

#[tokio::test]
async fn a_client_that_leaves_before_its_sandbox_is_there_leaves_no_sandbox() {
    let daemon = Daemon::start(0..0).await;
    for body in ["{}", r#"{"id":"named"}"#] {
        let mut stream = daemon.connect().await;
        let head = "POST /v1/sandboxes HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.expect("send");
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(stream);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_, list) = daemon.call("GET", "/v1/sandboxes", None).await;
    let ids: Vec<&Value> = list["sandboxes"].as_array().expect("list").iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, ["named"], "the one whose id the client knows can be asked for again");
}

#[tokio::test]
async fn a_request_that_runs_is_finished_before_the_daemon_ends() {
    let mut daemon = Daemon::start(0..0).await;
    daemon.sandbox("a").await;
    let mut idle = daemon.connect().await;
    let stop = daemon.stop.take().expect("runs");
    let (result, ()) = tokio::join!(daemon.shell("a", "sleep 0.5; echo done", ""), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stop.send(()).expect("listens");
    });
    assert_eq!((result.0, result.1["stdout"].as_str()), (StatusCode::OK, Some("done\n")));
    let ended = tokio::time::timeout(Duration::from_secs(5), &mut daemon.served).await;
    ended.expect("in time").expect("no panic").expect("no error");
    assert_eq!(
        idle.read(&mut [0; 1]).await.expect("closed"),
        0,
        "an idle connection does not hold the daemon up"
    );
    assert!(tokio::net::UnixStream::connect(&daemon.socket).await.is_err());
}
