//! The task of one context: the only one that speaks to its interpreter.
//!
//! ```text
//!          ask: run            started                     done
//!   idle ───────────▶ starting ───────▶ running ──────────────────────────▶ idle
//!                                         │ time is up, interrupt, caller left
//!                                         ▼                     done
//!                                      stopping ──────────────────────────▶ idle
//!                                         │ 1 s, or 3 s after it has heard
//!                                         │ of it                     killed
//!                                         └───────────────────────────────▶ idle, without interpreter
//! ```
//!
//! Invariants:
//! - Cells run one after another, in the order in which they were asked for.
//! - The interpreter writes what a cell printed before it says anything, and both pipes are emptied before its frame
//!   is looked at: so output and frames are in order, and what a run wrote is in that run.
//! - Nothing is read that cannot be handed on: a client that does not read stops the code in write(2). Once the run is
//!   to end, what has no room is dropped and said to be.
//! - Whatever the interpreter does, its time is up at some point, and then its group is killed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::frame::{Heard, Said, Say};
use super::interpreter::{CHUNK_BYTES, Interpreter, Silence, Start, Word};
use super::language::Language;
use super::run::{Course, Stop};
use super::zygote::Nursery;
use super::{CodeError, ContextEvent, Prompt, RunSpec, Shared, Shown, not_found};
use crate::error::{Error, ErrorCode};
use crate::limits::{CONTEXT_BACKGROUND_BYTES_MAX, CONTEXT_QUEUE_MAX};
use crate::sandbox::agent::{Agent, Outcome};
use crate::sandbox::lifecycle::Use;
use crate::sandbox::memory::Memory;

/// What is kept of what is shown while no run is on.
const BACKGROUND_SHOWN_MAX: usize = 20;
const BACKGROUND_SHOWN_BYTES_MAX: usize = 8 * CONTEXT_BACKGROUND_BYTES_MAX;

/// Pause after reading so much that nobody wants: 6 MiB a second.
const DROP_PAUSE: Duration = Duration::from_millis(10);
const DROP_PAUSE_BYTES: usize = CHUNK_BYTES;

/// What a frame counts for, however short it is: reading it is work as well.
const FRAME_BYTES: usize = 256;

/// How long after a context was forked the next one is.
const PREPARE: Duration = Duration::from_millis(100);

/// Between two interrupts of code that has not heard of one.
const AGAIN: Duration = Duration::from_millis(100);

/// What a context is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// Run a cell when its turn comes.
    Run(Box<Run>),
    /// Interrupt the cell that runs.
    Interrupt,
    /// Answer its prompt; `None` is the end of the input.
    Input(Option<String>, oneshot::Sender<Result<(), Error>>),
    /// Take a new interpreter.
    Restart(Start, oneshot::Sender<Result<(), Error>>),
}

/// A cell on its way.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    pub(super) spec: RunSpec,
    pub(super) start: Start,
    pub(super) events: mpsc::Sender<ContextEvent>,
    /// Told when its turn has come, or why it will not.
    pub(super) begun: oneshot::Sender<Result<(), Error>>,
    /// Until it is over.
    pub(super) used: Use,
}

/// What a sandbox gives its contexts.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) agent: Arc<Agent>,
    pub(super) memory: Arc<Memory>,
    pub(super) nursery: Arc<tokio::sync::Mutex<Nursery>>,
}

/// The task's own state.
pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) home: Home,
    pub(super) asks: mpsc::Receiver<Ask>,
    /// Fires when the context is deleted.
    pub(super) deleted: CancellationToken,
    pub(super) interpreter: Option<Interpreter>,
    pub(super) queue: VecDeque<Box<Run>>,
    /// What was written while nothing ran.
    pub(super) background: [Vec<u8>; 2],
    /// Whether there was more of it than is kept.
    pub(super) background_dropped: bool,
    /// What was dropped since the last pause.
    pub(super) unpaused: usize,
    /// What was shown while nothing ran.
    pub(super) shown: Vec<Shown>,
    /// Whether state was lost since the last run ended.
    pub(super) lost: bool,
}

impl Actor {
    /// Serves until the context is deleted or its sandbox is gone.
    pub(super) async fn serve(mut self) {
        let deleted = self.deleted.clone();
        let over = tokio::select! {
            biased;
            () = deleted.cancelled() => true,
            () = self.turns() => false,
        };
        if let Some(mut interpreter) = self.interpreter.take()
            && over
        {
            interpreter.kill().await;
        }
        self.shared.set(|seen| seen.pid = None);
        self.asks.close();
        while let Ok(ask) = self.asks.try_recv() {
            self.refuse(ask);
        }
        for run in self.queue.drain(..) {
            let _ = run.begun.send(Err(not_found(self.shared.id.as_str())));
        }
    }

    fn refuse(&self, ask: Ask) {
        let error = not_found(self.shared.id.as_str());
        // Whoever left needs no answer.
        match ask {
            Ask::Run(run) => drop(run.begun.send(Err(error))),
            Ask::Interrupt => {}
            Ask::Input(_, done) | Ask::Restart(_, done) => drop(done.send(Err(error))),
        }
    }

    async fn turns(&mut self) {
        loop {
            let Some(run) = self.next_run().await else { return };
            self.shared.set(|seen| {
                seen.waiting = self.queue.len();
                seen.busy = true;
            });
            if !run.events.is_closed() || run.spec.detach {
                self.turn(*run).await;
            }
            self.shared.set(|seen| {
                seen.busy = false;
                seen.input = None;
                seen.pid = self.interpreter.as_ref().map(|interpreter| interpreter.pid);
            });
        }
    }

    /// The run whose turn it is. What the interpreter does meanwhile is looked after.
    async fn next_run(&mut self) -> Option<Box<Run>> {
        loop {
            if let Some(run) = self.queue.pop_front() {
                return Some(run);
            }
            let word = match &mut self.interpreter {
                None => Idle::Asked(self.asks.recv().await),
                Some(interpreter) => {
                    let (mut out, mut err) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
                    tokio::select! {
                        biased;
                        ask = self.asks.recv() => Idle::Asked(ask),
                        count = interpreter.stdout.read(&mut out), if interpreter.open[0] => Idle::wrote(0, count, &out),
                        count = interpreter.stderr.read(&mut err), if interpreter.open[1] => Idle::wrote(1, count, &err),
                        word = interpreter.line.hear() => Idle::Spoke(word),
                    }
                }
            };
            match word {
                Idle::Asked(None) => return None,
                Idle::Asked(Some(ask)) => self.take(ask, None).await,
                Idle::Wrote(which, bytes) => self.keep(which, &bytes, 0).await,
                Idle::Spoke(Word::Frame(Ok(heard))) => self.keep_frame(heard).await,
                Idle::Closed(which) => self.close(which),
                Idle::Spoke(_) => self.lose().await,
            }
        }
    }

    /// Nothing more will come on this stream.
    fn close(&mut self, which: usize) {
        if let Some(interpreter) = &mut self.interpreter {
            interpreter.open[which] = false;
        }
    }

    /// Output that belongs to no run, and what it counts for at least once it is dropped.
    async fn keep(&mut self, which: usize, bytes: &[u8], least: usize) {
        let kept = &mut self.background[which];
        let room = CONTEXT_BACKGROUND_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            self.background_dropped = true;
            self.drop_slowly(bytes.len().max(least)).await;
        }
    }

    /// Whoever writes what nobody wants does it no faster than it costs us little.
    async fn drop_slowly(&mut self, bytes: usize) {
        self.unpaused += bytes;
        if self.unpaused >= DROP_PAUSE_BYTES {
            self.unpaused = 0;
            tokio::time::sleep(DROP_PAUSE).await;
        }
    }

    /// Something that was shown or written while no run is on.
    async fn keep_frame(&mut self, heard: Heard) {
        if let (Some(seq), Some(interpreter)) = (heard.seq, &mut self.interpreter) {
            interpreter.line.control.acknowledge(seq);
        }
        match heard.said {
            Said::Output { stream, text } => self.keep(stream, text.as_bytes(), FRAME_BYTES).await,
            Said::Display(mut shown) if self.shown.len() < BACKGROUND_SHOWN_MAX => {
                let kept: usize = self.shown.iter().map(|shown| shown.data.get().len()).sum();
                if kept + shown.data.get().len() <= BACKGROUND_SHOWN_BYTES_MAX {
                    shown.background = true;
                    self.shown.push(shown);
                }
            }
            _ => self.drop_slowly(DROP_PAUSE_BYTES).await,
        }
    }

    /// What is in the pipes before a run begins is not its.
    async fn keep_rest(&mut self) {
        let mut chunk = vec![0; CHUNK_BYTES];
        for which in 0..2 {
            let mut left = CONTEXT_BACKGROUND_BYTES_MAX;
            while left > 0
                && let Some(interpreter) = &self.interpreter
                && let Ok(count @ 1..) =
                    [&interpreter.stdout, &interpreter.stderr][which].read_now(&mut chunk)
            {
                left = left.saturating_sub(count);
                self.keep(which, &chunk[..count], 0).await;
            }
        }
    }

    /// The interpreter is of no more use.
    async fn lose(&mut self) {
        if let Some(mut interpreter) = self.interpreter.take() {
            interpreter.kill().await;
        }
        self.lost = true;
        self.shared.set(|seen| (seen.pid, seen.count) = (None, 0));
    }

    /// Deals with what is asked beside the run that goes on, if one does.
    async fn take(&mut self, ask: Ask, course: Option<&mut Course>) {
        match ask {
            Ask::Run(run) if self.queue.len() >= CONTEXT_QUEUE_MAX => {
                let busy =
                    Error::new(ErrorCode::ContextBusy, "too many runs of the context wait for their turn");
                let _ = run.begun.send(Err(busy.hint("wait for some of them, or use another context")));
            }
            Ask::Run(run) => {
                self.queue.push_back(run);
                self.shared.set(|seen| seen.waiting = self.queue.len());
            }
            Ask::Interrupt => {
                if let Some(course) = course {
                    course.interrupt();
                }
            }
            Ask::Input(value, done) => {
                let _ = done.send(self.input(value, course));
            }
            Ask::Restart(start, done) => {
                let restarted = self.restart(&start, course).await;
                let _ = done.send(restarted);
            }
        }
    }

    fn input(&mut self, value: Option<String>, course: Option<&mut Course>) -> Result<(), Error> {
        let (Some(course), Some(interpreter)) = (course, &mut self.interpreter) else {
            return Err(no_prompt());
        };
        if !std::mem::take(&mut course.asks) {
            return Err(no_prompt());
        }
        interpreter.line.control.say(&Say::Input { run: course.number, value: value.as_deref() });
        self.shared.set(|seen| seen.input = None);
        Ok(())
    }

    async fn restart(&mut self, start: &Start, course: Option<&mut Course>) -> Result<(), Error> {
        self.lose().await;
        self.lost = false;
        self.background.iter_mut().for_each(Vec::clear);
        self.background_dropped = false;
        self.shown.clear();
        if let Some(course) = course {
            course.restarted = true;
            return Ok(());
        }
        self.ready(start).await
    }

    /// Sees to it that there is an interpreter.
    async fn ready(&mut self, start: &Start) -> Result<(), Error> {
        if self.interpreter.as_mut().is_some_and(Interpreter::lives) {
            return Ok(());
        }
        self.interpreter = None;
        let mut interpreter = self.start(start).await?;
        interpreter.greet(start).await?;
        self.shared.set(|seen| (seen.pid, seen.started) = (Some(interpreter.pid), true));
        self.interpreter = Some(interpreter);
        Ok(())
    }

    async fn start(&self, start: &Start) -> Result<Interpreter, Error> {
        let Home { agent, nursery, .. } = &self.home;
        if self.shared.record.spec.language == Language::Python
            && let Some(interpreter) = nursery.lock().await.fork(agent, start).await?
        {
            let nursery = Arc::clone(nursery);
            tokio::spawn(async move {
                // Not while this one is at its first cell.
                tokio::time::sleep(PREPARE).await;
                nursery.lock().await.prepare().await;
            });
            return Ok(interpreter);
        }
        Interpreter::start(agent, self.shared.record.spec.language, start).await
    }

    /// Runs a cell.
    async fn turn(&mut self, run: Run) {
        let Run { number, spec, start, events, begun, used: _used } = run;
        let fresh = self.lost;
        if let Err(error) = self.ready(&start).await {
            let _ = begun.send(Err(error));
            return;
        }
        if let Some(interpreter) = &mut self.interpreter {
            interpreter.enter().await;
        }
        self.keep_rest().await;
        let Some(interpreter) = &mut self.interpreter else { return };
        let say = Say::Run {
            run: number,
            code: &spec.code,
            stdin: spec.stdin,
            cwd: spec.cwd.as_deref(),
            env: &spec.env,
            wrong: spec.wrong.as_ref(),
        };
        interpreter.line.control.say(&say);
        let _ = begun.send(Ok(()));
        self.lost = false;
        let mut course = Course::new(number, &spec, events, fresh);
        course.background_dropped = std::mem::take(&mut self.background_dropped);
        for (which, bytes) in self.background.iter_mut().enumerate() {
            course.output(which, Bytes::from(std::mem::take(bytes)), true);
        }
        for shown in std::mem::take(&mut self.shown) {
            course.push(ContextEvent::Display(shown));
        }
        let ending = self.follow(&mut course).await;
        match (&ending, &mut self.interpreter) {
            (Ending::Done { .. }, Some(interpreter)) => {
                if course.is_timed_out() {
                    // Whatever the agent does, the run ends. What is asked of it later is done later.
                    let _ = tokio::time::timeout(AGAIN, interpreter.kill_others()).await;
                }
                interpreter.leave();
            }
            _ => self.lose().await,
        }
        self.finish(course, ending).await;
    }

    /// Waits for the end of a cell and hands on what comes until then.
    async fn follow(&mut self, course: &mut Course) -> Ending {
        let (mut out, mut err) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
        loop {
            if course.restarted {
                return Ending::Restarted;
            }
            let Some(interpreter) = &mut self.interpreter else { return Ending::Ended(None) };
            let reads = course.has_room();
            let events = course.events.clone();
            let happened = tokio::select! {
                biased;
                ask = self.asks.recv() => Happened::Asked(ask),
                () = tokio::time::sleep_until(course.next_step()) => Happened::Time,
                permit = events.reserve(), if course.has_events() => match permit {
                    Ok(permit) => {
                        course.hand_on(permit);
                        continue;
                    }
                    Err(_) => Happened::Left,
                },
                () = events.closed(), if !course.is_alone() => Happened::Left,
                count = interpreter.stdout.read(&mut out), if reads && interpreter.open[0] => Happened::wrote(0, count),
                count = interpreter.stderr.read(&mut err), if reads && interpreter.open[1] => Happened::wrote(1, count),
                word = interpreter.line.hear(), if reads => Happened::Spoke(word),
            };
            match happened {
                // The sandbox is gone, or everybody who could ask.
                Happened::Asked(None) => return Ending::Ended(None),
                Happened::Asked(Some(ask)) => self.take(ask, Some(course)).await,
                Happened::Time => {
                    if let Some(ending) = self.step(course).await {
                        return ending;
                    }
                }
                Happened::Left => course.leave(),
                Happened::Wrote(which, count) => {
                    let bytes = if which == 0 { &out[..count] } else { &err[..count] };
                    course.output(which, Bytes::copy_from_slice(bytes), false);
                }
                Happened::Closed(which) => self.close(which),
                Happened::Spoke(word) => {
                    self.drain(course);
                    if let Some(ending) = self.hear(course, word).await {
                        return ending;
                    }
                }
            }
        }
    }

    /// What is in the pipes came before the frame that has come.
    fn drain(&self, course: &mut Course) {
        let Some(interpreter) = &self.interpreter else { return };
        for (which, stream) in [&interpreter.stdout, &interpreter.stderr].into_iter().enumerate() {
            let most = rustix::pipe::fcntl_getpipe_size(stream).unwrap_or(CHUNK_BYTES);
            let mut left = most;
            let mut chunk = vec![0; CHUNK_BYTES];
            // More than the pipe held was written after the frame.
            while left > 0 {
                let Ok(count @ 1..) = stream.read_now(&mut chunk) else { break };
                course.output(which, Bytes::copy_from_slice(&chunk[..count]), false);
                left = left.saturating_sub(count);
            }
        }
    }

    /// A time has come: the run's, or that of the next step of ending it.
    async fn step(&mut self, course: &mut Course) -> Option<Ending> {
        let Some(interpreter) = &mut self.interpreter else { return Some(Ending::Ended(None)) };
        match course.due(Instant::now(), AGAIN) {
            Stop::Nothing => None,
            Stop::Interrupt { tree } => {
                interpreter.interrupt(course.number, tree).await;
                None
            }
            Stop::InterruptWithoutOthers { all } => {
                let interrupted = interpreter.interrupt_without_others(course.number, all);
                // Whatever the agent does, the end of the grace is kept.
                let _ = tokio::time::timeout(AGAIN, interrupted).await;
                None
            }
            Stop::Look => {
                interpreter.look(course.number).await;
                None
            }
            Stop::Kill => Some(Ending::Killed),
        }
    }

    /// Deals with a frame of this run, or with the end of its interpreter.
    async fn hear(&mut self, course: &mut Course, word: Word) -> Option<Ending> {
        let heard = match word {
            Word::Frame(Ok(heard)) => heard,
            Word::Frame(Err(Silence::Bad)) => return Some(Ending::Garbled),
            Word::Frame(Err(Silence::Closed)) => {
                // Most likely it ends: then how is worth waiting for.
                let interpreter = self.interpreter.as_mut()?;
                let ended = tokio::time::timeout(Duration::from_secs(1), interpreter.line.ended()).await;
                self.drain(course);
                return Some(ended.map_or(Ending::Garbled, Ending::Ended));
            }
            Word::Ended(outcome) => {
                while let Some(interpreter) = self.interpreter.as_mut()
                    && let Ok(Some(heard)) = interpreter.line.control.next_now()
                {
                    if let Some(ending) = self.take_frame(course, heard) {
                        return Some(ending);
                    }
                }
                return Some(Ending::Ended(outcome));
            }
        };
        self.take_frame(course, heard)
    }

    fn take_frame(&mut self, course: &mut Course, heard: Heard) -> Option<Ending> {
        if let (Some(seq), Some(interpreter)) = (heard.seq, &mut self.interpreter) {
            interpreter.line.control.acknowledge(seq);
        }
        if heard.run != course.number {
            take_left(course, heard);
            return None;
        }
        match heard.said {
            Said::Output { stream, text } => course.output(stream, Bytes::from(text), false),
            Said::Display(shown) => course.push(ContextEvent::Display(shown)),
            Said::Result(shown) => course.push(ContextEvent::Result(shown)),
            Said::Clear { wait } => course.push(ContextEvent::Clear { wait }),
            Said::Input { prompt, password } => {
                course.asks = true;
                let prompt = Prompt { prompt, password };
                self.shared.set(|seen| seen.input = Some(prompt.clone()));
                course.push(ContextEvent::Input(prompt));
            }
            Said::Interrupted => course.heard_interrupt(Instant::now()),
            Said::Done { count, error, modules, left } => {
                if let Some(interpreter) = &mut self.interpreter {
                    interpreter.left = left;
                }
                return Some(Ending::Done { count, error, modules });
            }
            Said::Ready | Said::Forked | Said::Failed(_) => return Some(Ending::Garbled),
        }
        None
    }

    /// Says how it ended.
    async fn finish(&mut self, mut course: Course, mut ending: Ending) {
        let mut oom_killed = false;
        if let Ending::Done { error: Some(error), .. } = &mut ending
            && self.shared.record.spec.language.has_bell()
        {
            course.blame(error);
        }
        if let Ending::Ended(Some(Outcome::Exited(exit, _))) = &ending {
            oom_killed = self.home.memory.killed(course.began.into_std(), *exit).await;
        }
        if let Ending::Done { modules, count, .. } = &ending {
            self.shared.set(|seen| seen.count = *count);
            if !modules.is_empty() && self.shared.record.spec.language == Language::Python {
                let (nursery, modules) = (Arc::clone(&self.home.nursery), modules.clone());
                tokio::spawn(async move {
                    nursery.lock().await.learn(&modules).await;
                    tokio::time::sleep(PREPARE).await;
                    nursery.lock().await.prepare().await;
                });
            }
        }
        course.end(ending, oom_killed);
        // At most what the run was allowed to hold; the next run does not wait for whoever reads it.
        tokio::spawn(course.flush());
    }
}

/// What an earlier run has left behind writes and shows is told with the run that goes on; anything else of another
/// run is nobody's.
fn take_left(course: &mut Course, heard: Heard) {
    match heard.said {
        Said::Output { stream, text } => course.output(stream, Bytes::from(text), true),
        Said::Display(mut shown) if heard.run < course.number => {
            shown.background = true;
            course.push(ContextEvent::Display(shown));
        }
        _ => {}
    }
}

/// How a run came to its end.
#[derive(Debug)]
pub(super) enum Ending {
    /// The interpreter says so.
    Done { count: u64, error: Option<CodeError>, modules: Vec<&'static str> },
    /// The interpreter has ended; how, unless the sandbox is gone.
    Ended(Option<Outcome>),
    /// It did not keep to the protocol, and is killed.
    Garbled,
    /// It did not listen, and is killed.
    Killed,
    /// Somebody wanted a new one.
    Restarted,
}

enum Idle {
    Asked(Option<Ask>),
    Wrote(usize, Vec<u8>),
    Closed(usize),
    Spoke(Word),
}

impl Idle {
    fn wrote(which: usize, count: std::io::Result<usize>, buffer: &[u8]) -> Self {
        match count {
            Ok(count @ 1..) => Self::Wrote(which, buffer[..count].to_vec()),
            _ => Self::Closed(which),
        }
    }
}

enum Happened {
    Asked(Option<Ask>),
    Time,
    Left,
    Wrote(usize, usize),
    Closed(usize),
    Spoke(Word),
}

impl Happened {
    fn wrote(which: usize, count: std::io::Result<usize>) -> Self {
        match count {
            Ok(count @ 1..) => Self::Wrote(which, count),
            _ => Self::Closed(which),
        }
    }
}

fn no_prompt() -> Error {
    Error::new(ErrorCode::InputNotWanted, "the context's code does not ask for input")
        .hint("wait for the event `input`; a run must be started with `stdin`")
}
