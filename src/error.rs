//! The errors a client can see: a closed list of codes, each with one reader.
//!
//! Modules below `sandbox` have their own enums with their own nouns. `sandbox` turns those into an
//! [`Error`], which separates what the caller is told (`message`, `hint`) from what the log keeps
//! (`source`). Only `api::error` knows which HTTP status a code has.

use std::borrow::Cow;
use std::{fmt, io};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request was refused or failed. Part of the API: codes are added, never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// The request is not what the schema says: JSON, field, type, size or value.
    InvalidRequest,
    /// The sandbox id is malformed or reserved.
    InvalidId,
    /// The image reference cannot be parsed.
    InvalidReference,
    /// The body is larger than the route allows.
    BodyTooLarge,
    /// The body's content type is not what the route takes.
    UnsupportedMediaType,
    /// No such route.
    RouteNotFound,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The sandbox does not exist, or belongs to somebody else.
    SandboxNotFound,
    /// The id is taken by a sandbox with another specification.
    SandboxConflict,
    /// The sandbox is being created or destroyed.
    SandboxBusy,
    /// The sandbox ended: its first process is gone.
    SandboxDead,
    /// The sandbox cannot be stopped: its files would end with it.
    StopUnsupported,
    /// The command does not exist or has ended.
    CommandNotFound,
    /// The process does not exist.
    ProcessNotFound,
    /// The id is taken by another process.
    ProcessConflict,
    /// The process has ended, so what was asked cannot be or will not come.
    ProcessExited,
    /// The process was started without stdin, or it is closed.
    StdinClosed,
    /// What was waited for did not come in time.
    WaitTimeout,
    /// The session does not exist.
    SessionNotFound,
    /// The id is taken by another session.
    SessionExists,
    /// The session's shell ended: by `exit`, by a signal, or because a command could not be interrupted.
    SessionEnded,
    /// The session's command does not end, and this waits for it.
    SessionBusy,
    /// The context does not exist.
    ContextNotFound,
    /// The run is not kept: it was not to detach, or newer ones took its place.
    RunNotFound,
    /// The id is taken by another context.
    ContextExists,
    /// Too many runs of the context wait for their turn.
    ContextBusy,
    /// The code of the context does not ask for input.
    InputNotWanted,
    /// The image has no interpreter for the language.
    LanguageNotInImage,
    /// The terminal does not exist.
    TerminalNotFound,
    /// The id is taken by another terminal.
    TerminalExists,
    /// The terminal's program has ended.
    TerminalEnded,
    /// The recording does not exist.
    RecordingNotFound,
    /// The sandbox may not have more recordings.
    RecordingLimit,
    /// The image has no such program, or the path is not there.
    CommandNotInImage,
    /// The file is there and cannot be executed.
    CommandNotExecutable,
    /// The working directory does not exist in the sandbox or cannot be entered.
    InvalidCwd,
    /// The user or group is not in the image's passwd or group file, or is out of range.
    UserNotFound,
    /// The sandbox has no room for another process.
    ProcessLimit,
    /// There is no such file or directory in the sandbox.
    FileNotFound,
    /// Something is there already.
    FileExists,
    /// It is a directory, and a file is wanted.
    IsDirectory,
    /// It is not a directory, and one is wanted.
    NotDirectory,
    /// The directory is not empty.
    DirectoryNotEmpty,
    /// It is a named pipe, a socket or a device, and a regular file is wanted.
    FileNotRegular,
    /// The sandbox's user may not do this to the file.
    FileDenied,
    /// The path cannot be: too long, too many links, a magic link, a directory into itself.
    PathInvalid,
    /// `If-Match` or `If-None-Match` does not hold.
    PreconditionFailed,
    /// The range lies behind the end of the file.
    RangeNotSatisfiable,
    /// The sandbox's disk is full.
    DiskFull,
    /// The file system knows no files of this size.
    FileTooLarge,
    /// The file is in use, or changes too fast.
    FileBusy,
    /// It would have to be copied to another file system.
    CrossDevice,
    /// The bytes are not a tar archive that is accepted.
    ArchiveInvalid,
    /// The sandbox's file system does not answer.
    FileTimeout,
    /// What works on files in the sandbox was killed, or has too much to do.
    FilesUnavailable,
    /// More is to be watched than can be.
    WatchLimit,
    /// Nothing accepts connections on the port.
    PortClosed,
    /// The port is not exposed.
    PortNotExposed,
    /// No preview has this address: unknown, revoked or rotated.
    InvalidToken,
    /// The preview's sandbox has ended, or was started anew since.
    StalePreviewUrl,
    /// The host name is not one of previews.
    PreviewHostUnknown,
    /// The server in the sandbox does not answer in time.
    ServiceTimeout,
    /// The server in the sandbox broke off, or does not speak HTTP/1.1.
    ServiceFailed,
    /// The snapshot does not exist, or belongs to somebody else.
    SnapshotNotFound,
    /// The sandbox can have no snapshots: its files end with it.
    SnapshotUnsupported,
    /// The snapshot is of another image than the sandbox, or not the sandbox's own.
    SnapshotMismatch,
    /// The recipient or the identity is none of age.
    KeyInvalid,
    /// The image is not in the store.
    ImageNotFound,
    /// The image is used by a sandbox.
    ImageInUse,
    /// The bytes are not an image we accept: digest, size, media type, tar, or a bound.
    ImageInvalid,
    /// No manifest for the wanted platform.
    PlatformNotFound,
    /// The registry refused the credentials, or wants some.
    RegistryDenied,
    /// The registry has no such repository or tag.
    RegistryNotFound,
    /// The registry cannot be reached, or answers against its protocol.
    RegistryUnreachable,
    /// The image has no git.
    GitNotInImage,
    /// There is no such repository.
    GitRepositoryNotFound,
    /// The repository has no such branch or tag.
    GitBranchNotFound,
    /// The repository's host wants credentials, or refuses them.
    GitDenied,
    /// The repository's host cannot be reached, or does not answer as it should.
    GitUnreachable,
    /// The place for the clone is taken.
    GitDestinationNotEmpty,
    /// The clone took too long.
    GitTimeout,
    /// git could not do it, for another reason.
    GitFailed,
    /// The sandbox has no such mount.
    MountNotFound,
    /// Something is mounted there already.
    MountInUse,
    /// Nothing can be mounted there.
    MountPointInvalid,
    /// The directory of the host is not to be shown in sandboxes.
    DirectoryDenied,
    /// There is no such bucket.
    BucketNotFound,
    /// The bucket's server refuses the credentials, or wants some.
    BucketDenied,
    /// The bucket's server cannot be reached, or does not answer in time.
    BucketUnreachable,
    /// The bucket is in another region.
    BucketWrongRegion,
    /// The bucket's server has a certificate that is not one to trust.
    BucketBadCertificate,
    /// The bucket's server does not answer as S3 does, or sends its clients elsewhere.
    BucketNotS3,
    /// A limit was asked for that this host cannot enforce.
    LimitUnsupported,
    /// A limit was asked for below what is used already.
    LimitBelowUse,
    /// The host lacks a kernel feature or setting that isolation needs.
    HostUnsupported,
    /// The caller's quota does not allow it.
    QuotaExceeded,
    /// The host has no more room: sandboxes, ids, disk, descriptors.
    CapacityExhausted,
    /// The caller may not do this.
    PermissionDenied,
    /// What the kernel says of a new sandbox differs from what was asked. It was killed.
    IsolationMismatch,
    /// The daemon is stopping.
    ShuttingDown,
    /// Our own bug, or the host's: see the daemon's log under the request id.
    Internal,
}

/// An error on its way to a client.
#[derive(Debug)]
pub struct Error {
    /// Which of the closed list.
    pub code: ErrorCode,
    /// What happened, for the caller. Names only things that the caller sent or may see.
    pub message: Cow<'static, str>,
    /// What to do about it.
    pub hint: Option<Cow<'static, str>>,
    /// The field, id or value it is about.
    pub context: Option<serde_json::Value>,
    /// What the log keeps and the caller does not see.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error with a message and nothing else.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), hint: None, context: None, source: None }
    }

    /// Adds what the caller can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the field or value it is about.
    #[must_use]
    pub fn context(mut self, context: serde_json::Value) -> Self {
        self.context = Some(context);
        self
    }

    /// Adds the cause, for the log only.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// A failure of ours or the host's, with its cause for the log.
    pub fn internal(
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::new(ErrorCode::Internal, message).source(source)
    }

    /// Why something could not be written below the daemon's state directory. A disk that is full has the code that
    /// launch gives for the same; anything else is internal, with `message`.
    pub fn writing(message: impl Into<Cow<'static, str>>, error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::new(ErrorCode::CapacityExhausted, "there is no room for it on the daemon's disk")
                .hint("delete sandboxes, snapshots or images, or free disk space")
                .source(error);
        }
        Self::internal(message, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
