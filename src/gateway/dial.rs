//! The two ends of a connection: where its sender wanted it to go, and a stream to there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use rustix::net::sockopt as options;
use tokio::net::{TcpSocket, TcpStream};

/// How long a server may take to accept. Kernels try for two minutes; whoever is refused after ten seconds knows what
/// to do.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After so long without a byte the other end is asked whether it is there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Where a redirected connection was to go (`SO_ORIGINAL_DST`).
pub(super) fn original(stream: &TcpStream) -> Option<SocketAddr> {
    if stream.local_addr().ok()?.is_ipv4() {
        let address = getsockopt(stream, sockopt::OriginalDst).ok()?;
        let ip = IpAddr::from(address.sin_addr.s_addr.to_ne_bytes());
        Some(SocketAddr::new(ip, u16::from_be(address.sin_port)))
    } else {
        let address = getsockopt(stream, sockopt::Ip6tOriginalDst).ok()?;
        Some(SocketAddr::new(IpAddr::from(address.sin6_addr.s6_addr), u16::from_be(address.sin6_port)))
    }
}

/// Connects to an address that was decided on.
pub(super) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, socket.connect(address)).await??;
    settle(&stream);
    Ok(stream)
}

/// Passes on small pieces at once, and notices an end that is gone without a word.
pub(super) fn settle(stream: &TcpStream) {
    // Neither changes what is passed on.
    let _ = stream.set_nodelay(true);
    let _ = options::set_socket_keepalive(stream, true);
    let _ = options::set_tcp_keepidle(stream, KEEPALIVE_IDLE);
}
