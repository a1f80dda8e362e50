//! Executing a program: everything is laid out before the fork, so that the child only passes pointers on.

#![allow(unsafe_code, reason = "sys holds the unsafe code; see the contract in its module doc")]

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::Errno;
use super::process::last_errno;

/// A NULL-terminated array of C strings, as execve(2) wants.
pub struct Strings {
    /// Owns what `pointers` points to; a `CString`'s buffer does not move when the vector does.
    owned: Vec<CString>,
    /// Room for one more string that is only known in the child; see [`Strings::with_room`].
    room: Box<[u8]>,
    pointers: Vec<*const c_char>,
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.owned.fmt(f)
    }
}

impl Strings {
    /// Lays the strings out.
    pub fn new(owned: Vec<CString>) -> Self {
        Self::with_room(owned, 0)
    }

    /// Lays the strings out, with room for one more of less than `bytes` bytes.
    pub fn with_room(owned: Vec<CString>, bytes: usize) -> Self {
        let mut pointers: Vec<_> = owned.iter().map(|string| string.as_ptr()).collect();
        pointers.extend([std::ptr::null(), std::ptr::null()]);
        Self { owned, room: vec![0; bytes].into_boxed_slice(), pointers }
    }

    /// Appends `parts`, joined, in the room that was left. Without allocating: this runs between fork and exec.
    /// Does nothing when they do not fit or hold a NUL.
    pub fn append(&mut self, parts: [&[u8]; 2]) {
        let length = parts[0].len() + parts[1].len();
        if length >= self.room.len() || parts.iter().any(|part| part.contains(&0)) {
            return;
        }
        let (head, tail) = self.room.split_at_mut(parts[0].len());
        head.copy_from_slice(parts[0]);
        tail[..parts[1].len()].copy_from_slice(parts[1]);
        tail[parts[1].len()] = 0;
        self.pointers[self.owned.len()] = self.room.as_ptr().cast();
    }
}

/// Replaces this process's program. Returns only on failure.
pub fn execve(path: &CStr, argv: &Strings, envp: &Strings) -> Errno {
    // SAFETY: execve(2) wants a C string and two NULL-terminated arrays of C strings. `Strings` owns its strings,
    // appended one included, and ends with a null pointer; all three are borrowed across the call.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), envp.pointers.as_ptr()) };
    last_errno()
}

/// As [`execve`], with the program named by descriptor, which may be close-on-exec (execveat(2)).
pub fn execveat(program: BorrowedFd<'_>, argv: &Strings, envp: &Strings) -> Errno {
    // SAFETY: as for `execve`; the path is the empty string, as AT_EMPTY_PATH wants.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

/// Marks every descriptor from `first` on close-on-exec (close_range(2)).
///
/// # Errors
/// As close_range(2).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Duplicates a descriptor, not close-on-exec, under a number that must be free. Allocates nothing.
///
/// # Errors
/// As fcntl(2), `F_DUPFD`; `EXIST` when the number was taken.
pub fn pass_as(fd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    // SAFETY: fcntl(2) with F_DUPFD takes two integers; the new descriptor is owned by nobody, and the process is
    // about to execute a program that finds it by its number.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, number) };
    match result {
        _ if result == number => Ok(()),
        0.. => Err(Errno::EXIST),
        _ => Err(last_errno()),
    }
}

/// Closes every descriptor except the standard streams and those given. Afterwards the process holds nothing
/// that it inherited by accident. Every `OwnedFd` outside `keep` must have been forgotten or leaked: the caller
/// is a process that was just cloned and never drops its parent's values.
///
/// # Errors
/// As close_range(2).
pub fn close_all_except(keep: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut sorted: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    sorted.sort_unstable();
    let mut next = 3;
    for fd in sorted {
        if fd > next {
            close_range(next, fd - 1, 0)?;
        }
        next = next.max(fd + 1);
    }
    close_range(next, u32::MAX, 0)
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<(), Errno> {
    // SAFETY: close_range(2) takes three integers. Closing a descriptor that a live `OwnedFd` owns would break
    // I/O safety; both callers are documented to run where no such value is used again.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// A copy of this very program that nobody can write to: `/proc/PID/exe` of a process that runs it leads to
/// sealed memory instead of a file on the host (CVE-2019-5736).
///
/// # Errors
/// As memfd_create(2), open(2), read(2), write(2) and fcntl(2).
pub fn sealed_copy_of_self() -> std::io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let mut program = std::fs::File::open("/proc/self/exe")?;
    let copy = rustix::fs::memfd_create("stockade", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = std::fs::File::from(copy);
    std::io::copy(&mut program, &mut copy)?;
    // Everybody may execute it, because roles do so after they gave up root, and only root may open it: a sandbox
    // that runs /proc/self/exe cannot read it, lock it, or hang attributes on it.
    rustix::fs::fchmod(&copy, rustix::fs::Mode::from_raw_mode(0o711))?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&copy, seals)?;
    Ok(copy.into())
}
