//! The Python processes that contexts are forked from: their libraries are loaded once, and shared until they are
//! changed.
//!
//! ```text
//! serve ──fork: control, stdout, stderr, witness──▶ zygote ──forks twice──▶ context: a child of the sandbox's PID 1
//!   │                                                                         │ one message into the witness
//!   └──Adopt + witness──▶ agent: who sent it? moves it into a group of its own ◀┘
//! ```
//!
//! The zygote is the workload's own process and no more trusted than that: that the context exists, which process it
//! is and where it came from, the kernel tells the agent. It runs no code of any context, and goes when serve does.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode};
use tokio::sync::oneshot;

use super::frame::{Heard, LIBRARIES, Said, Say};
use super::interpreter::{Control, Ends, Interpreter, Start, ends, exhausted};
use super::language::Language;
use crate::error::{Error, ErrorCode};
use crate::sandbox::agent::{Agent, Outcome, Started};
use crate::sandbox::command::{dead, environment, sealed};
use crate::sys::socket;
use crate::wire::agent::{Exec, Program};

/// How long a zygote may take to be ready, and to fork: it may be in the middle of loading a library.
const READY: Duration = Duration::from_secs(20);
const FORK: Duration = Duration::from_secs(10);

/// Zygotes of one sandbox that may fail before contexts are started without one.
const FAILURES_MAX: u32 = 3;

/// Zygotes of one sandbox at a time: one for each user and each environment that tells how Python starts.
const ZYGOTES_MAX: usize = 3;

/// The zygotes of a sandbox.
#[derive(Debug, Default)]
pub(super) struct Nursery {
    /// The one that was used last is the first.
    nests: Vec<Nest>,
    failures: u32,
    /// Libraries that its contexts have loaded.
    libraries: Vec<&'static str>,
}

/// A zygote, and what it has forked.
#[derive(Debug)]
struct Nest {
    zygote: Zygote,
    /// One that is forked already and waits for its beginning: forking takes longer than everything after it.
    spare: Option<Interpreter>,
}

#[derive(Debug)]
struct Zygote {
    agent: Arc<Agent>,
    number: u32,
    control: Control,
    requests: OwnedFd,
    start: Start,
    ended: oneshot::Receiver<Outcome>,
}

impl Nursery {
    /// Forks a context.
    ///
    /// # Errors
    /// When the image has no interpreter. `None` when there is no zygote that could be its parent.
    pub(super) async fn fork(
        &mut self,
        agent: &Arc<Agent>,
        start: &Start,
    ) -> Result<Option<Interpreter>, Error> {
        self.nests.retain_mut(|nest| nest.zygote.lives());
        if let Some(found) = self.nests.iter().position(|nest| same_start(&nest.zygote.start, start)) {
            self.nests[..=found].rotate_right(1);
            if let Some(mut spare) = self.nests[0].spare.take()
                && spare.lives()
            {
                return Ok(Some(spare));
            }
            return Ok(self.try_fork(0).await);
        }
        if self.failures >= FAILURES_MAX {
            return Ok(None);
        }
        match Zygote::start(agent, start).await {
            Ok(zygote) => self.nests.insert(0, Nest { zygote, spare: None }),
            // Nothing that a start without a zygote could change.
            Err(error) if error.code != ErrorCode::CapacityExhausted => return Err(error),
            Err(_) => {
                self.failures += 1;
                return Ok(None);
            }
        }
        self.nests.truncate(ZYGOTES_MAX);
        let forked = self.try_fork(0).await;
        // Those to come have the libraries; this one does not wait for them.
        if let (Some(_), Some(nest)) = (&forked, self.nests.first_mut()) {
            nest.zygote.load(&self.libraries).await;
        }
        Ok(forked)
    }

    async fn try_fork(&mut self, nest: usize) -> Option<Interpreter> {
        let forked = tokio::time::timeout(FORK, self.nests[nest].zygote.fork()).await;
        match forked {
            Ok(Ok(interpreter)) => Some(interpreter),
            failed => {
                tracing::debug!(?failed, "a zygote does not fork");
                self.nests.remove(nest);
                self.failures += 1;
                None
            }
        }
    }

    /// Forks the next ones before they are asked for.
    pub(super) async fn prepare(&mut self) {
        for nest in (0..self.nests.len()).rev() {
            if self.nests[nest].spare.is_none()
                && let Some(spare) = self.try_fork(nest).await
            {
                self.nests[nest].spare = Some(spare);
            }
        }
    }

    /// Has the zygotes load what contexts have loaded, for those to come.
    pub(super) async fn learn(&mut self, libraries: &[&'static str]) {
        let new = libraries.iter().any(|library| !self.libraries.contains(library));
        if new {
            let old = std::mem::take(&mut self.libraries);
            let known = |library: &&&'static str| old.contains(library) || libraries.contains(library);
            self.libraries = LIBRARIES.iter().filter(known).copied().collect();
            for nest in &mut self.nests {
                // It knows less than those to come.
                nest.spare = None;
                nest.zygote.load(&self.libraries).await;
            }
        }
    }
}

/// Whether a fork of a process that was started so is as if it had been started so itself: the rest of the
/// environment is set afterwards.
fn same_start(a: &Start, b: &Start) -> bool {
    let early = |start: &Start| {
        let early = |name: &str| {
            name.starts_with("PYTHON") || name.starts_with("LD_") || name == "PATH" || name == "HOME"
        };
        start
            .env
            .iter()
            .filter(|(name, _)| early(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<Vec<_>>()
    };
    a.user == b.user && early(a) == early(b)
}

impl Zygote {
    async fn start(agent: &Arc<Agent>, start: &Start) -> Result<Self, Error> {
        let language = Language::Python;
        let (control, control_inside) = socket::stream_pair().map_err(exhausted)?;
        let (requests, requests_inside) = socket::pair().map_err(exhausted)?;
        let program = sealed(language.program().as_bytes()).map_err(exhausted)?;
        let empty = sealed(b"").map_err(exhausted)?;
        // Nobody reads what libraries say while they are loaded.
        let output = rustix::fs::memfd_create(c"output", MemfdFlags::CLOEXEC).map_err(exhausted)?;
        rustix::fs::fchmod(&output, Mode::from_raw_mode(0o666)).map_err(exhausted)?;
        let errors = rustix::io::fcntl_dupfd_cloexec(&output, 3).map_err(exhausted)?;
        let inside = [empty, output, errors, control_inside, program, requests_inside];
        let exec = Exec {
            command: 0,
            program: Program::Shell(language.argv("zygote", None)),
            env: environment(start.env.clone()),
            cwd: b"/".to_vec(),
            user: start.user.clone(),
            keep: false,
        };
        let fds = inside.each_ref().map(AsFd::as_fd);
        let Started { number, begun, ended } = agent.exec(exec, &fds).await.map_err(dead)?;
        drop(inside);
        let control = Control::new(control).map_err(exhausted)?;
        let mut zygote =
            Self { agent: Arc::clone(agent), number, control, requests, start: start.clone(), ended };
        if agent.answered(begun).await.is_none() {
            // Its first context is started without it and says why.
            return Err(zygote.failed());
        }
        match tokio::time::timeout(READY, zygote.control.next()).await {
            Ok(Ok(Heard { said: Said::Ready, .. })) => Ok(zygote),
            _ => Err(zygote.failed()),
        }
    }

    fn failed(&mut self) -> Error {
        Error::new(ErrorCode::CapacityExhausted, "the zygote did not start")
    }

    fn lives(&mut self) -> bool {
        matches!(self.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    /// Has it load libraries while it waits.
    async fn load(&mut self, modules: &[&'static str]) {
        if modules.is_empty() {
            return;
        }
        self.control.say(&Say::Load { modules });
        // It answers nothing: this only writes, and what it does not take now it takes later.
        let _ = tokio::time::timeout(Duration::from_millis(1), self.control.next()).await;
    }

    /// Forks a context, which waits for its beginning.
    async fn fork(&mut self) -> Result<Interpreter, Error> {
        let Ends { control, stdout, stderr } = ends().map_err(exhausted)?;
        let (witness, witness_inside) = socket::pair().map_err(exhausted)?;
        socket::want_sender(&witness).map_err(exhausted)?;
        let fds = [control.1.as_fd(), stdout.1.as_fd(), stderr.1.as_fd(), witness_inside.as_fd()];
        socket::send_now(&self.requests, b"f", &fds).map_err(exhausted)?;
        drop((control.1, stdout.1, stderr.1, witness_inside));
        let duplicate = rustix::io::fcntl_dupfd_cloexec(&control.0, 3).map_err(exhausted)?;
        let mut waiting = Control::new(duplicate).map_err(exhausted)?;
        match waiting.next().await {
            Ok(Heard { said: Said::Forked, .. }) => drop(waiting),
            _ => return Err(self.failed()),
        }
        let started = self.agent.adopt_process(self.number, witness.as_fd()).await.map_err(dead)?;
        Interpreter::begun(&self.agent, Language::Python, started, [control.0, stdout.0, stderr.0], None)
            .await
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (agent, number) = (Arc::clone(&self.agent), self.number);
            runtime.spawn(async move {
                // As for every command.
                let _ = agent.kill(number).await;
            });
        }
    }
}
