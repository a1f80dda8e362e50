//! Snapshots: files that are kept, given back, and given to others.

mod btrfs;
mod chains;
mod directories;
mod disk;
mod exports;
mod full;
mod model;
mod quotas;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Daemon, assert_error, host, id};

#[track_caller]
fn post(daemon: &Daemon, path: &str, body: Value) -> Value {
    let answer = daemon.request("POST", path, Some(&body));
    assert!(matches!(answer.status, 200 | 201), "{path}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

#[track_caller]
fn snapshot(daemon: &Daemon, sandbox: &str) -> String {
    id(&post(daemon, &format!("/v1/sandboxes/{sandbox}/snapshots"), json!({})))
}

#[track_caller]
fn restore(daemon: &Daemon, sandbox: &str, snapshot: &str) {
    post(daemon, &format!("/v1/sandboxes/{sandbox}/restore"), json!({"snapshot": snapshot}));
}

#[track_caller]
fn fork(daemon: &Daemon, sandbox: &str, ids: &[&str]) {
    post(daemon, &format!("/v1/sandboxes/{sandbox}/fork"), json!({"ids": ids}));
}

#[track_caller]
fn stop(daemon: &Daemon, sandbox: &str) {
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{sandbox}/stop"), None);
    assert_eq!(answer.status, 200);
}

fn state(daemon: &Daemon, sandbox: &str) -> String {
    daemon.get(&format!("/v1/sandboxes/{sandbox}"))["state"].as_str().unwrap().to_owned()
}

/// Saved files that lie in the store, whatever they are for.
fn saved(daemon: &Daemon) -> Vec<String> {
    let entries = std::fs::read_dir(daemon.state_dir().join("saved")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != ".trash").collect()
}

/// When no sandbox and no snapshot is left, neither are files.
fn assert_nothing_is_left(daemon: &Daemon) {
    for sandbox in daemon.ids() {
        daemon.destroy(&sandbox);
    }
    for snapshot in daemon.get("/v1/snapshots")["snapshots"].as_array().unwrap() {
        daemon.request("DELETE", &format!("/v1/snapshots/{}", id(snapshot)), None);
    }
    host::wait_until_none("saved files", || saved(daemon));
    assert_eq!(std::fs::read_dir(daemon.state_dir().join("snapshots")).unwrap().count(), 0);
}

/// What a tree is, in words that differ when anything does.
const TREE: &str = "P='/root /workspace /etc/marked /etc/alternatives /etc/ssl'; \
     find $P ! -type d -printf '%p %y %m %U %G %n %s %T@ %l\\n' 2>&1 | sort; find $P -type d -printf '%p %m %U %G %T@\\n' 2>/dev/null | sort; \
     find /root /workspace -type f -size -1000k -print0 | sort -z | xargs -0 -r cat; find /root -samefile /root/hard 2>/dev/null | sort; \
     if [ -e /root/sparse ]; then [ \"$(du -k /root/sparse | cut -f1)\" -lt 100 ] && tail -c 4 /root/sparse; fi; true";

/// Everything that a copy could lose: links, times, modes, holes, renamed and replaced directories, what was removed.
const FILL: &str = "mkdir -p /root/d/deep && echo hello > /root/d/f && ln /root/d/f /root/hard && ln /root/d/f /root/d/deep/hard && \
     ln -s f /root/d/soft && ln -s /nowhere /root/dangling && mkfifo /root/pipe && chown 1000:7 /root/d/f && \
     chmod 4750 /root/d/f && chown -h 5:6 /root/d/soft && mv /root/d /root/kept && touch -d '2001-02-03 04:05:06.789' /root/kept/f && \
     truncate -s 50M /root/sparse && echo end >> /root/sparse && mkdir /root/sticky && chmod 1777 /root/sticky && \
     touch /etc/marked && rm -rf /etc/ssl && (rm -rf /etc/alternatives; mkdir /etc/alternatives; touch /etc/alternatives/mine) && \
     for n in 1 2 3; do echo $n > \"/workspace/a b $n\"; done && touch -d 2002-03-04 /root/kept /workspace";

const SPOIL: &str =
    "rm -rf /root/* /workspace/* /etc/marked; echo other > /root/other; mkdir -p /etc/ssl/new";

#[test]
fn a_running_sandbox_goes_back_to_what_it_was() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", FILL);
    let before = daemon.shell("box", TREE);
    assert!(before.contains("/root/kept/f f 4750 1000 7 3 6 981173106.789"), "{before}");
    let made = post(&daemon, "/v1/sandboxes/box/snapshots", json!({"name": "one", "labels": {"a": "b"}}));
    assert_eq!(
        (&made["name"], &made["labels"]["a"], &made["sandbox"]),
        (&json!("one"), &json!("b"), &json!("box"))
    );
    assert!(made["entries"].as_u64().unwrap() > 10, "{made}");
    assert_eq!(state(&daemon, "box"), "running", "it goes on");
    assert_eq!(daemon.shell("box", TREE), before, "making it changes nothing");
    assert_eq!(daemon.get(&format!("/v1/snapshots/{}", id(&made))), made);
    assert_eq!(daemon.get("/v1/sandboxes/box/snapshots")["snapshots"], json!([made]));
    for _ in 0..2 {
        daemon.shell("box", SPOIL);
        assert_ne!(daemon.shell("box", TREE), before);
        let back = post(&daemon, "/v1/sandboxes/box/rollback", json!({}));
        assert_eq!(back["state"], "stopped");
        assert_eq!(daemon.shell("box", TREE), before);
    }
    // What is below is as good a place to rename from as any.
    daemon.shell(
        "box",
        "mv /root/kept /root/moved && mv /root/sticky /root/kept && rm /root/hard && cat /root/moved/f",
    );
    assert_eq!(daemon.request("DELETE", "/v1/sandboxes/box", None).status, 204);
    // It outlives the sandbox.
    daemon.create(json!({"id": "again", "snapshot": made["id"]}));
    assert_eq!(daemon.shell("again", TREE), before);
    assert_nothing_is_left(&daemon);
}

#[test]
fn a_stopped_sandbox_is_kept_as_it_lies_and_not_woken() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", FILL);
    let before = daemon.shell("box", TREE);
    stop(&daemon, "box");
    let made = post(&daemon, "/v1/sandboxes/box/snapshots", json!({}));
    assert_eq!((&made["method"], state(&daemon, "box").as_str()), (&json!("stacked"), "stopped"));
    assert!(made["size_bytes"].as_u64().unwrap() > 0, "{made}");
    // Twice the same, with nothing written in between.
    snapshot(&daemon, "box");
    assert_eq!(daemon.shell("box", TREE), before);
    daemon.shell("box", SPOIL);
    let spoilt = daemon.shell("box", TREE);
    stop(&daemon, "box");
    fork(&daemon, "box", &["child"]);
    restore(&daemon, "box", made["id"].as_str().unwrap());
    assert_eq!(daemon.shell("box", TREE), before);
    assert_eq!(daemon.shell("child", TREE), spoilt);
    assert_nothing_is_left(&daemon);
}

#[test]
fn children_are_like_their_parent_and_apart_from_each_other() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "parent", "env": {"A": "1"}, "labels": {"k": "v"}, "cwd": "/root",
        "network": {"allow": ["example.org"]}}));
    daemon.request("PATCH", "/v1/sandboxes/parent/env", Some(&json!({"set": {"B": "2"}})));
    daemon.shell("parent", FILL);
    for stopped in [false, true] {
        let before = daemon.shell("parent", TREE);
        if stopped {
            stop(&daemon, "parent");
        }
        let made = post(&daemon, "/v1/sandboxes/parent/fork", json!({"count": 2, "ids": ["one"]}));
        let made = made["sandboxes"].as_array().unwrap();
        let (one, other) = (id(&made[0]), id(&made[1]));
        assert_eq!((one.as_str(), made.len()), ("one", 2));
        for child in [&one, &other] {
            assert_eq!(daemon.shell(child, TREE), before);
            assert_eq!(daemon.shell(child, "echo $A $B $PWD"), "1 2 /root\n");
            let view = daemon.get(&format!("/v1/sandboxes/{child}"));
            assert_eq!((&view["labels"]["k"], &view["state"]), (&json!("v"), &json!("running")));
            let network = daemon.get(&format!("/v1/sandboxes/{child}/network"));
            assert_eq!(network["policy"]["allow"], json!(["example.org"]));
        }
        daemon.shell(&one, SPOIL);
        assert_eq!(daemon.shell(&other, TREE), before);
        assert_eq!(daemon.shell("parent", TREE), before);
        daemon.shell("parent", "echo parent > /root/parent");
        assert_eq!(daemon.shell(&other, TREE), before);
        // Its files stay with those who lie on them.
        daemon.shell("parent", "rm /root/parent; touch -d 2002-03-04 /root/kept");
        daemon.destroy(&one);
        assert_eq!(daemon.shell(&other, "cat /root/kept/f"), "hello\n");
        daemon.destroy(&other);
    }
    stop(&daemon, "parent");
    fork(&daemon, "parent", &["heir"]);
    daemon.destroy("parent");
    daemon.shell("heir", "cat /root/kept/f");
    assert_error(
        &daemon.request("POST", "/v1/sandboxes/heir/fork", Some(&json!({"ids": ["heir"]}))),
        409,
        "SANDBOX_CONFLICT",
    );
    assert_error(
        &daemon.request("POST", "/v1/sandboxes/heir/fork", Some(&json!({"count": 0}))),
        400,
        "INVALID_REQUEST",
    );
    let twice = daemon.request("POST", "/v1/sandboxes/heir/fork", Some(&json!({"ids": ["q", "q"]})));
    assert_error(&twice, 400, "INVALID_REQUEST");
    assert_eq!(twice.json()["context"]["field"], "ids");
    assert_eq!(daemon.ids(), ["heir"]);
    assert_nothing_is_left(&daemon);
}

#[test]
fn what_runs_stands_still_while_it_is_kept() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "cd /root && for n in $(seq 300); do head -c 20000 /dev/urandom > a$n; done");
    // Two files that are never more than one apart, the one read long before the other.
    let line = "cd /root; n=0; while :; do n=$((n+1)); echo $n > 0first; echo $n > zlast; done";
    let spec = json!({"id": "writer", "argv": ["sh", "-c", line]});
    assert_eq!(daemon.request("POST", "/v1/sandboxes/box/processes", Some(&spec)).status, 201);
    let read = |sandbox: &str| {
        let text = daemon.shell(sandbox, "cat /root/0first /root/zlast");
        text.split_whitespace().map(|word| word.parse::<i64>().unwrap()).collect::<Vec<_>>()
    };
    host::wait_for("the writer", || !daemon.shell("box", "cat /root/zlast 2>/dev/null || true").is_empty());
    for round in 0..5 {
        let kept = snapshot(&daemon, "box");
        let name = format!("copy{round}");
        daemon.create(json!({"id": name, "snapshot": kept}));
        // An empty file is one that is being written.
        let both = read(&name);
        assert!(both.len() < 2 || (0..=1).contains(&(both[0] - both[1])), "torn: {both:?}");
    }
    let now = read("box");
    host::wait_for("the writer to go on", || read("box") != now);
    // One that was paused stays so.
    daemon.request("POST", "/v1/sandboxes/box/pause", None);
    snapshot(&daemon, "box");
    assert_eq!(state(&daemon, "box"), "paused");
    assert_nothing_is_left(&daemon);
}

#[test]
fn a_snapshot_is_given_to_others_of_the_same_image_alone() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "echo mine > /root/f");
    let kept = snapshot(&daemon, "box");
    daemon.create(json!({"id": "other", "env": {"A": "its own"}}));
    daemon.shell("other", "echo gone > /root/g");
    let process = json!({"argv": ["sleep", "1000"]});
    daemon.request("POST", "/v1/sandboxes/other/processes", Some(&process));
    restore(&daemon, "other", &kept);
    assert_eq!(daemon.shell("other", "cat /root/f; echo $A; ls /root"), "mine\nits own\nf\n");
    assert_eq!(daemon.shell("other", "pgrep sleep || echo none"), "none\n");
    let nothing = json!({"snapshot": "nothing"});
    assert_error(
        &daemon.request("POST", "/v1/sandboxes/box/restore", Some(&nothing)),
        404,
        "SNAPSHOT_NOT_FOUND",
    );
    let not_its_own =
        daemon.request("POST", "/v1/sandboxes/other/rollback", Some(&json!({"snapshot": kept})));
    assert_error(&not_its_own, 409, "SNAPSHOT_MISMATCH");
    let both = json!({"snapshot": kept, "image": "python"});
    assert_error(&daemon.request("POST", "/v1/sandboxes", Some(&both)), 400, "INVALID_REQUEST");
    let limits = json!({"disk_bytes": 16 << 20, "memory_bytes": 256 << 20});
    daemon.create(json!({"id": "limited", "resources": limits}));
    let refused = daemon.request("POST", "/v1/sandboxes/limited/snapshots", Some(&json!({})));
    assert_error(&refused, 422, "SNAPSHOT_UNSUPPORTED");
    assert_error(
        &daemon.request("POST", "/v1/sandboxes/limited/fork", Some(&json!({}))),
        422,
        "SNAPSHOT_UNSUPPORTED",
    );
    // But it can be made of one.
    daemon.create(json!({"id": "within", "resources": limits, "snapshot": kept}));
    assert_eq!(daemon.request("DELETE", &format!("/v1/snapshots/{kept}"), None).status, 204);
    assert_eq!(
        daemon.shell("within", "cat /root/f && echo more >> /root/f && cat /root/f"),
        "mine\nmine\nmore\n"
    );
    assert_error(&daemon.request("GET", &format!("/v1/snapshots/{kept}"), None), 404, "SNAPSHOT_NOT_FOUND");
    assert_nothing_is_left(&daemon);
}

#[test]
fn a_new_sandbox_does_not_go_back_to_what_a_former_one_of_its_name_was() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "echo former > /root/f");
    let kept = snapshot(&daemon, "box");
    daemon.destroy("box");
    daemon.create(json!({"id": "box"}));
    let roll_back =
        |daemon: &Daemon, body: Value| daemon.request("POST", "/v1/sandboxes/box/rollback", Some(&body));
    assert_error(&roll_back(&daemon, json!({})), 404, "SNAPSHOT_NOT_FOUND");
    assert_error(&roll_back(&daemon, json!({"snapshot": kept})), 409, "SNAPSHOT_MISMATCH");
    daemon.shell("box", "echo own > /root/f");
    snapshot(&daemon, "box");
    // It stays the same sandbox whatever becomes of it and of the daemon.
    stop(&daemon, "box");
    daemon.kill_all();
    daemon.spawn();
    daemon.shell("box", "echo later > /root/f");
    assert_eq!(roll_back(&daemon, json!({})).status, 200);
    assert_eq!(daemon.shell("box", "cat /root/f"), "own\n");
    let listed = daemon.get("/v1/sandboxes/box/snapshots");
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 2, "both are of that name");
    restore(&daemon, "box", &kept);
    assert_eq!(daemon.shell("box", "cat /root/f"), "former\n");
    assert_nothing_is_left(&daemon);
}

#[test]
fn what_has_no_content_shares_none() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "mkdir /root/d && : > /root/d/empty && ln -s d /root/soft");
    let made = post(&daemon, "/v1/sandboxes/box/snapshots", json!({}));
    assert_eq!(made["method"], "copied", "{made}");
    assert_nothing_is_left(&daemon);
}

#[test]
fn a_sandbox_of_another_image_is_refused() {
    let daemon = Daemon::start();
    let Some(image) = crate::harness::image::Image::busybox() else {
        crate::harness::skip!("busybox", "there is no static busybox on this host");
    };
    daemon.import("box:1", &image.layout_tar("box:1"));
    daemon.create(json!({"id": "box", "image": "box:1"}));
    daemon.create(json!({"id": "host"}));
    daemon.shell("box", "echo mine > /f && mkdir /d && mv /bin /b");
    let kept = post(&daemon, "/v1/sandboxes/box/snapshots", json!({}));
    let answer = daemon.request("POST", "/v1/sandboxes/host/restore", Some(&json!({"snapshot": kept["id"]})));
    assert_error(&answer, 409, "SNAPSHOT_MISMATCH");
    daemon.destroy("box");
    // Its layers stay for the snapshot.
    let removed = daemon.request("DELETE", "/v1/images/box:1", None);
    assert_error(&removed, 409, "IMAGE_IN_USE");
    daemon.create(json!({"id": "again", "snapshot": kept["id"]}));
    let found = daemon.run("again", json!({"argv": ["/b/sh", "-c", "/b/cat /f; /b/ls -d /bin /d 2>&1"]}));
    assert_eq!(found["stdout"], "mine\nls: /bin: No such file or directory\n/d\n", "{found}");
    assert_nothing_is_left(&daemon);
    assert_eq!(daemon.request("DELETE", "/v1/images/box:1", None).status, 204);
}

#[test]
fn snapshots_end_when_their_time_is_over() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "echo f > /root/f");
    let brief = post(&daemon, "/v1/sandboxes/box/snapshots", json!({"ttl_ms": 300}));
    assert!(brief["expires_at"].is_string());
    let lasting = snapshot(&daemon, "box");
    let listed = |daemon: &Daemon| daemon.cli(&["snapshot", "ls", "-q", "box"]).stdout;
    host::wait_for("the first to end", || listed(&daemon) == format!("{lasting}\n").into_bytes());
    host::wait_for("its files to go", || saved(&daemon) == [lasting.as_str()]);
    // While nobody looks, too.
    post(&daemon, "/v1/sandboxes/box/snapshots", json!({"ttl_ms": 2000}));
    daemon.kill_all();
    std::thread::sleep(std::time::Duration::from_secs(2));
    daemon.spawn();
    host::wait_for("the other to end", || listed(&daemon) == format!("{lasting}\n").into_bytes());
    assert_error(
        &daemon.request("POST", "/v1/sandboxes/box/snapshots", Some(&json!({"ttl_ms": 0}))),
        400,
        "INVALID_REQUEST",
    );
    assert_nothing_is_left(&daemon);
}

#[test]
fn whatever_is_killed_nothing_is_lost_and_nothing_leaks() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell(
        "box",
        "cd /root && for n in $(seq 400); do head -c 50000 /dev/zero > f$n; done; echo first > /root/f",
    );
    let spec =
        json!({"id": "ticker", "argv": ["sh", "-c", "while :; do date +%N > /root/tick; sleep 0.01; done"]});
    daemon.request("POST", "/v1/sandboxes/box/processes", Some(&spec));
    let kept = snapshot(&daemon, "box");
    daemon.shell("box", "echo second > /root/f");
    let mut acknowledged = vec![kept.clone()];
    for round in 0..8 {
        let path = "/v1/sandboxes/box/snapshots";
        let mut connection = daemon.connect();
        let body = br#"{"name": "perhaps"}"#;
        let asked = std::thread::spawn(move || {
            let answer =
                connection.request("POST", path, &[("content-type", "application/json")], body).ok()?;
            (answer.status == 201).then(|| id(&answer.json()))
        });
        std::thread::sleep(std::time::Duration::from_millis(round * 15));
        if round % 2 == 0 {
            daemon.kill_all();
            daemon.spawn();
        } else {
            kill(Pid::from_raw(daemon.serve_pid()), Signal::SIGKILL).unwrap();
            daemon.wait_until_healthy();
        }
        acknowledged.extend(asked.join().unwrap());
        let ids = daemon.get("/v1/snapshots")["snapshots"].clone();
        let ids: Vec<String> = ids.as_array().unwrap().iter().map(id).collect();
        assert!(acknowledged.iter().all(|one| ids.contains(one)), "{acknowledged:?} {ids:?}");
        // What was frozen for it goes on.
        let tick = || daemon.shell("box", "cat /root/tick");
        let now = tick();
        host::wait_for("the sandbox to go on", || tick() != now);
    }
    let of_snapshots = || {
        let ids = daemon.get("/v1/snapshots")["snapshots"].clone();
        let mut ids: Vec<String> = ids.as_array().unwrap().iter().map(id).collect();
        ids.sort();
        ids
    };
    host::wait_for("what was half-made to go", || {
        let mut there = saved(&daemon);
        there.sort();
        there == of_snapshots()
    });
    post(&daemon, "/v1/sandboxes/box/rollback", json!({"snapshot": kept}));
    assert_eq!(daemon.shell("box", "cat /root/f"), "first\n");
    daemon.kill_all();
    daemon.spawn();
    assert_eq!(daemon.shell("box", "cat /root/f; ls /root | wc -l"), "first\n402\n");
    assert_nothing_is_left(&daemon);
}

#[test]
fn one_that_ended_by_itself_can_go_back() {
    let daemon = Daemon::start();
    let made = daemon.create(json!({"id": "box"}));
    daemon.shell("box", "echo kept > /root/f");
    let kept = snapshot(&daemon, "box");
    let pid = i32::try_from(made["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    host::wait_for("the end to be noticed", || state(&daemon, "box") == "dead");
    restore(&daemon, "box", &kept);
    assert_eq!(state(&daemon, "box"), "stopped");
    assert_eq!(daemon.shell("box", "cat /root/f"), "kept\n");
    assert_nothing_is_left(&daemon);
}

#[test]
fn the_command_line_does_all_of_it() {
    let daemon = Daemon::start();
    let line = |arguments: &[&str]| {
        let output = daemon.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    line(&["create", "--id", "work"]);
    line(&["exec", "work", "--", "sh", "-c", "echo one > /root/f"]);
    let kept = line(&["snapshot", "create", "work", "--name", "before", "--label", "a=b", "--ttl", "1h"]);
    line(&["exec", "work", "--", "sh", "-c", "echo two > /root/f"]);
    let listed = line(&["snapshot", "ls"]);
    assert!(listed.contains(&kept) && listed.contains("before") && listed.contains("work"), "{listed}");
    assert!(line(&["snapshot", "inspect", &kept]).contains("\"before\""));
    let children = line(&["fork", "work", "-n", "2", "--id", "child", "--label", "c=d"]);
    assert_eq!(children.lines().next(), Some("child"));
    assert_eq!(line(&["exec", "child", "--", "cat", "/root/f"]), "two");
    assert_eq!(line(&["rollback", "work"]), "work");
    assert_eq!(line(&["exec", "work", "--", "cat", "/root/f"]), "one");
    line(&["snapshot", "restore", "child", &kept]);
    assert_eq!(line(&["exec", "child", "--", "cat", "/root/f"]), "one");
    line(&["create", "--id", "fresh", "--snapshot", &kept]);
    assert_eq!(line(&["exec", "fresh", "--", "cat", "/root/f"]), "one");
    assert_eq!(line(&["snapshot", "rm", &kept]), kept);
    assert_eq!(line(&["snapshot", "ls", "-q"]), "");
    assert_nothing_is_left(&daemon);
}
