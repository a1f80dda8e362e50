//! serve ⇄ worker: our own code inside a sandbox, with no more rights than a command of the same user.
//!
//! serve has one request at a time on a socket and numbers them. A request is answered by any number of replies
//! that are [parts](Answer::is_part) and one that is not. Content travels by descriptor: an opened file comes with
//! [`Answer::Content`], and long streams go through a pipe that serve made and sent with the request.
//!
//! A worker runs beside hostile code of the same user: to serve everything here that comes from it is a claim. No
//! claim is used as a size, an index or a path; the one descriptor that a reply may carry is looked at first.

use serde::{Deserialize, Serialize};

use super::agent::User;

/// A request and the number that its replies will carry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by serve.
    pub number: u64,
    /// What to do.
    pub call: Call,
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// That of the request.
    pub number: u64,
    /// The answer, or why there is none.
    pub result: Result<Answer, Failure>,
}

/// What of a tree goes into an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Globs of what is left out: those with a slash are for paths below the tree, others for names.
    pub exclude: Vec<String>,
    /// Whether what `.gitignore` files in the tree say is left out.
    pub gitignore: bool,
    /// Whether the directory itself is an entry too, `./`.
    pub itself: bool,
    /// Whether the archive becomes a layer of an image. What none can have is found before the first byte is written.
    pub layer: bool,
}

/// What is believed of an archive beside content, times and permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Believed {
    /// Nothing: everything is whoever lays it out's.
    Nothing,
    /// Owners too.
    Owners,
    /// Owners, and the set-user-id, set-group-id and sticky bits: of an archive that was made here. What it says of the
    /// directory itself, too.
    OwnersAndSetId,
}

/// What serve can ask of a worker. Paths are absolute and without NUL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// Open a regular file for reading: [`Answer::Content`] with the file, or [`Answer::Indirect`].
    Open {
        /// Which.
        path: Vec<u8>,
    },
    /// Read a file that cannot be passed on. A pipe's writing end comes with this; then [`Answer::Done`].
    Stream {
        /// Which.
        path: Vec<u8>,
    },
    /// Make an empty file where `path` will be, without a name if that is possible: [`Answer::Draft`] with the file, or
    /// without it when it is one for [`Call::Fill`].
    Draft {
        /// Where it will be.
        path: Vec<u8>,
        /// Whether missing directories above it are made.
        parents: bool,
    },
    /// Write a draft that did not come with its answer. A pipe's reading end comes with this, and its end is the
    /// file's; then [`Answer::Done`].
    Fill {
        /// Where it will be.
        path: Vec<u8>,
        /// Its name.
        draft: Vec<u8>,
    },
    /// Give a draft its name, in place of what had it. The draft comes with this, if it came with its answer:
    /// [`Answer::Stat`].
    Commit(Commit),
    /// Remove a draft that has a name of its own.
    Discard {
        /// Where it would have been.
        path: Vec<u8>,
        /// Its name.
        draft: Vec<u8>,
    },
    /// Look at a file: [`Answer::Stat`].
    Stat {
        /// Which.
        path: Vec<u8>,
        /// Whether a symbolic link at its end is followed.
        follow: bool,
        /// Whether to read its beginning, to tell text from other bytes.
        sniff: bool,
    },
    /// List a directory: parts, then [`Answer::End`].
    List(List),
    /// Make a directory.
    Mkdir {
        /// Which.
        path: Vec<u8>,
        /// Permissions, if other than 0755.
        mode: Option<u32>,
        /// Whether missing directories above it are made, and it may be there already.
        parents: bool,
    },
    /// Rename.
    Rename {
        /// From.
        from: Vec<u8>,
        /// To.
        to: Vec<u8>,
        /// Whether what is there may be replaced.
        overwrite: bool,
    },
    /// Copy a file or a tree.
    Copy {
        /// From.
        from: Vec<u8>,
        /// To.
        to: Vec<u8>,
        /// Whether files that are there may be replaced, and directories filled.
        overwrite: bool,
    },
    /// Remove.
    Remove {
        /// What.
        path: Vec<u8>,
        /// Whether a directory's content too.
        recursive: bool,
    },
    /// Change permissions.
    Chmod {
        /// Of what.
        path: Vec<u8>,
        /// To what.
        mode: u32,
    },
    /// Change the owner.
    Chown {
        /// Of what.
        path: Vec<u8>,
        /// To whom; the group stays where there is none.
        owner: User,
        /// Whether of a symbolic link's target rather than the link.
        follow: bool,
    },
    /// Make a symbolic link.
    Symlink {
        /// What it says.
        target: Vec<u8>,
        /// Where it is.
        path: Vec<u8>,
    },
    /// Write a tree as a tar archive into the pipe that comes with this; then [`Answer::Done`].
    Pack {
        /// The tree.
        path: Vec<u8>,
        /// What of it.
        selection: Selection,
    },
    /// Lay out the tar archive that is read from the pipe that comes with this; then [`Answer::Done`].
    Unpack {
        /// Where. It is made if it is not there.
        path: Vec<u8>,
        /// What is believed of the archive beside content, times and permissions.
        believed: Believed,
    },
    /// Search text: parts, then [`Answer::End`].
    Search(Search),
    /// Watch a directory or file: [`Answer::Armed`], then parts until [`Answer::Done`], when it is gone.
    Watch(Watch),
    /// While a watch goes on, with its number: report what has happened until now, then [`Answer::Synchronised`].
    Synchronise,
    /// Connect to a TCP port of the sandbox's own loopback: [`Answer::Connection`] with the socket.
    Dial {
        /// Which.
        port: u16,
    },
    /// Rewrite a cell of JavaScript for the console of an inspector. A memory file with the cell comes with this, and has
    /// what it becomes after [`Answer::Done`]; or [`Answer::SyntaxError`].
    Rewrite {
        /// Whether it is TypeScript, whose types are taken out.
        typescript: bool,
    },
}

/// See [`Call::Commit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Where it will be.
    pub path: Vec<u8>,
    /// The name that the draft has, if it has one.
    pub draft: Option<Vec<u8>>,
    /// Permissions; else those of the file that is replaced, or 0644.
    pub mode: Option<u32>,
    /// Owner; else that of the file that is replaced, or the user.
    pub owner: Option<User>,
    /// What must be there now.
    pub condition: Condition,
}

/// What must be where a file will be (RFC 9110 §13.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Anything or nothing.
    Any,
    /// Nothing.
    Absent,
    /// Anything.
    Present,
    /// One of these versions.
    OneOf(Vec<Tag>),
}

/// What differs between two versions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Its number in the file system.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
}

/// A time since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Seconds.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: u32,
}

/// See [`Call::List`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The directory.
    pub path: Vec<u8>,
    /// Whether directories in it are listed too.
    pub recursive: bool,
    /// Whether names that begin with a dot are there.
    pub hidden: bool,
    /// What names, or paths if it has a slash, must match.
    pub glob: Option<String>,
    /// The last path of the page before.
    pub after: Option<Vec<u8>>,
    /// Most entries.
    pub limit: u32,
}

/// See [`Call::Search`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// File or directory.
    pub path: Vec<u8>,
    /// A regular expression (of the `regex` crate).
    pub pattern: String,
    /// Whether case is the same.
    pub ignore_case: bool,
    /// Whether names that begin with a dot are looked at.
    pub hidden: bool,
    /// As for [`List`].
    pub glob: Option<String>,
    /// Most matching lines.
    pub limit: u32,
}

/// See [`Call::Watch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// Directory or file.
    pub path: Vec<u8>,
    /// Whether directories in it are watched too.
    pub recursive: bool,
    /// What names, or paths if they have a slash, must match, if there are any.
    pub include: Vec<String>,
    /// What they must not match, nor a directory above them.
    pub exclude: Vec<String>,
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What.
    pub kind: ChangeKind,
    /// To what, below what is watched; of a file that is watched itself its name.
    pub path: Vec<u8>,
    /// Of a rename, what it was before.
    pub from: Option<Vec<u8>>,
    /// Whether it is a directory.
    pub directory: bool,
}

/// Kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It is there now, by creation or from outside.
    Create,
    /// Its content is another.
    Modify,
    /// It is no longer there, by deletion or to outside.
    Delete,
    /// It has another name.
    Rename,
    /// Its mode, owner, times or links are others.
    Attrib,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// A file, opened for reading, comes with this.
    Content(Stat),
    /// The file is one whose content cannot be had by descriptor: use [`Call::Stream`].
    Indirect,
    /// An empty file, opened for reading and writing, comes with this; none does from a file system where whoever has
    /// one may have to wait.
    Draft {
        /// The name that it has already, where the file system knows no files without one.
        name: Option<Vec<u8>>,
        /// What is there now.
        present: Option<Stat>,
    },
    /// What a file is.
    Stat(Stat),
    /// Part of a list.
    Entries(Vec<Entry>),
    /// Part of what was found.
    Matches(Vec<Match>),
    /// Part of a watch: it has begun.
    Armed,
    /// Part of a watch: what has happened.
    Changes(Vec<Change>),
    /// Part of a watch: more has happened than was seen.
    Overflow,
    /// Part of a watch: see [`Call::Synchronise`].
    Synchronised,
    /// The last of the parts.
    End(End),
    /// A connected stream socket comes with this.
    Connection,
    /// A cell that no interpreter would take.
    SyntaxError {
        /// What is wrong.
        message: String,
        /// Where, from 1.
        line: u32,
        /// Where in the line, from 1.
        column: u32,
    },
}

impl Answer {
    /// Whether more will follow.
    pub fn is_part(&self) -> bool {
        matches!(
            self,
            Self::Entries(_)
                | Self::Matches(_)
                | Self::Armed
                | Self::Changes(_)
                | Self::Overflow
                | Self::Synchronised
        )
    }
}

/// What a file is (statx(2)), with owners as the sandbox knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// What kind.
    pub kind: Kind,
    /// Permissions: the lower twelve bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names.
    pub links: u32,
    /// Version.
    pub tag: Tag,
    /// What a symbolic link says.
    pub target: Option<Vec<u8>>,
    /// Whether its beginning is text, if it was looked at.
    pub text: Option<bool>,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
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

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Below the directory that is listed, without a slash at either end.
    pub path: Vec<u8>,
    /// What it is.
    pub stat: Stat,
}

/// A line that matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Below the directory that is searched; empty for the file itself.
    pub path: Vec<u8>,
    /// The line's number, from 1.
    pub line: u64,
    /// Bytes before the match in the line.
    pub column: u64,
    /// The line, or the part of a long one around the match.
    pub text: Vec<u8>,
    /// Whether `text` is only a part.
    pub cut: bool,
}

/// What is said after the last part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Whether there would be more beyond the limit.
    pub more: bool,
    /// Files looked into.
    pub files: u64,
    /// Files that hold no text, and so were not.
    pub binary: u64,
    /// Files and directories that could not be opened, or lie too deep.
    pub unreadable: u64,
    /// Lines of which only the beginning was looked at.
    pub long_lines: u64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The kernel said no (errno(3)).
    Errno(i32),
    /// It is not a regular file.
    NotRegular(Kind),
    /// A [`Condition`] is not met.
    Condition,
    /// There is no such user or group.
    UserNotFound,
    /// The glob or regular expression cannot be compiled.
    Pattern,
    /// There are more directories than can be watched, or too many watches.
    WatchLimit,
    /// What comes out of the pipe is no archive that we take.
    Archive {
        /// How many entries were laid out.
        entries: u64,
    },
    /// An entry of the archive could not be laid out.
    Entry {
        /// How many were before it.
        entries: u64,
        /// Why (errno(3)).
        errno: i32,
    },
    /// A tree has a path that is longer than any archive may have.
    PathTooLong {
        /// How it begins.
        path: Vec<u8>,
    },
    /// A tree that becomes a layer has a file whose name would remove another one there.
    Whiteout {
        /// Which, or how its path begins.
        path: Vec<u8>,
    },
}

/// Whether files of this file system (statfs(2), `f_type`) can be read and written by serve: their content comes
/// from memory or a disk, and no right is asked for and no other process waited for at each read. Files of all others
/// (procfs, sysfs, FUSE, networks) are read by the worker.
pub fn is_direct(magic: u32) -> bool {
    const DIRECT: [u32; 10] = [
        0xef53,      // ext4
        0x5846_5342, // xfs
        0x9123_683e, // btrfs
        0x794c_7630, // overlayfs
        0x0102_1994, // tmpfs
        0xf2f5_2010, // f2fs
        0xca45_1a4e, // bcachefs
        0x2fc1_2fc1, // zfs
        0x7371_7368, // squashfs
        0xe0f5_e1e2, // erofs
    ];
    DIRECT.contains(&magic)
}
