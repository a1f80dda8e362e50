//! Role `bucket`: one bucket of S3 as a file system, in a process of its own.
//!
//! ```text
//! programs ─ kernel ─ /dev/fuse ─▶ fuse ─▶ fs ─▶ s3 ─▶ dialer's sockets ─▶ the one endpoint
//!                                          └─▶ the mount's directory: cache/, staged/
//! launch ─ BucketCall ─▶ run ─ BucketWord ─▶
//! ```
//!
//! # Consistency
//!
//! - **Another client sees** a file when close(2) or fsync(2) has returned, whole, and before that nothing of it or the
//!   former object. What makes, removes or renames names is in the bucket when its call has returned.
//! - **An upload that fails** is the error of that close or fsync. The bytes stay here and are tried again for as long as
//!   the mount lives; unmounting waits for them, or says which files are lost. They survive this process.
//! - **We see** what others do after `attribute_ttl_ms` at the latest, and at each open that comes later than that. An
//!   object that is replaced while a program has it open reads as it was, from what is cached, or as ESTALE: never as a
//!   mixture.
//! - **Within the mount** a program reads what another one has written at once, uploaded or not, as on a disk.
//! - **Two writers**: the last to close wins. With `conditional_writes` the second one's close is ESTALE, and the object
//!   is as the first one left it. Of files that are sent in parts that is as sure as the server makes it: one that takes
//!   no condition for the last step (radosgw 16) leaves a moment between our last look and it, in which both win.
//! - **rename** is a copy and a removal, of directories one by one: others may see both, and after a failure both stay.
//!
//! # What differs from a disk
//!
//! - A change of an object writes it whole: a database that calls fsync often is slow, if correct. Locks hold among the
//!   programs of the mount.
//! - What is not uploaded yet takes as much room as the cache may have; beyond that writing is ENOSPC.
//! - chmod and utimensat of a closed file are a copy of it within the server. Of permissions the lowest nine bits and the
//!   sticky bit are kept. chown does nothing: owners are the mount's.
//! - There are no hard links, devices, FIFOs and extended attributes. Keys that are no paths are not shown.
//! - The type of a name that was not looked at is unknown in a listing: the bucket keeps it with the object.
//!
//! Invariants
//! - No capability, one directory, no address: what is connected is what the dialer hands over.
//! - A secret is in memory alone, and in no log.
//! - Whatever the server answers, a call ends with an errno within a bounded time, and sooner for who is being killed.

mod fs;
mod fuse;
mod s3;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys::channel::{Channel, ChannelError};
use crate::wire::bucket::{
    BucketCall, BucketFailure, BucketFailureKind, BucketStart, BucketWord, Credentials,
};
use fs::Mount;
use s3::{Client, Failure};

/// How long the bucket may take to answer before there is no mount.
const PROBE: Duration = Duration::from_secs(14);

/// So long before credentials end, others are asked for.
const RENEW: Duration = Duration::from_secs(300);

/// Threads that requests run on. One more reads them.
const THREADS: usize = 2;

/// Why the worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The certificates of the mount.
    #[error("the mount's certificates: {0}")]
    Certificates(String),
    /// Descriptors are missing.
    #[error("a descriptor is missing")]
    Descriptors,
    /// The runtime, or a socket.
    #[error("the worker's sockets")]
    Io(#[from] std::io::Error),
    /// launch speaks something else.
    #[error("launch")]
    Launch(#[from] ChannelError),
}

/// A worker that is ready to be closed in.
#[derive(Debug)]
pub struct Prepared {
    start: BucketStart,
    tls: Arc<rustls::ClientConfig>,
    device: OwnedFd,
    dialer: OwnedFd,
    directory: OwnedFd,
}

/// Takes what came with the first message, and reads what is read from files before there are none any more.
///
/// # Errors
/// When a descriptor is missing, or the certificates are none.
pub fn prepare(start: BucketStart, fds: Vec<OwnedFd>) -> Result<Prepared, BucketError> {
    let [device, dialer, directory] = <[OwnedFd; 3]>::try_from(fds).map_err(|_| BucketError::Descriptors)?;
    let ca_pem = Some(start.ca_pem.as_str()).filter(|pem| !pem.is_empty());
    let tls = Arc::new(crate::tls::client(ca_pem).map_err(BucketError::Certificates)?);
    Ok(Prepared { start, tls, device, dialer, directory })
}

impl Prepared {
    /// The mount's directory: all that is left to open.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Runs until the mount ends, or launch is gone.
    ///
    /// # Errors
    /// When the runtime cannot start, or launch speaks something else.
    pub fn run(self, control: OwnedFd) -> Result<(), BucketError> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
        let result = runtime.block_on(self.serve(control));
        // Requests that are still open are nobody's any more.
        runtime.shutdown_background();
        result
    }

    async fn serve(self, control: OwnedFd) -> Result<(), BucketError> {
        let control = Channel::new(control)?;
        let internal = |message: String| BucketFailure { kind: BucketFailureKind::Internal, message };
        let Self { start, tls, device, dialer, directory } = self;
        let probed = async {
            let client = Client::new(&start, dialer, tls)?;
            // The one question that any use of the bucket needs the answer to.
            client.list(&start.prefix, true, None, 1).await?;
            Ok::<_, Failure>(client)
        };
        let client = match tokio::time::timeout(PROBE, probed).await {
            Ok(client) => client.map_err(|failure| failure.of_mount()),
            Err(_) => Err(Failure::Timeout.of_mount()),
        };
        let mounted = client.and_then(|client| {
            let mount = Mount::new(&start, Arc::clone(&client), &directory)
                .map_err(|errno| internal(format!("the mount's directory: {errno}")))?;
            fuse::start(device, Arc::clone(&mount)).map_err(|error| internal(error.to_string()))?;
            Ok((client, mount))
        });
        let (client, mount) = match mounted {
            Ok(mounted) => mounted,
            Err(failure) => return Ok(control.send(&BucketWord::Failed(failure), &[]).await?),
        };
        control.send(&BucketWord::Ready, &[]).await?;
        listen(&control, &client, &mount, start.credentials).await
    }
}

/// Answers launch until it is gone. What programs do goes on beside it.
async fn listen(
    control: &Channel,
    client: &Client,
    mount: &Arc<Mount>,
    mut credentials: Credentials,
) -> Result<(), BucketError> {
    loop {
        let call = tokio::select! {
            call = control.receive::<BucketCall>() => call,
            () = client.expired.notified() => {
                control.send(&BucketWord::NeedCredentials, &[]).await?;
                continue;
            }
            () = tokio::time::sleep(until_renewal(&credentials)) => {
                control.send(&BucketWord::NeedCredentials, &[]).await?;
                // Asked once; the server's refusal asks again.
                credentials = Credentials::Anonymous;
                continue;
            }
        };
        match call {
            Ok((BucketCall::Status, _)) => control.send(&BucketWord::Status(mount.status()), &[]).await?,
            Ok((BucketCall::Credentials(new), _)) => {
                client.renew(&new);
                credentials = new;
            }
            Ok((BucketCall::Unmount { deadline_ms }, _)) => {
                let word = match mount.drain(Duration::from_millis(deadline_ms)).await {
                    Ok(()) => BucketWord::Drained,
                    Err((files, count)) => BucketWord::Lost { files, count },
                };
                return Ok(control.send(&word, &[]).await?);
            }
            // The daemon ends, and so do we. What is not uploaded is for the next worker.
            Err(ChannelError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn until_renewal(credentials: &Credentials) -> Duration {
    let Credentials::Keys { expires_ms: Some(expires_ms), .. } = credentials else {
        return Duration::from_secs(365 * 24 * 3600);
    };
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(*expires_ms).saturating_sub(since_1970).saturating_sub(RENEW)
}
