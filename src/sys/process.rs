//! Making, waiting for and ending processes: clone3(2), wait4(2), _exit(2), signal masks.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

use super::Errno;

/// Namespaces and modifiers of [`clone3`], as in clone(2).
pub mod flags {
    /// New user namespace.
    pub const USER: u64 = libc::CLONE_NEWUSER as u64;
    /// New mount namespace.
    pub const MOUNT: u64 = libc::CLONE_NEWNS as u64;
    /// New PID namespace; the child is its PID 1.
    pub const PID: u64 = libc::CLONE_NEWPID as u64;
    /// New network namespace.
    pub const NETWORK: u64 = libc::CLONE_NEWNET as u64;
    /// New System V IPC and POSIX message queue namespace.
    pub const IPC: u64 = libc::CLONE_NEWIPC as u64;
    /// New host name.
    pub const UTS: u64 = libc::CLONE_NEWUTS as u64;
    /// The caller's parent becomes the child's parent.
    pub const PARENT: u64 = libc::CLONE_PARENT as u64;
}

/// Which side of a clone this is.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The old one.
    Parent {
        /// The child, in the caller's PID namespace.
        pid: Pid,
        /// A handle on the child that no other process can come to own.
        pidfd: OwnedFd,
    },
}

/// The kernel's `struct clone_args` (clone(2), CLONE_ARGS_SIZE_VER2).
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Forks, with namespaces and directly into a cgroup: moving a process later waits for an RCU grace period.
///
/// The child has a copy of this process's memory, as after fork(2). It must be called from a process with one
/// thread (see [`is_single_threaded`]): locks that another thread holds would stay locked for ever.
///
/// # Errors
/// As clone(2): `AGAIN` when a limit on processes is reached, `NOSPC` when one on namespaces is.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    /// Not in libc for this target as a u64 (linux/sched.h).
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    // With CLONE_PARENT the exit signal is the caller's own, and giving one is EINVAL.
    let exit_signal = if flags & self::flags::PARENT == 0 { libc::SIGCHLD as u64 } else { 0 };
    let mut args = CloneArgs {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: clone(2) wants a readable `clone_args` of the given size (`args`, initialised above) and a writable
    // int at `pidfd` (the local above, alive across the call). Without CLONE_VM and CLONE_THREAD the child gets
    // a copy of this stack, so returning in both processes is what fork(2) does.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) };
    if result < 0 {
        return Err(last_errno());
    }
    if result == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: the clone succeeded with CLONE_PIDFD, so the kernel stored a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let pid = i32::try_from(result).ok().and_then(Pid::from_raw).ok_or(Errno::OVERFLOW)?;
    Ok(Cloned::Parent { pid, pidfd })
}

/// A process that shares our memory and our descriptors and does one thing beside us: a copy of this process would
/// be made only to be thrown away, and every page of ours that is written to afterwards would have to be copied.
#[derive(Debug)]
pub struct Companion<T> {
    pid: Pid,
    reaped: bool,
    /// Where it finds its work and leaves the result: as long as it lives. From `Box::into_raw`.
    work: std::ptr::NonNull<Work<T>>,
    /// As long as it lives.
    _stack: Box<[std::mem::MaybeUninit<u8>]>,
}

struct Work<T> {
    body: fn() -> Result<T, Errno>,
    result: Option<Result<T, Errno>>,
}

impl<T> std::fmt::Debug for Work<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

impl<T> Companion<T> {
    /// Starts `body` in it, in new namespaces if flags of clone(2) say so.
    ///
    /// # Errors
    /// As clone(2).
    ///
    /// # Safety
    /// While it lives two processes run on one memory without knowing of each other. `body` must not allocate, must
    /// not panic, must touch no variable outside its own frame, and must make system calls by rustix, which
    /// makes them itself: the C library's `errno` and locks belong to one thread. Closing a descriptor that is open is
    /// the exception: close(2) of the C library does not fail then, and sets nothing.
    pub(super) unsafe fn start(flags: i32, body: fn() -> Result<T, Errno>) -> Result<Self, Errno> {
        /// Enough for the frames of a few system calls; the kernel puts a signal's there as well.
        const STACK_BYTES: usize = 16 * 1024;
        extern "C" fn run<T>(work: *mut libc::c_void) -> libc::c_int {
            // SAFETY: `start` passes a pointer to a `Work` of this type that nobody else touches until this process
            // is reaped.
            let work = unsafe { &mut *work.cast::<Work<T>>() };
            work.result = Some((work.body)());
            0
        }
        // Not cleared: what is not used costs nothing.
        let mut stack = Box::new_uninit_slice(STACK_BYTES);
        // The stack grows down from an address that is a multiple of 16 (System V ABI).
        let top = stack.as_mut_ptr_range().end.map_addr(|address| address & !15);
        let work = std::ptr::NonNull::from(Box::leak(Box::new(Work { body, result: None })));
        let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::SIGCHLD | flags;
        // SAFETY: clone(2) wants a function that never unwinds (`body` does not panic), the top of a stack that
        // outlives the child, and an argument that does: `Companion` owns both and reaps the child before it frees
        // them.
        let result = unsafe { libc::clone(run::<T>, top.cast(), flags, work.as_ptr().cast()) };
        let Some(pid) = Pid::from_raw(result).filter(|_| result > 0) else {
            let errno = last_errno();
            // SAFETY: no child was made that could use it, and it came from a box.
            drop(unsafe { Box::from_raw(work.as_ptr()) });
            return Err(errno);
        };
        Ok(Self { pid, reaped: false, work, _stack: stack })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits for its end and takes what it has made.
    ///
    /// # Errors
    /// What `body` says; as wait4(2); `CHILD` when it was killed.
    pub fn finish(mut self) -> Result<T, Errno> {
        self.reaped = true;
        wait_for(self.pid)?;
        // SAFETY: the child is reaped, so nobody else uses it; it is freed when `self` is dropped, after this.
        let work = unsafe { self.work.as_mut() };
        work.result.take().unwrap_or(Err(Errno::CHILD))
    }
}

impl<T> Drop for Companion<T> {
    /// Its memory must outlive it.
    fn drop(&mut self) {
        if !self.reaped {
            // It can only be dead already.
            let _ = kill_child(self.pid, libc::SIGKILL);
            let _ = wait_for(self.pid);
        }
        // SAFETY: it came from a box, the child is gone, and this is the only place that frees it.
        drop(unsafe { Box::from_raw(self.work.as_ptr()) });
    }
}

/// A process in a user namespace of its own, which waits to be killed: for [`Companion::drop`].
///
/// # Errors
/// As clone(2).
pub fn hold_user_namespace() -> Result<Companion<()>, Errno> {
    fn hold() -> Result<(), Errno> {
        loop {
            rustix::event::pause();
        }
    }
    // SAFETY: `hold` makes one raw system call and touches nothing.
    unsafe { Companion::start(libc::CLONE_NEWUSER, hold) }
}

/// Whether this process has exactly one thread, by `/proc/self/task`.
pub fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// A child that ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Which.
    pub pid: Pid,
    /// How.
    pub exit: crate::wire::agent::Exit,
    /// What it and its waited-for children used.
    pub usage: crate::wire::agent::Usage,
}

/// Reaps one child that has ended, if there is one; never waits.
///
/// # Errors
/// As wait4(2); `CHILD` when there are no children at all.
pub fn reap_any() -> Result<Option<Ended>, Errno> {
    wait4(-1, libc::WNOHANG)
}

/// Whether this is a child of the caller's that has not been reaped.
pub fn is_child(pid: Pid) -> bool {
    use rustix::process::{WaitId, WaitIdOptions};
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::Pid(pid), look).is_ok()
}

/// Waits for one child to end and reaps it.
///
/// # Errors
/// As wait4(2).
pub fn wait_for(pid: Pid) -> Result<Ended, Errno> {
    loop {
        match wait4(pid.as_raw_nonzero().get(), 0) {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn wait4(pid: i32, options: i32) -> Result<Option<Ended>, Errno> {
    use crate::wire::agent::{Exit, Usage};
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: wait4(2) wants a writable int and a writable rusage; both are locals that outlive the call.
    let result = unsafe { libc::wait4(pid, &raw mut status, options, usage.as_mut_ptr()) };
    if result < 0 {
        return Err(last_errno());
    }
    let Some(pid) = Pid::from_raw(result) else { return Ok(None) };
    // SAFETY: zero bytes are a valid rusage, and wait4 filled it in for a reaped child.
    let usage = unsafe { usage.assume_init() };
    let exit = if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    };
    let count = |number: libc::c_long| u64::try_from(number).unwrap_or(0);
    let usage = Usage {
        user_us: micros(usage.ru_utime),
        system_us: micros(usage.ru_stime),
        resident_max_kib: count(usage.ru_maxrss),
        // In blocks of 512 bytes, whatever the file system's own are (kernel/sys.c, task_io_get_inblock).
        read_bytes: count(usage.ru_inblock) * 512,
        written_bytes: count(usage.ru_oublock) * 512,
        major_faults: count(usage.ru_majflt),
        minor_faults: count(usage.ru_minflt),
        voluntary_switches: count(usage.ru_nvcsw),
        involuntary_switches: count(usage.ru_nivcsw),
    };
    Ok(Some(Ended { pid, exit, usage }))
}

fn micros(time: libc::timeval) -> u64 {
    u64::try_from(time.tv_sec * 1_000_000 + time.tv_usec).unwrap_or(0)
}

/// Ends this process at once: no destructors, no buffers, no exit handlers that belong to the parent.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions and does not return.
    unsafe { libc::_exit(code) }
}

/// Blocks these signals for this thread; they are then read from a signalfd.
///
/// # Errors
/// As sigprocmask(2).
pub fn block_signals(signals: &[i32]) -> Result<(), Errno> {
    set_mask(signals)
}

/// Gives a process that is about to execute another program the defaults it expects: nothing blocked, and
/// SIGPIPE deadly again, which Rust's runtime ignores and exec would keep ignored.
///
/// # Errors
/// As sigprocmask(2) and signal(2).
pub fn default_signals() -> Result<(), Errno> {
    set_mask(&[])?;
    // SAFETY: signal(2) with SIG_DFL installs no handler; no other thread exists that relies on the old one.
    let previous = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    if previous == libc::SIG_ERR { Err(last_errno()) } else { Ok(()) }
}

/// Gives up what the starter of this program had its signals do: a shell's background job ignores SIGINT, a
/// service manager may ignore SIGCHLD, and ignoring survives fork and exec. SIGPIPE stays ignored, as Rust's
/// runtime wants it, and handlers stay: exec(2) resets those.
///
/// # Errors
/// As sigaction(2).
pub fn stop_ignoring_signals() -> Result<(), Errno> {
    for signal in (1..=libc::SIGRTMAX()).filter(|&signal| signal != libc::SIGPIPE) {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: sigaction(2) with a null new action only writes to the old one, which is valid for that.
        if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } < 0 {
            // The C library keeps a few real-time signals to itself (nptl(7)).
            continue;
        }
        // SAFETY: the call above has written it; all zeros would be valid too.
        let action = unsafe { action.assume_init() };
        if action.sa_sigaction != libc::SIG_IGN {
            continue;
        }
        // SAFETY: signal(2) with SIG_DFL installs no handler.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(last_errno());
        }
    }
    Ok(())
}

fn set_mask(signals: &[i32]) -> Result<(), Errno> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initialises the set that it is given a valid pointer to.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for &signal in signals {
        // SAFETY: the set was initialised above; an invalid number is refused with EINVAL, not undefined.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: the set is initialised, and a null old-set pointer is allowed by sigprocmask(2).
    let result = unsafe { libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Sends a signal to a process by number. Only for children that have not been reaped, whose number therefore
/// cannot belong to anybody else; everything else is signalled by pidfd.
///
/// # Errors
/// As kill(2).
pub fn kill_child(pid: Pid, signal: i32) -> Result<(), Errno> {
    // SAFETY: kill(2) takes two integers and touches no memory of ours.
    let result = unsafe { libc::kill(pid.as_raw_nonzero().get(), signal) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Sends a signal, real-time ones included, to the process that a pidfd refers to (pidfd_send_signal(2)).
///
/// # Errors
/// As pidfd_send_signal(2); `SRCH` when it has ended.
pub fn signal_pidfd(process: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: pidfd_send_signal(2) takes a descriptor, two integers and a siginfo that may be a null pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_starter_ignored_is_not_ignored_any_more_except_broken_pipes() {
        // SAFETY: signal(2) with SIG_IGN installs no handler, and no other test uses this signal.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        let ignored = || {
            let status = std::fs::read_to_string("/proc/self/status").expect("status");
            let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("SigIgn").trim();
            u64::from_str_radix(line, 16).expect("a mask")
        };
        let bit = |signal: i32| 1_u64 << (signal - 1);
        assert_ne!(ignored() & bit(libc::SIGUSR2), 0, "the control");
        stop_ignoring_signals().expect("reset");
        assert_eq!(ignored() & bit(libc::SIGUSR2), 0);
        assert_ne!(ignored() & bit(libc::SIGPIPE), 0, "Rust's runtime relies on it");
    }
}
