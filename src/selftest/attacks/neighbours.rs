//! The sandbox next door: its files, its processes, its sockets, its memory.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use libc as c;

use super::{Answer, Attack, Control, Group, call, network, nothing};
use crate::selftest::scene::{Neighbour, Scene};
use crate::sys::attempt;

const fn attack(name: &'static str, run: fn(&Scene) -> Answer) -> Attack {
    Attack::new(Group::Neighbours, name, run).control(Control::Neighbour)
}

pub(super) const ATTACKS: &[Attack] = &[
    attack("neighbours-file", |scene| {
        let text = std::fs::read_to_string(&scene.neighbour.file)?;
        Ok(format!("it says {}", text.trim()))
    }),
    attack("neighbours-shared-file", |scene| {
        let name = scene.neighbour.file.rsplit('/').next().unwrap_or_default();
        for directory in ["/tmp", "/dev/shm", "/run", "/var/tmp", "/workspace"] {
            if std::fs::metadata(format!("{directory}/{name}")).is_ok() {
                return Ok(format!("it is in {directory}"));
            }
        }
        nothing("it is nowhere")
    }),
    attack("neighbours-server", |scene| {
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), scene.neighbour.port);
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        let mut greeting = Vec::new();
        stream.take(64).read_to_end(&mut greeting)?;
        if greeting == network::GREETING {
            Ok("it answers".to_owned())
        } else {
            nothing("somebody else answers")
        }
    }),
    attack("neighbours-abstract-socket", |scene| network::abstract_socket(&scene.neighbour.abstract_socket)),
    attack("neighbours-shared-memory", |scene| call(c::SYS_shmget, &[scene.neighbour.key.into(), 4096, 0])),
    attack("neighbours-message-queue", |scene| {
        let name = [scene.neighbour.queue.as_bytes(), &[0]].concat();
        call(c::SYS_mq_open, &[attempt::address(&*name), c::O_RDONLY.into(), 0, 0])
    }),
    attack("neighbours-processes", |scene| {
        for pid in super::files::pids() {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).split('\0').any(|word| word == scene.neighbour.marker) {
                return Ok(format!("it is process {pid}"));
            }
        }
        nothing("it does not show")
    }),
];

/// Makes everything that the attacks look for, says so, and stays. Never returns but by an error.
pub(in crate::selftest) fn keep_house(house: &Neighbour) -> std::io::Result<()> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};

    std::fs::write(&house.file, "the neighbour's\n")?;
    let server = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, house.port))?;
    let _sockets = UnixListener::bind_addr(&UnixAddress::from_abstract_name(&house.abstract_socket)?)?;
    // The objects are made by a copy, and stay: both belong to the namespace and not to a process.
    attempt::apart(Duration::from_secs(5), || {
        let name = [house.queue.as_bytes(), &[0]].concat();
        let flags = (c::O_CREAT | c::O_RDWR).into();
        // A kernel that has none of them: their attacks then have no control.
        let _ = super::raw(c::SYS_umask, &[0]);
        let _ = super::raw(c::SYS_shmget, &[house.key.into(), 4096, (c::IPC_CREAT | 0o666).into()]);
        let _ = super::raw(c::SYS_mq_open, &[attempt::address(&*name), flags, 0o666, 0]);
        Vec::new()
    })?;
    std::fs::write(format!("{}.ready", house.file), "")?;
    loop {
        let (mut stream, _) = server.accept()?;
        std::io::Write::write_all(&mut stream, network::GREETING)?;
    }
}
