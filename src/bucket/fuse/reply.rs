//! What the kernel is answered (linux/fuse.h).

use std::time::Duration;

use bytes::Bytes;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bucket) struct Attr {
    /// Its number for programs.
    pub(in crate::bucket) number: u64,
    /// Bytes.
    pub(in crate::bucket) size: u64,
    /// In nanoseconds since 1970; the other two times are the same.
    pub(in crate::bucket) mtime_ns: i128,
    /// Type and permissions.
    pub(in crate::bucket) mode: u32,
    /// Owner.
    pub(in crate::bucket) uid: u32,
    /// Group.
    pub(in crate::bucket) gid: u32,
    /// Names: 0 of a file that is removed and still open.
    pub(in crate::bucket) links: u32,
}

/// An inode with what the kernel may believe of it, and for how long.
#[derive(Clone, Copy, Debug)]
pub(in crate::bucket) struct Entry {
    pub(in crate::bucket) node: u64,
    pub(in crate::bucket) attr: Attr,
    pub(in crate::bucket) valid: Duration,
}

/// Bytes of an [`Entry`] (`struct fuse_entry_out`).
const ENTRY_BYTES: usize = 128;

/// Keep what the page cache has of the file (`FOPEN_KEEP_CACHE`).
pub(in crate::bucket) const KEEP_CACHE: u32 = 1 << 1;

/// An answer that is no error.
#[derive(Debug)]
pub(in crate::bucket) enum Reply {
    Empty,
    Entry(Entry),
    Attr(Attr, Duration),
    Open {
        handle: u64,
        flags: u32,
    },
    Create {
        entry: Entry,
        handle: u64,
    },
    /// Bytes in pieces, as they came.
    Data(Vec<Bytes>),
    Written(u32),
    Directory(Directory),
    Statfs,
}

impl Reply {
    /// The bytes after the header, in pieces.
    pub(super) fn pieces(self) -> Vec<Bytes> {
        let mut out = Out(Vec::new());
        match self {
            Self::Empty => {}
            Self::Entry(entry) => out.entry(&entry),
            Self::Attr(attr, valid) => {
                out.u64(valid.as_secs()).u32(valid.subsec_nanos()).u32(0).attr(&attr);
            }
            Self::Open { handle, flags } => {
                out.u64(handle).u32(flags).u32(0);
            }
            Self::Create { entry, handle } => {
                out.entry(&entry);
                out.u64(handle).u32(0).u32(0);
            }
            Self::Data(pieces) => return pieces,
            Self::Written(bytes) => {
                out.u32(bytes).u32(0);
            }
            Self::Directory(directory) => out.0 = directory.bytes,
            Self::Statfs => {
                // A bucket has no size. A pebibyte of blocks of 4 KiB, all free, and as many files as one may count.
                let (blocks, files) = (1_u64 << 38, 1_u64 << 40);
                out.u64(blocks).u64(blocks).u64(blocks).u64(files).u64(files).u32(4096).u32(255).u32(4096);
                out.0.resize(80, 0);
            }
        }
        vec![Bytes::from(out.0)]
    }
}

/// Names in a directory, as many as the kernel has room for.
#[derive(Debug)]
pub(in crate::bucket) struct Directory {
    bytes: Vec<u8>,
    most: usize,
}

/// What the type of a name is, as far as that is known (`DT_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bucket) enum NameType {
    /// A file or a symbolic link: its metadata would say.
    Unknown = 0,
    Directory = 4,
    File = 8,
    Symlink = 10,
}

impl NameType {
    /// By the bits of `st_mode`.
    pub(in crate::bucket) fn of_mode(mode: u32) -> Self {
        match mode >> 12 & 0o17 {
            4 => Self::Directory,
            8 => Self::File,
            10 => Self::Symlink,
            _ => Self::Unknown,
        }
    }
}

impl Directory {
    pub(in crate::bucket) fn new(most: u32) -> Self {
        Self { bytes: Vec::new(), most: usize::try_from(most).unwrap_or(usize::MAX) }
    }

    /// Bytes that a name takes, with attributes or without.
    pub(in crate::bucket) fn bytes_of(name: &str, plus: bool) -> usize {
        (24 + name.len()).next_multiple_of(8) + if plus { ENTRY_BYTES } else { 0 }
    }

    /// Adds a name, unless there is no room for it. `next` is what asks for the names after it.
    pub(in crate::bucket) fn add(&mut self, number: u64, next: u64, kind: NameType, name: &str) -> bool {
        let fits = self.bytes.len() + Self::bytes_of(name, false) <= self.most;
        if fits {
            self.push(number, next, kind, name);
        }
        fits
    }

    /// Adds a name for which there is room, with what is known of it beside its type, if anything is.
    pub(in crate::bucket) fn add_plus(
        &mut self,
        entry: Option<&Entry>,
        (number, next, kind): (u64, u64, NameType),
        name: &str,
    ) {
        let mut out = Out(std::mem::take(&mut self.bytes));
        match entry {
            Some(entry) => out.entry(entry),
            // The kernel asks for it when somebody wants to know.
            None => out.0.resize(out.0.len() + ENTRY_BYTES, 0),
        }
        self.bytes = out.0;
        self.push(number, next, kind, name);
    }

    fn push(&mut self, number: u64, next: u64, kind: NameType, name: &str) {
        let end = self.bytes.len() + Self::bytes_of(name, false);
        let mut out = Out(std::mem::take(&mut self.bytes));
        out.u64(number).u64(next).u32(u32::try_from(name.len()).unwrap_or(0)).u32(kind as u32);
        out.0.extend_from_slice(name.as_bytes());
        out.0.resize(end, 0);
        self.bytes = out.0;
    }
}

/// Fields, one after the other.
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn entry(&mut self, entry: &Entry) {
        let (seconds, nanos) = (entry.valid.as_secs(), entry.valid.subsec_nanos());
        self.u64(entry.node).u64(0).u64(seconds).u64(seconds).u32(nanos).u32(nanos);
        if entry.node == 0 {
            // There is no such name, and that may be believed too.
            self.0.resize(self.0.len() + ENTRY_BYTES - 40, 0);
        } else {
            self.attr(&entry.attr);
        }
    }

    fn attr(&mut self, attr: &Attr) {
        let seconds = i64::try_from(attr.mtime_ns.div_euclid(1_000_000_000)).unwrap_or(0).cast_unsigned();
        let nanos = u32::try_from(attr.mtime_ns.rem_euclid(1_000_000_000)).unwrap_or(0);
        self.u64(attr.number).u64(attr.size).u64(attr.size.div_ceil(512));
        self.u64(seconds).u64(seconds).u64(seconds).u32(nanos).u32(nanos).u32(nanos);
        // Blocks of 128 KiB: what programs read at once.
        self.u32(attr.mode).u32(attr.links).u32(attr.uid).u32(attr.gid).u32(0).u32(128 * 1024).u32(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(reply: Reply) -> usize {
        reply.pieces().iter().map(Bytes::len).sum()
    }

    #[test]
    fn answers_are_as_long_as_the_kernel_wants_them() {
        let attr = Attr { number: 1, size: 2, mtime_ns: -1, mode: 0o100_644, uid: 3, gid: 4, links: 1 };
        let entry = |node| Entry { node, attr, valid: Duration::from_millis(1500) };
        assert_eq!(length(Reply::Entry(entry(7))), 128);
        assert_eq!(length(Reply::Entry(entry(0))), 128);
        assert_eq!(length(Reply::Attr(attr, Duration::ZERO)), 104);
        assert_eq!(length(Reply::Create { entry: entry(7), handle: 1 }), 144);
        assert_eq!(length(Reply::Open { handle: 1, flags: 0 }), 16);
        assert_eq!(length(Reply::Written(1)), 8);
        assert_eq!(length(Reply::Statfs), 80);
    }

    #[test]
    fn a_directory_holds_what_there_is_room_for() {
        let mut directory = Directory::new(64);
        assert!(directory.add(1, 1, NameType::File, "12345678"));
        assert!(directory.add(2, 2, NameType::Directory, "x"));
        assert!(!directory.add(3, 3, NameType::File, "y"));
        assert_eq!(length(Reply::Directory(directory)), 64);
    }
}
