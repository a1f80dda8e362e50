//! What happens and who asked for it: the stream of events, the audit log, the metrics, and quotas.

use std::fs;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::harness::http::Event;
use crate::harness::{Daemon, assert_error, host, id, scratch};
use crate::lifecycle::{GROUP, as_user};

fn events(daemon: &Daemon, query: &str) -> Vec<Value> {
    daemon.get(&format!("/v1/events?{query}"))["events"].as_array().unwrap().clone()
}

fn kinds(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
}

fn post(daemon: &Daemon, path: &str, body: &Value) {
    let answer = daemon.request("POST", path, Some(body));
    assert!(answer.status < 300, "{path}: {}", String::from_utf8_lossy(&answer.body));
}

#[test]
fn everything_that_happens_to_a_sandbox_is_an_event_in_its_order() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.create(json!({"id": "other"}));
    daemon.run("box", json!({"argv": ["sh", "-c", "exit 3", "topsecret"]}));
    post(&daemon, "/v1/sandboxes/box/processes", &json!({"id": "one", "argv": ["false"]}));
    host::wait_for("the process to end", || {
        kinds(&events(&daemon, "sandbox=box")).contains(&"process.exited".into())
    });
    post(&daemon, "/v1/sandboxes/box/ports", &json!({"port": 8000, "token": "hidden"}));
    daemon.request("DELETE", "/v1/sandboxes/box/ports/8000", None);
    post(&daemon, "/v1/sandboxes/box/pause", &json!({}));
    daemon.run("box", json!({"argv": ["true"]}));
    daemon.request("PATCH", "/v1/sandboxes/box/resources", Some(&json!({"pids": 99})));
    daemon.request("PUT", "/v1/sandboxes/box/lifecycle", Some(&json!({"ttl_ms": 900_000})));
    daemon.request("PUT", "/v1/sandboxes/box/network", Some(&json!({"allow": ["example.org"]})));
    post(&daemon, "/v1/sandboxes/box/stop", &json!({}));
    daemon.run("box", json!({"argv": ["true"]}));
    post(&daemon, "/v1/sandboxes/box/snapshots", &json!({}));
    post(&daemon, "/v1/sandboxes/box/fork", &json!({"ids": ["child"]}));
    post(&daemon, "/v1/sandboxes/box/rollback", &json!({}));
    let kept = daemon.get("/v1/snapshots")["snapshots"][0]["id"].as_str().unwrap().to_owned();
    daemon.request("DELETE", &format!("/v1/snapshots/{kept}"), None);
    daemon.destroy("box");
    let all = events(&daemon, "sandbox=box");
    let expected = "sandbox.created command.started command.exited process.started process.exited port.exposed \
                    port.revoked sandbox.paused sandbox.resumed command.started command.exited limits.changed \
                    lifecycle.changed network.changed sandbox.stopped sandbox.woken command.started command.exited \
                    snapshot.created sandbox.forked sandbox.stopped sandbox.restored snapshot.deleted \
                    sandbox.destroyed";
    assert_eq!(kinds(&all).join(" "), expected);
    assert!(all.is_sorted_by_key(|event| event["seq"].as_u64().unwrap()));
    assert_eq!(all[2]["data"]["exit_code"], 3);
    assert_eq!((&all[4]["data"]["id"], &all[4]["data"]["exit_code"]), (&json!("one"), &json!(1)));
    let last = |back: usize| &all[all.len() - back]["data"];
    assert_eq!((&last(5)["children"], &last(3)["snapshot"]), (&json!(["child"]), &json!(kept)));
    let text = serde_json::to_string(&all).unwrap();
    assert!(!text.contains("topsecret") && !text.contains("hidden"), "{text}");
    assert_eq!(kinds(&events(&daemon, "type=sandbox.created")), ["sandbox.created"; 3]);
    assert_eq!(kinds(&events(&daemon, "sandbox=other")), ["sandbox.created"]);
    let page = daemon.get("/v1/events?sandbox=box&limit=2");
    let rest = events(&daemon, &format!("sandbox=box&after={}", page["next"]));
    assert_eq!(rest[0], all[2]);
    assert_error(&daemon.request("GET", "/v1/events?types=x", None), 400, "INVALID_REQUEST");
}

#[test]
fn the_end_of_a_first_process_is_an_event_and_a_stop_is_another() {
    let daemon = Daemon::start();
    let pid = daemon.create(json!({"id": "box"}))["pid"].as_i64().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    host::wait_for("its death to be told", || {
        kinds(&events(&daemon, "sandbox=box")).contains(&"sandbox.died".into())
    });
    daemon.destroy("box");
    assert_eq!(
        kinds(&events(&daemon, "sandbox=box")),
        ["sandbox.created", "sandbox.died", "sandbox.destroyed"]
    );
}

/// Listens, and gives the next so many events.
fn listen(
    daemon: &Daemon,
    path: &str,
    headers: &[(&str, &str)],
    count: usize,
    meanwhile: impl FnOnce(),
) -> Vec<Event> {
    let mut connection = daemon.connect();
    let mut all = vec![("accept", "text/event-stream")];
    all.extend(headers);
    connection.send("GET", path, &all, b"").unwrap();
    let head = connection.receive_head().unwrap();
    assert_eq!(head.status, 200);
    meanwhile();
    let mut body = connection.body(&head);
    (0..count).map(|_| body.next_event().unwrap().expect("an event")).collect()
}

#[test]
fn a_listener_that_comes_back_gets_the_next_event_also_from_another_daemon() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "first"}));
    let heard = listen(&daemon, "/v1/events", &[], 2, || {
        daemon.create(json!({"id": "second"}));
        daemon.create(json!({"id": "third"}));
    });
    let about = |event: &Event| {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        (event.name.clone(), data["sandbox"].as_str().unwrap().to_owned())
    };
    assert_eq!(about(&heard[0]), ("sandbox.created".into(), "second".into()), "from now on, and not before");
    let last = heard[0].id.clone().expect("an id");
    let same = listen(&daemon, "/v1/events", &[("last-event-id", &last)], 1, || {});
    assert_eq!((about(&same[0]), &same[0].id), (about(&heard[1]), &heard[1].id));
    daemon.kill_all();
    daemon.spawn();
    let again = listen(&daemon, "/v1/events", &[("last-event-id", &last)], 1, || {});
    assert_eq!(again[0].id, heard[1].id, "the daemon was killed, and the event is forgotten");
    // One of a ring that nobody remembers: told, and gone on from what there is.
    let lost = listen(&daemon, "/v1/events?after=1", &[], 2, || {});
    assert_eq!(lost[0].name, "lost");
    assert_eq!(about(&lost[1]).1, "first");
    let future = listen(&daemon, "/v1/events?after=9000000000000000", &[], 1, || {});
    assert_eq!(future[0].name, "lost");
}

#[test]
fn others_hear_nothing_of_it_and_read_only_what_they_did_themselves() {
    let daemon = Daemon::with(&["--socket-gid", GROUP]);
    let user = |uid: &str, method: &str, path: &str, body: &str| {
        as_user(&daemon, uid, GROUP, method, path, body).unwrap()
    };
    user("1001", "POST", "/v1/sandboxes", r#"{"id":"mine"}"#);
    user("1002", "POST", "/v1/sandboxes", r#"{"id":"theirs"}"#);
    let heard = |uid: &str| {
        let (_, list) = user(uid, "GET", "/v1/events", "");
        let ids = list["events"].as_array().unwrap().iter().map(|event| event["sandbox"].to_string());
        ids.collect::<Vec<_>>().join(" ")
    };
    assert_eq!((heard("1001"), heard("1002")), ("\"mine\"".into(), "\"theirs\"".into()));
    assert_eq!(heard("0"), "\"mine\" \"theirs\"");
    let uids = |uid: &str| {
        let (_, list) = user(uid, "GET", "/v1/audit", "");
        list["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line["record"]["uid"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!((uids("1001"), uids("0")), (vec![1001], vec![1001, 1002]));
    let (status, refused) = user("1001", "GET", "/v1/metrics", "");
    assert_eq!((status, &refused["code"]), (403, &json!("PERMISSION_DENIED")));
    let ids = user("1001", "GET", "/v1/stats", "").1["sandboxes"].to_string();
    assert!(ids.contains("mine") && !ids.contains("theirs"), "{ids}");
    for name in ["mine", "theirs"] {
        daemon.destroy(name);
    }
}

fn verify(daemon: &Daemon, more: &[&str]) -> (bool, String) {
    let journal = daemon.state_dir().join("journal");
    let mut arguments = vec!["audit", "verify", journal.to_str().unwrap()];
    arguments.extend(more);
    let output = daemon.cli(&arguments);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn records(daemon: &Daemon) -> Vec<Value> {
    let lines = daemon.get("/v1/audit?limit=1000")["lines"].as_array().unwrap().clone();
    lines.into_iter().map(|line| line["record"].clone()).collect()
}

#[test]
fn every_request_that_changes_something_is_on_record_and_no_secret_is() {
    let mut daemon = Daemon::start();
    let named = id(&daemon.create(json!({"env": {"PASSWORD": "swordfish-1"}})));
    daemon.run(&named, json!({"argv": ["echo", "swordfish-2"], "env": {"A": "swordfish-3"}}));
    daemon.try_run("nobody", &json!({"argv": ["true"]}));
    daemon.request("POST", "/v1/sandboxes", Some(&json!({"image": "swordfish-4"})));
    let content = format!("/v1/sandboxes/{named}/files/content?path=/root/swordfish-5");
    daemon.send("PUT", &content, &[], b"swordfish-6");
    daemon.get(&format!("/v1/sandboxes/{named}"));
    daemon.destroy(&named);
    let all = records(&daemon);
    let told: Vec<_> = all
        .iter()
        .map(|one| {
            (one["operation"].as_str().unwrap(), one["verdict"].as_str().unwrap(), one["sandbox"].as_str())
        })
        .collect();
    let expected = [
        ("createSandbox", "done", Some(&*named)),
        ("runCommand", "done", Some(&*named)),
        ("runCommand", "SANDBOX_NOT_FOUND", Some("nobody")),
        ("createSandbox", "IMAGE_NOT_FOUND", None),
        ("writeFile", "done", Some(&*named)),
        ("destroySandbox", "done", Some(&*named)),
    ];
    assert_eq!(told, expected);
    let own = u64::from(std::process::id());
    assert!(all.iter().all(|one| one["uid"] == 0 && one["pid"] == own), "{all:?}");
    assert!(all.iter().all(|one| one["digest"].as_str().unwrap().starts_with("hmac-sha256:")));
    for entry in fs::read_dir(daemon.state_dir().join("journal")).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains("swordfish"), "{}", path.display());
    }
    // Killed at any moment, the chain goes on.
    daemon.kill_all();
    daemon.spawn();
    daemon.sandbox();
    let (whole, text) = verify(&daemon, &[]);
    assert!(whole && text.contains("7 records"), "{text}");
    daemon.destroy(&daemon.ids()[0]);
}

#[test]
fn a_log_that_somebody_has_touched_is_not_whole_and_a_cut_end_needs_a_memory() {
    let mut daemon = Daemon::start();
    for _ in 0..3 {
        daemon.try_run("nobody", &json!({"argv": ["true"]}));
    }
    let (whole, text) = verify(&daemon, &[]);
    assert!(whole, "{text}");
    let head =
        text.lines().find_map(|line| line.strip_prefix("remember this, elsewhere: ")).unwrap().to_owned();
    assert!(verify(&daemon, &["--expect", &head]).0);
    daemon.stop();
    let mut paths =
        fs::read_dir(daemon.state_dir().join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let path = paths.find(|path| path.to_string_lossy().contains("audit-")).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    for (bad, why) in [
        (good.replacen("\"uid\":0", "\"uid\":7", 1), "changed"),
        (lines[1..].concat(), "the first is gone"),
        ([lines[0], lines[2]].concat(), "one in the middle is gone"),
        ([lines[1], lines[0], lines[2]].concat(), "two are exchanged"),
        (good[..good.len() - 9].to_owned(), "the last is not whole"),
    ] {
        fs::write(&path, bad).unwrap();
        let (whole, text) = verify(&daemon, &[]);
        assert!(!whole && text.contains("not whole"), "{why}: {text}");
    }
    fs::write(&path, lines[..2].concat()).unwrap();
    assert!(verify(&daemon, &[]).0, "what the chain alone cannot show");
    assert!(!verify(&daemon, &["--expect", &head]).0, "and somebody's memory can");
    fs::write(&path, &good).unwrap();
    // What a crash of the host cuts, the next daemon takes off, and says so.
    fs::File::options().append(true).open(&path).unwrap().write_all(b"{\"hash\":\"0").unwrap();
    daemon.spawn();
    assert_eq!(records(&daemon).last().unwrap()["operation"], "audit.repaired");
    let (whole, text) = verify(&daemon, &["--expect", &head]);
    assert!(whole && text.contains("cut by a crash"), "{text}");
}

#[test]
fn the_metrics_say_how_long_each_operation_took_and_what_there_is() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.create(json!({"id": "rests"}));
    for _ in 0..3 {
        daemon.run("box", json!({"argv": ["true"]}));
    }
    post(&daemon, "/v1/sandboxes/rests/stop", &json!({}));
    daemon.try_run("nobody", &json!({"argv": ["true"]}));
    let answer = daemon.request("GET", "/v1/metrics", None);
    let text = String::from_utf8(answer.body).unwrap();
    assert_eq!(answer.status, 200, "{text}");
    for line in [
        "stockade_request_seconds_count{operation=\"runCommand\",outcome=\"done\"} 3",
        "stockade_request_seconds_count{operation=\"runCommand\",outcome=\"refused\"} 1",
        "stockade_request_seconds_count{operation=\"createSandbox\",outcome=\"done\"} 2",
        "stockade_sandboxes{kind=\"running\"} 1",
        "stockade_sandboxes{kind=\"stopped\"} 1",
        "# TYPE stockade_request_seconds histogram",
        "stockade_images{kind=\"images\"} 0",
        "stockade_audit_records 7",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let memory =
        text.lines().find_map(|line| line.strip_prefix("stockade_memory_bytes{kind=\"all\"} ")).unwrap();
    assert!(memory.parse::<u64>().unwrap() > 0, "{text}");
}

/// A daemon in which users may have so much.
pub(crate) fn with_quotas(quotas: &str) -> (Daemon, tempfile::TempDir) {
    let directory = scratch();
    let path = directory.path().join("config.toml");
    fs::write(&path, quotas).unwrap();
    (Daemon::with(&["--config", path.to_str().unwrap(), "--socket-gid", GROUP]), directory)
}

#[test]
fn a_user_gets_what_the_quota_allows_and_not_more_however_many_ask_at_once() {
    let (mut daemon, _directory) = with_quotas(
        "[quotas]\nsandboxes = 4\nmemory_bytes = 314572800\n[quotas.users.1002]\nsandboxes = 1\n",
    );
    let ask = |daemon: &Daemon, uid: &str, method: &str, path: &str, body: &str| {
        as_user(daemon, uid, GROUP, method, path, body).unwrap()
    };
    let spec = |mib: u64| format!(r#"{{"resources":{{"memory_bytes":{}}}}}"#, mib << 20);
    // Eight at once, of which three fit.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| ask(&daemon, "1001", "POST", "/v1/sandboxes", &spec(100))))
            .collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let made: Vec<_> =
        answers.iter().filter(|(status, _)| *status == 201).map(|(_, made)| id(made)).collect();
    assert_eq!(made.len(), 3, "{answers:?}");
    let (_, refused) = answers.iter().find(|(status, _)| *status != 201).unwrap();
    assert_eq!(refused["code"], "QUOTA_EXCEEDED", "{refused}");
    // Of the fourth place or of the memory, whichever was asked for when it was taken.
    assert!([4, 300 << 20].contains(&refused["context"]["allowed"].as_u64().unwrap()), "{refused}");
    let share = |daemon: &Daemon, what: &str| {
        ask(daemon, "1001", "GET", "/v1/quota", "").1[what]["used"].as_u64().unwrap()
    };
    assert_eq!((share(&daemon, "sandboxes"), share(&daemon, "memory_bytes")), (3, 300 << 20));
    // Others, and root, have their own; what a user's table does not name is everybody's.
    let (_, refused) = ask(&daemon, "1002", "POST", "/v1/sandboxes", &spec(301));
    assert_eq!(refused["context"]["field"], "memory_bytes", "{refused}");
    assert_eq!(ask(&daemon, "1002", "POST", "/v1/sandboxes", &spec(100)).0, 201);
    let (_, refused) = ask(&daemon, "1002", "POST", "/v1/sandboxes", &spec(100));
    assert_eq!(refused["context"]["field"], "sandboxes", "{refused}");
    daemon.create(json!({"id": "roots", "resources": {"memory_bytes": 1_u64 << 30}}));

    // One that is stopped uses no memory, and one that wants to wake must have room.
    let stop = |daemon: &Daemon, name: &str| {
        ask(daemon, "1001", "POST", &format!("/v1/sandboxes/{name}/stop"), "{}")
    };
    assert_eq!(stop(&daemon, &made[0]).0, 200);
    assert_eq!(ask(&daemon, "1001", "POST", "/v1/sandboxes", &spec(90)).0, 201);
    let run = |daemon: &Daemon| {
        let path = format!("/v1/sandboxes/{}/commands", made[0]);
        ask(daemon, "1001", "POST", &path, r#"{"argv":["true"]}"#)
    };
    assert_eq!(run(&daemon).1["code"], "QUOTA_EXCEEDED");
    assert_eq!(ask(&daemon, "1001", "POST", "/v1/sandboxes", &spec(10)).1["code"], "QUOTA_EXCEEDED");
    // Right after a restart it is as it was.
    daemon.kill_all();
    daemon.spawn();
    assert_eq!((share(&daemon, "sandboxes"), share(&daemon, "memory_bytes")), (4, 290 << 20));
    assert_eq!(run(&daemon).1["code"], "QUOTA_EXCEEDED");
    let path = format!("/v1/sandboxes/{}/resources", made[1]);
    let change = |mib: u64| format!(r#"{{"memory_bytes":{}}}"#, mib << 20);
    assert_eq!(ask(&daemon, "1001", "PATCH", &path, &change(111)).1["code"], "QUOTA_EXCEEDED");
    assert_eq!(ask(&daemon, "1001", "PATCH", &path, &change(10)).0, 200);
    assert_eq!(run(&daemon).0, 200, "there is room again");
    for name in daemon.ids() {
        daemon.destroy(&name);
    }
    assert_eq!((share(&daemon, "sandboxes"), share(&daemon, "memory_bytes")), (0, 0));
}

#[test]
fn cycling_leaves_nothing_taken_and_nothing_behind() {
    let (daemon, _directory) = with_quotas("[quotas.users.0]\nsandboxes = 40\nmemory_bytes = 1073741824\n");
    let spec = json!({"resources": {"memory_bytes": 32 << 20}});
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..6 {
                    let name = id(&daemon.create(spec.clone()));
                    daemon.run(&name, json!({"argv": ["true"]}));
                    if round % 2 == 0 {
                        post(&daemon, &format!("/v1/sandboxes/{name}/stop"), &json!({}));
                        daemon.run(&name, json!({"argv": ["true"]}));
                    }
                    daemon.destroy(&name);
                }
            });
        }
    });
    let quota = daemon.get("/v1/quota");
    assert_eq!(
        (&quota["sandboxes"]["used"], &quota["memory_bytes"]["used"]),
        (&json!(0), &json!(0)),
        "{quota}"
    );
    let created = events(&daemon, "type=sandbox.created");
    assert_eq!(created.len(), events(&daemon, "type=sandbox.destroyed").len());
    assert_eq!(created.len(), 24);
    assert!(verify(&daemon, &[]).0);
}

#[test]
fn the_command_line_listens_and_shows_the_log() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    let text = |arguments: &[&str]| {
        let output = daemon.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = text(&["events", "--since", "0", "--no-follow"]);
    assert!(shown.contains("sandbox.created") && shown.contains("box"), "{shown}");
    assert_eq!(text(&["events", "--since", "0", "--no-follow", "--type", "sandbox.died"]), "");
    let tail = text(&["audit", "tail", "--sandbox", "box"]);
    assert!(tail.contains("createSandbox") && tail.contains("done"), "{tail}");
    assert!(text(&["quota"]).contains("sandboxes"));
}
