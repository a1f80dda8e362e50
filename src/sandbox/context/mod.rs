//! Contexts: an interpreter each, whose variables and modules live on between cells.
//!
//! ```text
//! api ─▶ Contexts ─▶ Context ─ask─▶ actor ──frames──▶ interpreter (its own process, its own group)
//!                                     │                  ▲ fork
//!                                     │ nursery ─▶ zygote ┘
//!                                     └─ContextEvent─▶ api
//! ```
//!
//! Each context has a task, the [`actor`], which alone speaks to the interpreter; everybody else asks the task. So
//! cells of one context queue in order, those of several run side by side, and whoever asked may leave at any moment.
//! What an interpreter knows is in its memory and gone with its daemon; that there was the context is kept (`record`).

mod actor;
mod bash;
mod frame;
mod interpreter;
mod kept;
mod language;
mod record;
mod rewrite;
mod run;
mod zygote;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

pub use frame::{CodeError, Shown};
use kept::KeptRuns;
pub use kept::{KeptRun, Outcome};
pub use language::Language;
pub(super) use record::Contexts;

use super::Sandbox;
use super::agent::Gone;
use super::command::dead;
use super::spec;
use crate::error::{Error, ErrorCode};
use crate::id::ItemId;
use crate::wire::agent::Exit;
use actor::{Actor, Ask, Home, Run};
use interpreter::Start;
use record::Record;

/// Asks that wait for a task that is busy with starting or ending an interpreter.
const ASKS_MAX: usize = 32;

/// How long a deleted context's processes may take to end.
const END: Duration = Duration::from_secs(10);

/// A context to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContextSpec {
    /// Its name; chosen when absent.
    pub id: Option<ItemId>,
    /// Its language.
    pub language: Language,
    /// Where it begins; the sandbox's directory when absent.
    pub cwd: Option<String>,
    /// Beside the sandbox's own; wins over it.
    pub env: BTreeMap<String, String>,
    /// User; the sandbox's when absent.
    pub user: Option<String>,
    /// When its runs are interrupted unless they say; never when absent.
    pub timeout: Option<Duration>,
}

impl ContextSpec {
    /// A context that nobody has said anything about.
    pub fn new(language: Language) -> Self {
        Self { id: None, language, cwd: None, env: BTreeMap::new(), user: None, timeout: None }
    }
}

/// A cell to run.
#[derive(Clone, Debug, Default)]
pub struct RunSpec {
    /// The cell.
    pub code: String,
    /// For this run alone.
    pub env: BTreeMap<String, String>,
    /// For this run alone.
    pub cwd: Option<String>,
    /// When it is interrupted, from its start; the context's when absent.
    pub timeout: Option<Duration>,
    /// Whether somebody answers when it asks for input; otherwise that is at its end.
    pub stdin: bool,
    /// Whether it goes on when whoever asked leaves.
    pub detach: bool,
    /// What is wrong with the cell, when that is known before it is run.
    pub(crate) wrong: Option<CodeError>,
}

/// What happens in a run.
#[derive(Clone, Debug)]
pub enum ContextEvent {
    /// It, or what it has started, wrote to stdout; with `background` what earlier runs have left behind did.
    Stdout {
        /// Byte for byte.
        bytes: Bytes,
        /// See there.
        background: bool,
    },
    /// The same for stderr.
    Stderr {
        /// Byte for byte.
        bytes: Bytes,
        /// See there.
        background: bool,
    },
    /// It shows something.
    Display(Shown),
    /// The value of the cell.
    Result(Shown),
    /// What was displayed is to go; with `wait`, when the next is there.
    Clear {
        /// See there.
        wait: bool,
    },
    /// It asks for a line.
    Input(Prompt),
    /// It has ended.
    Ended(Box<RunEnd>),
}

/// A question of the code's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Prompt {
    /// What it asks.
    pub prompt: String,
    /// Whether the answer should not be seen.
    pub password: bool,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunEnd {
    /// The cell's number; without one the interpreter is gone.
    pub execution_count: Option<u64>,
    /// Why it did not succeed.
    pub error: Option<CodeError>,
    /// Whether its time was up.
    pub timed_out: bool,
    /// Whether somebody interrupted it.
    pub interrupted: bool,
    /// Whether the interpreter is gone, and with it what it knew.
    pub state_lost: bool,
    /// Whether it was the first after a loss of state.
    pub restarted: bool,
    /// Whether the kernel killed the interpreter for memory.
    pub oom_killed: bool,
    /// How the interpreter ended, if it did by itself.
    pub exit: Option<Exit>,
    /// Whether output was dropped because nobody took it while the run was being ended.
    pub output_dropped: bool,
    /// Whether more was written between the run before and this one than is kept.
    pub background_dropped: bool,
    /// From its start.
    pub duration: Duration,
}

/// A run that has begun. Dropping its events interrupts it, unless it was to go on alone.
#[derive(Debug)]
pub struct CodeRun {
    /// Its name.
    pub id: String,
    /// What happens.
    pub events: mpsc::Receiver<ContextEvent>,
    /// Where what comes of it is written down, when it is to go on alone.
    pub kept: Option<Arc<KeptRun>>,
}

/// A context, in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContextView {
    /// Its name.
    pub id: String,
    /// Its language.
    pub language: Language,
    /// Pid of its interpreter, as seen in the sandbox, while there is one: it is started by the first run, and again
    /// after it was lost.
    pub pid: Option<i32>,
    /// Where it begins.
    pub cwd: String,
    /// What it was given beside the sandbox's environment.
    pub env: BTreeMap<String, String>,
    /// Whom it runs as.
    pub user: String,
    /// Milliseconds after which its runs are interrupted unless they say.
    pub timeout_ms: Option<u64>,
    /// Whether a cell runs.
    pub busy: bool,
    /// Runs that wait for their turn.
    pub waiting: usize,
    /// The last cell's number; 0 when there was none since the interpreter was started.
    pub execution_count: u64,
    /// What the running cell asks.
    pub input: Option<Prompt>,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// When its last run was asked for (RFC 3339).
    pub last_used_at: String,
}

/// A context, seen by those who ask.
#[derive(Debug)]
struct Context {
    shared: Arc<Shared>,
    asks: mpsc::Sender<Ask>,
    deleted: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What a context's task and those who ask both know.
#[derive(Debug)]
struct Shared {
    id: ItemId,
    record: Record,
    /// Rung to interrupt a script of bash.
    bell: tokio::sync::Notify,
    kept: KeptRuns,
    seen: Mutex<Seen>,
}

/// What can be known of a context without asking its task.
#[derive(Debug, Default)]
struct Seen {
    pid: Option<i32>,
    busy: bool,
    waiting: usize,
    count: u64,
    runs: u64,
    input: Option<Prompt>,
    last_used_at: Option<String>,
    /// Whether a script of bash is the first after a loss of state.
    lost: bool,
    /// Whether there has ever been an interpreter.
    started: bool,
}

impl Shared {
    fn new(id: ItemId, record: Record) -> Self {
        Self {
            id,
            record,
            bell: tokio::sync::Notify::new(),
            kept: KeptRuns::default(),
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Plain values: valid after any panic.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen());
    }
}

impl Context {
    /// Starts the task of a context without interpreter, which may have had one in another daemon.
    fn new(id: ItemId, record: Record, home: Home, lost: bool) -> Arc<Self> {
        let shared = Arc::new(Shared::new(id, record));
        shared.set(|seen| (seen.lost, seen.started) = (lost, lost));
        let (asks, asked) = mpsc::channel(ASKS_MAX);
        let deleted = CancellationToken::new();
        let actor = Actor {
            shared: Arc::clone(&shared),
            home,
            asks: asked,
            deleted: deleted.clone(),
            interpreter: None,
            queue: VecDeque::new(),
            background: [Vec::new(), Vec::new()],
            background_dropped: false,
            unpaused: 0,
            shown: Vec::new(),
            lost,
        };
        let task = Mutex::new(Some(tokio::spawn(actor.serve())));
        Arc::new(Self { shared, asks, deleted, task })
    }

    async fn ask(&self, ask: Ask) -> Result<(), Error> {
        self.asks.send(ask).await.map_err(|_| not_found(self.shared.id.as_str()))
    }

    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
        // The task ends without an answer only when its context does.
        answer.await.unwrap_or_else(|_| Err(not_found(self.shared.id.as_str())))
    }
}

impl Drop for Context {
    /// Its sandbox is gone: the task ends, and with it the interpreter.
    fn drop(&mut self) {
        self.deleted.cancel();
    }
}

fn not_found(id: &str) -> Error {
    Error::new(ErrorCode::ContextNotFound, format!("there is no context {id}"))
        .hint("GET …/contexts lists them; one named as its language is made when it is used")
}

impl Sandbox {
    /// Makes a context and starts its interpreter.
    ///
    /// # Errors
    /// `CONTEXT_EXISTS`; `LANGUAGE_NOT_IN_IMAGE`; as for commands.
    pub async fn create_context(self: &Arc<Self>, spec: ContextSpec) -> Result<ContextView, Error> {
        let start = self.context_start(&spec)?;
        let home = self.context_home()?;
        let id = match &spec.id {
            Some(id) => id.clone(),
            None => ItemId::parse(super::random::random_id().as_str())
                .map_err(|error| Error::internal("cannot name the context", error))?,
        };
        let context = self.contexts.add(&id, spec, home)?;
        if let Err(error) = self.start_context(&context, start).await {
            self.contexts.forget(&context);
            return Err(error);
        }
        Ok(self.context_view(&context.shared))
    }

    async fn start_context(self: &Arc<Self>, context: &Context, start: Start) -> Result<(), Error> {
        let Shared { id, record: Record { spec, .. }, .. } = &*context.shared;
        if spec.language == Language::Bash {
            bash::end(self, id).await?;
            bash::start(self, id, spec).await?;
            context.shared.set(|seen| seen.count = 0);
            return Ok(());
        }
        let (done, started) = oneshot::channel();
        context.ask(Ask::Restart(start, done)).await?;
        context.answer(started).await
    }

    fn context_home(&self) -> Result<Home, Error> {
        let agent = self.agent().ok_or_else(|| dead(Gone))?;
        Ok(Home {
            agent: Arc::clone(agent),
            memory: Arc::clone(&self.memory),
            nursery: Arc::clone(&self.contexts.nursery),
        })
    }

    /// Everything that an interpreter is started with.
    fn context_start(&self, wanted: &ContextSpec) -> Result<Start, Error> {
        let cwd = wanted.cwd.clone().unwrap_or_else(|| self.facts.cwd.clone());
        spec::cwd(&cwd)?;
        let mut env = self.environment.get();
        env.extend(wanted.env.clone());
        spec::strings(&[wanted.language.name().to_owned()], &env)?;
        let user = match &wanted.user {
            Some(user) => spec::user(user)?,
            None => self.user()?,
        };
        let heap_mib = wanted.language.heap_mib(self.facts.plan.resources.memory_bytes, &env);
        Ok(Start { env, cwd, user, heap_mib })
    }

    fn context_view(&self, shared: &Shared) -> ContextView {
        let Record { spec, created_at } = &shared.record;
        let seen = shared.seen();
        ContextView {
            id: shared.id.to_string(),
            language: spec.language,
            pid: seen.pid,
            cwd: spec.cwd.clone().unwrap_or_else(|| self.facts.cwd.clone()),
            env: spec.env.clone(),
            user: spec.user.clone().unwrap_or_else(|| self.facts.user.clone()),
            timeout_ms: spec.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
            busy: seen.busy,
            waiting: seen.waiting,
            execution_count: seen.count,
            input: seen.input.clone(),
            created_at: created_at.clone(),
            last_used_at: seen.last_used_at.clone().unwrap_or_else(|| created_at.clone()),
        }
    }

    /// The contexts, by name.
    pub fn contexts(&self) -> Vec<ContextView> {
        self.contexts.all().iter().map(|shared| self.context_view(shared)).collect()
    }

    /// One context.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`.
    pub fn context(&self, id: &str) -> Result<ContextView, Error> {
        let all = self.contexts.all();
        let found = all.iter().find(|shared| shared.id.as_str() == id).ok_or_else(|| not_found(id))?;
        Ok(self.context_view(found))
    }

    fn find_context(&self, id: &str) -> Result<Arc<Context>, Error> {
        let name = ItemId::parse(id).map_err(|_| not_found(id))?;
        self.contexts.find(&name, || self.context_home())?.ok_or_else(|| not_found(id))
    }

    /// A context; one that is named as a language is made when it is not there.
    fn context_for_run(&self, id: &str) -> Result<Arc<Context>, Error> {
        let Some(language) = Language::named(id) else { return self.find_context(id) };
        let name = ItemId::parse(id).map_err(|_| not_found(id))?;
        let home = self.context_home()?;
        loop {
            if let Some(found) = self.contexts.find(&name, || Ok(home.clone()))? {
                return Ok(found);
            }
            match self.contexts.add(&name, ContextSpec::new(language), home.clone()) {
                // Somebody else was first.
                Err(error) if error.code == ErrorCode::ContextExists => {}
                added => return added,
            }
        }
    }

    /// Ends a context: its interpreter and everything that it started is killed. Runs that wait are refused.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`.
    pub async fn delete_context(&self, id: &str) -> Result<(), Error> {
        let name = ItemId::parse(id).map_err(|_| not_found(id))?;
        let context = match self.contexts.remove(&name) {
            (Some(context), _) => context,
            // What it was is gone already.
            (None, Some(_)) => return Ok(()),
            (None, None) => return Err(not_found(id)),
        };
        context.deleted.cancel();
        context.shared.kept.delete();
        let task = context.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // One that takes longer is ended by the kernel, and waits for nobody.
            let _ = tokio::time::timeout(END, task).await;
        }
        match context.shared.record.spec.language {
            Language::Bash => bash::end(self, &context.shared.id).await,
            _ => Ok(()),
        }
    }

    /// Gives a context a new interpreter. The cell that runs is ended; those that wait go on in the new one.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`, and as for making one.
    pub async fn restart_context(self: &Arc<Self>, id: &str) -> Result<ContextView, Error> {
        let context = self.find_context(id)?;
        let start = self.context_start(&context.shared.record.spec)?;
        self.start_context(&context, start).await?;
        Ok(self.context_view(&context.shared))
    }

    /// Interrupts the cell that runs, if one does.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`.
    pub async fn interrupt_context(&self, id: &str) -> Result<(), Error> {
        let context = self.find_context(id)?;
        context.shared.bell.notify_waiters();
        context.ask(Ask::Interrupt).await
    }

    /// Answers the cell that asks for input; `None` is the end of the input.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`, `INPUT_NOT_WANTED`.
    pub async fn answer_context(&self, id: &str, value: Option<String>) -> Result<(), Error> {
        let context = self.find_context(id)?;
        let (done, answered) = oneshot::channel();
        context.ask(Ask::Input(value, done)).await?;
        context.answer(answered).await
    }

    /// Runs a cell when its turn comes.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`, `CONTEXT_BUSY`, and as for making a context.
    pub async fn run_in_context(self: &Arc<Self>, id: &str, mut spec: RunSpec) -> Result<CodeRun, Error> {
        let context = self.context_for_run(id)?;
        let ContextSpec { language, user, .. } = &context.shared.record.spec;
        if *language == Language::Bash {
            let begun = bash::run(self, &context, spec).await;
            return begun.inspect_err(|error| self.forget_impossible(&context, error));
        }
        if language.is_rewritten(&spec.code) {
            match rewrite::rewritten(&self.files(user.as_deref())?, *language, &spec.code).await? {
                Ok(code) => spec.code = code,
                Err(error) => spec.wrong = Some(error),
            }
        }
        let start = self.context_start(&context.shared.record.spec)?;
        spec.timeout = spec.timeout.or(context.shared.record.spec.timeout);
        let number = {
            let mut seen = context.shared.seen();
            seen.runs += 1;
            seen.last_used_at = Some(jiff::Timestamp::now().to_string());
            seen.runs
        };
        let (sender, events) = mpsc::channel(1);
        let (begun, when_begun) = oneshot::channel();
        let id = format!("{}-{number}", context.shared.id);
        let kept = spec.detach.then(|| context.shared.kept.add(id.clone()));
        let run = Run { number, spec, start, events: sender, begun, used: self.hold() };
        let begun = match context.ask(Ask::Run(Box::new(run))).await {
            Ok(()) => context.answer(when_begun).await,
            refused => refused,
        };
        if let (Err(_), Some(kept)) = (&begun, &kept) {
            context.shared.kept.forget(kept);
        }
        begun.inspect_err(|error| self.forget_impossible(&context, error)).map(|()| CodeRun {
            id,
            events,
            kept,
        })
    }

    /// A context that was made for its first run goes with it when the image does not have its language. Others that
    /// wait for it are told the same.
    fn forget_impossible(&self, context: &Arc<Context>, error: &Error) {
        let missing = matches!(error.code, ErrorCode::LanguageNotInImage | ErrorCode::CommandNotInImage);
        if missing && !context.shared.seen().started {
            self.contexts.forget(context);
        }
    }

    /// The runs of a context that were to detach, the oldest first.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`.
    pub fn kept_runs(&self, id: &str) -> Result<Vec<Arc<KeptRun>>, Error> {
        Ok(self.find_context(id)?.shared.kept.all())
    }

    /// One of them.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`, `RUN_NOT_FOUND`.
    pub fn kept_run(&self, id: &str, run: &str) -> Result<Arc<KeptRun>, Error> {
        self.find_context(id)?.shared.kept.find(run)
    }
}
