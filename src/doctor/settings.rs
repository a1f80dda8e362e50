//! Switches of the host. None is needed for a sandbox to work, except where said; each takes away what an escape
//! or a neighbour would use.

use std::path::Path;

use super::{Category, Finding, Status};

/// What a number must be.
#[derive(Clone, Copy)]
enum Wanted {
    AtLeast(i64),
    AtMost(i64),
}

impl Wanted {
    fn met(self, value: i64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }

    fn bound(self) -> i64 {
        match self {
            Self::AtLeast(bound) | Self::AtMost(bound) => bound,
        }
    }
}

/// A switch under /proc/sys.
struct Setting {
    /// As sysctl(8) writes it.
    name: &'static str,
    wanted: Wanted,
    /// What a kernel that does not have it behaves like.
    absent: Status,
    lost: &'static str,
}

const fn setting(name: &'static str, wanted: Wanted, absent: Status, lost: &'static str) -> Setting {
    Setting { name, wanted, absent, lost }
}

const SETTINGS: [Setting; 14] = [
    setting(
        "kernel.io_uring_disabled",
        Wanted::AtLeast(2),
        Status::Degraded,
        "io_uring is closed to sandboxes by their filter alone (CVE-2022-29582 and a row of others)",
    ),
    setting(
        "kernel.unprivileged_bpf_disabled",
        Wanted::AtLeast(1),
        Status::Ok,
        "bpf() is closed to sandboxes by their filter alone (CVE-2021-3490)",
    ),
    setting(
        "vm.unprivileged_userfaultfd",
        Wanted::AtMost(0),
        Status::Ok,
        "userfaultfd, which wins races in the kernel, is closed to sandboxes by their filter alone",
    ),
    setting(
        "dev.tty.legacy_tiocsti",
        Wanted::AtMost(0),
        Status::Degraded,
        "typing into the terminal of a caller is prevented by the filter alone (CVE-2017-5226)",
    ),
    setting(
        "kernel.kptr_restrict",
        Wanted::AtLeast(1),
        Status::Ok,
        "kernel addresses, which exploits need, can be read in /proc",
    ),
    setting(
        "kernel.dmesg_restrict",
        Wanted::AtLeast(1),
        Status::Ok,
        "the kernel's log, with addresses in it, is open to users of the host",
    ),
    setting(
        "kernel.perf_event_paranoid",
        Wanted::AtLeast(2),
        Status::Ok,
        "users of the host may measure the kernel; sandboxes are kept from it by their filter alone",
    ),
    setting(
        "fs.protected_symlinks",
        Wanted::AtLeast(1),
        Status::Ok,
        "programs of the host can be led through links in shared directories",
    ),
    setting(
        "fs.protected_hardlinks",
        Wanted::AtLeast(1),
        Status::Ok,
        "users of the host can keep others' files alive by hard links",
    ),
    setting(
        "fs.protected_fifos",
        Wanted::AtLeast(1),
        Status::Ok,
        "programs of the host can be made to write into others' FIFOs in shared directories",
    ),
    setting(
        "fs.protected_regular",
        Wanted::AtLeast(1),
        Status::Ok,
        "programs of the host can be made to write into others' files in shared directories",
    ),
    setting(
        "fs.suid_dumpable",
        Wanted::AtMost(0),
        Status::Ok,
        "memory of privileged programs can end in core files",
    ),
    setting(
        "vm.memfd_noexec",
        Wanted::AtMost(1),
        Status::Ok,
        "our program cannot run from its sealed copy in memory, so no role starts",
    ),
    setting(
        "fs.mount-max",
        Wanted::AtLeast(10_000),
        Status::Ok,
        "mount namespaces with as many mounts as images have layers",
    ),
];

/// Switches without which nothing works.
const REQUIRED: [&str; 1] = ["vm.memfd_noexec"];

/// Kernel modules whose protocols were ways out of sandboxes. Nothing inside can load or reach them; a host that
/// does not use them is better off without.
const ODD_MODULES: [&str; 16] = [
    "algif_aead",
    "algif_hash",
    "algif_rng",
    "algif_skcipher",
    "rxrpc",
    "rds",
    "rds_tcp",
    "sctp",
    "tipc",
    "dccp",
    "vsock",
    "can",
    "ax25",
    "appletalk",
    "espintcp",
    "n_gsm",
];

pub(super) fn examine(root: &Path) -> Vec<Finding> {
    let mut findings: Vec<Finding> = SETTINGS.iter().map(|setting| examine_one(setting, root)).collect();
    findings.push(core_pattern(root));
    findings.push(same_page_merging(root));
    findings.push(mitigations(root));
    findings.push(swap(root));
    findings.push(modules(root));
    findings
}

fn ok(name: &str, found: impl Into<String>) -> Finding {
    Finding::ok(Category::Settings, name, found)
}

fn read(root: &Path, path: &str) -> Option<String> {
    std::fs::read_to_string(root.join(path)).ok().map(|text| text.trim().to_owned())
}

fn examine_one(setting: &Setting, root: &Path) -> Finding {
    let text = read(root, &format!("proc/sys/{}", setting.name.replace('.', "/")));
    let value = text.as_deref().and_then(|text| text.parse().ok());
    let met = value.map_or(setting.absent == Status::Ok, |value| setting.wanted.met(value));
    let mut finding = ok(setting.name, text.as_deref().unwrap_or("not in this kernel"));
    finding.required = REQUIRED.contains(&setting.name);
    if met {
        return finding;
    }
    let status = if finding.required { Status::Missing } else { Status::Degraded };
    let mend = match text {
        Some(_) => format!("sysctl {}={}", setting.name, setting.wanted.bound()),
        None => "boot a newer kernel".to_owned(),
    };
    finding.without(status, setting.lost, &mend)
}

/// A crash inside must not start a program outside (core(5)): the pipe's program runs as root on the host, with
/// the crashed process's names. RLIMIT_CORE of 1 keeps it from running for sandboxes.
fn core_pattern(root: &Path) -> Finding {
    let pattern = read(root, "proc/sys/kernel/core_pattern").unwrap_or_default();
    let limit = read(root, "proc/sys/kernel/core_pipe_limit").and_then(|text| text.parse::<u64>().ok());
    let finding = ok("kernel.core_pattern", if pattern.is_empty() { "empty" } else { &pattern });
    if !pattern.starts_with('|') || limit.unwrap_or(0) > 0 {
        return finding;
    }
    finding.without(
        Status::Degraded,
        "core dumps go to a program of the host without a bound; sandboxes are kept from it by RLIMIT_CORE alone",
        "sysctl kernel.core_pipe_limit=16, or kernel.core_pattern=core",
    )
}

fn same_page_merging(root: &Path) -> Finding {
    let run = read(root, "sys/kernel/mm/ksm/run").unwrap_or_else(|| "not in this kernel".to_owned());
    let finding = ok("same page merging", run.clone());
    if run != "1" {
        return finding;
    }
    finding.without(
        Status::Degraded,
        "timing tells one sandbox which pages another has",
        "echo 2 > /sys/kernel/mm/ksm/run",
    )
}

fn mitigations(root: &Path) -> Finding {
    let folder = root.join("sys/devices/system/cpu/vulnerabilities");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut open: Vec<String> = entries
        .filter(|entry| {
            std::fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with("Vulnerable"))
        })
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    open.sort();
    if open.is_empty() {
        return ok("processor mitigations", "no vulnerability is open");
    }
    ok("processor mitigations", format!("open: {}", open.join(", "))).without(
        Status::Degraded,
        "native code in a sandbox may read memory of other sandboxes and of the host by side channels",
        "install microcode and boot without mitigations=off; keep hostile tenants on separate hosts",
    )
}

fn swap(root: &Path) -> Finding {
    let text = read(root, "proc/swaps").unwrap_or_default();
    let disks: Vec<&str> = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .filter(|device| !device.contains("zram"))
        .collect();
    if disks.is_empty() {
        return ok("swap", "none on a disk");
    }
    ok("swap", disks.join(" ")).without(
        Status::Degraded,
        "memory of sandboxes may be written to a disk and outlive them",
        "swapoff, or an encrypted swap device",
    )
}

fn modules(root: &Path) -> Finding {
    let text = read(root, "proc/modules").unwrap_or_default();
    let loaded: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|module| ODD_MODULES.contains(module))
        .collect();
    if loaded.is_empty() {
        return ok("odd protocols", "none is loaded as a module");
    }
    ok("odd protocols", loaded.join(" ")).without(
        Status::Degraded,
        "protocols that were ways out of sandboxes are kept from them by the filter alone",
        "rmmod them, and `install NAME /bin/false` in /etc/modprobe.d, where the host does not use them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("directories");
            std::fs::write(path, text).expect("file");
        }
        root
    }

    fn status(files: &[(&str, &str)], name: &str) -> Status {
        let root = root(files);
        let findings = examine(root.path());
        findings.iter().find(|finding| finding.name == name).expect("a finding of that name").status
    }

    #[test]
    fn each_setting_is_judged_on_both_sides_of_its_bound() {
        for setting in &SETTINGS {
            let path = format!("proc/sys/{}", setting.name.replace('.', "/"));
            let bound = setting.wanted.bound();
            let beyond = match setting.wanted {
                Wanted::AtLeast(_) => bound - 1,
                Wanted::AtMost(_) => bound + 1,
            };
            assert_eq!(
                status(&[(&path, &format!("{bound}\n"))], setting.name),
                Status::Ok,
                "{}",
                setting.name
            );
            assert_ne!(
                status(&[(&path, &format!("{beyond}\n"))], setting.name),
                Status::Ok,
                "{}",
                setting.name
            );
            assert_eq!(status(&[], setting.name), setting.absent, "{}", setting.name);
        }
    }

    #[test]
    fn a_piped_core_pattern_needs_a_limit() {
        let name = "kernel.core_pattern";
        let (pattern, limit) = ("proc/sys/kernel/core_pattern", "proc/sys/kernel/core_pipe_limit");
        assert_eq!(status(&[(pattern, "core\n")], name), Status::Ok);
        assert_eq!(status(&[(pattern, "|/bin/collect %p\n"), (limit, "0\n")], name), Status::Degraded);
        assert_eq!(status(&[(pattern, "|/bin/collect %p\n"), (limit, "16\n")], name), Status::Ok);
    }

    #[test]
    fn open_vulnerabilities_swap_merging_and_modules_are_named() {
        let folder = "sys/devices/system/cpu/vulnerabilities";
        let open = [
            (&*format!("{folder}/mds"), "Vulnerable: no microcode\n"),
            (&*format!("{folder}/l1tf"), "Not affected\n"),
        ];
        assert_eq!(status(&open, "processor mitigations"), Status::Degraded);
        assert_eq!(status(&open[1..], "processor mitigations"), Status::Ok);
        let swaps = |device: &str| format!("Filename Type Size Used Priority\n{device} partition 1 0 -2\n");
        assert_eq!(status(&[("proc/swaps", &swaps("/dev/sda2"))], "swap"), Status::Degraded);
        assert_eq!(status(&[("proc/swaps", &swaps("/dev/zram0"))], "swap"), Status::Ok);
        assert_eq!(status(&[("sys/kernel/mm/ksm/run", "1\n")], "same page merging"), Status::Degraded);
        assert_eq!(status(&[("sys/kernel/mm/ksm/run", "0\n")], "same page merging"), Status::Ok);
        assert_eq!(status(&[("proc/modules", "sctp 1 0 - Live 0x0\n")], "odd protocols"), Status::Degraded);
        assert_eq!(status(&[("proc/modules", "ext4 1 0 - Live 0x0\n")], "odd protocols"), Status::Ok);
    }
}
