//! Limits: taking more than one's share.

use std::io::Write as _;
use std::time::Duration;

use libc as c;

use super::{Answer, Attack, Control, Group, Refusal, call, nothing, raw};
use crate::selftest::scene::Scene;
use crate::sys::attempt::{self, Ended};
use crate::sys::process::exit_now;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Limits, name, run)
}

/// How far beyond a limit an attack goes: the control does as much on the host.
const BEYOND_PIDS: u64 = 16;
const BEYOND_BYTES: u64 = 32 << 20;

/// A limit that is raised beyond what was given.
macro_rules! raise {
    ($name:literal, $which:expr) => {
        attack($name, |_| raise($which.into())).control(Control::RealRoot)
    };
}

pub(super) const ATTACKS: &[Attack] = &[
    attack("more-processes", |scene| {
        let Some(limit) = scene.sizes.pids else { return nothing("the sandbox has no limit of processes") };
        let (wanted, mut made) = (limit + BEYOND_PIDS, 0);
        while made < wanted {
            match raw(c::SYS_clone, &[c::SIGCHLD.into(), 0, 0, 0, 0]) {
                Ok(0) => {
                    std::thread::sleep(Duration::from_secs(60));
                    exit_now(0);
                }
                Ok(_) => made += 1,
                Err(errno) => return nothing(format!("{} after {made}", super::name(errno))),
            }
        }
        Ok(format!("{made} processes at once"))
    }),
    attack("more-memory", |scene| {
        let Some(limit) = scene.sizes.memory else { return nothing("the sandbox has no limit of memory") };
        let bytes = usize::try_from(limit + BEYOND_BYTES).unwrap_or(usize::MAX);
        // The kernel kills whoever takes too much: a copy, so that there is somebody to report it.
        let ended = attempt::apart(Duration::from_secs(60), || {
            let block = std::hint::black_box(vec![1_u8; bytes]);
            block.len().to_string().into_bytes()
        })?;
        match ended {
            Ended::Said(_) => Ok(format!("{bytes} bytes of memory")),
            Ended::Killed { signal, .. } => nothing(format!("signal {signal}")),
            // A vector that cannot be had ends the program (handle_alloc_error).
            other => nothing(format!("{other:?}")),
        }
    }),
    attack("more-in-memory-files", |scene| {
        let path =
            if scene.inside { "/dev/shm/attacked".to_owned() } else { format!("{}/attacked", scene.place) };
        let mut file = std::fs::File::create(&path)?;
        std::fs::remove_file(&path)?;
        let piece = vec![1_u8; 1 << 20];
        for at in (0..scene.sizes.tmpfs + BEYOND_BYTES).step_by(1 << 20) {
            if let Err(error) = file.write_all(&piece) {
                return nothing(format!("{error} after {at} bytes"));
            }
        }
        Ok(format!("more than {} bytes", scene.sizes.tmpfs))
    }),
    attack("core-dump", |scene| {
        std::env::set_current_dir(&scene.place)?;
        let limits = [u64::MAX, u64::MAX];
        // Outside the hard limit may be lower than that too.
        let _ = raw(c::SYS_prlimit64, &[0, c::RLIMIT_CORE.into(), attempt::address(&limits), 0]);
        match attempt::apart(Duration::from_secs(10), || attempt::crash())? {
            Ended::Killed { dumped: true, .. } => Ok("memory was dumped".to_owned()),
            other => nothing(format!("{other:?}")),
        }
    })
    .control(Control::RealRoot),
    raise!("raise-limit-of-descriptors", c::RLIMIT_NOFILE),
    raise!("raise-limit-of-core-dumps", c::RLIMIT_CORE),
    raise!("raise-limit-of-locked-memory", c::RLIMIT_MEMLOCK),
    raise!("raise-limit-of-signals", c::RLIMIT_SIGPENDING),
    raise!("raise-limit-of-message-queues", c::RLIMIT_MSGQUEUE),
    raise!("raise-limit-of-real-time", c::RLIMIT_RTPRIO),
    raise!("raise-limit-of-priority", c::RLIMIT_NICE),
    attack("lock-much-memory", |_| {
        // More than the limit of a command, which is 8 MiB.
        let at = raw(c::SYS_mmap, &[0, 64 << 20, 3, 0x22, -1, 0])?;
        call(c::SYS_mlock, &[at, 64 << 20])
    })
    .control(Control::RealRoot),
    attack("many-descriptors", |_| {
        let limits = [100_000_u64; 2];
        let _ = raw(c::SYS_prlimit64, &[0, c::RLIMIT_NOFILE.into(), attempt::address(&limits), 0]);
        let mut held = Vec::new();
        while held.len() < 70_000 {
            match std::fs::File::open("/dev/null") {
                Ok(file) => held.push(file),
                Err(error) => return nothing(format!("{error} after {}", held.len())),
            }
        }
        Ok(format!("{} open files", held.len()))
    })
    .control(Control::RealRoot),
    attack("outlive-out-of-memory", |_| {
        // The kernel is to choose this process before ours: a command may not say otherwise.
        std::fs::write("/proc/self/oom_score_adj", "-1000")?;
        Ok("it is never chosen".to_owned())
    })
    .control(Control::RealRoot),
];

fn raise(which: i64) -> Answer {
    let mut limits = [0_u64; 2];
    raw(c::SYS_prlimit64, &[0, which, 0, attempt::room(&mut limits)])?;
    let hard = match limits[1] {
        u64::MAX if which == i64::from(c::RLIMIT_CORE) => return Ok("there is none".to_owned()),
        // There is nothing above: the control takes it down first.
        u64::MAX => 1 << 20,
        hard => hard,
    };
    let lower = [hard, hard];
    raw(c::SYS_prlimit64, &[0, which, attempt::address(&lower), 0])?;
    let higher = [hard + 1, hard + 1];
    raw(c::SYS_prlimit64, &[0, which, attempt::address(&higher), 0]).map_err(Refusal::Errno)?;
    Ok(format!("from {hard} to {}", hard + 1))
}
