//! Sandboxes that are stopped, paused and woken, by themselves or when asked.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Daemon, assert_error, host, id};

fn post(daemon: &Daemon, id: &str, verb: &str) -> Value {
    let answer = daemon.request("POST", &format!("/v1/sandboxes/{id}/{verb}"), None);
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn state(daemon: &Daemon, id: &str) -> String {
    daemon.get(&format!("/v1/sandboxes/{id}"))["state"].as_str().unwrap().to_owned()
}

fn namespace(sandbox: &Value) -> u64 {
    sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap()
}

fn end_agent(daemon: &Daemon, id: &str) {
    let pid = daemon.get(&format!("/v1/sandboxes/{id}"))["pid"].as_i64().unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    host::wait_for("the end to be noticed", || state(daemon, id) == "dead");
}

/// What a sandbox's tree is, in words that differ when anything does.
const TREE: &str =
    "find /root /workspace /etc/marked -printf '%p %y %m %U %G %n %s %l\\n' | sort; cat /root/kept/f";

const FILL: &str = "mkdir -p /root/d && echo hello > /root/d/f && ln /root/d/f /root/hard && ln -s f /root/d/soft && \
     chown 1000:7 /root/d/f && chmod 4750 /root/d/f && mv /root/d /root/kept && touch /etc/marked && rm -rf /etc/ssl && \
     echo 'x' > '/workspace/a b'";

#[test]
fn a_stopped_sandbox_keeps_what_it_had_and_the_next_call_wakes_it() {
    let daemon = Daemon::start();
    let made = daemon.create(json!({"id": "box", "env": {"A": "1"}, "network": {"allow": ["example.org"]}}));
    daemon.shell("box", FILL);
    let before = daemon.shell("box", TREE);
    assert!(before.contains("/root/kept/f f 4750 1000 7 2 6"), "{before}");
    daemon.request("PATCH", "/v1/sandboxes/box/env", Some(&json!({"set": {"B": "2"}})));
    daemon.request("POST", "/v1/sandboxes/box/ports", Some(&json!({"port": 8000, "token": "kept"})));
    daemon.request("PUT", "/v1/sandboxes/box/network", Some(&json!({"allow": ["example.com"]})));
    let spec = json!({"id": "one", "argv": ["sh", "-c", "echo said; exec sleep 1000"]});
    daemon.request("POST", "/v1/sandboxes/box/processes", Some(&spec));
    let logs = || daemon.get("/v1/sandboxes/box/processes/one/logs")["entries"].to_string();
    host::wait_for("the process to speak", || logs().contains("said"));

    let stopped = post(&daemon, "box", "stop");
    assert_eq!(stopped["state"], "stopped");
    assert_eq!((&stopped["pid"], &stopped["isolation"]), (&Value::Null, &Value::Null));
    assert_eq!(host::processes_in("pid", namespace(&made)), [0_i32; 0]);
    assert_eq!(daemon.cgroups("box"), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(post(&daemon, "box", "stop"), stopped, "to stop it again is nothing");
    // Whoever asks what it is wakes nothing.
    assert_eq!(daemon.get("/v1/sandboxes")["sandboxes"][0]["state"], "stopped");
    assert_eq!(daemon.get("/v1/sandboxes/box/env")["env"]["B"], "2");
    assert_eq!(daemon.get("/v1/sandboxes/box/ports")["ports"][0]["token"], "kept");
    assert_eq!(daemon.get("/v1/sandboxes/box/network")["policy"]["allow"], json!(["example.com"]));
    assert_eq!(daemon.get("/v1/sandboxes/box/processes/one")["state"], "lost");
    assert!(logs().contains("said"));
    assert_eq!(state(&daemon, "box"), "stopped");

    assert_eq!(daemon.shell("box", "echo $A $B"), "1 2\n");
    let woken = daemon.get("/v1/sandboxes/box");
    assert_eq!(woken["state"], "running");
    assert_eq!(woken["created_at"], made["created_at"]);
    assert_ne!(woken["pid"], made["pid"]);
    assert_eq!(daemon.shell("box", TREE), before);
    assert_eq!(daemon.shell("box", "ls /etc/ssl 2>&1 || echo gone").lines().last(), Some("gone"));
    assert_eq!(daemon.get("/v1/sandboxes/box/network")["policy"]["allow"], json!(["example.com"]));
    // Numbers of processes that are on record are not given again.
    daemon.request("POST", "/v1/sandboxes/box/processes", Some(&json!({"id": "two", "argv": ["true"]})));
    assert!(logs().contains("said"));
    daemon.request("DELETE", "/v1/sandboxes/box", None);
    let rest = daemon.state_dir().join("sandboxes/box");
    host::wait_for("the files to be gone", || !rest.exists());
}

#[test]
fn what_says_nothing_is_asked_nothing() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    for verb in ["stop", "pause", "start"] {
        let path = format!("/v1/sandboxes/box/{verb}");
        for body in [json!({"force": true}), json!([]), json!("now"), json!(null)] {
            assert_error(&daemon.request("POST", &path, Some(&body)), 400, "INVALID_REQUEST");
        }
        assert_error(&daemon.request("POST", &format!("{path}?force=true"), None), 400, "INVALID_REQUEST");
        assert_eq!(state(&daemon, "box"), "running");
    }
    for verb in ["pause", "start", "stop"] {
        let answer = daemon.request("POST", &format!("/v1/sandboxes/box/{verb}"), Some(&json!({})));
        assert_eq!(answer.status, 200, "an empty object says nothing either");
    }
    for verb in ["start", "pause", "stop"] {
        let output = daemon.cli(&[verb, "box"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let listed = daemon.request("GET", "/v1/sandboxes/box/snapshots?label=a", None);
    assert_error(&listed, 400, "INVALID_REQUEST");
}

#[test]
fn it_is_the_same_whichever_ids_it_runs_with() {
    let daemon = Daemon::start();
    let first = daemon.create(json!({"id": "box"}));
    daemon.shell("box", FILL);
    let before = daemon.shell("box", TREE);
    post(&daemon, "box", "stop");
    // Takes the place in the range of ids that it had.
    let others: Vec<_> = (0..3).map(|_| daemon.sandbox()).collect();
    let again = post(&daemon, "box", "start");
    assert_ne!(again["isolation"]["host_id_first"], first["isolation"]["host_id_first"]);
    assert_eq!(daemon.shell("box", TREE), before);
    daemon.shell("box", "echo more >> /root/kept/f && rm /root/hard && mv /root/kept /root/moved");
    drop(others);
}

#[test]
fn stopped_ones_outlive_the_daemon_and_the_host() {
    let mut daemon = Daemon::start();
    for (name, durability) in [("volatile", "volatile"), ("durable", "durable")] {
        daemon.create(json!({"id": name, "durability": durability}));
        daemon.shell(name, "echo kept > /root/f");
    }
    post(&daemon, "volatile", "stop");
    daemon.kill_all();
    daemon.spawn();
    assert_eq!(state(&daemon, "volatile"), "stopped");
    assert_eq!(state(&daemon, "durable"), "running");
    assert_eq!(daemon.shell("volatile", "cat /root/f"), "kept\n");
    // What ran when the host went down: the kernel's processes are gone, and so is the runtime directory.
    post(&daemon, "volatile", "stop");
    daemon.create(json!({"id": "torn"}));
    let namespaces: Vec<u64> =
        ["durable", "torn"].map(|id| namespace(&daemon.get(&format!("/v1/sandboxes/{id}")))).into();
    daemon.kill_all();
    for namespace in namespaces {
        for pid in host::processes_in("pid", namespace) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        host::wait_for("it to be gone", || host::processes_in("pid", namespace).is_empty());
    }
    std::fs::remove_dir_all(daemon.runtime_dir()).unwrap();
    for name in ["volatile", "durable", "torn"] {
        let path = daemon.state_dir().join(format!("index/{name}.json"));
        let mut facts: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        facts["boot"] = json!("another");
        std::fs::write(&path, facts.to_string()).unwrap();
    }
    daemon.spawn();
    assert_eq!(daemon.shell("volatile", "cat /root/f"), "kept\n");
    assert_eq!(state(&daemon, "durable"), "stopped");
    assert_eq!(daemon.shell("durable", "cat /root/f"), "kept\n");
    // Nobody knows whether its files are whole.
    assert_eq!(state(&daemon, "torn"), "dead");
    let start = daemon.request("POST", "/v1/sandboxes/torn/start", None);
    assert_error(&start, 409, "SANDBOX_DEAD");
}

#[test]
fn one_that_ended_by_itself_is_started_by_nobody_but_who_says_so() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "echo kept > /root/f");
    end_agent(&daemon, "box");
    assert_error(&daemon.try_run("box", &json!({"argv": ["true"]})), 409, "SANDBOX_DEAD");
    daemon.kill_all();
    daemon.spawn();
    assert_eq!(state(&daemon, "box"), "dead");
    assert_error(&daemon.try_run("box", &json!({"argv": ["true"]})), 409, "SANDBOX_DEAD");
    assert_eq!(post(&daemon, "box", "start")["state"], "running");
    assert_eq!(daemon.shell("box", "cat /root/f"), "kept\n");
}

#[test]
fn files_that_would_end_with_it_keep_a_sandbox_from_being_stopped() {
    let daemon = Daemon::start();
    let limits = json!({"disk_bytes": 16 << 20, "memory_bytes": 256 << 20});
    let spec = json!({"resources": limits, "lifecycle": {"idle_timeout_ms": 1000}});
    let answer = daemon.request("POST", "/v1/sandboxes", Some(&spec));
    assert_error(&answer, 422, "STOP_UNSUPPORTED");
    let name = id(&daemon.create(json!({"resources": limits})));
    daemon.shell(&name, "echo kept > /root/f");
    let stop = daemon.request("POST", &format!("/v1/sandboxes/{name}/stop"), None);
    assert_error(&stop, 422, "STOP_UNSUPPORTED");
    assert_eq!(daemon.shell(&name, "cat /root/f"), "kept\n");
    end_agent(&daemon, &name);
    let start = daemon.request("POST", &format!("/v1/sandboxes/{name}/start"), None);
    assert_error(&start, 409, "SANDBOX_DEAD");
}

#[test]
fn an_idle_sandbox_stops_and_a_used_one_does_not() {
    let daemon = Daemon::start();
    let idle = |id: &str, hold: bool| {
        daemon.create(json!({"id": id, "lifecycle": {"idle_timeout_ms": 400, "processes_hold": hold}}))
    };
    idle("idle", false);
    idle("held", true);
    idle("busy", false);
    let spec = json!({"id": "one", "argv": ["sleep", "1000"]});
    for name in ["idle", "held"] {
        let answer = daemon.request("POST", &format!("/v1/sandboxes/{name}/processes"), Some(&spec));
        assert_eq!(answer.status, 201);
    }
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| daemon.shell("busy", "sleep 3; echo done"));
        host::wait_for("the idle one to stop", || state(&daemon, "idle") == "stopped");
        assert_eq!(state(&daemon, "held"), "running");
        assert_eq!(busy.join().unwrap(), "done\n");
    });
    assert_eq!(state(&daemon, "held"), "running");
    host::wait_for("the other to stop when its command is over", || state(&daemon, "busy") == "stopped");
    daemon.request("DELETE", "/v1/sandboxes/held/processes", None);
    host::wait_for("the last to stop without its process", || state(&daemon, "held") == "stopped");
    // A file that is read for long is use: the pipe is full, and nobody reads on.
    daemon.request("PUT", "/v1/sandboxes/busy/lifecycle", Some(&json!({})));
    daemon.shell("busy", "head -c 50000000 /dev/zero > /root/large");
    let mut reader = daemon.connect();
    reader.send("GET", "/v1/sandboxes/busy/files/content?path=/root/large", &[], b"").unwrap();
    assert_eq!(reader.receive_head().unwrap().status, 200);
    daemon.request("PUT", "/v1/sandboxes/busy/lifecycle", Some(&json!({"idle_timeout_ms": 200})));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(state(&daemon, "busy"), "running");
    drop(reader);
    host::wait_for("it to stop without its reader", || state(&daemon, "busy") == "stopped");
}

#[test]
fn a_time_to_live_ends_a_sandbox_unless_it_is_kept_alive() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "short", "lifecycle": {"ttl_ms": 300}}));
    daemon.create(json!({"id": "kept", "lifecycle": {"ttl_ms": 300, "keep_alive": true}}));
    daemon.create(json!({"id": "resting", "lifecycle": {"ttl_ms": 4000}}));
    post(&daemon, "resting", "stop");
    host::wait_for("the short one to be destroyed", || !daemon.ids().contains(&"short".to_owned()));
    assert_eq!(daemon.shell("kept", "echo here"), "here\n");
    daemon.kill_all();
    daemon.spawn();
    assert!(daemon.ids().contains(&"kept".to_owned()));
    host::wait_for("the stopped one to be destroyed", || !daemon.ids().contains(&"resting".to_owned()));
    let answer = daemon.request("PUT", "/v1/sandboxes/kept/lifecycle", Some(&json!({"ttl_ms": 300})));
    assert_eq!(
        answer.json()["lifecycle"],
        json!({"ttl_ms": 300, "keep_alive": false, "processes_hold": false})
    );
    host::wait_for("the other to be destroyed", || daemon.ids().is_empty());
    for bad in [json!({"ttl_ms": 1}), json!({"idle_timeout_ms": 0}), json!({"ttl": 5}), json!([])] {
        let answer = daemon.request("POST", "/v1/sandboxes", Some(&json!({"lifecycle": bad})));
        assert_error(&answer, 400, "INVALID_REQUEST");
    }
}

#[test]
fn a_paused_sandbox_does_nothing_and_goes_on_where_it_was() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    let count = "i=0; while :; do i=$((i+1)); echo $i > /tmp/n.new; mv /tmp/n.new /tmp/n; sleep 0.01; done";
    daemon.request(
        "POST",
        "/v1/sandboxes/box/processes",
        Some(&json!({"id": "one", "argv": ["sh", "-c", count]})),
    );
    // Seen from outside: asking the sandbox would let it go on.
    let upper = daemon.state_dir().join("sandboxes/box/upper/tmp/n");
    let seen = || std::fs::read_to_string(&upper).unwrap_or_default().trim().parse::<u64>().unwrap_or(0);
    host::wait_for("it to count", || seen() > 5);
    assert_eq!(post(&daemon, "box", "pause")["state"], "paused");
    std::thread::sleep(Duration::from_millis(100));
    let at = seen();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(seen(), at);
    assert_eq!(daemon.get("/v1/sandboxes/box/processes/one")["state"], "running");
    daemon.kill_all();
    daemon.spawn();
    assert_eq!(state(&daemon, "box"), "paused");
    assert_eq!(seen(), at);
    assert!(daemon.shell("box", "cat /tmp/n").trim().parse::<u64>().unwrap() >= at);
    assert_eq!(state(&daemon, "box"), "running");
    host::wait_for("it to count on", || seen() > at + 5);
    // Frozen processes end like any other.
    post(&daemon, "box", "pause");
    assert_eq!(post(&daemon, "box", "stop")["state"], "stopped");
    post(&daemon, "box", "start");
    daemon.request(
        "POST",
        "/v1/sandboxes/box/processes",
        Some(&json!({"id": "two", "argv": ["sleep", "99"]})),
    );
    post(&daemon, "box", "pause");
    daemon.destroy("box");
}

#[test]
fn what_is_paused_keeps_its_memory_whatever_its_idle_timeout() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box", "lifecycle": {"idle_timeout_ms": 400}}));
    daemon.shell("box", "echo kept > /dev/shm/f");
    post(&daemon, "box", "pause");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(state(&daemon, "box"), "paused");
    assert_eq!(daemon.shell("box", "cat /dev/shm/f"), "kept\n");
    // It runs again, and so does its clock.
    host::wait_for("it to be stopped", || state(&daemon, "box") == "stopped");
    daemon.create(json!({"id": "short", "lifecycle": {"idle_timeout_ms": 60000, "ttl_ms": 1000}}));
    post(&daemon, "short", "pause");
    host::wait_for("it to end", || !daemon.ids().contains(&"short".to_owned()));
}

#[test]
fn a_change_beside_a_stop_or_an_end_is_whole_or_none() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box", "network": {"allow": ["a.example", "b.example"]}}));
    for round in 0..10 {
        let both = json!({"allow": ["a.example", "b.example"]});
        daemon.request("PUT", "/v1/sandboxes/box/network", Some(&both));
        let one = json!({"allow": ["a.example"]});
        let ttl = 1_000_000 + round;
        let changed = std::thread::scope(|scope| {
            let stop = scope.spawn(|| post(&daemon, "box", if round % 2 == 0 { "stop" } else { "start" }));
            let lives = scope.spawn(|| {
                daemon.request("PUT", "/v1/sandboxes/box/lifecycle", Some(&json!({"ttl_ms": ttl}))).status
            });
            let changed = daemon.request("PUT", "/v1/sandboxes/box/network", Some(&one)).status;
            stop.join().unwrap();
            assert_eq!(lives.join().unwrap(), 200);
            changed
        });
        assert_eq!(changed, 200);
        post(&daemon, "box", "stop");
        let shown = daemon.get("/v1/sandboxes/box");
        assert_eq!(shown["lifecycle"]["ttl_ms"], ttl);
        post(&daemon, "box", "start");
        assert_eq!(daemon.get("/v1/sandboxes/box/network")["policy"]["allow"], one["allow"], "round {round}");
    }
    for round in 0..6 {
        let name = format!("g{round}");
        daemon.create(json!({"id": name, "network": {"allow": ["a.example"]}}));
        std::thread::scope(|scope| {
            for other in ["b", "c", "d"] {
                let path = format!("/v1/sandboxes/{name}/network");
                let policy = json!({"allow": [format!("{other}.example")]});
                let daemon = &daemon;
                scope.spawn(move || daemon.request("PUT", &path, Some(&policy)));
            }
            daemon.request("DELETE", &format!("/v1/sandboxes/{name}"), None);
        });
        assert!(!daemon.state_dir().join(format!("index/{name}.json")).exists());
    }
    daemon.kill_all();
    daemon.spawn();
    assert_eq!(daemon.ids(), ["box"]);
}

#[test]
fn what_cannot_be_read_of_a_sandbox_costs_it_nothing() {
    let mut daemon = Daemon::start();
    for name in ["stopped", "running"] {
        daemon.create(json!({"id": name}));
        daemon.shell(name, "echo kept > /root/f");
    }
    post(&daemon, "stopped", "stop");
    daemon.kill_all();
    let path = |name: &str| daemon.state_dir().join(format!("index/{name}.json"));
    let whole = ["stopped", "running"].map(|name| (path(name), std::fs::read(path(name)).unwrap()));
    for (path, _) in &whole {
        std::fs::write(path, "{}").unwrap();
    }
    for _ in 0..2 {
        daemon.spawn();
        assert_eq!(daemon.ids(), [""; 0]);
        let again = daemon.request("POST", "/v1/sandboxes", Some(&json!({"id": "stopped"})));
        assert_error(&again, 409, "SANDBOX_CONFLICT");
        daemon.kill_all();
    }
    for (path, text) in &whole {
        std::fs::write(path, text).unwrap();
    }
    daemon.spawn();
    assert_eq!(daemon.shell("stopped", "cat /root/f"), "kept\n");
    assert_eq!(daemon.shell("running", "cat /root/f"), "kept\n");
}

#[test]
fn a_mark_of_a_stop_that_did_not_happen_is_no_stop() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    daemon.request("PATCH", "/v1/sandboxes/box/env", Some(&json!({"set": {"A": "1"}})));
    daemon.kill_all();
    // serve was killed while it stopped the sandbox, launch went on.
    let work = daemon.state_dir().join("work/box");
    std::fs::write(work.join("stopped"), "stopped").unwrap();
    daemon.spawn();
    assert_eq!(state(&daemon, "box"), "running");
    assert!(!work.join("stopped").exists());
    end_agent(&daemon, "box");
    daemon.kill_all();
    daemon.spawn();
    assert_eq!(state(&daemon, "box"), "dead");
}

#[test]
fn what_became_of_its_directories_keeps_none_from_waking() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    for spoil in ["mv /workspace /w2 && touch /workspace", "rm /workspace && ln -s /none/x /workspace"] {
        daemon.run("box", json!({"shell": spoil, "cwd": "/"}));
        post(&daemon, "box", "stop");
        assert_eq!(daemon.run("box", json!({"shell": "echo here", "cwd": "/"}))["stdout"], "here\n");
        assert_error(&daemon.try_run("box", &json!({"argv": ["true"]})), 422, "INVALID_CWD");
    }
}

#[test]
fn a_preview_and_a_signal_let_a_paused_sandbox_go_on() {
    let daemon = Daemon::with(&["--preview-listen", "127.0.0.1:0"]);
    daemon.create(json!({"id": "box"}));
    let spec = json!({"id": "web", "argv": ["python3", "-um", "http.server", "8000"]});
    daemon.request("POST", "/v1/sandboxes/box/processes", Some(&spec));
    let wait = json!({"port": 8000, "token": "open", "wait_ms": 20_000});
    let exposed = daemon.request("POST", "/v1/sandboxes/box/ports", Some(&wait)).json();
    let url = exposed["url"].as_str().unwrap().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let port: u16 = url.rsplit_once(':').unwrap().1.parse().unwrap();
    let visit = || {
        let mut visitor = crate::harness::http::Connection::connect(("127.0.0.1", port), &url).unwrap();
        visitor.request("GET", "/", &[], b"").unwrap().status
    };
    assert_eq!(visit(), 200);
    post(&daemon, "box", "pause");
    assert_eq!(visit(), 200);
    assert_eq!(state(&daemon, "box"), "running");
    post(&daemon, "box", "pause");
    let path = "/v1/sandboxes/box/processes/web/signal";
    daemon.request("POST", path, Some(&json!({"signal": "SIGTERM"})));
    host::wait_for("it to end", || daemon.get("/v1/sandboxes/box/processes/web")["state"] != "running");
}

#[test]
fn many_who_need_it_at_once_wake_it_once() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    for _ in 0..3 {
        post(&daemon, "box", "stop");
        let answers: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..16).map(|_| scope.spawn(|| daemon.shell("box", "readlink /proc/self/ns/pid"))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    }
}

#[test]
fn it_is_its_owners_to_stop_and_start() {
    let mut daemon = Daemon::with(&["--socket-gid", "4711"]);
    daemon.create(json!({"id": "box"}));
    for verb in ["stop", "pause", "start"] {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid", "1234", "--regid", "4711", "--clear-groups", "curl", "-s", "-X", "POST"])
            .arg("--unix-socket")
            .arg(daemon.socket())
            .arg(format!("http://s/v1/sandboxes/box/{verb}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("SANDBOX_NOT_FOUND"), "{verb}: {text}");
    }
    assert_eq!(state(&daemon, "box"), "running");
    daemon.kill_all();
    daemon.spawn();
}

#[test]
fn a_kill_at_any_moment_of_stop_and_wake_loses_no_file() {
    let mut daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    let mut pause = 0;
    for round in 0..12 {
        let answer = daemon.request("POST", "/v1/sandboxes/box/start", None);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(
            daemon.shell("box", &format!("echo {round} >> /root/rounds; wc -l < /root/rounds")).trim(),
            (round + 1).to_string()
        );
        let socket = daemon.socket();
        let at_work = std::thread::spawn(move || {
            for verb in ["stop", "start", "stop"] {
                let Ok(mut connection) = crate::harness::http::Connection::open(&socket) else { return };
                let path = format!("/v1/sandboxes/box/{verb}");
                if connection.request("POST", &path, &[], b"").is_err() {
                    return;
                }
            }
        });
        std::thread::sleep(Duration::from_millis(pause));
        pause += 4;
        daemon.kill_all();
        at_work.join().unwrap();
        daemon.spawn();
    }
}

#[test]
fn what_a_sandbox_declares_is_started_with_it_each_time() {
    let daemon = Daemon::start();
    let declared = json!([
        {"id": "one", "shell": "echo $A >> /root/log; exec sleep 1000", "env": {"A": "began"}},
        {"id": "two", "argv": ["true"]},
    ]);
    let spec = json!({"id": "box", "startup": declared});
    daemon.create(spec.clone());
    let running = || daemon.get("/v1/sandboxes/box/processes/one")["state"] == "running";
    assert!(running());
    let log = || daemon.shell("box", "cat /root/log");
    host::wait_for("the first to have written", || log() == "began\n");
    post(&daemon, "box", "stop");
    assert!(!running());
    host::wait_for("the second to have written", || log() == "began\nbegan\n");
    assert!(running());
    end_agent(&daemon, "box");
    post(&daemon, "box", "start");
    assert!(running());
    assert_eq!(daemon.request("POST", "/v1/sandboxes", Some(&spec)).status, 200, "the same is the same");
    let twice = json!({"startup": [{"id": "a", "argv": ["true"]}, {"id": "a", "argv": ["true"]}]});
    assert_error(&daemon.request("POST", "/v1/sandboxes", Some(&twice)), 409, "PROCESS_CONFLICT");
    for bad in [json!([{"id": "a"}]), json!([{"id": "-", "argv": ["true"]}])] {
        let answer = daemon.request("POST", "/v1/sandboxes", Some(&json!({"startup": bad})));
        assert_eq!(answer.status, 400, "{bad}");
    }
    let missing = json!({"id": "none", "startup": [{"id": "a", "argv": ["/no/such"]}]});
    assert_error(&daemon.request("POST", "/v1/sandboxes", Some(&missing)), 422, "COMMAND_NOT_IN_IMAGE");
    assert_error(&daemon.request("GET", "/v1/sandboxes/none", None), 404, "SANDBOX_NOT_FOUND");
}

#[test]
fn whoever_needs_one_that_is_being_created_waits_for_it() {
    let daemon = Daemon::start();
    std::thread::scope(|scope| {
        for round in 0..10 {
            let name = format!("box-{round}");
            let creating = scope.spawn({
                let (name, daemon) = (name.clone(), &daemon);
                move || daemon.create(json!({"id": name}))
            });
            let path = format!("/v1/sandboxes/{name}/stop");
            // Before it is there at all it is not found; from then on it is waited for.
            let stopped = std::iter::repeat_with(|| daemon.request("POST", &path, None))
                .find(|answer| answer.status != 404)
                .unwrap();
            assert_eq!(stopped.status, 200, "{}", String::from_utf8_lossy(&stopped.body));
            creating.join().unwrap();
            assert_eq!(state(&daemon, &name), "stopped");
        }
    });
}

#[test]
fn a_command_that_meets_a_stop_before_it_began_wakes_the_sandbox_again() {
    let daemon = Daemon::start();
    daemon.create(json!({"id": "box"}));
    // Where the stop falls is chance; what may come of it is not: it ran, or it was stopped while it was at it.
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| (0..20).for_each(|_| drop(post(&daemon, "box", "stop"))));
        while !stopping.is_finished() {
            let answer = daemon.try_run("box", &json!({"argv": ["true"]}));
            let begun = &answer.json()["context"]["begun"];
            assert_ne!(*begun, json!(false), "{}", String::from_utf8_lossy(&answer.body));
        }
    });
    assert_eq!(daemon.shell("box", "echo on"), "on\n");
}

#[test]
fn the_command_line_keeps_what_it_was_not_told_to_change() {
    let daemon = Daemon::start();
    let lifecycle = json!({"idle_timeout_ms": 600_000, "ttl_ms": 900_000, "processes_hold": true});
    daemon.create(json!({"id": "box", "lifecycle": lifecycle}));
    let now = || daemon.get("/v1/sandboxes/box")["lifecycle"].clone();
    let told = |arguments: &[&str]| {
        let output = daemon.cli(&[&["lifecycle", "box"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let before = now();
    assert!(told(&[]).contains("destroyed after: 900 s"));
    assert_eq!(now(), before, "a question changes nothing");
    told(&["--keep-alive"]);
    assert_eq!((&now()["keep_alive"], &now()["ttl_ms"]), (&json!(true), &json!(900_000)));
    told(&["--keep-alive=false", "--idle-timeout", "never"]);
    assert_eq!((&now()["keep_alive"], &now()["idle_timeout_ms"]), (&json!(false), &Value::Null));
    assert_eq!((&now()["processes_hold"], &now()["ttl_ms"]), (&json!(true), &json!(900_000)));
}
