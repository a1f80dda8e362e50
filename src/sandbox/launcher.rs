//! serve's side of the socket to launch: many requests in flight, replies matched by number.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::random::random_number;
use crate::error::{Error, ErrorCode};
use crate::sys::channel::{Channel, ChannelError};
use crate::wire::launch::{Answer, Call, Failure, FailureKind, Reply, Request};

/// A cloneable connection to launch.
#[derive(Clone, Debug)]
pub struct Launcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    channel: Channel,
    /// From a random one on: launch answers some requests late, and an answer for the serve before this one must be
    /// nobody's here.
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answered>>>,
}

type Answered = Result<(Answer, Vec<OwnedFd>), Failure>;

/// Why a request to launch came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// launch says why.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// launch is gone; serve must end, and be started again with it.
    #[error("the launcher is gone")]
    Gone,
}

impl Launcher {
    /// Takes over the socket to launch and starts the task that reads its replies. The receiver fires when
    /// launch is gone.
    ///
    /// # Errors
    /// When the socket cannot be registered with tokio.
    pub fn start(socket: OwnedFd) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let inner = Arc::new(Inner {
            channel: Channel::new(socket)?,
            next: AtomicU64::new(random_number()),
            waiting: Mutex::default(),
        });
        let (gone, when_gone) = oneshot::channel();
        let reader = Arc::clone(&inner);
        tokio::spawn(async move {
            let error = reader.read_replies().await;
            tracing::error!(%error, "lost the launcher");
            reader.lock_waiting().clear();
            // Nobody listening means that serve is ending already.
            let _ = gone.send(());
        });
        Ok((Self(inner), when_gone))
    }

    /// Sends a call and waits for its answer.
    ///
    /// # Errors
    /// What launch says, or that it is gone.
    pub async fn call(&self, call: Call, fds: &[OwnedFd]) -> Result<(Answer, Vec<OwnedFd>), LauncherError> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.0.lock_waiting().insert(number, sender);
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        if let Err(error) = self.0.channel.send(&Request { number, call }, &borrowed).await {
            self.0.lock_waiting().remove(&number);
            tracing::error!(%error, "cannot reach the launcher");
            return Err(LauncherError::Gone);
        }
        match receiver.await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(LauncherError::Gone),
        }
    }
}

impl Inner {
    fn lock_waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Answered>>> {
        // The map is valid after any panic: every operation on it is one insert or remove.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_replies(&self) -> ChannelError {
        loop {
            match self.channel.receive::<Reply>().await {
                Ok((reply, fds)) => {
                    if let Some(waiting) = self.lock_waiting().remove(&reply.number) {
                        // A caller that went away drops the descriptors with the answer.
                        let _ = waiting.send(reply.result.map(|answer| (answer, fds)));
                    }
                }
                Err(error) => return error,
            }
        }
    }
}

/// Code, message and hint of a failure of launch.
const fn words(kind: FailureKind) -> (ErrorCode, &'static str, &'static str) {
    match kind {
        FailureKind::Exists => (ErrorCode::SandboxBusy, "the sandbox is still being removed", "try again"),
        FailureKind::NotFound => {
            (ErrorCode::SandboxDead, "the sandbox has ended", "delete it and create it again")
        }
        FailureKind::LayerMissing => {
            (ErrorCode::ImageNotFound, "a layer of the image is gone", "pull the image again")
        }
        FailureKind::SnapshotMissing => {
            (ErrorCode::SnapshotNotFound, "the snapshot's files are gone", "list the snapshots")
        }
        FailureKind::LimitUnsupported => {
            (ErrorCode::LimitUnsupported, "this host cannot enforce a limit", "see `stockade doctor`")
        }
        FailureKind::HostUnsupported => {
            (ErrorCode::HostUnsupported, "this host lacks what isolation needs", "see `stockade doctor`")
        }
        FailureKind::Capacity => (
            ErrorCode::CapacityExhausted,
            "the host has no room for this",
            "delete sandboxes or free disk space",
        ),
        FailureKind::InUse => (
            ErrorCode::LimitBelowUse,
            "the sandbox uses more than that already",
            "end something in it first, or give it more",
        ),
        FailureKind::LayerInvalid => {
            (ErrorCode::ImageInvalid, "a layer is not valid", "check the image's source")
        }
        FailureKind::DirectoryInvalid => (
            ErrorCode::InvalidCwd,
            "the working directory cannot be made in this image",
            "name another directory as `cwd`",
        ),
        FailureKind::MountPointBusy => {
            (ErrorCode::MountInUse, "something is mounted there", "choose another path")
        }
        FailureKind::MountPointInvalid => (
            ErrorCode::MountPointInvalid,
            "nothing can be mounted there",
            "name a directory of the sandbox by its own path",
        ),
        FailureKind::DirectoryRefused => (
            ErrorCode::DirectoryDenied,
            "the host's directory is not shown",
            "an operator names it in mounts.directories; one that is to be written to is not root's",
        ),
        FailureKind::Unsynced => (
            ErrorCode::Internal,
            "the sandbox is stopped, but the disk did not take its files: a crash of the host would lose them",
            "see to the disk; then start the sandbox and stop it again",
        ),
        FailureKind::Mismatch => (
            ErrorCode::IsolationMismatch,
            "the kernel did not isolate the sandbox as asked; it was killed",
            "see the daemon's log and `stockade doctor`",
        ),
        FailureKind::Internal => (
            ErrorCode::Internal,
            "the sandbox could not be made",
            "see the daemon's log under this request id",
        ),
    }
}

/// What the caller is told when launch could not.
pub(super) fn launcher_error(error: LauncherError) -> Error {
    let LauncherError::Refused(failure) = error else {
        return Error::new(ErrorCode::ShuttingDown, "the daemon is restarting").hint("try again in a second");
    };
    let (code, message, hint) = words(failure.kind);
    let Failure { what, detail, .. } = &failure;
    let message = match code {
        ErrorCode::LimitUnsupported | ErrorCode::ImageInvalid | ErrorCode::InvalidCwd => {
            format!("{message}: {what}: {detail}")
        }
        ErrorCode::MountInUse | ErrorCode::MountPointInvalid | ErrorCode::DirectoryDenied => {
            format!("{message}: {detail}")
        }
        _ => message.to_owned(),
    };
    Error::new(code, message).hint(hint).source(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket;

    #[tokio::test]
    async fn an_answer_for_the_serve_before_is_nobodys() {
        let mut number_before = None;
        for _ in 0..2 {
            let (ours, theirs) = socket::pair().expect("pair");
            let (launcher, _gone) = Launcher::start(ours).expect("launcher");
            let launch = Channel::new(theirs).expect("channel");
            let asked = tokio::spawn(async move { launcher.call(Call::Collect, &[]).await });
            let (Request { number, .. }, _) = launch.receive().await.expect("request");
            let late = Reply { number: number_before.unwrap_or(number ^ 1), result: Ok(Answer::Connected) };
            launch.send(&late, &[]).await.expect("sent");
            launch.send(&Reply { number, result: Ok(Answer::Done) }, &[]).await.expect("sent");
            let answered = asked.await.expect("no panic");
            assert!(matches!(answered, Ok((Answer::Done, _))), "{answered:?}");
            number_before = Some(number);
        }
    }
}
