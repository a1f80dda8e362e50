//! Why the command line could not do what it was told.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use serde_json::json;

use super::{OWN_FAILURE, show, words};
use crate::api::schema::ErrorBody;
use crate::error::ErrorCode;

/// A failure, ours or the daemon's.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The daemon refused.
    #[error("{}", words::message(.0))]
    Refused(Box<ErrorBody>),
    /// There is no daemon.
    #[error("cannot reach the daemon at {}", .socket.display())]
    Connect {
        /// Where it was looked for.
        socket: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// A daemon for this call could not be started.
    #[error("cannot start a daemon for this command: {0}")]
    Private(Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke, or what came is not HTTP.
    #[error("lost the daemon: {0}")]
    Lost(Box<dyn std::error::Error + Send + Sync>),
    /// What came is not what this version's daemon says.
    #[error("the daemon's answer is not understood: {0}")]
    NotOurs(#[source] serde_json::Error),
    /// A file or a stream of ours.
    #[error("{what}: {source}")]
    Local {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The arguments contradict themselves or the world.
    #[error("{0}")]
    Usage(String),
    /// The arguments are none: what clap says of them.
    #[error("{message}")]
    Arguments {
        /// What is wrong.
        message: String,
        /// How the command is used.
        usage: String,
    },
}

impl Failure {
    /// As shells and `env` say it.
    pub(super) fn exit_code(&self) -> u8 {
        match self.code() {
            Some(ErrorCode::CommandNotInImage) => 127,
            Some(ErrorCode::CommandNotExecutable) => 126,
            _ => OWN_FAILURE,
        }
    }

    /// The daemon's code.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(body) => Some(body.code),
            _ => None,
        }
    }

    /// Says which file it is about, if it is about one.
    pub(super) fn about(mut self, path: &OsStr) -> Self {
        if let Self::Refused(body) = &mut self
            && matches!(
                body.code,
                ErrorCode::FileNotFound
                    | ErrorCode::FileExists
                    | ErrorCode::FileNotRegular
                    | ErrorCode::FileDenied
                    | ErrorCode::FileBusy
                    | ErrorCode::IsDirectory
                    | ErrorCode::NotDirectory
                    | ErrorCode::DirectoryNotEmpty
                    | ErrorCode::PathInvalid
            )
        {
            body.message = format!("{}: {}", show::escaped(path.as_bytes()), body.message);
        }
        self
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(body) => words::hint(body),
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("be root or a member of the group that the daemon was given".to_owned())
            }
            Self::Connect { .. } => {
                Some("start it with `sudo stockade serve`, or name its socket with --socket".to_owned())
            }
            Self::Private(_) => Some("`stockade doctor` says what this host lacks".to_owned()),
            Self::NotOurs(_) => Some("is the daemon of another version?".to_owned()),
            Self::Arguments { usage, .. } => Some(usage.clone()),
            _ => None,
        }
    }

    /// Tells people, or programs.
    pub(super) fn show(&self, as_json: bool) {
        if as_json {
            let body = match self {
                Self::Refused(body) => serde_json::to_string(body).unwrap_or_default(),
                _ => json!({
                    "code": self.local_code(), "message": self.to_string(), "hint": self.hint(),
                    "context": null, "request_id": null,
                })
                .to_string(),
            };
            show::say(&body);
            return;
        }
        show::say(&format!("stockade: {self}{}", self.cause()));
        if let Some(hint) = self.hint() {
            show::say(&format!("hint: {hint}"));
        }
    }

    fn cause(&self) -> String {
        match self {
            Self::Connect { source, .. } => format!(": {source}"),
            _ => String::new(),
        }
    }

    fn local_code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "REFUSED",
            Self::Connect { .. } => "DAEMON_UNREACHABLE",
            Self::Private(_) => "DAEMON_NOT_STARTED",
            Self::Lost(_) => "DAEMON_LOST",
            Self::NotOurs(_) => "DAEMON_NOT_UNDERSTOOD",
            Self::Local { .. } => "LOCAL_FAILURE",
            Self::Usage(_) | Self::Arguments { .. } => "INVALID_ARGUMENTS",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        let refused = |code| {
            Failure::Refused(Box::new(ErrorBody {
                code,
                message: String::new(),
                hint: None,
                context: None,
                request_id: String::new(),
            }))
        };
        assert_eq!(refused(ErrorCode::CommandNotInImage).exit_code(), 127);
        assert_eq!(refused(ErrorCode::CommandNotExecutable).exit_code(), 126);
        assert_eq!(refused(ErrorCode::SandboxNotFound).exit_code(), 125);
        assert_eq!(Failure::Usage(String::new()).exit_code(), 125);
    }
}
