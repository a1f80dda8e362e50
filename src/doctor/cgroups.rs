//! Which limits hold here, and by which hierarchy: each controller sits on v2, on v1, or nowhere.
//!
//! Looked up, not tried: making a group in somebody's tree is not harmless while a service manager watches it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::kernel::can_clone;
use super::{Category, Finding, NOT_ROOT, Status};
use crate::sys::Errno;

/// Where the hierarchies are mounted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    v2: Option<PathBuf>,
    /// By controller, as v1 calls it.
    v1: BTreeMap<String, PathBuf>,
}

/// A limit, its controller in v2 and v1, and the file that must be there for it in each.
struct Needed {
    name: &'static str,
    v2: (&'static str, &'static str),
    v1: (&'static str, &'static str),
    lost: &'static str,
    /// How much is lost without it.
    without: Status,
}

const NEEDED: [Needed; 6] = [
    Needed {
        name: "memory limit",
        v2: ("memory", "memory.max"),
        v1: ("memory", "memory.limit_in_bytes"),
        lost: "limits on memory: one sandbox can take all of it",
        without: Status::Missing,
    },
    Needed {
        name: "swap limit",
        v2: ("memory", "memory.swap.max"),
        v1: ("memory", "memory.memsw.limit_in_bytes"),
        lost: "limits on swap: with swap on, a memory limit can be evaded",
        without: Status::Degraded,
    },
    Needed {
        name: "process limit",
        v2: ("pids", "pids.max"),
        v1: ("pids", "pids.max"),
        lost: "limits on processes: one fork bomb stops the host",
        without: Status::Missing,
    },
    Needed {
        name: "cpu limit",
        v2: ("cpu", "cpu.max"),
        v1: ("cpu", "cpu.cfs_quota_us"),
        lost: "limits on processor time",
        without: Status::Degraded,
    },
    Needed {
        name: "cpu weight",
        v2: ("cpu", "cpu.weight"),
        v1: ("cpu", "cpu.shares"),
        lost: "fair shares of processor time",
        without: Status::Degraded,
    },
    Needed {
        name: "io limit",
        v2: ("io", "io.max"),
        v1: ("blkio", "blkio.throttle.read_bps_device"),
        lost: "limits on disk throughput",
        without: Status::Degraded,
    },
];

/// `process` is /proc/self, or a copy of it in tests.
pub(super) fn examine(process: &Path) -> Vec<Finding> {
    let read = |file: &str| std::fs::read_to_string(process.join(file)).unwrap_or_default();
    let mounts = mounts(&read("mounts"));
    let mut findings = vec![tree(&mounts, &read("cgroup"))];
    findings.extend(NEEDED.iter().map(|needed| examine_one(needed, &mounts)));
    findings
}

fn ok(name: &str, found: impl Into<String>) -> Finding {
    Finding::ok(Category::Limits, name, found)
}

/// Reads a table of mounts (proc_pid_mounts(5)): device, place, type, options.
fn mounts(table: &str) -> Mounts {
    let mut mounts = Mounts::default();
    for line in table.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(place), Some(kind), Some(options)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        match kind {
            "cgroup2" if mounts.v2.is_none() => mounts.v2 = Some(place.into()),
            "cgroup" => {
                for option in options.split(',') {
                    mounts.v1.entry(option.to_owned()).or_insert_with(|| place.into());
                }
            }
            _ => {}
        }
    }
    mounts
}

/// The v2 tree kills, freezes and reports emptiness even where it limits nothing.
fn tree(mounts: &Mounts, own: &str) -> Finding {
    let lost =
        "killing a sandbox whole, and birth of processes in their group, which is 40 times as fast as moving";
    let Some(v2) = &mounts.v2 else {
        let finding = ok("cgroup v2", "not mounted").required();
        return finding.without(Status::Degraded, lost, "mount -t cgroup2 none /sys/fs/cgroup/unified");
    };
    let layout = if mounts.v1.is_empty() { "only v2" } else { "hybrid, with v1 beside it" };
    let finding = ok("cgroup v2", format!("{} ({layout})", v2.display())).required();
    // Our own group: a child born there is where it would have been anyway.
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let born = rustix::fs::openat(CWD, v2.join(path), flags, Mode::empty())
        .and_then(|group| can_clone(0, Some(group.as_fd())));
    match born {
        Ok(()) => finding,
        Err(Errno::ACCESS | Errno::PERM) => finding.without(
            Status::Degraded,
            "knowledge of whether processes can be born in a group",
            NOT_ROOT,
        ),
        Err(errno) => ok("cgroup v2", format!("{}, CLONE_INTO_CGROUP: {errno}", v2.display()))
            .required()
            .without(Status::Missing, lost, "boot Linux 5.7 or later"),
    }
}

fn examine_one(needed: &Needed, mounts: &Mounts) -> Finding {
    let (controller, file) = needed.v2;
    if let Some(v2) = &mounts.v2 {
        let available = std::fs::read_to_string(v2.join("cgroup.controllers")).unwrap_or_default();
        // The root group has no limit files; that of swap can be missing in all others.
        if available.split_whitespace().any(|found| found == controller) && below(v2, file) {
            return ok(needed.name, "cgroup v2");
        }
    }
    let (controller, file) = needed.v1;
    if mounts.v1.get(controller).is_some_and(|place| place.join(file).exists() || below(place, file)) {
        return ok(needed.name, "cgroup v1");
    }
    let mend = format!(
        "boot with cgroup_no_v1=all or systemd.unified_cgroup_hierarchy=1; a kernel that has the {controller} \
         controller{}",
        if needed.name == "swap limit" { " and swapaccount=1" } else { "" }
    );
    ok(needed.name, "no controller").without(needed.without, needed.lost, &mend)
}

/// Whether a group directly below the root has the file; without any group, the controller is taken at its word.
fn below(root: &Path, file: &str) -> bool {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let groups: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    (groups.is_empty() && root.is_dir()) || groups.iter().any(|group| may_have(group, file))
}

/// Whether the file is there, or cannot be looked for without being root.
fn may_have(group: &Path, file: &str) -> bool {
    let found = std::fs::symlink_metadata(group.join(file));
    found.is_ok() || std::fs::read_dir(group).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "proc /proc proc rw 0 0\ncgroup /c/cpu cgroup rw,cpu,cpuacct 0 0\n\
                          cgroup /c/memory cgroup rw,memory 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n";

    #[test]
    fn hierarchies_are_found_by_type_and_controller() {
        let found = mounts(HYBRID);
        assert_eq!(found.v2, Some("/c/unified".into()));
        assert_eq!(found.v1.get("cpu"), Some(&"/c/cpu".into()));
        assert_eq!(found.v1.get("memory"), Some(&"/c/memory".into()));
        assert_eq!(found.v1.get("pids"), None);
        assert_eq!(mounts("proc /proc proc rw 0 0\n"), Mounts::default());
    }

    /// A host whose trees hold these files.
    fn findings(files: &[&str], table: &str) -> BTreeMap<String, (Status, String)> {
        let root = tempfile::tempdir().expect("directory");
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("directories");
            std::fs::write(path, "cpu memory pids\n").expect("file");
        }
        let table = table.replace("/c/", &format!("{}/", root.path().display()));
        std::fs::write(root.path().join("mounts"), table).expect("table");
        let findings = examine(root.path()).into_iter();
        findings.map(|finding| (finding.name.clone(), (finding.status, finding.found))).collect()
    }

    #[test]
    fn a_limit_is_where_its_controller_and_its_file_are() {
        let files = [
            "unified/cgroup.controllers",
            "unified/a/memory.max",
            "unified/a/pids.max",
            "unified/a/cpu.weight",
            "cpu/cpu.cfs_quota_us",
        ];
        let found = findings(&files, HYBRID);
        assert_eq!(found["memory limit"], (Status::Ok, "cgroup v2".to_owned()));
        assert_eq!(found["process limit"], (Status::Ok, "cgroup v2".to_owned()));
        assert_eq!(found["cpu limit"], (Status::Ok, "cgroup v1".to_owned()));
        assert_eq!(found["swap limit"].0, Status::Degraded);
        assert_eq!(found["io limit"].0, Status::Degraded);
    }

    #[test]
    fn a_host_without_groups_can_limit_nothing() {
        let found = findings(&[], "");
        assert_eq!(found["cgroup v2"].0, Status::Degraded);
        assert_eq!(found["memory limit"].0, Status::Missing);
        assert_eq!(found["process limit"].0, Status::Missing);
    }
}
