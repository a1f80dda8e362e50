//! Clones into a sandbox: from `git http-backend` on the sandbox's own loopback, from bundles, and from nowhere.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::http::{Connection, Response};
use crate::harness::image::Image;
use crate::harness::{Daemon, assert_error, binary, host, skip};

/// `git http-backend` behind basic authentication (gitprotocol-http(5)), in the sandbox. `/open/…` wants no
/// password, `/slow/…` never answers, `/elsewhere/…` leads to another port, `/echo/…` repeats what it was told.
const SERVER: &str = r#"
import base64, http.server, os, subprocess, time, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def do(self):
        kind, _, rest = self.path[1:].partition("/")
        given = self.headers.get("Authorization", "")
        with open("/tmp/seen", "a") as seen: seen.write(f"{self.server.server_port} {kind} {given}\n")
        if kind == "slow": time.sleep(600)
        if kind == "elsewhere":
            self.send_response(302); self.send_header("Location", f"http://127.0.0.1:8002/closed/{rest}")
            self.end_headers(); return
        wanted = "Basic " + base64.b64encode(b"me:s3cr3t-Pa55").decode()
        if kind == "echo" and given:
            self.send_response(403); self.send_header("Content-Type", "text/plain"); self.end_headers()
            self.wfile.write(b"you said " + base64.b64decode(given[6:])); return
        if kind != "open" and given != wanted:
            self.send_response(401); self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.end_headers(); return
        path, _, query = rest.partition("?")
        env = dict(os.environ, GIT_PROJECT_ROOT="/srv", GIT_HTTP_EXPORT_ALL="1", PATH_INFO="/" + path,
            QUERY_STRING=query, REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("Content-Type", ""),
            GIT_PROTOCOL=self.headers.get("Git-Protocol", ""), REMOTE_USER="me",
            HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        out = subprocess.run(["git", "http-backend"], env=env, input=body, stdout=subprocess.PIPE).stdout
        head, _, body = out.partition(b"\r\n\r\n")
        lines = [line.decode().split(": ", 1) for line in head.split(b"\r\n")]
        status = [int(value.split()[0]) for name, value in lines if name == "Status"]
        self.send_response(status[0] if status else 200)
        for name, value in lines:
            if name != "Status": self.send_header(name, value)
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    do_GET = do_POST = do
servers = [http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) for port in (8001, 8002)]
import threading
threading.Thread(target=servers[1].serve_forever, daemon=True).start()
print("ready", flush=True)
servers[0].serve_forever()
"#;

/// A repository with two commits on `main`, a tag and a branch; a bundle of it.
const REPOSITORY: &str = r#"set -e
export HOME=/tmp GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
mkdir -p /srv; cd /srv; git init -q -b main app; cd app
echo one > file; git add file; git commit -q -m one; git tag v1
echo two > file; git commit -q -a -m two; git branch other v1
cd ..; git clone -q --bare app app.git; git -C app bundle create -q /srv/app.bundle --all; chmod -R a+rX /srv
git config --global --add safe.directory '*'"#;

const SECRET: &str = "s3cr3t-Pa55";

/// A sandbox with the server and its repositories. The server ends with the connection.
#[track_caller]
fn served(daemon: &Daemon) -> (String, Connection) {
    let name = daemon.sandbox();
    let made = daemon.run(&name, json!({"shell": REPOSITORY, "user": "0"}));
    assert_eq!(made["exit_code"], 0, "{made}");
    let server = json!({"argv": ["python3", "-c", SERVER], "user": "0", "env": {"HOME": "/tmp"}});
    (name.clone(), daemon.start_command(&name, &server, true))
}

/// A daemon, unless the host has no git or python3 to show to sandboxes.
macro_rules! daemon_or_skip {
    () => {
        match ["git", "python3"].iter().find(|tool| !host::has_tool(tool)) {
            Some(tool) => skip!("git", "{tool} is not installed"),
            None => Daemon::start(),
        }
    };
}

fn clone(daemon: &Daemon, name: &str, wanted: Value) -> Response {
    daemon.request("POST", &format!("/v1/sandboxes/{name}/git/clone"), Some(&wanted))
}

#[track_caller]
fn cloned(daemon: &Daemon, name: &str, wanted: Value) -> Value {
    let answer = clone(daemon, name, wanted.clone());
    assert_eq!(answer.status, 200, "{wanted}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

#[test]
fn a_repository_is_cloned_with_credentials_that_leave_no_trace() {
    let daemon = daemon_or_skip!();
    let (name, _server) = served(&daemon);
    // Everything that runs is looked at while git does, by who may see all.
    let watch = r#"while [ ! -e /tmp/done ]; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; done > /tmp/all 2>/dev/null"#;
    let _watching = daemon.start_command(&name, &json!({"shell": watch, "user": "0"}), false);
    let wanted = json!({
        "url": "http://127.0.0.1:8001/closed/app.git", "path": "/workspace/a", "username": "me", "password": SECRET,
    });
    let result = cloned(&daemon, &name, wanted);
    assert_eq!(
        (result["path"].as_str(), result["branch"].as_str()),
        (Some("/workspace/a"), Some("main")),
        "{result}"
    );
    let head =
        daemon.shell(&name, "touch /tmp/done; git -C /workspace/a rev-parse HEAD; cat /workspace/a/file");
    assert_eq!(head, format!("{}\ntwo\n", result["commit"].as_str().unwrap()));
    // The host was told; nothing else was.
    assert!(daemon.shell(&name, "cat /tmp/seen").contains("Basic bWU6czNjcjN0LVBhNTU="));
    let look = format!(
        "grep -a -c -e clone -e GIT_TERMINAL /tmp/all; rm -f /tmp/seen; grep -rlaF {SECRET} \
        /workspace /tmp /home /root /var /etc /dev/shm --exclude=seen | grep -v '^/tmp/all$'; grep -acF {SECRET} /tmp/all"
    );
    let found = daemon.run(&name, json!({"shell": look, "user": "0"}));
    let lines: Vec<&str> = found["stdout"].as_str().unwrap().lines().collect();
    // The server's own text holds the password: its arguments are seen, and only they.
    assert!(lines.len() == 2 && lines[0] != "0", "what was seen, and where the password is: {found}");
    let elsewhere = format!("tr '\\0' '\\n' < /tmp/all | grep -aF {SECRET} | grep -avc 'wanted = '");
    assert_eq!(daemon.run(&name, json!({"shell": elsewhere, "user": "0"}))["stdout"], "0\n", "not in git's");
    assert!(!daemon.log().contains(SECRET));
    assert!(!daemon.get("/v1/sandboxes").to_string().contains(SECRET));
    let plain = daemon.shell(&name, "git -C /workspace/a config --list --local; ls -A /workspace");
    assert!(!plain.contains("credential") && plain.ends_with("\na\n"), "{plain}");
}

#[test]
fn branch_depth_destination_and_tokens_are_as_asked() {
    let daemon = daemon_or_skip!();
    let (name, _server) = served(&daemon);
    let url = "http://127.0.0.1:8001/open/app.git";
    let result = cloned(&daemon, &name, json!({"url": url}));
    assert_eq!(result["path"], "/workspace/app", "{result}");
    assert_eq!(daemon.shell(&name, "git -C app log --oneline | wc -l"), "2\n");
    cloned(&daemon, &name, json!({"url": url, "path": "deep/er/one", "branch": "other", "depth": 1}));
    assert_eq!(
        daemon.shell(&name, "cd deep/er/one; git log --oneline | wc -l; git branch --show-current; cat file"),
        "1\nother\none\n"
    );
    let tagged = cloned(&daemon, &name, json!({"url": url, "path": "/tmp/tag", "branch": "v1"}));
    assert!(tagged["branch"].is_null() && tagged["commit"].is_string(), "{tagged}");
    // An empty directory that is there already stays itself.
    let inode = daemon.shell(&name, "mkdir -m 700 /workspace/mine; stat -c '%i %a' /workspace/mine");
    cloned(&daemon, &name, json!({"url": url, "path": "/workspace/mine"}));
    assert_eq!(
        daemon.shell(&name, "stat -c '%i %a' /workspace/mine; cat mine/file"),
        format!("{inode}two\n")
    );
    for url in ["/srv/app.bundle", "file:///srv/app.git", "/srv/app.git"] {
        cloned(&daemon, &name, json!({"url": url, "path": "/workspace/local"}));
        assert_eq!(daemon.shell(&name, "cat local/file; rm -rf local"), "two\n", "{url}");
    }
    cloned(&daemon, &name, json!({"url": "/srv/app.git", "path": "/workspace/shallow", "depth": 1}));
    assert_eq!(daemon.shell(&name, "git -C shallow log --oneline | wc -l"), "1\n");
    cloned(&daemon, &name, json!({"url": "/srv/app.bundle", "path": "/workspace/whole", "depth": 1}));
    assert_eq!(daemon.shell(&name, "git -C whole log --oneline | wc -l"), "2\n");
    let as_user = json!({"url": "/srv/app.bundle", "path": "/tmp/theirs", "user": "1234"});
    cloned(&daemon, &name, as_user);
    assert_eq!(daemon.shell(&name, "stat -c %u /tmp/theirs/file"), "1234\n");
}

#[test]
fn every_failure_has_its_code_and_leaves_nothing() {
    let daemon = daemon_or_skip!();
    let (name, _server) = served(&daemon);
    let host = "http://127.0.0.1:8001";
    daemon.shell(&name, "mkdir /workspace/full; touch /workspace/full/x; ln -s nowhere /workspace/link; echo x > /workspace/plain");
    let before = daemon.shell(&name, "ls -A /workspace");
    for (wanted, status, code) in [
        (json!({"url": format!("{host}/open/none.git")}), 404, "GIT_REPOSITORY_NOT_FOUND"),
        (json!({"url": "/srv/none"}), 404, "GIT_REPOSITORY_NOT_FOUND"),
        (json!({"url": format!("{host}/open/app.git"), "branch": "none"}), 404, "GIT_BRANCH_NOT_FOUND"),
        (json!({"url": "/srv/app.bundle", "branch": "none"}), 404, "GIT_BRANCH_NOT_FOUND"),
        (json!({"url": format!("{host}/closed/app.git")}), 422, "GIT_DENIED"),
        (
            json!({"url": format!("{host}/closed/app.git"), "username": "me", "password": "wrong"}),
            422,
            "GIT_DENIED",
        ),
        (
            json!({"url": format!("{host}/echo/app.git"), "username": "me", "password": SECRET}),
            422,
            "GIT_DENIED",
        ),
        (json!({"url": "http://127.0.0.1:9/app.git"}), 502, "GIT_UNREACHABLE"),
        (json!({"url": "https://no.such.host.invalid/app.git"}), 502, "GIT_UNREACHABLE"),
        (json!({"url": "/srv/app.bundle", "path": "/workspace/full"}), 409, "GIT_DESTINATION_NOT_EMPTY"),
        (json!({"url": "/srv/app.bundle", "path": "/workspace/plain"}), 409, "GIT_DESTINATION_NOT_EMPTY"),
        (json!({"url": "/srv/app.bundle", "path": "/workspace/link"}), 409, "GIT_DESTINATION_NOT_EMPTY"),
        (json!({"url": "/srv/app.bundle", "path": "/proc/x"}), 422, "GIT_FAILED"),
        (json!({"url": "/srv/app.bundle", "path": "/usr/x", "user": "1234"}), 422, "GIT_FAILED"),
        (json!({"url": format!("{host}/slow/app.git"), "timeout_ms": 700}), 504, "GIT_TIMEOUT"),
        (json!({"url": "/srv/app.bundle", "user": "nobody-here"}), 422, "USER_NOT_FOUND"),
        (json!({"url": "ext::sh -c id"}), 400, "INVALID_REQUEST"),
        (json!({"url": "ext::id"}), 400, "INVALID_REQUEST"),
        (json!({"url": "--upload-pack=id:x"}), 400, "INVALID_REQUEST"),
        (json!({"url": format!("http://me:{SECRET}@127.0.0.1/app.git")}), 400, "INVALID_REQUEST"),
        (json!({"url": "/srv/app.bundle", "path": "../../etc/x"}), 400, "INVALID_REQUEST"),
        (json!({"url": "/srv/app.bundle", "username": "a", "password": "b"}), 400, "INVALID_REQUEST"),
        (json!({"url": "https://h/x", "username": "a", "password": "b\nhost=evil"}), 400, "INVALID_REQUEST"),
        (json!({"url": "https://h/x", "username": "a"}), 400, "INVALID_REQUEST"),
        (json!({"url": "/srv/app.bundle", "depth": 0}), 400, "INVALID_REQUEST"),
        (json!({}), 400, "INVALID_REQUEST"),
    ] {
        let answer = clone(&daemon, &name, wanted.clone());
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{wanted}: {text}");
        let error = assert_error(&answer, status, code);
        assert!(error["hint"].is_string() && !text.contains(SECRET), "{wanted}: {error}");
        assert_eq!(daemon.shell(&name, "ls -A /workspace"), before, "{wanted} left something");
    }
    let empty = "mkdir /workspace/empty";
    daemon.shell(&name, empty);
    let wanted = json!({"url": format!("{host}/closed/app.git"), "path": "/workspace/empty"});
    assert_error(&clone(&daemon, &name, wanted), 422, "GIT_DENIED");
    assert_eq!(daemon.shell(&name, "ls -A /workspace/empty"), "", "an empty directory stays one");
}

#[test]
fn credentials_are_for_the_host_of_the_url_alone() {
    let daemon = daemon_or_skip!();
    let (name, _server) = served(&daemon);
    let wanted = |kind: &str| json!({"url": format!("http://127.0.0.1:8001/{kind}/app.git"), "username": "me", "password": SECRET});
    // The other port would take them.
    assert_error(&clone(&daemon, &name, wanted("elsewhere")), 422, "GIT_DENIED");
    assert!(!daemon.shell(&name, "grep ^8002 /tmp/seen").contains("Basic"));
    // A configuration in the sandbox does not send them elsewhere, and gets none for itself.
    let trap = r#"HOME=/root; git config --global url.http://127.0.0.1:8002/.insteadOf http://127.0.0.1:8001/
        git config --global credential.helper '!cat > /tmp/helped; true'; rm /tmp/seen"#;
    let trapped = daemon.run(&name, json!({"shell": trap, "user": "0"}));
    assert_eq!(trapped["exit_code"], 0, "{trapped}");
    let mut direct = wanted("closed");
    direct["user"] = json!("0");
    cloned(&daemon, &name, direct);
    assert_eq!(
        daemon.shell(&name, "grep -c ^8002 /tmp/seen; ls /tmp/helped 2>&1 | grep -c 'No such'"),
        "0\n1\n"
    );
}

#[test]
fn a_clone_that_nobody_waits_for_is_ended_and_removed() {
    let daemon = daemon_or_skip!();
    let (name, _server) = served(&daemon);
    daemon.shell(&name, "mkdir /workspace/empty");
    for path in ["/workspace/new", "/workspace/empty"] {
        let before = daemon.shell(&name, "find /workspace | sort");
        let wanted = json!({"url": "http://127.0.0.1:8001/slow/app.git", "path": path}).to_string();
        let mut connection = daemon.connect();
        let target = format!("/v1/sandboxes/{name}/git/clone");
        connection.send("POST", &target, &[("Content-Type", "application/json")], wanted.as_bytes()).unwrap();
        let running = || daemon.get(&format!("/v1/sandboxes/{name}/commands"))["commands"].to_string();
        host::wait_for("git to run", || running().contains("--template="));
        host::wait_for("git to ask", || daemon.shell(&name, "cat /tmp/seen 2>&1; true").contains("slow"));
        assert_ne!(daemon.shell(&name, "find /workspace | sort"), before, "a clone has begun");
        drop(connection);
        host::wait_for("git to end", || !running().contains("--template="));
        let began = Instant::now();
        while daemon.shell(&name, "find /workspace | sort") != before {
            assert!(began.elapsed() < Duration::from_secs(10), "something stays of {path}");
        }
        daemon.run(&name, json!({"shell": "rm /tmp/seen", "user": "0"}));
    }
}

#[test]
fn an_image_without_git_says_so() {
    let Some(image) = Image::busybox() else { skip!("busybox", "busybox-static is not installed") };
    let daemon = Daemon::start();
    daemon.import("tools:1", &image.layout_tar("1"));
    let name = crate::harness::id(&daemon.create(json!({"image": "tools:1"})));
    assert_error(&clone(&daemon, &name, json!({"url": "https://h/x"})), 422, "GIT_NOT_IN_IMAGE");
}

#[test]
fn the_command_line_clones_with_a_password_from_stdin() {
    let daemon = daemon_or_skip!();
    let (name, _server) = served(&daemon);
    let run = |arguments: &[&str], input: &str| {
        let mut child = Command::new(binary())
            .args(arguments)
            .env("STOCKADE_SOCKET", daemon.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let url = "http://127.0.0.1:8001/closed/app.git";
    let line = [
        "git",
        "clone",
        &name,
        url,
        "/workspace/cli",
        "--username",
        "me",
        "--password-stdin",
        "--depth",
        "1",
    ];
    let (code, out, err) = run(&line, &format!("{SECRET}\n"));
    assert_eq!((code, &*out), (Some(0), "/workspace/cli\n"), "{err}");
    let (code, _, err) = run(&["git", "clone", &name, url, "--token-stdin"], "wrong");
    assert!(code == Some(125) && err.contains("credentials") && !err.contains("wrong"), "{err}");
    let (code, _, err) = run(&["git", "clone", &name, url, "/workspace/cli"], "");
    assert!(code == Some(125) && err.contains("not empty"), "{err}");
}
