//! Contexts of bash: a session each, with the events of a run.
//!
//! A session queues its commands, interrupts them and keeps its state already; here its pipes become events. The exit
//! status takes the place of an exception: other than 0 it is the error `ExitStatus`.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::frame::CodeError;
use super::{CodeRun, Context, ContextEvent, ContextSpec, RunEnd, RunSpec, Shared};
use crate::error::{Error, ErrorCode};
use crate::id::ItemId;
use crate::limits::CONTEXT_BACKGROUND_BYTES_MAX;
use crate::sandbox::command::CommandExit;
use crate::sandbox::{Sandbox, SessionCommand, SessionScript, SessionSpec, Work};
use crate::wire::agent::Exit;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Bytes at the end of stderr in which bash's own words are looked for.
const LAST_WORDS_BYTES: usize = 8 * 1024;

/// How bash begins what it says of a script, whose only name is that of its descriptor; and what tells as much.
const NAMED: (&[u8], &[u8]) = (b"bash: /proc/self/fd/251: line ", b"bash: line ");

/// The exit status of what bash cannot read (bash(1), "EXIT STATUS").
const SYNTAX: i32 = 2;

/// The session of a context.
fn session_id(context: &ItemId) -> Result<ItemId, Error> {
    ItemId::parse(&format!("context-{context}")).map_err(|why| {
        Error::new(ErrorCode::InvalidId, format!("the id of its session {why}")).hint("choose a shorter id")
    })
}

/// Makes the session of a context.
///
/// # Errors
/// As for sessions.
pub(super) async fn start(sandbox: &Arc<Sandbox>, id: &ItemId, spec: &ContextSpec) -> Result<(), Error> {
    let ContextSpec { cwd, env, user, .. } = spec.clone();
    let spec = SessionSpec { id: Some(session_id(id)?), cwd, env, user };
    sandbox.create_session(spec).await.map(drop)
}

/// Ends the session of a context, if it has one.
///
/// # Errors
/// When the sandbox is gone.
pub(super) async fn end(sandbox: &Sandbox, id: &ItemId) -> Result<(), Error> {
    match sandbox.delete_session(session_id(id)?.as_str()).await {
        Err(error) if error.code != ErrorCode::SessionNotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs a script in the session of a context when its turn comes.
///
/// # Errors
/// As for sessions.
pub(super) async fn run(sandbox: &Arc<Sandbox>, context: &Context, spec: RunSpec) -> Result<CodeRun, Error> {
    let shared = &context.shared;
    let session = session_id(&shared.id)?;
    if sandbox.session(session.as_str()).is_err() {
        match start(sandbox, &shared.id, &shared.record.spec).await {
            Err(error) if error.code != ErrorCode::SessionExists => return Err(error),
            // Somebody else was first.
            Err(_) => {}
            Ok(()) => shared.set(|seen| seen.count = 0),
        }
    }
    let script = SessionScript {
        script: Work::Script(spec.code),
        env: spec.env,
        cwd: spec.cwd,
        timeout: spec.timeout.or(shared.record.spec.timeout),
        input: None,
        record: None,
    };
    let command = sandbox.run_in_session(session.as_str(), script).await?;
    let (sender, events) = mpsc::channel(1);
    let (number, count, restarted) = {
        let mut seen = shared.seen();
        seen.runs += 1;
        seen.count += 1;
        seen.pid = Some(command.pid);
        seen.started = true;
        seen.last_used_at = Some(jiff::Timestamp::now().to_string());
        (seen.runs, seen.count, std::mem::take(&mut seen.lost))
    };
    let id = format!("{}-{number}", shared.id);
    let kept = spec.detach.then(|| shared.kept.add(id.clone()));
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let detach = spec.detach;
        let mut end = follow(&shared, command, &sender, detach, count).await;
        end.restarted = restarted;
        shared.set(|seen| {
            seen.busy = false;
            seen.lost |= end.state_lost;
            // Unless a new session has begun to count.
            if end.state_lost && seen.count == count {
                seen.count = 0;
            }
        });
        let _ = sender.send(ContextEvent::Ended(Box::new(end))).await;
    });
    Ok(CodeRun { id, events, kept })
}

/// Hands on what the script writes and how it ends, at the pace of whoever reads.
async fn follow(
    shared: &Shared,
    mut command: SessionCommand,
    events: &mpsc::Sender<ContextEvent>,
    detach: bool,
    count: u64,
) -> RunEnd {
    let began = std::time::Instant::now();
    let left = std::mem::take(&mut command.left);
    // Where there is no room left, more was written.
    let background_dropped = left.iter().any(|bytes| bytes.len() >= CONTEXT_BACKGROUND_BYTES_MAX);
    for (which, bytes) in left.into_iter().enumerate() {
        if !bytes.is_empty() {
            let _ = events.send(written(which, &bytes, true)).await;
        }
    }
    let mut last_words = Vec::new();
    let mut pipes = [command.stdout.take(), command.stderr.take()];
    let [mut out, mut err] = [vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]];
    shared.set(|seen| seen.busy = true);
    let bell = shared.bell.notified();
    tokio::pin!(bell);
    let ended = loop {
        let [stdout, stderr] = &mut pipes;
        let chunk = tokio::select! {
            ended = command.wait() => break Some(ended),
            () = &mut bell => break None,
            () = events.closed(), if !detach => break None,
            chunk = read(0, stdout, &mut out), if stdout.is_some() => chunk,
            chunk = read(1, stderr, &mut err), if stderr.is_some() => chunk,
        };
        let chunk = match chunk {
            (1, Some(bytes)) => (1, Some(unnamed(bytes))),
            other => other,
        };
        if let (1, Some(bytes)) = &chunk {
            remember(&mut last_words, bytes);
        }
        hand_on(&mut pipes, chunk, events).await;
    };
    let interrupted = ended.is_none();
    let ended = match ended {
        Some(ended) => ended,
        None => {
            command.interrupt();
            // The session bounds it; whether the shell has outlived it is worth waiting for.
            command.wait().await
        }
    };
    for (which, pipe) in pipes.iter().enumerate() {
        let mut left = 16;
        while let Some(pipe) = pipe
            // Whether or not the reactor has heard of it.
            && let Ok(count @ 1..) = rustix::io::read(pipe, &mut out)
            && left > 0
        {
            left -= 1;
            let mut bytes = Bytes::copy_from_slice(&out[..count]);
            if which == 1 {
                bytes = unnamed(bytes);
                remember(&mut last_words, &bytes);
            }
            let _ = events.send(written(which, &bytes, false)).await;
        }
    }
    drop(command);
    let end = end_of(ended, interrupted, count, began.elapsed(), &last_words);
    RunEnd { background_dropped, ..end }
}

async fn read(which: usize, pipe: &mut Option<pipe::Receiver>, buffer: &mut [u8]) -> (usize, Option<Bytes>) {
    let Some(pipe) = pipe else { return (which, None) };
    match pipe.read(buffer).await {
        Ok(count @ 1..) => (which, Some(Bytes::copy_from_slice(&buffer[..count]))),
        _ => (which, None),
    }
}

async fn hand_on(
    pipes: &mut [Option<pipe::Receiver>; 2],
    (which, bytes): (usize, Option<Bytes>),
    events: &mpsc::Sender<ContextEvent>,
) {
    match bytes {
        // Whoever left is noticed by the next look at the channel.
        Some(bytes) => drop(events.send(written(which, &bytes, false)).await),
        None => pipes[which] = None,
    }
}

fn written(which: usize, bytes: &[u8], background: bool) -> ContextEvent {
    let bytes = Bytes::copy_from_slice(bytes);
    match which {
        0 => ContextEvent::Stdout { bytes, background },
        _ => ContextEvent::Stderr { bytes, background },
    }
}

/// What was written to stderr without the name of the script's descriptor, with which bash begins a line: it writes
/// that at once.
fn unnamed(bytes: Bytes) -> Bytes {
    let (named, plain) = NAMED;
    let begins = |at: usize| bytes[at..].starts_with(named) && (at == 0 || bytes[at - 1] == b'\n');
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, named).filter(|&at| begins(at)).collect();
    if places.is_empty() {
        return bytes;
    }
    let mut made = Vec::with_capacity(bytes.len());
    let mut done = 0;
    for at in places {
        made.extend_from_slice(&bytes[done..at]);
        made.extend_from_slice(plain);
        done = at + named.len();
    }
    made.extend_from_slice(&bytes[done..]);
    Bytes::from(made)
}

/// Keeps the end of what was written to stderr.
fn remember(last_words: &mut Vec<u8>, bytes: &[u8]) {
    last_words.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_WORDS_BYTES)..]);
    last_words.drain(..last_words.len().saturating_sub(LAST_WORDS_BYTES));
}

/// The line of the script that bash says it could not read: `bash: …: line 3: syntax error …`. It names no line of what
/// it could not run.
fn line_of(status: i32, last_words: &[u8]) -> Option<u64> {
    if status != SYNTAX {
        return None;
    }
    let text = String::from_utf8_lossy(last_words);
    // The first: what follows is that it could not go on.
    text.lines().find_map(|line| {
        let (number, what) = line.strip_prefix("bash: ")?.split_once("line ")?.1.split_once(": ")?;
        let is_syntax = what.contains("syntax error") || what.contains("unexpected EOF");
        number.parse().ok().filter(|_| is_syntax)
    })
}

fn end_of(
    ended: Result<CommandExit, Error>,
    interrupted: bool,
    count: u64,
    duration: std::time::Duration,
    last_words: &[u8],
) -> RunEnd {
    let mut end = RunEnd {
        execution_count: Some(count),
        error: None,
        timed_out: false,
        interrupted,
        state_lost: false,
        restarted: false,
        oom_killed: false,
        exit: None,
        output_dropped: false,
        background_dropped: false,
        duration,
    };
    let said = |name: &str, message: String| {
        Some(CodeError { name: name.to_owned(), message, traceback: String::new(), line: None, exit: None })
    };
    match ended {
        Ok(_) if interrupted => {
            end.error = said("KeyboardInterrupt", "the script was interrupted".to_owned());
        }
        Ok(exit) if exit.timed_out => {
            end.timed_out = true;
            end.error = said("TimeoutError", "the script took longer than it was allowed to".to_owned());
        }
        Ok(exit) => {
            end.oom_killed = exit.oom_killed;
            if exit.exit != Exit::Code(0) {
                end.exit = Some(exit.exit);
                let code = match exit.exit {
                    Exit::Code(code) => code,
                    Exit::Signal(signal) => 128 + signal,
                };
                let line = line_of(code, last_words);
                end.error = said("ExitStatus", code.to_string()).map(|error| CodeError { line, ..error });
            }
        }
        Err(error) => {
            let said_of = |name: &str| error.context.as_ref().map(|context| &context[name]);
            let is = |name: &str| said_of(name).is_some_and(|value| *value == true);
            end.execution_count = None;
            end.state_lost = true;
            end.timed_out = is("timed_out");
            let message = error.message.replace("the session's shell", "bash");
            let (name, message) = if end.timed_out {
                ("TimeoutError", "the script took longer than it was allowed to, and did not leave bash")
            } else if interrupted {
                ("KeyboardInterrupt", "the script was interrupted, and did not leave bash")
            } else if is("oom_killed") {
                end.oom_killed = true;
                ("OutOfMemory", "the sandbox's memory is used up, and bash was killed")
            } else {
                ("InterpreterDied", &*message)
            };
            end.error = said(name, format!("{message}: the state is lost"));
            if !end.timed_out && !interrupted {
                let code = said_of("exit_code").and_then(serde_json::Value::as_i64);
                end.exit = code.and_then(|code| i32::try_from(code).ok()).map(Exit::Code);
            }
        }
    }
    end
}
