//! An ordinary user becomes root of a user namespace, in which the whole build then runs.
//!
//! Files in an image belong to many ids, so the namespace maps 0 to the user and 1–65535 to the user's
//! range in /etc/subuid and /etc/subgid, which only the set-user-id programs of `uidmap` may write.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Uid, User};

use crate::{chroot, signal};

/// First argument of the process that enters the namespace.
pub(crate) const ROLE: &str = "in-user-namespace";

/// Highest number of ids an image may use.
const IDS: u32 = 65_536;

/// Runs this program again as root of a new user namespace and returns its exit code.
///
/// # Errors
/// When the machine grants the user no ids or no user namespaces.
pub(crate) fn run(arguments: &[String]) -> Result<i32> {
    let user =
        User::from_uid(Uid::effective()).context("look up the user")?.context("the user has no name")?;
    let mut child = Command::new("/proc/self/exe")
        .arg(ROLE)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .context("start the build in a user namespace")?;
    let result = map_ids(child.id(), &user);
    if result.is_ok()
        && let Some(mut gate) = child.stdin.take()
    {
        gate.write_all(b"\n").context("let the build begin")?;
    }
    // Without the byte the child sees the end of its input and leaves.
    drop(child.stdin.take());
    loop {
        if let Some(status) = child.try_wait().context("wait for the build")? {
            result?;
            return Ok(status.code().unwrap_or(1));
        }
        if signal::check().is_err() {
            // The build cleans up by itself; a terminal has told it already, a plain kill has not.
            let id = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
            let _ = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
            let status = child.wait().context("wait for the build")?;
            return Ok(status.code().unwrap_or(130));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// In the child: a new user namespace, then this program again as its root.
///
/// # Errors
/// When user namespaces are forbidden, or the parent could not map ids.
pub(crate) fn enter(arguments: &[String]) -> Result<i32> {
    unshare(CloneFlags::CLONE_NEWUSER).context(
        "make a user namespace\nfix: run as root, or allow it: sysctl kernel.unprivileged_userns_clone=1 \
         and user.max_user_namespaces above 0",
    )?;
    // After `unshare`, which clears it. The build cleans up when the process that started it is killed.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)
        .context("tie the build to its parent")?;
    let mut gate = [0];
    if std::io::stdin().read(&mut gate).context("wait for the id maps")? == 0 {
        bail!("no ids were mapped");
    }
    let error = Command::new("/proc/self/exe").args(arguments).stdin(Stdio::null()).exec();
    Err(error).context("start the build in the user namespace")
}

fn map_ids(child: u32, user: &User) -> Result<()> {
    let own = std::fs::read_link("/proc/self/ns/user").context("look at /proc/self/ns/user")?;
    // The child says that it is ready by being in another namespace.
    let ready = (0..500).any(|_| {
        let theirs = std::fs::read_link(format!("/proc/{child}/ns/user"));
        let ready = theirs.is_ok_and(|theirs| theirs != own);
        if !ready {
            std::thread::sleep(Duration::from_millis(10));
        }
        ready
    });
    ensure!(ready, "the kernel gave no user namespace");
    map_one("newuidmap", child, user.uid.as_raw(), "/etc/subuid", user)?;
    map_one("newgidmap", child, user.gid.as_raw(), "/etc/subgid", user)
}

fn map_one(program: &str, child: u32, own: u32, file: &str, user: &User) -> Result<()> {
    let table = std::fs::read_to_string(file).unwrap_or_default();
    let start = granted(&table, &user.name, user.uid.as_raw()).with_context(|| {
        format!(
            "{file} grants {} no {IDS} ids\n\
             fix: run as root, or: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
            user.name, user.name
        )
    })?;
    let others = IDS - 1;
    let status = Command::new(program)
        .args([child, 0, own, 1, 1, start, others].map(|number| number.to_string()))
        .status()
        .with_context(|| format!("run {program}\nfix: install uidmap"))?;
    ensure!(status.success(), "{program} refused to map the ids {start}-{}", start + others);
    Ok(())
}

/// The first id of the user's first range that is long enough (subuid(5)).
fn granted(table: &str, name: &str, uid: u32) -> Option<u32> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        let start: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.trim().parse().ok()?;
        ((who == name || who == uid.to_string()) && count >= IDS - 1).then_some(start)
    })
}

/// Whether the build needs a user namespace.
pub(crate) fn is_needed() -> bool {
    !Uid::effective().is_root()
}

/// Runs a role that was asked for by the first argument, if there is one.
pub(crate) fn role(arguments: &[String]) -> Option<Result<i32>> {
    let (role, rest) = arguments.split_first()?;
    let job = rest.first().map(String::as_str).unwrap_or_default();
    match role.as_str() {
        ROLE => Some(enter(rest)),
        chroot::NAMESPACES_ROLE => Some(chroot::enter_namespaces(job)),
        chroot::CHROOT_ROLE => Some(chroot::enter_chroot(job)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_or_number_and_must_be_long_enough() {
        let table = "short:100000:1000\nann:200000:65536\n1007:300000:65536\n";
        assert_eq!(granted(table, "ann", 1), Some(200_000));
        assert_eq!(granted(table, "nobody", 1007), Some(300_000));
        assert_eq!(granted(table, "short", 1), None);
    }
}
