//! Two sandboxes that want to work together, and may not.

use serde_json::json;

use crate::harness::{Daemon, probe};

/// Tries every way to find something of the other's: prints what it found.
const SEEK: &str = r#"
import os, socket, sys, ctypes
name = sys.argv[1]
for directory in ("/tmp", "/dev/shm", "/run", "/var/tmp", "/dev/mqueue", "/workspace", "/proc/1/root/tmp"):
    if os.path.exists(f"{directory}/{name}"): print("file in", directory)
for family, address in ((socket.AF_UNIX, "\0" + name), (socket.AF_UNIX, "/tmp/" + name + ".sock"), (socket.AF_INET, ("127.0.0.1", 4321))):
    try: socket.socket(family).connect(address); print("socket", address)
    except OSError: pass
libc = ctypes.CDLL(None, use_errno=True)
if libc.shmget(4711, 4096, 0) >= 0: print("shared memory")
if libc.msgget(4711, 0) >= 0: print("message queue")
if libc.semget(4711, 1, 0) >= 0: print("semaphores")
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        if name.encode() + b"-marker" in open(f"/proc/{pid}/cmdline", "rb").read(): print("process", pid)
    except OSError: pass
print("sought")
"#;

/// Leaves everything that [`SEEK`] looks for, and stays.
const OFFER: &str = r#"
import os, socket, sys, time, ctypes
name = sys.argv[1]
for directory in ("/tmp", "/dev/shm", "/run", "/var/tmp", "/workspace"):
    try: open(f"{directory}/{name}", "w").write("for the other")
    except OSError: pass
held = []
for family, address in ((socket.AF_UNIX, "\0" + name), (socket.AF_UNIX, "/tmp/" + name + ".sock"), (socket.AF_INET, ("127.0.0.1", 4321))):
    s = socket.socket(family); s.bind(address); s.listen(); held.append(s)
libc = ctypes.CDLL(None, use_errno=True)
libc.shmget(4711, 4096, 0o1666); libc.msgget(4711, 0o1666); libc.semget(4711, 1, 0o1666)
print("offered", flush=True)
time.sleep(120)
"#;

#[test]
fn two_sandboxes_that_want_to_pass_nothing_to_each_other() {
    let daemon = Daemon::start();
    let (giver, taker) = (daemon.sandbox(), daemon.sandbox());
    for user in ["0", "1000"] {
        let name = format!("meet-{user}");
        let offer = json!({"argv": ["python3", "-c", OFFER, name, format!("{name}-marker")], "user": user});
        let _held = daemon.start_command(&giver, &offer, true);
        let seek = json!({"argv": ["python3", "-c", SEEK, name], "user": user});
        assert_eq!(daemon.run(&taker, seek.clone())["stdout"], "sought\n", "user {user}");
        // The control: from inside the giver all of it is found.
        let found = daemon.run(&giver, seek);
        for what in ["file in /tmp", "socket", "shared memory", "message queue", "semaphores", "process"] {
            assert!(found["stdout"].as_str().unwrap().contains(what), "{what}: {found}");
        }
    }
}

#[test]
fn a_kill_of_everything_reaches_nobody_next_door() {
    let daemon = Daemon::start();
    let (killer, neighbour) = (daemon.sandbox(), daemon.sandbox());
    probe::install(&daemon, &neighbour);
    let _lives = daemon.start_command(&neighbour, &json!({"argv": [probe::PATH, "stubborn"]}), true);
    let pid = daemon.get(&format!("/v1/sandboxes/{neighbour}"))["pid"].as_i64().unwrap();
    let before = crate::harness::host::children(i32::try_from(pid).unwrap()).len();
    for user in ["0", "1000"] {
        daemon.run(&killer, json!({"shell": "kill -KILL -1", "user": user}));
    }
    assert_eq!(daemon.shell(&neighbour, "echo alive"), "alive\n");
    assert_eq!(crate::harness::host::children(i32::try_from(pid).unwrap()).len(), before);
    assert_eq!(daemon.shell(&killer, "echo alive"), "alive\n", "its own agent is out of reach as well");
}
