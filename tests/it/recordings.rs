//! Recordings: what is in them, what is not, and who may have them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Daemon, assert_error, host};
use crate::lifecycle::{GROUP, as_user};
use crate::terminals::{Viewer, open};

/// As the daemon's own bound, `limits::RECORDING_BYTES_MAX`.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// A recording, by a reader that knows nothing but the format.
struct Cast {
    head: Value,
    events: Vec<(f64, String, String)>,
}

impl Cast {
    #[track_caller]
    fn fetch(daemon: &Daemon, sandbox: &str, id: &str) -> Self {
        let answer = daemon.request("GET", &format!("/v1/sandboxes/{sandbox}/recordings/{id}"), None);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.header("content-type"), Some("application/x-asciicast"));
        Self::parse(&answer.body)
    }

    #[track_caller]
    fn parse(bytes: &[u8]) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        assert!(text.ends_with('\n'), "half a line at the end");
        let (head, events) = text.split_once('\n').unwrap();
        let head: Value = serde_json::from_str(head).unwrap();
        let events: Vec<(f64, String, String)> =
            events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(events.is_sorted_by(|a, b| a.0 <= b.0), "time goes back");
        assert!(head["version"] == 2 && head["timestamp"].as_u64().unwrap() > 1_600_000_000, "{head}");
        Self { head, events }
    }

    fn all(&self, kind: &str) -> Vec<&str> {
        self.events.iter().filter(|(_, one, _)| one == kind).map(|(_, _, text)| text.as_str()).collect()
    }

    fn output(&self) -> String {
        self.all("o").concat()
    }
}

#[track_caller]
fn list(daemon: &Daemon, sandbox: &str) -> Vec<Value> {
    daemon.get(&format!("/v1/sandboxes/{sandbox}/recordings"))["recordings"].as_array().unwrap().clone()
}

#[track_caller]
fn recorded(result: &Value) -> String {
    result["recording"].as_str().unwrap_or_else(|| panic!("no recording: {result}")).to_owned()
}

#[test]
fn a_terminal_is_recorded_as_its_viewers_saw_it_and_without_what_they_typed() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let script =
        "read -sp 'Password: ' p; echo; while read l; do echo got $l; done; printf '\\xff\\xe2\\x82|\\n'";
    let spec = json!({"id": "t", "argv": ["bash", "-c", script], "rows": 30, "columns": 99, "record": true});
    open(&daemon, &name, &spec);
    let mut viewer = Viewer::attach(&daemon, &name, "t", "");
    viewer.until("Password: ");
    viewer.type_in("hunter2\r");
    viewer.type_in("hällo €\r");
    viewer.until("got hällo €\r\n");
    viewer.say(&json!({"resize": {"rows": 40, "columns": 120}}));
    viewer.type_in("more\r");
    viewer.until("got more\r\n");
    let [going] = &*list(&daemon, &name) else { panic!("one recording") };
    assert_eq!((&going["recording"], &going["terminal"]), (&json!(true), &json!("t")), "{going}");
    let id = going["id"].as_str().unwrap();
    // One that goes on can be read.
    assert!(Cast::fetch(&daemon, &name, id).output().contains("got more"));
    viewer.type_in("\x04");
    viewer.end();
    let cast = Cast::fetch(&daemon, &name, id);
    assert_eq!(cast.output(), String::from_utf8_lossy(&viewer.seen));
    assert!(cast.output().ends_with("\u{fffd}\u{fffd}|\r\n"), "{}", cast.output());
    assert_eq!(cast.all("r"), ["120x40"]);
    assert_eq!((&cast.head["width"], &cast.head["height"]), (&json!(99), &json!(30)));
    assert_eq!(cast.head["env"]["TERM"], "xterm-256color");
    assert!(cast.all("i").is_empty() && !cast.output().contains("hunter2"));
    let after = &list(&daemon, &name)[0];
    assert_eq!((&after["recording"], &after["left_out_bytes"]), (&json!(false), &json!(0)), "{after}");
    assert_eq!((&after["program"], &after["rows"]), (&json!("bash"), &json!(30)));
    assert!(after["duration_ms"].as_f64().unwrap() > 0.0);
    let view = daemon.get(&format!("/v1/sandboxes/{name}/terminals/t"));
    assert_eq!(recorded(&view), id);
    // It stays when the terminal is closed, and goes when it is deleted.
    let path = format!("/v1/sandboxes/{name}/recordings/{id}");
    assert_eq!(daemon.request("DELETE", &format!("/v1/sandboxes/{name}/terminals/t"), None).status, 204);
    assert_eq!(daemon.request("DELETE", &path, None).status, 204);
    for method in ["GET", "DELETE"] {
        assert_error(&daemon.request(method, &path, None), 404, "RECORDING_NOT_FOUND");
    }
    for strange in ["..%2Fenv", "%2e%2e", ".", "a%00", "nobody"] {
        let path = format!("/v1/sandboxes/{name}/recordings/{strange}");
        assert!([400, 404].contains(&daemon.request("GET", &path, None).status), "{strange}");
    }
}

#[test]
fn input_is_recorded_when_that_is_asked_for() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let how = json!({"input": true});
    open(&daemon, &name, &json!({"id": "t", "argv": ["cat"], "record": how}));
    let mut viewer = Viewer::attach(&daemon, &name, "t", "");
    viewer.type_in("täst\r");
    viewer.until("täst\r\ntäst\r\n");
    let cast =
        Cast::fetch(&daemon, &name, &recorded(&daemon.get(&format!("/v1/sandboxes/{name}/terminals/t"))));
    assert_eq!(cast.all("i").concat(), "täst\r");
    let read = |body: &Value| Cast::fetch(&daemon, &name, &recorded(&daemon.run(&name, body.clone())));
    let cast = read(&json!({"argv": ["cat"], "stdin": "secret", "record": how}));
    assert_eq!((cast.all("i").concat(), cast.output()), ("secret".to_owned(), "secret".to_owned()));
    let cast = read(&json!({"shell": "cat >/dev/null", "stdin": "secret", "record": true}));
    assert!(cast.events.is_empty());
    let path = format!("/v1/sandboxes/{name}/commands");
    for wrong in [json!("yes"), json!([true]), json!({"input": 1}), json!({"inputs": true}), json!(1)] {
        let body = json!({"argv": ["true"], "record": wrong});
        assert_error(&daemon.request("POST", &path, Some(&body)), 400, "INVALID_REQUEST");
    }
    for not in [json!(false), json!(null)] {
        assert!(daemon.run(&name, json!({"argv": ["true"], "record": not})).get("recording").is_none());
    }
}

#[test]
fn commands_are_recorded_whoever_reads_them_and_lines_end_as_on_a_terminal() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let script =
        "printf 'o\\342'; printf 'e\\303' >&2; sleep 0.3; printf '\\202\\254\\n'; printf '\\244\\n' >&2";
    let body = json!({"shell": script, "record": true, "output_bytes_max": 1});
    let result = daemon.run(&name, body);
    let cast = Cast::fetch(&daemon, &name, &recorded(&result));
    let all: String = cast.output();
    assert!(all.starts_with("oe") || all.starts_with("eo"), "{all}");
    assert!(all.contains("\u{20ac}\r\n") && all.contains("\u{e4}\r\n"), "{all}");
    assert!(cast.events.last().unwrap().0 - cast.events[0].0 > 0.25);
    // In a session, over events, and over a WebSocket from the command line.
    let path = format!("/v1/sandboxes/{name}/sessions/default/commands");
    let body = json!({"shell": "read x; echo session $x", "stdin": "a\n", "record": {"input": true}});
    let answer = daemon.request("POST", &path, Some(&body)).json();
    let cast = Cast::fetch(&daemon, &name, &recorded(&answer));
    assert_eq!((cast.output(), cast.all("i")), ("session a\r\n".to_owned(), vec!["a\n"]));
    let before = list(&daemon, &name).len();
    let body = json!({"shell": "echo streamed; sleep 100", "record": true});
    drop(daemon.start_command(&name, &body, true));
    host::wait_for("the command to end", || list(&daemon, &name).iter().all(|one| one["recording"] == false));
    let last = list(&daemon, &name).pop().unwrap();
    assert_eq!(Cast::fetch(&daemon, &name, last["id"].as_str().unwrap()).output(), "streamed\r\n");
    // What cannot be started leaves none.
    for argv in ["no-such-program", "/etc/passwd"] {
        assert_eq!(daemon.try_run(&name, &json!({"argv": [argv], "record": true})).status, 422);
        let terminals = format!("/v1/sandboxes/{name}/terminals");
        let body = json!({"argv": [argv], "record": true});
        assert_eq!(daemon.request("POST", &terminals, Some(&body)).status, 422);
    }
    host::wait_for("what was not started to be forgotten", || list(&daemon, &name).len() == before + 1);
}

#[test]
fn the_command_line_records_lists_and_fetches() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let run = |arguments: &[&str]| {
        let output = daemon.cli(arguments);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = run(&["exec", &name, "--record", "--", "sh", "-c", "echo hello; exit 3"]);
    assert_eq!((code, &*out), (3, "hello\n"), "{err}");
    let (_, ids, _) = run(&["recording", "ls", &name, "--quiet"]);
    let id = ids.trim();
    assert!(err.contains(&format!("stockade recording get {name} {id}")), "{err}");
    let (_, table, _) = run(&["recording", "ls", &name]);
    assert!(table.contains(id) && table.contains("sh"), "{table}");
    let (code, cast, _) = run(&["recording", "get", &name, id]);
    assert_eq!((code, Cast::parse(cast.as_bytes()).output().as_str()), (0, "hello\r\n"));
    let file = daemon.directory().join("demo.cast");
    assert_eq!(run(&["recording", "get", &name, id, "-o", file.to_str().unwrap()]).0, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), cast);
    let (code, _, err) = run(&["exec", &name, "--record", "--", "no-such-program"]);
    assert!(code == 127 && !err.contains("recording get"), "{err}");
    assert_eq!(run(&["recording", "rm", &name, id]), (0, format!("{id}\n"), String::new()));
    assert_eq!(run(&["recording", "rm", &name, id]).0, 125);
}

#[test]
fn a_full_recording_says_so_and_there_are_only_so_many() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let count = 12_000_000;
    let script = format!("head -c {count} /dev/zero | tr '\\0' x; echo tail");
    let result = daemon.run(&name, json!({"shell": script, "record": true, "output_bytes_max": 0}));
    assert_eq!(result["exit_code"], 0, "the command goes on");
    let id = recorded(&result);
    let answer = daemon.request("GET", &format!("/v1/sandboxes/{name}/recordings/{id}"), None);
    assert!(answer.body.len() <= BYTES_MAX && answer.body.len() > BYTES_MAX / 10 * 9);
    let cast = Cast::parse(&answer.body);
    let kept = cast.output().len();
    let left_out = count + "tail\n".len() - kept;
    let last = cast.events.last().unwrap();
    assert_eq!((&*last.1, &*last.2), ("m", &*format!("stockade: {left_out} bytes left out")));
    let view = &list(&daemon, &name)[0];
    assert_eq!((&view["left_out_bytes"], &view["size_bytes"]), (&json!(left_out), &json!(answer.body.len())));
    // 64 of one sandbox.
    for _ in 1..64 {
        daemon.run(&name, json!({"argv": ["true"], "record": true}));
    }
    let body = json!({"argv": ["touch", "/tmp/ran"], "record": true});
    assert_error(&daemon.try_run(&name, &body), 429, "RECORDING_LIMIT");
    let terminals = format!("/v1/sandboxes/{name}/terminals");
    assert_error(&daemon.request("POST", &terminals, Some(&body)), 429, "RECORDING_LIMIT");
    assert_eq!(daemon.run(&name, json!({"argv": ["ls", "/tmp/ran"]}))["exit_code"], 2, "it was not started");
    daemon.run(&name, json!({"argv": ["true"]}));
    assert_eq!(daemon.request("DELETE", &format!("/v1/sandboxes/{name}/recordings/{id}"), None).status, 204);
    assert_eq!(daemon.try_run(&name, &body).status, 200);
}

#[test]
fn recordings_survive_a_kill_and_a_rest_and_not_the_sandbox() {
    let mut daemon = Daemon::start();
    let name = daemon.sandbox();
    let script = "i=0; while :; do i=$((i+1)); echo line $i äöü; done";
    open(&daemon, &name, &json!({"id": "t", "argv": ["sh", "-c", script], "record": true}));
    let flood = json!({"shell": "yes | head -c 20000000; sleep 100", "record": true});
    let command = daemon.start_command(&name, &flood, true);
    let left_out = |daemon: &Daemon| {
        list(daemon, &name).iter().map(|one| one["left_out_bytes"].as_u64().unwrap()).max().unwrap()
    };
    // A reader that takes nothing holds the command up; one that is gone ends it.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let serve = daemon.serve_pid();
    kill(Pid::from_raw(serve), Signal::SIGKILL).unwrap();
    drop(command);
    host::wait_for("another serve", || daemon.role_pid("stockade-serve").is_some_and(|pid| pid != serve));
    daemon.wait_until_healthy();
    let kept = list(&daemon, &name);
    assert_eq!(kept.len(), 2, "{kept:?}");
    for one in &kept {
        assert_eq!(one["recording"], false, "{one}");
        let cast = Cast::fetch(&daemon, &name, one["id"].as_str().unwrap());
        assert!(!cast.events.is_empty());
        if one["terminal"] == "t" {
            assert!(cast.output().starts_with("line 1 äöü\r\nline 2 äöü\r\n"));
        }
    }
    assert_eq!(left_out(&daemon), 0);
    let before = list(&daemon, &name);
    assert_eq!(daemon.request("POST", &format!("/v1/sandboxes/{name}/stop"), Some(&json!({}))).status, 200);
    assert_eq!(list(&daemon, &name), before, "and reading them wakes nothing");
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{name}"))["state"], "stopped");
    daemon.kill_all();
    daemon.spawn();
    assert_eq!(list(&daemon, &name), before);
    let files = daemon.state_dir().join("work").join(&name).join("recordings");
    assert_eq!(std::fs::read_dir(&files).unwrap().count(), 2);
    // Nobody but the daemon.
    use std::os::unix::fs::PermissionsExt as _;
    let closed = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o077 == 0;
    assert!(closed(&daemon.state_dir()) || closed(&daemon.state_dir().join("work")));
    daemon.destroy(&name);
    assert!(!files.exists());
}

#[test]
fn recordings_are_the_owners() {
    let daemon = Daemon::with(&["--socket-gid", GROUP]);
    let ask = |uid: &str, method: &str, path: &str, body: &str| {
        as_user(&daemon, uid, GROUP, method, path, body).unwrap()
    };
    assert_eq!(ask("1001", "POST", "/v1/sandboxes", r#"{"id":"mine"}"#).0, 201);
    let body = r#"{"shell":"echo private","record":true}"#;
    let (_, result) = ask("1001", "POST", "/v1/sandboxes/mine/commands", body);
    let id = recorded(&result);
    let path = format!("/v1/sandboxes/mine/recordings/{id}");
    for (method, path) in [("GET", "/v1/sandboxes/mine/recordings"), ("GET", &path), ("DELETE", &path)] {
        let (status, answer) = ask("1002", method, path, "");
        assert_eq!((status, &answer["code"]), (404, &json!("SANDBOX_NOT_FOUND")), "{method} {path}");
    }
    assert_eq!(Cast::fetch(&daemon, "mine", &id).output(), "private\r\n", "root sees all");
    assert_eq!(ask("1001", "DELETE", &path, "").0, 204);
    daemon.destroy("mine");
}
