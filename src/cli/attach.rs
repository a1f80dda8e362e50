//! A command with our stdin, stdout and stderr.
//!
//! Reading and writing run side by side: a command that stops reading its input must still be able to write its
//! output, or `cat` would stand still. Signals go by requests of their own, past input that waits.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use super::client::{Client, segment};
use super::failure::Failure;
use super::recordings::tell;
use super::signals::Signals;
use crate::api::attach::{STDERR, STDIN, STDOUT};
use crate::api::schema::{AttachEvent, CommandEnd, RunCommand, SendSignal, SignalName, StartedEvent};

/// Bytes read from stdin at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// SIGKILL (signal(7)).
const KILL: i32 = 9;

/// SIGPIPE: what a program dies of whose reader has gone.
pub(super) const PIPE: i32 = 13;

type Socket = WebSocketStream<UnixStream>;

/// How an attachment ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The command ended.
    Command(CommandEnd),
    /// Nobody reads our stdout any more; the command was killed.
    ReaderGone,
    /// Three signals: the user does not want to wait for the command's end.
    GivenUp(i32),
}

impl Ended {
    /// As shells say it.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Command(end) => u8::try_from(end.exit_code & 0xff).unwrap_or(u8::MAX),
            Self::ReaderGone => signalled(PIPE),
            Self::GivenUp(signal) => signalled(*signal),
        }
    }
}

/// The exit code for a signal.
pub(super) fn signalled(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// How to attach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    /// Pass on our input.
    pub(super) stdin: bool,
    /// Destroy the sandbox at the end, also when we are killed.
    pub(super) destroy: bool,
}

/// Runs a command in a sandbox with our streams.
pub(super) async fn attach(
    client: &Client,
    sandbox: &str,
    command: &RunCommand,
    options: Options,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let commands = format!("/v1/sandboxes/{}/commands", segment(sandbox));
    let mut socket = client.attach(&format!("{commands}/attach?destroy={}", options.destroy)).await?;
    let first = serde_json::to_string(command).map_err(Failure::NotOurs)?;
    socket.send(Message::text(first)).await.map_err(lost)?;
    let StartedEvent { id, recording, .. } = started(&mut socket).await?;
    let (sink, stream) = socket.split();
    let read = read_output(stream);
    let write = write_input(sink, options.stdin);
    let signal_path = format!("{commands}/{}/signal", segment(&id));
    let forward = forward_signals(client, &signal_path, signals);
    let ended = tokio::select! {
        ended = read => ended,
        never = write => match never {},
        given_up = forward => Ok(Ended::GivenUp(given_up)),
    };
    if ended.is_ok() {
        tell(sandbox, recording.as_deref());
    }
    ended
}

fn lost(error: tungstenite::Error) -> Failure {
    Failure::Lost(error.into())
}

async fn started(socket: &mut Socket) -> Result<StartedEvent, Failure> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => match event(&text)? {
                AttachEvent::Started(started) => return Ok(started),
                AttachEvent::Error(body) => return Err(Failure::Refused(Box::new(body))),
                AttachEvent::Exit(_) => {}
            },
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(lost(error)),
            None => return Err(closed()),
        }
    }
}

fn event(text: &str) -> Result<AttachEvent, Failure> {
    serde_json::from_str(text).map_err(Failure::NotOurs)
}

fn closed() -> Failure {
    Failure::Lost("it closed the connection before the command ended".into())
}

/// Writes the command's output to ours until its end.
async fn read_output(mut stream: SplitStream<Socket>) -> Result<Ended, Failure> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(lost(error)),
            None => return Err(closed()),
        };
        let written = match message {
            Message::Binary(bytes) => match bytes.split_first() {
                Some((&STDOUT, bytes)) => write_all(&mut stdout, bytes).await,
                // Without stderr there is nobody to tell, and the command goes on.
                Some((&STDERR, bytes)) => write_all(&mut stderr, bytes).await.or(Ok(())),
                _ => Ok(()),
            },
            Message::Text(text) => match event(&text)? {
                AttachEvent::Exit(end) => return Ok(Ended::Command(end)),
                AttachEvent::Error(body) => return Err(Failure::Refused(Box::new(body))),
                AttachEvent::Started(_) => Ok(()),
            },
            _ => Ok(()),
        };
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Ended::ReaderGone),
            Err(source) => {
                return Err(Failure::Local { what: "cannot write the command's output".to_owned(), source });
            }
        }
    }
}

async fn write_all(to: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Sends our input to the command, then its end. Never ends: the command's end is what counts.
async fn write_input(mut sink: SplitSink<Socket, Message>, with_stdin: bool) -> std::convert::Infallible {
    let mut stdin = tokio::io::stdin();
    let mut buffer = BytesMut::new();
    let mut open = with_stdin;
    while open {
        buffer.reserve(1 + CHUNK_BYTES);
        buffer.put_u8(STDIN);
        // An error is an end too: there is no more input.
        open = matches!(stdin.read_buf(&mut buffer).await, Ok(count) if count > 0);
        let frame = buffer.split().freeze();
        // When the connection is broken, the reader knows it as well, and says so.
        if open && sink.send(Message::Binary(frame)).await.is_err() {
            return std::future::pending().await;
        }
    }
    let end = Message::Binary(Bytes::from_static(&[STDIN]));
    // As above.
    let _ = sink.send(end).await;
    // The sink stays open while this waits: the other half of the connection needs it.
    std::future::pending().await
}

/// Passes the first signal on, kills at the second, and gives up at the third.
async fn forward_signals(client: &Client, path: &str, signals: &mut Signals) -> i32 {
    for replaced in [None, Some(KILL)] {
        let signal = signals.next().await;
        let signal = SignalName::Number(i64::from(replaced.unwrap_or(signal)));
        // The command may end at this moment, which is what was wanted.
        let _ = client.post_empty(path, &SendSignal { signal }).await;
    }
    signals.next().await
}
