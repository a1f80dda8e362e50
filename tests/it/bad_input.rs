//! Requests that must be refused, each with its code, and with no trace left behind.

use serde_json::{Value, json};

use crate::harness::{Daemon, assert_error, host, skip};

/// The request is what it is, and the answer is one of these.
struct Case {
    body: &'static str,
    codes: &'static [&'static str],
}

const fn case(body: &'static str, codes: &'static [&'static str]) -> Case {
    Case { body, codes }
}

/// Checks that an answer is a 4xx with one of these codes, in the promised form, with a hint.
#[track_caller]
fn refused(daemon: &Daemon, method: &str, path: &str, body: &[u8], codes: &[&str]) -> Value {
    let answer = daemon.send(method, path, &[("Content-Type", "application/json")], body);
    let shown = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
    assert_eq!(answer.status / 100, 4, "{method} {path} {shown}: {}", String::from_utf8_lossy(&answer.body));
    let error = assert_error(&answer, answer.status, answer.json()["code"].as_str().unwrap_or_default());
    let code = error["code"].as_str().unwrap();
    assert!(codes.contains(&code), "{method} {path} {shown}: {error}");
    let hint = error["hint"].as_str().unwrap_or_default();
    assert!(!hint.is_empty(), "{method} {path} {shown}: no fix is named: {error}");
    error
}

const INVALID: &[&str] = &["INVALID_REQUEST"];

/// Sandboxes that cannot be.
const SANDBOXES: &[Case] = &[
    case("", INVALID),
    case("{", INVALID),
    case("[]", INVALID),
    case("null", INVALID),
    case("\"x\"", INVALID),
    case(r#"{"unknown":1}"#, INVALID),
    case(r#"{"resources":{"memory":1}}"#, INVALID),
    case(r#"{"env":[]}"#, INVALID),
    case(r#"{"env":{"A":1}}"#, INVALID),
    case(r#"{"env":{"A":"\u0000"}}"#, INVALID),
    case(r#"{"env":{"":"x"}}"#, INVALID),
    case(r#"{"env":{"A=B":"x"}}"#, INVALID),
    case(r#"{"id":1}"#, &["INVALID_REQUEST", "INVALID_ID"]),
    case(r#"{"id":""}"#, &["INVALID_ID"]),
    case(r#"{"id":"A"}"#, &["INVALID_ID"]),
    case(r#"{"id":"a_b"}"#, &["INVALID_ID"]),
    case(r#"{"id":"-a"}"#, &["INVALID_ID"]),
    case(r#"{"id":"../../etc"}"#, &["INVALID_ID"]),
    case(r#"{"id":"a\u0000b"}"#, &["INVALID_ID"]),
    case(r#"{"id":"www"}"#, &["INVALID_ID"]),
    case(r#"{"id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}"#, &["INVALID_ID"]),
    case(r#"{"image":"no-such-image:1"}"#, &["IMAGE_NOT_FOUND"]),
    case(r#"{"image":"UPPER/../x"}"#, &["INVALID_REFERENCE"]),
    case(r#"{"image":""}"#, &["INVALID_REFERENCE"]),
    case(r#"{"image":"a\u0000b"}"#, &["INVALID_REFERENCE"]),
    case(r#"{"cwd":"relative"}"#, &["INVALID_REQUEST", "INVALID_CWD"]),
    case(r#"{"cwd":"/a\u0000b"}"#, &["INVALID_REQUEST", "INVALID_CWD"]),
    case(r#"{"cwd":"/etc/passwd"}"#, &["INVALID_REQUEST", "INVALID_CWD"]),
    case(r#"{"cwd":"/proc/self/fd/7"}"#, &["INVALID_REQUEST", "INVALID_CWD"]),
    case(r#"{"cwd":"/../../x/../../.."}"#, &["INVALID_REQUEST", "INVALID_CWD"]),
    case(r#"{"user":"70000"}"#, &["INVALID_REQUEST", "USER_NOT_FOUND"]),
    case(r#"{"hostname":"-bad-"}"#, INVALID),
    case(r#"{"hostname":"a b"}"#, INVALID),
    case(r#"{"labels":{"k":1}}"#, INVALID),
    case(r#"{"profile":"privileged"}"#, INVALID),
    case(r#"{"durability":"maybe"}"#, INVALID),
    case(r#"{"resources":{"memory_bytes":-1}}"#, INVALID),
    case(r#"{"resources":{"memory_bytes":1}}"#, INVALID),
    case(r#"{"resources":{"memory_bytes":"1G"}}"#, INVALID),
    case(r#"{"resources":{"memory_bytes":1e30}}"#, INVALID),
    case(r#"{"resources":{"cpus":-1.5}}"#, INVALID),
    case(r#"{"resources":{"cpu_weight":0}}"#, INVALID),
    case(r#"{"resources":{"cpu_weight":10001}}"#, INVALID),
    case(r#"{"id":"twice","id":"twice"}"#, INVALID),
];

#[test]
fn bad_sandboxes_are_refused_and_leave_nothing() {
    let daemon = Daemon::start();
    let cgroups = host::cgroup_count();
    let processes = host::children(daemon.launch_pid()).len();
    for Case { body, codes } in SANDBOXES {
        refused(&daemon, "POST", "/v1/sandboxes", body.as_bytes(), codes);
    }
    let many: Value =
        (0..65).map(|number| (number.to_string(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    for body in [
        json!({"labels": many}),
        json!({"labels": {"k": "x".repeat(257)}}),
        json!({"env": {"A": "x".repeat(200_000)}}),
        json!({"cwd": format!("/{}", "a/".repeat(3000))}),
        json!({"hostname": "x".repeat(65)}),
    ] {
        refused(
            &daemon,
            "POST",
            "/v1/sandboxes",
            body.to_string().as_bytes(),
            &["INVALID_REQUEST", "INVALID_CWD"],
        );
    }
    assert_eq!(daemon.ids(), [""; 0]);
    let left =
        |directory: std::path::PathBuf| std::fs::read_dir(directory).map(Iterator::count).unwrap_or_default();
    assert_eq!(left(daemon.runtime_dir().join("sandboxes")), 0, "runtime directories");
    assert_eq!(left(daemon.state_dir().join("sandboxes")), 0, "state directories");
    host::wait_for("cgroups to be gone", || host::cgroup_count() <= cgroups);
    host::wait_for("processes to be gone", || host::children(daemon.launch_pid()).len() <= processes);
}

/// Commands that cannot be run.
const COMMANDS: &[Case] = &[
    case("", INVALID),
    case("{}", INVALID),
    case(r#"{"argv":[]}"#, INVALID),
    case(r#"{"argv":[""]}"#, &["INVALID_REQUEST", "COMMAND_NOT_IN_IMAGE"]),
    case(r#"{"argv":"true"}"#, INVALID),
    case(r#"{"argv":["true"],"shell":"true"}"#, INVALID),
    case(r#"{"argv":["a\u0000b"]}"#, INVALID),
    case(r#"{"shell":"a\u0000b"}"#, INVALID),
    case(r#"{"argv":["true"],"unknown":1}"#, INVALID),
    case(r#"{"argv":["true"],"stdin":"x","stdin_base64":"eA=="}"#, INVALID),
    case(r#"{"argv":["true"],"stdin_base64":"%%%"}"#, INVALID),
    case(r#"{"argv":["true"],"timeout_ms":-1}"#, INVALID),
    case(r#"{"argv":["true"],"timeout_ms":0}"#, INVALID),
    case(r#"{"argv":["true"],"output_bytes_max":99999999999}"#, INVALID),
    case(r#"{"argv":["true"],"env":{"A\u0000":"x"}}"#, INVALID),
    case(r#"{"argv":["true"],"env":{"A=B":"x"}}"#, INVALID),
    case(r#"{"argv":["true"],"cwd":"/no/such/place"}"#, &["INVALID_CWD"]),
    case(r#"{"argv":["true"],"cwd":"/etc/passwd"}"#, &["INVALID_CWD"]),
    case(r#"{"argv":["true"],"cwd":"/proc/1/cwd"}"#, &["INVALID_CWD"]),
    case(r#"{"argv":["true"],"cwd":"/proc/self/fd/0"}"#, &["INVALID_CWD"]),
    case(r#"{"argv":["true"],"cwd":"relative"}"#, &["INVALID_REQUEST", "INVALID_CWD"]),
    case(r#"{"argv":["true"],"user":"nobody-here"}"#, &["USER_NOT_FOUND"]),
    case(r#"{"argv":["no-such-program"]}"#, &["COMMAND_NOT_IN_IMAGE"]),
    case(r#"{"argv":["/etc/passwd"]}"#, &["COMMAND_NOT_EXECUTABLE"]),
];

#[test]
fn bad_commands_are_refused_and_start_nothing() {
    let daemon = Daemon::start();
    let sandbox = daemon.create(json!({}));
    let name = crate::harness::id(&sandbox);
    let namespace = sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap();
    daemon.run(&name, json!({"argv": ["true"]}));
    let before = host::processes_in("pid", namespace).len();
    let path = format!("/v1/sandboxes/{name}/commands");
    for Case { body, codes } in COMMANDS {
        refused(&daemon, "POST", &path, body.as_bytes(), codes);
    }
    let most: Vec<String> = std::iter::repeat_n("echo".to_owned(), 16_000).collect();
    assert_eq!(daemon.run(&name, json!({"argv": most}))["stdout"].as_str().map(str::len), Some(15_999 * 5));
    let long: Vec<String> = (0..17_000).map(|number| number.to_string()).collect();
    for body in [json!({"argv": long}), json!({"argv": ["echo", "x".repeat(150_000)]})] {
        refused(&daemon, "POST", &path, body.to_string().as_bytes(), INVALID);
    }
    for number in 0..64 {
        let body = json!({"argv": ["true"], "cwd": format!("/proc/self/fd/{number}")}).to_string();
        refused(&daemon, "POST", &path, body.as_bytes(), &["INVALID_CWD"]);
    }
    host::wait_for("refused commands to leave nothing", || {
        host::processes_in("pid", namespace).len() <= before
    });
    let listed = daemon.get(&path);
    assert_eq!(listed.as_array().or(listed["commands"].as_array()).unwrap().len(), 0);
    assert_eq!(daemon.shell(&name, "echo fine"), "fine\n");
}

#[test]
fn routes_methods_and_sizes_are_checked() {
    let daemon = Daemon::start();
    let answer = daemon.send("GET", "/", &[], b"");
    assert_error(&answer, 404, "ROUTE_NOT_FOUND");
    assert_error(&daemon.send("GET", "/v2/sandboxes", &[], b""), 404, "ROUTE_NOT_FOUND");
    assert_error(&daemon.send("PATCH", "/v1/sandboxes", &[], b""), 405, "METHOD_NOT_ALLOWED");
    assert_error(&daemon.send("POST", "/v1/healthz", &[], b""), 405, "METHOD_NOT_ALLOWED");
    refused(&daemon, "GET", "/v1/sandboxes/BAD_ID", b"", &["INVALID_ID", "SANDBOX_NOT_FOUND"]);
    refused(&daemon, "GET", "/v1/sandboxes/..%2f..%2fetc", b"", &["INVALID_ID", "SANDBOX_NOT_FOUND"]);
    refused(&daemon, "GET", "/v1/sandboxes?lable=x", b"", INVALID);
    let large = vec![b' '; 9 * 1024 * 1024];
    let answer =
        daemon.connect().request("POST", "/v1/sandboxes", &[("Content-Type", "application/json")], &large);
    // The daemon may answer before it has read everything, and then the rest has nowhere to go.
    if let Ok(answer) = answer {
        assert_error(&answer, 413, "BODY_TOO_LARGE");
    }
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    refused(&daemon, "POST", "/v1/sandboxes", deep.as_bytes(), INVALID);
    let answer = daemon.send("POST", "/v1/sandboxes", &[("Content-Type", "text/plain")], b"{}");
    assert_eq!(answer.status / 100, 4, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(daemon.get("/v1/healthz")["status"], "ok");
}

#[test]
fn broken_http_is_answered_or_closed_and_nothing_hangs() {
    let daemon = Daemon::start();
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    let many = format!("GET /v1/healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(5000));
    let cases: [&[u8]; 9] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/healthz HTTP/9.9\r\nHost: x\r\n\r\n",
        b"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /v1/sandboxes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /v1/healthz HTTP/1.1\r\nHost : x\r\n\r\n",
        long.as_bytes(),
        many.as_bytes(),
    ];
    let mut explained = 0;
    for bytes in cases {
        let mut connection = daemon.connect();
        // It may be closed while we still write.
        let _ = connection.send_raw(bytes);
        let _ = connection.finish_sending();
        if let Ok(answer) = connection.receive() {
            let shown = String::from_utf8_lossy(&bytes[..60.min(bytes.len())]);
            assert!(answer.status / 100 == 4, "{shown:?}: {}", answer.status);
            let error = assert_error(&answer, answer.status, answer.json()["code"].as_str().unwrap());
            assert!(error["hint"].is_string(), "{shown:?}: {error}");
            explained += 1;
        }
        assert_eq!(daemon.get("/v1/healthz")["status"], "ok");
    }
    assert!(explained >= 7, "only {explained} of {} were told why", cases.len());
    assert_eq!(daemon.ids(), [""; 0]);
}

#[test]
fn a_limit_that_the_host_cannot_enforce_is_refused_by_name() {
    let daemon = Daemon::start();
    let about = daemon.get("/v1/info");
    let limits = about["host"]["limits"].as_object().unwrap();
    let mut tried = 0;
    for (field, value) in [
        ("memory_bytes", json!(64 << 20)),
        ("swap_bytes", json!(1 << 20)),
        ("pids", json!(64)),
        ("cpus", json!(0.5)),
        ("cpu_weight", json!(50)),
        ("io_read_bytes_per_second", json!(1 << 20)),
        ("io_write_bytes_per_second", json!(1 << 20)),
        ("io_read_operations_per_second", json!(100)),
        ("io_write_operations_per_second", json!(100)),
        ("disk_bytes", json!(64 << 20)),
        ("disk_files", json!(1000)),
    ] {
        let body = json!({"resources": {field: value}});
        let known = if field == "cpus" { "cpu_millis" } else { field };
        if limits.contains_key(field) || limits.contains_key(known) {
            let sandbox = daemon.create(body);
            let reported = &sandbox["isolation"]["limits"];
            let entry = if reported[field].is_null() { &reported[known] } else { &reported[field] };
            assert!(entry["enforced_by"].as_str().is_some_and(|by| by != "none"), "{field}: {reported}");
        } else {
            tried += 1;
            let error = refused(
                &daemon,
                "POST",
                "/v1/sandboxes",
                body.to_string().as_bytes(),
                &["LIMIT_UNSUPPORTED"],
            );
            assert!(error.to_string().contains(field), "which limit? {error}");
        }
    }
    if limits.get("disk_bytes").is_some_and(|by| by == "tmpfs") {
        // Bounded by memory, files cannot survive a crash of the host as well.
        tried += 1;
        let body = json!({"durability": "durable", "resources": {"disk_bytes": 64 << 20}}).to_string();
        let error = refused(&daemon, "POST", "/v1/sandboxes", body.as_bytes(), &["LIMIT_UNSUPPORTED"]);
        assert!(error.to_string().contains("disk_bytes"), "which limit? {error}");
    }
    if tried == 0 {
        skip!("missing-limit", "this host can enforce every limit");
    }
}
