//! Runs a program inside the new file tree, cut off from the building machine.
//!
//! ```text
//! builder ── spawn ──> in-namespaces: unshare mount, pid, net, ipc, uts
//!                        └─ spawn ──> in-chroot (PID 1 there): mounts, chroot, no sync
//!                                       └─ spawn ──> the program
//! ```
//!
//! Invariants: the mounts live in a mount namespace of their own and vanish with its last process, so a
//! kill at any moment leaves none behind; each process dies with its parent (PR_SET_PDEATHSIG); there is
//! no network, so that a package's script cannot bring in what the lock does not name.
//!
//! Why re-exec instead of fork: everything between fork and exec would need `unsafe`; fresh processes do
//! not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
use serde::{Deserialize, Serialize};

use crate::signal;

/// First arguments by which this binary knows which role it has.
pub(crate) const NAMESPACES_ROLE: &str = "in-namespaces";
pub(crate) const CHROOT_ROLE: &str = "in-chroot";

/// Devices that programs expect; bound from the host because an ordinary user cannot make them.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Where a job finds its packages: inside the temporary /tmp, so the tree needs no place for them.
pub(crate) const PACKAGES: &str = "/tmp/packages";

/// A program to run in a file tree.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) root: PathBuf,
    /// A host directory that appears as [`PACKAGES`].
    pub(crate) packages: Option<PathBuf>,
    pub(crate) argv: Vec<String>,
    /// The whole environment.
    pub(crate) env: BTreeMap<String, String>,
}

/// Runs the job to its end; its output goes to `log`.
///
/// # Errors
/// When it cannot be started, is cancelled or fails; the message holds the end of its output.
pub(crate) fn run(job: &Job, log: &Path) -> Result<()> {
    let output = File::create(log).with_context(|| format!("write {}", log.display()))?;
    let mut child = this_binary(NAMESPACES_ROLE, &serde_json::to_string(job)?)
        // Ctrl-C on a terminal reaches the whole group; here only the builder answers it.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("share the log")?)
        .stderr(output)
        .spawn()
        .context("start a process in the new file tree")?;
    let status = wait(&mut child)?;
    if status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(25)..].join("\n");
    let program = job.argv.first().map(String::as_str).unwrap_or_default();
    bail!("{program} failed in the new file tree ({status}); its last lines were:\n{end}")
}

/// Waits while listening for the user's cancellation.
pub(crate) fn wait(child: &mut Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().context("wait for a child")? {
            return Ok(status);
        }
        if let Err(cancelled) = signal::check() {
            // Its namespace's other processes follow it.
            let _ = child.kill();
            let _ = child.wait();
            return Err(cancelled);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn this_binary(role: &str, job: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(role).arg(job);
    command
}

/// The middle process: `unshare` moves only children into a new PID namespace, so it needs one.
///
/// # Errors
/// When the namespaces are refused.
pub(crate) fn enter_namespaces(job: &str) -> Result<i32> {
    die_with_parent()?;
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    unshare(flags).context(
        "make namespaces\nfix: run as root, or as a user with entries in /etc/subuid and /etc/subgid",
    )?;
    let status = this_binary(CHROOT_ROLE, job).status().context("start PID 1 of the new namespaces")?;
    Ok(exit_code(status))
}

/// PID 1 of the new namespaces: puts up the file tree and runs the program.
///
/// # Errors
/// When a mount is refused or the program cannot be started.
pub(crate) fn enter_chroot(job: &str) -> Result<i32> {
    die_with_parent()?;
    let job: Job = serde_json::from_str(job).context("read the job")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    nix::unistd::sethostname("localhost").context("name the namespace")?;
    mount_tree(&job)?;
    nix::unistd::chroot(&job.root).context("chroot")?;
    std::env::set_current_dir("/").context("enter the new root")?;
    ignore_sync()?;
    let (program, arguments) = job.argv.split_first().context("no program")?;
    let status = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(&job.env)
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("start {program}"))?;
    Ok(exit_code(status))
}

fn die_with_parent() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("tie the process to its parent")
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn mount_tree(job: &Job) -> Result<()> {
    let nothing: Option<&str> = None;
    // Private first: otherwise the mounts below would appear on the host.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .context("make mounts private")?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = job.root.join("proc");
    if mount(Some("proc"), &proc, Some("proc"), safe, nothing).is_err() {
        // In a container whose /proc is masked the kernel refuses a full new one.
        mount(Some("/proc"), &proc, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)
            .context("show /proc")?;
    }
    // Temporary files of package scripts stay out of the image.
    mount(Some("tmpfs"), &job.root.join("tmp"), Some("tmpfs"), MsFlags::empty(), Some("mode=1777"))
        .context("mount /tmp")?;
    let dev = job.root.join("dev");
    mount(Some("tmpfs"), &dev, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=0755")).context("mount /dev")?;
    for name in DEVICES {
        let (host, inside) = (Path::new("/dev").join(name), dev.join(name));
        File::create(&inside).with_context(|| format!("place {}", inside.display()))?;
        mount(Some(&host), &inside, nothing, MsFlags::MS_BIND, nothing)
            .with_context(|| format!("bind {}", host.display()))?;
    }
    for (name, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        std::os::unix::fs::symlink(target, dev.join(name)).with_context(|| format!("link /dev/{name}"))?;
    }
    fs::create_dir(dev.join("shm")).context("make /dev/shm")?;
    if let Some(source) = &job.packages {
        let inside = job.root.join(PACKAGES.trim_start_matches('/'));
        fs::create_dir(&inside).with_context(|| format!("make {}", inside.display()))?;
        mount(Some(source), &inside, nothing, MsFlags::MS_BIND, nothing)
            .with_context(|| format!("bind {}", source.display()))?;
    }
    Ok(())
}

/// Makes fsync and its kin succeed without doing anything: the tree is archived, not kept, and dpkg's
/// thousands of syncs would be most of the build's time. (systemd-nspawn calls this `--suppress-sync`.)
fn ignore_sync() -> Result<()> {
    let calls = [
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_sync,
        libc::SYS_syncfs,
        libc::SYS_sync_file_range,
        libc::SYS_msync,
    ];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(0), TargetArch::x86_64)
        .context("make the sync filter")?;
    let program: seccompiler::BpfProgram = filter.try_into().context("compile the sync filter")?;
    seccompiler::apply_filter(&program).context("install the sync filter")
}
