//! System calls that are expected to be refused, made by processes that are thrown away.
//!
//! A self-test calls the kernel in ways that no interface offers safely: with numbers that nobody has named, with
//! arguments that are wrong on purpose, by entries that 64-bit programs do not use. Whatever such a call does to memory,
//! descriptors or signals, it does to a forked copy of this process that ends right after: [`apart`] makes the copy, and
//! nothing else in here works outside of one.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Pid;

use super::Errno;
use super::process::{exit_now, last_errno};

/// Set in the copies that [`apart`] makes, and only there.
static APART: AtomicBool = AtomicBool::new(false);

/// What such a copy may say at most.
const WORDS_BYTES_MAX: u64 = 64 * 1024;

/// How a copy of this process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// With these words.
    Said(Vec<u8>),
    /// By a signal; whether memory was dumped.
    Killed {
        /// Its number.
        signal: i32,
        /// `WCOREDUMP` (wait(2)).
        dumped: bool,
    },
    /// Without a word, with this exit code.
    Silent(i32),
    /// Not at all, until it was killed.
    Stuck,
}

/// Runs `body` in a copy of this process, in a process group of its own that is killed afterwards, and passes on what
/// it returns.
///
/// # Errors
/// As pipe(2), fork(2) and wait(2).
pub fn apart(limit: Duration, body: impl FnOnce() -> Vec<u8>) -> Result<Ended, Errno> {
    let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Only of this end: whoever writes waits for room.
    rustix::fs::fcntl_setfl(&from, rustix::fs::OFlags::NONBLOCK)?;
    // SAFETY: fork(2) has no preconditions for a process with one thread, which a self-test's payload is; with more, the
    // copy runs `body`, which is written for it: it makes system calls and may allocate, as glibc's fork allows.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(last_errno());
    }
    if pid == 0 {
        APART.store(true, Ordering::Relaxed);
        drop(from);
        // Alone in its group already when this fails.
        let _ = rustix::process::setpgid(None, None);
        // A copy that makes copies may be killed before it has ended them.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let words = body();
        let _ = rustix::io::write(&to, &words);
        exit_now(0);
    }
    drop(to);
    let pid = Pid::from_raw(pid).ok_or(Errno::CHILD)?;
    let (words, late) = hear(pid, from, limit);
    // Whatever it has started, and itself when it is late. It may be in no group of its own yet.
    let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    if late {
        let _ = super::process::kill_child(pid, libc::SIGKILL);
    }
    ended(pid, words, late)
}

/// What comes until its end or the limit, and which of them it was. Its end, and not the pipe's: what it has started
/// holds that as well.
fn hear(pid: Pid, from: OwnedFd, limit: Duration) -> (Vec<u8>, bool) {
    let (file, start, mut words) = (std::fs::File::from(from), Instant::now(), Vec::new());
    let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
    loop {
        let left = limit.saturating_sub(start.elapsed());
        let wait = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
        let mut ready = vec![PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)];
        ready.extend(handle.iter().map(|handle| PollFd::new(handle, PollFlags::IN)));
        match rustix::event::poll(&mut ready, Some(&wait)) {
            Ok(0) => return (words, true),
            Err(Errno::INTR) => continue,
            Ok(_) | Err(_) => {}
        }
        // The kernel looks at one descriptor after the other: what was written and ended between the two looks shows as
        // an end with nothing to read. So it is read in any case, once it has ended.
        let over = ready.get(1).is_some_and(|handle| !handle.revents().is_empty());
        if take(&file, &mut words) || over {
            return (words, false);
        }
    }
}

/// Takes what a pipe that does not block has by now. True when more will not come, or is not wanted.
fn take(mut pipe: &std::fs::File, words: &mut Vec<u8>) -> bool {
    let mut piece = [0; 4096];
    loop {
        match pipe.read(&mut piece) {
            Ok(length) if length > 0 && words.len() as u64 <= WORDS_BYTES_MAX => {
                words.extend_from_slice(&piece[..length]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            _ => return true,
        }
    }
}

fn ended(pid: Pid, words: Vec<u8>, late: bool) -> Result<Ended, Errno> {
    let mut status = 0;
    // SAFETY: waitpid(2) wants a writable int: the local above.
    while unsafe { libc::waitpid(pid.as_raw_nonzero().get(), &raw mut status, 0) } < 0 {
        match last_errno() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
    Ok(if late {
        Ended::Stuck
    } else if !words.is_empty() {
        Ended::Said(words)
    } else if libc::WIFSIGNALED(status) {
        Ended::Killed { signal: libc::WTERMSIG(status), dumped: libc::WCOREDUMP(status) }
    } else {
        Ended::Silent(libc::WEXITSTATUS(status))
    })
}

fn only_apart() -> Result<(), Errno> {
    if APART.load(Ordering::Relaxed) { Ok(()) } else { Err(Errno::DEADLK) }
}

/// Any system call with any arguments, in a copy that [`apart`] has made.
///
/// # Errors
/// What the kernel says; `DEADLK` elsewhere.
pub fn call(number: i64, words: [i64; 6]) -> Result<i64, Errno> {
    only_apart()?;
    let [a, b, c, d, e, f] = words;
    // SAFETY: none is possible for any call with any arguments. The process is a copy (checked above) whose memory nobody
    // shares and that ends with the attempt: see the module's text.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// A system call by the 32-bit entry of a 64-bit kernel (`int 0x80`), in a copy that [`apart`] has made.
///
/// # Errors
/// What the kernel says; `DEADLK` elsewhere; `NOSYS` on machines that have no such entry.
pub fn call_32(number: i32, words: [i32; 3]) -> Result<i32, Errno> {
    only_apart()?;
    #[cfg(target_arch = "x86_64")]
    {
        let [b, c, d] = words.map(|word| i64::from(word.cast_unsigned()));
        let result: i64;
        // SAFETY: as in `call`. rbx is kept by hand because the compiler may use it; r8 to r11 are lost by the entry.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {b}", "int 0x80", "xchg rbx, {b}",
                b = inout(reg) b => _,
                inout("rax") i64::from(number) => result,
                in("rcx") c, in("rdx") d, in("rsi") -1_i64, in("rdi") -1_i64,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        // The entry's results have 32 bits (arch/x86/entry/entry_64_compat.S).
        #[expect(clippy::cast_possible_truncation, reason = "that is what the entry returns")]
        let result = result as i32;
        if (-4095..0).contains(&result) { Err(Errno::from_raw_os_error(-result)) } else { Ok(result) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (number, words);
        Err(Errno::NOSYS)
    }
}

/// An address for [`call`].
pub fn address<T: ?Sized>(of: &T) -> i64 {
    std::ptr::from_ref(of).cast::<u8>().expose_provenance() as i64
}

/// An address for [`call`] to write to, when what is written is read.
pub fn room<T: ?Sized>(of: &mut T) -> i64 {
    std::ptr::from_mut(of).cast::<u8>().expose_provenance() as i64
}

/// Ends this copy by a memory fault, as a program with a bug does.
pub fn crash() -> ! {
    if only_apart().is_ok() {
        // Rust's own handler lets go of the first, expecting the fault to come again (library/std, stack_overflow).
        for _ in 0..2 {
            // SAFETY: raise(3) takes a number. The copy is to end.
            unsafe { libc::raise(libc::SIGSEGV) };
        }
    }
    exit_now(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn nothing_works_in_the_process_itself() {
        assert_eq!(call(libc::SYS_getpid, [0; 6]), Err(Errno::DEADLK));
        assert_eq!(call_32(20, [0; 3]), Err(Errno::DEADLK));
    }

    #[test]
    fn a_copy_says_how_it_went() {
        let own = i64::from(std::process::id());
        let said = apart(LIMIT, || match call(libc::SYS_getpid, [0; 6]) {
            Ok(pid) if pid == own => b"same".to_vec(),
            Ok(_) => b"other".to_vec(),
            Err(_) => b"none".to_vec(),
        });
        assert_eq!(said, Ok(Ended::Said(b"other".to_vec())), "the pid of the copy is not ours");
        let wrong = apart(LIMIT, || {
            let close = call(libc::SYS_close, [-1; 6]);
            format!("{close:?}").into_bytes()
        });
        assert_eq!(wrong, Ok(Ended::Said(format!("{:?}", Err::<i64, _>(Errno::BADF)).into_bytes())));
        assert!(matches!(apart(LIMIT, || crash()), Ok(Ended::Killed { signal: libc::SIGSEGV, .. })));
        assert_eq!(apart(LIMIT, || exit_now(7)), Ok(Ended::Silent(7)));
        let long = vec![b'l'; 20_000];
        assert_eq!(apart(LIMIT, || long.clone()), Ok(Ended::Said(long.clone())));
        // What it leaves behind holds the pipe, and is not waited for.
        let fertile = || {
            if call(libc::SYS_clone, [libc::SIGCHLD.into(), 0, 0, 0, 0, 0]) == Ok(0) {
                std::thread::sleep(LIMIT);
            }
            b"gone".to_vec()
        };
        assert_eq!(apart(LIMIT, fertile), Ok(Ended::Said(b"gone".to_vec())));
        let sleep = || {
            std::thread::sleep(LIMIT);
            Vec::new()
        };
        assert_eq!(apart(Duration::from_millis(10), sleep), Ok(Ended::Stuck));
    }
}
