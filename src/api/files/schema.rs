//! Bodies about files, for the server and for the command line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::schema::Encoding;

/// A path or a name: text where it is UTF-8, else its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum PathText {
    /// UTF-8.
    Text(String),
    /// Any bytes.
    Bytes {
        /// RFC 4648 §4, padded.
        base64: String,
    },
}

impl PathText {
    /// The shortest form of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Bytes { base64: STANDARD.encode(error.as_bytes()) },
        }
    }

    /// The bytes, if they are written as they must be.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::Text(text) => Some(text.clone().into_bytes()),
            Self::Bytes { base64 } => STANDARD.decode(base64).ok(),
        }
    }
}

/// What a file is.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FileInfo {
    /// As asked for; in a list below the directory that is listed.
    pub path: PathText,
    /// What kind.
    #[serde(rename = "type")]
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// Permissions, octal.
    #[schema(example = "0644")]
    pub mode: String,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names (hard links).
    pub links: u32,
    /// Last change of content (RFC 3339).
    pub modified_at: String,
    /// Last change of anything (RFC 3339).
    pub changed_at: String,
    /// The version, as in the header `etag`.
    pub etag: String,
    /// Media type: by name, and where that says nothing and the content was looked at, by content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
    /// What a symbolic link says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<PathText>,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character or block device.
    Device,
}

/// A page of a directory.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FileList {
    /// In the order of their paths' bytes, each directory before what is in it.
    pub entries: Vec<FileInfo>,
    /// Gives the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// Directories that could not be read.
    pub unreadable: u64,
}

/// Whether a file is there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FileExists {
    /// Whether it is.
    pub exists: bool,
    /// What kind, if it is.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<FileType>,
}

/// What is searched.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchFiles {
    /// File or directory.
    pub path: PathText,
    /// Text to find as it is. Either this or `regex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Regular expression of the Rust crate `regex`: no back-references, linear time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    pub ignore_case: bool,
    /// Whether names that begin with a dot are looked at.
    #[serde(default)]
    pub hidden: bool,
    /// Names, or paths if it has a slash, to look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glob: Option<String>,
    /// Most lines: 1000 unless given, at most 10000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Whose rights; the sandbox's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SearchResult {
    /// Lines, in the order of paths and numbers.
    pub matches: Vec<SearchMatch>,
    /// Whether there were more than the limit.
    pub truncated: bool,
    /// Files that were opened.
    pub files: u64,
    /// Of these, files with a NUL byte in their beginning, which were not searched further.
    pub binary: u64,
    /// Files and directories that could not be read.
    pub unreadable: u64,
    /// Lines of more than a mebibyte, of which the rest was not searched.
    pub long_lines: u64,
}

/// A line that matches.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SearchMatch {
    /// Below the directory that was searched; empty for the file itself.
    pub path: PathText,
    /// From 1.
    pub line: u64,
    /// Bytes before the match, from 0.
    pub column: u64,
    /// The line, or a kibibyte of it around the match.
    pub text: String,
    /// How `text` is written.
    pub encoding: Encoding,
    /// Whether `text` is only a part.
    pub cut: bool,
}

/// A directory to make.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeDirectory {
    /// Which.
    pub path: PathText,
    /// Permissions, octal; 0755 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Whether missing ones above it are made too, and it may be there.
    #[serde(default)]
    pub parents: bool,
    /// Whose rights; the sandbox's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A new name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenameFile {
    /// From.
    pub from: PathText,
    /// To.
    pub to: PathText,
    /// Whether what is there may be replaced.
    #[serde(default)]
    pub overwrite: bool,
    /// Whose rights; the sandbox's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A file or tree to copy.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyFile {
    /// From.
    pub from: PathText,
    /// To.
    pub to: PathText,
    /// Whether files that are there may be replaced, and directories filled.
    #[serde(default)]
    pub overwrite: bool,
    /// Whose rights; the sandbox's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// Something to remove.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveFile {
    /// What. Of a symbolic link the link itself.
    pub path: PathText,
    /// Whether a directory that is not empty, with all that is in it.
    #[serde(default)]
    pub recursive: bool,
    /// Whether it may be absent.
    #[serde(default)]
    pub missing_ok: bool,
    /// Whose rights; the sandbox's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// New permissions.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeMode {
    /// Of what.
    pub path: PathText,
    /// Octal, at most 1777: set-user-id has no effect in a sandbox.
    #[schema(example = "0755")]
    pub mode: String,
    /// Whose rights; the sandbox's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A new owner.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeOwner {
    /// Of what.
    pub path: PathText,
    /// `user` or `user:group`, names or ids of the sandbox. Without a group that stays.
    pub owner: String,
    /// Whether of a symbolic link itself rather than its target.
    #[serde(default)]
    pub no_follow: bool,
    /// Whose rights; the sandbox's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A symbolic link to make.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MakeSymlink {
    /// What it says; need not exist.
    pub target: PathText,
    /// Where it is.
    pub path: PathText,
    /// Whose rights; the sandbox's user when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A change that a watch reports; the event's name says which.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ChangeEvent {
    /// Below the directory that is watched; of a file that is watched itself its name.
    pub path: PathText,
    /// Of a rename, what it was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathText>,
    /// Whether it is a directory.
    pub directory: bool,
}

/// Whether files have changed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// Whether they have.
    pub status: ChangeStatus,
    /// For the next question.
    pub cursor: String,
}

/// See [`Changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChangeStatus {
    /// Nothing was reported since.
    Unchanged,
    /// Something was.
    Changed,
    /// It is not known: look at everything.
    Resync,
}
