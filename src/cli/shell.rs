//! `shell`: a terminal in a sandbox, on the terminal that we have.
//!
//! ```text
//! our keys ─▶ stdin, raw ─▶ binary frames ─▶ terminal in the sandbox ─▶ binary frames ─▶ stdout
//! SIGWINCH ─▶ {"resize":…}
//! ```
//!
//! In raw mode every key goes to the sandbox's terminal, whose line discipline makes of Ctrl-C and Ctrl-Z what they
//! mean there; but for the sequence that leaves it, and lets its program run. However we end, the terminal is as it was before: [`Raw`] restores it when it is dropped, also while a
//! panic unwinds; and the signals that would end us end the loop first. Only SIGKILL cannot be met; `reset` mends that.

use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;

use futures_util::{SinkExt, StreamExt};
use rustix::termios::{OptionalActions, Termios};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use super::arguments::Shell;
use super::attach::signalled;
use super::client::{Client, segment};
use super::daemon::Daemon;
use super::failure::Failure;
use super::keys::{Sequence, Watched};
use super::quantity::environment;
use super::recordings::tell;
use super::signals::Signals;
use super::{show, terminals};
use crate::api::schema::{OpenTerminal, TerminalControl, TerminalEvent, TerminalSize};
use crate::sandbox::TerminalView;

/// Bytes read from the keyboard at once: a paste.
const CHUNK_BYTES: usize = 16 * 1024;

/// Size of a terminal that does not say.
const SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };

/// Our own terminal, while its keys are somebody else's.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> Result<Self, Failure> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |errno: rustix::io::Errno| Failure::Local { what, source: errno.into() }
        };
        let stdin = std::io::stdin();
        let before =
            rustix::termios::tcgetattr(&stdin).map_err(failed("cannot read the terminal's modes"))?;
        let mut modes = before.clone();
        modes.make_raw();
        let this = Self { before };
        rustix::termios::tcsetattr(&stdin, OptionalActions::Now, &modes)
            .map_err(failed("cannot put the terminal into raw mode"))?;
        Ok(this)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no modes.
        let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// The size of our terminal.
fn size() -> TerminalSize {
    let found = rustix::termios::tcgetwinsize(std::io::stdout().as_fd());
    match found {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
            TerminalSize { rows: size.ws_row.into(), columns: size.ws_col.into() }
        }
        _ => SIZE,
    }
}

/// How a look at a terminal ended.
enum Ended {
    /// The program did, with this code.
    Program(i32),
    /// We were told to end.
    Signal(i32),
    /// Whoever looked has left; the program goes on.
    Detached,
}

impl Ended {
    /// As shells say it.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Program(code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            Self::Signal(number) => signalled(*number),
            Self::Detached => 0,
        }
    }
}

fn must_be_terminal() -> Result<(), Failure> {
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return Ok(());
    }
    Err(Failure::Usage("shell needs a terminal; `stockade exec` runs commands without one".to_owned()))
}

/// `stockade shell`.
pub(super) async fn shell(daemon: Daemon, mut arguments: Shell) -> Result<u8, Failure> {
    let keys = std::mem::take(&mut arguments.leaving.detach_keys);
    if let Some(name) = &arguments.attach {
        return attach(daemon, &arguments.id, name, keys).await;
    }
    must_be_terminal()?;
    let mut signals = Signals::catch()?;
    let connection = daemon.running().await?;
    let client = &connection.client;
    let terminals = terminals::all(&arguments.id);
    let terminal = open(client, &terminals, &arguments).await?;
    let path = format!("{terminals}/{}", segment(&terminal.id));
    let ended = look(client, &path, Watched::new(keys), &mut signals).await;
    match &ended {
        Ok(Ended::Detached) => say_left(&arguments.id, &terminal.id),
        _ if arguments.keep => {}
        // Its program may have ended, and somebody may have closed it.
        _ => drop(client.delete(&path).await),
    }
    tell(&arguments.id, terminal.recording.as_deref());
    ended.map(|ended| ended.exit_code())
}

/// Looks at a terminal that is there.
pub(super) async fn attach(daemon: Daemon, sandbox: &str, name: &str, keys: Sequence) -> Result<u8, Failure> {
    must_be_terminal()?;
    let mut signals = Signals::catch()?;
    let connection = daemon.running().await?;
    let path = format!("{}/{}", terminals::all(sandbox), segment(name));
    let ended = look(&connection.client, &path, Watched::new(keys), &mut signals).await?;
    if let Ended::Detached = ended {
        say_left(sandbox, name);
    }
    Ok(ended.exit_code())
}

/// Says how to come back. The cursor stands wherever the program left it.
fn say_left(sandbox: &str, name: &str) {
    show::say("");
    show::say(&format!("stockade: it goes on; `stockade terminal attach {sandbox} {name}` shows it again"));
}

async fn open(client: &Client, terminals: &str, arguments: &Shell) -> Result<TerminalView, Failure> {
    let surroundings = &arguments.surroundings;
    let mut env = environment(&surroundings.env_file, &surroundings.env)?;
    for name in ["TERM", "COLORTERM"] {
        if let Ok(value) = std::env::var(name) {
            env.entry(name.to_owned()).or_insert(value);
        }
    }
    let TerminalSize { rows, columns } = size();
    let wanted = OpenTerminal {
        argv: (!arguments.command.is_empty()).then(|| arguments.command.clone()),
        env,
        cwd: surroundings.cwd.clone(),
        user: surroundings.user.clone(),
        rows,
        columns,
        session: arguments.session.clone(),
        id: arguments.name.clone(),
        record: arguments.recording.wanted(),
    };
    let (_, terminal) = client.post::<_, TerminalView>(terminals, &wanted).await?;
    Ok(terminal)
}

/// Shows a terminal until its program ends, with our keys.
async fn look(
    client: &Client,
    path: &str,
    mut watched: Watched,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let socket = client.attach(&format!("{path}/attach")).await?;
    let (mut sink, mut stream) = socket.split();
    let mut resized = signal(SignalKind::window_change())
        .map_err(|source| Failure::Local { what: "cannot catch signals".to_owned(), source })?;
    let _raw = Raw::enter()?;
    let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let mut keys = vec![0; CHUNK_BYTES];
    let mut open = true;
    // Whatever size it was opened with, this is ours.
    let mut message = Some(resize()?);
    loop {
        if let Some(message) = message.take()
            && sink.send(message).await.is_err()
        {
            return Err(closed());
        }
        tokio::select! {
            frame = stream.next() => match frame {
                Some(Ok(Message::Binary(bytes))) => {
                    let written = async {
                        stdout.write_all(&bytes).await?;
                        stdout.flush().await
                    };
                    let what = "cannot write to the terminal";
                    written.await.map_err(|source| Failure::Local { what: what.to_owned(), source })?;
                }
                Some(Ok(Message::Text(text))) => {
                    match serde_json::from_str(&text).map_err(Failure::NotOurs)? {
                        TerminalEvent::Exit { exit_code, .. } => return Ok(Ended::Program(exit_code)),
                        TerminalEvent::Attached { .. } | TerminalEvent::Skipped { .. } => {}
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Failure::Lost(error.into())),
                None => return Err(closed()),
            },
            read = stdin.read(&mut keys), if open => match read {
                Ok(count) if count > 0 => match watched.typed(&keys[..count]) {
                    (typed, true) => {
                        if !typed.is_empty() {
                            let _ = sink.send(Message::binary(typed)).await;
                        }
                        return Ok(Ended::Detached);
                    }
                    (typed, false) => message = Some(typed).filter(|typed| !typed.is_empty()).map(Message::binary),
                },
                // Our terminal is gone; SIGHUP follows.
                _ => open = false,
            },
            _ = resized.recv() => message = Some(resize()?),
            number = signals.next() => return Ok(Ended::Signal(number)),
        }
    }
}

fn resize() -> Result<Message, Failure> {
    let control = TerminalControl { resize: Some(size()), signal: None };
    serde_json::to_string(&control).map(Message::text).map_err(Failure::NotOurs)
}

fn closed() -> Failure {
    Failure::Lost("it closed the connection before the program ended".into())
}
