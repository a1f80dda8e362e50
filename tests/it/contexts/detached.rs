//! Runs that go on without their client, and what came of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{code, data, events_until, start, text, try_code};
use crate::harness::{Daemon, assert_error};

/// Starts a run that goes on alone and gives its name.
#[track_caller]
fn detach(daemon: &Daemon, sandbox: &str, context: &str, text: &str) -> String {
    let answer = try_code(daemon, sandbox, context, &json!({"code": text, "detach": true}));
    assert_eq!(answer.status, 202, "{}", String::from_utf8_lossy(&answer.body));
    let run = answer.json();
    assert_eq!(run["result"], Value::Null, "{run}");
    run["id"].as_str().unwrap().to_owned()
}

fn runs(sandbox: &str, context: &str) -> String {
    format!("/v1/sandboxes/{sandbox}/contexts/{context}/runs")
}

#[test]
fn what_came_of_a_detached_run_is_fetched_later() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    for (context, cell, stdout) in [
        ("python", "import time; print('out'); time.sleep(0.3); x = 42; x", "out\n"),
        ("javascript", "console.log('out'); await new Promise(r => setTimeout(r, 300)); 42", "out\n"),
        ("bash", "echo out; sleep 0.3", "out\n"),
    ] {
        let run = detach(&daemon, &name, context, cell);
        let path = format!("{}/{run}", runs(&name, context));
        let now = daemon.get(&path);
        assert_eq!(
            (&now["id"], &now["ended"], &now["result"]),
            (&json!(run), &json!(false), &Value::Null),
            "{now}"
        );
        let ended = daemon.get(&format!("{path}?wait_ms=60000"));
        let result = &ended["result"];
        assert_eq!(
            (&ended["ended"], &result["id"], &result["stdout"]),
            (&json!(true), &json!(run), &json!(stdout))
        );
        assert_eq!(text(result), (context != "bash").then_some("42"), "{result}");
        let list = daemon.get(&runs(&name, context));
        assert_eq!(list["runs"][0]["id"], run, "{list}");
        assert_eq!(
            (&list["runs"][0]["ended"], &list["runs"][0]["result"]),
            (&json!(true), &Value::Null),
            "{list}"
        );
    }
    // Whoever follows may leave in the middle, and what is shown afterwards is not lost.
    let cell =
        json!({"code": "print('on'); time.sleep(0.3); display('shown'); print('off'); 7", "detach": true});
    let mut connection = start(&daemon, &name, "python", &cell);
    let run = data(&events_until(&mut connection, "stdout", |_| ())[0])["id"].as_str().unwrap().to_owned();
    drop(connection);
    let ended = daemon.get(&format!("{}/{run}?wait_ms=60000", runs(&name, "python")));
    let result = &ended["result"];
    assert_eq!((&result["stdout"], text(result)), (&json!("on\noff\n"), Some("7")), "{ended}");
    assert_eq!(result["results"].as_array().unwrap().len(), 2, "{ended}");
    // One that fails is a result, and one that is restarted away has an end as well.
    let run = detach(&daemon, &name, "python", "1/0");
    let ended = daemon.get(&format!("{}/{run}?wait_ms=60000", runs(&name, "python")));
    assert_eq!(ended["result"]["error"]["name"], "ZeroDivisionError", "{ended}");
    let run = detach(&daemon, &name, "python", "time.sleep(1000)");
    let path = format!("/v1/sandboxes/{name}/contexts/python/restart");
    assert_eq!(daemon.request("POST", &path, None).status, 200);
    let ended = daemon.get(&format!("{}/{run}?wait_ms=60000", runs(&name, "python")));
    assert_eq!(ended["result"]["error"]["name"], "ContextRestarted", "{ended}");
    let run = detach(&daemon, &name, "python", "import time; time.sleep(1000)");
    let path = format!("{}/{run}?wait_ms=60000", runs(&name, "python"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| daemon.request("GET", &path, None));
        std::thread::sleep(Duration::from_millis(300));
        let begun = std::time::Instant::now();
        assert_eq!(
            daemon.request("DELETE", &format!("/v1/sandboxes/{name}/contexts/python"), None).status,
            204
        );
        assert_error(&waiting.join().unwrap(), 404, "CONTEXT_NOT_FOUND");
        assert!(begun.elapsed() < Duration::from_secs(30), "it has waited for its whole time");
    });
}

#[test]
fn so_many_detached_runs_are_kept_and_no_more() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let path = runs(&name, "python");
    let first = detach(&daemon, &name, "python", "import time; time.sleep(1000)");
    // One that waits for its turn is there already, and goes on when whoever asked for it has left.
    let mut waiting = daemon.connect();
    let body = json!({"code": "y = 5", "detach": true}).to_string();
    waiting.send("POST", &path, &[("Content-Type", "application/json")], body.as_bytes()).unwrap();
    crate::harness::host::wait_for("the second run", || {
        daemon.get(&path)["runs"].as_array().unwrap().len() == 2
    });
    drop(waiting);
    std::thread::sleep(Duration::from_millis(100));
    super::ask(&daemon, &name, "python", "interrupt", None);
    let ended = daemon.get(&format!("{path}/{first}?wait_ms=60000"));
    assert_eq!(ended["result"]["error"]["name"], "KeyboardInterrupt", "{ended}");
    assert_eq!(text(&code(&daemon, &name, "python", "y")), Some("5"));
    for number in 0..17 {
        detach(&daemon, &name, "python", &format!("{number}"));
    }
    assert_eq!(text(&code(&daemon, &name, "python", "y")), Some("5"), "all of them are over");
    let list = daemon.get(&path)["runs"].clone();
    assert_eq!(list.as_array().unwrap().len(), 16, "{list}");
    assert_error(&daemon.request("GET", &format!("{path}/{first}"), None), 404, "RUN_NOT_FOUND");
    // Those that were not to detach are nobody's later.
    let run = code(&daemon, &name, "python", "1")["id"].as_str().unwrap().to_owned();
    assert_error(&daemon.request("GET", &format!("{path}/{run}"), None), 404, "RUN_NOT_FOUND");
    assert_error(
        &daemon.request("GET", &format!("{path}/{run}?wait_ms=60001"), None),
        400,
        "INVALID_REQUEST",
    );
    assert_eq!(daemon.request("DELETE", path.trim_end_matches("/runs"), None).status, 204);
    assert_error(&daemon.request("GET", &path, None), 404, "CONTEXT_NOT_FOUND");
}

#[test]
fn the_command_line_leaves_a_run_to_itself() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let file = daemon.directory().join("cell");
    std::fs::write(&file, "import time; print('out'); time.sleep(0.3); 6 * 7").unwrap();
    let run = |more: &[&str]| {
        let mut arguments = vec!["run-code", "--lang", "python", "--sandbox", &name];
        arguments.extend(more);
        let output = daemon.cli(&arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), output)
    };
    let (status, printed, output) = run(&["--detach", file.to_str().unwrap()]);
    assert_eq!((status, printed.as_str()), (Some(0), "python-1\n"), "{output:?}");
    let (status, printed, output) = run(&["--result", "python-1"]);
    assert_eq!((status, printed.as_str()), (Some(0), "out\n42\n"), "{output:?}");
    let (status, _, output) = run(&["--result", "python-9"]);
    assert_ne!(status, Some(0), "{output:?}");
    assert_ne!(run(&[]).0, Some(0), "there is nothing to run");
}
