//! The course of one run: what is still to be handed on, when it is to be ended, and what is said of it at last.
//! Time and events only, no system calls.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::actor::Ending;
use super::{CodeError, ContextEvent, RunEnd, RunSpec};
use crate::limits::CONTEXT_GRACE_MS;
use crate::sandbox::agent::Outcome;
use crate::wire::agent::Exit;

/// Events that wait to be handed on before nothing more is read. Each is a chunk of output or a frame.
const EVENTS_MAX: usize = 4;

/// After which a run without a timeout is looked at again, for nothing.
const LONG: Duration = Duration::from_secs(24 * 3600);

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
    /// Interrupt it; the first time with all that it has started.
    Interrupt {
        first: bool,
    },
    Kill,
}

#[derive(Debug)]
struct Stopping {
    why: Why,
    since: Instant,
    next: Instant,
    sent: bool,
    heard: bool,
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
    waiting: VecDeque<ContextEvent>,
    timeout: Option<Duration>,
    stopping: Option<Stopping>,
    detach: bool,
    /// Whether nobody reads any more.
    alone: bool,
    dropped: bool,
    fresh: bool,
}

impl Course {
    pub(super) fn new(number: u64, spec: &RunSpec, events: mpsc::Sender<ContextEvent>, fresh: bool) -> Self {
        Self {
            number,
            began: Instant::now(),
            events,
            asks: false,
            restarted: false,
            waiting: VecDeque::new(),
            timeout: spec.timeout,
            stopping: None,
            detach: spec.detach,
            alone: false,
            dropped: false,
            fresh,
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
        let stopping = Stopping { why, since: now, next: now, sent: false, heard: false };
        self.stopping.get_or_insert(stopping);
    }

    /// The code has heard of the interrupt: it gets no other.
    pub(super) fn heard_interrupt(&mut self) {
        if let Some(stopping) = &mut self.stopping {
            stopping.heard = true;
        }
    }

    /// When something is to be done next.
    pub(super) fn next_step(&self) -> Instant {
        match (&self.stopping, self.timeout) {
            (Some(stopping), _) if stopping.heard => stopping.since + grace(),
            (Some(stopping), _) => stopping.next.min(stopping.since + grace()),
            (None, Some(timeout)) => self.began + timeout.min(LONG * 30),
            (None, None) => Instant::now() + LONG,
        }
    }

    /// What is to be done at this moment.
    pub(super) fn due(&mut self, now: Instant, again: Duration) -> Stop {
        if self.stopping.is_none() && self.timeout.is_some_and(|timeout| now >= self.began + timeout) {
            self.stop(Why::Timeout);
        }
        let Some(stopping) = &mut self.stopping else { return Stop::Nothing };
        if now >= stopping.since + grace() {
            return Stop::Kill;
        }
        if stopping.heard || now < stopping.next {
            return Stop::Nothing;
        }
        let first = !std::mem::replace(&mut stopping.sent, true);
        stopping.next = now + again;
        Stop::Interrupt { first }
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
            duration: self.began.elapsed(),
        };
        end.error = match ending {
            Ending::Done { count, error, .. } => {
                end.state_lost = false;
                end.execution_count = Some(count);
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
                Some(died(end.exit, oom_killed))
            }
        };
        self.waiting.push_back(ContextEvent::Ended(Box::new(end)));
    }

    fn timed_out(&self, error: Option<CodeError>) -> CodeError {
        let timeout = self.timeout.unwrap_or_default().as_millis();
        let (traceback, line) = error.map(|error| (error.traceback, error.line)).unwrap_or_default();
        let message = format!("the code took longer than {timeout} ms");
        CodeError { name: "TimeoutError".to_owned(), message, traceback, line }
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

fn grace() -> Duration {
    Duration::from_millis(CONTEXT_GRACE_MS)
}

fn said(name: &str, message: &str) -> CodeError {
    CodeError { name: name.to_owned(), message: message.to_owned(), traceback: String::new(), line: None }
}

fn died(exit: Option<Exit>, oom_killed: bool) -> CodeError {
    if oom_killed {
        return said(
            "OutOfMemory",
            "the sandbox's memory is used up, and the interpreter was killed: the state is lost",
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
            Some(Stopping { why: Why::Timeout, since: at(500), next: at(500), sent: false, heard: false });
        assert_eq!(course.due(at(500), again), Stop::Interrupt { first: true });
        assert_eq!(course.due(at(550), again), Stop::Nothing);
        assert_eq!(course.due(at(600), again), Stop::Interrupt { first: false });
        course.heard_interrupt();
        assert_eq!(course.due(at(700), again), Stop::Nothing);
        assert_eq!(course.next_step(), at(500 + CONTEXT_GRACE_MS));
        assert_eq!(course.due(at(500 + CONTEXT_GRACE_MS), again), Stop::Kill);
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
