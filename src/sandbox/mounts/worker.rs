//! serve's end of the socket to a bucket's worker.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::spec::Unmounted;
use crate::error::{Error, ErrorCode};
use crate::sys::channel::Channel;
use crate::wire::bucket::{
    BucketCall, BucketFailure, BucketFailureKind, BucketStatus, BucketWord, Credentials,
};

/// How long a worker may take to say whether there is such a bucket: longer than it allows itself.
const PROBE: Duration = Duration::from_secs(20);

/// How long one may take to say how it goes.
const STATUS: Duration = Duration::from_secs(2);

/// What a new worker says of its bucket, once.
type Ready = oneshot::Receiver<Result<(), BucketFailure>>;

/// A worker that runs.
#[derive(Debug)]
pub(super) struct Worker {
    channel: Channel,
    waiting: Mutex<Waiting>,
    /// It wants other credentials.
    pub(super) wants_credentials: Notify,
    /// Cancelled when it is gone.
    pub(super) gone: CancellationToken,
}

#[derive(Debug, Default)]
struct Waiting {
    ready: Vec<oneshot::Sender<Result<(), BucketFailure>>>,
    status: Vec<oneshot::Sender<BucketStatus>>,
    end: Vec<oneshot::Sender<Unmounted>>,
}

impl Worker {
    /// Takes over the socket. Gives what says whether there is such a bucket.
    pub(super) fn new(socket: OwnedFd) -> std::io::Result<(Arc<Self>, Ready)> {
        let (sender, ready) = oneshot::channel();
        let worker = Arc::new(Self {
            channel: Channel::new(socket)?,
            waiting: Mutex::new(Waiting { ready: vec![sender], ..Waiting::default() }),
            wants_credentials: Notify::new(),
            gone: CancellationToken::new(),
        });
        let reader = Arc::clone(&worker);
        tokio::spawn(async move {
            while let Ok((word, _)) = reader.channel.receive::<BucketWord>().await {
                reader.hear(word);
            }
            reader.gone.cancel();
            // Whoever waits is told by the end of what they wait for.
            *reader.lock() = Waiting::default();
        });
        Ok((worker, ready))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Each list stands for itself.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, word: BucketWord) {
        let mut waiting = self.lock();
        match word {
            BucketWord::Ready => tell(&mut waiting.ready, &Ok(())),
            BucketWord::Failed(why) => tell(&mut waiting.ready, &Err(why)),
            BucketWord::Status(status) => tell(&mut waiting.status, &status),
            BucketWord::NeedCredentials => self.wants_credentials.notify_one(),
            BucketWord::Drained => tell(&mut waiting.end, &Unmounted::default()),
            BucketWord::Lost { files, count } => {
                tell(&mut waiting.end, &Unmounted { lost: files, lost_count: count });
            }
        }
    }

    /// How it goes; nothing when it does not say so in time.
    pub(super) async fn status(&self) -> Option<BucketStatus> {
        let (sender, receiver) = oneshot::channel();
        self.lock().status.push(sender);
        let asked = async {
            self.channel.send(&BucketCall::Status, &[]).await.ok()?;
            receiver.await.ok()
        };
        tokio::time::timeout(STATUS, asked).await.ok()?
    }

    /// Gives it other credentials. One that is gone needs none.
    pub(super) async fn renew(&self, credentials: Credentials) {
        let _ = self.channel.send(&BucketCall::Credentials(credentials), &[]).await;
    }

    /// Has it upload what is left, and end. Nothing when it has not said in time what became of that.
    pub(super) async fn drain(&self, within: Duration) -> Option<Unmounted> {
        let (sender, receiver) = oneshot::channel();
        self.lock().end.push(sender);
        let deadline_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let asked = async {
            self.channel.send(&BucketCall::Unmount { deadline_ms }, &[]).await.ok()?;
            receiver.await.ok()
        };
        // It gives up by itself; this is for one that hangs.
        tokio::time::timeout(within + STATUS, asked).await.ok()?
    }
}

fn tell<T: Clone>(waiting: &mut Vec<oneshot::Sender<T>>, what: &T) {
    for one in waiting.drain(..) {
        // Whoever has stopped waiting needs no answer.
        let _ = one.send(what.clone());
    }
}

/// Waits for what a new worker says of its bucket.
pub(super) async fn probed(ready: Ready) -> Result<(), Error> {
    match tokio::time::timeout(PROBE, ready).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(failure))) => Err(refused(failure)),
        Ok(Err(_)) => Err(Error::new(ErrorCode::Internal, "the bucket's worker ended before it was ready")),
        Err(_) => Err(Error::new(ErrorCode::BucketUnreachable, "the bucket's server did not answer in time")),
    }
}

/// What the caller is told when there is no such bucket.
fn refused(failure: BucketFailure) -> Error {
    let code = match &failure.kind {
        BucketFailureKind::NoSuchBucket => ErrorCode::BucketNotFound,
        BucketFailureKind::Denied => ErrorCode::BucketDenied,
        BucketFailureKind::Unreachable => ErrorCode::BucketUnreachable,
        BucketFailureKind::WrongRegion { .. } => ErrorCode::BucketWrongRegion,
        BucketFailureKind::BadCertificate => ErrorCode::BucketBadCertificate,
        BucketFailureKind::Redirected | BucketFailureKind::Protocol => ErrorCode::BucketNotS3,
        BucketFailureKind::Internal => ErrorCode::Internal,
    };
    let error = Error::new(code, failure.message);
    match failure.kind {
        BucketFailureKind::WrongRegion { expected: Some(region) } => error
            .hint(format!("give region `{region}`"))
            .context(serde_json::json!({ "field": "region", "expected": region })),
        _ => error,
    }
}
