//! What the kernel asks (linux/fuse.h): bytes to an owned operation.

use bytes::Bytes;

use crate::sys::Errno;

/// Bytes before each request.
pub(super) const HEADER: usize = 40;

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) opcode: u32,
    /// Its number, for the answer.
    pub(super) unique: u64,
    /// The inode that it is about.
    pub(super) node: u64,
}

/// What `FUSE_INIT` offers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Init {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) flags: u32,
}

/// A time that `FUSE_SETATTR` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bucket) enum SetTime {
    /// What it is when it is set.
    Now,
    /// Nanoseconds since 1970.
    At(i128),
}

/// What `FUSE_SETATTR` changes of what we keep. Owners are the mount's and stay so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::bucket) struct SetAttr {
    pub(in crate::bucket) mode: Option<u32>,
    pub(in crate::bucket) size: Option<u64>,
    pub(in crate::bucket) mtime: Option<SetTime>,
}

/// An operation on the file system.
#[derive(Debug)]
pub(in crate::bucket) enum Op {
    Lookup {
        name: String,
    },
    Getattr,
    Setattr(SetAttr),
    Readlink,
    Symlink {
        name: String,
        target: String,
    },
    Mknod {
        name: String,
        mode: u32,
    },
    Mkdir {
        name: String,
        mode: u32,
    },
    Unlink {
        name: String,
    },
    Rmdir {
        name: String,
    },
    Rename {
        name: String,
        parent: u64,
        new_name: String,
        flags: u32,
    },
    Open {
        flags: u32,
    },
    Create {
        name: String,
        flags: u32,
        mode: u32,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Write {
        handle: u64,
        offset: u64,
        data: Bytes,
    },
    Statfs,
    Release {
        handle: u64,
    },
    Flush {
        handle: u64,
    },
    Fsync {
        handle: u64,
    },
    Opendir,
    Readdir {
        handle: u64,
        offset: u64,
        size: u32,
    },
    /// With attributes, of as many names as they are known of.
    ReaddirPlus {
        handle: u64,
        offset: u64,
        size: u32,
    },
    Releasedir {
        handle: u64,
    },
    Fsyncdir,
    Fallocate {
        handle: u64,
        end: u64,
        mode: u32,
    },
}

/// What the kernel wants.
#[derive(Debug)]
pub(super) enum Request {
    Init(Init),
    /// No answer is expected: inodes, and by how much fewer references the kernel has.
    Forget(Vec<(u64, u64)>),
    /// Whoever waits for this request is to be let go.
    Interrupt {
        unique: u64,
    },
    Destroy,
    Op(Op),
    /// Nothing that we do.
    Refused(Errno),
}

/// Fields, one after the other, of a body. The kernel and we are of one machine.
struct Fields<'a>(&'a [u8], &'a Bytes);

impl Fields<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*head))
    }

    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*head))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// A text that ends with NUL: the kernel has bounded it, names at `NAME_MAX`.
    fn text(&mut self) -> Option<Result<String, Errno>> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = std::str::from_utf8(&self.0[..end]).map(str::to_owned).map_err(|_| Errno::ILSEQ);
        self.0 = &self.0[end + 1..];
        Some(text)
    }
}

/// The head of a request.
pub(super) fn header(bytes: &[u8]) -> Option<Header> {
    let none = Bytes::new();
    let mut fields = Fields(bytes.get(..HEADER)?, &none);
    fields.skip(4)?;
    Some(Header { opcode: fields.u32()?, unique: fields.u64()?, node: fields.u64()? })
}

/// The whole request; one that is cut short is refused.
pub(super) fn parse(header: Header, body: &Bytes) -> Request {
    match parts(header.opcode, &mut Fields(body, body)) {
        Some(Ok(request)) => request,
        Some(Err(errno)) => Request::Refused(errno),
        None => Request::Refused(Errno::IO),
    }
}

fn parts(opcode: u32, fields: &mut Fields<'_>) -> Option<Result<Request, Errno>> {
    let request = match opcode {
        26 => Request::Init(Init {
            major: fields.u32()?,
            minor: fields.u32()?,
            flags: {
                // Bytes that the kernel reads ahead by itself.
                fields.u32()?;
                fields.u32()?
            },
        }),
        2 => Request::Forget(vec![(0, fields.u64()?)]),
        42 => {
            let count = fields.u32()?;
            fields.skip(4)?;
            let mut nodes = Vec::new();
            for _ in 0..count {
                nodes.push((fields.u64()?, fields.u64()?));
            }
            Request::Forget(nodes)
        }
        36 => Request::Interrupt { unique: fields.u64()? },
        38 => Request::Destroy,
        _ => {
            let op = match opcode {
                1 | 6 | 8..=12 | 35 | 45 => named(opcode, fields)?,
                _ => by_node(opcode, fields)?,
            };
            return Some(op.map(Request::Op));
        }
    };
    Some(Ok(request))
}

/// Operations that have names in them.
fn named(opcode: u32, fields: &mut Fields<'_>) -> Option<Result<Op, Errno>> {
    let mut numbers = [0; 4];
    let (count, skipped) = match opcode {
        // mkdir: mode, umask.
        9 => (2, 0),
        // rename: the other directory; rename2: and flags.
        12 => (2, 0),
        45 => (3, 4),
        // mknod: mode, device, umask; create: flags, mode, umask, open flags.
        8 => (3, 4),
        35 => (4, 0),
        _ => (0, 0),
    };
    for number in numbers.iter_mut().take(count) {
        *number = fields.u32()?;
    }
    fields.skip(skipped)?;
    let name = match fields.text()? {
        Ok(name) => name,
        Err(errno) => return Some(Err(errno)),
    };
    let second = if matches!(opcode, 6 | 12 | 45) { fields.text()? } else { Ok(String::new()) };
    Some(second.map(|second| match opcode {
        1 => Op::Lookup { name },
        6 => Op::Symlink { name, target: second },
        8 => Op::Mknod { name, mode: numbers[0] },
        9 => Op::Mkdir { name, mode: numbers[0] },
        10 => Op::Unlink { name },
        11 => Op::Rmdir { name },
        35 => Op::Create { name, flags: numbers[0], mode: numbers[1] },
        _ => {
            // Two halves of one number, as this machine orders them.
            let [low, high] = [numbers[0].to_ne_bytes(), numbers[1].to_ne_bytes()];
            let mut parent = [0; 8];
            parent[..4].copy_from_slice(&low);
            parent[4..].copy_from_slice(&high);
            Op::Rename { name, parent: u64::from_ne_bytes(parent), new_name: second, flags: numbers[2] }
        }
    }))
}

/// Operations on an inode or an open file.
fn by_node(opcode: u32, fields: &mut Fields<'_>) -> Option<Result<Op, Errno>> {
    let op = match opcode {
        3 => Op::Getattr,
        4 => Op::Setattr(setattr(fields)?),
        5 => Op::Readlink,
        // Hard links are what a bucket has not: programs that try have another way.
        13 => return Some(Err(Errno::PERM)),
        14 => Op::Open { flags: fields.u32()? },
        15 => Op::Read { handle: fields.u64()?, offset: fields.u64()?, size: fields.u32()? },
        16 => {
            let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
            fields.skip(20)?;
            let data = fields.0.get(..usize::try_from(size).ok()?)?;
            Op::Write { handle, offset, data: fields.1.slice_ref(data) }
        }
        17 => Op::Statfs,
        18 => Op::Release { handle: fields.u64()? },
        20 => Op::Fsync { handle: fields.u64()? },
        25 => Op::Flush { handle: fields.u64()? },
        27 => Op::Opendir,
        28 => Op::Readdir { handle: fields.u64()?, offset: fields.u64()?, size: fields.u32()? },
        44 => Op::ReaddirPlus { handle: fields.u64()?, offset: fields.u64()?, size: fields.u32()? },
        29 => Op::Releasedir { handle: fields.u64()? },
        30 => Op::Fsyncdir,
        43 => {
            let (handle, offset, length) = (fields.u64()?, fields.u64()?, fields.u64()?);
            Op::Fallocate { handle, end: offset.saturating_add(length), mode: fields.u32()? }
        }
        // The kernel hears it once and does without.
        _ => return Some(Err(Errno::NOSYS)),
    };
    Some(Ok(op))
}

fn setattr(fields: &mut Fields<'_>) -> Option<SetAttr> {
    let valid = fields.u32()?;
    fields.skip(4 + 8)?;
    let size = fields.u64()?;
    fields.skip(8 + 8)?;
    let mtime = fields.u64()?;
    fields.skip(8 + 4)?;
    let mtime_ns = fields.u32()?;
    fields.skip(4)?;
    let mode = fields.u32()?;
    let has = |bit: u32| valid & (1 << bit) != 0;
    // Seconds are signed, whatever their type says.
    let at = SetTime::At(i128::from(mtime.cast_signed()) * 1_000_000_000 + i128::from(mtime_ns));
    Some(SetAttr {
        mode: has(0).then_some(mode),
        size: has(3).then_some(size),
        mtime: has(5).then_some(if has(8) { SetTime::Now } else { at }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_op(opcode: u32, body: &[u8]) -> Request {
        parse(Header { opcode, unique: 1, node: 1 }, &Bytes::copy_from_slice(body))
    }

    #[test]
    fn names_are_text_and_the_rest_is_refused() {
        assert!(matches!(parse_op(1, b"a\0"), Request::Op(Op::Lookup { name }) if name == "a"));
        assert!(matches!(parse_op(1, b"\xff\0"), Request::Refused(Errno::ILSEQ)));
        assert!(matches!(parse_op(1, b"a"), Request::Refused(Errno::IO)));
        let rename = [&7_u64.to_ne_bytes()[..], &1_u32.to_ne_bytes(), &[0; 4], b"a\0b\0"].concat();
        let Request::Op(Op::Rename { name, parent, new_name, flags }) = parse_op(45, &rename) else {
            panic!()
        };
        assert_eq!((&*name, parent, &*new_name, flags), ("a", 7, "b", 1));
        assert!(matches!(parse_op(22, b""), Request::Refused(Errno::NOSYS)));
    }

    #[test]
    fn a_write_has_the_bytes_that_it_says_or_is_refused() {
        let mut body =
            [&1_u64.to_ne_bytes()[..], &2_u64.to_ne_bytes(), &3_u32.to_ne_bytes(), &[0; 20]].concat();
        body.extend(b"abc");
        let Request::Op(Op::Write { handle: 1, offset: 2, data }) = parse_op(16, &body) else { panic!() };
        assert_eq!(&data[..], b"abc");
        body.pop();
        assert!(matches!(parse_op(16, &body), Request::Refused(Errno::IO)));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(opcode in 0_u32..50, body: Vec<u8>) {
            let _ = parse_op(opcode, &body);
        }
    }
}
