//! What the host's kernel says: processes, namespaces, mounts, cgroups.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take to finish what a dead process leaves to it (cleanup_net, RCU).
const SETTLE: Duration = Duration::from_secs(15);

/// Waits until something is true, and fails the test when it stays false.
#[track_caller]
pub fn wait_for(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < SETTLE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Does something in a network namespace.
pub fn in_network<T: Send>(namespace: &Path, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let namespace = fs::File::open(namespace).unwrap();
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Waits until a list is empty, and fails the test with what stays in it.
#[track_caller]
pub fn wait_until_none(what: &str, mut find: impl FnMut() -> Vec<String>) {
    let start = Instant::now();
    loop {
        let found = find();
        if found.is_empty() {
            return;
        }
        assert!(start.elapsed() < SETTLE, "{what}:\n{}", found.join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// All pids.
pub fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a process exists and is not a zombie.
pub fn alive(pid: i32) -> bool {
    status(pid, "State").is_some_and(|state| !state.starts_with('Z'))
}

/// A field of `/proc/PID/status`.
pub fn status(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// A process's `argv[0]`.
pub fn argument_zero(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next().unwrap_or_default()).into_owned()
}

/// The children of a process.
pub fn children(parent: i32) -> Vec<i32> {
    let parent = parent.to_string();
    pids().into_iter().filter(|&pid| status(pid, "PPid").is_some_and(|found| found == parent)).collect()
}

/// Resident memory of a process, in KiB.
pub fn resident_kib(pid: i32) -> u64 {
    status(pid, "VmRSS").and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

/// Open descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default()
}

/// The processes in the namespace of that kind with that inode number.
pub fn processes_in(kind: &str, inode: u64) -> Vec<i32> {
    let wanted = format!("{kind}:[{inode}]");
    pids()
        .into_iter()
        .filter(|pid| {
            fs::read_link(format!("/proc/{pid}/ns/{kind}")).is_ok_and(|link| link.as_os_str() == &*wanted)
                && alive(*pid)
        })
        .collect()
}

/// Every namespace that some process is in.
pub fn namespaces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pid in pids() {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/ns")) else { continue };
        for entry in entries.flatten() {
            if let Ok(link) = fs::read_link(entry.path()) {
                found.insert(link.display().to_string());
            }
        }
    }
    found
}

/// Mounts, in any process's mount namespace, whose line names something under a path.
pub fn mounts_under(path: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    for pid in pids() {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/mountinfo")) else { continue };
        for line in text.lines().filter(|line| line.contains(path)) {
            let from_root = line.split_once(' ').map_or(line, |(_, rest)| rest);
            found.insert(format!("pid {pid}: {from_root}"));
        }
    }
    found.into_iter().collect()
}

/// Lines in a process's mount table.
pub fn mount_count(pid: i32) -> usize {
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).map(|text| text.lines().count()).unwrap_or_default()
}

/// Whether a process is in a cgroup below one of this name, in any hierarchy.
pub fn is_in_cgroup(pid: i32, name: &str) -> bool {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.lines().any(|line| line.split('/').any(|part| part == name))
}

/// Directories below groups of the first name, in any cgroup hierarchy, whose own name begins with the second.
pub fn cgroups_named(daemon: &str, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk_cgroups(Path::new("/sys/fs/cgroup"), &mut |path| {
        let own = path.file_name().is_some_and(|last| last.to_string_lossy().starts_with(name));
        if own && path.components().any(|part| part.as_os_str() == daemon) {
            found.push(path.to_owned());
        }
    });
    found
}

/// The number of directories in all cgroup hierarchies.
pub fn cgroup_count() -> usize {
    let mut count = 0;
    walk_cgroups(Path::new("/sys/fs/cgroup"), &mut |_| count += 1);
    count
}

fn walk_cgroups(directory: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path());
            walk_cgroups(&entry.path(), visit);
        }
    }
}

/// Whether this host has cgroup v2 alone, with its controllers.
pub fn unified() -> bool {
    fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|text| text.contains("memory"))
}

/// Whether the host has a program that sandboxes see as their own.
pub fn has_tool(name: &str) -> bool {
    Path::new("/usr/bin").join(name).exists() || Path::new("/usr/local/bin").join(name).exists()
}

/// Whether this host has somewhere to put memory that is not used.
pub fn swaps() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|text| text.lines().count() > 1)
}

/// Whether a skip is explained by what kind of host this is, even when skips are forbidden.
pub fn explains(feature: &str) -> bool {
    match feature {
        // Hybrid hosts keep the controllers on v1, where these do not exist; `cargo xtask vm` covers them.
        "cgroup-v2" | "swap-limit" => !unified(),
        "swap" => !unified() || !swaps(),
        // The kernel has no such subsystem at all, so the attempt fails outside as well.
        "kernel-feature" => true,
        // A host that lacks nothing has nothing to refuse.
        "missing-limit" => true,
        // The VM of `cargo xtask vm` holds busybox and little else, and no image.
        "userland" | "built-image" => std::env::var_os("STOCKADE_TEST_BINARY").is_some(),
        _ => false,
    }
}
