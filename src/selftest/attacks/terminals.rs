//! Terminals: typing into one from behind, and ioctls that reach further than one's own.

use std::os::fd::{AsRawFd as _, OwnedFd};

use libc as c;
use rustix::pty::OpenptFlags;

use super::{Answer, Attack, Control, Group, Refusal, call, nothing, raw};
use crate::selftest::scene::Scene;
use crate::sys::attempt;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Terminals, name, run)
}

/// asm-generic/ioctls.h
const TIOCSTI: i64 = 0x5412;
const TIOCLINUX: i64 = 0x541C;
const TIOCCONS: i64 = 0x541D;
const TIOCSETD: i64 = 0x5423;

pub(super) const ATTACKS: &[Attack] = &[
    attack("type-into-terminal", |_| type_into(TIOCSTI)),
    // CVE-2019-7303: a filter that compares 64 bits sees another number than the kernel.
    attack("type-into-terminal-wide", |_| type_into(1 << 32 | TIOCSTI)),
    attack("select-into-terminal", |_| {
        let (_master, slave) = terminal()?;
        // On a pseudo-terminal the kernel has nothing to select: it says ENOTTY when it was asked.
        let paste = [3_u8];
        let asked = call(c::SYS_ioctl, &[slave.as_raw_fd().into(), TIOCLINUX, attempt::address(&paste)]);
        super::reached(asked, &[crate::sys::Errno::NOTTY])
    }),
    attack("take-the-console", |_| {
        let (_master, slave) = terminal()?;
        call(c::SYS_ioctl, &[slave.as_raw_fd().into(), TIOCCONS, 0])
    })
    .control(Control::RealRoot),
    attack("change-line-discipline", |_| {
        let (_master, slave) = terminal()?;
        // N_TTY again: no change, but the call is made.
        let discipline = [0_i32];
        call(c::SYS_ioctl, &[slave.as_raw_fd().into(), TIOCSETD, attempt::address(&discipline)])
    }),
    attack("terminals-of-others", |_| {
        let count =
            std::fs::read_dir("/dev/pts")?.flatten().filter(|entry| entry.file_name() != "ptmx").count();
        if count == 0 { nothing("there is none") } else { Ok(format!("{count} terminals show")) }
    }),
];

/// A terminal of our own, made the controlling one of a new session.
fn terminal() -> Result<(OwnedFd, OwnedFd), Refusal> {
    let broken = |errno: crate::sys::Errno| Refusal::Broken(format!("no terminal: {errno}"));
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).map_err(broken)?;
    let slave = crate::sys::terminal::open_slave(&master, 24, 80).map_err(broken)?;
    // The copy leads its process group, and only others can begin a session: it stays in it and takes none.
    Ok((master, slave))
}

/// Types a character into one's own controlling terminal.
fn type_into(request: i64) -> Answer {
    let (_master, slave) = terminal()?;
    let child = raw(c::SYS_clone, &[c::SIGCHLD.into(), 0, 0, 0, 0])?;
    if child == 0 {
        let fd = slave.as_raw_fd().into();
        let typed = rustix::process::setsid()
            .and_then(|_| rustix::process::ioctl_tiocsctty(&slave))
            .and_then(|()| raw(c::SYS_ioctl, &[fd, request, attempt::address(b"x")]));
        let code = typed.map_or_else(|errno| errno.raw_os_error(), |_| 0);
        crate::sys::process::exit_now(code);
    }
    let mut status = [0_i32];
    raw(c::SYS_wait4, &[child, attempt::room(&mut status), 0, 0])?;
    match c::WEXITSTATUS(status[0]) {
        0 => Ok("a character was typed".to_owned()),
        errno => Err(crate::sys::Errno::from_raw_os_error(errno).into()),
    }
}
