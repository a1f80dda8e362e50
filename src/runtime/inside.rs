//! Something that can only be done inside a sandbox's namespaces: by a process of its own, because entering a user
//! namespace cannot be undone, and gives the capabilities that the launcher has dropped only there.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::sys::process::{self, Cloned};
use crate::sys::{Errno, socket};
use crate::wire;
use crate::wire::launch::{Failure, FailureKind};

/// Longer than this the launcher does not wait: it does nothing else in the meantime.
const WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A step in words, with what the kernel said.
pub(super) fn failed(what: &str) -> impl Fn(Errno) -> Failure {
    move |errno| {
        let kind = match errno {
            Errno::OPNOTSUPP | Errno::NOENT | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => {
                FailureKind::HostUnsupported
            }
            Errno::NOMEM | Errno::NOBUFS | Errno::MFILE | Errno::NFILE | Errno::AGAIN => {
                FailureKind::Capacity
            }
            _ => FailureKind::Internal,
        };
        Failure { kind, what: what.to_owned(), detail: errno.to_string() }
    }
}

/// Does `work` in a clone, and gives the descriptors that it has made there.
///
/// # Errors
/// What `work` says, or that it did not end in time.
pub(super) fn run(
    what: &str,
    work: impl FnOnce() -> Result<Vec<OwnedFd>, Failure>,
) -> Result<Vec<OwnedFd>, Failure> {
    let (ours, theirs) = socket::pair().map_err(failed("make a socket"))?;
    match process::clone3(0, None).map_err(failed(what))? {
        Cloned::Child => {
            let (result, made) = match work() {
                Ok(made) => (Ok(()), made),
                Err(failure) => (Err(failure), Vec::new()),
            };
            let made: Vec<_> = made.iter().map(AsFd::as_fd).collect();
            let message = wire::encode::<Result<(), Failure>>(&result).unwrap_or_default();
            // A launcher that is gone has nobody to tell.
            let _ = socket::send(&theirs, &message, &made);
            process::exit_now(0)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let answered = answer(what, &ours);
            if answered.is_err() {
                // It may hang; one that has ended is as good.
                let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            }
            let _ = process::wait_for(pid);
            answered
        }
    }
}

fn answer(what: &str, control: &OwnedFd) -> Result<Vec<OwnedFd>, Failure> {
    let mut readable = [PollFd::new(control, PollFlags::IN)];
    if rustix::event::poll(&mut readable, Some(&WITHIN)).map_err(failed(what))? == 0 {
        return Err(failed(what)(Errno::TIMEDOUT));
    }
    let mut buffer = [0; 4096];
    let received = socket::receive(control, &mut buffer).map_err(failed(what))?;
    let result: Result<(), Failure> =
        wire::decode(&buffer[..received.length]).map_err(|_| failed(what)(Errno::PIPE))?;
    result.map(|()| received.fds)
}
