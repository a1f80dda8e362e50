//! Bytes from one end to the other and back, with the back-pressure of both.
//!
//! ```text
//! first bytes   read ─▶ the thread's buffer ─▶ write      nothing is held for a connection that is idle
//! bulk          splice ─▶ pipe ─▶ splice                  pages change hands, nothing is copied
//! ```
//!
//! Nothing is read that cannot be written: a slow reader slows its writer down, and no one else.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::net::Shutdown;
use rustix::pipe::{PipeFlags, SpliceFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::member::Member;

/// Bytes after which a direction is bulk: a pipe is worth its price.
const BULK: u64 = 256 * 1024;

/// What is read at once before that.
const BUFFER: usize = 64 * 1024;

/// Bytes of a pipe for bulk. An ordinary user's pipes may have 64 MiB altogether (`pipe-user-pages-soft`); beyond it
/// they have what they are given.
const PIPE: usize = 1024 * 1024;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER]);
}

/// Moves bytes both ways until both ends are done. `first` was read from the sandbox already.
pub(super) async fn run(
    member: &Member,
    sandbox: &TcpStream,
    world: &TcpStream,
    first: &[u8],
) -> io::Result<()> {
    let audit = &member.audit;
    let out = async {
        write_all(world, first).await?;
        audit.sent.fetch_add(first.len() as u64, Ordering::Relaxed);
        pour(member, sandbox, world, &audit.sent).await
    };
    tokio::try_join!(out, pour(member, world, sandbox, &audit.received)).map(|_| ())
}

/// One direction, to its end.
async fn pour(member: &Member, from: &TcpStream, to: &TcpStream, count: &AtomicU64) -> io::Result<()> {
    let mut moved = 0;
    while moved < BULK {
        let Some(length) = copy_some(from, to).await? else { return finish(to) };
        moved += length as u64;
        account(member, count, length).await;
    }
    let pipe = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
    let Ok(pipe) = pipe else {
        // No descriptors are left: slower, and still whole.
        while let Some(length) = copy_some(from, to).await? {
            account(member, count, length).await;
        }
        return finish(to);
    };
    // Smaller is only slower.
    let _ = rustix::pipe::fcntl_setpipe_size(&pipe.1, PIPE);
    while let Some(length) = splice_some(from, to, &pipe).await? {
        account(member, count, length).await;
    }
    finish(to)
}

async fn account(member: &Member, count: &AtomicU64, length: usize) {
    count.fetch_add(length as u64, Ordering::Relaxed);
    if let Some(pause) = member.pause_after(length) {
        tokio::time::sleep(pause).await;
    }
}

/// The end of one direction is passed on; the other may go on.
fn finish(to: &TcpStream) -> io::Result<()> {
    match rustix::net::shutdown(to, Shutdown::Write) {
        // It is gone altogether.
        Err(rustix::io::Errno::NOTCONN) => Ok(()),
        other => Ok(other?),
    }
}

/// Copies what is there; `None` at the end.
async fn copy_some(from: &TcpStream, to: &TcpStream) -> io::Result<Option<usize>> {
    loop {
        from.readable().await?;
        let attempt = SHARED.with_borrow_mut(|buffer| -> io::Result<(usize, Vec<u8>)> {
            let length = from.try_read(buffer)?;
            let written = match to.try_write(&buffer[..length]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            Ok((length, buffer[written..length].to_vec()))
        });
        match attempt {
            Ok((0, _)) => return Ok(None),
            Ok((length, rest)) => {
                write_all(to, &rest).await?;
                return Ok(Some(length));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

pub(super) async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Moves what is there through a pipe, which is empty before and after; `None` at the end.
async fn splice_some(
    from: &TcpStream,
    to: &TcpStream,
    (reader, writer): &(OwnedFd, OwnedFd),
) -> io::Result<Option<usize>> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    let take = || Ok(rustix::pipe::splice(from, None, writer, None, PIPE, flags)?);
    let length = from.async_io(Interest::READABLE, take).await?;
    let mut left = length;
    while left > 0 {
        let give = || Ok(rustix::pipe::splice(reader, None, to, None, left, flags)?);
        left -= to.async_io(Interest::WRITABLE, give).await?.min(left);
    }
    Ok((length > 0).then_some(length))
}
