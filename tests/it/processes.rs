//! Background processes: their life, their logs, and what survives the death of the daemon.

use std::io::Read;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::{Daemon, assert_error, host};

/// The path of a process of the sandbox `box`, or of all of them.
fn path(process: &str) -> String {
    format!("/v1/sandboxes/box/processes{process}")
}

/// A daemon with a sandbox called `box`.
fn boxed() -> Daemon {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon
}

#[track_caller]
fn start(daemon: &Daemon, spec: &Value) -> Value {
    let answer = daemon.request("POST", &path(""), Some(spec));
    assert_eq!(
        answer.status,
        201,
        "start {spec}: {}\n{}",
        String::from_utf8_lossy(&answer.body),
        daemon.log()
    );
    answer.json()
}

fn try_wait(daemon: &Daemon, process: &str, wanted: &Value) -> Response {
    daemon.request("POST", &path(&format!("/{process}/wait")), Some(wanted))
}

#[track_caller]
fn wait(daemon: &Daemon, process: &str, wanted: &Value) -> Value {
    let answer = try_wait(daemon, process, wanted);
    assert_eq!(answer.status, 200, "wait {wanted}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// Everything that is kept of a stream, byte for byte.
#[track_caller]
fn log(daemon: &Daemon, process: &str, stream: &str) -> Vec<u8> {
    let path = path(&format!("/{process}/logs?stream={stream}"));
    let answer = daemon.send("GET", &path, &[("Accept", "application/octet-stream")], b"");
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.body
}

fn sigkill(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Kills serve and waits for the next one.
pub(crate) fn restart_serve(daemon: &mut Daemon) {
    let serve = daemon.serve_pid();
    sigkill(serve);
    host::wait_for("serve to be started again", || {
        daemon.role_pid("stockade-serve").is_some_and(|pid| pid != serve)
    });
    daemon.wait_until_healthy();
}

#[test]
fn a_process_outlives_its_request_and_keeps_both_streams_apart() {
    let daemon = boxed();
    let spec = json!({"id": "job", "shell": "echo out; echo err >&2; pwd; echo $A; exit 3", "cwd": "/tmp",
        "env": {"A": "b"}, "user": "1000"});
    let started = start(&daemon, &spec);
    assert_eq!(started["id"], "job");
    assert!(started["pid"].as_i64().unwrap() > 1, "{started}");
    let ended = wait(&daemon, "job", &json!({}))["process"].clone();
    for (field, value) in [("state", json!("exited")), ("exit_code", json!(3)), ("user", json!("1000"))] {
        assert_eq!(ended[field], value, "{ended}");
    }
    assert!(ended["ended_at"].is_string() && ended["usage"]["resident_max_kib"].is_u64(), "{ended}");
    assert_eq!(daemon.get(&path("/job"))["exit_code"], 3);
    assert_eq!(log(&daemon, "job", "stdout"), b"out\n/tmp\nb\n");
    assert_eq!(log(&daemon, "job", "stderr"), b"err\n");
    let all = daemon.get(&path("/job/logs"));
    assert_eq!(all["next_cursor"], 15, "{all}");
    assert_eq!((&all["more"], &all["running"]), (&json!(false), &json!(false)));
    // What one process says for itself does not stick.
    start(&daemon, &json!({"id": "next", "shell": "echo [$A] $(id -u)"}));
    wait(&daemon, "next", &json!({"for": {"exit": {}}}));
    assert_eq!(log(&daemon, "next", "both"), b"[] 0\n");
    let list = daemon.get(&path(""));
    let ids: Vec<_> = list["processes"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
    assert_eq!(ids, ["job", "next"]);
    assert_eq!(daemon.request("DELETE", &path("/job"), None).status, 204);
    assert_error(&daemon.request("GET", &path("/job"), None), 404, "PROCESS_NOT_FOUND");
    assert_error(&daemon.request("GET", &path("/job/logs"), None), 404, "PROCESS_NOT_FOUND");
    assert_error(&daemon.request("DELETE", &path("/job"), None), 404, "PROCESS_NOT_FOUND");
}

#[test]
fn a_process_that_cannot_be_started_is_refused_and_leaves_nothing() {
    let daemon = boxed();
    for (spec, status, code) in [
        (json!({"argv": ["no-such-program"], "id": "a"}), 422, "COMMAND_NOT_IN_IMAGE"),
        (json!({"argv": ["/etc/passwd"]}), 422, "COMMAND_NOT_EXECUTABLE"),
        (json!({"argv": ["true"], "cwd": "/no/such"}), 422, "INVALID_CWD"),
        (json!({"argv": ["true"], "user": "nobody-like-that"}), 422, "USER_NOT_FOUND"),
        (json!({"argv": []}), 400, "INVALID_REQUEST"),
        (json!({"argv": ["true"], "shell": "true"}), 400, "INVALID_REQUEST"),
        (json!({"argv": ["true"], "log_bytes_max": 1}), 400, "INVALID_REQUEST"),
        (json!({"argv": ["true"], "on_exit": "explode"}), 400, "INVALID_REQUEST"),
        (json!({"argv": ["true"], "id": ""}), 400, "INVALID_ID"),
        (json!({"argv": ["true"], "id": "../x"}), 400, "INVALID_ID"),
        (json!({"argv": ["true"], "id": "-x"}), 400, "INVALID_ID"),
        (json!({"argv": ["true"], "id": "p1"}), 400, "INVALID_ID"),
        (json!({"argv": ["true"], "id": "x".repeat(65)}), 400, "INVALID_ID"),
    ] {
        assert_error(&daemon.request("POST", &path(""), Some(&spec)), status, code);
    }
    assert_eq!(daemon.get(&path(""))["processes"], json!([]));
    let kept = daemon.state_dir().join("work/box/processes");
    assert_eq!(std::fs::read_dir(kept).unwrap().count(), 0);
    // The id of one that failed is free.
    start(&daemon, &json!({"id": "a", "argv": ["sleep", "600"]}));
    let again = daemon.request("POST", &path(""), Some(&json!({"id": "a", "argv": ["true"]})));
    assert_error(&again, 409, "PROCESS_CONFLICT");
}

#[test]
fn stdin_takes_any_bytes_and_its_end_is_seen() {
    let daemon = boxed();
    start(&daemon, &json!({"id": "cat", "argv": ["cat"], "stdin": true, "log_bytes_max": 8 << 20}));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let stdin = path("/cat/stdin");
    assert_eq!(daemon.send("POST", &stdin, &[], &bytes[..1_000_000]).status, 204);
    assert_eq!(daemon.get(&path("/cat"))["stdin_open"], true);
    assert_eq!(daemon.send("POST", &format!("{stdin}?close=true"), &[], &bytes[1_000_000..]).status, 204);
    let ended = wait(&daemon, "cat", &json!({"timeout_ms": 20_000}));
    assert_eq!(ended["process"]["exit_code"], 0, "{ended}");
    assert!(log(&daemon, "cat", "stdout") == bytes, "the bytes are not those that were sent");
    assert_error(&daemon.send("POST", &stdin, &[], b"x"), 409, "PROCESS_EXITED");
    start(&daemon, &json!({"id": "deaf", "argv": ["sleep", "600"]}));
    assert_error(&daemon.send("POST", &path("/deaf/stdin"), &[], b"x"), 409, "STDIN_CLOSED");
    // One that never reads holds its writer up, and is killed all the same.
    start(&daemon, &json!({"id": "full", "argv": ["sleep", "600"], "stdin": true}));
    let mut stuck = daemon.connect();
    stuck.send("POST", &path("/full/stdin"), &[], &bytes[..150_000]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(daemon.request("DELETE", &path("/full"), None).status, 204);
    let code = stuck.receive().unwrap().json()["code"].clone();
    assert!(["PROCESS_EXITED", "STDIN_CLOSED"].contains(&code.as_str().unwrap()), "{code}");
}

/// Says when it got SIGUSR1, and has children that say so too.
const FAMILY: &str = "trap 'echo first' USR1
(trap 'echo child' USR1; while :; do sleep 0.02; done) &
setsid sh -c \"trap 'echo stranger' USR1; while :; do sleep 0.02; done\" &
sleep 0.3; echo ready; while :; do sleep 0.02; done";

#[test]
fn a_signal_reaches_the_first_process_or_all_of_them() {
    let daemon = boxed();
    start(&daemon, &json!({"id": "family", "argv": ["bash", "-c", FAMILY]}));
    wait(&daemon, "family", &json!({"for": {"log": {"text": "ready"}}, "timeout_ms": 10_000}));
    let signal = path("/family/signal");
    let send = |body: Value| daemon.request("POST", &signal, Some(&body)).status;
    assert_eq!(send(json!({"signal": "SIGUSR1"})), 204);
    wait(&daemon, "family", &json!({"for": {"log": {"text": "first"}}, "timeout_ms": 10_000}));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(log(&daemon, "family", "stdout"), b"ready\nfirst\n");
    // The sleeps among them end by it.
    assert_eq!(send(json!({"signal": "USR1", "tree": true})), 204);
    for who in ["child", "stranger"] {
        wait(&daemon, "family", &json!({"for": {"log": {"text": who}}, "timeout_ms": 10_000}));
    }
    assert_eq!(send(json!({"signal": "SIGNO"})), 400);
    assert_eq!(send(json!({"signal": "KILL", "tree": true})), 204);
    let ended = wait(&daemon, "family", &json!({"timeout_ms": 10_000}))["process"].clone();
    assert_eq!((&ended["exit_code"], &ended["signal"]), (&json!(137), &json!("SIGKILL")), "{ended}");
    assert_error(&daemon.request("POST", &signal, Some(&json!({"signal": 15}))), 409, "PROCESS_EXITED");
}

/// Forks, detaches, ignores every signal that can be ignored, and forks on.
const STUBBORN: &str = "trap '' HUP INT TERM QUIT USR1 USR2 PIPE
for i in 1 2 3 4 5; do setsid bash -c 'trap \"\" HUP INT TERM; (sleep 4242 &); exec sleep 4242' & done
echo ready; sleep 4242";

#[test]
fn killing_a_process_leaves_nothing_of_it_behind() {
    let daemon = boxed();
    let left = || daemon.shell("box", "cat /proc/[0-9]*/comm 2>/dev/null | grep -cx 'sleep\\|bash'; true");
    for way in ["remove", "all", "timeout"] {
        let timeout_ms = if way == "timeout" { json!(700) } else { Value::Null };
        let spec = json!({"id": way, "argv": ["bash", "-c", STUBBORN], "timeout_ms": timeout_ms});
        start(&daemon, &spec);
        wait(&daemon, way, &json!({"for": {"log": {"text": "ready"}}, "timeout_ms": 10_000}));
        assert_ne!(left(), "0\n", "the control");
        match way {
            "remove" => assert_eq!(daemon.request("DELETE", &path("/remove"), None).status, 204),
            "all" => {
                let killed = daemon.request("DELETE", &path("?remove=true"), None).json();
                assert_eq!(killed["killed"], 1);
            }
            _ => {
                let ended = wait(&daemon, way, &json!({"timeout_ms": 10_000}))["process"].clone();
                assert_eq!(
                    (&ended["timed_out"], &ended["exit_code"]),
                    (&json!(true), &json!(137)),
                    "{ended}"
                );
            }
        }
        assert_eq!(left(), "0\n", "{way}");
    }
    let left: Vec<_> = daemon.get(&path(""))["processes"].as_array().unwrap().clone();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_process_can_remove_itself_at_its_end() {
    let daemon = boxed();
    start(&daemon, &json!({"id": "brief", "shell": "echo x; sleep 0.2", "on_exit": "remove"}));
    wait(&daemon, "brief", &json!({"timeout_ms": 10_000}));
    host::wait_for("the process to be removed", || daemon.get(&path(""))["processes"] == json!([]));
    host::wait_for("its files to be removed", || {
        std::fs::read_dir(daemon.state_dir().join("work/box/processes")).unwrap().count() == 0
    });
    daemon.destroy("box");
    assert_eq!(std::fs::read_dir(daemon.state_dir().join("work")).unwrap().count(), 0);
}

/// Reads events from a cursor on, at most so many, and gives what they hold of both streams and the last id.
fn follow(daemon: &Daemon, process: &str, cursor: Option<&str>, most: usize) -> (Vec<Value>, String) {
    let mut connection = daemon.connect();
    let mut headers = vec![("Accept", "text/event-stream")];
    headers.extend(cursor.map(|cursor| ("Last-Event-ID", cursor)));
    connection.send("GET", &path(&format!("/{process}/logs")), &headers, b"").unwrap();
    let head = connection.receive_head().unwrap();
    assert_eq!(head.status, 200);
    let mut body = connection.body(&head);
    let (mut seen, mut last) = (Vec::new(), String::new());
    while seen.len() < most
        && let Some(event) = body.next_event().unwrap()
    {
        last = event.id.unwrap();
        let mut data: Value = serde_json::from_str(&event.data).unwrap();
        data["event"] = json!(event.name);
        seen.push(data);
    }
    (seen, last)
}

#[test]
fn a_followed_log_goes_on_exactly_where_it_was_left() {
    let daemon = boxed();
    // Characters of several bytes, cut by the writer, on both streams at once.
    let script = "import os, time\nfor i in range(400):\n  b = ('%04d äö€🦀\\n' % i).encode()\n  \
        os.write(1, b[:7]); os.write(2, b) if i % 3 == 0 else None\n  time.sleep(0.001)\n  os.write(1, b[7:])";
    start(&daemon, &json!({"id": "text", "argv": ["python3", "-c", script]}));
    let (mut seen, mut cursor): (Vec<Value>, Option<String>) = (Vec::new(), None);
    loop {
        let most = 1 + seen.len() % 7;
        let (events, last) = follow(&daemon, "text", cursor.as_deref(), most);
        cursor = Some(last);
        seen.extend(events);
        if seen.last().is_some_and(|event| event["event"] == "exit") {
            break;
        }
    }
    let lines = |step| (0..400).step_by(step).map(|i| format!("{i:04} äö€🦀\n")).collect::<String>();
    for (stream, expected) in [("stdout", lines(1)), ("stderr", lines(3))] {
        let mut bytes = Vec::new();
        for event in seen.iter().filter(|event| event["event"] == stream) {
            let data = event["data"].as_str().unwrap();
            match event["encoding"].as_str().unwrap() {
                "utf-8" => bytes.extend_from_slice(data.as_bytes()),
                _ => {
                    use base64::Engine as _;
                    bytes.extend(base64::engine::general_purpose::STANDARD.decode(data).unwrap());
                }
            }
        }
        assert_eq!(String::from_utf8(bytes).unwrap(), expected, "{stream}");
    }
    assert_eq!(seen.last().unwrap()["exit_code"], 0);
    // A part at a time, as JSON.
    let (mut next, mut text) = (0, String::new());
    loop {
        let part = daemon.get(&path(&format!("/text/logs?stream=stdout&cursor={next}&limit_bytes=100")));
        for entry in part["entries"].as_array().unwrap() {
            text.push_str(entry["data"].as_str().unwrap());
        }
        next = part["next_cursor"].as_u64().unwrap();
        if part["more"] == false {
            break;
        }
    }
    assert!(text.starts_with("0000 ") && text.ends_with("🦀\n"), "{text}");
    // Of a process that had the same id, and wrote more: nothing may be passed over.
    let far = [("Accept", "text/event-stream"), ("Last-Event-ID", "99999999")];
    for refused in [
        daemon.send("GET", &path("/text/logs"), &far, b""),
        daemon.request("GET", &path("/text/logs?cursor=99999999"), None),
        try_wait(&daemon, "text", &json!({"for": {"log": {"text": "a", "cursor": 99_999_999}}})),
    ] {
        assert_error(&refused, 416, "RANGE_NOT_SATISFIABLE");
    }
    for bad in ["cursor=x", "cursor=-1", "stream=stdin", "limit_bytes=0", "limit_bytes=99999999", "tail=1"] {
        assert_error(
            &daemon.request("GET", &path(&format!("/text/logs?{bad}")), None),
            400,
            "INVALID_REQUEST",
        );
    }
}

#[test]
fn a_log_keeps_the_newest_bytes_and_counts_the_others() {
    let daemon = boxed();
    let script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; echo oops >&2";
    start(&daemon, &json!({"id": "long", "shell": script, "log_bytes_max": 65536}));
    let ended = wait(&daemon, "long", &json!({"timeout_ms": 20_000}))["process"].clone();
    let written: u64 = (0..20_000).map(|i| format!("line {i}\n").len() as u64).sum::<u64>() + 5;
    assert_eq!(ended["log"]["end_cursor"], written, "{ended}");
    let kept = log(&daemon, "long", "stdout");
    assert_eq!(ended["log"]["dropped_stdout_bytes"], written - 5 - kept.len() as u64);
    assert_eq!(ended["log"]["dropped_stderr_bytes"], 0);
    assert!((49_152..65_536).contains(&kept.len()), "{} bytes", kept.len());
    assert!(kept.ends_with(b"line 19998\nline 19999\n"));
    let part = daemon.get(&path("/long/logs?cursor=0&limit_bytes=10"));
    assert_eq!(part["dropped_bytes"], ended["log"]["start_cursor"], "{part}");
    let (events, _) = follow(&daemon, "long", Some("5"), 1);
    assert_eq!(events[0]["event"], "dropped");
    let files = std::fs::read_dir(daemon.state_dir().join("work/box/processes")).unwrap();
    let directory = files.flatten().next().unwrap().path();
    let bytes: u64 =
        std::fs::read_dir(directory).unwrap().flatten().map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < 65_536 + 4096, "{bytes} bytes on disk");
}

#[test]
fn readiness_is_a_line_of_the_log_and_its_absence_a_typed_failure() {
    let daemon = boxed();
    let script = "sleep 0.2; echo starting; echo 'listening on port 8080' >&2; printf 'ready> '; sleep 600";
    start(&daemon, &json!({"id": "web", "shell": script}));
    let wait_log = |log: Value| wait(&daemon, "web", &json!({"for": {"log": log}, "timeout_ms": 10_000}));
    let met = wait_log(json!({"regex": r"port (\d+)"}));
    assert_eq!(met["log"]["groups"], json!(["port 8080", "8080"]), "{met}");
    assert_eq!([&met["log"]["stream"], &met["log"]["line"]], ["stderr", "listening on port 8080"]);
    // What comes next may change what an expression matches, until the line is complete or nothing comes any more.
    let slow = "printf 'port 80'; sleep 0.5; echo 80; printf last; sleep 0.2";
    start(&daemon, &json!({"id": "slow", "shell": slow}));
    for (regex, found) in [(r"port (\d+)$", "port 8080"), ("^la", "la")] {
        let met = wait(&daemon, "slow", &json!({"for": {"log": {"regex": regex}}, "timeout_ms": 10_000}));
        assert_eq!(met["log"]["groups"][0], found, "{met}");
    }
    // A prompt has no end of line; and what was written before counts.
    assert_eq!(wait_log(json!({"text": "ready>"}))["log"]["line"], "ready> ");
    wait_log(json!({"text": "starting", "stream": "stdout"}));
    let failing = |wanted: Value, status, code| {
        assert_error(&try_wait(&daemon, "web", &wanted), status, code);
    };
    let began = Instant::now();
    failing(
        json!({"for": {"log": {"text": "starting", "stream": "stderr"}}, "timeout_ms": 300}),
        504,
        "WAIT_TIMEOUT",
    );
    failing(json!({"timeout_ms": 1}), 504, "WAIT_TIMEOUT");
    assert!(began.elapsed() < Duration::from_secs(5));
    for bad in [
        json!({"log": {"regex": "("}}),
        json!({"log": {"regex": "(a{1000}){1000}"}}),
        json!({"log": {"regex": "x".repeat(5000)}}),
        json!({"log": {"text": "a", "regex": "b"}}),
        json!({"log": {}}),
        json!({"log": {"text": ""}}),
        json!({"log": {"text": "a", "stream": "both"}}),
        json!({"moon": {}}),
    ] {
        failing(json!({"for": bad}), 400, "INVALID_REQUEST");
    }
    start(&daemon, &json!({"id": "fails", "shell": "echo no; sleep 0.3; exit 7"}));
    let body = assert_error(
        &try_wait(&daemon, "fails", &json!({"for": {"log": {"text": "ready"}}, "timeout_ms": 10_000})),
        409,
        "PROCESS_EXITED",
    );
    assert_eq!(body["context"]["exit_code"], 7, "{body}");
}

/// Writes a numbered line every millisecond.
const COUNTER: &str = "import time\nfor i in range(3000):\n  print(i, flush=True)\n  time.sleep(0.001)";

#[test]
fn processes_and_their_logs_survive_the_daemon_at_any_moment() {
    let mut daemon = boxed();
    start(&daemon, &json!({"id": "count", "argv": ["python3", "-c", COUNTER]}));
    start(&daemon, &json!({"id": "cat", "argv": ["cat"], "stdin": true}));
    start(&daemon, &json!({"id": "brief", "shell": "sleep 0.7; echo bye; exit 5"}));
    start(&daemon, &json!({"id": "late", "argv": ["sleep", "600"], "timeout_ms": 4000}));
    start(&daemon, &json!({"id": "done", "shell": "echo early"}));
    wait(&daemon, "done", &json!({"timeout_ms": 10_000}));
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(150));
        restart_serve(&mut daemon);
    }
    daemon.kill_all();
    // Nobody reads: the pipe holds what comes, and `brief` ends unseen.
    std::thread::sleep(Duration::from_millis(700));
    daemon.spawn();
    let brief = wait(&daemon, "brief", &json!({"timeout_ms": 10_000}))["process"].clone();
    assert_eq!(brief["exit_code"], 5, "{brief}");
    assert_eq!(log(&daemon, "brief", "stdout"), b"bye\n");
    assert_eq!(log(&daemon, "done", "stdout"), b"early\n");
    assert_eq!(daemon.send("POST", &path("/cat/stdin?close=true"), &[], b"still here").status, 204);
    let cat = wait(&daemon, "cat", &json!({"timeout_ms": 10_000}))["process"].clone();
    assert_eq!((&cat["exit_code"], &cat["state"]), (&json!(0), &json!("exited")));
    assert_eq!(log(&daemon, "cat", "stdout"), b"still here");
    let count = wait(&daemon, "count", &json!({"timeout_ms": 20_000}))["process"].clone();
    assert_eq!(count["exit_code"], 0, "{count}");
    let expected: String = (0..3000).map(|i| format!("{i}\n")).collect();
    assert_eq!(String::from_utf8(log(&daemon, "count", "stdout")).unwrap(), expected);
    let late = wait(&daemon, "late", &json!({"timeout_ms": 20_000}))["process"].clone();
    assert_eq!((&late["timed_out"], &late["signal"]), (&json!(true), &json!("SIGKILL")), "{late}");
    // New ones do not collide with old ones.
    start(&daemon, &json!({"id": "new", "shell": "echo new"}));
    wait(&daemon, "new", &json!({"timeout_ms": 10_000}));
    assert_eq!(log(&daemon, "new", "stdout"), b"new\n");
}

#[test]
fn a_follower_of_before_the_crash_goes_on_after_it() {
    let mut daemon = boxed();
    start(&daemon, &json!({"id": "count", "argv": ["python3", "-c", COUNTER]}));
    let (first, cursor) = follow(&daemon, "count", None, 20);
    restart_serve(&mut daemon);
    let (rest, _) = follow(&daemon, "count", Some(&cursor), usize::MAX);
    let text: String = first.iter().chain(&rest).filter_map(|event| event["data"].as_str()).collect();
    let expected: String = (0..3000).map(|i| format!("{i}\n")).collect();
    assert_eq!(text, expected);
    assert_eq!(rest.last().unwrap()["event"], "exit");
}

#[test]
fn processes_go_with_their_sandbox() {
    let mut daemon = boxed();
    start(&daemon, &json!({"id": "a", "argv": ["sleep", "4243"], "stdin": true}));
    let pid = i32::try_from(daemon.get("/v1/sandboxes/box")["pid"].as_i64().unwrap()).unwrap();
    sigkill(pid);
    host::wait_for("the process to be reported lost", || daemon.get(&path("/a"))["state"] == "lost");
    restart_serve(&mut daemon);
    assert_eq!(daemon.get(&path("/a"))["state"], "lost");
    assert_error(&daemon.request("POST", &path(""), Some(&json!({"argv": ["true"]}))), 409, "SANDBOX_DEAD");
    daemon.destroy("box");
    assert_eq!(std::fs::read_dir(daemon.state_dir().join("work")).unwrap().count(), 0);
    daemon.create(json!({"id": "box"}));
    assert_eq!(daemon.get(&path(""))["processes"], json!([]));
}

#[test]
fn output_that_nobody_reads_costs_the_daemon_nothing() {
    let daemon = boxed();
    start(&daemon, &json!({"id": "warm", "shell": "head -c 1000000 /dev/zero", "log_bytes_max": 1 << 20}));
    wait(&daemon, "warm", &json!({"timeout_ms": 10_000}));
    let before = host::resident_kib(daemon.serve_pid());
    start(&daemon, &json!({"id": "yes", "argv": ["yes"], "log_bytes_max": 1 << 20}));
    let mut stalled = daemon.connect();
    stalled.send("GET", &path("/yes/logs"), &[("Accept", "text/event-stream")], b"").unwrap();
    let mut most = 0;
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        most = most.max(host::resident_kib(daemon.serve_pid()));
        assert_eq!(daemon.shell("box", "echo quick"), "quick\n");
    }
    assert!(most < before + 4096, "{before} KiB became {most} KiB");
    let yes = daemon.get(&path("/yes"));
    assert!(yes["log"]["dropped_stdout_bytes"].as_u64().unwrap() > 10 << 20, "{yes}");
    // The reader is told what it has missed, and sees the newest.
    let head = stalled.receive_head().unwrap();
    let mut body = stalled.body(&head);
    let mut names = Vec::new();
    while !names.iter().any(|name| name == "dropped") {
        names.push(body.next_event().unwrap().unwrap().name);
        assert!(names.len() < 1000, "never told");
    }
    assert_eq!(daemon.request("DELETE", &path("/yes"), None).status, 204);
}

#[test]
fn a_thousand_processes_are_listed_at_once() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box", "resources": {"pids": 2000, "memory_bytes": 0}}));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    start(&daemon, &json!({"argv": ["sleep", "600"], "log_bytes_max": 65536}));
                }
            });
        }
    });
    let began = Instant::now();
    let list = daemon.get(&path(""));
    let took = began.elapsed();
    assert_eq!(list["processes"].as_array().unwrap().len(), 1000);
    assert!(list["processes"].as_array().unwrap().iter().all(|one| one["state"] == "running"));
    // Twenty are wanted of a release build.
    assert!(took < Duration::from_millis(200), "{took:?}");
    let killed = daemon.request("DELETE", &path("?remove=true"), None).json();
    assert_eq!(killed["killed"], 1000);
    assert_eq!(daemon.get(&path(""))["processes"], json!([]));
}

#[test]
fn a_client_that_vanishes_in_the_middle_of_stdin_breaks_nothing() {
    let daemon = boxed();
    start(&daemon, &json!({"id": "cat", "argv": ["cat"], "stdin": true}));
    let mut connection = daemon.connect();
    let head =
        format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegun ", path("/cat/stdin"));
    connection.send_raw(head.as_bytes()).unwrap();
    wait(&daemon, "cat", &json!({"for": {"log": {"text": "begun"}}, "timeout_ms": 10_000}));
    drop(connection);
    assert_eq!(daemon.send("POST", &path("/cat/stdin?close=true"), &[], b"and ended").status, 204);
    wait(&daemon, "cat", &json!({"timeout_ms": 10_000}));
    assert_eq!(log(&daemon, "cat", "stdout"), b"begun and ended");
    // Half of an answer is enough for some.
    let mut reader = daemon.connect();
    reader.send("GET", &path("/cat/logs"), &[("Accept", "text/event-stream")], b"").unwrap();
    let mut byte = [0];
    reader.into_stream().read_exact(&mut byte).unwrap();
    assert_eq!(daemon.get(&path("/cat"))["state"], "exited");
}

#[test]
fn variables_are_set_read_and_unset_and_survive_the_daemon() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box", "env": {"A": "1", "B": "2"}}));
    let env = "/v1/sandboxes/box/env";
    let before = daemon.get(env)["env"].clone();
    assert_eq!((&before["A"], before["PATH"].is_string()), (&json!("1"), true));
    let change = json!({"set": {"A": "one", "C": "drei=3 ü\n"}, "unset": ["B", "never-there"]});
    let changed = daemon.request("PATCH", env, Some(&change));
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["env"]["C"], "drei=3 ü\n");
    let show = "printf '%s|' \"$A\" \"${B-unset}\" \"$C\"";
    assert_eq!(daemon.shell("box", show), "one|unset|drei=3 ü\n|");
    // Per command, and only for it.
    let own = daemon.run("box", json!({"shell": show, "env": {"A": "mine"}}));
    assert_eq!(own["stdout"], "mine|unset|drei=3 ü\n|");
    assert_eq!(daemon.shell("box", show), "one|unset|drei=3 ü\n|");
    restart_serve(&mut daemon);
    assert_eq!(daemon.shell("box", show), "one|unset|drei=3 ü\n|");
    assert_eq!(daemon.get("/v1/sandboxes/box")["env"]["A"], "one");
    let replaced = daemon.request("PUT", env, Some(&json!({"env": {"ONLY": "this"}})));
    assert_eq!(replaced.json(), json!({"env": {"ONLY": "this"}}));
    assert_eq!(
        daemon.run("box", json!({"argv": ["/usr/bin/env"], "user": "0"}))["stdout"],
        "ONLY=this\nHOME=/root\n"
    );
    for bad in [
        json!({"set": {"": "x"}}),
        json!({"set": {"A=B": "x"}}),
        json!({"set": {"A": "x\0"}}),
        json!({"unset": [""]}),
        json!({"set": {"A": "x".repeat(200_000)}}),
        json!({"put": {}}),
    ] {
        assert_error(&daemon.request("PATCH", env, Some(&bad)), 400, "INVALID_REQUEST");
    }
    assert_eq!(daemon.get(env), json!({"env": {"ONLY": "this"}}));
}

#[test]
fn the_command_line_starts_watches_and_ends_processes() {
    use std::process::{Command, Stdio};
    let daemon = boxed();
    let cli = |arguments: &[&str]| {
        let output = daemon.cli(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let ok = |out: &str| (0, out.to_owned(), String::new());
    let script = "echo serving; echo aside >&2; exec cat";
    let start = ["process", "start", "box", "--id", "web", "-i", "--env", "A=b", "--", "sh", "-c", script];
    assert_eq!(cli(&start), ok("web\n"));
    assert_eq!(
        cli(&["process", "wait", "box", "web", "--text", "serv", "--timeout", "10s"]),
        ok("serving\n")
    );
    let (code, out, _) = cli(&["process", "ls", "box"]);
    assert!(code == 0 && out.contains("web") && out.contains("running"), "{out}");
    assert_eq!(cli(&["process", "ls", "-q", "box"]), ok("web\n"));
    let mut write = Command::new(crate::harness::binary())
        .args(["process", "write", "box", "web", "--close"])
        .env("STOCKADE_SOCKET", daemon.socket())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(write.stdin.as_mut().unwrap(), b"typed \xff\n").unwrap();
    drop(write.stdin.take());
    assert!(write.wait().unwrap().success());
    assert_eq!(cli(&["process", "wait", "box", "web", "--timeout", "10s"]), ok(""));
    let logs = daemon.cli(&["process", "logs", "box", "web", "--follow"]);
    assert_eq!(logs.stdout, b"serving\ntyped \xff\n");
    assert_eq!(logs.stderr, b"aside\n");
    assert_eq!(daemon.cli(&["process", "logs", "box", "web", "--stream", "stdout"]).stdout, logs.stdout);
    let (_, json, _) = cli(&["--json", "process", "inspect", "box", "web"]);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["exit_code"], 0);
    assert_eq!(
        cli(&["process", "start", "box", "--id", "b", "--", "sh", "-c", "sleep 0.2; exit 9"]),
        ok("b\n")
    );
    assert_eq!(cli(&["process", "wait", "box", "b"]).0, 9);
    assert_eq!(cli(&["process", "start", "box", "--id", "c", "--", "sleep", "600"]), ok("c\n"));
    assert_eq!(cli(&["process", "signal", "box", "c", "TERM"]), ok(""));
    assert_eq!(cli(&["process", "wait", "box", "c"]).0, 143);
    assert_eq!(cli(&["process", "start", "box", "--", "no-such-program"]).0, 127);
    assert_eq!(cli(&["process", "rm", "box", "b"]), ok("b\n"));
    let (code, _, why) = cli(&["process", "logs", "box", "b"]);
    assert!(code == 125 && why.contains("process ls"), "{code} {why}");
    assert_eq!(cli(&["process", "rm", "box", "--all"]), ok(""));
    assert_eq!(cli(&["process", "ls", "-q", "box"]), ok(""));
    let (code, out, _) = cli(&["env", "box", "--set", "GREETING=hi there", "--unset", "PATH"]);
    assert_eq!((code, out.as_str()), (0, "GREETING=hi there\nLANG=C.UTF-8\n"));
    assert_eq!(cli(&["env", "box"]), ok("GREETING=hi there\nLANG=C.UTF-8\n"));
}

/// Listens after a while; answers 503 twice, then 200, and 404 for anything else.
const SERVER: &str = "import http.server, time
class H(http.server.BaseHTTPRequestHandler):
  n = 0
  def do_GET(self):
    H.n += 1
    self.send_response(404 if self.path != '/health?x=1' else 503 if H.n < 3 else 200)
    self.end_headers()
time.sleep(0.3)
http.server.HTTPServer(('127.0.0.1', 8123), H).serve_forever()";

#[test]
fn readiness_is_a_port_that_takes_a_connection_or_answers_a_request() {
    let daemon = boxed();
    start(&daemon, &json!({"id": "web", "argv": ["python3", "-c", SERVER]}));
    let port = |port: Value, timeout_ms: u32| {
        try_wait(&daemon, "web", &json!({"for": {"port": port}, "timeout_ms": timeout_ms}))
    };
    assert_error(&port(json!({"port": 8124}), 300), 504, "WAIT_TIMEOUT");
    let ready = port(json!({"port": 8123}), 20_000);
    assert_eq!(ready.json()["port"], json!({"port": 8123}), "{}", ready.json());
    let healthy = port(json!({"port": 8123, "http": {"path": "/health?x=1"}}), 20_000).json();
    assert_eq!(healthy["port"], json!({"port": 8123, "status": 200}), "{healthy}");
    let missing = json!({"port": 8123, "http": {"path": "/missing", "status_min": 404, "status_max": 404}});
    assert_eq!(port(missing, 20_000).json()["port"]["status"], 404);
    assert_error(&port(json!({"port": 8123, "http": {"path": "/missing"}}), 300), 504, "WAIT_TIMEOUT");
    for bad in [
        json!({"port": 0}),
        json!({"port": 65536}),
        json!({"port": 1, "http": {"path": "no-slash"}}),
        json!({"port": 1, "http": {"path": "/a b"}}),
        json!({"port": 1, "http": {"path": "/\r\nHost: x"}}),
        json!({"port": 1, "http": {"status_min": 500, "status_max": 400}}),
    ] {
        assert_error(&port(bad, 300), 400, "INVALID_REQUEST");
    }
    // What speaks no HTTP is no answer, however much it says.
    let chatter = "import socket\ns = socket.create_server(('127.0.0.1', 8125))\nwhile True:\n  c, _ = s.accept()\n  \
        try: c.sendall(b'x' * (1 << 24))\n  except OSError: pass";
    start(&daemon, &json!({"id": "chatter", "argv": ["python3", "-c", chatter]}));
    let wanted = json!({"for": {"port": {"port": 8125, "http": {}}}, "timeout_ms": 1500});
    assert_error(&try_wait(&daemon, "chatter", &wanted), 504, "WAIT_TIMEOUT");
    start(&daemon, &json!({"id": "dies", "shell": "sleep 0.3; exit 4"}));
    let wanted = json!({"for": {"port": {"port": 8126}}, "timeout_ms": 20_000});
    let body = assert_error(&try_wait(&daemon, "dies", &wanted), 409, "PROCESS_EXITED");
    assert_eq!(body["context"]["exit_code"], 4, "{body}");
    let cli = daemon.cli(&["process", "wait", "box", "web", "--port", "8123", "--http", "/health?x=1"]);
    assert!(cli.status.success(), "{cli:?}");
}

#[test]
fn a_fork_bomb_that_is_followed_is_killed_and_the_daemon_answers_all_the_while() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box", "resources": {"pids": 200}}));
    let bomb = "echo armed; b() { b | b & }; while :; do b; echo tick; done 2>&1";
    start(&daemon, &json!({"id": "bomb", "argv": ["bash", "-c", bomb]}));
    let (events, _) = follow(&daemon, "bomb", None, 20);
    assert_eq!(events[0]["event"], "stdout");
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(daemon.get(&path("/bomb"))["state"], "running");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    assert_eq!(daemon.request("DELETE", &path("/bomb"), None).status, 204);
    assert_eq!(daemon.shell("box", "echo alive"), "alive\n");
}
