//! kill -9 of anything at any moment: what ran goes on, what was half made is gone.

mod steps;

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::http::Connection;
use crate::harness::image::{Image, Meta, Tar};
use crate::harness::{Daemon, escape, host, host_command, id};

fn sigkill(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// Directory names under `sandboxes/` of the state.
fn directories(daemon: &Daemon) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(daemon.state_dir().join("sandboxes")) else { return BTreeSet::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    // What begins with a dot is on its way out.
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Checks that every sandbox that is said to run does, and that nothing else is on disk.
#[track_caller]
fn consistent(daemon: &Daemon) {
    for name in daemon.ids() {
        host::wait_for("a listed sandbox to run, or to be gone", || {
            let answer = daemon.try_run(&name, &json!({"shell": "echo alive"}));
            let shown = daemon.request("GET", &format!("/v1/sandboxes/{name}"), None);
            // One whose destruction was asked for when the daemon died is destroyed now.
            let gone = shown.status == 404 || shown.json()["state"] == "dead";
            gone || (answer.status == 200 && answer.json()["stdout"] == "alive\n")
        });
    }
    let listed: BTreeSet<String> = daemon.ids().into_iter().collect();
    host::wait_until_none("directories of half-made sandboxes", || {
        directories(daemon).difference(&listed).cloned().collect()
    });
}

#[test]
fn serve_is_restarted_and_finds_its_sandboxes_again() {
    let mut daemon = Daemon::start();
    let before = daemon.create(json!({"id": "kept", "labels": {"k": "v"}, "env": {"A": "b"}, "cwd": "/tmp"}));
    daemon.shell("kept", "echo data > /workspace/file");
    for _ in 0..3 {
        let serve = daemon.serve_pid();
        sigkill(serve);
        host::wait_for("serve to be started again", || {
            daemon.role_pid("stockade-serve").is_some_and(|pid| pid != serve)
        });
        daemon.wait_until_healthy();
        assert_eq!(daemon.get("/v1/sandboxes/kept"), before);
        assert_eq!(daemon.shell("kept", "echo $A; pwd; cat /workspace/file"), "b\n/tmp\ndata\n");
    }
    daemon.create(json!({"id": "new"}));
    assert_eq!(daemon.shell("new", "echo works"), "works\n");
}

#[test]
fn launch_and_serve_together_are_survived_by_the_sandboxes() {
    let mut daemon = Daemon::start();
    let before = daemon.create(json!({"id": "kept"}));
    daemon.create(json!({"id": "other"}));
    daemon.shell("kept", "echo data > /workspace/file");
    for _ in 0..2 {
        daemon.kill_all();
        let pid = i32::try_from(before["pid"].as_i64().unwrap()).unwrap();
        assert!(host::alive(pid), "the sandbox died with its daemon");
        daemon.spawn();
        let after = daemon.get("/v1/sandboxes/kept");
        for field in ["id", "pid", "created_at", "owner_uid", "isolation", "state"] {
            assert_eq!(after[field], before[field], "{field}");
        }
        assert_eq!(daemon.shell("kept", "cat /workspace/file"), "data\n");
        consistent(&daemon);
    }
    // An adopted sandbox is destroyed like any other.
    daemon.destroy("kept");
    daemon.destroy("other");
    host::wait_until_none("leftovers of adopted sandboxes", || daemon.leftovers());
    assert_eq!(directories(&daemon), BTreeSet::new());
}

#[test]
fn a_kill_while_sandboxes_come_and_go_leaves_whole_ones_or_none() {
    let mut daemon = Daemon::start();
    for round in 0..4_u64 {
        let socket = daemon.socket();
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3)
                .map(|worker| {
                    let socket = socket.clone();
                    scope.spawn(move || {
                        for number in 0..200 {
                            let name = format!("r{round}-{worker}-{number}");
                            let Ok(mut connection) = Connection::open(&socket) else { return };
                            let spec = json!({"id": name}).to_string();
                            let headers = [("Content-Type", "application/json")];
                            if connection.request("POST", "/v1/sandboxes", &headers, spec.as_bytes()).is_err()
                            {
                                return;
                            }
                            if number % 3 != 0
                                && connection
                                    .request("DELETE", &format!("/v1/sandboxes/{name}"), &[], b"")
                                    .is_err()
                            {
                                return;
                            }
                        }
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(60 + 37 * round));
            if round % 2 == 0 {
                daemon.kill_all();
            } else {
                sigkill(daemon.serve_pid());
            }
            for worker in workers {
                worker.join().unwrap();
            }
        });
        if round % 2 == 0 {
            daemon.spawn();
        } else {
            daemon.wait_until_healthy();
        }
        consistent(&daemon);
        for name in daemon.ids() {
            daemon.destroy(&name);
        }
        host::wait_for("cgroups to be gone", || daemon.cgroups(&format!("r{round}-")).is_empty());
        host::wait_until_none("directories", || directories(&daemon).into_iter().collect());
    }
}

#[test]
fn one_that_ends_while_it_is_taken_over_leaves_nothing() {
    let mut daemon = Daemon::start();
    for round in 0..10 {
        let name = format!("s{round}");
        let agent = daemon.create(json!({"id": name}))["pid"].as_i64().unwrap();
        daemon.kill_all();
        // As when serve died between forgetting it and asking for its end.
        std::fs::remove_file(daemon.state_dir().join(format!("index/{name}.json"))).unwrap();
        let (log, adopted) = (daemon.directory().join("log"), format!("adopted a running sandbox id={name}"));
        let end = std::thread::spawn(move || {
            // Before the new serve asks what runs, most times; later it is destroyed, or is so already.
            while !std::fs::read_to_string(&log).unwrap().contains(&adopted) {
                std::thread::yield_now();
            }
            let _ = kill(Pid::from_raw(i32::try_from(agent).unwrap()), Signal::SIGKILL);
        });
        daemon.spawn();
        end.join().unwrap();
        consistent(&daemon);
    }
}

#[test]
fn a_second_crash_while_recovering_is_survived() {
    let mut daemon = Daemon::start();
    for number in 0..10 {
        daemon.create(json!({"id": format!("s{number}")}));
    }
    for delay in [0, 5, 20, 60] {
        daemon.kill_all();
        let mut child = daemon.command().stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        let launch = i32::try_from(child.id()).unwrap();
        let children = host::children(launch);
        child.kill().unwrap();
        child.wait().unwrap();
        for pid in children.into_iter().filter(|&pid| host::argument_zero(pid) == "stockade-serve") {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        daemon.spawn();
        assert_eq!(daemon.ids().len(), 10);
    }
    consistent(&daemon);
}

/// An image with a layer that takes a while to unpack.
fn large_image() -> Vec<u8> {
    let mut tar = Tar::new();
    let block: Vec<u8> =
        (0..64 * 1024_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for number in 0..64 {
        tar = tar.file(&format!("file-{number}"), Meta::FILE, &block);
    }
    Image::new(vec![tar.finish()]).layout_tar("1")
}

#[test]
fn a_kill_in_the_middle_of_an_import_leaves_a_valid_store() {
    let mut daemon = Daemon::start();
    let image = large_image();
    for round in 0..6_u64 {
        let socket = daemon.socket();
        std::thread::scope(|scope| {
            let import = scope.spawn(|| {
                let mut connection = Connection::open(&socket).unwrap();
                connection.request(
                    "POST",
                    &format!("/v1/images/import?reference={}", escape("large:1")),
                    &[],
                    &image,
                )
            });
            std::thread::sleep(Duration::from_millis(20 + 90 * round));
            daemon.kill_all();
            let _ = import.join().unwrap();
        });
        daemon.spawn();
        // Whatever is listed is whole: each layer's directory holds every file.
        for listed in daemon.get("/v1/images")["images"].as_array().unwrap() {
            complete(&daemon, listed);
        }
    }
    // What was half downloaded is taken up by the next attempt, and nothing of it stays.
    let listed = daemon.import("large:1", &image);
    complete(&daemon, &listed);
    let state = daemon.state_dir().display().to_string();
    host::wait_until_none("unfinished files", || {
        host_command("find", &[&state, "-name", "*.partial*"]).lines().map(str::to_owned).collect()
    });
}

#[track_caller]
fn complete(daemon: &Daemon, image: &Value) {
    for layer in image["layers"].as_array().unwrap() {
        let name = layer["diff_id"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        let files =
            std::fs::read_dir(daemon.state_dir().join("layers").join(name).join("fs")).unwrap().count();
        assert_eq!(files, 64, "a listed layer is incomplete");
    }
}

#[test]
fn a_dying_daemon_takes_its_commands_clients_with_it_and_not_the_sandbox() {
    let mut daemon = Daemon::start();
    let name = id(&daemon.create(json!({})));
    let mut connection = daemon.connect();
    let body = br#"{"shell":"echo started > /workspace/started; sleep 608"}"#;
    connection
        .send(
            "POST",
            &format!("/v1/sandboxes/{name}/commands"),
            &[("Content-Type", "application/json")],
            body,
        )
        .unwrap();
    host::wait_for("the command to start", || {
        daemon.run(&name, json!({"shell": "cat /workspace/started"}))["exit_code"] == 0
    });
    sigkill(daemon.serve_pid());
    assert!(connection.receive_head().is_err(), "an answer from a dead daemon");
    daemon.wait_until_healthy();
    assert_eq!(daemon.shell(&name, "cat /workspace/started"), "started\n");
}

#[test]
fn daemons_beside_each_other_give_no_ids_twice_even_when_one_has_crashed() {
    let mut one = Daemon::start();
    let other = Daemon::start();
    let ids = |sandbox: &Value| sandbox["isolation"]["host_id_first"].as_u64().unwrap();
    let mut taken: Vec<u64> = (0..3).map(|_| ids(&one.create(json!({})))).collect();
    taken.extend((0..3).map(|_| ids(&other.create(json!({})))));
    one.kill_all();
    // The sandboxes of the one that crashed run on.
    taken.extend((0..6).map(|_| ids(&other.create(json!({})))));
    one.spawn();
    taken.extend((0..3).map(|_| ids(&one.create(json!({})))));
    let count = taken.len();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), count, "{taken:?}");
}

fn other_serve(daemon: &mut Daemon, serve: i32) {
    host::wait_for("serve to be started again", || {
        daemon.role_pid("stockade-serve").is_some_and(|pid| pid != serve)
    });
    daemon.wait_until_healthy();
}

fn state(daemon: &Daemon, id: &str) -> String {
    daemon.get(&format!("/v1/sandboxes/{id}"))["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_process_that_serve_does_not_know_costs_the_sandbox_nothing() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    let spec = json!({"id": "one", "argv": ["sleep", "1000"]});
    assert_eq!(daemon.request("POST", "/v1/sandboxes/box/processes", Some(&spec)).status, 201);
    // As when serve is killed before it has written down what it has started.
    std::fs::remove_dir_all(daemon.state_dir().join("work/box/processes")).unwrap();
    let serve = daemon.serve_pid();
    sigkill(serve);
    other_serve(&mut daemon, serve);
    assert_eq!(daemon.shell("box", "echo alive; pgrep -c sleep; true"), "alive\n0\n");
    assert_eq!(state(&daemon, "box"), "running");
}

#[test]
fn processes_that_end_while_nobody_looks_cost_the_sandbox_nothing() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    for round in 0..4 {
        // One of them ends at any moment of the time that another serve needs.
        for number in 0..40 {
            let after = format!("{}", f64::from(number).mul_add(0.01, 0.3));
            let spec = json!({"id": format!("r{round}-{number}"), "argv": ["sleep", after]});
            assert_eq!(daemon.request("POST", "/v1/sandboxes/box/processes", Some(&spec)).status, 201);
        }
        let serve = daemon.serve_pid();
        sigkill(serve);
        other_serve(&mut daemon, serve);
        assert_eq!(daemon.shell("box", "echo alive"), "alive\n");
        std::thread::sleep(Duration::from_millis(800));
        assert_eq!(state(&daemon, "box"), "running");
        daemon.request("DELETE", "/v1/sandboxes/box/processes", None);
    }
}

#[test]
fn a_stop_or_a_wake_that_serve_does_not_survive_is_done_or_not_begun() {
    let mut daemon = Daemon::start();
    let declared = json!([{"id": "web", "argv": ["sleep", "1000"]}]);
    daemon.create(json!({"id": "box", "startup": declared}));
    daemon.shell("box", "echo kept > /root/f");
    // Its end takes a while: memory to give back.
    let large = json!({"id": "large", "argv": ["python3", "-c", "import time; x = b'1' * 400_000_000; time.sleep(1000)"]});
    for round in 0..16_u64 {
        daemon.request("DELETE", "/v1/sandboxes/box/processes/large", None);
        if round % 2 == 0 {
            daemon.request("POST", "/v1/sandboxes/box/processes", Some(&large));
            std::thread::sleep(Duration::from_millis(400));
        } else {
            assert_eq!(daemon.request("POST", "/v1/sandboxes/box/stop", None).status, 200);
        }
        let (socket, verb) = (daemon.socket(), if round % 2 == 0 { "stop" } else { "start" });
        let asked = std::thread::spawn(move || {
            let mut connection = Connection::open(&socket).unwrap();
            connection.request("POST", &format!("/v1/sandboxes/box/{verb}"), &[], b"").ok()
        });
        std::thread::sleep(Duration::from_millis(5 + 3 * round));
        let serve = daemon.serve_pid();
        sigkill(serve);
        asked.join().unwrap();
        other_serve(&mut daemon, serve);
        let state = state(&daemon, "box");
        assert!(
            ["running", "stopped"].contains(&state.as_str()),
            "round {round}, {verb}: it is {state}\n{}",
            daemon.log()
        );
        assert_eq!(daemon.shell("box", "cat /root/f"), "kept\n", "round {round}");
        let web = daemon.get("/v1/sandboxes/box/processes/web");
        assert_eq!(web["state"], "running", "round {round}, {verb}: what it declares");
    }
}
