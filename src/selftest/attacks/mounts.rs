//! Mounts: making, moving, changing and removing them, by the old calls and the new.

use std::os::unix::fs::MetadataExt as _;

use libc as c;

use super::{Answer, Attack, Group, call, raw, reached, text};
use crate::selftest::scene::Scene;
use crate::sys::{Errno, attempt};

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Mounts, name, run)
}

/// linux/mount.h and linux/fcntl.h
const OPEN_TREE_CLONE: i64 = 1;
const AT_RECURSIVE: i64 = 0x8000;
const AT_FDCWD: i64 = c::AT_FDCWD as i64;
/// Beyond what libc knows: listmount(2) and statmount(2) have these numbers on every architecture.
const STATMOUNT: i64 = 457;
const LISTMOUNT: i64 = 458;
const OPEN_TREE_ATTR: i64 = 467;

pub(super) const ATTACKS: &[Attack] = &[
    attack("mount-tmpfs", |scene| mount(scene, c"tmpfs", c"tmpfs", 0, c"")),
    attack("mount-proc", |scene| mount(scene, c"proc", c"proc", 0, c"")),
    attack("mount-sysfs", |scene| mount(scene, c"sysfs", c"sysfs", 0, c"")),
    attack("mount-cgroup2", |scene| mount(scene, c"cgroup2", c"cgroup2", 0, c"")),
    attack("mount-devpts", |scene| mount(scene, c"devpts", c"devpts", 0, c"newinstance")),
    attack("mount-mqueue", |scene| mount(scene, c"mqueue", c"mqueue", 0, c"")),
    attack("mount-ramfs", |scene| mount(scene, c"ramfs", c"ramfs", 0, c"")),
    attack("mount-overlay", overlay),
    attack("mount-bind-root", |scene| mount(scene, c"/", c"", c::MS_BIND | c::MS_REC, c"")),
    attack("mount-bind-proc", |scene| mount(scene, c"/proc", c"", c::MS_BIND | c::MS_REC, c"")),
    attack("mount-remount", |scene| {
        prepare(scene);
        mount(scene, c"tmpfs", c"", c::MS_REMOUNT | c::MS_BIND | c::MS_RDONLY, c"")
    }),
    attack("mount-propagation", |scene| {
        prepare(scene);
        mount(scene, c"", c"", c::MS_SHARED, c"")
    }),
    attack("mount-move", |scene| {
        prepare(scene);
        let to = [&scene.place, "/m"].concat();
        let _ = std::fs::create_dir(&to);
        let _ = mount_at(&to, c"tmpfs", c"tmpfs", 0, c"");
        let other = [&scene.place, "/n"].concat();
        let _ = std::fs::create_dir(&other);
        let (from, to) = (zero(&to), zero(&other));
        call(
            c::SYS_mount,
            &[attempt::address(&*from), attempt::address(&*to), text(c""), c::MS_MOVE as i64, 0],
        )
    }),
    attack("unmount", |scene| {
        prepare(scene);
        let place = zero(&scene.place);
        call(c::SYS_umount2, &[attempt::address(&*place), 0])
    }),
    attack("unmount-dev", |_| {
        reached(call(c::SYS_umount2, &[text(c"/dev"), c::MNT_DETACH.into()]), &[Errno::INVAL])
    }),
    attack("fsopen", |_| call(c::SYS_fsopen, &[text(c"tmpfs"), 0])),
    attack("fsconfig", |_| reached(call(c::SYS_fsconfig, &[-1, 6]), &[Errno::INVAL, Errno::BADF])),
    attack("fsmount", |_| reached(call(c::SYS_fsmount, &[-1, 0, 0]), &[Errno::BADF])),
    attack("fspick", |scene| {
        prepare(scene);
        let place = zero(&scene.place);
        call(c::SYS_fspick, &[AT_FDCWD, attempt::address(&*place), 0])
    }),
    attack("open-tree-clone", |_| {
        call(c::SYS_open_tree, &[AT_FDCWD, text(c"/"), OPEN_TREE_CLONE | AT_RECURSIVE])
    }),
    attack("open-tree-attr", |_| {
        let attributes = [0_u8; 32];
        let words = [AT_FDCWD, text(c"/"), OPEN_TREE_CLONE | AT_RECURSIVE, attempt::address(&attributes), 32];
        call(OPEN_TREE_ATTR, &words)
    }),
    attack("move-mount", |_| {
        reached(call(c::SYS_move_mount, &[-1, text(c""), -1, text(c""), 0x44]), &[Errno::BADF])
    }),
    attack("mount-setattr", |scene| {
        prepare(scene);
        let place = zero(&scene.place);
        // MOUNT_ATTR_RDONLY, and nothing else.
        let mut attributes = [0_u8; 32];
        attributes[0] = 1;
        let words = [AT_FDCWD, attempt::address(&*place), 0, attempt::address(&attributes), 32];
        call(c::SYS_mount_setattr, &words)
    }),
    attack("pivot-root", |_| {
        reached(call(c::SYS_pivot_root, &[text(c"."), text(c".")]), &[Errno::INVAL, Errno::BUSY])
    }),
    attack("change-root", |_| call(c::SYS_chroot, &[text(c"/")])),
    attack("list-mounts", |_| {
        // struct mnt_id_req: its size, and LSMT_ROOT.
        let request: [u64; 3] = [24, u64::MAX, 0];
        let ids = [0_u64; 8];
        call(LISTMOUNT, &[attempt::address(&request), attempt::address(&ids), 8, 0])
    }),
    attack("show-mount", |_| {
        // A mount's number beyond all that there are (fs/namespace.c, MNT_UNIQUE_ID_OFFSET).
        let request: [u64; 3] = [24, 1 << 40, 1];
        let answer = [0_u8; 512];
        let made = call(STATMOUNT, &[attempt::address(&request), attempt::address(&answer), 512, 0]);
        reached(made, &[Errno::NOENT])
    }),
    attack("mounts-allow-set-user-id", |_| mounts_lack("nosuid")),
    attack("mounts-allow-devices", |_| mounts_lack("nodev")),
];

fn zero(text: &str) -> Box<[u8]> {
    [text.as_bytes(), &[0]].concat().into_boxed_slice()
}

fn mount(
    scene: &Scene,
    source: &std::ffi::CStr,
    kind: &std::ffi::CStr,
    flags: u64,
    data: &std::ffi::CStr,
) -> Answer {
    mount_at(&scene.place, source, kind, flags, data)
}

fn mount_at(
    at: &str,
    source: &std::ffi::CStr,
    kind: &std::ffi::CStr,
    flags: u64,
    data: &std::ffi::CStr,
) -> Answer {
    let at = zero(at);
    let words = [text(source), attempt::address(&*at), text(kind), flags.cast_signed(), text(data)];
    call(c::SYS_mount, &words)
}

/// Something to work on, where it can be had.
fn prepare(scene: &Scene) {
    let _ = mount(scene, c"tmpfs", c"tmpfs", 0, c"");
}

fn overlay(scene: &Scene) -> Answer {
    prepare(scene);
    for name in ["l", "u", "w", "m"] {
        let _ = std::fs::create_dir(format!("{}/{name}", scene.place));
    }
    let place = &scene.place;
    let options = zero(&format!("lowerdir={place}/l,upperdir={place}/u,workdir={place}/w,userxattr"));
    let at = zero(&format!("{place}/m"));
    let words = [text(c"o"), attempt::address(&*at), text(c"overlay"), 0, attempt::address(&*options)];
    raw(c::SYS_mount, &words).map(|_| "mounted".to_owned()).map_err(Into::into)
}

/// Looks for a mount that has not this option. Of /dev, which holds devices, and of what is masked by its null, the
/// second is not asked.
fn mounts_lack(option: &str) -> Answer {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    for line in table.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (Some(point), Some(options)) = (fields.get(4), fields.get(5)) else { continue };
        let null = std::fs::metadata(point).is_ok_and(|found| found.rdev() == rustix::fs::makedev(1, 3));
        if option == "nodev" && (null || *point == "/dev" || point.starts_with("/dev/")) {
            continue;
        }
        if !options.split(',').any(|found| found == option) {
            return Ok(format!("{point} is mounted without {option}"));
        }
    }
    super::nothing(format!("every mount is {option}"))
}
