//! From the command line to the launcher: `stockade serve`, and the private daemon of one `stockade run`.
//!
//! The configuration, the environment and the file descriptors that systemd passes are read here and nowhere
//! else; every other process gets its settings as a message.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::api::{BadBase, Base};
use crate::cli::arguments::Serve;
use crate::cli::daemon::{PrivateDaemon, Store};
use crate::config::{Config, ConfigError, PreviewConfig};
use crate::roles;
use crate::runtime::launch::Passed;
use crate::wire::launch::{MountSettings, PreviewSettings, Settings};

/// Why the daemon cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Only root can make other users' ids and mounts.
    #[error("the daemon must be started as root: use sudo, or its systemd unit")]
    NotRoot,
    /// systemd's socket.
    #[error("the socket that systemd passes is not a Unix socket that listens: {0}")]
    Activation(std::io::Error),
    /// Becoming the launcher failed.
    #[error("cannot start the launcher: {0}")]
    Launcher(std::io::Error),
    /// The private daemon ended at once; it has said why.
    #[error("the private daemon ended before it was ready; its message is above")]
    PrivateEnded,
    /// It takes too long.
    #[error("the private daemon was not ready within {0:?}")]
    PrivateSlow(Duration),
    /// Where previews are to be served.
    #[error("cannot listen for previews on {address}: {source}")]
    Previews {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// What browsers are to see of them.
    #[error(transparent)]
    PreviewUrl(#[from] BadBase),
    /// Starting it, or finding it a place.
    #[error("cannot start a private daemon: {0}")]
    Private(#[from] std::io::Error),
}

/// Private daemons that can run at once beside each other.
const PRIVATE_MAX: u32 = 64;

/// Where private daemons have their sockets.
const PRIVATE_RUNTIME: &str = "/run/stockade-private";

/// How long a private daemon may take until it answers.
const PRIVATE_WAIT: Duration = Duration::from_secs(20);

/// How long an address for previews may be taken by a daemon that is ending.
const PREVIEWS_WAIT: Duration = Duration::from_secs(1);

/// Becomes the daemon. Returns only when that failed.
pub fn serve(arguments: Serve, socket: Option<PathBuf>) -> ExitCode {
    let Err(error) = try_serve(&arguments, socket);
    roles::report(&error);
    ExitCode::from(125)
}

fn try_serve(arguments: &Serve, socket: Option<PathBuf>) -> Result<std::convert::Infallible, StartError> {
    if !rustix::process::geteuid().is_root() {
        return Err(StartError::NotRoot);
    }
    let config = configure(arguments, socket)?;
    let mut passed = listenfd::ListenFd::from_env();
    let listener = passed.take_unix_listener(0).map_err(StartError::Activation)?;
    let lifeline = if arguments.private {
        Some(std::io::stdin().as_fd().try_clone_to_owned().map_err(StartError::Launcher)?)
    } else {
        None
    };
    let mut settings = settings(&config);
    settings.ca_pem = config.network.ca_pem()?;
    settings.private = arguments.private;
    settings.slot_first = arguments.slot_first.unwrap_or(1);
    settings.notify_socket = std::env::var("NOTIFY_SOCKET").ok().filter(|path| !path.is_empty());
    let previews = if arguments.private { None } else { previews(&config.preview, &mut settings.preview)? };
    let listener = listener.map(OwnedFd::from);
    let keys = if config.mounts.environment { keys().map_err(StartError::Launcher)? } else { None };
    settings.mounts.environment = keys.is_some();
    let passed = Passed { listener, lifeline, previews, keys };
    Err(StartError::Launcher(roles::become_launcher(settings, passed)))
}

/// Variables that say who asks for buckets, and what profiles call the same.
const KEYS: [(&str, &str); 8] = [
    ("AWS_ACCESS_KEY_ID", "aws_access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"),
    ("AWS_SESSION_TOKEN", "aws_session_token"),
    ("AWS_ROLE_ARN", "role_arn"),
    ("AWS_ROLE_SESSION_NAME", "role_session_name"),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file"),
    ("AWS_ENDPOINT_URL_STS", "endpoint_url_sts"),
    ("AWS_REGION", "region"),
];

/// The environment's credentials for buckets, in a file in memory: no process that is to live has them in its own.
fn keys() -> std::io::Result<Option<OwnedFd>> {
    use std::io::Write as _;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let all = |names: [&str; 2]| names.into_iter().all(|name| variable(name).is_some());
    if !all(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
        && !all(["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"])
    {
        return Ok(None);
    }
    let file = rustix::fs::memfd_create(c"keys", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    writeln!(file, "[default]")?;
    for (name, written) in KEYS {
        if let Some(value) = variable(name) {
            writeln!(file, "{written} = {value}")?;
        }
    }
    Ok(Some(file.into()))
}

/// The socket that listens for previews, made while this process may still bind any port.
///
/// A default address that is taken is no reason not to start: exposed ports can be reached through the API's socket.
fn previews(config: &PreviewConfig, settings: &mut PreviewSettings) -> Result<Option<OwnedFd>, StartError> {
    let Some(address) = config.address()? else { return Ok(None) };
    let listener = match listen_for_previews(address) {
        Ok(listener) => listener,
        Err(error) if config.listen.is_none() && error.kind() == std::io::ErrorKind::AddrInUse => {
            settings.missing = Some(format!("{address} is in use; name another address as preview.listen"));
            return Ok(None);
        }
        Err(source) => return Err(StartError::Previews { address, source }),
    };
    let port = listener.local_addr().map_err(|source| StartError::Previews { address, source })?.port();
    let url = config.url.clone().unwrap_or_else(|| format!("http://localhost:{port}"));
    Base::parse(&url)?;
    settings.url = Some(url);
    Ok(Some(listener.into()))
}

/// What is set on it is inherited by every connection that it accepts (tcp(7), socket(7)): peers that are gone are
/// found out, and small answers are sent at once.
fn listen_for_previews(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let began = Instant::now();
    let listener = loop {
        match std::net::TcpListener::bind(address) {
            // The serve of a daemon that has crashed lets go of it any moment.
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && began.elapsed() < PREVIEWS_WAIT =>
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            bound => break bound?,
        }
    };
    rustix::net::sockopt::set_socket_keepalive(&listener, true)?;
    rustix::net::sockopt::set_tcp_keepidle(&listener, Duration::from_secs(60))?;
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    Ok(listener)
}

/// Flags win over the file.
fn configure(arguments: &Serve, socket: Option<PathBuf>) -> Result<Config, ConfigError> {
    let mut config = Config::load(arguments.config.as_deref())?;
    let replace = |place: &mut PathBuf, flag: &Option<PathBuf>| {
        if let Some(path) = flag {
            place.clone_from(path);
        }
    };
    replace(&mut config.state_dir, &arguments.state_dir);
    replace(&mut config.runtime_dir, &arguments.runtime_dir);
    config.socket = socket.or(config.socket);
    config.socket_group = arguments.socket_gid.or(config.socket_group);
    config.require_limits |= arguments.require_limits;
    config.log_json |= arguments.log_json;
    config.preview.listen = arguments.preview_listen.clone().or(config.preview.listen);
    config.preview.url = arguments.preview_url.clone().or(config.preview.url);
    if let Some(log) = &arguments.log {
        config.log.clone_from(log);
    }
    config.validate()?;
    Ok(config)
}

fn settings(config: &Config) -> Settings {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Settings {
        runtime_dir: text(&config.runtime_dir),
        state_dir: text(&config.state_dir),
        ids_first: config.ids_first,
        slot_first: 1,
        socket: text(&config.socket()),
        socket_gid: config.socket_group,
        operator_gid: config.operator_group,
        default_memory_bytes: config.defaults.memory_bytes,
        default_pids: config.defaults.pids,
        default_tmpfs_bytes: config.defaults.tmpfs_bytes,
        // Validated with the rest of the configuration.
        quotas: config.quotas.parsed().unwrap_or_default(),
        require_limits: config.require_limits,
        open_networks: config.network.open_networks(),
        resolvers: config.network.resolvers.clone(),
        ca_pem: String::new(),
        handlers: text(&config.handlers()),
        notify_socket: None,
        log: config.log.clone(),
        log_json: config.log_json,
        private: false,
        preview: PreviewSettings::default(),
        mounts: MountSettings {
            directories: config.mounts.directories.iter().map(|path| text(path)).collect(),
            credentials_file: config.mounts.credentials_file.as_deref().map(text),
            environment: false,
        },
    }
}

/// Starts a daemon for one call, in the first free of a few fixed places: what one that was killed left behind is
/// found, and removed, by the next that takes its place. The first place has the images of the ordinary daemon.
///
/// # Errors
/// When this is not root, no place is free, or the daemon does not become ready.
pub fn private(store: Store) -> Result<PrivateDaemon, Box<dyn std::error::Error + Send + Sync>> {
    if !rustix::process::geteuid().is_root() {
        return Err(StartError::NotRoot.into());
    }
    let places = if store == Store::Images { 1 } else { PRIVATE_MAX };
    let began = Instant::now();
    loop {
        for number in 0..places {
            if let Some(claim) = claim(number)? {
                let runtime = PathBuf::from(format!("{PRIVATE_RUNTIME}/{number}"));
                let daemon = start_private(&private_state(number), &runtime, 1 + number * 100)?;
                // Nobody else takes the place while this process lives; the kernel gives it back.
                std::mem::forget(claim);
                return Ok(daemon);
            }
        }
        if began.elapsed() > PRIVATE_WAIT {
            let busy = "every place for a private daemon is taken; start one for all with `stockade serve`";
            return Err(std::io::Error::other(busy).into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The first has the images of the ordinary daemon.
fn private_state(number: u32) -> PathBuf {
    match number {
        0 => Config::default().state_dir,
        _ => PathBuf::from(format!("/var/lib/stockade-private/{number}")),
    }
}

/// Takes a place, if neither another caller nor a daemon that is still ending has it.
fn claim(number: u32) -> Result<Option<OwnedFd>, StartError> {
    std::fs::create_dir_all(PRIVATE_RUNTIME)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let path = format!("{PRIVATE_RUNTIME}/{number}.lock");
    let lock = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(std::io::Error::from)?;
    let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    Ok(if locked && is_free(&private_state(number))? { Some(lock) } else { None })
}

/// Whether no daemon holds the lock on this state directory. Another may take it before ours does; then ours says
/// so.
fn is_free(state: &Path) -> Result<bool, StartError> {
    std::fs::create_dir_all(state)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(state, flags, Mode::empty()).map_err(std::io::Error::from)?;
    Ok(rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok())
}

fn start_private(state: &Path, runtime: &Path, slot_first: u32) -> Result<PrivateDaemon, StartError> {
    let socket = runtime.join("stockade.sock");
    let mut daemon = Command::new("/proc/self/exe")
        .arg("--socket")
        .arg(&socket)
        .args(["serve", "--private", "--log", "error", "--slot-first", &slot_first.to_string()])
        .arg("--state-dir")
        .arg(state)
        .arg("--runtime-dir")
        .arg(runtime)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C goes to the terminal's foreground group: to us, who pass it on to the command, and not to it.
        .process_group(0)
        .spawn()?;
    let lifetime = daemon.stdin.take().map(OwnedFd::from);
    let lifetime = lifetime.ok_or_else(|| std::io::Error::other("no pipe to the private daemon"))?;
    wait_until_ready(&mut daemon, &socket)?;
    Ok(PrivateDaemon { socket, lifetime })
}

fn wait_until_ready(daemon: &mut Child, socket: &Path) -> Result<(), StartError> {
    let began = Instant::now();
    while began.elapsed() < PRIVATE_WAIT {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        if daemon.try_wait()?.is_some() {
            return Err(StartError::PrivateEnded);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(StartError::PrivateSlow(PRIVATE_WAIT))
}
