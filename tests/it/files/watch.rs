//! Watches: what happens is reported, once, in order, and nothing of it is lost without a word.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Files, encoded, text};
use crate::harness::http::{Body, Connection, Head};
use crate::harness::{assert_error, host, probe};

/// A connection that carries a watch.
struct Watch {
    connection: Connection,
    head: Head,
}

impl Watch {
    #[track_caller]
    fn start(files: &Files, path: &str, more: &str) -> Self {
        let mut connection = files.daemon.connect();
        let route = format!("/v1/sandboxes/{}/watch?path={}{more}", files.id, encoded(path.as_bytes()));
        connection.send("GET", &route, &[("Accept", "text/event-stream")], b"").unwrap();
        let head = connection.receive_head().unwrap();
        assert_eq!(head.status, 200);
        Self { connection, head }
    }

    fn events(&mut self) -> Events<'_> {
        let mut body = self.connection.body(&self.head);
        let first = body.next_event().unwrap().unwrap();
        assert_eq!((first.name.as_str(), first.id.as_deref()), ("armed", Some("1")));
        Events { body, last: 1 }
    }
}

struct Events<'a> {
    body: Body<'a>,
    last: u64,
}

impl Events<'_> {
    #[track_caller]
    fn next(&mut self) -> (String, Value) {
        let event = self.body.next_event().unwrap().expect("the watch ended");
        let id = event.id.unwrap().parse().unwrap();
        assert_eq!(id, self.last + 1, "ids go up by one");
        self.last = id;
        (event.name, serde_json::from_str(&event.data).unwrap())
    }

    /// Events as short lines, up to and with the first that ends so.
    #[track_caller]
    fn until(&mut self, end: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let (name, data) = self.next();
            let from = data.get("from").map(|from| format!("{} > ", text(from))).unwrap_or_default();
            let slash = if data["directory"] == true { "/" } else { "" };
            lines.push(format!("{name} {from}{}{slash}", data.get("path").map(text).unwrap_or_default()));
            if lines.last().unwrap().ends_with(end) {
                return lines;
            }
        }
    }
}

#[test]
fn every_kind_of_change_is_reported() {
    let files = Files::start();
    files.shell("mkdir /workspace/d /workspace/e && echo x > /workspace/d/old");
    let mut watch = Watch::start(&files, "/workspace/d", "");
    let mut events = watch.events();
    files.shell("touch /workspace/d/a");
    files.shell("echo 1 > /workspace/d/old");
    files.shell("chmod 600 /workspace/d/old");
    files.shell("mv /workspace/d/old /workspace/d/new");
    files.shell("mv /workspace/d/new /workspace/e/out");
    files.shell("mv /workspace/e/out /workspace/d/in");
    files.shell("mkdir /workspace/d/sub && touch /workspace/d/sub/unseen && rm /workspace/d/in");
    files.shell("touch \"$(printf '/workspace/d/\\377')\"");
    files.shell("touch /workspace/d/end");
    let lines = events.until("end");
    let expected = [
        "create a",
        "modify old",
        "attrib old",
        "rename old > new",
        "delete new",
        "create in",
        "create sub/",
        "delete in",
        "create base64:/w==",
        "create end",
    ];
    let mut seen: Vec<_> =
        lines.iter().filter(|line| !line.starts_with("attrib a") && *line != "attrib base64:/w==").collect();
    // Truncating and writing are two.
    seen.dedup();
    assert_eq!(seen, expected, "{lines:?}");
    files.shell("rm -r /workspace/d");
    events.until("gone ");
    assert!(events.body.next_event().unwrap().is_none());
}

#[test]
fn directories_that_come_later_are_watched_without_a_gap() {
    let files = Files::start();
    files.shell("mkdir -p /workspace/d /workspace/outside/deep && touch /workspace/outside/deep/file");
    let mut watch = Watch::start(&files, "/workspace/d", "&recursive");
    let mut events = watch.events();
    // All of it at once: whatever is made before the new directories are armed is found by reading them.
    let script = "cd /workspace/d; for a in 1 2 3 4 5; do mkdir -p $a/x/y/z; for n in 1 2 3 4 5 6 7 8; do touch $a/x/y/z/$n; done; done; touch end1";
    files.shell(script);
    let lines = events.until("end1");
    for directory in 1..=5 {
        for path in ["", "/x", "/x/y", "/x/y/z"] {
            let line = format!("create {directory}{path}/");
            assert_eq!(lines.iter().filter(|seen| **seen == line).count(), 1, "{line} in {lines:?}");
        }
        for name in 1..=8 {
            let line = format!("create {directory}/x/y/z/{name}");
            assert_eq!(lines.iter().filter(|seen| **seen == line).count(), 1, "{line} in {lines:?}");
        }
    }
    // Moved within, in, and out: paths are the new ones, and what is out is silent.
    files.shell("cd /workspace/d; mv 1 one; touch one/x/new; touch end2");
    assert_eq!(
        events.until("end2").iter().filter(|line| !line.starts_with("attrib")).collect::<Vec<_>>(),
        ["rename 1 > one/", "create one/x/new", "create end2"]
    );
    files.shell("cd /workspace/d; mv ../outside in; touch in/deep/new; mv 2 ../out; touch ../out/x/silent; touch end3");
    let lines = events.until("end3");
    for line in ["create in/", "create in/deep/", "create in/deep/file", "create in/deep/new", "delete 2/"] {
        assert!(lines.iter().any(|seen| seen == line), "{line} in {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.contains("silent")), "{lines:?}");
}

#[test]
fn globs_choose_what_is_reported() {
    let files = Files::start();
    files.shell("mkdir -p /workspace/src /workspace/.git/objects /workspace/node_modules/x");
    let mut watch = Watch::start(
        &files,
        "/workspace",
        "&recursive&include=*.rs&include=end*&exclude=.git&exclude=node_modules&exclude=*_test.rs",
    );
    let mut events = watch.events();
    files.shell("cd /workspace; touch src/a.rs src/b.txt src/a_test.rs .git/objects/c.rs node_modules/x/d.rs; mv src/b.txt src/b.rs; mv src/b.rs src/b.o; mv src/a.rs src/z.rs; touch end");
    let lines: Vec<_> = events.until("end").into_iter().filter(|line| !line.starts_with("attrib")).collect();
    assert_eq!(
        lines,
        ["create src/a.rs", "create src/b.rs", "delete src/b.rs", "rename src/a.rs > src/z.rs", "create end"]
    );
    for (path, status, code) in [
        ("path=%2Fworkspace&include=%5B", 400, "INVALID_REQUEST"),
        ("path=%2Fworkspace&colour=red", 400, "INVALID_REQUEST"),
        ("path=%2Fnone", 404, "FILE_NOT_FOUND"),
    ] {
        let answer = files.daemon.request("GET", &format!("/v1/sandboxes/{}/watch?{path}", files.id), None);
        assert_error(&answer, status, code);
    }
}

#[test]
fn one_file_is_watched_through_its_replacement() {
    let files = Files::start();
    files.write("/workspace/a", b"1");
    let mut watch = Watch::start(&files, "/workspace/a", "");
    let mut events = watch.events();
    files.shell("touch /workspace/other; echo 2 >> /workspace/a");
    assert_eq!(events.until("modify a"), ["modify a"]);
    files.write("/workspace/a", b"3");
    assert_eq!(events.until("a"), ["modify a"]);
    files.shell("sleep 0.1; rm /workspace/a");
    events.until("delete a");
    events.until("gone ");
    assert!(events.body.next_event().unwrap().is_none());
}

#[test]
fn of_a_replaced_file_nothing_is_said_but_that_it_was_modified() {
    let files = Files::start();
    files.shell("mkdir /workspace/d /workspace/d/sub; echo 1 > /workspace/d/old; echo 1 > /tmp/copied");
    let mut watch = Watch::start(&files, "/workspace/d", "&recursive");
    let mut events = watch.events();
    files.write("/workspace/d/old", b"2");
    assert_eq!(events.until("old"), ["modify old"]);
    files.write("/workspace/d/sub/new", b"1");
    assert_eq!(events.until("new"), ["create sub/new"]);
    std::thread::sleep(Duration::from_millis(50));
    files.done("copy", json!({"from": "/tmp/copied", "to": "/workspace/d/sub/new", "overwrite": true}));
    assert_eq!(events.until("new"), ["modify sub/new"]);
    // What has only a part of such a name is a file as others are.
    files.shell("cd /workspace/d; touch .stockade-0 .stockade-0123456789abcdeg '#1'; touch end");
    let lines = events.until("end");
    for line in ["create .stockade-0", "create .stockade-0123456789abcdeg", "create #1"] {
        assert!(lines.iter().any(|seen| seen == line), "{line} in {lines:?}");
    }
}

#[test]
fn a_flood_is_bounded_and_says_so() {
    let files = Files::start();
    files.shell("mkdir /workspace/d");
    let mut watch = Watch::start(&files, "/workspace/d", "&recursive");
    // Nobody reads while more happens than any queue holds.
    let before = host::resident_kib(files.daemon.serve_pid());
    files.shell("cd /workspace/d; i=0; while [ $i -lt 60 ]; do i=$((i+1)); mkdir $i; done");
    probe::install(&files.daemon, &files.id);
    for _ in 0..3 {
        let argv = [probe::PATH, "files", "/workspace/d", "20000"];
        files.daemon.run(&files.id, json!({"argv": argv, "timeout_ms": 60_000}));
        files.shell("cd /workspace/d; find . -type f -delete");
    }
    let grown = host::resident_kib(files.daemon.serve_pid()).saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
    let mut events = watch.events();
    let (mut count, start) = (0_u32, Instant::now());
    loop {
        let (name, _) = events.next();
        if name == "overflow" {
            break;
        }
        count += 1;
        assert!(start.elapsed() < Duration::from_secs(60), "{count} events and no overflow");
    }
    // It goes on after that, in directories made while nothing was seen too.
    std::thread::sleep(Duration::from_millis(300));
    files.shell("touch /workspace/d/60/end");
    events.until("60/end");
}

#[test]
fn the_same_change_is_reported_once_and_soon() {
    let files = Files::start();
    files.write("/workspace/log", b"");
    let mut watch = Watch::start(&files, "/workspace", "");
    let mut events = watch.events();
    files.shell("cd /workspace; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo x >> log; done; touch end");
    let lines = events.until("end");
    assert!(lines.len() < 1000, "{} for 2000 writes", lines.len());
    let mut samples: Vec<Duration> = (0..30)
        .map(|number: u32| {
            std::thread::sleep(Duration::from_millis(20));
            let name = format!("/workspace/t{number}");
            let start = Instant::now();
            files.done("mkdir", json!({"path": name}));
            loop {
                let (kind, data) = events.next();
                if kind == "create" && data["path"] == format!("t{number}") {
                    return start.elapsed();
                }
            }
        })
        .collect();
    samples.sort();
    // A generous bound: the benchmark has the real one.
    assert!(samples[15] < Duration::from_millis(100), "{samples:?}");
}

#[test]
fn a_watch_ends_with_its_client_and_there_are_not_too_many() {
    let files = Files::start();
    let namespace =
        files.daemon.get(&format!("/v1/sandboxes/{}", files.id))["isolation"]["namespaces"]["pid"]
            .as_u64()
            .unwrap();
    let processes = || host::processes_in("pid", namespace).len();
    // Agent and zygote; what making them needed may still be there.
    let before = 2;
    host::wait_for("the sandbox to be at rest", || processes() == before);
    let watches: Vec<_> = (0..32).map(|_| Watch::start(&files, "/workspace", "")).collect();
    assert!(processes() >= before + 32);
    // Files are still served.
    files.write("/workspace/a", b"x");
    drop(watches);
    files.shell("touch /workspace/b");
    host::wait_for("the watches to be gone", || processes() <= before + 1);
    Watch::start(&files, "/workspace", "").events();
}

#[test]
fn whether_something_has_changed_is_a_cheap_question() {
    let files = Files::start();
    let ask = |more: &str| {
        let route = format!("/v1/sandboxes/{}/changes?path=%2Fworkspace&recursive{more}", files.id);
        let answer = files.daemon.request("GET", &route, None);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let answer = answer.json();
        (answer["status"].as_str().unwrap().to_owned(), answer["cursor"].as_str().unwrap().to_owned())
    };
    let (status, first) = ask("");
    assert_eq!(status, "unchanged");
    for round in 0..20 {
        let (status, same) = ask(&format!("&cursor={first}"));
        assert_eq!((status.as_str(), round > 0 || same == first), ("unchanged", true));
    }
    let mut cursor = first.clone();
    for round in 0..20 {
        // A change is in the next answer, however soon that is asked for.
        files.write(format!("/workspace/{round}"), b"x");
        let (status, next) = ask(&format!("&cursor={cursor}"));
        assert_eq!(status, "changed", "{round}");
        let (status, again) = ask(&format!("&cursor={next}"));
        assert_eq!(status, "unchanged", "{round}");
        cursor = again;
    }
    assert_eq!(ask(&format!("&cursor={first}")).0, "changed", "of the first cursor too");
    assert_eq!(ask(&format!("&cursor={:016x}-0", 7)).0, "resync", "somebody else's");
    assert_eq!(ask(&format!("&cursor={cursor}&exclude=x")).0, "resync", "of other parameters");
    let bad = files.daemon.request(
        "GET",
        &format!("/v1/sandboxes/{}/changes?path=%2Fworkspace&cursor=x", files.id),
        None,
    );
    assert_error(&bad, 400, "INVALID_REQUEST");
}

#[test]
fn the_command_line_prints_changes() {
    let files = Files::start();
    let mut child = std::process::Command::new(crate::harness::binary())
        .args(["watch", &files.id, "/workspace", "--recursive", "--exclude", "skip*"])
        .env("STOCKADE_SOCKET", files.daemon.socket())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut errors = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    // It says when it is armed, on stderr.
    assert!(errors.next().unwrap().unwrap().contains("watching"));
    files.shell("cd /workspace; touch skipped a; mv a b; touch \"$(printf 'x\\033[31m')\"");
    let mut seen = Vec::new();
    while !seen.iter().any(|line: &String| line.contains('x')) {
        let line = lines.next().unwrap().unwrap();
        if !line.starts_with("attrib") {
            seen.push(line);
        }
    }
    assert_eq!(seen, ["create a", "rename a -> b", "create x\\u{1b}[31m"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let _ = std::io::stderr().flush();
}
