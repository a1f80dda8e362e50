//! What many cycles leave behind: nothing.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use crate::harness::{Daemon, host, id};
use crate::terminals::{Viewer, open};

/// How often a sandbox is made and destroyed.
const CYCLES: usize = 1000;

/// How many are kept and changed before they are destroyed.
const LIVES: usize = 500;

/// What may grow with leaks, by name.
fn census(daemon: &Daemon) -> BTreeMap<String, usize> {
    let (launch, serve) = (daemon.launch_pid(), daemon.serve_pid());
    let files = |name: &str| {
        let path = daemon.state_dir().join(name);
        std::fs::read_dir(path).map(Iterator::count).unwrap_or_default()
    };
    let runtime =
        std::fs::read_dir(daemon.runtime_dir().join("sandboxes")).map(Iterator::count).unwrap_or_default();
    BTreeMap::from([
        ("children of launch".to_owned(), host::children(launch).len()),
        ("descriptors of launch".to_owned(), host::descriptors(launch)),
        ("descriptors of serve".to_owned(), host::descriptors(serve)),
        ("mounts of launch".to_owned(), host::mount_count(launch)),
        ("mounts of serve".to_owned(), host::mount_count(serve)),
        ("mounts of the host".to_owned(), host::mount_count(1)),
        ("cgroups".to_owned(), host::cgroup_count()),
        ("namespaces".to_owned(), host::namespaces().len()),
        ("state directories".to_owned(), files("sandboxes")),
        ("layers".to_owned(), files("layers")),
        ("saved files".to_owned(), files("saved")),
        ("snapshots".to_owned(), files("snapshots")),
        ("entries of the index".to_owned(), files("index")),
        ("runtime directories".to_owned(), runtime),
    ])
}

/// What grew between two looks, beyond an allowance for what a pool of threads or buffers takes once.
fn grown(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) -> Vec<String> {
    before
        .iter()
        .filter(|(name, count)| {
            let allowance = if name.starts_with("descriptors") { 4 } else { 0 };
            after[*name] > **count + allowance
        })
        .map(|(name, count)| format!("{name}: {count} before, {} after", after[name]))
        .collect()
}

#[test]
fn a_thousand_sandboxes_leave_nothing_behind() {
    let daemon = Daemon::start();
    let cycle = |number: usize| {
        let name = format!("cycle-{number}");
        let spec = json!({"id": name}).to_string();
        let mut connection = daemon.connect();
        let headers = [("Content-Type", "application/json")];
        let made = connection.request("POST", "/v1/sandboxes", &headers, spec.as_bytes()).unwrap();
        assert_eq!(made.status, 201, "{}\n{}", String::from_utf8_lossy(&made.body), daemon.log());
        if number.is_multiple_of(10) {
            let path = format!("/v1/sandboxes/{name}/commands");
            let run = br#"{"shell":"echo x > /workspace/x; (sleep 605 &); mkdir /tmp/d"}"#;
            let ran = connection.request("POST", &path, &headers, run).unwrap();
            assert_eq!(ran.status, 200, "{}", String::from_utf8_lossy(&ran.body));
        }
        let gone = connection.request("DELETE", &format!("/v1/sandboxes/{name}"), &[], b"").unwrap();
        assert_eq!(gone.status, 204, "{}", String::from_utf8_lossy(&gone.body));
    };
    // The first ones warm up what stays: threads, buffers, parent cgroups.
    for number in 0..20 {
        cycle(number);
    }
    let resident = |pid| host::resident_kib(pid);
    let before = census(&daemon);
    let (serve, launch) = (resident(daemon.serve_pid()), resident(daemon.launch_pid()));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for half in 0..2 {
            let cycle = &cycle;
            scope.spawn(move || (half..CYCLES).step_by(2).for_each(|number| cycle(1000 + number)));
        }
    });
    eprintln!("{CYCLES} cycles in {:?}", start.elapsed());
    host::wait_until_none("left behind", || grown(&before, &census(&daemon)));
    let grew = resident(daemon.serve_pid()).saturating_sub(serve);
    assert!(grew < 16 * 1024, "serve grew by {grew} KiB");
    let grew = resident(daemon.launch_pid()).saturating_sub(launch);
    assert!(grew < 4 * 1024, "launch grew by {grew} KiB");
}

/// One that is kept: it rests, is woken, stands still, is saved, goes back, and has a child.
fn life(daemon: &Daemon, number: usize) {
    let (name, child) = (format!("life-{number}"), format!("child-{number}"));
    let mut connection = daemon.connect();
    let mut ask = |method: &str, path: &str, body: &serde_json::Value, wanted: u16| {
        let headers = [("Content-Type", "application/json")];
        let answer = connection.request(method, path, &headers, body.to_string().as_bytes()).unwrap();
        assert_eq!(answer.status, wanted, "{path}: {}", String::from_utf8_lossy(&answer.body));
        answer
    };
    let path = |verb: &str| format!("/v1/sandboxes/{name}/{verb}");
    let run = |line: &str| json!({"shell": line});
    ask("POST", "/v1/sandboxes", &json!({"id": name}), 201);
    ask("POST", &path("commands"), &run("echo 1 > /root/f; (sleep 605 &)"), 200);
    ask("POST", &path("stop"), &json!({}), 200);
    let kept = ask("POST", &path("snapshots"), &json!({}), 201).json();
    assert_eq!(
        ask("POST", &path("commands"), &run("cat /root/f; echo 2 > /root/f"), 200).json()["stdout"],
        "1\n"
    );
    ask("POST", &path("pause"), &json!({}), 200);
    ask("POST", &path("fork"), &json!({"ids": [child]}), 201);
    ask("POST", &path("rollback"), &json!({}), 200);
    assert_eq!(ask("POST", &path("commands"), &run("cat /root/f"), 200).json()["stdout"], "1\n");
    let there = format!("/v1/sandboxes/{child}/commands");
    assert_eq!(ask("POST", &there, &run("cat /root/f"), 200).json()["stdout"], "2\n");
    for gone in [format!("/v1/sandboxes/{child}"), format!("/v1/snapshots/{}", id(&kept)), path("")] {
        ask("DELETE", gone.trim_end_matches('/'), &json!({}), 204);
    }
}

#[test]
fn five_hundred_sandboxes_that_are_kept_leave_nothing_behind() {
    let daemon = Daemon::start();
    for number in 0..10 {
        life(&daemon, number);
    }
    let resident = |pid| host::resident_kib(pid);
    let before = census(&daemon);
    let (serve, launch) = (resident(daemon.serve_pid()), resident(daemon.launch_pid()));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let daemon = &daemon;
            scope.spawn(move || (part..LIVES).step_by(4).for_each(|number| life(daemon, 1000 + number)));
        }
    });
    eprintln!("{LIVES} lives in {:?}", start.elapsed());
    host::wait_until_none("left behind", || grown(&before, &census(&daemon)));
    let grew = resident(daemon.serve_pid()).saturating_sub(serve);
    assert!(grew < 16 * 1024, "serve grew by {grew} KiB");
    let grew = resident(daemon.launch_pid()).saturating_sub(launch);
    assert!(grew < 4 * 1024, "launch grew by {grew} KiB");
}

#[test]
fn a_thousand_commands_leave_nothing_in_their_sandbox() {
    let daemon = Daemon::start();
    let sandbox = daemon.create(json!({}));
    let (name, pid) = (id(&sandbox), i32::try_from(sandbox["pid"].as_i64().unwrap()).unwrap());
    let namespace = sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap();
    let count = || host::processes_in("pid", namespace).len();
    for _ in 0..20 {
        daemon.run(&name, json!({"argv": ["true"]}));
    }
    let (before, serve, agent, processes) =
        (census(&daemon), host::descriptors(daemon.serve_pid()), host::descriptors(pid), count());
    for number in 0..1000 {
        let line = if number % 20 == 0 { "(sleep 0.01 &) ; echo x" } else { "true" };
        let result = daemon.run(&name, json!({"shell": line}));
        assert_eq!(result["exit_code"], 0, "{result}");
    }
    host::wait_until_none("left behind", || grown(&before, &census(&daemon)));
    assert!(host::descriptors(daemon.serve_pid()) <= serve + 4);
    assert!(host::descriptors(pid) <= agent, "descriptors of the agent grew from {agent}");
    host::wait_for("processes to be reaped", || count() <= processes);
}

/// What somebody does with a sandbox in a minute: commands, processes, scripts, files, a terminal. Some of it is left in the
/// middle.
fn minute(daemon: &Daemon, name: &str, number: usize) {
    let mut connection = daemon.connect();
    let route = |rest: &str| format!("/v1/sandboxes/{name}/{rest}");
    let mut ask = |method: &str, rest: &str, body: &serde_json::Value, wanted: u16| {
        let headers = [("Content-Type", "application/json")];
        let answer = connection.request(method, &route(rest), &headers, body.to_string().as_bytes()).unwrap();
        assert_eq!(answer.status, wanted, "{rest}: {}", String::from_utf8_lossy(&answer.body));
        answer
    };
    let (place, one, script) =
        (format!("/workspace/{number}"), format!("web-{number}"), format!("script-{number}"));
    ask("PATCH", "env", &json!({"set": {"MINUTE": "m"}}), 200);
    let said = ask("POST", "commands", &json!({"shell": "echo $MINUTE; (sleep 606 &)"}), 200).json();
    assert_eq!(said["stdout"], "m\n", "{said}");

    ask("POST", "processes", &json!({"id": one, "shell": "echo ready; sleep 607 & cat", "stdin": true}), 201);
    let ready = json!({"for": {"log": {"text": "ready"}}, "timeout_ms": 20_000});
    ask("POST", &format!("processes/{one}/wait"), &ready, 200);
    left(daemon, &route(&format!("processes/{one}/logs")));
    ask("DELETE", &format!("processes/{one}"), &json!({}), 204);

    ask("POST", "sessions", &json!({"id": script}), 201);
    let line = json!({"shell": "x=1; sleep 608 & echo $x"});
    assert_eq!(ask("POST", &format!("sessions/{script}/commands"), &line, 200).json()["stdout"], "1\n");
    ask("DELETE", &format!("sessions/{script}"), &json!({}), 204);

    ask("POST", "files/mkdir", &json!({"path": place}), 204);
    daemon.put(name, &format!("{place}/a"), &vec![b'x'; 200_000]);
    left(daemon, &route(&format!("watch?path={place}")));
    ask("POST", "files/rename", &json!({"from": format!("{place}/a"), "to": format!("{place}/b")}), 204);
    ask("POST", "files/search", &json!({"path": place, "text": "y"}), 200);
    for whole in [format!("files/content?path={place}/b"), format!("files/archive?path={place}")] {
        assert_eq!(daemon.send("GET", &route(&whole), &[], b"").status, 200, "{whole}");
    }
    let mut cut = daemon.connect();
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n",
        route(&format!("files/content?path={place}/c"))
    );
    cut.send_raw(head.as_bytes()).unwrap();
    cut.send_raw(&[b'x'; 100_000]).unwrap();
    drop(cut);
    ask("POST", "files/remove", &json!({"path": place, "recursive": true}), 204);

    let terminal = open(daemon, name, &json!({"argv": ["bash", "-c", "sleep 609 & echo here; cat"]}));
    Viewer::attach(daemon, name, &terminal, "").until("here");
    ask("DELETE", &format!("terminals/{terminal}"), &json!({}), 204);
}

/// Somebody who asks for a stream, and leaves when it has begun.
fn left(daemon: &Daemon, path: &str) {
    let mut connection = daemon.connect();
    connection.send("GET", path, &[("Accept", "text/event-stream")], b"").unwrap();
    assert_eq!(connection.receive_head().unwrap().status, 200, "{path}");
}

#[test]
fn an_hours_use_leaves_nothing_behind() {
    let daemon = Daemon::start();
    let sandbox = daemon.create(json!({}));
    let (name, pid) = (id(&sandbox), i32::try_from(sandbox["pid"].as_i64().unwrap()).unwrap());
    let namespace = sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap();
    let count = || host::processes_in("pid", namespace).len();
    for number in 0..5 {
        minute(&daemon, &name, number);
    }
    let resident = |pid| host::resident_kib(pid);
    let (before, agent, processes) = (census(&daemon), host::descriptors(pid), count());
    let (serve, launch) = (resident(daemon.serve_pid()), resident(daemon.launch_pid()));
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (daemon, name) = (&daemon, &name);
            scope.spawn(move || (half..60).step_by(2).for_each(|number| minute(daemon, name, 100 + number)));
        }
    });
    host::wait_until_none("left behind", || grown(&before, &census(&daemon)));
    host::wait_for("processes to be gone", || count() <= processes);
    assert!(host::descriptors(pid) <= agent, "descriptors of the agent grew from {agent}");
    // A file that was cut off is nobody's, wherever it was being written.
    assert_eq!(daemon.shell(&name, "find /workspace /tmp -mindepth 1"), "");
    let grew = resident(daemon.serve_pid()).saturating_sub(serve);
    assert!(grew < 16 * 1024, "serve grew by {grew} KiB");
    let grew = resident(daemon.launch_pid()).saturating_sub(launch);
    assert!(grew < 4 * 1024, "launch grew by {grew} KiB");
}
