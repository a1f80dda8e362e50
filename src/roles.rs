//! From a process name to a role: the one place that knows them all.
//!
//! ```text
//! stockade serve ──▶ stockade-launch ──┬──▶ stockade-serve
//!  (execs itself,      (stays)         ├──▶ stockade-fetch    one per pull or import
//!   sealed)                            ├──▶ stockade-unpack   one per layer
//!                                      └──▶ agent             cloned, not executed
//! ```
//!
//! Every role starts the same way: name in argv, nothing in the environment, control socket at fd 0.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::image::store::Store;
use crate::journal::audit::Audit;
use crate::limits::FRAME_BYTES_MAX;
use crate::runtime::launch::Passed;
use crate::runtime::seccomp::Role;
use crate::sandbox::Sandboxes;
use crate::sandbox::catalog::Catalog;
use crate::sandbox::launcher::Launcher;
use crate::sys::exec::{self, Strings};
use crate::sys::{Errno, heap, process, resident, socket};
use crate::wire;
use crate::wire::bucket::BucketStart;
use crate::wire::gateway::GatewayStart;
use crate::wire::launch::{Call, LaunchStart, ServeStart, Settings};
use crate::{agent, api, bucket, gateway, image, runtime};

/// Name of the launcher's process.
pub const LAUNCH: &str = "stockade-launch";

/// Why a role could not start.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The control socket.
    #[error("{0}")]
    Control(&'static str, #[source] std::io::Error),
    /// The first message is not what the role expects.
    #[error("the first message: {0}")]
    Message(#[from] wire::BadFrame),
    /// The launcher itself.
    #[error(transparent)]
    Launch(#[from] runtime::launch::LaunchError),
    /// The role's system call filter cannot be compiled.
    #[error(transparent)]
    Filter(#[from] runtime::seccomp::SeccompError),
    /// The kernel does not take it.
    #[error("install the system call filter: {0}")]
    Seccomp(#[from] seccompiler::Error),
    /// Landlock.
    #[error(transparent)]
    Confine(#[from] crate::confine::ConfineError),
    /// The gateway.
    #[error(transparent)]
    Gateway(#[from] gateway::GatewayError),
    /// A bucket.
    #[error(transparent)]
    Bucket(#[from] bucket::BucketError),
    /// The daemon's own start.
    #[error("start the daemon: {0}")]
    Serve(#[source] std::io::Error),
}

/// Runs the role of this name; `None` when it is none, and the command line is for a person.
pub fn run(name: &str) -> Option<ExitCode> {
    if let Some(short) = name.strip_prefix("stockade-") {
        // For ps: a program executed from memory is named after its descriptor.
        let _ = rustix::thread::set_name(&std::ffi::CString::new(format!("st-{short}")).unwrap_or_default());
    }
    let result = match name {
        LAUNCH => launch(),
        "stockade-serve" => serve(),
        "stockade-gateway" => gateway(),
        "stockade-bucket" => bucket(),
        "stockade-fetch" => return Some(work(Role::Fetch, image::fetch::run)),
        "stockade-unpack" => return Some(work(Role::Unpack, image::unpack::run)),
        _ => return None,
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    })
}

/// Runs a role that does one job and says how it went on its control socket.
fn work(role: Role, run: fn(OwnedFd) -> ExitCode) -> ExitCode {
    match control().and_then(|control| filter(role).map(|()| control)) {
        Ok(control) => run(control),
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Prints an error with all its causes, whether or not logging was set up.
pub fn report(error: &dyn std::error::Error) {
    use std::io::Write as _;
    let mut text = format!("stockade: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        // Some say what caused them in their own words.
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(&format!(": {words}"));
        }
        cause = error.source();
    }
    // There is nowhere else to say it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Turns this process into the launcher. Returns only on failure.
pub fn become_launcher(settings: Settings, passed: Passed) -> std::io::Error {
    let Passed { listener, lifeline, previews, keys } = passed;
    let start = LaunchStart {
        settings,
        listener: listener.is_some(),
        lifeline: lifeline.is_some(),
        previews: previews.is_some(),
        keys: keys.is_some(),
    };
    let prepare = || -> std::io::Result<OwnedFd> {
        let program = exec::sealed_copy_of_self()?;
        let (ours, theirs) = socket::pair()?;
        let message = wire::encode(&start).map_err(std::io::Error::other)?;
        let fds: Vec<_> =
            listener.iter().chain(&lifeline).chain(&previews).chain(&keys).map(AsFd::as_fd).collect();
        socket::send(&ours, &message, &fds)?;
        rustix::stdio::dup2_stdin(&theirs)?;
        exec::close_on_exec_from(3)?;
        Ok(program)
    };
    match prepare() {
        Ok(program) => {
            let name = std::ffi::CString::new(LAUNCH).unwrap_or_default();
            exec::execveat(program.as_fd(), &Strings::new(vec![name]), &Strings::new(Vec::new())).into()
        }
        Err(error) => error,
    }
}

/// Takes the control socket from fd 0 and leaves /dev/null there.
fn control() -> Result<OwnedFd, RoleError> {
    let take = || -> Result<OwnedFd, Errno> {
        let control = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        Ok(control)
    };
    take().map_err(|errno| RoleError::Control("take the control socket", errno.into()))
}

fn first_message<T: serde::de::DeserializeOwned>(control: &OwnedFd) -> Result<(T, Vec<OwnedFd>), RoleError> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let received = socket::receive(control, &mut buffer)
        .map_err(|errno| RoleError::Control("read the first message", errno.into()))?;
    Ok((wire::decode(&buffer[..received.length])?, received.fds))
}

fn log_to_stderr(log: &str, json: bool) {
    // Not EnvFilter: its regular expressions are 300 KiB that every clone of the launcher would copy.
    let filter = log.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if json { layer.json().boxed() } else { layer.with_ansi(false).with_target(false).boxed() };
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
}

/// Lets this process and serve, which inherits it, have as many descriptors as root allows. The soft limit is 1024
/// nearly everywhere, for the sake of select(2), and serve needs one per sandbox, four per command.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut descriptors = getrlimit(Resource::Nofile);
    descriptors.current = descriptors.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, descriptors) {
        tracing::warn!(%error, "cannot raise the limit of descriptors");
    }
}

fn launch() -> Result<(), RoleError> {
    // Before anything is cloned from this process: commands inherit what is ignored here.
    process::stop_ignoring_signals()
        .map_err(|errno| RoleError::Control("reset the signals", errno.into()))?;
    raise_descriptors();
    let (start, mut fds): (LaunchStart, _) = first_message(&control()?)?;
    log_to_stderr(&start.settings.log, start.settings.log_json);
    // In the order in which they were sent, from the end.
    let keys = if start.keys { fds.pop() } else { None };
    let previews = if start.previews { fds.pop() } else { None };
    let lifeline = if start.lifeline { fds.pop() } else { None };
    let listener = if start.listener { fds.pop() } else { None };
    Ok(runtime::launch::run(start.settings, Passed { listener, lifeline, previews, keys }, agent::run)?)
}

fn serve() -> Result<(), RoleError> {
    let control = control()?;
    let (start, mut fds): (ServeStart, _) = first_message(&control)?;
    log_to_stderr(&start.settings.log, start.settings.log_json);
    let previews = if start.settings.preview.url.is_some() { fds.pop() } else { None };
    let listener = fds.pop().ok_or(wire::BadFrame)?;
    // Half of the processors: each request also keeps launch or an agent busy, and a wake-up that crosses to a
    // processor which is at work waits for it.
    let threads = std::thread::available_parallelism().map_or(1, |all| all.get().div_ceil(2));
    confine_serve(&start.settings)?;
    heap::keep_freed_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(RoleError::Serve)?;
    runtime.block_on(daemon(start, control, listener, previews)).map_err(RoleError::Serve)
}

fn gateway() -> Result<(), RoleError> {
    let control = control()?;
    let (start, _): (GatewayStart, _) = first_message(&control)?;
    log_to_stderr(&start.log, start.log_json);
    keep_memory().map_err(|errno| RoleError::Control("keep memory out of core dumps", errno.into()))?;
    let prepared = gateway::prepare(start)?;
    // The host's name servers are known: no file is needed any more.
    crate::confine::to_directories(&[], crate::confine::Network::Connect)?;
    filter(Role::Gateway)?;
    Ok(prepared.run(control)?)
}

fn bucket() -> Result<(), RoleError> {
    let control = control()?;
    let (start, fds): (BucketStart, _) = first_message(&control)?;
    log_to_stderr(&start.log, start.log_json);
    keep_memory().map_err(|errno| RoleError::Control("keep memory out of core dumps", errno.into()))?;
    let prepared = bucket::prepare(start, fds)?;
    // The certificates are read: the mount's own directory is all that is needed from here on.
    crate::confine::to_directories(&[prepared.directory()], crate::confine::Network::None)?;
    filter(Role::Bucket)?;
    Ok(prepared.run(control)?)
}

/// Leaves no trace of this process's memory behind, and shows it to nobody but root: it holds credentials.
fn keep_memory() -> Result<(), Errno> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, setrlimit};
    // One byte and not none: a program that takes core dumps is then not started either (core(5)).
    setrlimit(Resource::Core, Rlimit { current: Some(1), maximum: Some(1) })?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// What is left to serve before it hears its first client: its own index of images and sandboxes, and the system
/// calls of a program that talks to sockets.
fn confine_serve(settings: &Settings) -> Result<(), RoleError> {
    let state = std::path::Path::new(&settings.state_dir);
    let directories =
        ["images", "work", "blobs", "index", "snapshots", "journal"].map(|name| state.join(name));
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let opened = directories
        .iter()
        .map(|path| rustix::fs::open(path, flags, rustix::fs::Mode::empty()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|errno| RoleError::Serve(errno.into()))?;
    let within: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
    crate::confine::to_directories(&within, crate::confine::Network::None)?;
    filter(Role::Serve)
}

/// Installs a role's system call filter, before it has a second thread.
fn filter(role: Role) -> Result<(), RoleError> {
    let program = runtime::seccomp::role(role)?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}

/// What was freed and kept for what comes next, and the pages of the program that its start, or what was asked for,
/// needed once. It takes the allocator's locks for some milliseconds.
fn give_memory_back() {
    heap::trim();
    resident::give_back_program();
}

/// Runs the daemon until it is told to stop, or launch is gone.
async fn daemon(
    start: ServeStart,
    control: OwnedFd,
    listener: OwnedFd,
    previews: Option<OwnedFd>,
) -> std::io::Result<()> {
    let failed = std::io::Error::other::<Box<dyn std::error::Error + Send + Sync>>;
    let (launcher, gone) = Launcher::start(control)?;
    let store =
        Store::open(std::path::Path::new(&start.settings.state_dir)).map_err(|error| failed(error.into()))?;
    let catalog = Catalog::new(store, launcher.clone(), start.settings.quotas.clone());
    let ServeStart { settings, host, boot, .. } = start;
    let sandboxes = Sandboxes::start(launcher.clone(), catalog.clone(), settings.clone(), host.clone(), boot)
        .await
        .map_err(|error| failed(error.into()))?;
    let collector = catalog.clone();
    tokio::spawn(async move {
        if let Err(error) = collector.collect().await {
            tracing::warn!(%error, "cannot collect unused layers");
        }
    });
    let journal = std::path::Path::new(&settings.state_dir).join("journal");
    let audit = Audit::open(&journal)?;
    let ids = settings.ids_first..settings.ids_first + runtime::ids::Ids::COUNT;
    let base =
        settings.preview.url.as_deref().map(api::Base::parse).transpose().map_err(std::io::Error::other)?;
    let state = api::State {
        sandboxes,
        catalog,
        audit,
        host,
        operator_gid: settings.operator_gid,
        sandbox_uids: ids,
        previews: base,
        when_idle: give_memory_back,
    };
    launcher.call(Call::Ready, &[]).await.map_err(|error| failed(error.into()))?;
    tracing::info!(socket = settings.socket, "ready");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping"),
            _ = gone => {}
        }
    };
    api::serve(listener.into(), previews.map(Into::into), state, shutdown).await
}
