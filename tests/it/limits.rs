//! Limits: what a sandbox may take, enforced by whatever this host has.
//!
//! `cargo xtask vm` runs this module again under a kernel with pure cgroup v2, where only busybox, the probe and this
//! program exist; so nothing here needs anything else.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::image::{Image, Meta, Tar, busybox_layer};
use crate::harness::{Daemon, assert_error, host, id, probe, skip};

const MIB: u64 = 1 << 20;

/// A daemon that holds the image `probe:1`: busybox and the probe at /bin/probe. `None` without busybox.
fn daemon() -> Option<Daemon> {
    let layer = Tar::new().file("bin/probe", Meta::PROGRAM, &fs::read(probe::program()).unwrap()).finish();
    let image = Image::new(vec![busybox_layer()?, layer]);
    let daemon = Daemon::start();
    daemon.import("probe:1", &image.layout_tar("1"));
    Some(daemon)
}

/// Starts a daemon with the probe's image, or leaves the test.
macro_rules! daemon_or_skip {
    () => {
        match daemon() {
            Some(daemon) => daemon,
            None => skip!("busybox", "busybox-static is not installed"),
        }
    };
}

/// What enforces a limit on this host, if anything does.
fn enforced(daemon: &Daemon, limit: &str) -> Option<String> {
    daemon.get("/v1/info")["host"]["limits"][limit].as_str().map(str::to_owned)
}

/// Leaves the test when the host cannot enforce a limit.
macro_rules! needs {
    ($daemon:expr, $limit:literal) => {
        if enforced(&$daemon, $limit).is_none() {
            skip!("limit", "this host cannot enforce {}", $limit);
        }
    };
}

fn limited(daemon: &Daemon, resources: Value) -> String {
    id(&daemon.create(json!({"image": "probe:1", "resources": resources})))
}

fn probe(daemon: &Daemon, name: &str, words: &[&str]) -> Value {
    let mut argv = vec!["/bin/probe"];
    argv.extend(words);
    daemon.run(name, json!({"argv": argv, "timeout_ms": 60_000}))
}

fn stdout(result: &Value) -> String {
    result["stdout"].as_str().unwrap_or_else(|| panic!("{result}")).trim().to_owned()
}

#[test]
fn memory_is_bounded_and_the_neighbour_does_not_notice() {
    let daemon = daemon_or_skip!();
    needs!(daemon, "memory_bytes");
    let name = limited(&daemon, json!({"memory_bytes": 64 * MIB}));
    let neighbour = limited(&daemon, json!({}));
    assert_eq!(stdout(&probe(&daemon, &name, &["eat", "16"])), "ate");
    let result = probe(&daemon, &name, &["eat", "512"]);
    assert_eq!((&result["exit_code"], &result["signal"]), (&json!(137), &json!("SIGKILL")), "{result}");
    assert_eq!(stdout(&probe(&daemon, &neighbour, &["eat", "128"])), "ate");
    // The sandbox outlives its commands: the agent is not what the kernel kills.
    assert_eq!(stdout(&probe(&daemon, &name, &["eat", "16"])), "ate");
}

#[test]
fn a_command_that_was_killed_for_memory_is_told_from_one_that_was_killed() {
    let daemon = daemon_or_skip!();
    needs!(daemon, "memory_bytes");
    let name = limited(&daemon, json!({"memory_bytes": 64 * MIB}));
    let eat = "head -c 300000000 /dev/zero | tail";
    for (line, oom_killed) in [
        ("kill -9 $$", false),
        (&*format!("sh -c '{eat}'; exit $?"), true),
        ("exec true", false),
        ("kill -9 $$", false),
        (&*format!("{eat} & wait $!"), true),
        ("exit 137", false),
    ] {
        let result = daemon.run(&name, json!({"shell": line, "timeout_ms": 60_000}));
        assert_eq!(result["oom_killed"], oom_killed, "{line}: {result}");
    }
}

#[test]
fn files_in_memory_count_as_memory() {
    let daemon = daemon_or_skip!();
    needs!(daemon, "memory_bytes");
    let name = limited(&daemon, json!({"memory_bytes": 64 * MIB}));
    let line = "head -c 300000000 /dev/zero > /dev/shm/large";
    let result = daemon.run(&name, json!({"shell": line, "timeout_ms": 60_000}));
    assert_ne!(result["exit_code"], 0, "{result}");
    daemon.run(&name, json!({"shell": "rm -f /dev/shm/large"}));
    assert_eq!(stdout(&probe(&daemon, &name, &["eat", "8"])), "ate");
}

#[test]
fn a_fork_bomb_is_bounded_and_both_sandboxes_go_on() {
    let daemon = daemon_or_skip!();
    needs!(daemon, "pids");
    let name = limited(&daemon, json!({"pids": 40}));
    let neighbour = limited(&daemon, json!({}));
    let count: u32 = stdout(&probe(&daemon, &name, &["fork", "1000"])).parse().unwrap();
    assert!((10..40).contains(&count), "{count} processes with a limit of 40");
    let bomb = "bomb() { bomb | bomb & }; bomb; sleep 600";
    std::thread::scope(|scope| {
        let running =
            scope.spawn(|| daemon.run(&name, json!({"argv": ["/bin/sh", "-c", bomb], "timeout_ms": 3000})));
        std::thread::sleep(Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(stdout(&probe(&daemon, &neighbour, &["eat", "1"])), "ate");
        assert!(start.elapsed() < Duration::from_secs(5), "the neighbour waited {:?}", start.elapsed());
        let result = running.join().unwrap();
        assert!(result["timed_out"] == true || result["exit_code"] != 0, "{result}");
    });
    host::wait_for("the bombed sandbox to work again", || {
        let answer = daemon.try_run(&name, &json!({"argv": ["/bin/probe", "eat", "1"]}));
        answer.status == 200 && answer.json()["exit_code"] == 0
    });
}

#[test]
fn a_full_sandbox_says_so_and_can_be_destroyed() {
    let daemon = daemon_or_skip!();
    needs!(daemon, "pids");
    let sandbox = daemon.create(json!({"image": "probe:1", "resources": {"pids": 24}}));
    let name = id(&sandbox);
    let _full = daemon.start_command(&name, &json!({"argv": ["/bin/probe", "hold", "100"]}), true);
    assert_error(&daemon.try_run(&name, &json!({"argv": ["true"]})), 429, "PROCESS_LIMIT");
    let start = Instant::now();
    daemon.destroy(&name);
    assert!(start.elapsed() < Duration::from_secs(5), "destroying took {:?}", start.elapsed());
}

#[test]
fn cpu_time_is_bounded() {
    let daemon = daemon_or_skip!();
    needs!(daemon, "cpu_millis");
    let used = |cpus: f64| -> u64 {
        let name = limited(&daemon, json!({"cpus": cpus}));
        stdout(&probe(&daemon, &name, &["burn", "2000"])).parse().unwrap()
    };
    let little = used(0.2);
    // 0.2 of two seconds are 400 ms; one period of 100 ms may be served on credit.
    assert!(little <= 700, "{little} ms of processor time instead of 400");
    let much = used(1.0);
    assert!(much > little * 3 / 2, "the control: {much} ms with five times the share, {little} ms without");
}

#[test]
fn writing_is_bounded() {
    let daemon = daemon_or_skip!();
    needs!(daemon, "io_write_bytes_per_second");
    let free = limited(&daemon, json!({}));
    let slow = limited(&daemon, json!({"io_write_bytes_per_second": 4 * MIB}));
    let took = |name: &str| -> u64 {
        let result = probe(&daemon, name, &["write-direct", "/workspace/file", "10"]);
        stdout(&result).parse().unwrap_or_else(|_| panic!("{result}"))
    };
    let (fast, bounded) = (took(&free), took(&slow));
    assert!(bounded >= 1700, "10 MiB at 4 MiB/s took {bounded} ms");
    assert!(fast < bounded, "the control took {fast} ms, the bounded one {bounded} ms");
}

#[test]
fn disk_space_is_bounded_and_the_neighbour_does_not_notice() {
    let daemon = daemon_or_skip!();
    needs!(daemon, "disk_bytes");
    let name = limited(&daemon, json!({"disk_bytes": 32 * MIB}));
    let neighbour = limited(&daemon, json!({}));
    let result = probe(&daemon, &name, &["write", "/workspace/large", "64"]);
    let text = stdout(&result);
    assert!(text.starts_with("ENOSPC") || text.starts_with("EDQUOT"), "{result}");
    let after: u64 = text.rsplit(' ').next().unwrap().parse().unwrap_or(0);
    assert!((8..=32).contains(&after), "stopped after {after} of 32 MiB");
    assert!(stdout(&probe(&daemon, &neighbour, &["write", "/workspace/large", "64"])).parse::<u64>().is_ok());
    daemon.run(&name, json!({"argv": ["rm", "/workspace/large"]}));
    assert!(stdout(&probe(&daemon, &name, &["write", "/workspace/small", "4"])).parse::<u64>().is_ok());
    // Everything that can be written to has a bound, not the working directory alone.
    for directory in ["/root", "/tmp", "/dev/shm", "/var/tmp", "/run"] {
        let result = probe(&daemon, &name, &["write", &format!("{directory}/large"), "3000"]);
        assert_ne!(result["exit_code"], 0, "{directory} takes 3 GiB: {result}");
    }
}

#[test]
fn the_number_of_files_is_bounded() {
    let daemon = daemon_or_skip!();
    needs!(daemon, "disk_files");
    let name = limited(&daemon, json!({"disk_bytes": 64 * MIB, "disk_files": 500}));
    let result = probe(&daemon, &name, &["files", "/workspace", "2000"]);
    let text = stdout(&result);
    assert!(text.starts_with("ENOSPC") || text.starts_with("EDQUOT"), "{result}");
}

#[test]
fn shared_memory_has_the_size_asked_for() {
    let daemon = daemon_or_skip!();
    let name = limited(&daemon, json!({"tmpfs_bytes": 4 * MIB}));
    let result = probe(&daemon, &name, &["write", "/dev/shm/file", "8"]);
    assert!(stdout(&result).starts_with("ENOSPC"), "{result}");
}

#[test]
fn defaults_apply_and_are_reported() {
    let daemon = daemon_or_skip!();
    let sandbox = daemon.create(json!({"image": "probe:1"}));
    let limits = &sandbox["isolation"]["limits"];
    for (limit, value) in [("memory_bytes", 2048 * MIB), ("pids", 512)] {
        match enforced(&daemon, limit) {
            Some(by) => {
                assert_eq!(limits[limit]["value"], value, "{limits}");
                assert_eq!(limits[limit]["enforced_by"], by, "{limits}");
            }
            None => assert_eq!(limits[limit]["enforced_by"], "none", "{limits}"),
        }
    }
}

#[test]
fn under_pure_v2_every_limit_is_in_the_sandboxs_own_group() {
    let daemon = daemon_or_skip!();
    if !host::unified() {
        skip!("cgroup-v2", "the controllers of this host are on v1");
    }
    let name = limited(
        &daemon,
        json!({"memory_bytes": 96 * MIB, "swap_bytes": 8 * MIB, "pids": 50, "cpus": 1.5, "cpu_weight": 42}),
    );
    let groups = daemon.cgroups(&name);
    let read = |file: &str| -> Vec<String> {
        groups
            .iter()
            .filter_map(|group| fs::read_to_string(group.join(file)).ok())
            .map(|text| text.trim().to_owned())
            .collect()
    };
    for (file, value) in [
        ("memory.max", (96 * MIB).to_string()),
        ("memory.swap.max", (8 * MIB).to_string()),
        ("pids.max", "50".to_owned()),
        ("cpu.max", "150000 100000".to_owned()),
        ("cpu.weight", "42".to_owned()),
    ] {
        assert!(read(file).contains(&value), "{file}: {:?} instead of {value} in {groups:?}", read(file));
    }
    // Every process of the sandbox is in there.
    let sandbox = daemon.get(&format!("/v1/sandboxes/{name}"));
    let namespace = sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap();
    for pid in host::processes_in("pid", namespace) {
        let group = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        assert!(group.contains(&name), "pid {pid} is in {group}");
    }
}

#[test]
fn a_sandbox_that_resists_is_destroyed_quickly() {
    let daemon = daemon_or_skip!();
    let sandbox = daemon.create(json!({"image": "probe:1"}));
    let name = id(&sandbox);
    let line = "/bin/probe daemonize; setsid /bin/probe stubborn & exec /bin/probe stubborn";
    let _stubborn: Vec<_> = (0..5)
        .map(|_| daemon.start_command(&name, &json!({"argv": ["/bin/sh", "-c", line]}), true))
        .collect();
    let start = Instant::now();
    daemon.destroy(&name);
    assert!(start.elapsed() < Duration::from_secs(2), "destroying took {:?}", start.elapsed());
    let namespace = sandbox["isolation"]["namespaces"]["pid"].as_u64().unwrap();
    assert_eq!(host::processes_in("pid", namespace), [0; 0]);
}

/// `cargo xtask vm` has swap; development hosts often have none, or count memory by cgroup v1.
#[test]
fn memory_of_a_paused_sandbox_goes_to_swap_and_comes_back() {
    let daemon = daemon_or_skip!();
    if enforced(&daemon, "swap_bytes").is_none() || !host::swaps() {
        skip!("swap", "this host has no swap, or cannot say how much of it a sandbox has");
    }
    let resources = json!({"memory_bytes": 192 * MIB, "swap_bytes": 192 * MIB});
    let name = limited(&daemon, resources);
    let path = |rest: &str| format!("/v1/sandboxes/{name}{rest}");
    let spec = json!({"id": "holder", "argv": ["/bin/probe", "remember", "64"], "stdin": true});
    assert_eq!(daemon.request("POST", &path("/processes"), Some(&spec)).status, 201);
    let said = |word: &str| daemon.get(&path("/processes/holder/logs"))["entries"].to_string().contains(word);
    host::wait_for("it to hold its memory", || said("holds"));
    let memory = |what: &str| daemon.get(&path("/stats"))["memory"][what].as_u64().unwrap();
    let before = memory("current_bytes");
    assert!(before > 64 * MIB && memory("swap_bytes") < 8 * MIB, "{before}");
    assert_eq!(daemon.request("POST", &path("/pause"), None).status, 200);
    host::wait_for("it to be in swap", || {
        memory("swap_bytes") > 56 * MIB && memory("current_bytes") + 48 * MIB < before
    });
    // Whoever looks moves nothing.
    assert_eq!(daemon.get(&path(""))["state"], "paused");
    assert_eq!(daemon.request("POST", &path("/start"), None).status, 200);
    assert_eq!(daemon.send("POST", &path("/processes/holder/stdin"), &[], b"now\n").status, 204);
    // Page by page from the disk, which takes its time in an emulated machine.
    let wait = json!({"for": {"exit": {}}, "timeout_ms": 120_000});
    let ended = daemon.request("POST", &path("/processes/holder/wait"), Some(&wait)).json();
    assert!(said("intact"), "{ended}");
}
