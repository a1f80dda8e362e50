//! Device nodes: those that are there, and those that could be made.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use libc as c;

use super::{Answer, Attack, Control, Group, call, nothing};
use crate::selftest::scene::Scene;
use crate::sys::attempt;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Devices, name, run)
}

/// Numbers as in the kernel's admin-guide/devices.
macro_rules! node {
    ($name:literal, $kind:expr, $major:literal, $minor:literal) => {
        attack($name, |scene| make(scene, $kind, $major, $minor)).control(Control::RealRoot)
    };
}

/// A device that only the host's root may open.
macro_rules! roots {
    ($name:literal, $path:literal) => {
        attack($name, |_| open($path)).control(Control::RealRoot)
    };
}

pub(super) const ATTACKS: &[Attack] = &[
    node!("make-memory", c::S_IFCHR, 1, 1),
    node!("make-null", c::S_IFCHR, 1, 3),
    node!("make-ports", c::S_IFCHR, 1, 4),
    node!("make-kernel-log", c::S_IFCHR, 1, 11),
    node!("make-console", c::S_IFCHR, 5, 1),
    node!("make-fuse", c::S_IFCHR, 10, 229),
    node!("make-disk", c::S_IFBLK, 8, 0),
    node!("make-loop", c::S_IFBLK, 7, 0),
    node!("make-virtual-disk", c::S_IFBLK, 254, 0),
    roots!("open-memory", "/dev/mem"),
    roots!("open-ports", "/dev/port"),
    roots!("open-loop-control", "/dev/loop-control"),
    roots!("open-virtual-disk", "/dev/vda"),
    roots!("open-disk", "/dev/sda"),
    roots!("open-virtual-machines", "/dev/kvm"),
    roots!("open-device-mapper", "/dev/mapper/control"),
    roots!("open-userfaultfd", "/dev/userfaultfd"),
    roots!("open-vhost-network", "/dev/vhost-net"),
    roots!("open-non-volatile-memory", "/dev/nvram"),
    roots!("open-clock", "/dev/rtc0"),
    roots!("open-console", "/dev/console"),
    roots!("open-first-terminal", "/dev/tty1"),
    attack("open-kernel-log", |_| open("/dev/kmsg")).control(Control::RealRoot),
    attack("open-fuse", |_| open("/dev/fuse")),
    attack("open-tunnels", |_| open("/dev/net/tun")),
    attack("open-any-other-device", open_any),
    attack("change-a-device", |_| {
        // To the mode that it has: devices are shared with the host in other sandboxes, and in ours if the wall is broken.
        let mode = std::fs::metadata("/dev/null")?.permissions();
        std::fs::set_permissions("/dev/null", mode)?;
        Ok("/dev/null can have another mode".to_owned())
    })
    .control(Control::RealRoot),
    attack("add-to-devices", |_| {
        std::fs::File::create("/dev/attacked")?;
        std::fs::remove_file("/dev/attacked")?;
        Ok("a file was made in /dev".to_owned())
    })
    .control(Control::RealRoot),
];

fn make(scene: &Scene, kind: u32, major: u32, minor: u32) -> Answer {
    let path = format!("{}/node", scene.place);
    let _ = std::fs::remove_file(&path);
    let zero = [path.as_bytes(), &[0]].concat();
    let device = rustix::fs::makedev(major, minor).cast_signed();
    let made = call(c::SYS_mknod, &[attempt::address(&*zero), (kind | 0o666).into(), device]);
    let _ = std::fs::remove_file(&path);
    made
}

fn open(path: &str) -> Answer {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new().read(true).custom_flags(c::O_NONBLOCK | c::O_NOCTTY).open(path)?;
    Ok(format!("{path} is open"))
}

/// Looks for a device below /dev that is none of those that every program may have.
fn open_any(_: &Scene) -> Answer {
    let mut waiting = vec![std::path::PathBuf::from("/dev")];
    let mut seen = 0_u32;
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
            if found.is_dir() {
                waiting.push(path);
                continue;
            }
            if !found.file_type().is_char_device() && !found.file_type().is_block_device() {
                continue;
            }
            seen += 1;
            // null, zero, full, random, urandom; tty, ptmx; pseudo-terminals.
            let number = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
            let ordinary = matches!(number, (1, 3 | 5 | 7 | 8 | 9) | (5, 0 | 2) | (136, _));
            if (found.file_type().is_block_device() || !ordinary) && open(&path.to_string_lossy()).is_ok() {
                return Ok(format!("{} is open", path.display()));
            }
        }
    }
    nothing(format!("{seen} devices, all of them ordinary"))
}
