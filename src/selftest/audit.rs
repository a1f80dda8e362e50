//! Our own processes, compared while they run with what they may be.
//!
//! What a role gives up at its start is code that can be changed by mistake; what it has is in /proc. The table is written
//! out here, and not derived from the code that it is about. Landlock is missing from it: the kernel shows nowhere whom
//! it restricts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::attacks::pids;
use super::verdict::Verdict;

/// One property of one process.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its role.
    pub role: &'static str,
    /// Its pid on the host; 0 when there is none.
    pub pid: i32,
    /// What was compared.
    pub property: &'static str,
    /// Whether it is as it must be.
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
}

/// What a role must be.
struct Expected {
    /// As in [`Row`].
    role: &'static str,
    /// Its name for ps.
    name: &'static str,
    /// Whether it is root of the host.
    root: bool,
    /// The sets of capabilities that it may have, one of them exactly (bits of linux/capability.h). None is inheritable or
    /// ambient.
    capabilities: &'static [u64],
    /// Filters: launch's, which all inherit, and its own.
    filters: u64,
    /// Kinds of namespaces that are not the launcher's.
    own: &'static [&'static str],
    /// Descriptors beyond the first three: how their links may begin, or what paths may contain.
    descriptors: &'static [&'static str],
}

/// CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7, SETPCAP 8, SYS_PTRACE 19, SYS_ADMIN 21,
/// MKNOD 27, SETFCAP 31.
const LAUNCH: u64 = 0x8828_01fb;
/// What root of a sandbox may have over it: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID.
const ROOT_OF_SANDBOX: u64 = 0xfb;
/// Kinds of which every sandbox has its own.
const SANDBOX: &[&str] = &["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

const TABLE: [Expected; 9] = [
    Expected {
        role: "launch",
        name: "st-launch",
        root: true,
        capabilities: &[LAUNCH],
        filters: 1,
        own: &[],
        descriptors: &[
            "socket:",
            "anon_inode:[pidfd]",
            "anon_inode:[signalfd]",
            "pipe:",
            "/",
            "mnt:",
            "net:",
            "user:",
        ],
    },
    Expected {
        role: "serve",
        name: "st-serve",
        root: false,
        capabilities: &[0],
        filters: 2,
        own: &[],
        descriptors: &[
            "socket:",
            "anon_inode:[eventfd]",
            "anon_inode:[eventpoll]",
            "anon_inode:[timerfd]",
            "anon_inode:[pidfd]",
            "pipe:",
            "/dev/null",
            "/memfd:",
            "*/journal/",
            "*/images",
            "*/blobs",
            "*/work",
            "*/index",
            "*/journal",
        ],
    },
    Expected {
        role: "gateway",
        name: "st-gateway",
        root: false,
        capabilities: &[0],
        filters: 2,
        own: &[],
        descriptors: &[
            "socket:",
            "anon_inode:[eventfd]",
            "anon_inode:[eventpoll]",
            "pipe:",
            "/dev/null",
            "/dev/urandom",
            "/memfd:",
        ],
    },
    Expected {
        role: "fetch",
        name: "st-fetch",
        root: false,
        capabilities: &[0],
        filters: 2,
        own: &[],
        descriptors: &[
            "socket:",
            "anon_inode:[eventfd]",
            "anon_inode:[eventpoll]",
            "pipe:",
            "*/blobs",
            "*/work",
            "/memfd:",
        ],
    },
    Expected {
        role: "unpack",
        name: "st-unpack",
        root: false,
        capabilities: &[0],
        filters: 2,
        own: &["user"],
        descriptors: &["socket:", "pipe:", "*/blobs", "*/work", "*/layers", "/memfd:", "/dev/urandom"],
    },
    // Alone, but for the device and the sockets that it was given.
    Expected {
        role: "bucket",
        name: "st-bucket",
        root: false,
        capabilities: &[0],
        filters: 2,
        own: &["user", "pid", "net", "ipc", "uts"],
        descriptors: &[
            "socket:",
            "anon_inode:[eventfd]",
            "anon_inode:[eventpoll]",
            "pipe:",
            "/dev/fuse",
            "*/mounts/",
        ],
    },
    Expected {
        role: "agent",
        name: "st-agent",
        root: false,
        capabilities: &[0],
        filters: 2,
        own: SANDBOX,
        descriptors: &[
            "socket:",
            "anon_inode:[signalfd]",
            "anon_inode:[pidfd]",
            "pipe:",
            "*/cgroup",
            "*/ptmx",
        ],
    },
    Expected {
        role: "zygote",
        name: "st-zygote",
        root: false,
        capabilities: &[0],
        filters: 2,
        own: SANDBOX,
        descriptors: &["socket:", "user:["],
    },
    // Our own code with the rights of a command, in the sandbox's tree: what it has open is the sandbox's.
    Expected {
        role: "worker",
        name: "st-worker",
        root: false,
        capabilities: &[0, ROOT_OF_SANDBOX],
        filters: 3,
        own: SANDBOX,
        descriptors: &["socket:", "pipe:", "anon_inode:inotify", "/"],
    },
];

/// Kinds of namespaces (proc_pid_ns(5)).
const KINDS: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

/// Examines the launcher, what it has started, and the processes of one sandbox.
pub fn examine(launch: Option<i32>, agent: Option<i32>) -> Vec<Row> {
    let Some(launch) = launch.filter(|&pid| name(pid) == "st-launch") else {
        let detail = "the socket is not the launcher's own: another process has passed it".to_owned();
        return vec![Row { role: "launch", pid: 0, property: "pid", verdict: Verdict::Skip, detail }];
    };
    if std::fs::read_dir(format!("/proc/{launch}/fd")).is_err() {
        let detail = "only root may look at our processes".to_owned();
        return vec![Row { role: "launch", pid: launch, property: "rights", verdict: Verdict::Skip, detail }];
    }
    let family: Vec<i32> = pids()
        .into_iter()
        .filter(|&pid| pid == launch || [Some(launch), agent].contains(&parent(pid)))
        .collect();
    let mut rows = Vec::new();
    for expected in &TABLE {
        let found: Vec<i32> = family.iter().copied().filter(|&pid| name(pid) == expected.name).collect();
        if found.is_empty() {
            let detail = "none runs now".to_owned();
            rows.push(Row { role: expected.role, pid: 0, property: "pid", verdict: Verdict::Skip, detail });
        }
        for pid in found {
            rows.extend(expected.compare(pid, launch));
        }
    }
    rows
}

fn name(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

fn status(pid: i32) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn parent(pid: i32) -> Option<i32> {
    status(pid).get("PPid")?.parse().ok()
}

impl Expected {
    fn compare(&self, pid: i32, launch: i32) -> Vec<Row> {
        let status = status(pid);
        let field = |name: &str| status.get(name).cloned().unwrap_or_default();
        let mut rows = Vec::new();
        let mut row = |property, right: bool, detail: String| {
            let verdict = if right { Verdict::Pass } else { Verdict::Fail };
            rows.push(Row { role: self.role, pid, property, verdict, detail });
        };
        for (property, name) in [("uids", "Uid"), ("gids", "Gid")] {
            let ids: Vec<String> = field(name).split_whitespace().map(str::to_owned).collect();
            let same = ids.len() == 4 && ids.iter().all(|id| (id == "0") == self.root && *id == ids[0]);
            row(property, same, ids.join(" "));
        }
        row("groups", field("Groups").is_empty(), field("Groups"));
        for (property, name, allowed) in [
            ("effective capabilities", "CapEff", self.capabilities),
            ("permitted capabilities", "CapPrm", self.capabilities),
            ("bounding capabilities", "CapBnd", self.capabilities),
            ("inheritable capabilities", "CapInh", &[0][..]),
            ("ambient capabilities", "CapAmb", &[0][..]),
        ] {
            let right = u64::from_str_radix(&field(name), 16).is_ok_and(|set| allowed.contains(&set));
            row(property, right, format!("{}, must be one of {allowed:x?}", field(name)));
        }
        row("no_new_privs", field("NoNewPrivs") == "1", field("NoNewPrivs"));
        row("seccomp", field("Seccomp") == "2", format!("mode {}", field("Seccomp")));
        let filters = field("Seccomp_filters");
        let enough = filters.parse() == Ok(self.filters);
        row("filters", enough, format!("{filters}, must be {}", self.filters));
        let program =
            std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default().display().to_string();
        row("program", program.starts_with("/memfd:"), program);
        let environment = std::fs::read(format!("/proc/{pid}/environ")).map_or(usize::MAX, |text| text.len());
        row("environment", environment == 0, format!("{environment} bytes"));
        let wrong = self.wrong_namespaces(pid, launch);
        row(
            "namespaces",
            wrong.is_empty(),
            if wrong.is_empty() { "as they must be".to_owned() } else { wrong },
        );
        let (count, wrong) = self.wrong_descriptors(pid);
        let said = if wrong.is_empty() { format!("{count}, all of known kinds") } else { wrong.join(", ") };
        row("descriptors", wrong.is_empty() && count > 0, said);
        rows
    }

    /// Namespaces that are shared and must not be, or the other way round. The launcher is compared with this process:
    /// it has mounts of its own, which no other process of the host sees.
    fn wrong_namespaces(&self, pid: i32, launch: i32) -> String {
        let link = |pid: &str, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let (other, own): (String, &[&str]) =
            if pid == launch { ("self".to_owned(), &["mnt"]) } else { (launch.to_string(), self.own) };
        let wrong = KINDS.iter().filter(|kind| {
            let found = link(&pid.to_string(), kind);
            found.is_none() || (found != link(&other, kind)) != own.contains(kind)
        });
        wrong.map(|kind| format!("{kind} of {other}")).collect::<Vec<_>>().join(", ")
    }

    /// How many descriptors it has, and the links of those that it may not have.
    fn wrong_descriptors(&self, pid: i32) -> (usize, Vec<String>) {
        let (mut count, mut wrong) = (0, Vec::new());
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            // The first three come from whoever started the daemon.
            let standard = matches!(entry.file_name().to_str(), Some("0" | "1" | "2"));
            let Ok(link) = std::fs::read_link(entry.path()) else { continue };
            let link = link.display().to_string();
            count += 1;
            let known = self.descriptors.iter().any(|kind| match kind.strip_prefix('*') {
                Some(part) => link.contains(part),
                // Whoever may have any path has no device by that.
                None if *kind == "/" => {
                    link.starts_with('/') && (link == "/dev/null" || !link.starts_with("/dev/"))
                }
                None => link.starts_with(kind),
            });
            if !standard && !known {
                wrong.push(format!("{} is {link}", entry.file_name().display()));
            }
        }
        (count, wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_process_is_none_of_ours() {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        for expected in &TABLE {
            let rows = expected.compare(own, own);
            let failed =
                |property| rows.iter().any(|row| row.property == property && row.verdict == Verdict::Fail);
            assert!(failed("seccomp") && failed("program") && failed("environment"), "{rows:?}");
        }
        assert!(examine(Some(own), None).iter().all(|row| row.verdict == Verdict::Skip));
    }
}
