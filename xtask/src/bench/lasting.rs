//! What a command costs in a shell that is there already, and how long a key takes to come back from a terminal.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Daemon, Place, Report, met, ms, quantile};

/// Rounds that are not counted.
const WARM: usize = 20;

/// Measures both rows. The image is the host's own files: a session needs bash.
pub(super) fn lasting(place: &Place, report: &mut Report, rounds: usize) -> Result<()> {
    let mut daemon = Daemon::start(place)?;
    daemon.call("POST", "/v1/sandboxes", br#"{"id":"lasting"}"#, 201)?;
    let path = "/v1/sandboxes/lasting/sessions/default/commands";
    let (mut empty, mut session) = (Vec::new(), Vec::new());
    for round in 0..rounds + WARM {
        let start = Instant::now();
        daemon.call("GET", "/v1/healthz", b"", 200)?;
        let nothing = start.elapsed();
        let start = Instant::now();
        let answer = daemon.call("POST", path, br#"{"shell":":"}"#, 200)?;
        let took = start.elapsed();
        let answer: Value = serde_json::from_slice(&answer)?;
        if answer["exit_code"] != 0 {
            bail!("the session gives {answer}");
        }
        if round >= WARM {
            empty.push(nothing);
            session.push(took);
        }
    }
    let echo = echo(&mut daemon, rounds)?;
    report.title("sessions and terminals", "what | p50 ms | p90 ms | p99 ms | target");
    let row = |name: &str, samples: &[Duration], target: String| {
        let at = |part| format!("{:.3}", ms(quantile(samples, part)));
        [name.to_owned(), at(0.5), at(0.9), at(0.99), target]
    };
    let target = format!("at most 0.5 above the command's own {}", met(ms(quantile(&session, 0.5)) <= 0.5));
    report.row(&row("`:` in a warm session, through the socket", &session, target));
    report.row(&row("a request that does nothing", &empty, String::new()));
    let target = format!("at most 0.5 {}", met(ms(quantile(&echo, 0.5)) <= 0.5));
    report.row(&row("one key to a terminal and back", &echo, target));
    report.note("`:` is bash's own and costs it nothing, so that the whole of its row is ours.");
    daemon.call("DELETE", "/v1/sandboxes/lasting", b"", 204)?;
    Ok(())
}

/// Types one key at a time into a raw terminal that echoes.
fn echo(daemon: &mut Daemon, rounds: usize) -> Result<Vec<Duration>> {
    let spec = br#"{"id":"echo","argv":["sh","-c","stty -icanon; echo ready; exec cat > /dev/null"]}"#;
    daemon.call("POST", "/v1/sandboxes/lasting/terminals", spec, 201)?;
    let mut socket = UnixStream::connect(&daemon.socket)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.write_all(
        b"GET /v1/sandboxes/lasting/terminals/echo/attach HTTP/1.1\r\nHost: stockade\r\nUpgrade: websocket\r\n\
          Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )?;
    let mut buffer = [0; 4096];
    let mut seen = Vec::new();
    while !seen.windows(5).any(|part| part == b"ready") {
        let count = socket.read(&mut buffer)?;
        seen.extend_from_slice(buffer.get(..count).filter(|bytes| !bytes.is_empty()).context("closed")?);
    }
    // Whatever follows on the same line.
    std::thread::sleep(Duration::from_millis(100));
    socket.set_nonblocking(true)?;
    let _ = socket.read(&mut buffer);
    socket.set_nonblocking(false)?;
    let mut samples = Vec::new();
    for round in 0..rounds + WARM {
        let start = Instant::now();
        // One masked binary frame of one byte (RFC 6455 §5.2), with a mask of zeros.
        socket.write_all(&[0x82, 0x81, 0, 0, 0, 0, b'x'])?;
        let count = socket.read(&mut buffer)?;
        let took = start.elapsed();
        if buffer[..count] != [0x82, 0x01, b'x'] {
            bail!("the terminal answers {:?}", &buffer[..count]);
        }
        if round >= WARM {
            samples.push(took);
        }
    }
    Ok(samples)
}
