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
use crate::sandbox::command::CommandExit;
use crate::sandbox::{Sandbox, SessionCommand, SessionScript, SessionSpec, Work};
use crate::wire::agent::Exit;

/// Bytes read at once.
const CHUNK_BYTES: usize = 64 * 1024;

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
        match start(sandbox, &shared.id, &shared.spec).await {
            // Somebody else was first.
            Err(error) if error.code != ErrorCode::SessionExists => return Err(error),
            _ => {}
        }
    }
    let script = SessionScript {
        script: Work::Script(spec.code),
        env: spec.env,
        cwd: spec.cwd,
        timeout: spec.timeout.or(shared.spec.timeout),
        input: None,
    };
    let command = sandbox.run_in_session(session.as_str(), script).await?;
    let (sender, events) = mpsc::channel(1);
    let number = {
        let mut seen = shared.seen();
        seen.runs += 1;
        seen.count += 1;
        seen.pid = Some(command.pid);
        seen.last_used_at = Some(jiff::Timestamp::now().to_string());
        seen.runs
    };
    let id = format!("{}-{number}", shared.id);
    tokio::spawn(follow(Arc::clone(shared), command, sender, spec.detach));
    Ok(CodeRun { id, events })
}

/// Hands on what the script writes and how it ends, at the pace of whoever reads.
async fn follow(
    shared: Arc<Shared>,
    mut command: SessionCommand,
    events: mpsc::Sender<ContextEvent>,
    detach: bool,
) {
    let began = std::time::Instant::now();
    let mut pipes = [command.stdout.take(), command.stderr.take()];
    let [mut out, mut err] = [vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]];
    shared.set(|seen| seen.busy = true);
    let interrupted = shared.bell.notified();
    tokio::pin!(interrupted);
    let ended = loop {
        let [stdout, stderr] = &mut pipes;
        let chunk = tokio::select! {
            ended = command.wait() => break Some(ended),
            () = &mut interrupted => break None,
            () = events.closed(), if !detach => break None,
            chunk = read(0, stdout, &mut out), if stdout.is_some() => chunk,
            chunk = read(1, stderr, &mut err), if stderr.is_some() => chunk,
        };
        hand_on(&mut pipes, chunk, &events).await;
    };
    for (which, pipe) in pipes.iter().enumerate() {
        let mut left = 16;
        while let Some(pipe) = pipe
            // Whether or not the reactor has heard of it.
            && let Ok(count @ 1..) = rustix::io::read(pipe, &mut out)
            && left > 0
        {
            left -= 1;
            let _ = events.send(written(which, &out[..count])).await;
        }
    }
    // Dropped before it has ended, the command is interrupted, and the session goes on.
    drop(command);
    let count = shared.seen().count;
    shared.set(|seen| seen.busy = false);
    let _ = events.send(ContextEvent::Ended(Box::new(end_of(ended, count, began.elapsed())))).await;
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
        Some(bytes) => drop(events.send(written(which, &bytes)).await),
        None => pipes[which] = None,
    }
}

fn written(which: usize, bytes: &[u8]) -> ContextEvent {
    let bytes = Bytes::copy_from_slice(bytes);
    match which {
        0 => ContextEvent::Stdout { bytes, background: false },
        _ => ContextEvent::Stderr { bytes, background: false },
    }
}

fn end_of(ended: Option<Result<CommandExit, Error>>, count: u64, duration: std::time::Duration) -> RunEnd {
    let mut end = RunEnd {
        execution_count: Some(count),
        error: None,
        timed_out: false,
        interrupted: ended.is_none(),
        state_lost: false,
        restarted: false,
        oom_killed: false,
        exit: None,
        output_dropped: false,
        duration,
    };
    let said = |name: &str, message: String| {
        Some(CodeError { name: name.to_owned(), message, traceback: String::new(), line: None })
    };
    match ended {
        None => end.error = said("KeyboardInterrupt", "the script was interrupted".to_owned()),
        Some(Ok(exit)) if exit.timed_out => {
            end.timed_out = true;
            end.error = said("TimeoutError", "the script took longer than it was allowed to".to_owned());
        }
        Some(Ok(exit)) => {
            end.oom_killed = exit.oom_killed;
            if exit.exit != Exit::Code(0) {
                end.exit = Some(exit.exit);
                let code = match exit.exit {
                    Exit::Code(code) => code,
                    Exit::Signal(signal) => 128 + signal,
                };
                end.error = said("ExitStatus", code.to_string());
            }
        }
        Some(Err(error)) => {
            end.execution_count = None;
            end.state_lost = true;
            let code = error.context.as_ref().and_then(|context| context["exit_code"].as_i64());
            end.exit = code.and_then(|code| i32::try_from(code).ok()).map(Exit::Code);
            end.error = said("InterpreterDied", format!("{}: the state is lost", error.message));
        }
    }
    end
}
