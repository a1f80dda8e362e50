//! Identity and capabilities: getting back what was given up.

use libc as c;

use super::{Answer, Attack, Control, Group, call, nothing, raw};
use crate::selftest::scene::Scene;
use crate::sys::attempt;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Credentials, name, run)
}

/// The capabilities that in-sandbox root may have: CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7,
/// SETPCAP 8, NET_BIND_SERVICE 10, SYS_CHROOT 18 (linux/capability.h). Written out, and not taken from where they are
/// given.
const ROOTS: u64 = 0b100_0000_0101_1111_1011;

pub(super) const ATTACKS: &[Attack] = &[
    attack("become-root", |_| call(c::SYS_setresuid, &[0, 0, 0])).roots_right(),
    attack("become-roots-group", |_| call(c::SYS_setresgid, &[0, 0, 0])).roots_right(),
    attack("become-another", |_| call(c::SYS_setresuid, &[77, 77, 77])).roots_right(),
    attack("take-groups", |_| {
        let groups = [0_u32, 4, 6];
        call(c::SYS_setgroups, &[3, attempt::address(&groups)])
    })
    .roots_right(),
    // The agent's own id in its namespace: the workload's has no such number.
    attack("become-the-agent", |_| call(c::SYS_setresuid, &[65_536, 65_536, 65_536]))
        .control(Control::RealRoot),
    attack("take-all-capabilities", |_| take(u64::MAX >> (64 - 41))),
    attack("take-administration", |_| take(1 << 21)),
    attack("take-tracing", |_| take(1 << 19)),
    attack("take-network-administration", |_| take(1 << 12)),
    attack("hold-more-than-roots-few", |_| held("CapEff")),
    attack("could-hold-more-than-roots-few", |_| held("CapBnd")),
    attack("inherit-capabilities", |_| {
        take(1 << 7)?;
        // PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE: what a later program would have from its start.
        call(c::SYS_prctl, &[c::PR_CAP_AMBIENT.into(), c::PR_CAP_AMBIENT_RAISE.into(), 7, 0, 0])
    })
    .roots_right(),
    attack("gain-privileges-by-exec", |_| status("NoNewPrivs", "0")),
    attack("no-filter", |_| status("Seccomp", "0")),
    attack("give-file-capabilities", |scene| {
        let path = format!("{}/capable", scene.place);
        std::fs::write(&path, b"#!/bin/true\n")?;
        // Version 2 of the attribute (linux/capability.h): CAP_SYS_ADMIN, permitted and effective, in the host's namespace.
        let (attribute, path) = ([0x0200_0001_u32, 1 << 21, 0, 0, 0], [path.as_bytes(), &[0]].concat());
        let words = [
            attempt::address(&*path),
            super::text(c"security.capability"),
            attempt::address(&attribute),
            20,
            0,
        ];
        call(c::SYS_setxattr, &words)
    }),
    attack("change-kernels-id-map", |_| {
        std::fs::write("/proc/self/gid_map", "0 0 1")?;
        Ok("it can be written".to_owned())
    })
    .control(Control::RealRoot),
];

fn take(set: u64) -> Answer {
    let header = [0x2008_0522_u32, 0];
    let half = |shift: u32| u32::try_from((set >> shift) & 0xffff_ffff).unwrap_or(0);
    // Effective, permitted, inheritable: of the lower 32 and of the upper.
    let data = [half(0), half(0), half(0), half(32), half(32), half(32)];
    raw(c::SYS_capset, &[attempt::address(&header), attempt::address(&data)])?;
    Ok("they are held".to_owned())
}

fn field(name: &str) -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.unwrap_or_default().trim().to_owned())
}

fn held(set: &str) -> Answer {
    let value = field(set)?;
    let bits = u64::from_str_radix(&value, 16).unwrap_or(u64::MAX);
    let root = rustix::process::geteuid().is_root();
    match bits & !(if root { ROOTS } else { 0 }) {
        0 => nothing(format!("{set} is {value}")),
        more => Ok(format!("{set} has {more:x} beyond what is right")),
    }
}

fn status(name: &str, open: &str) -> Answer {
    let value = field(name)?;
    if value == open { Ok(format!("{name} is {value}")) } else { nothing(format!("{name} is {value}")) }
}
