//! Finding the daemon, or starting one for this call alone.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use tokio::net::UnixStream;

use super::client::Client;
use super::failure::Failure;
use crate::config::SOCKET_DEFAULT;

/// A daemon of our own.
#[derive(Debug)]
pub struct PrivateDaemon {
    /// Where it listens already.
    pub socket: PathBuf,
    /// It ends, and takes its sandboxes with it, when this is closed: also when we are killed.
    pub lifetime: OwnedFd,
}

/// What a daemon for one call must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// The images of this host: one daemon at a time has them.
    Images,
    /// Any place will do.
    Any,
}

/// Starts a daemon for this call and waits until it listens.
pub type StartPrivate = fn(Store) -> Result<PrivateDaemon, Box<dyn std::error::Error + Send + Sync>>;

/// Which daemon to use.
#[derive(Debug)]
pub(super) struct Daemon {
    /// The one that the user named.
    pub(super) socket: Option<PathBuf>,
    /// How to start one.
    pub(super) start_private: StartPrivate,
}

/// A daemon to talk to.
#[derive(Debug)]
pub(super) struct Connection {
    /// How.
    pub(super) client: Client,
    /// Ends a daemon of our own.
    _lifetime: Option<OwnedFd>,
}

impl Daemon {
    /// A running daemon.
    pub(super) async fn running(&self) -> Result<Connection, Failure> {
        let socket = self.socket.as_deref().unwrap_or(Path::new(SOCKET_DEFAULT));
        match UnixStream::connect(socket).await {
            Ok(stream) => Ok(Connection { client: Client::new(socket, Some(stream)), _lifetime: None }),
            Err(source) => Err(Failure::Connect { socket: socket.to_owned(), source }),
        }
    }

    /// A running daemon; or, when there is none and the user named none, one of our own.
    pub(super) async fn running_or_private(&self, store: Store) -> Result<Connection, Failure> {
        match self.running().await {
            Err(Failure::Connect { source, .. }) if self.socket.is_none() && is_absent(&source) => {
                let PrivateDaemon { socket, lifetime } =
                    (self.start_private)(store).map_err(Failure::Private)?;
                Ok(Connection { client: Client::new(&socket, None), _lifetime: Some(lifetime) })
            }
            found => found,
        }
    }
}

/// Nobody listens there. (A daemon that is there and refuses us is not absent.)
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
