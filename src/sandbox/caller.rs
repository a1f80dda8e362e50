//! Who asks, as the kernel says it.
//!
//! The credentials are those of connect(2) (`SO_PEERCRED` and `SO_PEERGROUPS`, unix(7)): numbers from the kernel,
//! no text that the peer wrote (CVE-2019-7304). They stay what they were when the peer passes the connection on.

use std::io;

use tokio::net::UnixStream;

use crate::sys::peer;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Peer's uid.
    pub uid: u32,
    /// Peer's gid.
    pub gid: u32,
    /// Peer's pid, for the log; 0 when it is in a PID namespace that cannot be seen from here.
    pub pid: i32,
    /// Root, or a member of the operator group: sees and controls everything.
    pub operator: bool,
}

impl Caller {
    /// The process that made this connection.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn of(stream: &UnixStream, operator_gid: Option<u32>) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let (uid, gid) = (peer.uid(), peer.gid());
        let operator = match operator_gid {
            _ if uid == 0 => true,
            None => false,
            Some(group) => gid == group || peer::peer_groups(stream)?.contains(&group),
        };
        Ok(Self { uid, gid, pid: peer.pid().unwrap_or(0), operator })
    }

    /// This daemon itself.
    pub(super) fn daemon() -> Self {
        Self { uid: 0, gid: 0, pid: 0, operator: true }
    }

    /// Whether what this uid owns is its business.
    pub fn may_see(&self, owner: u32) -> bool {
        self.operator || self.uid == owner
    }
}
