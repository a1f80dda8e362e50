//! What the host has that no sandbox may reach: servers, sockets and a file, for as long as the test runs.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::PathBuf;

use super::Failure;
use crate::selftest::{GREETING, Host, Neighbour, Scene, Sizes};
use crate::wire::launch::Profile;

/// The host's side.
pub(super) struct World {
    host: Host,
    directory: PathBuf,
    /// They listen, and nobody needs to answer.
    _sockets: [UnixListener; 2],
}

impl World {
    pub(super) fn make() -> Result<Self, Failure> {
        let local = |source| Failure::Local { what: "cannot set the scene on the host".to_owned(), source };
        Self::try_make().map_err(local)
    }

    fn try_make() -> std::io::Result<Self> {
        let unique = format!("stockade-selftest-{}", std::process::id());
        // Not where TMPDIR points: nobody else could read it there.
        let directory = PathBuf::from("/tmp").join(&unique);
        std::fs::create_dir(&directory)?;
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755))?;
        let (secret, socket) = (directory.join("secret"), directory.join("socket"));
        std::fs::write(&secret, "the host's\n")?;
        let listener = UnixListener::bind(&socket)?;
        for path in [&secret, &socket] {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o666))?;
        }
        let abstract_listener = UnixListener::bind_addr(&UnixAddress::from_abstract_name(&unique)?)?;
        let host = Host {
            port: serve()?,
            addresses: own_addresses(),
            abstract_socket: unique,
            socket: socket.display().to_string(),
            secret: secret.display().to_string(),
        };
        Ok(Self { host, directory, _sockets: [listener, abstract_listener] })
    }

    /// For payloads, before it is known where they run.
    pub(super) fn scene(&self, neighbour: &Neighbour) -> Scene {
        Scene {
            attacks: Vec::new(),
            inside: true,
            profile: Profile::Hardened,
            place: super::subject::PLACE.to_owned(),
            host: self.host.clone(),
            neighbour: neighbour.clone(),
            sizes: Sizes::default(),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What stays is a directory in /tmp with nothing in it that anybody wants.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Answers on one port of all addresses, TCP and UDP, until the program ends.
fn serve() -> std::io::Result<u16> {
    let listener =
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| TcpListener::bind(("0.0.0.0", 0)))?;
    let address = listener.local_addr()?;
    let datagrams = UdpSocket::bind(address)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever hangs up does not want to know.
            let _ = { stream }.write_all(GREETING);
        }
    });
    std::thread::spawn(move || {
        while let Ok((_, from)) = datagrams.recv_from(&mut [0; 64]) {
            let _ = datagrams.send_to(GREETING, from);
        }
    });
    Ok(address.port())
}

/// The addresses of the host's interfaces, loopback and those that need a scope apart.
fn own_addresses() -> Vec<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    });
    let needs_scope = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    addresses.filter(|address| !address.is_loopback() && !needs_scope(address)).collect()
}
