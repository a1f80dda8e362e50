//! Limits, killing and accounting by control groups.
//!
//! ```text
//! v2  /stockade/<id>            limits, if the controllers are here; the agent and its zygote; root of the
//!         │                     sandbox's cgroup namespace; owned by the agent's id for mkdir
//!         └── c<number>         one command and all that it started: kill, freeze, "empty" event
//! v1  <our own group>/stockade/<id>   one per controller that sits on v1 and has a limit
//! ```
//!
//! A v2 tree exists on every host: where no controller is on it (hybrid hosts), and even where it is not mounted,
//! it still kills, freezes and tells when a group is empty. Limits go to wherever the controller is.
//!
//! A process enters its v2 group by being cloned into it, and its v1 groups by writing `0` to `tasks` itself:
//! writing a pid to `cgroup.procs` waits for an RCU grace period, 8 ms (measured).
//!
//! Why not the cgroups-rs crate: it has no descriptors to clone into, no delegation, and needs a D-Bus client.

mod change;
mod usage;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use crate::sys::{Errno, path};
use crate::wire::launch::{Limit, Resources};

/// Controllers that limits need, by their v2 names; the v1 name of `io` is `blkio`.
const CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "io"];

/// The host's control groups, as far as we use them.
#[derive(Debug)]
pub struct Cgroups {
    /// Our group in the v2 tree.
    v2: OwnedFd,
    /// Controllers that are enabled in it for our sandboxes.
    v2_controllers: Vec<&'static str>,
    /// Our group in each v1 hierarchy that has a controller we need.
    v1: Vec<(&'static str, OwnedFd)>,
}

/// A sandbox's group, whose commands can be frozen.
#[derive(Debug)]
pub struct Freezer(OwnedFd);

/// Between two looks at whether everything stands still.
const FREEZING: std::time::Duration = std::time::Duration::from_micros(200);

impl Freezer {
    /// Freezes every command, or lets it go on. Gives the groups of those that were there.
    fn set(&self, frozen: bool) -> Result<Vec<String>, CgroupError> {
        let value = if frozen { "1" } else { "0" };
        let commands = subdirectories(self.0.as_fd());
        for command in &commands {
            let written = write(self.0.as_fd(), &format!("{command}/cgroup.freeze"), value);
            // One that has ended in the meantime needs neither.
            if written.is_err() && open_below(self.0.as_fd(), command).is_ok() {
                written?;
            }
        }
        Ok(commands)
    }

    /// Freezes every command, and waits until all stand still, those too that began meanwhile.
    ///
    /// # Errors
    /// When a group cannot be written, and `TIMEDOUT`.
    pub fn freeze_within(&self, time: std::time::Duration) -> Result<(), Errno> {
        let begun = std::time::Instant::now();
        loop {
            let commands = self.set(true).map_err(|_| Errno::IO)?;
            let still = |command: &String| match read(self.0.as_fd(), &format!("{command}/cgroup.events")) {
                Ok(text) => text.lines().any(|line| line == "frozen 1"),
                Err(_) => open_below(self.0.as_fd(), command).is_err(),
            };
            if commands.iter().all(still) {
                return Ok(());
            }
            if begun.elapsed() > time {
                return Err(Errno::TIMEDOUT);
            }
            std::thread::sleep(FREEZING);
        }
    }

    /// Lets every command go on.
    ///
    /// # Errors
    /// When a group cannot be written.
    pub fn thaw(&self) -> Result<(), Errno> {
        self.set(false).map(|_| ()).map_err(|_| Errno::IO)
    }
}

impl AsFd for Freezer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why the control groups cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The operation and what the kernel said.
    #[error("{operation} {path}")]
    Files {
        /// Open, make, write, read.
        operation: &'static str,
        /// Relative to the group.
        path: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// No controller for a limit that was asked for.
    #[error("no controller on this host enforces {limit}")]
    Unsupported {
        /// The limit's name in the API.
        limit: &'static str,
    },
}

fn failed(operation: &'static str, path: &str) -> impl FnOnce(Errno) -> CgroupError {
    let path = path.to_owned();
    move |errno| CgroupError::Files { operation, path, source: errno.into() }
}

/// One controller's share of a sandbox's limits.
struct Setting {
    limit: &'static str,
    controller: &'static str,
    value: Option<u64>,
    v2: (&'static str, String),
    v1: (&'static str, String),
    /// What is written, in v2 and v1, for no limit.
    lifted: (String, String),
}

impl Setting {
    /// File and text of the version that enforces it.
    fn written(&self, by: &str) -> (&'static str, &str) {
        let ((file, text), lifted) =
            if by == V2 { (&self.v2, &self.lifted.0) } else { (&self.v1, &self.lifted.1) };
        (file, if self.value.is_some() { text } else { lifted })
    }
}

/// The names of the two versions in the API.
const V2: &str = "cgroup-v2";
const V1: &str = "cgroup-v1";

/// Microseconds over which processor time is counted, the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

fn settings(resources: &Resources, device: &str) -> Vec<Setting> {
    let plain = |limit, controller, value: Option<u64>, v2, v1| Setting {
        limit,
        controller,
        value,
        v2: (v2, value.unwrap_or(0).to_string()),
        v1: (v1, value.unwrap_or(0).to_string()),
        lifted: ("max".to_owned(), if controller == "memory" { "-1" } else { "max" }.to_owned()),
    };
    let throttle = |limit, value: Option<u64>, key: &str, v1| Setting {
        limit,
        controller: "io",
        value,
        v2: ("io.max", format!("{device} {key}={}", value.unwrap_or(0))),
        v1: (v1, format!("{device} {}", value.unwrap_or(0))),
        lifted: (format!("{device} {key}=max"), format!("{device} 0")),
    };
    let quota = resources.cpu_millis.map(|millis| millis.saturating_mul(CPU_PERIOD_US) / 1000);
    let weight = resources.cpu_weight.unwrap_or(100);
    // The kernel's own conversion between the two scales (kernel/cgroup documentation, cpu.weight).
    let shares = weight.saturating_mul(1024) / 100;
    let swap = resources.swap_bytes;
    let memory_and_swap = swap.map(|swap| swap.saturating_add(resources.memory_bytes.unwrap_or(0)));
    vec![
        plain("memory_bytes", "memory", resources.memory_bytes, "memory.max", "memory.limit_in_bytes"),
        Setting {
            v1: ("memory.memsw.limit_in_bytes", memory_and_swap.unwrap_or(0).to_string()),
            ..plain("swap_bytes", "memory", swap, "memory.swap.max", "")
        },
        plain("pids", "pids", resources.pids, "pids.max", "pids.max"),
        Setting {
            limit: "cpu_millis",
            controller: "cpu",
            value: resources.cpu_millis,
            v2: ("cpu.max", format!("{} {CPU_PERIOD_US}", quota.unwrap_or(0))),
            v1: ("cpu.cfs_quota_us", quota.unwrap_or(0).to_string()),
            lifted: (format!("max {CPU_PERIOD_US}"), "-1".to_owned()),
        },
        Setting {
            v1: ("cpu.shares", shares.max(2).to_string()),
            lifted: ("100".to_owned(), "1024".to_owned()),
            ..plain("cpu_weight", "cpu", resources.cpu_weight, "cpu.weight", "")
        },
        throttle(
            "io_read_bytes_per_second",
            resources.io_read_bytes_per_second,
            "rbps",
            "blkio.throttle.read_bps_device",
        ),
        throttle(
            "io_write_bytes_per_second",
            resources.io_write_bytes_per_second,
            "wbps",
            "blkio.throttle.write_bps_device",
        ),
        throttle(
            "io_read_operations_per_second",
            resources.io_read_operations_per_second,
            "riops",
            "blkio.throttle.read_iops_device",
        ),
        throttle(
            "io_write_operations_per_second",
            resources.io_write_operations_per_second,
            "wiops",
            "blkio.throttle.write_iops_device",
        ),
    ]
}

/// The groups of one sandbox.
#[derive(Debug)]
pub struct Group {
    /// Its v2 group, to clone the agent into. Where v2 is mounted with `nsdelegate`, as systemd does, nothing
    /// passes from one group to another that is not below the root of its cgroup namespace: a leaf beside those of
    /// the commands would be the wrong root. A group may hold processes and leaves as long as it hands no
    /// controller down to them, and ours never does.
    pub v2: OwnedFd,
    /// `tasks` of each v1 group: the agent writes `0` to each before it does anything else.
    pub tasks: Vec<OwnedFd>,
    /// The limits as the kernel has them.
    pub limits: BTreeMap<String, Limit>,
}

impl Cgroups {
    /// Finds the host's hierarchies and makes our group in each. `name` tells daemons of one host apart;
    /// `scratch` is a directory on which the v2 tree is mounted if the host has it nowhere.
    ///
    /// # Errors
    /// When there is no v2 tree at all, or a group cannot be made.
    pub fn open(name: &str, scratch: &Path) -> Result<Self, CgroupError> {
        let mounts = Mounts::read();
        let root = match &mounts.v2 {
            Some(path) => open_directory(path)?,
            None => mount_v2(scratch)?,
        };
        let available = read(root.as_fd(), "cgroup.controllers").unwrap_or_default();
        let wanted: Vec<_> = CONTROLLERS
            .into_iter()
            .filter(|controller| available.split_whitespace().any(|found| found == *controller))
            .collect();
        let v2 = make(root.as_fd(), name)?;
        let mut v2_controllers = Vec::new();
        for controller in wanted {
            let enable = format!("+{controller}");
            // A group that cannot pass a controller on leaves the limit unenforced, which is reported.
            if write(root.as_fd(), "cgroup.subtree_control", &enable).is_ok()
                && write(v2.as_fd(), "cgroup.subtree_control", &enable).is_ok()
            {
                v2_controllers.push(controller);
            }
        }
        let mut v1 = Vec::new();
        for controller in CONTROLLERS {
            if let Some(path) = mounts.v1.get(controller) {
                let own = open_directory(path)?;
                v1.push((controller, make(own.as_fd(), name)?));
            }
        }
        Ok(Self { v2, v2_controllers, v1 })
    }

    /// What enforces a limit here, by the limit's name in the API.
    pub fn enforcers(&self) -> BTreeMap<String, String> {
        settings(&Resources::default(), "")
            .into_iter()
            .filter_map(|setting| {
                let by = self.enforcer(&setting)?;
                Some((setting.limit.to_owned(), by.to_owned()))
            })
            .collect()
    }

    fn enforcer(&self, setting: &Setting) -> Option<&'static str> {
        if self.v2_controllers.contains(&setting.controller) {
            return Some(V2);
        }
        let (_, parent) = self.v1.iter().find(|(controller, _)| *controller == setting.controller)?;
        // Swap accounting and bandwidth control can be compiled out or disabled one by one.
        let present =
            rustix::fs::accessat(parent.as_fd(), setting.v1.0, rustix::fs::Access::EXISTS, AtFlags::empty());
        present.is_ok().then_some(V1)
    }

    /// Makes the groups of a sandbox and writes its limits. `device` is `major:minor` under its files.
    ///
    /// # Errors
    /// When a limit has no controller, or the kernel refuses a value. What was made is removed again.
    pub fn create(
        &self,
        id: &str,
        owner: u32,
        resources: &Resources,
        device: &str,
    ) -> Result<Group, CgroupError> {
        let made = self.try_create(id, owner, resources, device);
        if made.is_err() {
            self.remove(id);
        }
        made
    }

    fn try_create(
        &self,
        id: &str,
        owner: u32,
        resources: &Resources,
        device: &str,
    ) -> Result<Group, CgroupError> {
        let v2 = make(self.v2.as_fd(), id)?;
        let mut used: BTreeMap<&str, OwnedFd> = BTreeMap::new();
        let mut limits = BTreeMap::new();
        for setting in settings(resources, device) {
            let Some(value) = setting.value else { continue };
            let enforced_by =
                self.enforcer(&setting).ok_or(CgroupError::Unsupported { limit: setting.limit })?;
            let (file, text) = setting.written(enforced_by);
            let group = if enforced_by == V2 {
                v2.as_fd()
            } else {
                if !used.contains_key(setting.controller) {
                    used.insert(setting.controller, self.make_v1(setting.controller, id)?);
                }
                used[setting.controller].as_fd()
            };
            write(group, file, text)?;
            let value = self.read_back(group, file, &setting, value)?;
            limits.insert(setting.limit.to_owned(), Limit { value, enforced_by: enforced_by.to_owned() });
        }
        // The agent makes a leaf for each command and clones into it: it must own the directory, and the
        // `cgroup.procs` of the nearest common ancestor (cgroup v2 documentation, "Delegation Containment").
        // The files with limits stay root's.
        for file in ["", "cgroup.procs", "cgroup.kill"] {
            give(v2.as_fd(), file, owner)?;
        }
        // The group is mounted in the sandbox, for the agent; commands have no business in it.
        rustix::fs::fchmod(&v2, Mode::from_raw_mode(0o700)).map_err(failed("close", id))?;
        let mut tasks = Vec::new();
        for group in used.values() {
            tasks.push(open_file(group.as_fd(), "tasks", OFlags::WRONLY)?);
        }
        Ok(Group { v2, tasks, limits })
    }

    fn make_v1(&self, controller: &str, id: &str) -> Result<OwnedFd, CgroupError> {
        let (_, parent) = self
            .v1
            .iter()
            .find(|(found, _)| *found == controller)
            .ok_or(CgroupError::Unsupported { limit: "v1 controller" })?;
        make(parent.as_fd(), id)
    }

    /// What the kernel made of a value, which it rounds to pages; a wholly different one is an error.
    fn read_back(
        &self,
        group: BorrowedFd<'_>,
        file: &str,
        setting: &Setting,
        asked: u64,
    ) -> Result<Option<u64>, CgroupError> {
        /// The largest page size of the architectures we build for.
        const ROUNDING: u64 = 65_536;
        let text = read(group, file)?;
        if matches!(setting.controller, "memory" | "pids") {
            let got: Option<u64> = text.trim().parse().ok();
            let expected = match file {
                "memory.memsw.limit_in_bytes" => setting.v1.1.parse().unwrap_or(asked),
                _ => asked,
            };
            return match got {
                Some(got) if got <= expected && expected - got < ROUNDING => Ok(Some(asked.min(got))),
                _ => Err(CgroupError::Unsupported { limit: setting.limit }),
            };
        }
        // Compound files: the written text must be in there.
        let written = if file == setting.v2.0 { &setting.v2.1 } else { &setting.v1.1 };
        let last = written.split_whitespace().last().unwrap_or_default();
        let first = written.split_whitespace().next().unwrap_or_default();
        if text.contains(first) && text.contains(last) {
            Ok(Some(asked))
        } else {
            Err(CgroupError::Unsupported { limit: setting.limit })
        }
    }

    /// Kills everything in a sandbox's v2 group, whatever it forked.
    pub fn kill(&self, id: &str) {
        if let Ok(group) = open_below(self.v2.as_fd(), id) {
            // A group that is gone has nothing to kill.
            let _ = write(group.as_fd(), "cgroup.kill", "1");
        }
    }

    /// Freezes every command of a sandbox, or lets it go on. Not its agent, which answers for it in the meantime. When
    /// this returns the kernel has them so, or is at it: what is in the kernel stops when it leaves it.
    ///
    /// # Errors
    /// When a group cannot be written.
    pub fn freeze(&self, id: &str, frozen: bool) -> Result<(), CgroupError> {
        self.freezer(id)?.set(frozen).map(|_| ())
    }

    /// What freezes a sandbox's commands, for a process that has nothing else of these groups.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn freezer(&self, id: &str) -> Result<Freezer, CgroupError> {
        open_below(self.v2.as_fd(), id).map(Freezer)
    }

    /// Whether a command of a sandbox is frozen, or is to be.
    pub fn is_frozen(&self, id: &str) -> bool {
        let Ok(group) = open_below(self.v2.as_fd(), id) else { return false };
        let frozen = |command: &String| {
            read(group.as_fd(), &format!("{command}/cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
        };
        subdirectories(group.as_fd()).iter().any(frozen)
    }

    /// A file of a sandbox's group, and what is to be written to it for its memory to be taken back: v2
    /// `memory.reclaim` (Linux 5.19), v1 `memory.force_empty`. `None` where no group of its own counts memory.
    pub fn reclaimer(&self, id: &str) -> Option<(OwnedFd, String)> {
        if self.v2_controllers.contains(&"memory") {
            let group = open_below(self.v2.as_fd(), id).ok()?;
            let all = read(group.as_fd(), "memory.current").ok()?;
            return Some((open_file(group.as_fd(), "memory.reclaim", OFlags::WRONLY).ok()?, all));
        }
        let (_, parent) = self.v1.iter().find(|(controller, _)| *controller == "memory")?;
        let group = open_below(parent.as_fd(), id).ok()?;
        Some((open_file(group.as_fd(), "memory.force_empty", OFlags::WRONLY).ok()?, "0".to_owned()))
    }

    /// How many processes of a sandbox were killed because its memory was used up (cgroup v2 `memory.events`; v1
    /// `memory.oom_control`, since Linux 4.13). `None` where no group of its own counts memory.
    pub fn oom_kills(&self, id: &str) -> Option<u64> {
        let (parent, file) = if self.v2_controllers.contains(&"memory") {
            (&self.v2, "memory.events")
        } else {
            let (_, parent) = self.v1.iter().find(|(controller, _)| *controller == "memory")?;
            (parent, "memory.oom_control")
        };
        let group = open_below(parent.as_fd(), id).ok()?;
        let text = read(group.as_fd(), file).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }

    /// Removes a sandbox's groups. False when something is still in one.
    pub fn remove(&self, id: &str) -> bool {
        let mut gone = remove_tree(self.v2.as_fd(), id);
        for (_, parent) in &self.v1 {
            gone &= remove_tree(parent.as_fd(), id);
        }
        gone
    }

    /// Names of the sandboxes' groups that exist, in any hierarchy.
    pub fn list(&self) -> Vec<String> {
        let mut names = Vec::new();
        for parent in std::iter::once(&self.v2).chain(self.v1.iter().map(|(_, fd)| fd)) {
            names.extend(subdirectories(parent.as_fd()));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Removes our own groups, which must be empty: for a daemon that ends and leaves nothing running.
    pub fn remove_own(&self, name: &str) {
        let mounts = Mounts::read();
        for path in mounts.v2.iter().chain(mounts.v1.values()) {
            // Groups with sandboxes in them stay, as they must.
            let _ = std::fs::remove_dir(path.join(name));
        }
    }
}

/// Where the hierarchies are mounted, and our own group in each v1 one.
struct Mounts {
    v2: Option<PathBuf>,
    v1: BTreeMap<&'static str, PathBuf>,
}

impl Mounts {
    fn read() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::parse(&mounts, &own)
    }

    /// Parses proc_pid_mountinfo(5) and proc_pid_cgroup(5).
    fn parse(mounts: &str, own: &str) -> Self {
        let mut found = Self { v2: None, v1: BTreeMap::new() };
        for line in mounts.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount_point) = left.split(' ').nth(4) else { continue };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) => {
                    found.v2.get_or_insert_with(|| mount_point.into());
                }
                (Some("cgroup"), Some(options)) => {
                    for controller in CONTROLLERS {
                        let name = if controller == "io" { "blkio" } else { controller };
                        if options.split(',').any(|option| option == name) {
                            let group = own_group(own, name);
                            let path = Path::new(mount_point).join(group.trim_start_matches('/'));
                            found.v1.entry(controller).or_insert(path);
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }
}

fn own_group<'a>(own: &'a str, controller: &str) -> &'a str {
    own.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let controllers = fields.nth(1)?;
            controllers.split(',').any(|name| name == controller).then(|| fields.next()).flatten()
        })
        .next()
        .unwrap_or("/")
}

fn mount_v2(scratch: &Path) -> Result<OwnedFd, CgroupError> {
    let name = scratch.display().to_string();
    std::fs::create_dir_all(scratch).map_err(|source| CgroupError::Files {
        operation: "make",
        path: name.clone(),
        source,
    })?;
    rustix::mount::mount("cgroup2", scratch, "cgroup2", rustix::mount::MountFlags::empty(), None)
        .map_err(failed("mount cgroup2 on", &name))?;
    open_directory(scratch)
}

fn open_directory(path: &Path) -> Result<OwnedFd, CgroupError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open", &path.display().to_string()))
}

fn open_below(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, CgroupError> {
    path::open_beneath(parent, name, OFlags::RDONLY | OFlags::DIRECTORY).map_err(failed("open", name))
}

/// Makes a group if it is missing, and opens it.
fn make(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, CgroupError> {
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open_below(parent, name),
        Err(errno) => Err(failed("make", name)(errno)),
    }
}

fn open_file(group: BorrowedFd<'_>, file: &str, flags: OFlags) -> Result<OwnedFd, CgroupError> {
    rustix::fs::openat(group, file, flags | OFlags::CLOEXEC, Mode::empty()).map_err(failed("open", file))
}

fn give(group: BorrowedFd<'_>, file: &str, owner: u32) -> Result<(), CgroupError> {
    let (uid, gid) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    rustix::fs::chownat(group, file, uid, gid, AtFlags::EMPTY_PATH).map_err(failed("give away", file))
}

fn write(group: BorrowedFd<'_>, file: &str, text: &str) -> Result<(), CgroupError> {
    let opened = open_file(group, file, OFlags::WRONLY)?;
    rustix::io::write(&opened, text.as_bytes()).map_err(failed("write", &format!("{text} to {file}")))?;
    Ok(())
}

fn read(group: BorrowedFd<'_>, file: &str) -> Result<String, CgroupError> {
    let opened = open_file(group, file, OFlags::RDONLY)?;
    io::read_to_string(std::fs::File::from(opened)).map_err(|source| CgroupError::Files {
        operation: "read",
        path: file.to_owned(),
        source,
    })
}

fn subdirectories(group: BorrowedFd<'_>) -> Vec<String> {
    let Ok(entries) = rustix::fs::Dir::read_from(group) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type() == rustix::fs::FileType::Directory)
        .filter_map(|entry| entry.file_name().to_str().map(str::to_owned).ok())
        .filter(|name| name != "." && name != "..")
        .collect()
}

/// Removes a group and the groups in it, one level: nobody but the agent makes any, and it makes only leaves.
/// An agent that was taken over may nest them deeper, so this goes down as far as there is something.
fn remove_tree(parent: BorrowedFd<'_>, name: &str) -> bool {
    if matches!(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT)) {
        return true;
    }
    if let Ok(group) = open_below(parent, name) {
        for child in subdirectories(group.as_fd()) {
            remove_tree(group.as_fd(), &child);
        }
    }
    matches!(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR), Ok(()) | Err(Errno::NOENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_hybrid_host_gives_v1_controllers_below_our_own_group_and_the_v2_tree() {
        let mounts = Mounts::parse(HYBRID, "4:memory:/a/b\n7:blkio:/\n1:cpu:/\n0::/\n");
        assert_eq!(mounts.v2.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(mounts.v1["memory"], Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(mounts.v1["io"], Path::new("/sys/fs/cgroup/blkio"));
        assert!(!mounts.v1.contains_key("pids"));
    }

    #[test]
    fn a_pure_v2_host_has_no_v1() {
        let mounts = Mounts::parse("25 1 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "0::/x\n");
        assert_eq!(mounts.v2.as_deref(), Some(Path::new("/sys/fs/cgroup")));
        assert!(mounts.v1.is_empty());
    }

    #[test]
    fn limits_are_written_in_each_versions_own_units() {
        let resources = Resources { cpu_millis: Some(1500), cpu_weight: Some(200), ..Resources::default() };
        let all = settings(&resources, "8:0");
        let cpu = all.iter().find(|setting| setting.limit == "cpu_millis").expect("cpu");
        assert_eq!((cpu.v2.1.as_str(), cpu.v1.1.as_str()), ("150000 100000", "150000"));
        let weight = all.iter().find(|setting| setting.limit == "cpu_weight").expect("weight");
        assert_eq!((weight.v2.1.as_str(), weight.v1.1.as_str()), ("200", "2048"));
    }
}
