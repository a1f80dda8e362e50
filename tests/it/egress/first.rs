//! The first packet of a sandbox, and the first after a change: none goes before the policy.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::{full, set};
use crate::harness::image::{Image, Meta, Tar};
use crate::harness::world::{OTHER, SERVER, World};
use crate::harness::{Daemon, host, id, probe};

/// What must not be reached, and what may.
struct Doors {
    refused: Vec<Arc<AtomicU32>>,
    allowed: Arc<AtomicU32>,
}

impl Doors {
    fn new(world: &World) -> Self {
        let datagrams = Arc::new(AtomicU32::new(0));
        let socket = world.in_world(|| UdpSocket::bind((SERVER, 81)).unwrap());
        let count = Arc::clone(&datagrams);
        std::thread::spawn(move || {
            while socket.recv(&mut [0; 16]).is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        let v6 = world.web("[2606:4700::2]:81");
        Self {
            refused: vec![world.web(&format!("{SERVER}:81")), datagrams, v6],
            allowed: world.web(&format!("{OTHER}:81")),
        }
    }

    #[track_caller]
    fn check(&self, at_least: u32) {
        let leaked: Vec<u32> = self.refused.iter().map(|one| one.load(Ordering::SeqCst)).collect();
        assert_eq!(leaked, [0, 0, 0], "streams, datagrams, IPv6");
        let allowed = self.allowed.load(Ordering::SeqCst);
        assert!(allowed >= at_least, "{allowed} of {at_least}");
    }
}

fn policy() -> Value {
    json!({"allow": [format!("{OTHER}:81")], "limits": {"connections_per_second": 10_000}})
}

/// A daemon with an image that is the hammer and nothing else: nothing comes before it.
fn daemon(world: &World) -> Daemon {
    let daemon = Daemon::within(&world.host(), &world.config(""));
    let program = std::fs::read(probe::program()).unwrap();
    let layer = ["tmp/", "etc/", "root/", "workspace/"]
        .iter()
        .fold(Tar::new(), |tar, name| tar.directory(name, Meta::DIRECTORY))
        .file("hammer", Meta::PROGRAM, &program);
    daemon.import("hammer:1", &Image::new(vec![layer.finish()]).layout_tar("1"));
    daemon
}

fn start(daemon: &Daemon, network: &Value) -> String {
    id(&daemon.create(json!({"image": "hammer:1", "network": network})))
}

fn hammer(rounds: &str) -> Value {
    json!(["/hammer", "hammer", rounds, SERVER, OTHER, "2606:4700::2"])
}

#[test]
fn no_packet_goes_before_the_policy() {
    let starts: u32 = if full() { 10_000 } else { 100 };
    let world = World::new();
    let doors = Doors::new(&world);
    let daemon = daemon(&world);
    for number in 1..=starts {
        let id = start(&daemon, &policy());
        // The first thing that it does, as often as it can.
        let result = daemon.run(&id, json!({"argv": hammer("20")}));
        assert_eq!(result["exit_code"], 0, "{result}");
        daemon.destroy(&id);
        doors.check(20 * number);
    }
}

#[test]
fn no_packet_goes_before_the_policy_that_a_running_sandbox_gets() {
    let starts: u32 = if full() { 500 } else { 5 };
    let world = World::new();
    let doors = Doors::new(&world);
    let daemon = daemon(&world);
    for number in 1..=starts {
        let id = start(&daemon, &json!({}));
        let processes = format!("/v1/sandboxes/{id}/processes");
        let body = json!({"id": "hammer", "argv": hammer("0")});
        assert_eq!(daemon.request("POST", &processes, Some(&body)).status, 201);
        let ready = json!({"for": {"log": {"text": "began"}}, "timeout_ms": 30_000});
        assert_eq!(daemon.request("POST", &format!("{processes}/hammer/wait"), Some(&ready)).status, 200);
        // From nothing to something, to nothing, and to something else.
        let reached = |more: u32, what: &str| {
            let before = doors.allowed.load(Ordering::SeqCst);
            host::wait_for(what, || doors.allowed.load(Ordering::SeqCst) >= before + more);
        };
        set(&daemon, &id, &policy());
        reached(20, "the hammer to get through");
        set(&daemon, &id, &json!({}));
        set(&daemon, &id, &policy());
        reached(20, "the hammer to get through again");
        let gateway = daemon.role_pid("stockade-gateway").unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(gateway), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        reached(20, "the hammer to get through the next gateway");
        daemon.destroy(&id);
        doors.check(number);
    }
}
