//! Ids that nobody else uses, the privilege to use them, and room in the kernel's tables.

use std::path::Path;

use rustix::process::Resource;
use rustix::thread::CapabilitySet;

use super::{Category, Finding, Options, Status};
use crate::limits::SANDBOXES_MAX;
use crate::runtime::ids::Ids;

/// What launch cannot do without. A service unit that bounds capabilities must leave these.
const NEEDED: [(CapabilitySet, &str); 12] = [
    (CapabilitySet::SYS_ADMIN, "SYS_ADMIN"),
    (CapabilitySet::SETUID, "SETUID"),
    (CapabilitySet::SETGID, "SETGID"),
    (CapabilitySet::SETPCAP, "SETPCAP"),
    (CapabilitySet::SETFCAP, "SETFCAP"),
    (CapabilitySet::CHOWN, "CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "FOWNER"),
    (CapabilitySet::FSETID, "FSETID"),
    (CapabilitySet::MKNOD, "MKNOD"),
    (CapabilitySet::KILL, "KILL"),
    (CapabilitySet::SYS_PTRACE, "SYS_PTRACE"),
];

/// Namespaces of one kind that a sandbox takes: the user namespaces are two.
const NAMESPACES_PER_SANDBOX: u64 = 2;

/// Descriptors that launch and serve hold for a sandbox, rounded up.
const DESCRIPTORS_PER_SANDBOX: u64 = 16;

/// Fewer sandboxes than this at a time are too few for a host.
const SANDBOXES_WANTED: u64 = 256;

/// Processes that so many sandboxes at work have.
const PIDS_WANTED: u64 = 65_536;

pub(super) fn examine(options: &Options) -> Vec<Finding> {
    let mut findings = vec![privilege(), ids(options.ids_first, Path::new("/etc"))];
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let path = format!("/proc/sys/user/max_{kind}_namespaces");
        findings.push(namespaces(kind, std::fs::read_to_string(path).ok().as_deref()));
    }
    findings.push(descriptors(rustix::process::getrlimit(Resource::Nofile).maximum));
    let pids = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap_or_default();
    findings.push(processes(pids.trim().parse().unwrap_or(0)));
    findings.push(runtime_directory(&super::existing(&options.runtime_dir)));
    findings
}

fn ok(name: impl Into<String>, found: impl Into<String>) -> Finding {
    Finding::ok(Category::Host, name, found)
}

fn privilege() -> Finding {
    privilege_of(rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective))
}

fn privilege_of(held: CapabilitySet) -> Finding {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(one, _)| !held.contains(*one)).map(|(_, name)| *name).collect();
    let mend = "run stockade as root; widen CapabilityBoundingSet in its unit";
    let name = "capabilities";
    if !missing.is_empty() {
        let lost = "sandboxes: launch makes namespaces, maps, mounts and groups by these";
        return ok(name, format!("without {}", missing.join(" "))).required().without(
            Status::Missing,
            lost,
            mend,
        );
    }
    if held.contains(CapabilitySet::SYS_RESOURCE) {
        return ok(name, "all that launch uses").required();
    }
    let lost = "raising of limits above those we were started with";
    ok(name, "without SYS_RESOURCE").required().without(Status::Degraded, lost, mend)
}

/// Whether our range of ids is nobody else's: a process that escaped must own nothing.
fn ids(first: u32, etc: &Path) -> Finding {
    let name = "host ids";
    let mend =
        "set ids_first to the start of a free range (see /etc/subuid, /etc/subgid, /etc/passwd, /etc/group)";
    let Some(_) = Ids::starting_at(first) else {
        let found = format!("{first} is no start for {} ids", Ids::COUNT);
        return ok(name, found).required().without(Status::Missing, "ids for sandboxes", mend);
    };
    let ours = u64::from(first)..u64::from(first) + u64::from(Ids::COUNT);
    let read = |file: &str| std::fs::read_to_string(etc.join(file)).unwrap_or_default();
    let mut taken = Vec::new();
    for file in ["subuid", "subgid"] {
        taken.extend(ranges(&read(file), &ours).into_iter().map(|owner| format!("{owner} in /etc/{file}")));
    }
    for file in ["passwd", "group"] {
        taken.extend(entries(&read(file), &ours).into_iter().map(|owner| format!("{owner} in /etc/{file}")));
    }
    let range = format!("{} to {}", ours.start, ours.end - 1);
    if taken.is_empty() {
        return ok(name, format!("{range}, used by nobody else")).required();
    }
    let lost = "distinct ids: a sandbox's processes would be somebody of this host";
    ok(name, format!("{range}, shared with {}", taken.join(", "))).required().without(
        Status::Missing,
        lost,
        mend,
    )
}

/// Owners of ranges (`name:start:count`, subuid(5)) that overlap ours. Our own reservation is no overlap.
fn ranges(table: &str, ours: &std::ops::Range<u64>) -> Vec<String> {
    let overlapping = |line: &str| {
        let mut fields = line.split(':');
        let (name, start, count) = (fields.next()?, fields.next()?, fields.next()?);
        let (start, count): (u64, u64) = (start.trim().parse().ok()?, count.trim().parse().ok()?);
        let overlaps = start < ours.end && ours.start < start.saturating_add(count);
        (overlaps && name != "stockade").then(|| name.to_owned())
    };
    table.lines().filter_map(overlapping).collect()
}

/// Names whose id (third field, passwd(5), group(5)) is in our range.
fn entries(table: &str, ours: &std::ops::Range<u64>) -> Vec<String> {
    let inside = |line: &str| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        ours.contains(&id.parse().ok()?).then(|| name.to_owned())
    };
    table.lines().filter_map(inside).collect()
}

fn namespaces(kind: &str, text: Option<&str>) -> Finding {
    let name = format!("number of {kind} namespaces");
    let count: u64 = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let sandboxes = count / NAMESPACES_PER_SANDBOX;
    let mend = format!(
        "sysctl user.max_{kind}_namespaces={}",
        u64::from(SANDBOXES_MAX).saturating_mul(NAMESPACES_PER_SANDBOX)
    );
    let finding = ok(name, format!("at most {count}")).required();
    match sandboxes {
        0 => finding.without(Status::Missing, "sandboxes", &mend),
        SANDBOXES_WANTED.. => finding,
        _ => finding.without(Status::Degraded, &format!("more than {sandboxes} sandboxes at a time"), &mend),
    }
}

/// `None` is no limit.
fn descriptors(maximum: Option<u64>) -> Finding {
    let sandboxes = maximum.map_or(u64::MAX, |maximum| maximum / DESCRIPTORS_PER_SANDBOX);
    let found = maximum.map_or_else(|| "no limit".to_owned(), |maximum| format!("at most {maximum}"));
    if sandboxes >= SANDBOXES_WANTED {
        return ok("open files", found);
    }
    let lost = format!("more than {sandboxes} sandboxes at a time");
    ok("open files", found).without(
        Status::Degraded,
        &lost,
        "LimitNOFILE=262144 in the unit, or ulimit -Hn 262144",
    )
}

fn processes(maximum: u64) -> Finding {
    let finding = ok("process ids", format!("at most {maximum}"));
    if maximum >= PIDS_WANTED {
        return finding;
    }
    finding.without(Status::Degraded, "processes for many sandboxes at work", "sysctl kernel.pid_max=4194304")
}

/// Sockets and records are written on every creation: memory is the place for them.
fn runtime_directory(place: &Path) -> Finding {
    /// `TMPFS_MAGIC` (linux/magic.h).
    const TMPFS: i64 = 0x0102_1994;
    let in_memory = rustix::fs::statfs(place).is_ok_and(|found| found.f_type == TMPFS);
    if in_memory {
        return ok("runtime directory", format!("{} is in memory", place.display()));
    }
    ok("runtime directory", format!("{} is on a disk", place.display())).without(
        Status::Degraded,
        "some speed of creation and destruction",
        "set runtime_dir to a place on tmpfs, as /run is on most hosts",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systemd_unit_leaves_what_is_needed_and_nothing_more() {
        let unit = include_str!("../../dist/stockade.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
        let left: std::collections::BTreeSet<_> = line.expect("a bounding set").split(' ').collect();
        let needed = NEEDED.iter().map(|(_, name)| format!("CAP_{name}")).collect::<Vec<_>>();
        assert_eq!(left, needed.iter().map(String::as_str).collect());
        let all = NEEDED.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
        assert_eq!(all, crate::runtime::launch::needed());
    }

    const FIRST: u32 = 1 << 29;

    fn with(file: &str, line: &str) -> Status {
        let etc = tempfile::tempdir().expect("directory");
        std::fs::write(etc.path().join(file), line).expect("file");
        ids(FIRST, etc.path()).status
    }

    #[test]
    fn ids_of_others_are_found_wherever_they_are_written() {
        let last = FIRST + Ids::COUNT - 1;
        assert_eq!(with("subuid", "alice:100000:65536\n"), Status::Ok);
        assert_eq!(with("subuid", &format!("alice:{last}:1\n")), Status::Missing);
        assert_eq!(with("subuid", &format!("alice:{}:65536\n", last + 1)), Status::Ok);
        assert_eq!(with("subuid", &format!("alice:{}:2\n", FIRST - 1)), Status::Missing);
        assert_eq!(with("subgid", "alice:100000:4000000000\n"), Status::Missing);
        assert_eq!(with("subgid", &format!("stockade:{FIRST}:65536\n")), Status::Ok);
        assert_eq!(with("passwd", &format!("bob:x:{FIRST}:100::/:/bin/sh\n")), Status::Missing);
        assert_eq!(with("passwd", &format!("bob:x:1000:{FIRST}::/:/bin/sh\n")), Status::Ok);
        assert_eq!(with("group", &format!("staff:x:{last}:\n")), Status::Missing);
    }

    #[test]
    fn capabilities_are_needed_all_but_one() {
        assert_eq!(privilege_of(CapabilitySet::all()).status, Status::Ok);
        assert_eq!(privilege_of(CapabilitySet::all() - CapabilitySet::SYS_RESOURCE).status, Status::Degraded);
        assert_eq!(privilege_of(CapabilitySet::all() - CapabilitySet::SYS_ADMIN).status, Status::Missing);
        assert_eq!(privilege_of(CapabilitySet::empty()).status, Status::Missing);
    }

    #[test]
    fn a_range_that_does_not_fit_is_refused() {
        assert_eq!(ids(0, Path::new("/nowhere")).status, Status::Missing);
        assert_eq!(ids(u32::MAX - 5, Path::new("/nowhere")).status, Status::Missing);
    }

    #[test]
    fn few_namespaces_or_descriptors_mean_few_sandboxes() {
        assert_eq!(namespaces("net", Some("0\n")).status, Status::Missing);
        assert_eq!(namespaces("net", None).status, Status::Missing);
        assert_eq!(namespaces("net", Some("100\n")).status, Status::Degraded);
        assert_eq!(namespaces("net", Some("62934\n")).status, Status::Ok);
        assert_eq!(descriptors(Some(1024)).status, Status::Degraded);
        assert_eq!(descriptors(Some(524_288)).status, Status::Ok);
        assert_eq!(descriptors(None).status, Status::Ok);
    }

    #[test]
    fn a_runtime_directory_on_tmpfs_is_told_from_one_on_a_disk() {
        assert_eq!(runtime_directory(Path::new("/proc")).status, Status::Degraded);
        assert_eq!(runtime_directory(Path::new("/dev/shm")).status, Status::Ok);
    }
}
