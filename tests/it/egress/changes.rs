//! Changes of a policy, and what goes on meanwhile.

use std::io::Write as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{PRELUDE, python, sandbox, set};
use crate::harness::world::{SERVER, World};
use crate::harness::{Daemon, host};

/// What a web server answers, or how it does not.
const GET: &str = "
try: print(ask(connect('ok.test')))
except OSError as e: print(type(e).__name__)";

#[test]
fn a_connection_that_nobody_looked_into_ends_when_a_change_would_look() {
    let world = World::new();
    world.serve(&format!("{SERVER}:9"), |mut stream| {
        while stream.write_all(b"tick\n").is_ok() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    let daemon = Daemon::within(&world.host(), &world.config(""));
    for (number, before, after) in [
        (0, json!({"mode": "all"}), json!({"mode": "all", "deny": ["ok.test"]})),
        (1, json!({"mode": "all"}), json!({"mode": "all", "intercept": ["ok.test"]})),
        (2, json!({"allow": [SERVER]}), json!({"allow": [SERVER], "deny": ["http://*:9"]})),
    ] {
        let id = sandbox(&daemon, &before);
        let script = format!(
            "{PRELUDE}\ns = socket.create_connection(('{SERVER}', 9), timeout=60)\ns.recv(5)\nprint('on', flush=True)\n\
             try:\n    while s.recv(100): pass\nexcept ConnectionResetError: print('cut', flush=True)"
        );
        let processes = format!("/v1/sandboxes/{id}/processes");
        let body = json!({"id": "ticks", "argv": ["python3", "-c", script]});
        assert_eq!(daemon.request("POST", &processes, Some(&body)).status, 201);
        let wait_for = |text: &str| {
            let wanted = json!({"for": {"log": {"text": text}}, "timeout_ms": 20_000});
            let answer = daemon.request("POST", &format!("{processes}/ticks/wait"), Some(&wanted));
            assert_eq!(answer.status, 200, "{number} {text}: {}", String::from_utf8_lossy(&answer.body));
        };
        wait_for("on");
        // What is about others leaves it alone.
        let mut other = before.clone();
        other["deny"] = json!(["10.0.0.0/8"]);
        set(&daemon, &id, &other);
        let counters = &daemon.get(&format!("/v1/sandboxes/{id}/network"))["counters"];
        assert_eq!(counters["connections_open"], 1, "{counters}");
        set(&daemon, &id, &after);
        wait_for("cut");
    }
}

#[test]
fn a_change_while_the_gateway_is_away_is_answered_and_in_force() {
    let world = World::new();
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let id = sandbox(&daemon, &json!({"mode": "all"}));
    assert!(python(&daemon, &id, GET).contains("hello"));
    for (policy, wanted) in
        [(json!({"mode": "all", "deny": ["ok.test"]}), "gaierror"), (json!({"mode": "all"}), "hello")]
    {
        // One that dies soon after its start is not started again at once.
        let first = daemon.role_pid("stockade-gateway").unwrap();
        kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
        let next = || daemon.role_pid("stockade-gateway").filter(|pid| *pid != first);
        host::wait_for("the next gateway", || next().is_some());
        let second = next().unwrap();
        kill(Pid::from_raw(second), Signal::SIGKILL).unwrap();
        host::wait_for("its end", || daemon.role_pid("stockade-gateway") != Some(second));
        set(&daemon, &id, &policy);
        // And so are those after it.
        set(&daemon, &id, &policy);
        assert!(python(&daemon, &id, GET).contains(wanted), "{policy}");
    }
}
