//! What a process is born with: descriptors, a directory, a way back to where it came from.

use std::os::fd::AsRawFd as _;

use libc as c;

use super::{Answer, Attack, Control, Group, nothing, raw};
use crate::selftest::scene::Scene;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Descriptors, name, run)
}

/// Descriptors that are looked at: a command's hard limit.
const NUMBERS: i32 = 65_536;

pub(super) const ATTACKS: &[Attack] = &[
    attack("leaked-descriptors", leaked),
    attack("climb-from-descriptors", |scene| {
        let up = format!("../../../../../../../../../..{}\0", scene.host.secret);
        for fd in 0..1024 {
            if let Ok(opened) = raw(c::SYS_openat, &[fd, crate::sys::attempt::address(up.as_bytes()), 0]) {
                return Ok(format!("descriptor {fd} leads out, to {opened}"));
            }
        }
        nothing("none leads out")
    }),
    attack("hosts-file", |scene| read(&scene.host.secret)),
    attack("hosts-file-by-own-root", |scene| read(&format!("/proc/self/root{}", scene.host.secret))),
    attack("hosts-file-by-firsts-root", |scene| read(&format!("/proc/1/root{}", scene.host.secret))),
    attack("hosts-file-by-climbing", |scene| {
        read(&format!("/proc/self/cwd/../../../../../../../../..{}", scene.host.secret))
    }),
    attack("hosts-file-by-thread", |scene| read(&format!("/proc/thread-self/root{}", scene.host.secret))),
    attack("hosts-file-by-mount", |scene| {
        // A second way to the root of whoever's mount namespace this is.
        read(&format!(
            "/proc/self/task/{}/root{}",
            rustix::process::getpid().as_raw_nonzero(),
            scene.host.secret
        ))
    }),
    attack("hosts-socket", |scene| {
        std::os::unix::net::UnixStream::connect(&scene.host.socket)?;
        Ok("connected".to_owned())
    }),
    attack("write-any-program", |_| {
        for pid in super::files::pids() {
            let path = format!("/proc/{pid}/exe");
            let own = std::fs::read_link(&path)
                .is_ok_and(|link| Some(link) == std::fs::read_link("/proc/self/exe").ok());
            if !own && std::fs::OpenOptions::new().write(true).open(&path).is_ok() {
                return Ok(format!("{path} can be written"));
            }
        }
        nothing("no program of another process can be written")
    })
    .control(Control::RealRoot),
];

fn read(path: &str) -> Answer {
    let text = std::fs::read_to_string(path)?;
    Ok(format!("it says {}", text.trim()))
}

/// Every open descriptor that this attack has not opened itself.
fn leaked(_: &Scene) -> Answer {
    let list = std::fs::File::open("/proc/self/fd")?;
    let own = list.as_raw_fd();
    let mut found = Vec::new();
    for fd in 3..NUMBERS {
        let path = format!("/proc/self/fd/{fd}");
        let Ok(target) = std::fs::read_link(path) else { continue };
        let target = target.display().to_string();
        // The pipe on which this very attack reports.
        if fd != own && !target.starts_with("pipe:") {
            found.push(format!("{fd} is {target}"));
        }
    }
    if found.is_empty() { nothing("only stdin, stdout and stderr are open") } else { Ok(found.join(", ")) }
}
