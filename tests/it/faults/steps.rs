//! Every step of what launch does fails once, and is once the last thing that launch and serve do.
//!
//! A step is a system call: see `harness::tracer`. All of them take minutes (`STOCKADE_TEST_FULL=1`); CI takes every
//! seventh, and its errno by turns; for kills every fourteenth or less.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{consistent, directories};
use crate::harness::http::{Connection, Response};
use crate::harness::tracer::{self, Deed};
use crate::harness::{Daemon, host};

/// What can be refused to anybody at any time: no memory, no descriptors, no room, a broken disk.
const ERRNOS: [Errno; 4] = [Errno::ENOMEM, Errno::EMFILE, Errno::ENOSPC, Errno::EIO];

/// Calls that cannot fail, or whose failure has another effect in the kernel than not being made: a descriptor is closed
/// whatever close(2) says. They do not count.
const SURE: [i64; 9] = [
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_getuid,
    libc::SYS_getpid,
    libc::SYS_clock_gettime,
    libc::SYS_wait4,
    libc::SYS_umount2,
];

/// What is asked of launch, and what there must be before and afterwards.
struct Operation {
    /// Makes what it needs.
    before: fn(&Daemon),
    /// A request: method, path, body.
    request: (&'static str, &'static str, Value),
}

fn create() -> Operation {
    let resources = json!({"memory_bytes": 256 << 20, "pids": 64, "disk_bytes": 32 << 20});
    Operation {
        before: |_| {},
        request: ("POST", "/v1/sandboxes", json!({"id": "box", "resources": resources})),
    }
}

fn with_file(daemon: &Daemon) {
    daemon.create(json!({"id": "box"}));
    daemon.shell("box", "echo kept > /workspace/file");
}

fn destroy() -> Operation {
    Operation { before: with_file, request: ("DELETE", "/v1/sandboxes/box", Value::Null) }
}

fn stop() -> Operation {
    Operation { before: with_file, request: ("POST", "/v1/sandboxes/box/stop", Value::Null) }
}

fn wake() -> Operation {
    let before = |daemon: &Daemon| {
        with_file(daemon);
        assert_eq!(daemon.request("POST", "/v1/sandboxes/box/stop", None).status, 200);
    };
    Operation {
        before,
        request: ("POST", "/v1/sandboxes/box/commands", json!({"shell": "cat /workspace/file"})),
    }
}

fn save() -> Operation {
    Operation { before: with_file, request: ("POST", "/v1/sandboxes/box/snapshots", json!({})) }
}

impl Operation {
    fn send(&self, daemon: &Daemon) -> std::io::Result<Response> {
        let (method, path, body) = &self.request;
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let mut connection = Connection::open(&daemon.socket())?;
        connection.request(method, path, &[("Content-Type", "application/json")], text.as_bytes())
    }

    /// The numbers of its calls that are tried: how many there are is counted first.
    fn numbers(&self, daemon: &Daemon) -> Vec<usize> {
        (self.before)(daemon);
        let (launch, serve) = (daemon.launch_pid(), daemon.serve_pid());
        let (answer, seen) =
            tracer::during(launch, serve, (Deed::Count, 0), &SURE, || self.send(daemon).unwrap());
        assert!(answer.status < 300, "{:?}: {}", self.request, String::from_utf8_lossy(&answer.body));
        assert!(seen.calls > 10, "{:?} is made of {} calls", self.request, seen.calls);
        clear(daemon);
        (0..seen.calls).step_by(step()).collect()
    }
}

/// Whether all are tried.
fn full() -> bool {
    std::env::var_os("STOCKADE_TEST_FULL").is_some()
}

/// Of how many calls one is tried.
fn step() -> usize {
    if full() { 1 } else { 7 }
}

/// Removes the sandbox and its snapshots, and waits until nothing of them is left.
#[track_caller]
fn clear(daemon: &Daemon) {
    for snapshot in daemon.get("/v1/snapshots")["snapshots"].as_array().unwrap() {
        let path = format!("/v1/snapshots/{}", snapshot["id"].as_str().unwrap());
        daemon.request("DELETE", &path, None);
    }
    let answer = daemon.request("DELETE", "/v1/sandboxes/box", None);
    assert!([204, 404].contains(&answer.status), "{}", String::from_utf8_lossy(&answer.body));
    host::wait_until_none("leftovers", || daemon.leftovers());
    host::wait_until_none("directories", || directories(daemon).into_iter().collect());
}

/// What holds of a sandbox that has a file, whatever has failed in between: it has its file, or it was destroyed.
#[track_caller]
fn whole(daemon: &Daemon, what: &str) {
    if daemon.ids().is_empty() {
        return;
    }
    let answer = daemon.try_run("box", &json!({"shell": "cat /workspace/file"}));
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 200, "{what}: {text}");
    assert_eq!(answer.json()["stdout"], "kept\n", "{what}: {text}");
}

#[track_caller]
fn sweep_errors(operation: &Operation, after: impl Fn(&Daemon, Option<&Response>, &str)) {
    let mut daemon = Daemon::start();
    for number in operation.numbers(&daemon) {
        let turn = number % ERRNOS.len();
        let errnos = if full() { &ERRNOS[..] } else { &ERRNOS[turn..=turn] };
        for &errno in errnos {
            (operation.before)(&daemon);
            let (launch, serve) = (daemon.launch_pid(), daemon.serve_pid());
            let deed = (Deed::Refuse(errno), number);
            let (answer, seen) = tracer::during(launch, serve, deed, &SURE, || operation.send(&daemon));
            let what = format!("{errno} of call {number}, which is {:?}", seen.hit);
            assert!(host::alive(launch), "{what} ends the launcher");
            let answer = answer.ok().filter(|answer| !answer.text().contains("SHUTTING_DOWN"));
            eprintln!("{what}: {:?}", answer.as_ref().map(Response::text));
            match &answer {
                Some(answer) if answer.status >= 400 => {
                    let error = answer.json();
                    assert!(error["code"].is_string() && error["message"].is_string(), "{what}: {error}");
                }
                Some(_) => {}
                // The launcher has begun a new one, because it did not hear from the old one.
                None => {
                    host::wait_for("another serve", || {
                        daemon.role_pid("stockade-serve").is_some_and(|pid| pid != serve)
                    });
                    daemon.wait_until_healthy();
                }
            }
            after(&daemon, answer.as_ref(), &what);
            clear(&daemon);
        }
    }
}

#[track_caller]
fn sweep_kills(operation: &Operation, after: impl Fn(&Daemon, &str)) {
    let mut daemon = Daemon::start();
    // A new daemon for each takes its time.
    let fewer = if full() { 1 } else { 2 };
    for number in operation.numbers(&daemon).into_iter().step_by(fewer) {
        (operation.before)(&daemon);
        let (launch, serve) = (daemon.launch_pid(), daemon.serve_pid());
        let (_, seen) =
            tracer::during(launch, serve, (Deed::Kill, number), &SURE, || operation.send(&daemon));
        let what = format!("killed at call {number}, which is {:?}", seen.hit);
        eprintln!("{what}");
        if seen.hit.is_none() {
            // It has made fewer calls this time.
            for process in [launch, serve] {
                kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
            }
        }
        daemon.bury(serve);
        daemon.spawn();
        consistent(&daemon);
        after(&daemon, &what);
        clear(&daemon);
    }
}

#[test]
fn a_sandbox_whose_making_fails_anywhere_leaves_nothing() {
    sweep_errors(&create(), |daemon, answer, what| match answer {
        Some(answer) if answer.status == 201 => {
            assert_eq!(daemon.shell("box", "echo works"), "works\n", "{what}");
        }
        Some(_) => assert_eq!(daemon.ids(), [""; 0], "{what}"),
        None => consistent(daemon),
    });
}

#[test]
fn a_sandbox_whose_end_fails_anywhere_can_be_ended_again() {
    sweep_errors(&destroy(), |_, _, _| {});
}

#[test]
fn a_sandbox_that_fails_to_stop_to_wake_or_to_be_saved_keeps_its_files() {
    for operation in [stop(), wake(), save()] {
        sweep_errors(&operation, |daemon, _, what| whole(daemon, what));
    }
}

#[test]
fn a_kill_at_any_step_of_making_or_ending_leaves_a_whole_sandbox_or_none() {
    sweep_kills(&create(), |_, _| {});
    sweep_kills(&destroy(), |daemon, what| {
        // Whoever asked for its end has no answer, and asks again.
        if !daemon.ids().is_empty() && daemon.get("/v1/sandboxes/box")["state"] != "dead" {
            whole(daemon, what);
        }
    });
}

#[test]
fn a_kill_at_any_step_of_a_stop_a_wake_or_a_snapshot_keeps_the_files() {
    for operation in [stop(), wake(), save()] {
        sweep_kills(&operation, |daemon, what| {
            assert_eq!(daemon.ids(), ["box"], "{what}");
            whole(daemon, what);
        });
    }
}

#[test]
fn serve_killed_at_any_step_of_launch_leaves_a_whole_sandbox_or_none() {
    let mut daemon = Daemon::start();
    for operation in [create(), destroy(), stop(), wake(), save()] {
        for number in operation.numbers(&daemon).into_iter().step_by(if full() { 1 } else { 3 }) {
            (operation.before)(&daemon);
            let (launch, serve) = (daemon.launch_pid(), daemon.serve_pid());
            let deed = (Deed::Bereave, number);
            let (_, seen) = tracer::during(launch, serve, deed, &SURE, || operation.send(&daemon));
            let what = format!(
                "{:?}: without serve from call {number} on, which is {:?}",
                operation.request, seen.hit
            );
            eprintln!("{what}");
            if seen.hit.is_some() {
                host::wait_for("another serve", || {
                    daemon.role_pid("stockade-serve").is_some_and(|pid| pid != serve)
                });
                daemon.wait_until_healthy();
            }
            consistent(&daemon);
            match operation.request.0 {
                "DELETE" => {}
                _ if operation.request.1 == "/v1/sandboxes" => {}
                _ => {
                    assert_eq!(daemon.ids(), ["box"], "{what}");
                    whole(&daemon, &what);
                }
            }
            clear(&daemon);
        }
    }
}

/// The sandbox's first process and the one that commands are forked from.
fn inside(daemon: &Daemon) -> [i32; 2] {
    let agent = i32::try_from(daemon.get("/v1/sandboxes/box")["pid"].as_i64().unwrap()).unwrap();
    let named = |pid: &i32| host::status(*pid, "Name").as_deref() == Some("st-zygote");
    [agent, host::children(agent).into_iter().find(named).unwrap()]
}

#[test]
fn a_command_that_fails_to_begin_or_to_end_is_said_to_and_the_next_one_runs_or_the_sandbox_is_over() {
    let run = json!({"shell": "echo one"});
    let run = Operation { before: with_file, request: ("POST", "/v1/sandboxes/box/commands", run) };
    let daemon = Daemon::start();
    for which in 0..2 {
        (run.before)(&daemon);
        let (answer, seen) =
            tracer::during(inside(&daemon)[which], daemon.launch_pid(), (Deed::Count, 0), &SURE, || {
                run.send(&daemon).unwrap()
            });
        assert_eq!(answer.json()["stdout"], "one\n");
        assert!(seen.calls > 2, "process {which} makes {} calls", seen.calls);
        for number in (0..seen.calls).step_by(step()) {
            let errno = ERRNOS[number % ERRNOS.len()];
            let deed = (Deed::Refuse(errno), number);
            let launch = daemon.launch_pid();
            let (answer, seen) =
                tracer::during(inside(&daemon)[which], launch, deed, &SURE, || run.send(&daemon).unwrap());
            let what = format!("{errno} of call {number} of process {which}, which is {:?}", seen.hit);
            eprintln!("{what}: {}", answer.text());
            let said = answer.json();
            assert!(said["stdout"] == "one\n" || said["code"].is_string(), "{what}: {said}");
            if daemon.try_run("box", &json!({"shell": "cat /workspace/file"})).status != 200 {
                let state = &daemon.get("/v1/sandboxes/box")["state"];
                assert!(state != "running", "{what}: it is {state}, and runs nothing");
                clear(&daemon);
                (run.before)(&daemon);
            }
        }
        clear(&daemon);
    }
}
