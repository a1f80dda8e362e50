//! Our own code with the rights of a command: the other end of serve's [`wire::worker`](crate::wire::worker).
//!
//! A worker is a fork of the zygote that has become its user, with the command's Landlock domain, system call
//! filter and control group, and no program. It is never the agent: what it opens may hang, and what runs beside
//! it as the same user may kill it.

use std::os::fd::OwnedFd;

use crate::limits::FRAME_BYTES_MAX;
use crate::sys::{Errno, socket};
use crate::wire;
use crate::wire::worker::{Answer, Call, Reply, Request};

/// Answers until serve closes its end.
///
/// # Errors
/// When the socket fails, or serve sends something that is not a request.
pub(super) fn run(socket: &OwnedFd) -> Result<(), Errno> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let received = socket::receive(socket, &mut buffer)?;
        if received.length == 0 {
            return Ok(());
        }
        let request: Request = wire::decode(&buffer[..received.length]).map_err(|_| Errno::PROTO)?;
        let result = match request.call {
            Call::Ping => Ok(Answer::Pong),
        };
        let reply = Reply { number: request.number, result };
        socket::send(socket, &wire::encode(&reply).map_err(|_| Errno::TOOBIG)?, &[])?;
    }
}
