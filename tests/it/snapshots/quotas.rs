//! How many snapshots a user may have, and how large.

use serde_json::{Value, json};

use super::saved;
use crate::harness::{Daemon, host};
use crate::journal::with_quotas;
use crate::lifecycle::{GROUP, as_user};

fn ask(daemon: &Daemon, uid: &str, method: &str, path: &str, body: &Value) -> (u16, Value) {
    as_user(daemon, uid, GROUP, method, path, &body.to_string()).unwrap()
}

/// What a user has of both.
fn used(daemon: &Daemon, uid: &str) -> (u64, u64) {
    let (_, quota) = ask(daemon, uid, "GET", "/v1/quota", &json!({}));
    let of = |what: &str| quota[what]["used"].as_u64().unwrap();
    (of("snapshots"), of("snapshot_bytes"))
}

#[track_caller]
fn refused((status, answer): &(u16, Value), field: &str) {
    assert_eq!((*status, &answer["code"]), (429, &json!("QUOTA_EXCEEDED")), "{answer}");
    assert_eq!(answer["context"]["field"], field, "{answer}");
}

#[test]
fn snapshots_are_counted_and_one_too_many_is_refused_before_anything_is_copied() {
    let (mut daemon, _directory) = with_quotas(
        "[quotas]\nsnapshots = 3\n[quotas.users.1002]\nsnapshots = 0\n[quotas.users.0]\nsnapshots = 0\n",
    );
    for (uid, name) in [("1001", "box"), ("1002", "none")] {
        assert_eq!(ask(&daemon, uid, "POST", "/v1/sandboxes", &json!({"id": name})).0, 201);
    }
    let path = "/v1/sandboxes/box/snapshots";
    let make = |daemon: &Daemon, body: &Value| ask(daemon, "1001", "POST", path, body);
    // Six at once, of which three fit: of all files, and of a directory.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let bodies = [json!({}), json!({"path": "/tmp"})];
        let asked: Vec<_> = (0..6)
            .map(|number| {
                let (daemon, body) = (&daemon, bodies[number % 2].clone());
                scope.spawn(move || make(daemon, &body))
            })
            .collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let made: Vec<&Value> =
        answers.iter().filter(|(status, _)| *status == 201).map(|(_, view)| view).collect();
    assert_eq!(made.len(), 3, "{answers:?}");
    answers.iter().filter(|(status, _)| *status != 201).for_each(|answer| refused(answer, "snapshots"));
    let bytes: u64 = made.iter().map(|view| view["size_bytes"].as_u64().unwrap()).sum();
    assert_eq!(used(&daemon, "1001"), (3, bytes));
    let whole = made.iter().filter(|view| view["path"].is_null()).count();
    host::wait_for("what was refused to be gone", || saved(&daemon).len() == whole);
    refused(&ask(&daemon, "1002", "POST", "/v1/sandboxes/none/snapshots", &json!({})), "snapshots");
    // It counts for whose sandbox it is, whoever makes it; and is right after a restart.
    let answer = daemon.request("POST", path, Some(&json!({})));
    refused(&(answer.status, answer.json()), "snapshots");
    // One that comes from elsewhere is whose it is who sends it.
    let octets = [("content-type", "application/octet-stream")];
    let answer = daemon.send("POST", "/v1/snapshots?path=/root", &octets, &[0; 1024]);
    refused(&(answer.status, answer.json()), "snapshots");
    daemon.kill_all();
    daemon.spawn();
    assert_eq!(used(&daemon, "1001"), (3, bytes));
    refused(&make(&daemon, &json!({})), "snapshots");
    let gone = format!("/v1/snapshots/{}", made[0]["id"].as_str().unwrap());
    assert_eq!(ask(&daemon, "1001", "DELETE", &gone, &json!({})).0, 204);
    assert_eq!(used(&daemon, "1001").0, 2);
    let (status, short) = make(&daemon, &json!({"ttl_ms": 1000}));
    assert_eq!(status, 201, "{short}");
    host::wait_for("the place of one whose time is over", || used(&daemon, "1001").0 == 2);
    // Roots have as much as there is, and a fork is a sandbox and no snapshot.
    assert_eq!(ask(&daemon, "1002", "POST", "/v1/sandboxes/none/fork", &json!({"ids": ["fork"]})).0, 201);
    assert_eq!(used(&daemon, "1002"), (0, 0));
    for name in daemon.ids() {
        daemon.destroy(&name);
    }
    assert_eq!(used(&daemon, "1001").0, 2, "they outlive the sandbox");
    for view in &made[1..] {
        let path = format!("/v1/snapshots/{}", view["id"].as_str().unwrap());
        assert_eq!(daemon.request("DELETE", &path, None).status, 204);
    }
    assert_eq!(used(&daemon, "1001"), (0, 0));
    super::assert_nothing_is_left(&daemon);
}

#[test]
fn one_that_turns_out_too_large_leaves_nothing_and_the_sandbox_as_it_was() {
    let (daemon, _directory) = with_quotas("[quotas]\nsnapshot_bytes = 3000000\n");
    assert_eq!(ask(&daemon, "1001", "POST", "/v1/sandboxes", &json!({"id": "box"})).0, 201);
    let path = "/v1/sandboxes/box/snapshots";
    let make = |body: &Value| ask(&daemon, "1001", "POST", path, body);
    daemon.shell("box", "mkdir /root/d; head -c 2000000 /dev/urandom > /root/d/a");
    let (status, first) = make(&json!({}));
    assert_eq!(status, 201, "{first}");
    let bytes = first["size_bytes"].as_u64().unwrap();
    assert!((2_000_000..2_500_000).contains(&bytes), "{first}");
    // Of all files, running and stopped, and of a directory.
    refused(&make(&json!({})), "snapshot_bytes");
    refused(&make(&json!({"path": "/root/d"})), "snapshot_bytes");
    assert_eq!(daemon.request("POST", "/v1/sandboxes/box/stop", Some(&json!({}))).status, 200);
    daemon.shell("box", "head -c 2000000 /dev/urandom > /root/d/b; sync");
    assert_eq!(daemon.request("POST", "/v1/sandboxes/box/stop", Some(&json!({}))).status, 200);
    refused(&make(&json!({})), "snapshot_bytes");
    assert_eq!(used(&daemon, "1001"), (1, bytes));
    assert_eq!(daemon.get("/v1/snapshots")["snapshots"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.shell("box", "wc -c < /root/d/a; wc -c < /root/d/b"), "2000000\n2000000\n");
    assert_eq!(std::fs::read_dir(daemon.state_dir().join("snapshots")).unwrap().count(), 1, "one file each");
    // A part of it fits, and what was deleted counts no more.
    assert_eq!(make(&json!({"path": "/tmp"})).0, 201);
    daemon.destroy("box");
    for view in daemon.get("/v1/snapshots")["snapshots"].as_array().unwrap() {
        let path = format!("/v1/snapshots/{}", view["id"].as_str().unwrap());
        assert_eq!(daemon.request("DELETE", &path, None).status, 204);
    }
    assert_eq!(used(&daemon, "1001"), (0, 0));
    super::assert_nothing_is_left(&daemon);
}
