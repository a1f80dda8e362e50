//! Buckets in a sandbox's tree: mounted by the real binary from a real server, with the key outside, and never hanging.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::s3::S3;
use crate::harness::{Daemon, assert_error, host, id, skip};

const WORKER: &str = "stockade-bucket";

/// A daemon whose operator opens loopback.
fn daemon() -> Daemon {
    Daemon::configured("[network]\nopen = [\"127.0.0.0/8\"]\n[preview]\nlisten = \"off\"\n")
}

macro_rules! server {
    () => {
        match S3::start() {
            Some(server) => server,
            None => skip!("registries", "Python has no moto: cargo xtask test installs it"),
        }
    };
}

fn try_mount(daemon: &Daemon, id: &str, body: &Value) -> crate::harness::http::Response {
    daemon.request("POST", &format!("/v1/sandboxes/{id}/mounts"), Some(body))
}

#[track_caller]
fn mount(daemon: &Daemon, id: &str, body: &Value) -> Value {
    let answer = try_mount(daemon, id, body);
    assert_eq!(answer.status, 201, "{}\n{}", String::from_utf8_lossy(&answer.body), daemon.log());
    answer.json()
}

fn state(daemon: &Daemon, id: &str) -> String {
    daemon.get(&format!("/v1/sandboxes/{id}/mounts"))["mounts"][0]["state"].as_str().unwrap().to_owned()
}

/// The first bytes of a file through the files API, whatever comes of it.
fn read(daemon: &Daemon, id: &str, path: &str) -> crate::harness::http::Response {
    daemon.request("GET", &format!("/v1/sandboxes/{id}/files/content?path={path}"), None)
}

#[test]
fn a_bucket_is_files_and_goes_away() {
    let (server, daemon) = (server!(), daemon());
    server.put("in/deep", "deep\n");
    server.put("greeting", "hello\n");
    let id = daemon.sandbox();
    let view = mount(&daemon, &id, &server.mount("/data"));
    assert_eq!((&view["state"], &view["credentials"]), (&json!("mounted"), &json!("request")));
    assert_eq!(daemon.shell(&id, "cd /data && ls && cat greeting in/deep"), "greeting\nin\nhello\ndeep\n");
    // The kernel reads further ahead than it does by itself.
    let device = daemon.shell(&id, "mountpoint -d /data");
    let knob = format!("/sys/class/bdi/{}/read_ahead_kb", device.trim());
    assert_eq!(std::fs::read_to_string(knob).unwrap(), "1024\n");
    daemon.shell(&id, "cd /data && echo new > new && cp -r in copy && mv greeting moved");
    assert_eq!(server.get("new").as_deref(), Some("new\n"));
    assert_eq!((server.get("moved").as_deref(), server.get("greeting")), (Some("hello\n"), None));
    // The files API reads, writes and lists through a worker inside.
    assert_eq!(read(&daemon, &id, "/data/new").body, b"new\n");
    let path = format!("/v1/sandboxes/{id}/files/content?path=/data/by-api");
    let written = daemon.send("PUT", &path, &[("Content-Type", "application/octet-stream")], b"by the API");
    assert!(written.status < 300, "{}", String::from_utf8_lossy(&written.body));
    assert_eq!(server.get("by-api").as_deref(), Some("by the API"));
    assert!(daemon.role_pid(WORKER).is_some());
    let gone = daemon.request("DELETE", &format!("/v1/sandboxes/{id}/mounts/m1"), None);
    assert_eq!((gone.status, &gone.json()["lost_count"]), (200, &json!(0)));
    assert_eq!(daemon.shell(&id, "ls -A /data"), "");
    assert_eq!(daemon.role_pid(WORKER), None);
    assert!(!daemon.state_dir().join("mounts").join(&id).join("1").exists());
}

#[test]
fn what_cannot_be_mounted_says_why_and_leaves_nothing() {
    let (server, daemon) = (server!(), daemon());
    let id = daemon.sandbox();
    let with = |field: &str, value: Value| {
        let mut body = server.mount("/data");
        body[field] = value;
        try_mount(&daemon, &id, &body)
    };
    assert_error(&with("bucket", json!("absent")), 404, "BUCKET_NOT_FOUND");
    let wrong = json!({"access_key_id": server.access_key_id, "secret_access_key": "wrong"});
    assert_error(&with("credentials", wrong), 422, "BUCKET_DENIED");
    assert_error(&with("endpoint", json!("http://127.0.0.1:1")), 502, "BUCKET_UNREACHABLE");
    // Not one that clients may look around in: only the operator opens those.
    assert_error(&with("endpoint", json!("http://169.254.169.254")), 502, "BUCKET_UNREACHABLE");
    assert_error(&with("credentials", json!({"environment": true})), 403, "PERMISSION_DENIED");
    assert_error(&with("credentials", json!({"profile": "default"})), 403, "PERMISSION_DENIED");
    assert_error(&with("path", json!("/proc/x")), 409, "MOUNT_IN_USE");
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{id}/mounts"))["mounts"], json!([]));
    assert_eq!(daemon.role_pid(WORKER), None);
    let closed = Daemon::start();
    let id = closed.sandbox();
    assert_error(&try_mount(&closed, &id, &server.mount("/data")), 502, "BUCKET_UNREACHABLE");
}

#[test]
fn an_operator_lends_keys_and_roles() {
    let server = server!();
    server.put("greeting", "hello\n");
    let files = crate::harness::scratch();
    let [profiles, token, wrong] = ["profiles", "token", "wrong"].map(|name| files.path().join(name));
    fs::write(&token, format!("{}\n", server.token)).unwrap();
    fs::write(&wrong, "somebody-else").unwrap();
    let role = |name: &str, token: &std::path::Path| {
        format!(
            "[{name}]\nrole_arn = {}\nweb_identity_token_file = {}\nendpoint_url_sts = {}\n",
            server.role_arn,
            token.display(),
            server.endpoint
        )
    };
    let keys = format!(
        "[keys]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        server.access_key_id, server.secret_access_key
    );
    let unknown = role("unknown", &files.path().join("absent"));
    fs::write(&profiles, [keys, role("role", &token), role("wrong", &wrong), unknown].concat()).unwrap();
    let mut daemon = Daemon::configured(&format!(
        "[network]\nopen = [\"127.0.0.0/8\"]\n[preview]\nlisten = \"off\"\n\
         [mounts]\nenvironment = true\ncredentials_file = \"{}\"\n",
        profiles.display()
    ));
    let id = daemon.sandbox();
    let with = |daemon: &Daemon, credentials: Value| {
        let mut body = server.mount("/data");
        body["credentials"] = credentials;
        try_mount(daemon, &id, &body)
    };
    let works = |daemon: &Daemon, credentials: Value, shown: &str| {
        let answer = with(daemon, credentials);
        assert_eq!(answer.status, 201, "{}\n{}", String::from_utf8_lossy(&answer.body), daemon.log());
        assert_eq!(answer.json()["credentials"], shown);
        assert_eq!(daemon.shell(&id, "cat /data/greeting"), "hello\n");
        assert_eq!(daemon.request("DELETE", &format!("/v1/sandboxes/{id}/mounts/m1"), None).status, 200);
    };
    works(&daemon, json!({"profile": "keys"}), "profile keys");
    works(&daemon, json!({"profile": "role"}), "profile role");
    assert_error(&with(&daemon, json!({"profile": "wrong"})), 422, "BUCKET_DENIED");
    assert_error(&with(&daemon, json!({"profile": "unknown"})), 403, "PERMISSION_DENIED");
    assert_error(&with(&daemon, json!({"profile": "absent"})), 403, "PERMISSION_DENIED");
    // There is nothing in its environment.
    assert_error(&with(&daemon, json!({"environment": true})), 403, "PERMISSION_DENIED");
    assert!(daemon.stop().success());
    daemon.environment = vec![
        ("AWS_ACCESS_KEY_ID", server.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", server.secret_access_key.clone()),
    ];
    daemon.spawn();
    works(&daemon, json!({"environment": true}), "environment");
    assert!(daemon.stop().success());
    daemon.environment = vec![
        ("AWS_ROLE_ARN", server.role_arn.clone()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.display().to_string()),
        ("AWS_ENDPOINT_URL_STS", server.endpoint.clone()),
    ];
    daemon.spawn();
    works(&daemon, json!({"environment": true}), "environment");
    assert!(!daemon.log().contains(&server.token));
}

/// Whether the memory of a process holds these bytes.
fn holds(pid: i32, wanted: &[u8]) -> bool {
    use std::os::unix::fs::FileExt as _;
    let (Ok(maps), Ok(memory)) =
        (fs::read_to_string(format!("/proc/{pid}/maps")), fs::File::open(format!("/proc/{pid}/mem")))
    else {
        return false;
    };
    maps.lines().any(|line| {
        let Some((range, rest)) = line.split_once(' ') else { return false };
        let Some((first, last)) = range.split_once('-') else { return false };
        let number = |text| u64::from_str_radix(text, 16).unwrap_or(0);
        let length = number(last) - number(first);
        if !rest.starts_with('r') || length > 1 << 30 {
            return false;
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        let read = memory.read_at(&mut bytes, number(first)).unwrap_or(0);
        bytes[..read].windows(wanted.len()).any(|window| window == wanted)
    })
}

fn files_below(directory: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(entry.path()),
            Ok(kind) if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn the_key_is_nowhere_in_the_sandbox_nor_in_what_is_shown_or_kept() {
    let (server, daemon) = (server!(), daemon());
    server.put("greeting", "hello\n");
    let sandbox = daemon.create(json!({}));
    let id = id(&sandbox);
    let mounted = mount(&daemon, &id, &server.mount("/data"));
    daemon.shell(&id, "cat /data/greeting; echo x > /data/x");
    let _runs = daemon.start_command(&id, &json!({"shell": "exec 3</data/x; echo here; sleep 600"}), true);
    let secret = server.secret_access_key.as_bytes();
    let has = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);

    // The control: the worker has it, and this finds it.
    let worker = daemon.role_pid(WORKER).unwrap();
    assert!(holds(worker, secret));
    let inside = host::processes_in("pid", sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap());
    assert!(inside.len() >= 3, "{inside:?}");
    for pid in inside.into_iter().chain([daemon.launch_pid(), daemon.role_pid("stockade-gateway").unwrap()]) {
        assert!(!holds(pid, secret), "{} ({pid}) has it", host::argument_zero(pid));
    }
    for pid in host::children(daemon.launch_pid()) {
        for file in ["environ", "cmdline"] {
            assert!(!has(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()), "{file} of {pid}");
        }
    }
    // As root of the sandbox: everything that is a file, but the host's own /usr, and everything in /proc.
    let search = format!(
        "grep -rsIl --exclude-dir=sys --exclude-dir=usr -F -e {} / 2>/dev/null | grep -v '^/proc/[0-9]*/\\(task/[0-9]*/\\)\\?cmdline$'; true",
        server.secret_access_key
    );
    let found = daemon.run(&id, json!({"shell": search, "timeout_ms": 120_000}));
    assert_eq!(found["stdout"], "", "{found}");

    assert!(!mounted.to_string().contains(&server.secret_access_key));
    for path in ["", "/mounts", "/mounts/m1", "/network"] {
        assert!(!has(&daemon.request("GET", &format!("/v1/sandboxes/{id}{path}"), None).body), "{path}");
    }
    assert!(!has(daemon.log().as_bytes()), "the log");
    let kept: Vec<_> = files_below(daemon.state_dir())
        .into_iter()
        .filter(|file| has(&fs::read(file).unwrap_or_default()))
        .collect();
    assert_eq!(kept, [""; 0].map(PathBuf::from), "on the disk");
    // Where it is: beside the record, for root alone.
    let running: Vec<_> = files_below(daemon.runtime_dir())
        .into_iter()
        .filter(|file| has(&fs::read(file).unwrap_or_default()))
        .collect();
    assert_eq!(running, [daemon.runtime_dir().join("sandboxes").join(&id).join("mount-1")]);
}

#[test]
fn a_worker_can_do_nothing_but_its_work() {
    let (server, daemon) = (server!(), daemon());
    let id = daemon.sandbox();
    mount(&daemon, &id, &server.mount("/data"));
    let worker = daemon.role_pid(WORKER).unwrap();
    let field = |name: &str| host::status(worker, name).unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(field(set).trim(), 16), Ok(0), "{set}");
    }
    assert_eq!((field("NoNewPrivs").trim(), field("Seccomp").trim()), ("1", "2"));
    let uid: u32 = field("Uid").split_whitespace().next().unwrap().parse().unwrap();
    let serve: u32 =
        host::status(daemon.serve_pid(), "Uid").unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert_eq!(uid, serve + 3);
    for kind in ["net", "user", "pid", "ipc", "uts"] {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(namespace(worker), namespace(std::process::id().cast_signed()), "{kind}");
    }
    assert_eq!(fs::read(format!("/proc/{worker}/environ")).unwrap(), b"");
    // Its network has no way anywhere.
    let namespace = PathBuf::from(format!("/proc/{worker}/ns/net"));
    let refused = host::in_network(&namespace, || {
        std::net::TcpStream::connect(server.endpoint.trim_start_matches("http://"))
    });
    assert!(refused.is_err());
}

#[test]
fn a_server_that_hangs_keeps_nobody_from_ending_anything() {
    let (server, daemon) = (server!(), daemon());
    server.put("large", &"x".repeat(1 << 20));
    let (id, other) = (daemon.sandbox(), daemon.sandbox());
    let mut body = server.mount("/data");
    body["attribute_ttl_ms"] = json!(0);
    mount(&daemon, &id, &body);
    server.hang();
    let _stuck: Vec<_> = ["cat /data/large", "ls -l /data", "echo x > /data/new"]
        .iter()
        .map(|line| daemon.start_command(&id, &json!({"shell": format!("echo begun; {line}")}), true))
        .collect();
    // Neither the daemon nor the agent waits for it: not for the files API, nor for other commands.
    let path = format!("/v1/sandboxes/{id}/files/content?path=/data/large");
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| daemon.request("GET", &path, None));
        assert_eq!(daemon.shell(&id, "echo alive"), "alive\n");
        assert_eq!(daemon.get("/v1/healthz")["status"], "ok");
        assert_eq!(daemon.shell(&other, "echo alive"), "alive\n");
        let answer = reading.join().unwrap();
        assert_ne!(answer.status, 200, "a file that nobody has sent");
    });
    daemon.request("POST", &format!("/v1/sandboxes/{id}/pause"), None);
    daemon.destroy(&id);
    assert_eq!(daemon.role_pid(WORKER), None);
    server.go_on();
}

#[test]
fn a_worker_that_is_killed_is_replaced_and_what_was_not_uploaded_is() {
    let (server, daemon) = (server!(), daemon());
    server.put("greeting", "hello\n");
    let id = daemon.sandbox();
    mount(&daemon, &id, &server.mount("/data"));
    assert_eq!(daemon.shell(&id, "cat /data/greeting"), "hello\n");
    let script = "(echo kept; while [ ! -e /go ]; do sleep 0.05; done) | tee /data/kept; sleep 600";
    let _writes = daemon.start_command(&id, &json!({"shell": script}), true);
    server.hang();
    daemon.shell(&id, "touch /go");
    let dirty = || daemon.get(&format!("/v1/sandboxes/{id}/mounts/m1"))["status"]["dirty_bytes"].as_u64();
    host::wait_for("something to be uploaded", || dirty().is_some_and(|bytes| bytes > 0));
    let worker = daemon.role_pid(WORKER).unwrap();
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    server.go_on();
    host::wait_for("another worker", || {
        state(&daemon, &id) == "mounted" && daemon.role_pid(WORKER).is_some_and(|pid| pid != worker)
    });
    host::wait_for("the upload", || server.get("kept").as_deref() == Some("kept\n"));
    assert_eq!(daemon.shell(&id, "cat /data/greeting /data/kept"), "hello\nkept\n");
    assert_eq!(daemon.shell(&id, "grep -c ' /data ' /proc/self/mountinfo"), "1\n");
    // So is one that stands still: SIGKILL of a stopped process, and the gateway's death.
    kill(Pid::from_raw(daemon.role_pid("stockade-gateway").unwrap()), Signal::SIGKILL).unwrap();
    server.put("later", "later\n");
    host::wait_for("the gateway", || {
        daemon.run(&id, json!({"shell": "cat /data/later"}))["stdout"] == "later\n"
    });
}

#[test]
fn buckets_come_back_after_stop_and_crash() {
    let (server, mut daemon) = (server!(), daemon());
    server.put("greeting", "hello\n");
    let mut spec = server.mount("/data");
    spec["uid"] = json!(1000);
    daemon.create(json!({"id": "box", "mounts": [spec]}));
    let look = "stat -c %u /data/greeting; cat /data/greeting";
    assert_eq!(daemon.shell("box", look), "1000\nhello\n");
    let post = |daemon: &Daemon, verb: &str| {
        assert_eq!(daemon.request("POST", &format!("/v1/sandboxes/box/{verb}"), None).status, 200, "{verb}");
    };
    post(&daemon, "stop");
    assert_eq!((state(&daemon, "box").as_str(), daemon.role_pid(WORKER)), ("stopped", None));
    assert_eq!(daemon.shell("box", look), "1000\nhello\n");
    // serve alone: the worker goes on, and is known again.
    let worker = daemon.role_pid(WORKER).unwrap();
    kill(Pid::from_raw(daemon.serve_pid()), Signal::SIGKILL).unwrap();
    daemon.wait_until_healthy();
    assert_eq!((state(&daemon, "box").as_str(), daemon.role_pid(WORKER)), ("mounted", Some(worker)));
    assert_eq!(daemon.shell("box", look), "1000\nhello\n");
    // Everything: no worker stays, and another takes its place.
    daemon.kill_all();
    host::wait_for("the worker's end", || !host::alive(worker));
    daemon.spawn();
    host::wait_for("the mount", || state(&daemon, "box") == "mounted");
    assert_eq!(daemon.shell("box", look), "1000\nhello\n");
    assert_eq!(daemon.shell("box", "grep -c ' /data ' /proc/self/mountinfo"), "1\n");
    // A bucket that is not to be had when the sandbox is woken is no empty directory.
    post(&daemon, "stop");
    server.hang();
    assert_ne!(daemon.run("box", json!({"shell": "ls /data"}))["exit_code"], 0);
    assert_eq!(state(&daemon, "box"), "failed");
    server.go_on();
    host::wait_for("the mount", || state(&daemon, "box") == "mounted");
    assert_eq!(daemon.shell("box", look), "1000\nhello\n");
}
