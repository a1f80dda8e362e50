//! Whether a port answers: a connection, or a request whose answer has the right status.
//!
//! What answers is the sandbox's own: it is given little time, and few of its bytes are looked at.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use utoipa::ToSchema;

use crate::error::{Error, ErrorCode};
use crate::sandbox::files::Files;
use crate::sys::dialled::Dialled;

/// How long one connection or answer may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The first pause between two attempts, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(100)];

/// Bytes of an answer in which its status must stand.
const STATUS_BYTES_MAX: usize = 64;

/// A port to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its number, on the sandbox's loopback.
    pub port: u16,
    /// A request that must be answered; without one a connection is enough.
    pub http: Option<HttpProbe>,
}

/// A request and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// The target, beginning with `/`.
    pub path: String,
    /// The lowest status that counts.
    pub status_min: u16,
    /// The highest.
    pub status_max: u16,
}

/// A port that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortMatch {
    /// Its number.
    pub port: u16,
    /// Status of the answer to the request, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// Tries until the port answers as it should.
///
/// # Errors
/// What connecting says, except that nobody listens.
pub(super) async fn answered(probe: &Probe, files: &Files) -> Result<PortMatch, Error> {
    let [mut pause, longest] = PAUSES;
    loop {
        let attempt = async {
            let stream = files.dial(probe.port).await?;
            Ok::<_, Error>(match &probe.http {
                None => Some(PortMatch { port: probe.port, status: None }),
                Some(http) => status(stream, probe.port, &http.path)
                    .await
                    .filter(|status| (http.status_min..=http.status_max).contains(status))
                    .map(|status| PortMatch { port: probe.port, status: Some(status) }),
            })
        };
        match tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await {
            Ok(Ok(Some(matched))) => return Ok(matched),
            Ok(Err(error)) if error.code != ErrorCode::PortClosed => return Err(error),
            // Nobody listens yet, or it takes too long, or answers something else.
            Ok(Ok(None) | Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// The status of an answer (RFC 9112 §4).
async fn status(mut stream: Dialled, port: u16, path: &str) -> Option<u16> {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = Vec::new();
    while !head.contains(&b'\n') && head.len() < STATUS_BYTES_MAX {
        let mut bytes = [0; STATUS_BYTES_MAX];
        match stream.read(&mut bytes).await {
            Ok(count @ 1..) => head.extend_from_slice(bytes.get(..count)?),
            _ => return None,
        }
    }
    parse(&head)
}

fn parse(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, after) = rest.split_at_checked(3)?;
    let ends = matches!(after.first(), Some(b' ' | b'\r' | b'\n'));
    let digits =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|one| one.is_ascii_digit()));
    digits.filter(|_| ends)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_status_line_has_a_status() {
        assert_eq!(parse(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(parse(b"HTTP/1.0 404\r\n"), Some(404));
        for bad in
            [&b"HTTP/1.1 2000 x\r\n"[..], b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 +20 \r\n", b""]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
