//! Servers of buckets: their workers have no network, and are handed connections to one server each.
//!
//! The name is resolved each time. Addresses that sandboxes may not reach are closed to buckets too, unless the operator
//! opens them: whoever names a server is a client of the API, and not somebody who may look around in the host's network.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::dial::dial;
use super::{Gateway, address, policy};
use crate::sys::Errno;
use crate::sys::channel::Channel;
use crate::wire::bucket::Dialled;
use crate::wire::mount::Server;

/// Connections that are being made for one worker at the same time.
const AT_ONCE: usize = 32;

/// Hands out connections to `server` until nobody has the other end of `socket`.
pub(super) async fn attend(gateway: Arc<Gateway>, server: Server, socket: OwnedFd) {
    let channel = match Channel::new(socket) {
        Ok(channel) => Arc::new(channel),
        Err(error) => return tracing::error!(%error, "cannot use the socket of a bucket's worker"),
    };
    let places = Arc::new(Semaphore::new(AT_ONCE));
    // Dropped, and with them what they are at, when the worker is gone.
    let mut connecting = JoinSet::new();
    let server = Arc::new(server);
    while let Ok((_, _)) = channel.receive::<u8>().await {
        while connecting.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (gateway, server, channel) = (Arc::clone(&gateway), Arc::clone(&server), Arc::clone(&channel));
        connecting.spawn(async move {
            let _place = place;
            let connected = connect(&gateway, &server).await;
            let (said, connection): (Dialled, _) = match connected {
                Ok(connection) => (Ok(()), Some(connection)),
                Err(errno) => (Err(errno.raw_os_error()), None),
            };
            let fds: Vec<_> = connection.iter().map(|fd| fd.as_fd()).collect();
            // A worker that is gone needs no answer.
            let _ = channel.send(&said, &fds).await;
        });
    }
}

async fn connect(gateway: &Gateway, server: &Server) -> Result<OwnedFd, Errno> {
    let addresses = match server.host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => gateway.names.addresses(&server.host).await,
    };
    let mut failure = Errno::HOSTUNREACH;
    for address in addresses.into_iter().map(address::canonical) {
        if !policy::may_reach(address, &gateway.start.open) {
            tracing::info!(host = server.host, %address, "a bucket's server is not open: see network.open");
            failure = Errno::ACCESS;
            continue;
        }
        match dial((address, server.port).into()).await {
            Ok(stream) => {
                let stream = stream.into_std().map_err(|_| Errno::IO)?;
                return Ok(stream.into());
            }
            Err(error) => failure = Errno::from_io_error(&error).unwrap_or(Errno::TIMEDOUT),
        }
    }
    Err(failure)
}
