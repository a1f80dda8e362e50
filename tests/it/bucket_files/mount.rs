//! A worker of its own on a FUSE mount of its own: what launch does for a sandbox, without a sandbox.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::mount::MountAttrFlags;
use stockade::sys::{mount, socket};
use stockade::wire::bucket::{
    Addressing, BucketCall, BucketFailure, BucketStart, BucketStatus, BucketWord, Credentials, Dialled,
    Endpoint, Scheme,
};
use stockade::wire::{decode, encode};
use tempfile::TempDir;

use crate::harness::s3::S3;
use crate::harness::{binary, scratch};

/// What a worker is told about a server.
pub fn start(server: &S3, endpoint: &str) -> BucketStart {
    let keys = Credentials::Keys {
        access_key_id: server.access_key_id.clone(),
        secret_access_key: server.secret_access_key.clone(),
        session_token: None,
        expires_ms: None,
    };
    BucketStart { credentials: keys, ca_pem: server.ca_pem.clone(), ..anonymous(endpoint) }
}

/// The same of nobody.
pub fn anonymous(endpoint: &str) -> BucketStart {
    let (scheme, rest) = endpoint.split_once("://").unwrap();
    let (host, port) = rest.rsplit_once(':').unwrap();
    BucketStart {
        bucket: "photos".to_owned(),
        prefix: String::new(),
        endpoint: Endpoint {
            scheme: if scheme == "https" { Scheme::Https } else { Scheme::Http },
            host: host.to_owned(),
            port: port.parse().unwrap(),
            path: String::new(),
        },
        region: "us-east-1".to_owned(),
        addressing: Addressing::Path,
        read_only: false,
        credentials: Credentials::Anonymous,
        uid: 0,
        gid: 0,
        file_mode: 0o644,
        dir_mode: 0o755,
        cache_bytes_max: 256 << 20,
        attribute_ttl_ms: 200,
        patience_ms: 25_000,
        conditional_writes: false,
        ca_pem: String::new(),
        log: "debug".to_owned(),
        log_json: false,
    }
}

/// A mounted bucket.
pub struct Mounted {
    worker: Child,
    control: OwnedFd,
    root: TempDir,
    log: PathBuf,
    /// The worker's directory, when nobody else has it.
    own: Option<TempDir>,
}

impl Mounted {
    /// Mounts, with a directory of its own.
    #[track_caller]
    pub fn new(start: &BucketStart) -> Self {
        let kept = scratch();
        let mut mounted = Self::try_new(start, &kept).unwrap();
        mounted.own = Some(kept);
        mounted
    }

    /// Mounts with the directory of a worker before.
    pub fn try_new(start: &BucketStart, kept: &TempDir) -> Result<Self, BucketFailure> {
        let root = scratch();
        let device = std::fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&device).to_string();
        let options = [
            ("fd", fd.as_str()),
            ("rootmode", "40000"),
            ("user_id", "0"),
            ("group_id", "0"),
            ("default_permissions", ""),
            ("allow_other", ""),
        ];
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mounted = mount::create("fuse", &options, flags).unwrap();
        let (control, theirs) = socket::pair().unwrap();
        let (dialer, asking) = socket::pair().unwrap();
        let address = (start.endpoint.host.clone(), start.endpoint.port);
        std::thread::spawn(move || dial(&dialer, &address));
        let directory = std::fs::File::open(kept.path()).unwrap();
        let log = kept.path().join("log");
        let worker = Command::new(binary())
            .arg0("stockade-bucket")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(std::fs::File::options().create(true).append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let fds = [device.as_fd(), asking.as_fd(), directory.as_fd()];
        socket::send(&control, &encode(start).unwrap(), &fds).unwrap();
        drop((device, asking));
        let mut this = Self { worker, control, root, log, own: None };
        match this.word() {
            BucketWord::Ready => {}
            BucketWord::Failed(failure) => {
                let _ = this.worker.wait();
                return Err(failure);
            }
            other => panic!("{other:?}"),
        }
        let target = std::fs::File::open(this.root.path()).unwrap();
        mount::attach(mounted.as_fd(), target.as_fd()).unwrap();
        Ok(this)
    }

    #[track_caller]
    pub fn word(&self) -> BucketWord {
        let mut buffer = vec![0; 128 * 1024];
        let received = socket::receive(&self.control, &mut buffer).unwrap();
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(received.length > 0, "the worker is gone: {log}");
        decode(&buffer[..received.length]).unwrap()
    }

    pub fn tell(&self, call: &BucketCall) {
        socket::send(&self.control, &encode(call).unwrap(), &[]).unwrap();
    }

    pub fn status(&self) -> BucketStatus {
        self.tell(&BucketCall::Status);
        match self.word() {
            BucketWord::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Ends the mount, and gives what the worker says of that.
    pub fn unmount(mut self, deadline: Duration) -> BucketWord {
        let deadline_ms = u64::try_from(deadline.as_millis()).unwrap();
        self.tell(&BucketCall::Unmount { deadline_ms });
        let word = self.word();
        let _ = self.worker.wait();
        word
    }

    pub fn kill(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Kilobytes of its memory that are its own, at most so far.
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.worker.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Runs a shell in the mount, which must end well.
    #[track_caller]
    pub fn shell(&self, script: &str) -> String {
        let output = self.try_shell(script);
        assert!(
            output.status.success(),
            "{script}\n{}{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            std::fs::read_to_string(&self.log)
                .unwrap_or_default()
                .lines()
                .rev()
                .take(30)
                .collect::<Vec<_>>()
                .join("\n")
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn try_shell(&self, script: &str) -> std::process::Output {
        let mut command = Command::new("bash");
        command.args(["-euc", script]).current_dir(self.path()).env("HOME", "/nonexistent");
        command.env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.kill();
        let _ = rustix::mount::unmount(self.root.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// Answers a worker's questions for connections until it is gone.
fn dial(dialer: &OwnedFd, address: &(String, u16)) {
    let mut buffer = [0; 64];
    while socket::receive(dialer, &mut buffer).is_ok_and(|received| received.length > 0) {
        let connected = TcpStream::connect(address);
        let said: Dialled = connected.as_ref().map(|_| ()).map_err(|error| error.raw_os_error().unwrap_or(5));
        let fds: Vec<_> = connected.iter().map(std::os::fd::AsFd::as_fd).collect();
        if socket::send(dialer, &encode(&said).unwrap(), &fds).is_err() {
            return;
        }
    }
}

/// What goes wrong between a worker and its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    None = 0,
    /// Requests are answered with 503.
    Busy,
    /// Connections are closed when a request comes.
    Reset,
    /// Answers end after some bytes.
    Truncated,
    /// Requests are taken and not answered.
    Silent,
    /// Bytes of answers are others, once they are long.
    Corrupted,
    /// Bytes of requests are, likewise.
    Tampered,
}

/// A proxy that can do harm, and that can speak TLS with its client.
pub struct Proxy {
    pub endpoint: String,
    fault: Arc<AtomicU8>,
    /// How often the fault still happens.
    times: Arc<AtomicU64>,
}

impl Proxy {
    pub fn new(server: &S3, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let port = listener.local_addr().unwrap().port();
        let host = if tls.is_some() { "localhost" } else { "127.0.0.1" };
        let fault = Arc::new(AtomicU8::new(0));
        let times = Arc::new(AtomicU64::new(u64::MAX));
        let upstream = server.plain.split_once("://").unwrap().1.to_owned();
        let shared = (Arc::clone(&fault), Arc::clone(&times));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, tls, shared) = (upstream.clone(), tls.clone(), shared.clone());
                std::thread::spawn(move || pass(client, &upstream, tls, &shared));
            }
        });
        Self { endpoint: format!("{scheme}://{host}:{port}"), fault, times }
    }

    /// From now on this goes wrong, so many times.
    pub fn set(&self, fault: Fault, times: u64) {
        self.times.store(times, Ordering::SeqCst);
        self.fault.store(fault as u8, Ordering::SeqCst);
    }
}

type Shared = (Arc<AtomicU8>, Arc<AtomicU64>);

/// Whether this happens now.
fn strikes(fault: Fault, shared: &Shared) -> bool {
    shared.0.load(Ordering::SeqCst) == fault as u8
        && shared.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |times| times.checked_sub(1)).is_ok()
}

trait Duplex: std::io::Read + std::io::Write + Send {}
impl<T: std::io::Read + std::io::Write + Send> Duplex for T {}

/// One thread for both ways, looking at each in turn: TLS cannot be read and written by two.
fn pass(client: TcpStream, upstream: &str, tls: Option<Arc<rustls::ServerConfig>>, shared: &Shared) {
    let Ok(mut server) = TcpStream::connect(upstream) else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let sockets = [client.try_clone().unwrap(), server.try_clone().unwrap()];
    let client: Mutex<Box<dyn Duplex>> = Mutex::new(match tls {
        Some(config) => {
            Box::new(rustls::StreamOwned::new(rustls::ServerConnection::new(config).unwrap(), client))
        }
        None => Box::new(client),
    });
    let mut client = client.into_inner().unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let (mut silent, mut answered, mut asked) = (false, 0, 0);
    loop {
        // A piece of TLS may hold more than one read takes: only when neither side has anything left is there a wait.
        let mut quiet = true;
        match now(&sockets[0], || client.read(&mut buffer)) {
            Ok(0) => return,
            Ok(count) => {
                (quiet, answered) = (false, 0);
                asked += count;
                if asked > 100_000 && strikes(Fault::Tampered, shared) {
                    buffer[count - 1] ^= 1;
                }
                if strikes(Fault::Busy, shared) {
                    let _ = client.write_all(
                        b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                    );
                    return;
                }
                if strikes(Fault::Reset, shared) {
                    return;
                }
                silent |= strikes(Fault::Silent, shared);
                if !silent && server.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        match now(&sockets[1], || server.read(&mut buffer)) {
            Ok(0) => return,
            Ok(count) => {
                quiet = false;
                (answered, asked) = (answered + count, 0);
                if answered > 2000 && strikes(Fault::Truncated, shared) {
                    return;
                }
                if answered > 2000 && strikes(Fault::Corrupted, shared) {
                    buffer[count - 1] ^= 1;
                }
                if client.write_all(&buffer[..count]).and_then(|()| client.flush()).is_err() {
                    return;
                }
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        if quiet {
            let mut either = sockets.each_ref().map(|socket| PollFd::new(socket, PollFlags::IN));
            let _ = rustix::event::poll(&mut either, None);
        }
    }
}

/// Reads without waiting. Writes wait, so this is undone.
fn now<T>(socket: &TcpStream, read: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    socket.set_nonblocking(true)?;
    let result = read();
    socket.set_nonblocking(false)?;
    result
}
