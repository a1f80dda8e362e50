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

use tracing_subscriber::EnvFilter;

use crate::limits::FRAME_BYTES_MAX;
use crate::sys::exec::{self, Strings};
use crate::sys::{Errno, socket};
use crate::wire;
use crate::wire::launch::{LaunchStart, ServeStart, Settings};
use crate::{agent, runtime};

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
    /// The daemon's own start.
    #[error("start the daemon: {0}")]
    Serve(#[source] std::io::Error),
}

/// Runs the role of this name; `None` when it is none, and the command line is for a person.
pub fn run(name: &str) -> Option<ExitCode> {
    let result = match name {
        LAUNCH => launch(),
        "stockade-serve" => serve(),
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

/// Prints an error with all its causes, whether or not logging was set up.
fn report(error: &dyn std::error::Error) {
    use std::io::Write as _;
    let mut text = format!("stockade: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    // There is nowhere else to say it.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Turns this process into the launcher. Returns only on failure.
pub fn become_launcher(
    settings: Settings,
    listener: Option<OwnedFd>,
    lifeline: Option<OwnedFd>,
) -> std::io::Error {
    let start = LaunchStart { settings, listener: listener.is_some(), lifeline: lifeline.is_some() };
    let prepare = || -> std::io::Result<OwnedFd> {
        let program = exec::sealed_copy_of_self()?;
        let (ours, theirs) = socket::pair()?;
        let message = wire::encode(&start).map_err(std::io::Error::other)?;
        let fds: Vec<_> = listener.iter().chain(&lifeline).map(AsFd::as_fd).collect();
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

fn log_to_stderr(settings: &Settings) {
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if settings.log_json {
        builder.json().init();
    } else {
        builder.with_ansi(false).with_target(false).init();
    }
}

fn launch() -> Result<(), RoleError> {
    let (start, mut fds): (LaunchStart, _) = first_message(&control()?)?;
    log_to_stderr(&start.settings);
    let lifeline = if start.lifeline { fds.pop() } else { None };
    let listener = if start.listener { fds.pop() } else { None };
    Ok(runtime::launch::run(start.settings, listener, lifeline, agent::run)?)
}

fn serve() -> Result<(), RoleError> {
    let control = control()?;
    let (start, mut fds): (ServeStart, _) = first_message(&control)?;
    log_to_stderr(&start.settings);
    let listener = fds.pop().ok_or(wire::BadFrame)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RoleError::Serve)?;
    runtime.block_on(daemon(start, control, listener)).map_err(RoleError::Serve)
}
async fn daemon(start: ServeStart, control: OwnedFd, listener: OwnedFd) -> std::io::Result<()> {
    use crate::sandbox::*;
    use std::collections::BTreeMap;
    let (launcher, _gone) = launcher::Launcher::start(control)?;
    let sandboxes = Sandboxes::start(launcher.clone(), start.settings.clone(), start.host.clone()).await.map_err(std::io::Error::other)?;
    launcher.call(crate::wire::launch::Call::Ready, &[]).await.map_err(std::io::Error::other)?;
    drop(listener);
    let caller = Caller { uid: 0, gid: 0, pid: 0, operator: true };
    let spec = SandboxSpec { id: None, image: "host".into(), env: BTreeMap::new(), cwd: None, user: None, hostname: None, labels: BTreeMap::new(), profile: Default::default(), durability: Default::default(), resources: ResourcesSpec::default() };
    let mut n = 0;
    loop {
        n += 1;
        let t0 = std::time::Instant::now();
        let (sandbox, _) = match sandboxes.create(&caller, spec.clone()).await { Ok(s) => s, Err(e) => { eprintln!("CREATE FAILED {e:?}"); std::process::exit(3); } };
        let t1 = std::time::Instant::now();
        let argv: Vec<String> = if n == 1 { std::env::args().skip(1).collect::<Vec<_>>() } else { vec!["/bin/true".into()] };
        let argv = if argv.is_empty() { vec!["sh".to_owned(), "-c".into(), "id; ls -la / /dev /proc | head -60; cat /proc/self/status | grep -E 'Cap|Secc|NoNew'; ls -l /proc/self/fd; python3 -c 'print(6*7)'; mount; hostname; cat /proc/self/cgroup; ulimit -a; env".to_owned()] } else { argv };
        match sandbox.run(CommandSpec { argv, ..Default::default() }).await {
            Ok(mut c) => {
                use tokio::io::AsyncReadExt;
                let (mut o, mut e) = (vec![], vec![]);
                let mut so = std::mem::replace(&mut c.stdout, { let (_w, r) = tokio::net::unix::pipe::pipe().unwrap(); r });
                let mut se = std::mem::replace(&mut c.stderr, { let (_w, r) = tokio::net::unix::pipe::pipe().unwrap(); r });
                let (r, _, _) = tokio::join!(c.wait(), so.read_to_end(&mut o), se.read_to_end(&mut e));
                if n == 1 { eprintln!("{}\n--err\n{}\n{:?}", String::from_utf8_lossy(&o), String::from_utf8_lossy(&e), r.map_err(|e| (e.to_string(), e.source.map(|s| s.to_string())))); }
            }
            Err(e) => eprintln!("RUN FAILED {e:?}"),
        }
        let t2 = std::time::Instant::now();
        sandboxes.destroy(&caller, &sandbox.view().id.parse_id()).await.map_err(std::io::Error::other)?;
        let t3 = std::time::Instant::now();
        if n % 50 == 2 { eprintln!("create {:?} run {:?} destroy {:?}", t1 - t0, t2 - t1, t3 - t2); }
        if n > 400 { break; }
    }
    std::process::exit(0)
}
trait P { fn parse_id(&self) -> crate::id::SandboxId; }
impl P for String { fn parse_id(&self) -> crate::id::SandboxId { crate::id::SandboxId::parse(self).unwrap() } }
