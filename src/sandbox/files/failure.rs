//! What the caller is told of a worker's failure.

use crate::error::{Error, ErrorCode};
use crate::limits::{PATH_BYTES_MAX, PATH_SHOWN_BYTES};
use crate::wire::worker::{Failure, Kind};

/// The worker is gone, or does not keep to the protocol.
pub(super) fn lost() -> Error {
    Error::new(ErrorCode::FilesUnavailable, "what works on the sandbox's files was killed")
        .hint("try again; the sandbox may be out of memory, or a process in it kills everything of its user")
}

pub(super) fn refusal(failure: Failure) -> Error {
    match failure {
        Failure::Errno(errno) => of_errno(errno),
        Failure::NotRegular(Kind::Directory) => {
            Error::new(ErrorCode::IsDirectory, "it is a directory").hint("list it, or fetch it as an archive")
        }
        Failure::NotRegular(kind) => {
            let kind = match kind {
                Kind::Fifo => "a named pipe",
                Kind::Socket => "a socket",
                Kind::Device => "a device",
                Kind::Symlink => "a symbolic link",
                Kind::File | Kind::Directory => "of another kind now",
            };
            Error::new(ErrorCode::FileNotRegular, format!("it is not a regular file but {kind}"))
                .hint("run a command in the sandbox to use it")
        }
        Failure::Condition => {
            Error::new(ErrorCode::PreconditionFailed, "the file is not in the state that the request wants")
                .hint("read it again, and send its present `etag` as `if-match`")
        }
        Failure::UserNotFound => Error::new(
            ErrorCode::UserNotFound,
            "no such user or group in the sandbox's /etc/passwd and /etc/group",
        )
        .hint("use a name from these files or a numeric id below 65536"),
        Failure::Pattern => {
            Error::new(ErrorCode::InvalidRequest, "the pattern cannot be compiled, or is too large").hint(
                "globs have * ** ? [a-z] {a,b}; regular expressions are those of the Rust crate `regex`",
            )
        }
        Failure::WatchLimit => Error::new(
            ErrorCode::WatchLimit,
            "there are more directories than can be watched, or too many watches",
        )
        .hint("exclude some, watch less, or raise fs.inotify.max_user_watches on the host"),
        Failure::Archive { entries } => Error::new(
            ErrorCode::ArchiveInvalid,
            format!("not a tar archive, or cut short, after {entries} entries"),
        )
        .hint("send a tar archive that is not compressed; what came before the fault was laid out"),
        Failure::Entry { entries, errno } => {
            let error = of_errno(errno);
            let message = format!("entry {} of the archive: {}", entries.saturating_add(1), error.message);
            let code = match error.code {
                ErrorCode::DiskFull => ErrorCode::DiskFull,
                _ => ErrorCode::ArchiveInvalid,
            };
            Error::new(code, message).hint(
                "entries stay below the directory, go through no symbolic link and are no devices; \
                 what came before was laid out",
            )
        }
        Failure::PathTooLong { path } => Error::new(
            ErrorCode::PathInvalid,
            format!("a path in it has more than {} bytes: {} …", PATH_BYTES_MAX - 1, shown(&path)),
        )
        .hint("make it shorter, or remove it; of a snapshot of a directory it can be left out by `exclude`"),
        Failure::Whiteout { path } => Error::new(
            ErrorCode::SnapshotUnsupported,
            format!("no image can have {}: in its layers such a name removes another file", shown(&path)),
        )
        .hint("give it a name that does not begin with `.wh.`; snapshots keep it as it is"),
    }
}

/// The beginning of a path that somebody in the sandbox chose, for people.
fn shown(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&path[..path.len().min(PATH_SHOWN_BYTES)]))
}

/// What a system call on a file of the sandbox said.
pub(super) fn of_errno(errno: i32) -> Error {
    let why = std::io::Error::from_raw_os_error(errno);
    let (code, message, hint) = match errno {
        libc::ENOENT => (ErrorCode::FileNotFound, "there is no such file or directory", "check the path"),
        libc::EEXIST => {
            (ErrorCode::FileExists, "it is there already", "choose another name, or overwrite it")
        }
        libc::EISDIR => (ErrorCode::IsDirectory, "it is a directory", "list it, or fetch it as an archive"),
        libc::ENOTDIR => (ErrorCode::NotDirectory, "a part of the path is not a directory", "check the path"),
        libc::ENOTEMPTY => {
            (ErrorCode::DirectoryNotEmpty, "the directory is not empty", "remove it with `recursive`")
        }
        libc::EACCES | libc::EPERM => (
            ErrorCode::FileDenied,
            "the user may not do this to it",
            "check owner and mode, or name a `user`",
        ),
        libc::EROFS => (ErrorCode::FileDenied, "it is read-only", "choose a path that can be written"),
        libc::ELOOP => (
            ErrorCode::PathInvalid,
            "the path has too many symbolic links, or goes through a magic link of /proc",
            "name the file by its own path",
        ),
        libc::ENAMETOOLONG => (ErrorCode::PathInvalid, "the path or a name in it is too long", "shorten it"),
        libc::EINVAL => (ErrorCode::PathInvalid, "the path does not allow this", "check both paths"),
        libc::EXDEV => (ErrorCode::CrossDevice, "it would leave its file system", "copy it, then remove it"),
        libc::EBUSY | libc::ETXTBSY | libc::EAGAIN => {
            let hint = "unmount what is mounted there, or try again; /, /proc, /dev and the like are the sandbox's own and stay";
            (
                ErrorCode::FileBusy,
                "it is in use, something is mounted there or in it, or it changes too fast",
                hint,
            )
        }
        libc::ENOSPC | libc::EDQUOT => (
            ErrorCode::DiskFull,
            "the sandbox's disk is full, or has no room for more files",
            "remove something, or create the sandbox with higher `disk_bytes` or `disk_files`",
        ),
        libc::EFBIG => {
            (ErrorCode::FileTooLarge, "the file would be too large for its file system", "split it")
        }
        libc::ECONNREFUSED | libc::ETIMEDOUT => (
            ErrorCode::PortClosed,
            "nothing accepts connections on the port",
            "start the server, or wait for it",
        ),
        _ => return Error::internal(format!("the sandbox's file system failed: {why}"), why),
    };
    Error::new(code, message).hint(hint)
}
