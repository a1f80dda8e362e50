//! The course of one run: what is still to be handed on, when it is to be ended, and what is said of it at last.
//! Time and events only, no system calls.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::actor::Ending;
use super::{CodeError, ContextEvent, RunEnd, RunSpec};
use crate::limits::{CONTEXT_CLEANUP_MS, CONTEXT_GRACE_MS};
use crate::sandbox::agent::Outcome;
use crate::wire::agent::Exit;

/// Events that wait to be handed on before nothing more is read. Each is a chunk of output or a frame.
const EVENTS_MAX: usize = 4;

/// After which a run without a timeout is looked at again, for nothing.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// Bytes at the end of stderr that are looked at when an interpreter has ended itself: V8 adds a page of addresses.
const LAST_WORDS_BYTES: usize = 8 * 1024;

/// Which interrupt is the second that all hear: one that began between the look at the processes and the signal has
/// missed the first, and what waits for it ends no more.
const TREE_AGAIN: u32 = 4;

/// Which interrupt kills what the run has started: code that waits for a program that does not hear SIGINT is told
/// nothing by those before, and loses no state by this.
const WITHOUT_OTHERS: u32 = 8;

/// Which one kills also what earlier runs have started: else all of it would end soon, and the state with it.
const WITHOUT_ANY: u32 = 10;

/// Between two further interrupts of code that has heard of the first: each ends one `finally`, or one wait for a pool's
/// threads.
const ONCE_MORE: Duration = Duration::from_millis(200);

/// How long a run's code may wait for the interpreter, which something that an earlier run left behind has; then that
/// is interrupted. Twice as long passes before each further look.
const LOOK: Duration = Duration::from_millis(500);

/// How long code may take to hear of an interrupt, and once it has, what it does then: `finally`, `with`, `except`.
const GRACE: Duration = Duration::from_millis(CONTEXT_GRACE_MS);

/// How long it is interrupted again and again when what it does then does not end.
const CLEANUP: Duration = Duration::from_millis(CONTEXT_CLEANUP_MS);

/// Why a run is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its time is up.
    Timeout,
    /// Somebody wants it.
    Interrupt,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Nothing,
    /// Interrupt it; the first time with all that it has started, and once more for what was just being started then.
    Interrupt {
        tree: bool,
    },
    /// Interrupt it and kill all that it has started; with what earlier ones have if `all`.
    InterruptWithoutOthers {
        all: bool,
    },
    /// Interrupt what is left of earlier runs, if that keeps this one from beginning.
    Look,
    Kill,
}

#[derive(Debug)]
struct Stopping {
    why: Why,
    since: Instant,
    next: Instant,
    /// How often it was interrupted; counted anew when it has heard of one.
    sent: u32,
    /// When it has first heard of one.
    heard: Option<Instant>,
}

impl Stopping {
    /// When it is killed. That it has heard is said by the code's own process, and so gives it more time only once.
    fn kill(&self) -> Instant {
        self.heard.map_or(self.since + GRACE, |heard| heard + GRACE + CLEANUP)
    }
}

/// A run that goes on.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) number: u64,
    pub(super) began: Instant,
    pub(super) events: mpsc::Sender<ContextEvent>,
    /// Whether the code waits for a line.
    pub(super) asks: bool,
    /// Whether somebody wanted a new interpreter meanwhile.
    pub(super) restarted: bool,
    /// Whether more was written before it began than is kept.
    pub(super) background_dropped: bool,
    waiting: VecDeque<ContextEvent>,
    timeout: Option<Duration>,
    /// When it is looked whether the interpreter has begun it.
    look: Instant,
    stopping: Option<Stopping>,
    detach: bool,
    /// Whether nobody reads any more.
    alone: bool,
    dropped: bool,
    fresh: bool,
    /// The last bytes on stderr, for what an interpreter says there when it ends itself.
    last_words: Vec<u8>,
}

impl Course {
    pub(super) fn new(number: u64, spec: &RunSpec, events: mpsc::Sender<ContextEvent>, fresh: bool) -> Self {
        let began = Instant::now();
        Self {
            number,
            began,
            look: began + LOOK,
            events,
            asks: false,
            restarted: false,
            background_dropped: false,
            waiting: VecDeque::new(),
            timeout: spec.timeout,
            stopping: None,
            detach: spec.detach,
            alone: false,
            dropped: false,
            fresh,
            last_words: Vec::new(),
        }
    }

    /// Whether more may be read: there is room, or what comes need not be kept.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < EVENTS_MAX || self.alone || self.stopping.is_some()
    }

    pub(super) fn has_events(&self) -> bool {
        !self.waiting.is_empty() && !self.alone
    }

    pub(super) fn is_alone(&self) -> bool {
        self.alone
    }

    pub(super) fn hand_on(&mut self, permit: mpsc::Permit<'_, ContextEvent>) {
        if let Some(event) = self.waiting.pop_front() {
            permit.send(event);
        }
    }

    /// Whoever has asked is gone: the run ends, unless it was to go on alone.
    pub(super) fn leave(&mut self) {
        self.alone = true;
        self.waiting.clear();
        if !self.detach {
            self.stop(Why::Interrupt);
        }
    }

    /// Something that the code wrote.
    pub(super) fn output(&mut self, which: usize, bytes: Bytes, background: bool) {
        if bytes.is_empty() {
            return;
        }
        if which == 1 {
            let last = &bytes[bytes.len().saturating_sub(LAST_WORDS_BYTES)..];
            self.last_words.extend_from_slice(last);
            self.last_words.drain(..self.last_words.len().saturating_sub(LAST_WORDS_BYTES));
        }
        self.push(match which {
            0 => ContextEvent::Stdout { bytes, background },
            _ => ContextEvent::Stderr { bytes, background },
        });
    }

    /// Something to hand on. While the run is being ended it has to come to its end also without a reader.
    pub(super) fn push(&mut self, event: ContextEvent) {
        if self.alone {
            return;
        }
        let full = self.waiting.len() >= 4 * EVENTS_MAX;
        if self.stopping.is_some() && full {
            self.dropped = true;
            return;
        }
        self.waiting.push_back(event);
    }

    /// Begins to end it, unless that has begun.
    pub(super) fn stop(&mut self, why: Why) {
        let now = Instant::now();
        let stopping = Stopping { why, since: now, next: now, sent: 0, heard: None };
        self.stopping.get_or_insert(stopping);
    }

    /// Whether it ends because its time is up.
    pub(super) fn is_timed_out(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.why == Why::Timeout)
    }

    /// Somebody wants it to end: whoever asks again does not wait for what the code does about the first time.
    pub(super) fn interrupt(&mut self) {
        match &mut self.stopping {
            Some(stopping) if stopping.heard.is_some() => stopping.next = Instant::now(),
            _ => self.stop(Why::Interrupt),
        }
    }

    /// The code has heard of an interrupt: it has some time before it gets another.
    pub(super) fn heard_interrupt(&mut self, now: Instant) {
        if let Some(stopping @ Stopping { heard: None, .. }) = &mut self.stopping {
            (stopping.heard, stopping.next, stopping.sent) = (Some(now), now + GRACE, 0);
        }
    }

    /// An interrupt by the bell and the signal that ends what the code waits for come in any order: the failure of that
    /// is the interrupt's.
    pub(super) fn blame(&self, error: &mut CodeError) {
        if self.stopping.as_ref().is_some_and(|stopping| stopping.why == Why::Interrupt && 0 < stopping.sent)
            && error.name != "KeyboardInterrupt"
        {
            "KeyboardInterrupt".clone_into(&mut error.name);
            "the code was interrupted".clone_into(&mut error.message);
        }
    }

    /// When something is to be done next.
    pub(super) fn next_step(&self) -> Instant {
        match (&self.stopping, self.timeout) {
            (Some(stopping), _) => stopping.next.min(stopping.kill()),
            (None, Some(timeout)) => self.look.min(self.began + timeout.min(LONG * 30)),
            (None, None) => self.look,
        }
    }

    /// What is to be done at this moment.
    pub(super) fn due(&mut self, now: Instant, again: Duration) -> Stop {
        if self.stopping.is_none() && self.timeout.is_some_and(|timeout| now >= self.began + timeout) {
            self.stop(Why::Timeout);
        }
        let Some(stopping) = &mut self.stopping else {
            if now < self.look {
                return Stop::Nothing;
            }
            self.look = now + (now - self.began).min(LONG);
            return Stop::Look;
        };
        if now >= stopping.kill() {
            return Stop::Kill;
        }
        if now < stopping.next {
            return Stop::Nothing;
        }
        stopping.sent += 1;
        stopping.next = now + if stopping.heard.is_some() { ONCE_MORE } else { again };
        match stopping.sent {
            WITHOUT_OTHERS => Stop::InterruptWithoutOthers { all: false },
            WITHOUT_ANY => Stop::InterruptWithoutOthers { all: true },
            sent => Stop::Interrupt { tree: [1, TREE_AGAIN].contains(&sent) },
        }
    }

    /// Puts the last word behind everything else.
    pub(super) fn end(&mut self, ending: Ending, oom_killed: bool) {
        let why = self.stopping.as_ref().map(|stopping| stopping.why);
        let mut end = RunEnd {
            execution_count: None,
            error: None,
            timed_out: why == Some(Why::Timeout),
            interrupted: why == Some(Why::Interrupt),
            state_lost: true,
            restarted: self.fresh,
            oom_killed,
            exit: None,
            output_dropped: self.dropped,
            background_dropped: self.background_dropped,
            duration: self.began.elapsed(),
        };
        end.error = match ending {
            Ending::Done { count, error, .. } => {
                end.state_lost = false;
                end.execution_count = Some(count);
                // What ends because its time is up does not leave by itself.
                let left = error.as_ref().filter(|_| why != Some(Why::Timeout)).and_then(|error| error.exit);
                end.exit = left.map(Exit::Code);
                if why == Some(Why::Timeout) { Some(self.timed_out(error)) } else { error }
            }
            Ending::Killed if why == Some(Why::Timeout) => {
                let mut error = self.timed_out(None);
                error.message.push_str(
                    " and did not end when it was interrupted: it was killed, and the state is lost",
                );
                Some(error)
            }
            Ending::Killed => Some(said(
                "KeyboardInterrupt",
                "the code did not end when it was interrupted: it was killed, and the state is lost",
            )),
            Ending::Garbled => Some(said(
                "InterpreterDied",
                "the interpreter did not keep to the protocol and was killed: the state is lost",
            )),
            Ending::Restarted => {
                Some(said("ContextRestarted", "the context was restarted: the state is lost"))
            }
            Ending::Ended(outcome) => {
                end.exit = match outcome {
                    Some(Outcome::Exited(exit, _)) => Some(exit),
                    _ => None,
                };
                Some(died(end.exit, oom_killed, &self.last_words))
            }
        };
        self.waiting.push_back(ContextEvent::Ended(Box::new(end)));
    }

    fn timed_out(&self, error: Option<CodeError>) -> CodeError {
        let timeout = self.timeout.unwrap_or_default().as_millis();
        let (traceback, line) = error.map(|error| (error.traceback, error.line)).unwrap_or_default();
        let message = format!("the code took longer than {timeout} ms");
        CodeError { name: "TimeoutError".to_owned(), message, traceback, line, exit: None }
    }

    /// Hands on what is left, for as long as there is somebody who takes it.
    pub(super) async fn flush(mut self) {
        while let Some(event) = self.waiting.pop_front() {
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }
}

fn said(name: &str, message: &str) -> CodeError {
    CodeError {
        name: name.to_owned(),
        message: message.to_owned(),
        traceback: String::new(),
        line: None,
        exit: None,
    }
}

fn died(exit: Option<Exit>, oom_killed: bool, last_words: &[u8]) -> CodeError {
    if oom_killed {
        return said(
            "OutOfMemory",
            "the sandbox's memory is used up, and the interpreter was killed: the state is lost",
        );
    }
    // What V8 says before it ends itself.
    if exit == Some(Exit::Signal(libc::SIGABRT))
        && String::from_utf8_lossy(last_words).contains("JavaScript heap out of memory")
    {
        return said(
            "OutOfMemory",
            "the interpreter's heap, three quarters of the sandbox's memory, is used up: the state is lost",
        );
    }
    let how = match exit {
        Some(Exit::Code(code)) => format!("ended with exit code {code}"),
        Some(Exit::Signal(signal)) => format!("was killed by signal {signal}"),
        None => "is gone with its sandbox".to_owned(),
    };
    said("InterpreterDied", &format!("the interpreter {how}: the state is lost"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(timeout: Option<u64>) -> (Course, mpsc::Receiver<ContextEvent>) {
        let (events, received) = mpsc::channel(4);
        let spec = RunSpec { timeout: timeout.map(Duration::from_millis), ..RunSpec::default() };
        (Course::new(1, &spec, events, false), received)
    }

    #[tokio::test]
    async fn code_is_interrupted_until_it_has_heard_and_then_killed() {
        let (mut course, _events) = course(Some(500));
        let began = course.began;
        let at = |ms| began + Duration::from_millis(ms);
        let again = Duration::from_millis(100);
        assert_eq!(course.due(at(499), again), Stop::Nothing);
        course.stopping =
            Some(Stopping { why: Why::Timeout, since: at(500), next: at(500), sent: 0, heard: None });
        assert_eq!(course.due(at(500), again), Stop::Interrupt { tree: true });
        assert_eq!(course.due(at(550), again), Stop::Nothing);
        assert_eq!(course.due(at(600), again), Stop::Interrupt { tree: false });
        assert_eq!(course.due(at(700), again), Stop::Interrupt { tree: false });
        assert_eq!(course.due(at(800), again), Stop::Interrupt { tree: true });
        for ms in [900, 1000, 1100] {
            assert_eq!(course.due(at(ms), again), Stop::Interrupt { tree: false });
        }
        assert_eq!(course.due(at(1200), again), Stop::InterruptWithoutOthers { all: false });
        assert_eq!(course.due(at(1300), again), Stop::Interrupt { tree: false });
        assert_eq!(course.due(at(1400), again), Stop::InterruptWithoutOthers { all: true });
        assert_eq!(course.due(at(500 + CONTEXT_GRACE_MS), again), Stop::Kill);
    }

    #[tokio::test]
    async fn code_that_has_heard_is_interrupted_again_before_it_is_killed() {
        let (mut course, _events) = course(Some(500));
        let began = course.began;
        let at = |ms| began + Duration::from_millis(ms);
        let again = Duration::from_millis(100);
        course.stopping =
            Some(Stopping { why: Why::Timeout, since: at(500), next: at(500), sent: 0, heard: None });
        assert_eq!(course.due(at(500), again), Stop::Interrupt { tree: true });
        course.heard_interrupt(at(510));
        assert_eq!(course.next_step(), at(510 + CONTEXT_GRACE_MS));
        assert_eq!(course.due(at(1500), again), Stop::Nothing);
        // With what it has started since.
        assert_eq!(course.due(at(1510), again), Stop::Interrupt { tree: true });
        // Who hears of each is given no more time than who hears of the first.
        course.heard_interrupt(at(1520));
        assert_eq!(course.next_step(), at(1710));
        assert_eq!(course.due(at(1710), again), Stop::Interrupt { tree: false });
        let end = 510 + CONTEXT_GRACE_MS + CONTEXT_CLEANUP_MS;
        assert_ne!(course.due(at(end - 1), again), Stop::Kill);
        assert_eq!(course.next_step(), at(end));
        assert_eq!(course.due(at(end), again), Stop::Kill);
    }

    #[tokio::test]
    async fn whoever_asks_again_does_not_wait() {
        let (mut course, _events) = course(None);
        course.interrupt();
        let now = Instant::now();
        let again = Duration::from_millis(100);
        assert_eq!(course.due(now, again), Stop::Interrupt { tree: true });
        // Not before the first was heard: it comes by itself then.
        course.interrupt();
        assert_eq!(course.due(now, again), Stop::Nothing);
        course.heard_interrupt(now);
        assert_eq!(course.due(now, again), Stop::Nothing);
        course.interrupt();
        assert_eq!(course.due(Instant::now(), again), Stop::Interrupt { tree: true });
    }

    #[tokio::test]
    async fn what_fails_by_an_interrupt_is_the_interrupts() {
        let (mut course, _events) = course(None);
        let mut error = said("Error", "Command failed: sleep 1000");
        course.blame(&mut error);
        assert_eq!(error.name, "Error");
        course.stop(Why::Interrupt);
        assert_eq!(course.due(Instant::now(), Duration::from_millis(100)), Stop::Interrupt { tree: true });
        course.blame(&mut error);
        assert_eq!(
            (error.name.as_str(), error.message.as_str()),
            ("KeyboardInterrupt", "the code was interrupted")
        );
    }

    #[tokio::test]
    async fn it_is_looked_whether_code_has_begun_ever_more_rarely() {
        let (mut course, _events) = course(None);
        let began = course.began;
        let at = |ms| began + Duration::from_millis(ms);
        let looks: Vec<u64> = (0..10_000)
            .step_by(100)
            .filter(|ms| course.due(at(*ms), Duration::from_millis(100)) == Stop::Look)
            .collect();
        assert_eq!(looks, [500, 1000, 2000, 4000, 8000]);
        assert_eq!(course.next_step(), at(16_000));
    }

    #[tokio::test]
    async fn nothing_is_read_for_a_reader_that_stalls_until_the_run_is_to_end() {
        let (mut course, _events) = course(None);
        for _ in 0..EVENTS_MAX {
            assert!(course.has_room());
            course.output(0, Bytes::from_static(b"x"), false);
        }
        assert!(!course.has_room());
        course.stop(Why::Interrupt);
        assert!(course.has_room());
        for _ in 0..100 {
            course.output(0, Bytes::from_static(b"x"), false);
        }
        assert_eq!(course.waiting.len(), 4 * EVENTS_MAX);
        course.end(Ending::Killed, false);
        let Some(ContextEvent::Ended(end)) = course.waiting.back() else { panic!("the last word") };
        assert!(end.output_dropped && end.state_lost && end.interrupted);
    }
}
