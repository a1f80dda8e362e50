//! A sandbox from its creation to its end, whose it is, and the daemon's own start and end.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Daemon, PATIENCE, assert_error, binary, host, id, scratch};

/// A group that owns the socket in the tests of other users; no such group needs to exist.
pub(crate) const GROUP: &str = "4711";

#[test]
fn a_sandbox_is_created_listed_shown_and_destroyed() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ids(), [""; 0]);
    let sandbox =
        daemon.create(json!({"labels": {"team": "blue"}, "env": {"GREETING": "hi"}, "hostname": "box"}));
    let name = id(&sandbox);
    assert_eq!(name.len(), 12, "{sandbox}");
    assert_eq!(sandbox["state"], "running");
    assert_eq!(sandbox["owner_uid"], 0);
    assert_eq!(sandbox["labels"]["team"], "blue");
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{name}")), sandbox);
    assert_eq!(daemon.ids(), std::slice::from_ref(&name));
    assert_eq!(daemon.shell(&name, "echo $GREETING from $(hostname)"), "hi from box\n");
    daemon.destroy(&name);
    assert_eq!(daemon.ids(), [""; 0]);
    let path = format!("/v1/sandboxes/{name}");
    assert_error(&daemon.request("GET", &path, None), 404, "SANDBOX_NOT_FOUND");
    assert_error(&daemon.request("DELETE", &path, None), 404, "SANDBOX_NOT_FOUND");
    assert_error(&daemon.try_run(&name, &json!({"argv": ["true"]})), 404, "SANDBOX_NOT_FOUND");
}

#[test]
fn a_client_chosen_id_makes_creation_idempotent() {
    let daemon = Daemon::start();
    let spec = json!({"id": "user-123", "env": {"A": "1"}, "labels": {"k": "v"}});
    let first = daemon.create(spec.clone());
    assert_eq!(id(&first), "user-123");
    let again = daemon.request("POST", "/v1/sandboxes", Some(&spec));
    assert_eq!(again.status, 200);
    assert_eq!(again.json(), first);
    for other in [
        json!({"id": "user-123", "env": {"A": "2"}, "labels": {"k": "v"}}),
        json!({"id": "user-123"}),
        json!({"id": "user-123", "env": {"A": "1"}, "labels": {"k": "v"}, "resources": {"pids": 77}}),
    ] {
        assert_error(&daemon.request("POST", "/v1/sandboxes", Some(&other)), 409, "SANDBOX_CONFLICT");
    }
    assert_eq!(daemon.get("/v1/sandboxes/user-123"), first, "a refused request changed the sandbox");
}

#[test]
fn an_id_that_was_destroyed_is_free_again_and_brings_nothing_back() {
    let daemon = Daemon::start();
    for _ in 0..3 {
        daemon.create(json!({"id": "again"}));
        assert_eq!(
            daemon.shell("again", "ls /workspace /tmp; id -u"),
            daemon.shell("again", "ls /workspace /tmp; id -u")
        );
        assert_eq!(daemon.shell("again", "cat /workspace/left /tmp/left 2>/dev/null; true"), "");
        daemon.shell("again", "echo secret > /tmp/left; echo secret > /workspace/left");
        daemon.destroy("again");
    }
}

#[test]
fn many_requests_for_one_id_at_once_make_one_sandbox() {
    let daemon = Daemon::start();
    let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let answer = daemon.request("POST", "/v1/sandboxes", Some(&json!({"id": "one"})));
                    (answer.status, answer.json())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|(status, _)| *status == 201).count(), 1, "{answers:?}");
    for (status, body) in &answers {
        assert!(matches!(status, 200 | 201) || body["code"] == "SANDBOX_BUSY", "{status} {body}");
    }
    assert_eq!(daemon.ids(), ["one"]);
    daemon.destroy("one");
}

#[test]
fn lists_are_filtered_by_every_label_given() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "a", "labels": {"team": "blue", "tier": "web"}}));
    daemon.create(json!({"id": "b", "labels": {"team": "blue"}}));
    daemon.create(json!({"id": "c"}));
    let listed = |query: &str| {
        let answer = daemon.get(&format!("/v1/sandboxes?{query}"));
        let mut ids: Vec<String> = answer["sandboxes"].as_array().unwrap().iter().map(id).collect();
        ids.sort();
        ids
    };
    assert_eq!(listed("label=team%3Dblue"), ["a", "b"]);
    assert_eq!(listed("label=team%3Dblue&label=tier%3Dweb"), ["a"]);
    assert_eq!(listed("label=team%3Dred"), [""; 0]);
}

#[test]
fn two_sandboxes_share_neither_files_nor_processes() {
    let daemon = Daemon::start();
    let (one, two) = (daemon.sandbox(), daemon.sandbox());
    daemon.shell(&one, "echo mine > /tmp/mine; echo mine > /workspace/mine");
    let _running = daemon.start_command(&one, &json!({"argv": ["sleep", "600"]}), false);
    assert_eq!(daemon.shell(&two, "ls /tmp /workspace"), "/tmp:\n\n/workspace:\n");
    let seen = daemon.shell(&two, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    assert!(!seen.contains("sleep 600"), "{seen}");
}

#[test]
fn what_the_api_reports_is_what_the_kernel_has() {
    let daemon = Daemon::start();
    let sandbox = daemon.create(json!({}));
    let pid = i32::try_from(sandbox["pid"].as_i64().unwrap()).unwrap();
    let isolation = &sandbox["isolation"];
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let reported =
            isolation["namespaces"][kind].as_u64().unwrap_or_else(|| panic!("{kind}: {isolation}"));
        let kernel = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(kernel.display().to_string(), format!("{kind}:[{reported}]"));
        assert_ne!(
            kernel,
            fs::read_link(format!("/proc/self/ns/{kind}")).unwrap(),
            "the host's {kind} namespace"
        );
    }
    let first = isolation["host_id_first"].as_u64().unwrap();
    assert_eq!(isolation["host_id_count"], 65_536);
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    assert!(map.split_whitespace().any(|word| word == first.to_string()), "{first} is not in {map}");
    assert!(first > 65_536, "the range overlaps ordinary users: {first}");
    assert_eq!(isolation["no_new_privs"], true);
    assert_eq!(isolation["seccomp_mode"], 2);
    let name = id(&sandbox);
    let status = daemon.shell(&name, "cat /proc/self/status");
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    let other = daemon.create(json!({}));
    assert_ne!(other["isolation"]["host_id_first"], isolation["host_id_first"], "two sandboxes share ids");
}

/// Sends a request as another user, by curl, and gives status and body.
pub(crate) fn as_user(
    daemon: &Daemon,
    uid: &str,
    gid: &str,
    method: &str,
    path: &str,
    body: &str,
) -> Option<(u16, Value)> {
    let output = Command::new("setpriv")
        .args(["--reuid", uid, "--regid", gid, "--clear-groups", "curl", "-s", "-w", "\n%{http_code}"])
        .args(["-H", "Content-Type: application/json", "-X", method, "-d", body, "--unix-socket"])
        .arg(daemon.socket())
        .arg(format!("http://stockade{path}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n')?;
    Some((
        status.parse().ok().filter(|&status| status != 0)?,
        serde_json::from_str(body).unwrap_or(Value::Null),
    ))
}

#[test]
fn a_sandbox_belongs_to_the_uid_that_made_it_and_root_sees_all() {
    let daemon = Daemon::with(&["--socket-gid", GROUP]);
    let (status, mine) =
        as_user(&daemon, "1001", GROUP, "POST", "/v1/sandboxes", r#"{"id":"mine"}"#).unwrap();
    assert_eq!((status, &mine["owner_uid"]), (201, &json!(1001)), "{mine}");
    for (method, path, body) in [
        ("GET", "/v1/sandboxes/mine", ""),
        ("DELETE", "/v1/sandboxes/mine", ""),
        ("POST", "/v1/sandboxes/mine/commands", r#"{"argv":["true"]}"#),
        ("GET", "/v1/sandboxes/mine/commands", ""),
    ] {
        let (status, answer) = as_user(&daemon, "1002", GROUP, method, path, body).unwrap();
        assert_eq!(
            (status, &answer["code"]),
            (404, &json!("SANDBOX_NOT_FOUND")),
            "{method} {path}: {answer}"
        );
    }
    let (_, listed) = as_user(&daemon, "1002", GROUP, "GET", "/v1/sandboxes", "").unwrap();
    assert_eq!(listed["sandboxes"], json!([]));
    // The id is taken for everybody, and the answer does not tell by whom or as what.
    let (status, taken) =
        as_user(&daemon, "1002", GROUP, "POST", "/v1/sandboxes", r#"{"id":"mine"}"#).unwrap();
    assert_eq!((status, &taken["code"]), (409, &json!("SANDBOX_CONFLICT")), "{taken}");
    let run = r#"{"shell":"echo $((6*7))"}"#;
    let (status, result) =
        as_user(&daemon, "1001", GROUP, "POST", "/v1/sandboxes/mine/commands", run).unwrap();
    assert_eq!((status, &result["stdout"]), (200, &json!("42\n")), "{result}");
    assert_eq!(daemon.ids(), ["mine"], "root does not see it");
    daemon.destroy("mine");
}

#[test]
fn the_socket_and_the_state_are_closed_to_other_users() {
    let daemon = Daemon::start();
    assert!(as_user(&daemon, "1001", "1001", "GET", "/v1/healthz", "").is_none(), "a stranger got through");
    assert_eq!(as_user(&daemon, "0", "0", "GET", "/v1/healthz", "").map(|(status, _)| status), Some(200));
    let name = daemon.sandbox();
    daemon.shell(&name, "echo secret > /workspace/secret");
    for directory in
        [daemon.state_dir(), daemon.state_dir().join("sandboxes"), daemon.runtime_dir().join("sandboxes")]
    {
        let output = Command::new("setpriv")
            .args(["--reuid", "1001", "--regid", "1001", "--clear-groups", "ls"])
            .arg(&directory)
            .output()
            .unwrap();
        assert!(!output.status.success(), "uid 1001 can list {}", directory.display());
    }
}

#[test]
fn health_info_and_openapi_describe_this_daemon() {
    let daemon = Daemon::start();
    assert_eq!(daemon.get("/v1/healthz"), json!({"status": "ok"}));
    let about = daemon.get("/v1/info");
    assert_eq!(about["version"], env!("CARGO_PKG_VERSION"));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(about["host"]["kernel"], release.trim(), "{about}");
    let openapi = daemon.get("/v1/openapi.json");
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1"), "{}", openapi["openapi"]);
    for path in [
        "/v1/sandboxes",
        "/v1/sandboxes/{id}",
        "/v1/sandboxes/{id}/commands",
        "/v1/sandboxes/{id}/commands/{cid}/signal",
        "/v1/images",
        "/v1/images/pull",
        "/v1/images/import",
        "/v1/healthz",
        "/v1/info",
    ] {
        let generic = |text: &str| {
            text.split('/')
                .map(|part| if part.starts_with('{') { "{}" } else { part }.to_owned())
                .collect::<Vec<_>>()
        };
        let found = openapi["paths"].as_object().unwrap().keys().any(|key| generic(key) == generic(path));
        assert!(
            found,
            "{path} is not in {:?}",
            openapi["paths"].as_object().unwrap().keys().collect::<Vec<_>>()
        );
    }
    let answer = daemon.send("GET", "/v1/nowhere", &[("x-request-id", "from-the-client")], b"");
    assert_error(&answer, 404, "ROUTE_NOT_FOUND");
}

#[test]
fn sigterm_ends_the_daemon_cleanly_and_leaves_running_sandboxes_alone() {
    let mut daemon = Daemon::start();
    let sandbox = daemon.create(json!({"id": "survivor"}));
    daemon.shell("survivor", "echo kept > /workspace/kept");
    assert!(daemon.stop().success());
    assert!(!daemon.socket().exists(), "the socket is left behind");
    assert!(host::alive(i32::try_from(sandbox["pid"].as_i64().unwrap()).unwrap()), "the sandbox died");
    daemon.spawn();
    assert_eq!(daemon.ids(), ["survivor"]);
    assert_eq!(daemon.shell("survivor", "cat /workspace/kept"), "kept\n");
}

#[test]
fn a_second_daemon_on_the_same_directories_is_refused() {
    let daemon = Daemon::start();
    let output = daemon.command().output().unwrap();
    assert!(!output.status.success());
    assert_eq!(daemon.get("/v1/healthz")["status"], "ok", "the first one was disturbed");
}

#[test]
fn systemd_is_told_of_readiness_and_of_the_end() {
    let directory = scratch();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut child = Command::new(binary())
        .args(["serve", "--preview-listen", "off", "--runtime-dir"])
        .arg(directory.path().join("run"))
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = |word: &str| {
        let mut buffer = [0; 4096];
        loop {
            let size = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {word}: {error}"));
            if String::from_utf8_lossy(&buffer[..size]).contains(word) {
                return;
            }
        }
    };
    until("READY=1");
    // Ready means that the socket answers, at once.
    let socket = directory.path().join("run/stockade.sock");
    let answer =
        crate::harness::http::Connection::open(&socket).unwrap().request("GET", "/v1/healthz", &[], b"");
    assert_eq!(answer.unwrap().status, 200);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    until("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_socket_passed_by_systemd_is_used() {
    // std's Command passes no descriptors and sets no LISTEN_PID; a few lines of Python stand in for systemd.
    const ACTIVATE: &str = r#"
import os, socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(sys.argv[1]); listener.listen(64)
os.dup2(listener.fileno(), 3); os.set_inheritable(3, True)
os.environ["LISTEN_PID"] = str(os.getpid()); os.environ["LISTEN_FDS"] = "1"
os.execv(sys.argv[2], sys.argv[2:])
"#;
    let directory = scratch();
    let path = directory.path().join("activated.sock");
    let mut child = Command::new("python3")
        .args(["-c", ACTIVATE])
        .arg(&path)
        .arg(binary())
        .args(["serve", "--preview-listen", "off", "--runtime-dir"])
        .arg(directory.path().join("run"))
        .arg("--state-dir")
        .arg(directory.path().join("state"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    host::wait_for("the passed socket to answer", || {
        crate::harness::http::Connection::open(&path)
            .and_then(|mut connection| connection.request("GET", "/v1/healthz", &[], b""))
            .is_ok_and(|answer| answer.status == 200)
    });
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(path.exists(), "a socket of systemd's is not ours to remove");
}

#[test]
fn serve_and_its_siblings_hold_no_privilege() {
    let daemon = Daemon::start();
    let serve = daemon.serve_pid();
    let field = |name: &str| host::status(serve, name).unwrap_or_default();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set} of serve");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    assert!(!field("Uid").split_whitespace().any(|uid| uid == "0"), "serve runs as {}", field("Uid"));
    assert_eq!(field("Groups"), "", "serve keeps groups of root");
    // The audit that makes `serve holds nothing` a fact: neither environment nor argument tells it anything.
    assert_eq!(fs::read(format!("/proc/{serve}/environ")).unwrap(), b"");
    assert_eq!(fs::metadata(daemon.socket()).unwrap().mode() & 0o007, 0, "the socket is open to everybody");
    // launch is one thread: what it clones is a copy of exactly one.
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.launch_pid())).unwrap().count();
    assert_eq!(threads, 1, "threads of launch");
    for pid in [serve, daemon.launch_pid()] {
        let executable = fs::read_link(format!("/proc/{pid}/exe")).unwrap().display().to_string();
        assert!(executable.contains("memfd:"), "{executable} is not a sealed copy");
    }
}

#[test]
fn an_agent_whose_first_process_is_killed_is_reported_dead_and_can_be_removed() {
    let daemon = Daemon::start();
    let sandbox = daemon.create(json!({"id": "victim"}));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(sandbox["pid"].as_i64().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    host::wait_for("the death to be noticed", || {
        let answer = daemon.request("GET", "/v1/sandboxes/victim", None);
        answer.status == 404 || answer.json()["state"] == "dead"
    });
    let answer = daemon.try_run("victim", &json!({"argv": ["true"]}));
    assert!(matches!(answer.status, 404 | 409 | 410), "{}", String::from_utf8_lossy(&answer.body));
    let removed = daemon.request("DELETE", "/v1/sandboxes/victim", None);
    assert!(matches!(removed.status, 204 | 404));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(daemon.ids(), [""; 0]);
    daemon.create(json!({"id": "victim"}));
    assert_eq!(daemon.shell("victim", "echo again"), "again\n");
}
