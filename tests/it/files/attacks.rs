//! What is tried against the file API (`security`: links, odd files, races, sizes), beside what must work.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Files, noise};
use crate::harness::{Daemon, assert_error, host, id, probe, scratch};

/// Entries of the largest directory; a million takes minutes on a small machine.
fn entries() -> u64 {
    std::env::var("STOCKADE_TEST_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

#[test]
fn no_link_leads_out_of_the_root() {
    let files = Files::start();
    let outside = scratch();
    let canary = outside.path().join("canary");
    fs::write(&canary, "the host's").unwrap();
    let host_path = canary.display().to_string();
    files.shell(&format!(
        "cd /workspace && ln -s / root && ln -s ../../../../../../.. up && ln -s {host_path} direct && \
         ln -s /proc/self/root proc && ln -s /proc/1/root agent && ln -s /proc/self/cwd cwd && ln -s loop loop"
    ));
    for path in [
        format!("/workspace/root{host_path}"),
        format!("/workspace/up{host_path}"),
        format!("/../../../..{host_path}"),
        host_path.clone(),
        "/workspace/direct".to_owned(),
    ] {
        assert_error(&files.read(&path, &[]), 404, "FILE_NOT_FOUND");
    }
    // The same spellings work for what is inside.
    fs::read(&canary).unwrap();
    files.shell(&format!("mkdir -p {} && printf inside > {host_path}", outside.path().display()));
    for path in [format!("/workspace/root{host_path}"), format!("/workspace/up{host_path}"), host_path] {
        assert_eq!(files.content(&path), b"inside", "{path}");
    }
    assert_eq!(fs::read(&canary).unwrap(), b"the host's");
    for magic in [
        "/proc/self/root/etc/passwd",
        "/proc/1/root/etc/passwd",
        "/workspace/proc/etc/passwd",
        "/workspace/agent/etc/passwd",
        "/workspace/cwd/etc/passwd",
        "/proc/self/fd/0",
        "/proc/self/fd/3",
        "/proc/self/exe",
        "/proc/thread-self/root",
        "/workspace/loop",
    ] {
        let answer = files.read(magic, &[]);
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        // What belongs to the agent or is gone is not even seen.
        assert!(
            ["PATH_INVALID", "FILE_NOT_FOUND", "FILE_DENIED"].contains(&code.as_str()),
            "{magic}: {code}"
        );
        let answer = files.try_write(magic, "", &[], b"x");
        assert!(answer.status >= 400, "{magic}: {}", answer.status);
    }
}

#[test]
fn odd_files_are_refused_at_once() {
    let files = Files::start();
    probe::install(&files.daemon, &files.id);
    files.shell(&format!("{} odd /workspace", probe::PATH));
    let start = Instant::now();
    for path in ["/workspace/fifo", "/workspace/socket", "/dev/zero", "/dev/null", "/dev/random"] {
        assert_error(&files.read(path, &[]), 422, "FILE_NOT_REGULAR");
        assert_error(&files.try_write(path, "", &[], b"x"), 422, "FILE_NOT_REGULAR");
        files.refused("copy", json!({"from": "/dev/zero", "to": "/workspace/x"}), 422, "FILE_NOT_REGULAR");
    }
    let answer = files.post("search", &json!({"path": "/dev", "text": "x"}));
    assert_eq!(answer.status, 200);
    let found = files.post("search", &json!({"path": "/workspace", "text": "x"})).json();
    assert_eq!(found["files"], 0, "{found}");
    assert_eq!(files.get("archive", "/workspace", "").status, 200);
    assert_eq!(files.stat("/workspace/fifo")["type"], "fifo");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // Those of /proc have no size and are read all the same.
    let status = String::from_utf8(files.content("/proc/self/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(!files.content("/proc/self/mountinfo").is_empty());
}

#[test]
fn names_that_are_swapped_never_show_what_is_outside() {
    const ROUNDS: usize = 400_000;
    const HOST: &str = "what only the host has";
    let files = Files::start();
    probe::install(&files.daemon, &files.id);
    // The same path on both sides, with another content: whoever gets out sees the host's.
    let outside = scratch();
    fs::create_dir(outside.path().join("d")).unwrap();
    let canary = outside.path().join("d/secret");
    fs::write(&canary, HOST).unwrap();
    let place = outside.path().display().to_string();
    files.shell(&format!(
        "mkdir -p {place}/d /workspace/s/d && printf inside > {place}/d/secret && printf own > /workspace/s/d/secret && \
         chmod -R 777 {place} /workspace/s && ln -s {place}/d /workspace/s/link"
    ));
    let (over, seen, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let rounds = (ROUNDS / 2).to_string();
    let argv = [probe::PATH, "swap", "/workspace/s/d", "/workspace/s/link", rounds.as_str()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let swaps: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let result =
                            files.daemon.run(&files.id, json!({"argv": argv, "timeout_ms": 120_000}));
                        result["stdout"].as_str().unwrap().trim().parse::<usize>().unwrap()
                    })
                })
                .collect();
            let swapped: usize = swaps.into_iter().map(|swap| swap.join().unwrap()).sum();
            over.store(true, Ordering::Relaxed);
            assert!(swapped > ROUNDS / 2, "{swapped}");
        });
        while !over.load(Ordering::Relaxed) {
            let archive = files.route("archive", "/workspace/s", "");
            // It may be broken off when what it walks through is moved away.
            if let Ok(answer) = files.daemon.connect().request("GET", &archive, &[], b"") {
                assert!(!String::from_utf8_lossy(&answer.body).contains(HOST));
            }
            for answer in [
                files.read("/workspace/s/d/secret", &[]),
                files.read("/workspace/s/link/secret", &[]),
                files.post("search", &json!({"path": "/workspace/s", "text": "host"})),
                files.try_write("/workspace/s/d/new", "", &[], b"own"),
                files.post(
                    "copy",
                    &json!({"from": "/workspace/s/d", "to": "/workspace/copy", "overwrite": true}),
                ),
                files.post("remove", &json!({"path": "/workspace/s/d/new"})),
            ] {
                assert!(answer.status < 500, "{}", String::from_utf8_lossy(&answer.body));
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                assert!(!text.contains(HOST), "{text}");
                let counter = if answer.status < 300 { &seen } else { &refused };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert!(seen.load(Ordering::Relaxed) > 20, "{seen:?} worked, {refused:?} did not");
    assert_eq!(fs::read_to_string(&canary).unwrap(), HOST);
    assert_eq!(fs::read_dir(outside.path().join("d")).unwrap().count(), 1);
    assert_eq!(fs::read(outside.path().join("d/secret")).unwrap(), HOST.as_bytes(), "the positive control");
}

#[test]
fn a_directory_of_very_many_entries_is_listed_and_removed_in_bounded_memory() {
    let files = Files::start();
    probe::install(&files.daemon, &files.id);
    files.shell("mkdir /workspace/many");
    let wanted = entries().to_string();
    let argv = [probe::PATH, "files", "/workspace/many", &wanted];
    let made = files.daemon.run(&files.id, json!({"argv": argv, "timeout_ms": 600_000}));
    let made: u64 = made["stdout"].as_str().unwrap().trim().parse().unwrap();
    assert!(made > 10_000, "{made}");
    let before = host::resident_kib(files.daemon.serve_pid());
    let (mut seen, mut last, mut cursor) = (0, String::new(), String::new());
    loop {
        let list = files.list("/workspace/many", &format!("&limit=10000{cursor}"));
        for entry in list["entries"].as_array().unwrap() {
            let path = entry["path"].as_str().unwrap();
            assert!(*path > *last, "{path} after {last}");
            path.clone_into(&mut last);
            seen += 1;
        }
        match list["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, made);
    let grown = host::resident_kib(files.daemon.serve_pid()).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
    files.done("remove", json!({"path": "/workspace/many", "recursive": true}));
}

#[test]
fn a_deep_tree_is_refused_or_removed_and_harms_nobody() {
    let files = Files::start();
    probe::install(&files.daemon, &files.id);
    files.shell("mkdir /workspace/deep && echo TODO > /workspace/deep/top");
    let argv = [probe::PATH, "deep", "/workspace/deep", "2500"];
    assert_eq!(files.daemon.run(&files.id, json!({"argv": argv}))["stdout"], "2500\n");
    let list = files.list("/workspace/deep", "&recursive&limit=10000");
    assert!(list["entries"].as_array().unwrap().len() > 1000);
    assert_eq!(list["unreadable"], 1, "what lies too deep is counted");
    let found = files.post("search", &json!({"path": "/workspace/deep", "text": "TODO"})).json();
    assert_eq!(found["matches"].as_array().unwrap().len(), 1, "{found}");
    files.refused("copy", json!({"from": "/workspace/deep", "to": "/workspace/copy"}), 422, "PATH_INVALID");
    files.done("remove", json!({"path": "/workspace/copy", "recursive": true}));
    files.done("remove", json!({"path": "/workspace/deep", "recursive": true}));
    assert_eq!(files.shell("ls /workspace"), "");
}

#[test]
fn a_huge_line_is_searched_at_its_beginning() {
    let files = Files::start();
    files.shell("cd /workspace && (printf 'needle'; head -c 300000000 /dev/zero | tr '\\0' x; printf 'needle\\nneedle\\n') > line");
    let before = host::resident_kib(files.daemon.serve_pid());
    let found = files.post("search", &json!({"path": "/workspace/line", "text": "needle"})).json();
    let lines: Vec<_> =
        found["matches"].as_array().unwrap().iter().map(|found| found["line"].as_u64()).collect();
    assert_eq!((lines, &found["long_lines"]), (vec![Some(1), Some(2)], &json!(1)));
    assert_eq!(
        (&found["matches"][0]["cut"], found["matches"][0]["text"].as_str().unwrap().len()),
        (&json!(true), 1024)
    );
    assert!(host::resident_kib(files.daemon.serve_pid()).saturating_sub(before) < 16 * 1024);
}

#[test]
fn a_worker_that_is_killed_or_stopped_is_replaced() {
    let files = Files::start();
    files.write("/tmp/a", b"x");
    let user = "&user=65534";
    let stat = || files.get("stat", "/tmp/a", user);
    assert_eq!(stat().status, 200);
    // Everything of this user, and so its worker.
    let strike =
        |signal: &str| json!({"argv": ["/bin/sh", "-c", format!("kill -{signal} -1")], "user": "65534"});
    files.daemon.run(&files.id, strike("KILL"));
    for _ in 0..3 {
        let status = stat().status;
        // One that was already asked dies with the question.
        assert!(status == 200 || status == 503, "{status}");
    }
    assert_eq!(stat().status, 200);
    files.daemon.run(&files.id, strike("STOP"));
    let stopped = std::thread::scope(|scope| {
        let waiting = scope.spawn(stat);
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        assert_eq!(stat().status, 200, "only the request that hangs waits");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        waiting.join().unwrap()
    });
    assert_error(&stopped, 504, "FILE_TIMEOUT");
    // It was killed, and nothing of it is left.
    host::wait_for("the stopped worker to be gone", || {
        let listed = files.shell("cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.T' || true");
        listed.trim() == "0"
    });
}

#[test]
fn a_client_that_leaves_a_long_search_ends_it() {
    let files = Files::start();
    files.shell("cd /workspace && head -c 200000000 /dev/zero | tr '\\0' '\\n' > lines");
    let body = json!({"path": "/workspace", "regex": "a*b*c*d$x"}).to_string();
    let namespace =
        files.daemon.get(&format!("/v1/sandboxes/{}", files.id))["isolation"]["namespaces"]["pid"]
            .as_u64()
            .unwrap();
    let before = host::processes_in("pid", namespace).len();
    let mut connection = files.daemon.connect();
    let route = format!("/v1/sandboxes/{}/files/search", files.id);
    connection.send("POST", &route, &[("Content-Type", "application/json")], body.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    drop(connection);
    host::wait_for("the worker to be gone", || host::processes_in("pid", namespace).len() <= before);
}

#[test]
fn many_uploads_and_downloads_leave_nothing_open() {
    let daemon = Daemon::start();
    let name = id(&daemon.create(json!({})));
    let files = Files { daemon, id: name };
    files.write("/workspace/warm", &noise(1000));
    files.content("/workspace/warm");
    let before = host::descriptors(files.daemon.serve_pid());
    for round in 0..100 {
        files.write("/workspace/a", &noise(100_000));
        files.content("/workspace/a");
        let archive = files.get("archive", "/workspace", "");
        // Three entries' heads and contents in blocks, and two blocks of zeros: whole each time.
        assert_eq!(archive.body.len(), 512 + 100_352 + 512 + 1024 + 1024);
        let mut connection = files.daemon.connect();
        connection.send("GET", &files.route("content", "/workspace/a", ""), &[], b"").unwrap();
        if round % 2 == 0 {
            connection.receive_head().unwrap();
        }
    }
    host::wait_for("descriptors to be closed", || host::descriptors(files.daemon.serve_pid()) <= before + 4);
    assert_eq!(files.shell("ls -A /workspace"), "a\nwarm\n");
}
