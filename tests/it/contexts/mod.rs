//! Contexts: code whose state stays, what it writes and shows, and what ends it.

mod bash;
mod charts;
mod command_line;
mod data;
mod detached;
mod hostile;
mod interrupts;
mod lasting;
mod left;
mod loops;
mod magics;
mod node;
mod pictures;
mod python;
mod streams;
mod styles;
mod trouble;

use serde_json::{Value, json};

use crate::harness::http::{Connection, Event, Response};
use crate::harness::{Daemon, id};

/// Runs code in a context, whatever comes of it.
#[track_caller]
pub(crate) fn try_code(daemon: &Daemon, sandbox: &str, context: &str, body: &Value) -> Response {
    daemon.request("POST", &format!("/v1/sandboxes/{sandbox}/contexts/{context}/runs"), Some(body))
}

/// Runs code with options in a context and gives what came of it.
#[track_caller]
pub(crate) fn code_with(daemon: &Daemon, sandbox: &str, context: &str, body: &Value) -> Value {
    let answer = try_code(daemon, sandbox, context, body);
    assert_eq!(answer.status, 200, "{body}: {}\n{}", String::from_utf8_lossy(&answer.body), daemon.log());
    answer.json()
}

/// Runs code in a context and gives what came of it.
#[track_caller]
pub(crate) fn code(daemon: &Daemon, sandbox: &str, context: &str, text: &str) -> Value {
    code_with(daemon, sandbox, context, &json!({"code": text}))
}

/// The text of the value of a cell.
pub(crate) fn text(result: &Value) -> Option<&str> {
    let results = result["results"].as_array()?;
    results.iter().find(|shown| shown["main"] == true)?["data"]["text/plain"].as_str()
}

/// Makes a context and gives its name.
#[track_caller]
pub(crate) fn create(daemon: &Daemon, sandbox: &str, body: &Value) -> String {
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{sandbox}/contexts"), Some(body));
    assert_eq!(answer.status, 201, "{body}: {}\n{}", String::from_utf8_lossy(&answer.body), daemon.log());
    id(&answer.json())
}

/// Asks something of a context that answers 204.
#[track_caller]
pub(crate) fn ask(daemon: &Daemon, sandbox: &str, context: &str, what: &str, body: Option<&Value>) {
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{sandbox}/contexts/{context}/{what}"), body);
    assert_eq!(answer.status, 204, "{what}: {}", String::from_utf8_lossy(&answer.body));
}

/// Starts code whose events are read one by one.
#[track_caller]
pub(crate) fn start(daemon: &Daemon, sandbox: &str, context: &str, body: &Value) -> Connection {
    let mut connection = daemon.connect();
    let headers = [("Content-Type", "application/json"), ("Accept", "text/event-stream")];
    let path = format!("/v1/sandboxes/{sandbox}/contexts/{context}/runs");
    connection.send("POST", &path, &headers, body.to_string().as_bytes()).unwrap();
    connection
}

/// Reads events until one of this name, which it gives with those before it.
#[track_caller]
pub(crate) fn events_until(
    connection: &mut Connection,
    last: &str,
    mut each: impl FnMut(&Event),
) -> Vec<Event> {
    let head = connection.receive_head().unwrap();
    assert_eq!(head.status, 200);
    let mut body = connection.body(&head);
    let mut events = Vec::new();
    while let Some(event) = body.next_event().unwrap() {
        each(&event);
        let found = event.name == last;
        events.push(event);
        if found {
            return events;
        }
    }
    panic!("no {last}: {events:?}");
}

/// The data of an event.
pub(crate) fn data(event: &Event) -> Value {
    serde_json::from_str(&event.data).unwrap()
}

/// Whether the next cell finds a context that works.
#[track_caller]
pub(crate) fn works(daemon: &Daemon, sandbox: &str, context: &str) -> Value {
    let result = code(daemon, sandbox, context, "1+1");
    assert_eq!(text(&result), Some("2"), "{result}");
    assert_eq!((&result["stdout"], &result["stderr"]), (&json!(""), &json!("")), "{result}");
    result
}
