//! Bytes both ways, until one of the many ends of a connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// Bytes in our hands, each way. More waits in the sender's socket.
const BUFFER_BYTES: usize = 16 * 1024;

/// How long the two sides may take to change the protocol after both have said so.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(10);

/// What else ends a tunnel than the two sides themselves.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Whoever asked for it may no longer.
    pub(crate) over: CancellationToken,
    /// The daemon stops.
    pub(crate) abort: CancellationToken,
    /// Silence of this length.
    pub(crate) idle: Option<Duration>,
}

/// Joins two connections that change to another protocol.
pub(super) async fn upgraded(
    client: OnUpgrade,
    server: OnUpgrade,
    ends: Ends,
    sandbox_ended: impl Future<Output = ()>,
) {
    let both = async { tokio::try_join!(client, server) };
    match tokio::time::timeout(SWITCH_TIMEOUT, both).await {
        Ok(Ok((client, server))) => {
            tunnel(TokioIo::new(client), TokioIo::new(server), ends, sandbox_ended).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, "a connection did not change its protocol"),
        Err(_) => tracing::debug!("a connection did not change its protocol in time"),
    }
}

/// Passes bytes both ways. The end of one direction is passed on; the end of both ends it.
pub(crate) async fn tunnel<A, B>(client: A, server: B, ends: Ends, sandbox_ended: impl Future<Output = ()>)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let moved = AtomicU64::new(0);
    let (client_reader, client_writer) = tokio::io::split(client);
    let (server_reader, server_writer) = tokio::io::split(server);
    let both = async {
        tokio::try_join!(
            pass(client_reader, server_writer, &moved),
            pass(server_reader, client_writer, &moved)
        )
    };
    tokio::select! {
        // What broke is closed on the other side as well.
        _ = both => {}
        () = ends.over.cancelled() => {}
        () = ends.abort.cancelled() => {}
        () = sandbox_ended => {}
        () = silence(ends.idle, &moved) => tracing::debug!("closing a tunnel that is not in use"),
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        moved.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ends when nothing has moved for so long.
async fn silence(idle: Option<Duration>, moved: &AtomicU64) {
    let Some(idle) = idle else { return std::future::pending().await };
    loop {
        let before = moved.load(Ordering::Relaxed);
        tokio::time::sleep(idle).await;
        if moved.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(idle: Option<Duration>) -> Ends {
        Ends { over: CancellationToken::new(), abort: CancellationToken::new(), idle }
    }

    #[tokio::test]
    async fn the_end_of_one_direction_is_not_the_end_of_the_other() {
        let (mut client, ours) = tokio::io::duplex(64);
        let (theirs, mut server) = tokio::io::duplex(64);
        let tunnel = tunnel(ours, theirs, ends(None), std::future::pending());
        let talk = async {
            client.write_all(b"question").await.expect("write");
            client.shutdown().await.expect("shutdown");
            let mut text = String::new();
            server.read_to_string(&mut text).await.expect("read");
            assert_eq!(text, "question");
            server.write_all(b"answer").await.expect("write");
            drop(server);
            text.clear();
            client.read_to_string(&mut text).await.expect("read");
            assert_eq!(text, "answer");
        };
        tokio::join!(tunnel, talk);
    }

    #[tokio::test]
    async fn a_side_that_does_not_read_stops_the_other_and_silence_ends_both() {
        let (mut client, ours) = tokio::io::duplex(64);
        let (theirs, _server) = tokio::io::duplex(64);
        let tunnel = tunnel(ours, theirs, ends(Some(Duration::from_millis(50))), std::future::pending());
        let mut sent = 0;
        let flood = async {
            while let Ok(count) = client.write(&[0; 64]).await {
                sent += count
            }
        };
        tokio::join!(tunnel, async {
            let _ = tokio::time::timeout(Duration::from_secs(5), flood).await;
        });
        assert!(sent <= 2 * 64 + BUFFER_BYTES + 64, "{sent} bytes were taken for nobody");
    }

    #[tokio::test]
    async fn whoever_may_no_longer_is_cut_off() {
        let (mut client, ours) = tokio::io::duplex(64);
        let (theirs, _server) = tokio::io::duplex(64);
        let ends = ends(None);
        ends.over.cancel();
        tunnel(ours, theirs, ends, std::future::pending()).await;
        assert_eq!(client.read(&mut [0; 8]).await.expect("read"), 0);
    }
}
