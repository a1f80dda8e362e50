//! Something happens to a process at one of its system calls: the moment is exact, and no line of the program knows of
//! it.
//!
//! ```text
//! test ── request ──▶ serve ──▶ launch ── system call, system call, … ──▶ kernel
//!                                  ▲ number n of them: refused with an errno, or the last thing it does
//! tracer ── ptrace(2) ─────────────┘
//! ```
//!
//! Every step of an operation is between two system calls, so that a sweep over all their numbers leaves none out, not
//! even those that nobody thought of.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// Nothing: calls are counted.
    Count,
    /// The call is not made, and fails so.
    Refuse(Errno),
    /// The call is not made, and the process is killed, together with another.
    Kill,
    /// The other is killed, and the call is made.
    Bereave,
}

/// Calls that the kernel refuses for want of memory, if at all, as they are used here. They are refused so whatever errno is asked for.
const MEMORY_ONLY: [i64; 4] = [libc::SYS_ppoll, libc::SYS_poll, libc::SYS_sendmsg, libc::SYS_recvmsg];

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// System calls that counted.
    pub calls: usize,
    /// The number of the one at which something was done.
    pub hit: Option<u64>,
}

/// Runs `work` while a process with one thread is traced, and does the deed at call number `at` (from 0). The calls
/// named in `passed` do not count. With [`Deed::Kill`] and [`Deed::Bereave`] the process `with` is killed at that moment.
pub fn during<T>(
    process: i32,
    with: i32,
    (deed, at): (Deed, usize),
    passed: &[i64],
    work: impl FnOnce() -> T,
) -> (T, Seen) {
    let tracer = Tracer { process: Pid::from_raw(process), with: Pid::from_raw(with), deed, at, passed };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (attached, ready) = mpsc::channel();
        let tracing = scope.spawn(|| tracer.run(&over, attached));
        ready.recv().unwrap();
        let done = work();
        over.store(true, Ordering::SeqCst);
        // One that sleeps in the kernel stops for a signal that nobody misses.
        let _ = kill(Pid::from_raw(process), Signal::SIGWINCH);
        (done, tracing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

struct Tracer<'a> {
    process: Pid,
    with: Pid,
    deed: Deed,
    at: usize,
    passed: &'a [i64],
}

impl Tracer<'_> {
    /// In one thread from its beginning to its end, because the kernel knows the tracer by that.
    fn run(&self, over: &AtomicBool, attached: mpsc::Sender<()>) -> Seen {
        ptrace::seize(self.process, Options::PTRACE_O_TRACESYSGOOD).unwrap();
        ptrace::interrupt(self.process).unwrap();
        let mut seen = Seen::default();
        let mut attached = Some(attached);
        loop {
            let signal = match self.wait() {
                // It is gone, by the deed or otherwise: what is left of it is for whoever started it.
                None => return seen,
                Some(WaitStatus::PtraceSyscall(_)) => {
                    if self.stopped_at_a_call(&mut seen) {
                        return seen;
                    }
                    None
                }
                Some(WaitStatus::Stopped(_, Signal::SIGWINCH)) => None,
                Some(WaitStatus::Stopped(_, signal)) => Some(signal),
                Some(_) => None,
            };
            if over.load(Ordering::SeqCst) {
                ptrace::detach(self.process, signal).unwrap();
                return seen;
            }
            ptrace::syscall(self.process, signal).unwrap();
            if let Some(attached) = attached.take() {
                attached.send(()).unwrap();
            }
        }
    }

    /// The next stop. Its end is left for whoever started it to be waited for.
    fn wait(&self) -> Option<WaitStatus> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        loop {
            match waitid(Id::Pid(self.process), flags) {
                Err(Errno::EINTR) => {}
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => return None,
                Ok(_) => return waitpid(self.process, Some(WaitPidFlag::__WALL)).ok(),
            }
        }
    }

    /// True when there is nothing more to trace.
    fn stopped_at_a_call(&self, seen: &mut Seen) -> bool {
        let Ok(info) = ptrace::syscall_info(self.process) else { return true };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return false;
        }
        let Ok(mut registers) = ptrace::getregs(self.process) else { return true };
        let number = registers.orig_rax;
        if self.passed.contains(&number.cast_signed()) {
            return false;
        }
        let mine = seen.calls == self.at;
        seen.calls += 1;
        if !mine {
            return false;
        }
        match self.deed {
            Deed::Count => return false,
            Deed::Kill => {
                for process in [self.process, self.with] {
                    let _ = kill(process, Signal::SIGKILL);
                }
            }
            Deed::Bereave => {
                let _ = kill(self.with, Signal::SIGKILL);
            }
            Deed::Refuse(errno) => {
                // No call has this number: the kernel does nothing, and its answer is replaced.
                registers.orig_rax = u64::MAX;
                ptrace::setregs(self.process, registers).unwrap();
                ptrace::syscall(self.process, None).unwrap();
                if !matches!(self.wait(), Some(WaitStatus::PtraceSyscall(_))) {
                    return true;
                }
                let errno = if MEMORY_ONLY.contains(&number.cast_signed()) { Errno::ENOMEM } else { errno };
                let mut registers = ptrace::getregs(self.process).unwrap();
                registers.rax = (-i64::from(errno as i32)).cast_unsigned();
                ptrace::setregs(self.process, registers).unwrap();
            }
        }
        seen.hit = Some(number);
        matches!(self.deed, Deed::Kill)
    }
}
