//! What sandboxes use and what they may, while they run.
//!
//! `cargo xtask vm` runs this module again under a kernel with pure cgroup v2, where only busybox, the probe and this
//! program exist.

use serde_json::{Value, json};

use crate::harness::image::{Image, Meta, Tar, busybox_layer};
use crate::harness::{Daemon, assert_error, host, id, probe, skip};

const MIB: u64 = 1 << 20;

/// A daemon that holds the image `probe:1`: busybox and the probe at /bin/probe.
macro_rules! daemon_or_skip {
    () => {{
        let Some(busybox) = busybox_layer() else { skip!("busybox", "busybox-static is not installed") };
        let program = std::fs::read(probe::program()).unwrap();
        let layer = Tar::new().file("bin/probe", Meta::PROGRAM, &program).finish();
        let daemon = Daemon::start();
        daemon.import("probe:1", &Image::new(vec![busybox, layer]).layout_tar("1"));
        daemon
    }};
}

fn create(daemon: &Daemon, spec: Value) -> String {
    let mut whole = json!({"image": "probe:1"});
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    id(&daemon.create(whole))
}

fn stats(daemon: &Daemon, name: &str) -> Value {
    daemon.get(&format!("/v1/sandboxes/{name}/stats"))
}

fn limit(daemon: &Daemon, name: &str, wanted: &Value, dry_run: bool) -> Value {
    let answer = try_limit(daemon, name, wanted, dry_run);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn try_limit(daemon: &Daemon, name: &str, wanted: &Value, dry_run: bool) -> crate::harness::http::Response {
    let path = format!("/v1/sandboxes/{name}/resources?dry_run={dry_run}");
    daemon.request("PATCH", &path, Some(wanted))
}

/// Whether an answer names a field, or the group that it belongs to, as not measured.
fn is_unmeasured(stats: &Value, field: &str) -> bool {
    stats["unmeasured"].as_array().unwrap().iter().any(|one| {
        let name = one["field"].as_str().unwrap();
        assert!(!one["why"].as_str().unwrap().is_empty(), "{stats}");
        name == field || field.starts_with(&format!("{name}."))
    })
}

/// Every number is there or said to be missing, and never both.
#[track_caller]
fn assert_honest(stats: &Value) {
    for group in ["cpu", "memory", "io", "pids"] {
        for (name, value) in stats[group].as_object().unwrap() {
            if name.starts_with("limit") || name == "source" {
                continue;
            }
            let field = format!("{group}.{name}");
            if ["cpu.user_us", "cpu.system_us"].contains(&field.as_str()) {
                continue;
            }
            assert_eq!(value.is_null(), is_unmeasured(stats, &field), "{field}: {stats}");
        }
    }
}

#[test]
fn what_a_sandbox_uses_is_what_its_commands_did() {
    let daemon = daemon_or_skip!();
    let name = create(&daemon, json!({"resources": {"memory_bytes": 256 * MIB, "pids": 64}}));
    let before = stats(&daemon, &name);
    assert_honest(&before);
    assert_eq!(before["state"], "running");
    // A third of a second of work, by a process that nobody has waited for, and one that stays.
    let spin = "(i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done) & wait";
    let result = daemon.run(&name, json!({"shell": spin}));
    let after = stats(&daemon, &name);
    let used = |stats: &Value| stats["cpu"]["usage_us"].as_u64().unwrap();
    let own = &result["usage"];
    let command = own["user_us"].as_u64().unwrap() + own["system_us"].as_u64().unwrap();
    assert!(command > 10_000, "{result}");
    // The sandbox's time holds the command's; the clocks of both are read one after the other.
    assert!(used(&after) - used(&before) >= command * 9 / 10, "{before} {after} {command}");

    let memory = |stats: &Value| stats["memory"]["anonymous_bytes"].as_u64();
    let spec = json!({"id": "eater", "argv": ["/bin/probe", "keep", "32"]});
    let started = daemon.request("POST", &format!("/v1/sandboxes/{name}/processes"), Some(&spec));
    assert_eq!(started.status, 201);
    host::wait_for("the memory to be used", || {
        memory(&stats(&daemon, &name)).unwrap() > memory(&before).unwrap() + 30 * MIB
    });
    let full = stats(&daemon, &name);
    assert!(full["pids"]["current"].as_u64().unwrap() > before["pids"]["current"].as_u64().unwrap());
    assert_eq!(full["memory"]["limit_bytes"], 256 * MIB);
    assert_eq!(full["pids"]["limit"], 64);
    daemon.request("DELETE", &format!("/v1/sandboxes/{name}/processes"), None);
    let least = memory(&full).unwrap() - 16 * MIB;
    host::wait_for("the memory to be free", || memory(&stats(&daemon, &name)).unwrap() < least);
    if let Some(peak) = stats(&daemon, &name)["memory"]["peak_bytes"].as_u64() {
        assert!(peak > memory(&before).unwrap() + 30 * MIB, "the peak is forgotten: {peak}");
    }
}

#[test]
fn without_limits_it_is_counted_by_other_means_and_what_is_not_is_said() {
    let daemon = daemon_or_skip!();
    // On a host with v1 controllers such a sandbox has no group of its own there.
    let name = create(&daemon, json!({"resources": {"memory_bytes": 0, "pids": 0}}));
    let none = stats(&daemon, &name);
    assert_honest(&none);
    assert!(none["memory"]["current_bytes"].as_u64().unwrap() > 0, "{none}");
    assert!(none["pids"]["current"].as_u64().unwrap() >= 2, "{none}");
    assert!(none["memory"]["limit_bytes"].is_null());
    if !host::unified() {
        assert_eq!(none["memory"]["source"], "processes");
        assert!(is_unmeasured(&none, "memory.peak_bytes"), "{none}");
    }
    let written = |stats: &Value| stats["io"]["written_bytes"].as_u64();
    if written(&none).is_some() {
        daemon.shell(&name, "dd if=/dev/zero of=/big bs=64k count=64 conv=fsync 2>/dev/null");
        // By a process that has ended: it was waited for.
        host::wait_for("the bytes to be counted", || {
            written(&stats(&daemon, &name)).unwrap() >= written(&none).unwrap() + 4 * MIB
        });
    }
}

#[test]
fn files_are_counted_when_asked_for_and_nothing_is_woken() {
    let daemon = daemon_or_skip!();
    let name = create(&daemon, json!({}));
    daemon.shell(
        &name,
        "mkdir /d && dd if=/dev/zero of=/d/big bs=1M count=3 2>/dev/null && ln /d/big /d/again",
    );
    assert!(is_unmeasured(&stats(&daemon, &name), "disk"));
    let disk = |name: &str| daemon.get(&format!("/v1/sandboxes/{name}/stats?disk=true"))["disk"].clone();
    let counted = disk(&name);
    let bytes = counted["used_bytes"].as_u64().unwrap();
    assert!((3 * MIB..4 * MIB).contains(&bytes), "once, and its image not at all: {counted}");
    assert_eq!((&counted["complete"], &counted["source"]), (&json!(true), &json!("files")));
    daemon.request("POST", &format!("/v1/sandboxes/{name}/stop"), None);
    assert_eq!(disk(&name)["used_bytes"], counted["used_bytes"]);
    let stopped = stats(&daemon, &name);
    assert_eq!(stopped["state"], "stopped");
    assert!(stopped["cpu"]["usage_us"].is_null() && is_unmeasured(&stopped, "cpu.usage_us"), "{stopped}");
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{name}"))["state"], "stopped", "asking has woken it");
    let limited = create(&daemon, json!({"resources": {"disk_bytes": 16 * MIB, "memory_bytes": 256 * MIB}}));
    daemon.shell(&limited, "dd if=/dev/zero of=/big bs=1M count=5 2>/dev/null");
    let known = stats(&daemon, &limited)["disk"].clone();
    assert!((5 * MIB..6 * MIB).contains(&known["used_bytes"].as_u64().unwrap()), "{known}");
    assert_eq!(known["limit_bytes"], 16 * MIB);
}

#[test]
fn a_tree_made_to_be_counted_for_ever_is_not() {
    let daemon = daemon_or_skip!();
    let name = create(&daemon, json!({}));
    // Deeper than paths may be long, with a link to the root in each.
    let deep = "i=0; while [ $i -lt 900 ]; do mkdir d && ln -s / up && cd d || exit 1; i=$((i+1)); done";
    daemon.run(&name, json!({"shell": deep, "timeout_ms": 60_000}));
    let stats = daemon.get(&format!("/v1/sandboxes/{name}/stats?disk=true"));
    assert_eq!(stats["disk"]["complete"], false, "{stats}");
    assert!(is_unmeasured(&stats, "disk.used_bytes"));
    assert!(stats["disk"]["files"].as_u64().unwrap() > 500, "{stats}");
}

#[test]
fn readings_come_as_events_until_the_sandbox_is_gone() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box", "lifecycle": {"idle_timeout_ms": 500}}));
    let path = "/v1/sandboxes/box/stats?interval_ms=100";
    let mut connection = daemon.connect();
    connection.send("GET", path, &[("accept", "text/event-stream")], b"").unwrap();
    let head = connection.receive_head().unwrap();
    assert_eq!(head.status, 200);
    let mut body = connection.body(&head);
    let mut next = || body.next_event().unwrap().expect("an event");
    let state =
        |data: &str| serde_json::from_str::<Value>(data).unwrap()["state"].as_str().map(str::to_owned);
    // To look at it is no use of it.
    while state(&next().data).as_deref() != Some("stopped") {}
    daemon.destroy("box");
    let last = std::iter::repeat_with(&mut next).find(|event| event.name == "gone");
    assert!(last.is_some());
    let list = daemon.get("/v1/stats");
    assert_eq!(list["sandboxes"], json!([]));
    let bad = daemon.request("GET", "/v1/stats?interval_ms=1", None);
    assert_error(&bad, 400, "INVALID_REQUEST");
}

/// Processors that a busy loop gets within a second.
fn busy(daemon: &Daemon, name: &str) -> f64 {
    let used = |stats: &Value| stats["cpu"]["usage_us"].as_f64().unwrap();
    let at = |stats: &Value| stats["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let before = stats(daemon, name);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let after = stats(daemon, name);
    (used(&after) - used(&before)) / 1e6 / at(&after).duration_since(at(&before)).as_secs_f64()
}

#[test]
fn limits_change_while_it_runs_and_stay_changed() {
    let mut daemon = daemon_or_skip!();
    let enforceable = daemon.get("/v1/info")["host"]["limits"].clone();
    for needed in ["memory_bytes", "pids", "cpu_millis"] {
        if enforceable[needed].is_null() {
            skip!("limit", "this host cannot enforce {needed}");
        }
    }
    let name = create(&daemon, json!({"resources": {"memory_bytes": 128 * MIB}}));
    let spin = json!({"id": "spin", "shell": "while :; do :; done"});
    assert_eq!(daemon.request("POST", &format!("/v1/sandboxes/{name}/processes"), Some(&spin)).status, 201);
    // On a busy host it has to wait for its turn.
    let unlimited = || host::wait_for("it to get more than a limit allows", || busy(&daemon, &name) > 0.2);
    unlimited();
    // What was running before there was any limit on processors.
    let wanted = json!({"cpus": 0.1, "pids": 20, "memory_bytes": 64 * MIB});
    let asked = limit(&daemon, &name, &wanted, true);
    assert_eq!(asked["changes"].as_array().unwrap().len(), 3, "{asked}");
    let view = || daemon.get(&format!("/v1/sandboxes/{name}"))["isolation"]["limits"].clone();
    assert_eq!(view()["memory_bytes"]["value"], 128 * MIB, "a question has changed something");
    let done = limit(&daemon, &name, &wanted, false);
    assert_eq!(done["changes"], asked["changes"]);
    assert_eq!(view()["memory_bytes"]["value"], 64 * MIB);
    assert_eq!((&view()["cpu_millis"]["value"], &view()["pids"]["value"]), (&json!(100), &json!(20)));
    assert!(busy(&daemon, &name) < 0.2, "the process that ran already is not limited");
    let eat =
        |mib: &str| daemon.run(&name, json!({"argv": ["/bin/probe", "eat", mib], "timeout_ms": 60_000}));
    assert_eq!(eat("100")["exit_code"], 137);
    let count = daemon.run(&name, json!({"argv": ["/bin/probe", "fork", "100"], "timeout_ms": 60_000}));
    assert!(count["stdout"].as_str().unwrap().trim().parse::<u32>().unwrap() < 20, "{count}");

    // Up again, and none at all.
    limit(&daemon, &name, &json!({"memory_bytes": 512 * MIB, "cpus": 0}), false);
    assert_eq!(eat("200")["exit_code"], 0);
    unlimited();
    assert!(view()["cpu_millis"].is_null());
    // A daemon that was killed, and a sandbox that was stopped: limits stay.
    daemon.kill_all();
    daemon.spawn();
    let view = || daemon.get(&format!("/v1/sandboxes/{name}"))["isolation"]["limits"].clone();
    assert_eq!(view()["memory_bytes"]["value"], 512 * MIB);
    daemon.request("POST", &format!("/v1/sandboxes/{name}/stop"), None);
    let change = limit(&daemon, &name, &json!({"memory_bytes": 96 * MIB}), false);
    assert_eq!(change["changes"][0]["before"], 512 * MIB, "{change}");
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{name}"))["state"], "stopped", "it was woken");
    daemon.shell(&name, "true");
    assert_eq!(view()["memory_bytes"]["value"], 96 * MIB);
    assert_eq!(view()["pids"]["value"], 20);
}

#[test]
fn a_limit_that_cannot_be_is_refused_and_nothing_is_changed() {
    let daemon = daemon_or_skip!();
    if daemon.get("/v1/info")["host"]["limits"]["memory_bytes"].is_null() {
        skip!("limit", "this host cannot enforce memory_bytes");
    }
    let name = create(&daemon, json!({"resources": {"memory_bytes": 256 * MIB, "pids": 50}}));
    let spec = json!({"id": "eater", "argv": ["/bin/probe", "keep", "64"]});
    daemon.request("POST", &format!("/v1/sandboxes/{name}/processes"), Some(&spec));
    host::wait_for("the memory to be used", || {
        stats(&daemon, &name)["memory"]["anonymous_bytes"].as_u64().unwrap() > 60 * MIB
    });
    for dry_run in [true, false] {
        let refused = try_limit(&daemon, &name, &json!({"memory_bytes": 32 * MIB, "pids": 20}), dry_run);
        assert_error(&refused, 409, "LIMIT_BELOW_USE");
    }
    assert_error(
        &try_limit(&daemon, &name, &json!({"disk_bytes": 64 * MIB}), false),
        422,
        "LIMIT_UNSUPPORTED",
    );
    assert_error(&try_limit(&daemon, &name, &json!({"pids": 2}), false), 400, "INVALID_REQUEST");
    assert_error(&try_limit(&daemon, "nobody", &json!({"pids": 20}), false), 404, "SANDBOX_NOT_FOUND");
    let limits = daemon.get(&format!("/v1/sandboxes/{name}"))["isolation"]["limits"].clone();
    assert_eq!((&limits["memory_bytes"]["value"], &limits["pids"]["value"]), (&json!(256 * MIB), &json!(50)));
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{name}/processes/eater"))["state"], "running");
    let warned = limit(&daemon, &name, &json!({"pids": 4}), true);
    assert!(
        !warned["warnings"].as_array().unwrap().is_empty()
            || stats(&daemon, &name)["pids"]["current"].as_u64() <= Some(4)
    );
}

#[test]
fn the_command_line_shows_what_is_used_and_changes_limits() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    let text = |arguments: &[&str]| {
        let output = daemon.cli(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let table = text(&["stats"]);
    assert!(table.starts_with("ID") && table.contains("box") && table.contains('%'), "{table}");
    assert!(text(&["stats", "box", "--disk"]).contains("box"));
    let value: Value = serde_json::from_str(&text(&["--json", "stats"])).unwrap();
    assert_eq!(value["sandboxes"][0]["id"], "box");
    assert!(text(&["top"]).contains('['));
    assert!(text(&["limits", "show", "box"]).contains("pids"));
    assert!(text(&["limits", "set", "box", "--pids", "33", "--dry-run"]).contains("pids: 512 -> 33"));
    assert!(text(&["limits", "set", "box", "--pids", "33"]).contains("-> 33"));
    assert!(text(&["limits", "show", "box"]).contains("33"));
    assert!(!daemon.cli(&["limits", "set", "box"]).status.success());
    assert!(!daemon.cli(&["stats", "nobody"]).status.success());
}

#[test]
fn the_memory_of_a_paused_sandbox_is_taken_back() {
    let daemon = daemon_or_skip!();
    if daemon.get("/v1/info")["host"]["limits"]["memory_bytes"].is_null() {
        skip!("limit", "this host cannot enforce memory_bytes");
    }
    // What fsync has not put on the disk cannot be taken back: so one in which it does.
    let name = create(&daemon, json!({"durability": "durable", "resources": {"memory_bytes": 256 * MIB}}));
    daemon.shell(&name, "dd if=/dev/zero of=/big bs=1M count=48 conv=fsync 2>/dev/null");
    let files = || stats(&daemon, &name)["memory"]["file_bytes"].as_u64().unwrap();
    assert!(files() > 40 * MIB, "{}", stats(&daemon, &name));
    daemon.request("POST", &format!("/v1/sandboxes/{name}/pause"), None);
    host::wait_for("the memory to be taken back", || files() < 8 * MIB);
    assert_eq!(daemon.get(&format!("/v1/sandboxes/{name}"))["state"], "paused");
    assert_eq!(daemon.shell(&name, "wc -c < /big").trim(), "50331648");
}
