//! What code in a sandbox cannot do. Every attempt is made twice: inside, where it must fail, and as root in scratch
//! namespaces of the host, where it must succeed; an attempt that succeeds nowhere proves nothing and is reported
//! as a skip of a kernel feature that this host does not have.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::json;

use crate::harness::{Daemon, binary, host, id, probe, scratch, skipped};

/// Makes a group's attempts in a sandbox as its root and as an ordinary user, and outside as the control.
#[track_caller]
fn every_attempt_fails(group: &str) {
    let control = probe::outside(group);
    assert!(!control.is_empty(), "no attempts in {group}");
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    probe::install(&daemon, &name);
    let mut succeeded = Vec::new();
    for user in ["0", "1000"] {
        let outcomes = probe::inside(&daemon, &name, user, group);
        assert_eq!(
            outcomes.keys().collect::<Vec<_>>(),
            control.keys().collect::<Vec<_>>(),
            "attempts are missing"
        );
        succeeded.extend(
            outcomes
                .iter()
                .filter(|(_, outcome)| *outcome == "ok" || outcome.starts_with("preparation"))
                .map(|(attempt, outcome)| format!("{attempt} as user {user}: {outcome}")),
        );
    }
    assert!(succeeded.is_empty(), "succeeded inside: {succeeded:#?}");
    for (attempt, outcome) in control.iter().filter(|(_, outcome)| *outcome != "ok") {
        skipped("kernel-feature", &format!("the control of {attempt} gives {outcome} on this host"));
    }
    assert_eq!(daemon.shell(&name, "echo alive"), "alive\n");
}

#[test]
fn nothing_is_mounted_or_unmounted() {
    every_attempt_fails("mounts");
}

#[test]
fn no_further_namespace_is_made_or_entered() {
    every_attempt_fails("namespaces");
}

#[test]
fn the_limits_on_namespaces_cannot_be_raised() {
    every_attempt_fails("own_user_namespace");
}

#[test]
fn the_first_process_is_out_of_reach() {
    every_attempt_fails("first");
}

#[test]
fn devices_and_kernel_settings_are_out_of_reach() {
    every_attempt_fails("kernel");
}

#[test]
fn only_ordinary_sockets_are_made() {
    every_attempt_fails("sockets");
}

#[test]
fn dangerous_system_calls_are_refused() {
    every_attempt_fails("calls");
}

#[test]
fn terminals_take_no_injected_input() {
    every_attempt_fails("terminals");
}

#[test]
fn ordinary_sockets_and_programs_do_work() {
    // The other half of the filter's test: what must be allowed.
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let script = r#"
import socket, threading, os, subprocess, multiprocessing, tempfile, mmap, select, signal, fcntl, pty
for family, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_UNIX, "/tmp/s")):
    server = socket.socket(family); server.bind(address); server.listen()
    client = socket.socket(family); client.connect(server.getsockname())
    peer, _ = server.accept(); client.sendall(b"ping"); assert peer.recv(4) == b"ping"
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("127.0.0.1", 0)); udp.sendto(b"x", udp.getsockname()); assert udp.recv(1) == b"x"
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
assert [i for _, i in socket.if_nameindex()] == ["lo"], socket.if_nameindex()
t = threading.Thread(target=lambda: None); t.start(); t.join()
assert subprocess.check_output(["/bin/sh", "-c", "echo $((6*7))"]) == b"42\n"
p = multiprocessing.get_context("fork").Process(target=lambda: None); p.start(); p.join(); assert p.exitcode == 0
with tempfile.NamedTemporaryFile() as f:
    f.write(b"x" * 4096); f.flush(); m = mmap.mmap(f.fileno(), 4096); assert m[:1] == b"x"; m.close(); fcntl.flock(f, fcntl.LOCK_EX)
e = select.epoll(); e.close(); signal.signal(signal.SIGALRM, lambda *_: None); signal.alarm(0)
master, slave = pty.openpty(); os.write(slave, b"x"); assert os.read(master, 1) == b"x"
open("/dev/null", "w").write("x"); assert len(open("/dev/urandom", "rb").read(16)) == 16
os.mkfifo("/tmp/fifo"); os.link("/tmp/fifo", "/tmp/fifo2"); os.symlink("fifo", "/tmp/fifo3"); os.rename("/tmp/fifo2", "/tmp/fifo4")
print("fine")
"#;
    for user in ["0", "1000"] {
        let result =
            daemon.run(&name, json!({"argv": ["python3", "-c", script], "user": user, "cwd": "/tmp"}));
        assert_eq!(result["stdout"], "fine\n", "user {user}: {result}");
        daemon.run(&name, json!({"shell": "rm -f /tmp/s /tmp/fifo*", "user": "0"}));
    }
}

#[test]
fn ordinary_users_hold_no_capability_and_root_a_few() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let sets = |user: &str| {
        let result = daemon.run(
            &name,
            json!({"argv": ["grep", "-E", "^(Cap|NoNewPrivs|Seccomp):?", "/proc/self/status"], "user": user}),
        );
        result["stdout"].as_str().unwrap().to_owned()
    };
    let ordinary = sets("1000");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(ordinary.contains(&format!("{set}:\t0000000000000000")), "{ordinary}");
    }
    let root = sets("0");
    // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7, SETPCAP 8, NET_BIND_SERVICE 10, SYS_CHROOT 18 (capability.h).
    const AT_MOST: u64 = 0b100_0000_0101_1111_1011;
    for line in root.lines().filter(|line| line.starts_with("Cap")) {
        let set = u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap();
        assert_eq!(set & !AT_MOST, 0, "{line}");
    }
    for status in [&ordinary, &root] {
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    }
}

#[test]
fn set_user_id_programs_give_nothing() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    probe::install(&daemon, &name);
    let copy = format!("cp {} /workspace/suid && chmod 4755 /workspace/suid", probe::PATH);
    daemon.run(&name, json!({"shell": copy, "user": "0"}));
    let mode = daemon.run(&name, json!({"argv": ["stat", "-c", "%a", "/workspace/suid"]}));
    assert_eq!(mode["stdout"], "4755\n", "no set-user-id program to test with");
    let result = daemon.run(&name, json!({"argv": ["/workspace/suid", "euid"], "user": "1000"}));
    assert_eq!(result["stdout"], "1000\n", "{result}");
    // The control: the same program on the host does give root.
    let directory = scratch();
    let path = directory.path().join("suid");
    std::fs::copy(probe::program(), &path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "1000", "--regid", "1000", "--clear-groups"])
        .arg(&path)
        .arg("euid")
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"0\n", "the control failed: is the test directory mounted nosuid?");
}

#[test]
fn the_hosts_files_do_not_show() {
    let directory = scratch();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, b"the host's secret").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let path = secret.display().to_string();
    for user in ["0", "1000"] {
        for spelling in [
            path.clone(),
            format!("/proc/1/root{path}"),
            format!("/proc/self/root{path}"),
            format!("/proc/self/cwd/../../../../..{path}"),
        ] {
            let result = daemon.run(&name, json!({"argv": ["cat", spelling], "user": user}));
            assert_eq!((&result["exit_code"], &result["stdout"]), (&json!(1), &json!("")), "{result}");
        }
        for hidden in [
            "/home",
            "/var/lib/dpkg",
            "/boot",
            "/srv",
            "/etc/shadow",
            "/root/.cargo",
            "/lost+found",
            "/sys/firmware",
            "/sys/kernel/debug",
            "/sys/fs/cgroup/memory",
            "/dev/mem",
            "/dev/kvm",
            "/dev/vda",
            "/dev/fuse",
            "/dev/net/tun",
            "/dev/loop-control",
        ] {
            let result = daemon.run(&name, json!({"argv": ["python3", "-c", "import os,sys; p=sys.argv[1]; print(os.listdir(p) if os.path.isdir(p) else open(p,'rb').read(1))", hidden], "user": user}));
            let shown = result["stdout"].as_str().unwrap().trim();
            assert!(result["exit_code"] != 0 || shown == "[]", "{hidden} as user {user}: {result}");
        }
        let write = daemon.run(
            &name,
            json!({"shell": "touch /usr/x || touch /usr/bin/x || touch /usr/lib/x", "user": user}),
        );
        assert_ne!(write["exit_code"], 0, "the host's /usr can be written: {write}");
    }
    // The control: the secret is there for a process of the host.
    assert_eq!(std::fs::read(&secret).unwrap(), b"the host's secret");
}

#[test]
fn only_ones_own_processes_show() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let list = r"ls /proc | grep -E '^[0-9]+$' | wc -l";
    for user in ["0", "1000"] {
        let result = daemon.run(&name, json!({"shell": list, "user": user}));
        let seen: u32 = result["stdout"].as_str().unwrap().trim().parse().unwrap();
        assert!((1..=8).contains(&seen), "user {user} sees {seen} processes");
        let first = daemon.run(&name, json!({"argv": ["ls", "/proc/1"], "user": user}));
        assert_ne!(first["exit_code"], 0, "the first process shows to user {user}");
    }
    let mounts = daemon.shell(&name, "cat /proc/self/mountinfo");
    let proc = mounts.lines().find(|line| line.contains(" - proc ")).unwrap();
    assert!(proc.contains("hidepid=") && proc.contains("nosuid,nodev,noexec"), "{proc}");
    let controls = host::pids().len();
    assert!(controls > 8, "the control: the host has only {controls} processes");
}

#[test]
fn the_network_is_a_loopback_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"the host's service").unwrap();
    });
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let dial = "import socket,sys\ns=socket.create_connection((sys.argv[1], int(sys.argv[2])), 2); print(s.recv(99).decode())";
    for address in ["127.0.0.1", "10.0.2.2", "169.254.169.254", "1.1.1.1"] {
        let result = daemon.run(&name, json!({"argv": ["python3", "-c", dial, address, port.to_string()]}));
        assert_ne!(result["exit_code"], 0, "{address}: {result}");
        assert_eq!(result["stdout"], "");
    }
    let devices = daemon.shell(&name, "cat /proc/net/dev | tail -n +3 | cut -d: -f1");
    assert_eq!(devices.trim(), "lo", "{devices}");
    // Abstract sockets belong to the network namespace: the host's do not show.
    assert_eq!(daemon.shell(&name, "grep -c @ /proc/net/unix; true").trim(), "0");
    // The control: from the host the service answers.
    let mut text = String::new();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "the host's service");
    server.join().unwrap();
}

#[test]
fn an_empty_stdin_is_nobody_elses() {
    let daemon = Daemon::start();
    let (one, other) = (daemon.sandbox(), daemon.sandbox());
    let lock = "flock -n -x 0 && echo locked && sleep 60";
    // A lock that is held is one that a second description of the same file does not get.
    assert_eq!(
        daemon.shell(&one, "flock -n -x 0 && ! flock -n -x /proc/self/fd/0 true && echo busy"),
        "busy\n"
    );
    let _held = daemon.start_command(&one, &json!({"shell": lock}), true);
    for name in [&one, &other] {
        assert_eq!(daemon.shell(name, "flock -n -x 0 && echo free"), "free\n", "{name}");
    }
}

#[test]
fn the_hosts_control_groups_do_not_show() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let own = daemon.shell(&name, "cat /proc/self/cgroup");
    for line in own.lines() {
        assert!(!line.contains(&name), "a path of the host: {line}");
    }
    for user in ["0", "1000"] {
        let result = daemon.run(&name, json!({"shell": "find /sys/fs/cgroup -maxdepth 4 -writable -type f 2>/dev/null | head -3; mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; true", "user": user}));
        assert_eq!(result["stdout"], "", "user {user}");
    }
}

#[test]
fn a_crash_starts_no_core_program() {
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    let result =
        daemon.run(&name, json!({"shell": "ulimit -c; ulimit -Hc; kill -SEGV $$", "cwd": "/workspace"}));
    assert_eq!(result["signal"], "SIGSEGV", "{result}");
    // In units of 512 or 1024 bytes, 1 byte shows as 0: RLIMIT_CORE is 1, for a piped pattern ignores 0.
    let lines: Vec<u64> =
        result["stdout"].as_str().unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert!(lines.iter().all(|&limit| limit <= 1), "{lines:?}");
    assert_eq!(daemon.shell(&name, "ls /workspace"), "");
}

#[test]
fn the_daemons_program_cannot_be_reached_or_changed() {
    let before = crate::harness::image::sha256(&std::fs::read(binary()).unwrap());
    let daemon = Daemon::start();
    let name = daemon.sandbox();
    // CVE-2019-5736: the file of a process that enters the sandbox is opened for writing through /proc.
    let attack = r#"
import os, time
end = time.time() + 1.5
while time.time() < end:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            target = os.readlink(f"/proc/{pid}/exe")
            if "memfd" in target or "stockade" in target: print("saw", target)
            if not target.startswith("/usr/"): os.open(f"/proc/{pid}/exe", os.O_WRONLY); print("opened", target)
        except OSError: pass
"#;
    std::thread::scope(|scope| {
        let attackers = ["0", "1000"].map(|user| {
            let command = json!({"argv": ["python3", "-c", attack], "user": user});
            let (daemon, name) = (&daemon, &name);
            scope.spawn(move || daemon.run(name, command))
        });
        for _ in 0..100 {
            daemon.run(&name, json!({"argv": ["true"]}));
        }
        for attacker in attackers {
            let result = attacker.join().unwrap();
            assert_eq!((&result["stdout"], &result["exit_code"]), (&json!(""), &json!(0)), "{result}");
        }
    });
    assert_eq!(crate::harness::image::sha256(&std::fs::read(binary()).unwrap()), before);
}

#[test]
fn the_hardened_profile_offers_less_and_the_compat_profile_says_what_it_adds() {
    let daemon = Daemon::start();
    let script = r#"
import socket, os
def outcome(f):
    try: f(); return "ok"
    except OSError as error: return "no"
read, write = os.pipe(); read2, write2 = os.pipe(); os.write(write, b"x")
print(outcome(lambda: socket.socket(socket.AF_INET6)), outcome(lambda: os.splice(read, write2, 1)))
"#;
    let seen = |profile: &str| {
        let sandbox = daemon.create(json!({"profile": profile}));
        assert_eq!(sandbox["isolation"]["profile"], profile);
        let result = daemon.run(&id(&sandbox), json!({"argv": ["python3", "-c", script]}));
        (result["stdout"].as_str().unwrap().trim().to_owned(), sandbox["isolation"]["relaxations"].clone())
    };
    assert_eq!(seen("default").0, "ok ok");
    assert_eq!(seen("hardened").0, "no no");
    let (_, relaxations) = seen("compat");
    assert!(
        relaxations.as_array().is_some_and(|list| !list.is_empty()),
        "compat names nothing: {relaxations}"
    );
}
